/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attaching an XDP program to an interface, by libxdp: beside other programs where the kernel runs
 * its dispatcher, alone where it does not.
 */
#pragma once

#include "config.h"
#include "datapath.h"

/* What is attached to an interface. */
struct xdp_state {
	u32 program_id; /* ours; 0: none */
	bool native;
	bool dispatcher; /* other programs can share the interface */

	/* A program of somebody else that is alone on the interface; 0: none. */
	u32 foreign_id;
	char foreign_name[16];
};

/* `owner` tells which program is ours. */
int xdp_query(int ifindex, const struct datapath_owner *owner, struct xdp_state *ret,
	      struct error *err);

/*
 * Attaches the program of `obj`, open and not loaded, natively or generically. A program that
 * `state` says is ours is replaced with no packet unfiltered, as long as the mode stays. -EBUSY:
 * somebody else holds the interface. *ret_fd is the program's, owned by `obj`.
 */
int xdp_attach(int ifindex, const char *name, struct bpf_object *obj, bool native,
	       const struct xdp_state *state, int *ret_fd, struct error *err);

/* Detaches our program and no other. */
int xdp_detach(int ifindex, const struct xdp_state *state, struct error *err);
