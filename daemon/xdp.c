// SPDX-License-Identifier: GPL-2.0-or-later
#include "xdp.h"

#include "lend.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <xdp/libxdp.h>

#define PROGRAM_NAME	"fwd_xdp"
#define DISPATCHER_NAME "xdp_dispatcher" /* libxdp's, lib/libxdp/xdp-dispatcher.c */

DEFINE_CLEANUP(struct xdp_multiprog *, xdp_multiprog__close);
DEFINE_CLEANUP(struct xdp_program *, xdp_program__close);

/* What libxdp finds on the interface; NULL: nothing. */
static int get_multiprog(int ifindex, struct xdp_multiprog **ret, struct error *err)
{
	struct xdp_multiprog *mp = xdp_multiprog__get_from_ifindex(ifindex);
	long r = libxdp_get_error(mp);

	if (r && r != -ENOENT)
		return error_set(err, (int)r, "cannot see the XDP programs: %s",
				 error_name((int)r));
	*ret = r ? NULL : mp;
	return 0;
}

static int find_lent_components(int ifindex, const struct datapath_owner *owner,
				struct xdp_state *state, struct error *err)
{
	_cleanup_(xdp_multiprog__closep) struct xdp_multiprog *mp = NULL;
	int r = get_multiprog(ifindex, &mp, err);

	if (r < 0 || !mp)
		return r;
	for (struct xdp_program *p = NULL; (p = xdp_multiprog__next_prog(p, mp));) {
		bool ours;

		r = datapath_owner_has(owner, xdp_program__id(p), &ours, err);
		if (r < 0)
			return r;
		if (ours && state->program_id)
			state->leftover = true;
		else if (ours)
			state->program_id = xdp_program__id(p);
	}
	return 0;
}

/* Looks a dispatcher's components over: the first of ours, and whether there is another. */
static int find_components(int ifindex, const struct datapath_owner *owner, struct xdp_state *state,
			   struct error *err)
{
	int r;

	lend_begin();
	r = find_lent_components(ifindex, owner, state, err);
	lend_end();
	return r;
}

/* What the kernel runs on the interface, a program or a dispatcher; 0: nothing. */
static u32 main_id_of(const struct bpf_xdp_query_opts *query)
{
	return query->drv_prog_id   ? query->drv_prog_id
	       : query->skb_prog_id ? query->skb_prog_id
				    : query->hw_prog_id;
}

/* 0 or -errno. */
static int read_name(u32 program_id, char ret[static BPF_OBJ_NAME_LEN])
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(program_id);
	struct bpf_prog_info info = {0};
	u32 size = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	memcpy(ret, info.name, BPF_OBJ_NAME_LEN);
	return 0;
}

int xdp_query(int ifindex, const struct datapath_owner *owner, const struct xdp_state *known,
	      struct xdp_state *ret, struct error *err)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	char name[BPF_OBJ_NAME_LEN];
	struct xdp_state state = {0};
	int r = bpf_xdp_query(ifindex, 0, &query);
	bool ours;

	if (r < 0)
		return error_set(err, r, "cannot see the XDP programs: %s", error_name(r));
	state.native = !query.skb_prog_id;
	state.main_id = main_id_of(&query);
	if (known && known->main_id == state.main_id && known->native == state.native) {
		*ret = *known;
		return 0;
	}
	if (!state.main_id) {
		*ret = state;
		return 0;
	}
	/* Not to be taken for somebody else's, nor known as that from then on. */
	r = read_name(state.main_id, name);
	if (r < 0)
		return error_set(err, r, "cannot look at XDP program %u: %s", state.main_id,
				 error_name(r));
	r = datapath_owner_has(owner, state.main_id, &ours, err);
	if (r < 0)
		return r;
	if (ours) {
		state.program_id = state.main_id;
	} else if (!strcmp(name, DISPATCHER_NAME)) {
		state.dispatcher = true;
		r = find_components(ifindex, owner, &state, err);
	} else {
		state.foreign_id = state.main_id;
		memcpy(state.foreign_name, name, sizeof(state.foreign_name));
	}
	if (!r)
		*ret = state;
	return r;
}

int xdp_peek(int ifindex, const struct datapath_owner *owner, bool *ret_ours,
	     u32 *ret_dispatcher_id, struct error *err)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	char name[BPF_OBJ_NAME_LEN];
	u32 id;
	int r;

	*ret_ours = false;
	*ret_dispatcher_id = 0;
	if (bpf_xdp_query(ifindex, 0, &query) < 0)
		return 0;
	id = main_id_of(&query);
	r = datapath_owner_has(owner, id, ret_ours, err);
	if (r || !id || *ret_ours)
		return r;
	r = read_name(id, name);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(err, r, "cannot ask program %u what it is: %s", id, error_name(r));
	if (!strcmp(name, DISPATCHER_NAME))
		*ret_dispatcher_id = id;
	return 0;
}

static u32 mode_flag(bool native)
{
	return native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
}

/*
 * For a program that takes packets in several buffers, generic XDP copies them into new ones
 * (skb_pp_cow_data() in net/core/skbuff.c), which forget how long the link-layer header is: TC then
 * takes the network header for it; seen on 6.18. For another program it joins the buffers in place.
 */
bool xdp_wants_frags(bool native)
{
	return native && datapath_has_frags();
}

int xdp_replace(int ifindex, int fd, const struct xdp_state *state, struct error *err)
{
	_cleanup_close_ int old_fd = bpf_prog_get_fd_by_id(state->program_id);
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts, .old_prog_fd = old_fd);
	int r;

	if (old_fd < 0)
		return error_set(err, -errno, "cannot open the program that is attached: %s",
				 error_name(errno));
	r = bpf_xdp_attach(ifindex, fd, mode_flag(state->native) | XDP_FLAGS_REPLACE, &opts);
	return r < 0 ? error_set(err, r, "cannot replace the XDP program: %s", error_name(r)) : 0;
}

/* libxdp takes the kernel's EEXIST for a race that it has lost, tries again and gives up. */
static int blocked_above(int r)
{
	return r == -EBUSY || r == -EAGAIN ? -EEXIST : r;
}

static int detach_lent_component(int ifindex, const struct datapath_owner *owner, u32 id,
				 bool *ret_found, struct error *err)
{
	_cleanup_(xdp_multiprog__closep) struct xdp_multiprog *mp = NULL;
	struct xdp_program *program = NULL;
	int r = get_multiprog(ifindex, &mp, err);

	*ret_found = false;
	if (r < 0 || !mp)
		return r;
	while ((program = xdp_multiprog__next_prog(program, mp))) {
		u32 its_id = xdp_program__id(program);
		bool ours = false;

		if (owner && its_id != id)
			r = datapath_owner_has(owner, its_id, &ours, err);
		if (r < 0)
			return r;
		if (owner ? ours : its_id == id)
			break;
	}
	if (!program)
		return 0;
	r = xdp_program__detach(program, ifindex, xdp_multiprog__attach_mode(mp), 0);
	if (r < 0)
		return error_set(err, blocked_above(r),
				 "cannot take a program out of the dispatcher: %s", error_name(r));
	*ret_found = true;
	return 0;
}

/*
 * Takes a component out of the dispatcher: the one of `id`, or, with `owner`, one of ours that is
 * another. *ret_found: there was one.
 */
static int detach_component(int ifindex, const struct datapath_owner *owner, u32 id,
			    bool *ret_found, struct error *err)
{
	int r;

	lend_begin();
	r = detach_lent_component(ifindex, owner, id, ret_found, err);
	lend_end();
	return r;
}

/* Of our programs in a dispatcher, leaves only one. */
static int detach_others(int ifindex, const struct datapath_owner *owner, u32 keep_id,
			 struct error *err)
{
	bool found = true;
	int r = 0;

	while (!r && found)
		r = detach_component(ifindex, owner, keep_id, &found, err);
	return r;
}

static int attach_lent(int ifindex, struct bpf_object *obj, bool native, struct error *err)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .obj = obj, .prog_name = PROGRAM_NAME);
	_cleanup_(xdp_program__closep) struct xdp_program *program = xdp_program__create(&opts);
	int r = (int)libxdp_get_error(program);

	if (r < 0) {
		program = NULL;
		return error_set(err, r, "libxdp does not take the program: %s", error_name(r));
	}
	if (xdp_wants_frags(native))
		xdp_program__set_xdp_frags_support(program, true);
	r = xdp_program__attach(program, ifindex, native ? XDP_MODE_NATIVE : XDP_MODE_SKB, 0);
	if (r < 0)
		return error_set(err, blocked_above(r), "%s XDP: %s", native ? "native" : "generic",
				 error_name(r));
	return 0;
}

static int attach_shared(int ifindex, struct bpf_object *obj, bool native, int *ret_fd,
			 struct error *err)
{
	int r;

	lend_begin();
	r = attach_lent(ifindex, obj, native, err);
	lend_end();
	if (!r)
		*ret_fd = bpf_program__fd(bpf_object__find_program_by_name(obj, PROGRAM_NAME));
	return r;
}

int xdp_attach(int ifindex, const char *name, struct bpf_object *obj, bool native,
	       const struct xdp_state *state, const struct datapath_owner *owner, int *ret_fd,
	       struct error *err)
{
	int fd = -1, r;

	if (state->foreign_id)
		return error_set(err, -EBUSY,
				 "another XDP program (\"%s\", id %u) holds %s and shares it with "
				 "nobody: take it off (ip link set dev %s xdp off), or load it by "
				 "xdp-loader, which shares",
				 state->foreign_name, state->foreign_id, name, name);
	r = attach_shared(ifindex, obj, native, &fd, err);
	if (!r && state->program_id)
		r = detach_others(ifindex, owner, datapath_program_id(fd), err);
	if (!r)
		*ret_fd = fd;
	return r;
}

int xdp_detach(int ifindex, const struct xdp_state *state, struct error *err)
{
	_cleanup_close_ int fd = -1;
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts);
	bool found;
	int r;

	if (!state->program_id)
		return 0;
	if (state->dispatcher)
		return detach_component(ifindex, NULL, state->program_id, &found, err);
	fd = bpf_prog_get_fd_by_id(state->program_id);
	if (fd < 0)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, "cannot open the program: %s",
						   error_name(errno));
	opts.old_prog_fd = fd; /* the kernel refuses if it is another one by now */
	r = bpf_xdp_detach(ifindex, mode_flag(state->native), &opts);
	if (r < 0 && r != -ENODEV)
		return error_set(err, r, "cannot take the XDP program off: %s", error_name(r));
	return 0;
}
