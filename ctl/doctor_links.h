/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The network interfaces of this namespace, with what bears on XDP. */
#pragma once

#include "error.h"
#include "types.h"

#include <net/if.h>

#define DRIVER_NAME_MAX 32 /* ETHTOOL_BUSINFO_LEN, linux/ethtool.h */

struct link_facts {
	int ifindex;
	char name[IFNAMSIZ];
	char kind[16];		      /* "veth", "bridge"; empty: none, as hardware has none */
	char driver[DRIVER_NAME_MAX]; /* empty: not known */
	u32 mtu;
	int master;	     /* ifindex of the bridge or bond that it is a port of; 0: none */
	u32 program_id;	     /* the XDP program that it has; 0: none */
	bool generic;	     /* that runs in generic mode */
	bool features_known; /* the kernel tells since 6.3 */
	u64 features;	     /* XDP_FEATURE_* */
};

/* enum netdev_xdp_act of linux/netdev.h, since 6.3. */
#define XDP_FEATURE_BASIC (1u << 0) /* native XDP */
#define XDP_FEATURE_RX_SG (1u << 5) /* of packets in several buffers */

struct link_list {
	struct link_facts *items; /* by ifindex */
	size_t n;
};

/* All of them. The caller frees ret->items. */
int link_list_read(struct link_list *ret, struct error *err);

const struct link_facts *link_list_find(const struct link_list *links, int ifindex);
