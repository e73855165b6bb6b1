// SPDX-License-Identifier: GPL-2.0-or-later
#include "doctor_links.h"

#include "cleanup.h"
#include "netlink.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* linux/netdev.h, which headers before 6.3 have not. */
#define NETDEV_FAMILY	    "netdev"
#define NETDEV_DEV_GET	    1
#define NETDEV_IFINDEX	    1
#define NETDEV_XDP_FEATURES 3

/* ---- rtnetlink ---- */

static void read_kind(struct link_facts *link, const struct nlattr *info)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested (attr, info)
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			snprintf(link->kind, sizeof(link->kind), "%s", mnl_attr_get_str(attr));
}

static void read_xdp(struct link_facts *link, const struct nlattr *xdp)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested (attr, xdp) {
		if (mnl_attr_get_type(attr) == IFLA_XDP_PROG_ID)
			link->program_id = mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == IFLA_XDP_ATTACHED)
			link->generic = mnl_attr_get_u8(attr) == XDP_ATTACHED_SKB;
	}
}

static void read_attribute(struct link_facts *link, const struct nlattr *attr)
{
	switch (mnl_attr_get_type(attr)) {
	case IFLA_IFNAME:
		snprintf(link->name, sizeof(link->name), "%s", mnl_attr_get_str(attr));
		break;
	case IFLA_MTU:
		link->mtu = mnl_attr_get_u32(attr);
		break;
	case IFLA_MASTER:
		link->master = (int)mnl_attr_get_u32(attr);
		break;
	case IFLA_LINKINFO:
		read_kind(link, attr);
		break;
	case IFLA_XDP:
		read_xdp(link, attr);
		break;
	}
}

static int see_link(const struct nlmsghdr *msg, void *data)
{
	const struct ifinfomsg *header = mnl_nlmsg_get_payload(msg);
	struct link_list *links = data;
	struct link_facts link = {.ifindex = header->ifi_index};
	struct link_facts *items;
	const struct nlattr *attr;

	if (msg->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	mnl_attr_for_each (attr, msg, sizeof(*header))
		read_attribute(&link, attr);
	items = reallocarray(links->items, links->n + 1, sizeof(*items));
	if (!items)
		return MNL_CB_ERROR;
	links->items = items;
	links->items[links->n++] = link;
	return MNL_CB_OK;
}

/* ---- the driver ---- */

static void read_driver(int fd, struct link_facts *link)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq request = {.ifr_data = (void *)&info};

	memcpy(request.ifr_name, link->name, sizeof(request.ifr_name));
	if (!ioctl(fd, SIOCETHTOOL, &request))
		snprintf(link->driver, sizeof(link->driver), "%s", info.driver);
}

/* ---- XDP features, by generic netlink ---- */

static int see_family(const struct nlmsghdr *msg, void *data)
{
	const struct nlattr *attr;

	mnl_attr_for_each (attr, msg, sizeof(struct genlmsghdr))
		if (mnl_attr_get_type(attr) == CTRL_ATTR_FAMILY_ID)
			*(u16 *)data = mnl_attr_get_u16(attr);
	return MNL_CB_OK;
}

/* The number of the family "netdev"; 0: the kernel has none. */
static u16 find_family(void)
{
	char buffer[NETLINK_BUFFER_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *msg;
	void *header;
	u16 family = 0;

	msg = netlink_begin(buffer, GENL_ID_CTRL, 0, sizeof(struct genlmsghdr), &header);
	*(struct genlmsghdr *)header = (struct genlmsghdr){.cmd = CTRL_CMD_GETFAMILY, .version = 1};
	mnl_attr_put_strz(msg, CTRL_ATTR_FAMILY_NAME, NETDEV_FAMILY);
	return netlink_ask(NETLINK_GENERIC, msg, see_family, &family) < 0 ? 0 : family;
}

static int see_features(const struct nlmsghdr *msg, void *data)
{
	const struct link_list *links = data;
	const struct nlattr *attr;
	u32 ifindex = 0;
	bool known = false;
	u64 features = 0;

	mnl_attr_for_each (attr, msg, sizeof(struct genlmsghdr)) {
		if (mnl_attr_get_type(attr) == NETDEV_IFINDEX)
			ifindex = mnl_attr_get_u32(attr);
		if (mnl_attr_get_type(attr) == NETDEV_XDP_FEATURES) {
			features = mnl_attr_get_u64(attr);
			known = true;
		}
	}
	for (size_t i = 0; known && i < links->n; i++) {
		if (links->items[i].ifindex == (int)ifindex) {
			links->items[i].features = features;
			links->items[i].features_known = true;
		}
	}
	return MNL_CB_OK;
}

/* Where that fails the features stay unknown. */
static void read_features(struct link_list *links)
{
	char buffer[NETLINK_BUFFER_SIZE] __attribute__((aligned(8)));
	u16 family = find_family();
	struct nlmsghdr *msg;
	void *header;

	if (!family)
		return;
	msg = netlink_begin(buffer, family, NLM_F_DUMP, sizeof(struct genlmsghdr), &header);
	*(struct genlmsghdr *)header = (struct genlmsghdr){.cmd = NETDEV_DEV_GET, .version = 1};
	netlink_ask(NETLINK_GENERIC, msg, see_features, links);
}

/* ---- the whole ---- */

int link_list_read(struct link_list *ret, struct error *err)
{
	char buffer[NETLINK_BUFFER_SIZE] __attribute__((aligned(8)));
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct link_list links = {0};
	struct nlmsghdr *msg;
	void *header;
	int r;

	msg = netlink_begin(buffer, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg), &header);
	r = netlink_ask(NETLINK_ROUTE, msg, see_link, &links);
	if (r < 0) {
		free(links.items);
		return error_set(err, r, "cannot list the network interfaces: %s", error_name(r));
	}
	for (size_t i = 0; fd >= 0 && i < links.n; i++)
		read_driver(fd, &links.items[i]);
	read_features(&links);
	*ret = links;
	return 0;
}

const struct link_facts *link_list_find(const struct link_list *links, int ifindex)
{
	for (size_t i = 0; i < links->n; i++)
		if (links->items[i].ifindex == ifindex)
			return &links->items[i];
	return NULL;
}
