// SPDX-License-Identifier: GPL-2.0-or-later
#include "attachment.h"

#include "log.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

const char *const attachment_hook_names[] = {
	[FWD_HOOK_XDP] = "XDP",
	[FWD_HOOK_TC_IN] = "TC in",
	[FWD_HOOK_TC_OUT] = "TC out",
};
_Static_assert(ARRAY_SIZE(attachment_hook_names) == FWD_HOOKS, "a name for each hook");

static void note_program(struct attachment *at, enum fwd_hook hook, u32 program_id)
{
	at->program_id[hook] = program_id;
	at->checked[hook] = program_id != 0;
}

/*
 * True if what is attached is what we would attach, so that it can stay: a program that a daemon
 * before us left, of this slot (the pin tells, which goes with the slot), on these maps, with the
 * same instructions.
 */
static bool can_stay(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		     u32 program_id)
{
	if (at->checked[hook] && at->program_id[hook] == program_id)
		return true;
	return datapath_pinned_program(site->dp, site->slot, hook) == program_id &&
	       datapath_has_program(site->dp, hook, program_id) &&
	       datapath_is_current_code(site->dp, hook, program_id);
}

/* ---- XDP ---- */

/* Alone on the interface, one program takes the place of the other. */
static int replace_xdp(const struct attachment_site *site, const struct xdp_state *state,
		       struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = datapath_load_xdp(site->dp, site->slot, site->link.has_l2,
				  xdp_wants_frags(state->native), &fd, err);

	if (!r)
		r = xdp_replace(site->link.ifindex, fd, state, err);
	if (!r)
		r = datapath_pin_program(site->dp, site->slot, FWD_HOOK_XDP, fd, err);
	return r;
}

static int attach_xdp_once(const struct attachment_site *site, bool native,
			   const struct xdp_state *state, struct error *err)
{
	struct bpf_object *obj = NULL;
	int fd = -1, r;

	if (state->program_id && !state->dispatcher)
		return replace_xdp(site, state, err);
	r = datapath_open_xdp(site->dp, site->slot, site->link.has_l2, &obj, err);
	if (r < 0)
		return r;
	r = xdp_attach(site->link.ifindex, site->link.name, obj, native, state, site->owner, &fd,
		       err);
	if (!r)
		r = datapath_pin_program(site->dp, site->slot, FWD_HOOK_XDP, fd, err);
	bpf_object__close(obj);
	return r;
}

/* What failed was only to pin it. */
static bool is_attached(const struct attachment_site *site)
{
	struct xdp_state now;

	return !xdp_query(site->link.ifindex, site->owner, NULL, &now, NULL) && now.program_id;
}

/* The kernel has no step from one mode to the other: off, and on again. */
static int change_xdp_mode(const struct attachment_site *site, bool native,
			   const struct xdp_state *state, struct error *err)
{
	const struct xdp_state none = {0};
	int r = xdp_detach(site->link.ifindex, state, err);

	if (r < 0)
		return r;
	r = attach_xdp_once(site, native, &none, err);
	if (r < 0 && !is_attached(site) && attach_xdp_once(site, state->native, &none, NULL) < 0)
		error_prepend(err, "not attached in its old mode either: ");
	return r;
}

static int attach_xdp(const struct attachment_site *site, const struct xdp_state *state,
		      struct error *err)
{
	bool native = site->xdp_mode != XDP_WANT_GENERIC;
	struct error native_err;
	int r;

	/* A program that is replaced stays in its mode: falling back would take it off first. */
	if (site->xdp_mode == XDP_WANT_AUTO && state->program_id)
		return attach_xdp_once(site, state->native, state, err);
	if (state->program_id && state->native != native)
		return change_xdp_mode(site, native, state, err);
	r = attach_xdp_once(site, native, state, err);
	if (r >= 0 || site->xdp_mode != XDP_WANT_AUTO || r == -EBUSY || r == -EEXIST ||
	    r == -ENODEV || is_attached(site))
		return r;
	native_err = *err;
	r = attach_xdp_once(site, false, state, err);
	if (!r)
		log_warning("%s: %s; using generic XDP, which is slower", site->link.name,
			    native_err.text);
	return r;
}

static bool mode_is_right(enum xdp_mode_wanted mode, bool native)
{
	return mode == XDP_WANT_AUTO || (mode == XDP_WANT_NATIVE) == native;
}

bool attachment_is_right(struct attachment *at, const struct attachment_site *site,
			 enum fwd_hook hook)
{
	u32 there = at->program_id[hook];

	if (hook == FWD_HOOK_XDP &&
	    (at->xdp.leftover || !mode_is_right(site->xdp_mode, at->xdp.native)))
		return false;
	return there && can_stay(at, site, hook, there);
}

static int ensure_xdp(struct attachment *at, const struct attachment_site *site, bool *ret_added,
		      struct error *err)
{
	bool had_one = at->xdp.program_id;
	int r;

	if (attachment_is_right(at, site, FWD_HOOK_XDP)) {
		note_program(at, FWD_HOOK_XDP, at->xdp.program_id);
		return 0;
	}
	r = attach_xdp(site, &at->xdp, err);
	/* Also after a failure: status tells what is there. */
	if (xdp_query(site->link.ifindex, site->owner, NULL, &at->xdp, r < 0 ? NULL : err) < 0)
		at->xdp = (struct xdp_state){0};
	if (r < 0) {
		at->program_id[FWD_HOOK_XDP] = at->xdp.program_id;
		at->checked[FWD_HOOK_XDP] = false;
		return r;
	}
	note_program(at, FWD_HOOK_XDP, at->xdp.program_id);
	*ret_added = !had_one;
	log_info("%s: %s XDP%s", site->link.name, at->xdp.native ? "native" : "generic",
		 at->xdp.dispatcher ? ", shared by a dispatcher" : "");
	return 0;
}

static int drop_xdp(struct attachment *at, const struct attachment_site *site, struct error *err)
{
	int r = xdp_detach(site->link.ifindex, &at->xdp, err);

	if (!r)
		at->xdp = (struct xdp_state){0};
	return r;
}

/* ---- TC ---- */

static int set_filter(const struct attachment_site *site, enum fwd_hook hook, int fd,
		      struct error *err)
{
	struct fwd_interface *row = &datapath_interfaces(site->dp)[site->slot];
	bool added = false;
	int r = tc_add_clsact(site->tc, site->link.ifindex, &added, err);

	if (r < 0)
		return r;
	if (added)
		row->flags |= FWD_INTERFACE_CLSACT;
	r = tc_set_filter(site->tc, site->link.ifindex, hook, fd, err);
	if (!r)
		r = datapath_pin_program(site->dp, site->slot, hook, fd, err);
	return r;
}

static int ensure_tc(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		     bool *ret_added, struct error *err)
{
	_cleanup_close_ int fd = -1;
	u32 there = at->program_id[hook];
	int r;

	if (at->foreign_id[hook])
		return error_set(err, -EBUSY,
				 "a tc filter of another program (id %u) has our priority %d and "
				 "handle %#x: take it off (tc filter del dev %s %s pref %d)",
				 at->foreign_id[hook], TC_PRIORITY, TC_HANDLE, site->link.name,
				 hook == FWD_HOOK_TC_IN ? "ingress" : "egress", TC_PRIORITY);
	if (attachment_is_right(at, site, hook)) {
		note_program(at, hook, there);
		return 0;
	}
	at->checked[hook] = false;
	r = datapath_load_tc(site->dp, site->slot, hook, site->link.has_l2, &fd, err);
	if (!r)
		r = set_filter(site, hook, fd, err);
	if (!r)
		r = tc_get_filter(site->tc, site->link.ifindex, hook, &there, err);
	if (r < 0)
		return r;
	*ret_added = !at->program_id[hook];
	note_program(at, hook, there);
	return 0;
}

static int drop_tc(const struct attachment *at, const struct attachment_site *site,
		   enum fwd_hook hook, struct error *err)
{
	struct fwd_interface *row = &datapath_interfaces(site->dp)[site->slot];
	bool gone = false;
	int r = 0;

	if (at->program_id[hook])
		r = tc_remove_filter(site->tc, site->link.ifindex, hook, err);
	/* The other direction's filter, which may be there unchecked, keeps it too. */
	if (!r && row->flags & FWD_INTERFACE_CLSACT)
		r = tc_remove_clsact(site->tc, site->link.ifindex, &gone, err);
	if (gone)
		row->flags &= ~FWD_INTERFACE_CLSACT;
	return r;
}

/* Whose filter is at our place; *ret_there: its program, 0 for none. */
static int query_tc(const struct attachment_site *site, enum fwd_hook hook, u32 *ret_there,
		    bool *ret_ours, struct error *err)
{
	int r = tc_get_filter(site->tc, site->link.ifindex, hook, ret_there, err);

	return r < 0 ? r : datapath_owner_has(site->owner, *ret_there, ret_ours, err);
}

/* ---- any hook ---- */

static int find_tc(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		   u32 *ret_program_id, struct error *err)
{
	u32 there = 0;
	bool ours = false;
	int r = query_tc(site, hook, &there, &ours, err);

	if (r < 0)
		return r;
	at->foreign_id[hook] = ours ? 0 : there;
	*ret_program_id = ours ? there : 0;
	return 0;
}

int attachment_find(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		    struct error *err)
{
	u32 program_id = 0;
	int r;

	if (hook == FWD_HOOK_XDP) {
		r = xdp_query(site->link.ifindex, site->owner, &at->xdp, &at->xdp, err);
		program_id = at->xdp.program_id;
	} else {
		r = find_tc(at, site, hook, &program_id, err);
	}
	if (r < 0) {
		error_prepend(err, "%s: ", attachment_hook_names[hook]);
		return r;
	}
	at->checked[hook] &= at->program_id[hook] == program_id;
	at->program_id[hook] = program_id;
	return 0;
}

int attachment_ensure(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		      bool *ret_added, struct error *err)
{
	int r;

	*ret_added = false;
	r = hook == FWD_HOOK_XDP ? ensure_xdp(at, site, ret_added, err)
				 : ensure_tc(at, site, hook, ret_added, err);
	if (r < 0)
		error_prepend(err, "%s: ", attachment_hook_names[hook]);
	return r;
}

int attachment_drop(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		    struct error *err)
{
	int r = attachment_find(at, site, hook, err);

	if (r < 0)
		return r;
	r = hook == FWD_HOOK_XDP ? drop_xdp(at, site, err) : drop_tc(at, site, hook, err);
	if (r < 0) {
		error_prepend(err, "%s: ", attachment_hook_names[hook]);
		return r;
	}
	note_program(at, hook, 0);
	datapath_unpin_program(site->dp, site->slot, hook);
	return 0;
}

/* ---- verifying ---- */

#define NOT_NEEDED "a program of ours, and no rule needs one"

/* What is wrong with our program where one is needed; NULL: nothing. */
static const char *find_fault(const struct attachment *at, const struct attachment_site *site,
			      enum fwd_hook hook, u32 program_id)
{
	/* Nobody can change the code of a program, only put another one in its place. */
	bool known = at->checked[hook] && at->program_id[hook] == program_id;

	if (!program_id)
		return "no program of ours, but a rule needs one";
	if (!datapath_has_program(site->dp, hook, program_id))
		return "our program looks into other maps than the ones in use";
	if (!known && !datapath_is_current_code(site->dp, hook, program_id))
		return "our program is of another build of fwd";
	if (datapath_pinned_program(site->dp, site->slot, hook) != program_id)
		return "our program is not pinned, so that a restart would not know it";
	return NULL;
}

/* Into a dispatcher only we put programs of ours, and that is known. */
static const char *find_xdp_unneeded(const struct attachment *at,
				     const struct attachment_site *site, struct error *err)
{
	bool ours = false;
	u32 dispatcher_id = 0;

	if (xdp_peek(site->link.ifindex, site->owner, &ours, &dispatcher_id, err) < 0)
		return err->text;
	ours |= dispatcher_id && at->xdp.main_id == dispatcher_id && at->xdp.program_id;
	return ours ? NOT_NEEDED : NULL;
}

static const char *find_xdp_fault(const struct attachment *at, const struct attachment_site *site,
				  struct error *err)
{
	/* A dispatcher that is still the same has not changed. */
	const struct xdp_state *known = at->xdp.dispatcher ? &at->xdp : NULL;
	struct xdp_state xdp;

	if (xdp_query(site->link.ifindex, site->owner, known, &xdp, err) < 0)
		return err->text;
	if (xdp.foreign_id) {
		error_set(err, 0, "the program \"%s\" (id %u) is there in the place of ours",
			  xdp.foreign_name, xdp.foreign_id);
		return err->text;
	}
	if (xdp.leftover)
		return "two programs of ours";
	if (xdp.program_id && !mode_is_right(site->xdp_mode, xdp.native))
		return xdp.native ? "native, and \"generic\" is configured"
				  : "generic, and \"native\" is configured";
	return find_fault(at, site, FWD_HOOK_XDP, xdp.program_id);
}

static const char *find_tc_fault(const struct attachment *at, const struct attachment_site *site,
				 enum fwd_hook hook, bool needed, struct error *err)
{
	u32 there = 0;
	bool ours = false;

	if (query_tc(site, hook, &there, &ours, err) < 0)
		return err->text;
	if (!needed)
		return ours ? NOT_NEEDED : NULL;
	if (there && !ours) {
		error_set(err, 0,
			  "the filter of another program (id %u) is there in the place of ours",
			  there);
		return err->text;
	}
	return find_fault(at, site, hook, there);
}

void attachment_verify(const struct attachment *at, const struct attachment_site *site,
		       enum fwd_hook hook, bool needed, const char *trouble,
		       struct differences *ret)
{
	bool is_xdp = hook == FWD_HOOK_XDP;
	struct error err;
	const char *fault = !is_xdp  ? find_tc_fault(at, site, hook, needed, &err)
			    : needed ? find_xdp_fault(at, site, &err)
				     : find_xdp_unneeded(at, site, &err);

	if (fault)
		differences_add(ret, is_xdp ? DIFFERENCE_PROGRAM : DIFFERENCE_FILTER,
				site->link.name, "%s: %s: %s%s%s%s", site->link.name,
				attachment_hook_names[hook], fault, trouble ? " (" : "",
				trouble ? trouble : "", trouble ? ")" : "");
}
