/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What this host must be able to reach to be reached: its own addresses and its default gateways,
 * as they come and go, in this network namespace (rtnetlink).
 *
 *   O1  Whatever else is in the routing tables is looked at once and not kept; of changes to it the
 *       kernel does not even wake us.
 *   O2  While the kernel lists anew what there is, what was known stays, and what it says is added:
 *       nothing that is there is ever missing.
 */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "prefix.h"

#include <linux/netlink.h>
#include <net/if.h>

struct locals;

/* In the order in which they are told of. */
enum local_kind {
	LOCAL_GATEWAY,
	LOCAL_ADDRESS,
};

struct local {
	struct prefix address; /* of full length */
	u8 kind;	       /* enum local_kind */
	char interface[IFNAMSIZ];
};

/* Ordered by address, each once. */
struct local_list {
	struct local *items;
	size_t n;
};

/* Lists what there is, and follows it from then on. */
int locals_open(struct locals **ret, struct error *err);
void locals_close(struct locals *locals);
DEFINE_CLEANUP(struct locals *, locals_close);

/* To poll for reading; then call locals_process(). */
int locals_fd(const struct locals *locals);

/*
 * Reads what there is to read, up to a bound, so that listing a large routing table anew holds up
 * nobody. *ret_changed: locals_list() is another one now.
 */
int locals_process(struct locals *locals, bool *ret_changed, struct error *err);

/* The caller frees ret->items. 0 or -ENOMEM. */
int locals_list(const struct locals *locals, struct local_list *ret);

/* 0 or -ENOMEM. */
int local_list_copy(const struct local_list *list, struct local_list *ret);

/* Those within the prefix: from *ret_first on, as many as are returned. */
size_t local_list_within(const struct local_list *list, const struct prefix *prefix,
			 size_t *ret_first);

/* ---- one message, for the above and its tests ---- */

/* Gateways of a route: of several paths at most so many count. */
#define LOCAL_GATEWAYS_MAX 64

struct local_message {
	bool gone;     /* of what it names; else it is there */
	u8 kind;       /* of all of them */
	bool replaces; /* others of its kind went with it untold */
	u8 len;	       /* of an address: of its network */
	u8 tos;	       /* of a route, as are: */
	u32 table, priority;
	size_t n;
	struct {
		struct prefix address;
		int ifindex;
	} at[LOCAL_GATEWAYS_MAX];
};

/* False: it names neither an address of this host nor the gateway of a default route. */
bool local_message_read(const struct nlmsghdr *msg, struct local_message *ret);
