/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The network interfaces of this namespace, as they come, change and go (libnl-route-3). */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "types.h"

#include <net/if.h>

struct links;

struct link_info {
	int ifindex;
	char name[IFNAMSIZ];
	bool has_l2; /* frames carry an Ethernet header */
	u8 mac[6];   /* zero where there is none */
};

int links_open(struct links **ret, struct error *err);
void links_close(struct links *links);
DEFINE_CLEANUP(struct links *, links_close);

/*
 * To poll for reading; then call links_process(). Any message may tell of a change, also of one
 * that is not in struct link_info, such as an XDP program that was taken off. After a failure it
 * has to be called again, message or not: what there is may be another than what is known.
 */
int links_fd(const struct links *links);
int links_process(struct links *links, struct error *err);

/*
 * `moved` is called, by links_process(), for an interface that somebody moves to another network
 * namespace: here it is gone.
 */
void links_on_move(struct links *links, void (*moved)(void *data, int ifindex), void *data);

bool links_find(struct links *links, const char *name, struct link_info *ret);
bool links_get(struct links *links, int ifindex, struct link_info *ret);

/* True if the one is made of the other: its bridge or bond, or a VLAN or macvlan on it. */
bool links_is_on_top(struct links *links, int ifindex, int below_ifindex);

/* All of them, by ifindex. The caller frees it. */
int links_list(struct links *links, struct link_info **ret, size_t *ret_n, struct error *err);
