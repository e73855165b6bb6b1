// SPDX-License-Identifier: GPL-2.0-or-later
#include "detach_all.h"

#include "client.h"
#include "config.h"
#include "datapath.h"
#include "links.h"
#include "log.h"
#include "preflight.h"
#include "tc.h"
#include "xdp.h"

#include <errno.h>
#include <string.h>

/* More than libxdp's dispatcher has room for. */
#define XDP_PROGRAMS_MAX 16

struct detaching {
	const char *pin_dir;
	struct tc *tc;
	struct datapath_owner owner;
	unsigned n_removed;
	int result;	/* of the first that failed */
	bool last_pass; /* over the XDP programs: what fails now is told */
};

static void failed(struct detaching *d, int r, const char *where, const struct error *err)
{
	if (!d->result)
		d->result = r;
	fprintf(stderr, "fwd: %s: %s\n", where, err->text);
}

static void removed(struct detaching *d, const char *where, const char *what)
{
	d->n_removed++;
	printf("%s: %s\n", where, what);
}

/* ---- the configuration ---- */

/* What is wrong with the file, in one line. */
static void say_refused(const char *file, const struct config_errors *errors, const char *pin_dir)
{
	_cleanup_free_ char *text = errors->n ? config_error_text(file, &errors->items[0]) : NULL;

	fprintf(stderr, "fwd: %s%s; going by pin_dir \"%s\"\n", text ? text : file,
		errors->n > 1 ? ", and other errors" : "", pin_dir);
}

/* The configuration, or what can be had of it. */
static int read_config(const char *file, struct config **ret, struct error *err)
{
	struct config_errors errors = {0};
	int r = config_load(file, ret, &errors);

	if (r < 0) {
		r = config_salvage(file, ret, err);
		if (!r)
			say_refused(file, &errors, (*ret)->daemon.pin_dir);
	}
	config_errors_clear(&errors);
	return r;
}

/* ---- an interface ---- */

/* All of ours; -EEXIST, unreported: an interface on top of it has a program, too. */
static int detach_xdp(struct detaching *d, const struct link_info *link)
{
	char what[64];
	struct error err;

	for (unsigned i = 0; i < XDP_PROGRAMS_MAX; i++) {
		struct xdp_state state;
		int r = xdp_query(link->ifindex, &d->owner, NULL, &state, &err);

		if (!r && !state.program_id)
			return 0;
		if (!r)
			r = xdp_detach(link->ifindex, &state, &err);
		if (r == -EEXIST && !d->last_pass)
			return r;
		if (r < 0) {
			failed(d, r, link->name, &err);
			return r;
		}
		snprintf(what, sizeof(what), "%s XDP program taken off%s",
			 state.native ? "native" : "generic",
			 state.dispatcher ? ", out of a dispatcher" : "");
		removed(d, link->name, what);
	}
	return 0;
}

/* The ones on top first, which no list tells: again as long as that helps. */
static void detach_xdp_of_all(struct detaching *d, const struct link_info *links, size_t n)
{
	bool again;

	do {
		unsigned before = d->n_removed;

		again = false;
		for (size_t i = 0; i < n; i++)
			again |= detach_xdp(d, &links[i]) == -EEXIST;
		again = again && !d->last_pass;
		d->last_pass = d->n_removed == before;
	} while (again);
}

static int find_filter(struct detaching *d, const struct link_info *link, enum fwd_hook hook,
		       bool *ret_ours, struct error *err)
{
	u32 there = 0;
	int r = tc_get_filter(d->tc, link->ifindex, hook, &there, err);

	return r < 0 ? r : datapath_owner_has(&d->owner, there, ret_ours, err);
}

/* True if there was one of ours. */
static bool detach_filter(struct detaching *d, const struct link_info *link, enum fwd_hook hook)
{
	struct error err;
	bool ours;
	int r = find_filter(d, link, hook, &ours, &err);

	if (!r && !ours)
		return false;
	if (!r)
		r = tc_remove_filter(d->tc, link->ifindex, hook, &err);
	if (r < 0) {
		failed(d, r, link->name, &err);
		return false;
	}
	removed(d, link->name,
		hook == FWD_HOOK_TC_IN ? "tc filter taken off ingress"
				       : "tc filter taken off egress");
	return true;
}

/* Where the table of slots is lost, a clsact that had only our filters is taken for ours. */
static void remove_clsact(struct detaching *d, const struct link_info *link, bool had_filter)
{
	int ours = datapath_added_clsact(d->pin_dir, link->ifindex);
	bool gone = false;
	struct error err;
	int r;

	if (ours < 0 ? !had_filter : !ours)
		return;
	r = tc_remove_clsact(d->tc, link->ifindex, &gone, &err);
	if (r < 0)
		failed(d, r, link->name, &err);
	else if (gone)
		removed(d, link->name, "clsact qdisc removed");
}

static int detach_links(struct detaching *d, struct error *err)
{
	_cleanup_(links_closep) struct links *links = NULL;
	_cleanup_free_ struct link_info *list = NULL;
	size_t n = 0;
	int r = links_open(&links, err);

	if (!r)
		r = tc_open(&d->tc, err);
	if (!r)
		r = links_list(links, &list, &n, err);
	if (r < 0)
		return r;
	detach_xdp_of_all(d, list, n);
	for (size_t i = 0; i < n; i++) {
		bool had_filter = detach_filter(d, &list[i], FWD_HOOK_TC_IN);

		had_filter |= detach_filter(d, &list[i], FWD_HOOK_TC_OUT);
		remove_clsact(d, &list[i], had_filter);
	}
	return 0;
}

/* ---- the whole ---- */

/*
 * Holds off a daemon that would start meanwhile. Where somebody removed the directory its lock is
 * gone with it; then the socket tells.
 */
static int refuse_running(const struct config *config, int *ret_lock, struct error *err)
{
	_cleanup_(client_closep) struct client *client = NULL;
	int r = 0;

	if (access(config->daemon.pin_dir, F_OK) < 0) {
		if (!client_connect(config->daemon.socket, &client, NULL))
			r = -EBUSY;
	} else {
		r = datapath_lock(config->daemon.pin_dir, ret_lock, err);
	}
	if (r == -EBUSY)
		error_set(err, r,
			  "fwd runs: stop it first (systemctl stop fwd), or it would attach "
			  "everything again");
	return r;
}

/* On no other file system, whose directories may have such names. */
static void remove_pins(struct detaching *d)
{
	struct error err;
	int r;

	if (access(d->pin_dir, F_OK) < 0)
		return;
	r = preflight_check_bpffs(d->pin_dir, &err);
	if (!r)
		r = datapath_remove_pins(d->pin_dir, &err);
	if (r < 0)
		failed(d, r, d->pin_dir, &err);
	else if (access(d->pin_dir, F_OK) < 0)
		removed(d, d->pin_dir, "pins removed");
	else
		printf("%s: stays: there is something in it that is not of fwd\n", d->pin_dir);
}

static int detach_with(const struct config *config, struct error *err)
{
	struct detaching d = {.pin_dir = config->daemon.pin_dir};
	_cleanup_close_ int lock = -1;
	int r = preflight_check_privileges(err);

	if (!r)
		r = refuse_running(config, &lock, err);
	if (r < 0)
		return r;
	datapath_read_owner(d.pin_dir, &d.owner);
	d.owner.by_looks = true;
	r = detach_links(&d, err);
	tc_close(d.tc);
	if (r < 0)
		failed(&d, r, "the interfaces", err);
	/* What could not be taken off is still known by them. */
	if (!d.result)
		remove_pins(&d);
	if (d.result)
		return error_set(err, d.result, "not everything could be removed");
	if (d.n_removed)
		printf("Packets are no longer filtered. Rules that fwctl added stay in %s.\n",
		       config->daemon.state_dir);
	else
		puts("There was nothing of fwd in the kernel.");
	return 0;
}

int detach_all(const char *config_file)
{
	_cleanup_(config_freep) struct config *config = NULL;
	struct error err;
	int r;

	log_adopt_libraries();
	r = read_config(config_file, &config, &err);
	if (!r)
		r = detach_with(config, &err);
	if (r < 0)
		fprintf(stderr, "fwd: %s\n", err.text);
	return r;
}
