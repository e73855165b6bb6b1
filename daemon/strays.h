/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs of ours on any interface of this namespace, asked from the kernel. A host may have
 * thousands of interfaces, so this is for a thread of its own: it shares nothing with others.
 */
#pragma once

#include "datapath.h"

struct stray {
	int ifindex;
	bool ours[FWD_HOOKS];
	u32 dispatcher_id; /* one of XDP that may have a program of ours; 0: none */
};

/* Begin with zeros; the owner frees the items. */
struct strays {
	struct stray *items;
	size_t n, room;
};

/* All interfaces that have one, those that are meant to have it, too. */
int strays_find(const struct datapath_owner *owner, struct strays *ret, struct error *err);
