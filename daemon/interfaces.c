// SPDX-License-Identifier: GPL-2.0-or-later
#include "interfaces.h"

#include "log.h"
#include "xdp.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* What is attached in a slot, as far as this process has seen to it. */
struct attachment {
	struct xdp_state xdp;
	bool checked[FWD_HOOKS];   /* the program there is this build's, on these maps */
	u32 program_id[FWD_HOOKS]; /* 0: none */
	char *error;
};

struct interfaces {
	struct links *links;
	struct tc *tc;
	struct datapath *dp;
	struct datapath_owner owner;
	struct interfaces_wanted wanted;
	struct attachment slots[FWD_MAX_INTERFACES];
	bool full_logged;
};

int interfaces_open(struct links *links, struct tc *tc, struct interfaces **ret, struct error *err)
{
	struct interfaces *ifs = calloc(1, sizeof(*ifs));

	if (!ifs)
		return error_no_memory(err);
	ifs->links = links;
	ifs->tc = tc;
	*ret = ifs;
	return 0;
}

void interfaces_close(struct interfaces *ifs)
{
	if (!ifs)
		return;
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		free(ifs->slots[slot].error);
	free(ifs);
}

void interfaces_use(struct interfaces *ifs, struct datapath *dp, const struct datapath_owner *owner)
{
	/* To check a program is to load it once more, which takes time. */
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES && dp != ifs->dp; slot++)
		memset(ifs->slots[slot].checked, 0, sizeof(ifs->slots[slot].checked));
	ifs->dp = dp;
	ifs->owner = *owner;
}

void interfaces_want(struct interfaces *ifs, const struct interfaces_wanted *wanted)
{
	ifs->wanted = *wanted;
}

/* ---- what an interface should have ---- */

/* The entry of the configuration for a name: that name itself before any glob. */
static const struct config_interface *find_pattern(const struct interfaces *ifs, const char *name)
{
	const struct interfaces_wanted *wanted = &ifs->wanted;

	for (size_t i = 0; i < wanted->n_patterns; i++)
		if (!strcmp(wanted->patterns[i].name, name))
			return &wanted->patterns[i];
	for (size_t i = 0; i < wanted->n_patterns; i++)
		if (!fnmatch(wanted->patterns[i].name, name, 0))
			return &wanted->patterns[i];
	return NULL;
}

static bool needs_hook(const struct interfaces *ifs, const char *name, enum fwd_hook hook)
{
	const struct interfaces_wanted *wanted = &ifs->wanted;
	u8 direction = hook == FWD_HOOK_TC_OUT ? DIRECTION_OUT : DIRECTION_IN;

	if (!find_pattern(ifs, name))
		return false;
	if (hook == FWD_HOOK_XDP)
		return wanted->flags & FWD_BLOCK_IN;
	if (hook == FWD_HOOK_TC_OUT && wanted->flags & FWD_BLOCK_OUT)
		return true;
	for (size_t i = 0; i < wanted->n_redirects; i++) {
		const struct redirect *redirect = &wanted->redirects[i];

		if (redirect->direction == direction && strcmp(redirect->target, name) != 0 &&
		    (!redirect->interface[0] || !strcmp(redirect->interface, name)))
			return true;
	}
	return false;
}

/* ---- errors ---- */

/* Keeps and logs an interface's failure, unless it is the same as before (I3). */
static void note_error(struct interfaces *ifs, u32 slot, const char *text)
{
	struct attachment *at = &ifs->slots[slot];
	const char *name = datapath_interfaces(ifs->dp)[slot].name;

	if (!text && at->error)
		log_notice("%s: the trouble is over", name);
	else if (text && (!at->error || strcmp(at->error, text) != 0))
		log_error("%s: %s; its packets are not filtered there", name, text);
	if (text && at->error && !strcmp(at->error, text))
		return;
	free(at->error);
	at->error = text ? strdup(text) : NULL;
}

/* ---- XDP ---- */

/* True if the program in the kernel is the one that this build would load on these maps. */
static bool is_same_program(struct interfaces *ifs, u32 attached_id, int fresh_fd)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(attached_id);
	struct bpf_prog_info old = {0}, fresh = {0};
	u32 size = sizeof(old);

	if (fd < 0 || !datapath_has_program(ifs->dp, attached_id) ||
	    bpf_obj_get_info_by_fd(fd, &old, &size) < 0)
		return false;
	size = sizeof(fresh);
	return bpf_obj_get_info_by_fd(fresh_fd, &fresh, &size) >= 0 &&
	       !memcmp(old.tag, fresh.tag, sizeof(old.tag));
}

/* An attached XDP program that a daemon before us left: keep it if we would load the same. */
static bool keeps_xdp(struct interfaces *ifs, u32 slot, const struct link_info *link,
		      const struct xdp_state *state)
{
	struct bpf_object *obj = NULL;
	bool same = false;

	if (datapath_open_xdp(ifs->dp, slot, link->has_l2, &obj, NULL) < 0)
		return false;
	if (bpf_object__load(obj) >= 0)
		same = is_same_program(ifs, state->program_id,
				       bpf_program__fd(bpf_object__next_program(obj, NULL)));
	bpf_object__close(obj);
	return same;
}

static int attach_xdp_once(struct interfaces *ifs, u32 slot, const struct link_info *link,
			   bool native, const struct xdp_state *state, struct error *err)
{
	struct bpf_object *obj = NULL;
	int fd = -1, r;

	r = datapath_open_xdp(ifs->dp, slot, link->has_l2, &obj, err);
	if (r < 0)
		return r;
	r = xdp_attach(link->ifindex, link->name, obj, native, state, &fd, err);
	if (!r)
		r = datapath_pin_program(ifs->dp, slot, FWD_HOOK_XDP, fd, err);
	bpf_object__close(obj);
	return r;
}

static int attach_xdp(struct interfaces *ifs, u32 slot, const struct link_info *link,
		      enum xdp_mode_wanted mode, const struct xdp_state *state, struct error *err)
{
	struct error native_err;
	bool native = mode != XDP_WANT_GENERIC;
	int r;

	/* What auto once settled for stays, so that a restart does not try again. */
	if (mode == XDP_WANT_AUTO && state->program_id)
		native = state->native;
	r = attach_xdp_once(ifs, slot, link, native, state, err);
	if (r >= 0 || !native || mode != XDP_WANT_AUTO || r == -EBUSY || r == -ENODEV)
		return r;
	native_err = *err;
	r = attach_xdp_once(ifs, slot, link, false, state, err);
	if (!r)
		log_warning("%s: %s; using generic XDP, which is slower", link->name,
			    native_err.text);
	return r;
}

static bool mode_is_right(enum xdp_mode_wanted mode, bool native)
{
	return mode == XDP_WANT_AUTO || (mode == XDP_WANT_NATIVE) == native;
}

static int ensure_xdp(struct interfaces *ifs, u32 slot, const struct link_info *link,
		      struct error *err)
{
	const struct config_interface *pattern = find_pattern(ifs, link->name);
	enum xdp_mode_wanted mode = pattern ? pattern->xdp_mode : XDP_WANT_AUTO;
	struct attachment *at = &ifs->slots[slot];
	struct xdp_state state = {0};
	int r = xdp_query(link->ifindex, &ifs->owner, &state, err);

	if (r < 0)
		return r;
	if (state.program_id && mode_is_right(mode, state.native) &&
	    ((at->checked[FWD_HOOK_XDP] && state.program_id == at->program_id[FWD_HOOK_XDP]) ||
	     keeps_xdp(ifs, slot, link, &state))) {
		at->xdp = state;
	} else {
		r = attach_xdp(ifs, slot, link, mode, &state, err);
		if (!r)
			r = xdp_query(link->ifindex, &ifs->owner, &at->xdp, err);
		if (r < 0)
			return r;
		log_info("%s: %s XDP%s", link->name, at->xdp.native ? "native" : "generic",
			 at->xdp.dispatcher ? ", shared by a dispatcher" : "");
	}
	at->program_id[FWD_HOOK_XDP] = at->xdp.program_id;
	at->checked[FWD_HOOK_XDP] = true;
	return 0;
}

static int drop_xdp(struct interfaces *ifs, u32 slot, int ifindex, struct error *err)
{
	struct attachment *at = &ifs->slots[slot];
	struct xdp_state state = {0};
	int r = xdp_query(ifindex, &ifs->owner, &state, err);

	if (!r)
		r = xdp_detach(ifindex, &state, err);
	if (r < 0)
		return r;
	at->xdp = (struct xdp_state){0};
	at->program_id[FWD_HOOK_XDP] = 0;
	at->checked[FWD_HOOK_XDP] = false;
	datapath_unpin_program(ifs->dp, slot, FWD_HOOK_XDP);
	return 0;
}

/* ---- TC ---- */

static int add_clsact(struct interfaces *ifs, u32 slot, int ifindex, struct error *err)
{
	bool added = false;
	int r = tc_add_clsact(ifs->tc, ifindex, &added, err);

	if (!r && added)
		datapath_interfaces(ifs->dp)[slot].flags |= FWD_INTERFACE_CLSACT;
	return r;
}

static u32 program_id(int fd)
{
	struct bpf_prog_info info = {0};
	u32 size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ? 0 : info.id;
}

static int ensure_tc(struct interfaces *ifs, u32 slot, const struct link_info *link,
		     enum fwd_hook hook, struct error *err)
{
	struct attachment *at = &ifs->slots[slot];
	_cleanup_close_ int fd = -1;
	u32 there = 0;
	int r = tc_get_filter(ifs->tc, link->ifindex, hook, &there, err);

	if (r < 0)
		return r;
	if (there && at->checked[hook] && there == at->program_id[hook])
		return 0;
	if (there && !datapath_owner_has(&ifs->owner, there))
		return error_set(err, -EBUSY,
				 "a tc filter of another program (id %u) has our priority %d and "
				 "handle %#x",
				 there, TC_PRIORITY, TC_HANDLE);
	r = datapath_load_tc(ifs->dp, slot, hook, link->has_l2, &fd, err);
	if (r < 0)
		return r;
	if (there && is_same_program(ifs, there, fd)) {
		at->program_id[hook] = there;
		at->checked[hook] = true;
		return 0;
	}
	r = add_clsact(ifs, slot, link->ifindex, err);
	if (!r)
		r = datapath_pin_program(ifs->dp, slot, hook, fd, err);
	if (!r)
		r = tc_set_filter(ifs->tc, link->ifindex, hook, fd, err);
	if (r < 0)
		return r;
	at->program_id[hook] = program_id(fd);
	at->checked[hook] = true;
	return 0;
}

static int drop_tc(struct interfaces *ifs, u32 slot, int ifindex, enum fwd_hook hook,
		   struct error *err)
{
	struct fwd_interface *row = &datapath_interfaces(ifs->dp)[slot];
	struct attachment *at = &ifs->slots[slot];
	bool gone = false;
	u32 there = 0;
	int r = tc_get_filter(ifs->tc, ifindex, hook, &there, err);

	if (!r && there && datapath_owner_has(&ifs->owner, there))
		r = tc_remove_filter(ifs->tc, ifindex, hook, err);
	/* The other direction's filter, which may be there unchecked, keeps it too. */
	if (!r && row->flags & FWD_INTERFACE_CLSACT)
		r = tc_remove_clsact(ifs->tc, ifindex, &gone, err);
	if (r < 0)
		return r;
	if (gone)
		row->flags &= ~FWD_INTERFACE_CLSACT;
	at->program_id[hook] = 0;
	at->checked[hook] = false;
	datapath_unpin_program(ifs->dp, slot, hook);
	return 0;
}

/* ---- one hook ---- */

static int ensure(struct interfaces *ifs, u32 slot, const struct link_info *link,
		  enum fwd_hook hook, struct error *err)
{
	if (hook == FWD_HOOK_XDP)
		return ensure_xdp(ifs, slot, link, err);
	return ensure_tc(ifs, slot, link, hook, err);
}

static int drop(struct interfaces *ifs, u32 slot, int ifindex, enum fwd_hook hook,
		struct error *err)
{
	if (hook == FWD_HOOK_XDP)
		return drop_xdp(ifs, slot, ifindex, err);
	return drop_tc(ifs, slot, ifindex, hook, err);
}

/* ---- slots ---- */

static bool find_slot(const struct interfaces *ifs, int ifindex, u32 *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		if (rows[slot].ifindex == (u32)ifindex) {
			*ret = slot;
			return true;
		}
	}
	return false;
}

static void free_slot(struct interfaces *ifs, u32 slot)
{
	for (u32 hook = 0; hook < FWD_HOOKS; hook++)
		datapath_unpin_program(ifs->dp, slot, hook);
	free(ifs->slots[slot].error);
	ifs->slots[slot] = (struct attachment){0};
	datapath_interfaces(ifs->dp)[slot] = (struct fwd_interface){0};
}

static bool allocate_slot(struct interfaces *ifs, const struct link_info *link, u32 *ret)
{
	struct fwd_interface *row;
	u32 slot;

	if (!find_slot(ifs, 0, &slot)) {
		if (!ifs->full_logged)
			log_error("%s: full: %d of %d interfaces; its packets are not filtered",
				  link->name, FWD_MAX_INTERFACES, FWD_MAX_INTERFACES);
		ifs->full_logged = true;
		return false;
	}
	datapath_clear_counters(ifs->dp, slot);
	row = &datapath_interfaces(ifs->dp)[slot];
	memcpy(row->name, link->name, sizeof(row->name));
	row->flags = 0;
	row->ifindex = (u32)link->ifindex;
	*ret = slot;
	return true;
}

/* Slots for interfaces that match and have none. *ret_changed: some scope is another now. */
static void add_slots(struct interfaces *ifs, const struct link_info *links, size_t n,
		      bool *ret_changed)
{
	for (size_t i = 0; i < n; i++) {
		struct fwd_interface *row;
		u32 slot;

		if (find_slot(ifs, links[i].ifindex, &slot)) {
			row = &datapath_interfaces(ifs->dp)[slot];
			if (!strcmp(row->name, links[i].name))
				continue;
			log_notice("%s is called %s now", row->name, links[i].name);
			memcpy(row->name, links[i].name, sizeof(row->name));
			*ret_changed = true;
		} else if (find_pattern(ifs, links[i].name)) {
			*ret_changed |= allocate_slot(ifs, &links[i], &slot);
		}
	}
}

/* Gives up slots whose interface is gone, or matches nothing any more. */
static void remove_slots(struct interfaces *ifs, bool *ret_changed)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		struct fwd_interface *row = &datapath_interfaces(ifs->dp)[slot];
		struct link_info link;
		struct error err;
		int r = 0;

		if (!row->ifindex)
			continue;
		if (links_get(ifs->links, (int)row->ifindex, &link)) {
			if (find_pattern(ifs, link.name))
				continue;
			for (u32 hook = 0; hook < FWD_HOOKS && !r; hook++)
				r = drop(ifs, slot, link.ifindex, hook, &err);
			if (r < 0) {
				note_error(ifs, slot, err.text);
				continue;
			}
			log_info("%s: left", row->name);
		} else {
			log_info("%s: gone", row->name);
		}
		free_slot(ifs, slot);
		*ret_changed = true;
	}
}

size_t interfaces_scopes(const struct interfaces *ifs, struct redirect_scope *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);
	size_t n = 0;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		if (!rows[slot].ifindex)
			continue;
		ret[n].slot = slot;
		memcpy(ret[n++].name, rows[slot].name, sizeof(rows[slot].name));
	}
	return n;
}

/* ---- redirects ---- */

void interfaces_set_targets(struct interfaces *ifs)
{
	for (size_t i = 0; i < ifs->wanted.n_redirects; i++) {
		const char *name = ifs->wanted.redirects[i].target;
		struct redirect_link target = {0};
		struct link_info link;

		if (links_find(ifs->links, name, &link)) {
			target.ifindex = (u32)link.ifindex;
			target.has_l2 = link.has_l2;
			memcpy(target.mac, link.mac, sizeof(target.mac));
		}
		redirect_map_set_target(datapath_redirects(ifs->dp), name, &target);
	}
}

/* The redirects again, for other interfaces than before. */
static void restage_redirects(struct interfaces *ifs)
{
	struct redirect_scope *scopes = calloc(FWD_MAX_INTERFACES, sizeof(*scopes));
	struct datapath_change change = {
		.flags = datapath_flags(ifs->dp),
		.redirects_too = true,
		.redirects = ifs->wanted.redirects,
		.n_redirects = ifs->wanted.n_redirects,
		.scopes = scopes,
	};
	struct error err;

	if (!scopes)
		return;
	change.n_scopes = interfaces_scopes(ifs, scopes);
	if (datapath_stage(ifs->dp, &change, &err) < 0)
		log_error("cannot set up the redirects for interfaces that came or went: %s",
			  err.text);
	else
		datapath_commit(ifs->dp);
	free(scopes);
}

/* ---- the whole ---- */

/* What one prepare has attached, to be undone. */
struct undo {
	u32 slot;
	int ifindex;
	enum fwd_hook hook;
};

static int prepare_link(struct interfaces *ifs, u32 slot, const struct link_info *link,
			struct undo *done, size_t *n_done, struct error *err)
{
	struct attachment *at = &ifs->slots[slot];

	for (u32 hook = 0; hook < FWD_HOOKS; hook++) {
		int r;

		if (!needs_hook(ifs, link->name, hook) || at->program_id[hook])
			continue;
		r = ensure(ifs, slot, link, hook, err);
		if (r < 0 && !at->error) {
			error_prepend(err, "%s: ", link->name);
			return r;
		}
		if (!r)
			done[(*n_done)++] = (struct undo){slot, link->ifindex, hook};
	}
	return 0;
}

int interfaces_prepare(struct interfaces *ifs, struct error *err)
{
	_cleanup_free_ struct link_info *links = NULL;
	_cleanup_free_ struct undo *done = NULL;
	size_t n, n_done = 0;
	bool changed = false;
	int r = links_list(ifs->links, &links, &n, err);

	if (r < 0)
		return r;
	done = calloc(n * FWD_HOOKS + 1, sizeof(*done));
	if (!done)
		return error_no_memory(err);
	add_slots(ifs, links, n, &changed);
	for (size_t i = 0; i < n && !r; i++) {
		u32 slot;

		if (find_slot(ifs, links[i].ifindex, &slot))
			r = prepare_link(ifs, slot, &links[i], done, &n_done, err);
	}
	if (r < 0)
		while (n_done--)
			drop(ifs, done[n_done].slot, done[n_done].ifindex, done[n_done].hook, NULL);
	return r;
}

int interfaces_move(struct interfaces *ifs, struct error *err)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		const struct fwd_interface *row = &datapath_interfaces(ifs->dp)[slot];
		struct link_info link;

		if (!row->ifindex || !links_get(ifs->links, (int)row->ifindex, &link))
			continue;
		for (u32 hook = 0; hook < FWD_HOOKS; hook++) {
			int r = ifs->slots[slot].program_id[hook]
					? ensure(ifs, slot, &link, hook, err)
					: 0;

			if (r < 0) {
				error_prepend(err, "%s: ", link.name);
				return r;
			}
		}
	}
	return 0;
}

static void settle_link(struct interfaces *ifs, u32 slot, const struct link_info *link)
{
	struct error err;

	for (u32 hook = 0; hook < FWD_HOOKS; hook++) {
		int r = 0;

		if (needs_hook(ifs, link->name, hook))
			r = ensure(ifs, slot, link, hook, &err);
		else
			r = drop(ifs, slot, link->ifindex, hook, &err);
		if (r == -ENODEV) /* it is gone; the message is on its way */
			return;
		if (r < 0) {
			note_error(ifs, slot, err.text);
			return;
		}
	}
	note_error(ifs, slot, NULL);
}

void interfaces_settle(struct interfaces *ifs)
{
	_cleanup_free_ struct link_info *links = NULL;
	bool changed = false;
	struct error err;
	size_t n;

	if (links_list(ifs->links, &links, &n, &err) < 0) {
		log_error("%s", err.text);
		return;
	}
	remove_slots(ifs, &changed);
	add_slots(ifs, links, n, &changed);
	if (changed)
		restage_redirects(ifs);
	interfaces_set_targets(ifs);
	for (size_t i = 0; i < n; i++) {
		u32 slot;

		if (find_slot(ifs, links[i].ifindex, &slot))
			settle_link(ifs, slot, &links[i]);
	}
}

/* Takes our programs off; with `strays_only`, just where no slot accounts for them. */
static void detach(struct interfaces *ifs, bool strays_only)
{
	_cleanup_free_ struct link_info *links = NULL;
	struct error err = {""};
	size_t n;

	if (links_list(ifs->links, &links, &n, &err) < 0) {
		log_error("%s", err.text);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		bool has_slot;
		u32 slot;

		has_slot = find_slot(ifs, links[i].ifindex, &slot);
		if (has_slot && strays_only)
			continue;
		/* A stray program has no slot: it gets one for as long as it takes to go. */
		if (!has_slot && !allocate_slot(ifs, &links[i], &slot))
			continue;
		for (u32 hook = 0; hook < FWD_HOOKS; hook++)
			if (drop(ifs, slot, links[i].ifindex, hook, &err) < 0)
				log_error("%s: %s", links[i].name, err.text);
		free_slot(ifs, slot);
	}
}

void interfaces_detach_all(struct interfaces *ifs)
{
	detach(ifs, false);
}

void interfaces_detach_strays(struct interfaces *ifs)
{
	detach(ifs, true);
}

bool interfaces_next(const struct interfaces *ifs, u32 *slot, struct interface_status *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);

	for (; *slot < FWD_MAX_INTERFACES; (*slot)++) {
		const struct attachment *at = &ifs->slots[*slot];

		if (!rows[*slot].ifindex)
			continue;
		*ret = (struct interface_status){
			.name = rows[*slot].name,
			.ifindex = (int)rows[*slot].ifindex,
			.slot = *slot,
			.xdp = at->program_id[FWD_HOOK_XDP],
			.native = at->xdp.native,
			.dispatcher = at->xdp.dispatcher,
			.tc_in = at->program_id[FWD_HOOK_TC_IN],
			.tc_out = at->program_id[FWD_HOOK_TC_OUT],
			.error = at->error,
		};
		(*slot)++;
		return true;
	}
	return false;
}

bool interfaces_is_wanted(const struct interfaces *ifs, const char *name)
{
	return find_pattern(ifs, name) != NULL;
}

int interfaces_check_redirect(struct interfaces *ifs, const struct redirect *redirect,
			      struct error *err)
{
	struct link_info from, target;

	if (redirect->mode != REDIRECT_L2 || !links_find(ifs->links, redirect->interface, &from) ||
	    !links_find(ifs->links, redirect->target, &target) || from.has_l2 || !target.has_l2)
		return 0;
	return error_set(
		err, -EINVAL,
		"mode \"l2\" cannot send from %s, whose packets have no link-layer header, "
		"to %s; use \"neigh\" or \"ingress\"",
		from.name, target.name);
}

bool interfaces_matches(struct interfaces *ifs, const char *pattern)
{
	_cleanup_free_ struct link_info *links = NULL;
	size_t n = 0;

	if (links_list(ifs->links, &links, &n, NULL) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(pattern, links[i].name) || !fnmatch(pattern, links[i].name, 0))
			return true;
	return false;
}
