/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attaching an XDP program to an interface, by libxdp: beside other programs where the kernel runs
 * its dispatcher, alone where it does not.
 */
#pragma once

#include "config.h"
#include "datapath.h"

#include <linux/bpf.h>

/* What is attached to an interface. */
struct xdp_state {
	u32 main_id;	/* what the kernel runs: a program or a dispatcher; 0: nothing */
	u32 program_id; /* ours; 0: none */
	bool native;
	bool dispatcher; /* other programs can share the interface */
	bool leftover;	 /* there is a second one of ours, which a daemon that was killed left */

	/* A program of somebody else that is alone on the interface; 0: none. */
	u32 foreign_id;
	char foreign_name[BPF_OBJ_NAME_LEN];
};

/*
 * `owner` tells which program is ours. `known`, or NULL, is what an earlier query found: a
 * dispatcher that is still the same is not looked into again. `known` and `ret` may be the same.
 */
int xdp_query(int ifindex, const struct datapath_owner *owner, const struct xdp_state *known,
	      struct xdp_state *ret, struct error *err);

/* True if a program for this mode is to take packets in several buffers. */
bool xdp_wants_frags(bool native);

/*
 * Our program is alone on the interface: puts another one, which is loaded, in its place in one
 * step of the kernel.
 */
int xdp_replace(int ifindex, int fd, const struct xdp_state *state, struct error *err);

/*
 * Without libxdp, so for any thread: whether our program is alone on the interface, and the
 * dispatcher there, which may have it, 0 for none. Neither is on an interface that is not there.
 */
int xdp_peek(int ifindex, const struct datapath_owner *owner, bool *ret_ours,
	     u32 *ret_dispatcher_id, struct error *err);

/*
 * Attaches the program of `obj`, open and not loaded, natively or generically. A program in a
 * dispatcher that `state` says is ours is replaced with no packet unfiltered; the mode has to be
 * the same. -EBUSY: somebody else holds the interface. -EEXIST: since 5.15 the kernel changes
 * nothing on an interface while one on top of it (its bridge, bond, VLAN) has a program. *ret_fd is
 * the program's, owned by `obj`.
 */
int xdp_attach(int ifindex, const char *name, struct bpf_object *obj, bool native,
	       const struct xdp_state *state, const struct datapath_owner *owner, int *ret_fd,
	       struct error *err);

/* Detaches our program and no other. -EEXIST: as above. */
int xdp_detach(int ifindex, const struct xdp_state *state, struct error *err);
