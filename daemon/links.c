// SPDX-License-Identifier: GPL-2.0-or-later
#include "links.h"

#include <errno.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/cache.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/route/link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Each error but the last stands for messages that were lost meanwhile. */
#define DRAIN_TRIES 100

struct links {
	struct nl_cache_mngr *manager;
	struct nl_cache *cache; /* owned by the manager */
	struct nl_sock *events; /* the manager reads it */
	bool stale;		/* messages were lost: the cache may not be what there is */
	void (*moved)(void *data, int ifindex);
	void *moved_data;
};

static int nl_failed(struct error *err, int code, const char *what)
{
	return error_set(err, -EIO, "%s: %s", what, nl_geterror(code));
}

/* Where an interface goes is told by its last message only, and libnl leaves that out. */
static int see_message(struct nl_msg *message, void *data)
{
	struct nlmsghdr *msg = nlmsg_hdr(message);
	const struct ifinfomsg *ifi = nlmsg_data(msg);
	struct links *links = data;

	if (links->moved && msg->nlmsg_type == RTM_DELLINK && nlmsg_valid_hdr(msg, sizeof(*ifi)) &&
	    nlmsg_find_attr(msg, sizeof(*ifi), IFLA_NEW_NETNSID))
		links->moved(links->moved_data, ifi->ifi_index);
	return NL_OK;
}

static int watch(struct links *links, struct error *err)
{
	int r;

	links->events = nl_socket_alloc();
	if (!links->events)
		return error_no_memory(err);
	nl_socket_modify_cb(links->events, NL_CB_MSG_IN, NL_CB_CUSTOM, see_message, links);
	r = nl_cache_mngr_alloc(links->events, NETLINK_ROUTE, NL_AUTO_PROVIDE, &links->manager);
	if (r < 0)
		return nl_failed(err, r, "cannot watch the network interfaces");
	r = nl_cache_mngr_add(links->manager, "route/link", NULL, NULL, &links->cache);
	return r < 0 ? nl_failed(err, r, "cannot list the network interfaces") : 0;
}

int links_open(struct links **ret, struct error *err)
{
	_cleanup_(links_closep) struct links *links = calloc(1, sizeof(*links));
	int r;

	if (!links)
		return error_no_memory(err);
	r = watch(links, err);
	if (r < 0)
		return r;
	*ret = take_pointer(&links);
	return 0;
}

void links_close(struct links *links)
{
	if (!links)
		return;
	if (links->manager)
		nl_cache_mngr_free(links->manager);
	nl_socket_free(links->events);
	free(links);
}

int links_fd(const struct links *links)
{
	return nl_cache_mngr_get_fd(links->manager);
}

/* A new socket each time: no answer that was not read to its end stands in front of this one. */
static int ask_again(struct links *links, struct error *err)
{
	struct nl_sock *socket = nl_socket_alloc();
	int r = socket ? nl_connect(socket, NETLINK_ROUTE) : -NLE_NOMEM;

	if (r >= 0)
		r = nl_cache_resync(socket, links->cache, NULL, NULL);
	nl_socket_free(socket);
	return r < 0 ? nl_failed(err, r, "cannot list the network interfaces again") : 0;
}

int links_process(struct links *links, struct error *err)
{
	int r = nl_cache_mngr_data_ready(links->manager);

	/* The kernel had more to say than the socket holds. What it holds is older than the answer.
	 */
	for (int i = 0; r < 0 && i < DRAIN_TRIES; i++) {
		links->stale = true;
		r = nl_cache_mngr_data_ready(links->manager);
	}
	if (!links->stale)
		return 0;
	r = ask_again(links, err);
	links->stale = r < 0;
	return r;
}

void links_on_move(struct links *links, void (*moved)(void *data, int ifindex), void *data)
{
	links->moved = moved;
	links->moved_data = data;
}

static void describe(struct rtnl_link *link, struct link_info *ret)
{
	struct nl_addr *addr = rtnl_link_get_addr(link);
	unsigned type = rtnl_link_get_arptype(link);
	struct link_info info = {.ifindex = rtnl_link_get_ifindex(link)};

	snprintf(info.name, sizeof(info.name), "%s", rtnl_link_get_name(link));
	info.has_l2 = type == ARPHRD_ETHER || type == ARPHRD_LOOPBACK;
	if (info.has_l2 && addr && nl_addr_get_len(addr) == sizeof(info.mac))
		memcpy(info.mac, nl_addr_get_binary_addr(addr), sizeof(info.mac));
	*ret = info;
}

static bool has_family(struct nl_object *object, int family)
{
	return rtnl_link_get_family((struct rtnl_link *)object) == family;
}

/*
 * The cache has some links once more for each family that has something to say of them. A bridge is
 * there as such only; its ports are there as links, too.
 */
static bool is_plain(struct links *links, struct nl_object *object)
{
	int ifindex = rtnl_link_get_ifindex((struct rtnl_link *)object);

	if (!has_family(object, AF_BRIDGE))
		return has_family(object, AF_UNSPEC);
	for (struct nl_object *other = nl_cache_get_first(links->cache); other;
	     other = nl_cache_get_next(other))
		if (has_family(other, AF_UNSPEC) &&
		    rtnl_link_get_ifindex((struct rtnl_link *)other) == ifindex)
			return false;
	return true;
}

/* The link of that name, or, with `name` NULL, of that index; NULL: there is none. */
static struct rtnl_link *find(struct links *links, const char *name, int ifindex)
{
	for (struct nl_object *object = nl_cache_get_first(links->cache); object;
	     object = nl_cache_get_next(object)) {
		struct rtnl_link *link = (struct rtnl_link *)object;

		if (name ? strcmp(rtnl_link_get_name(link), name) != 0
			 : rtnl_link_get_ifindex(link) != ifindex)
			continue;
		if (is_plain(links, object))
			return link;
	}
	return NULL;
}

bool links_find(struct links *links, const char *name, struct link_info *ret)
{
	struct rtnl_link *link = find(links, name, 0);

	if (link)
		describe(link, ret);
	return link;
}

bool links_get(struct links *links, int ifindex, struct link_info *ret)
{
	struct rtnl_link *link = find(links, NULL, ifindex);

	if (link)
		describe(link, ret);
	return link;
}

/* IFLA_LINK has the interface below, unless it is in another namespace; a veth's has its peer. */
static bool is_made_of(struct rtnl_link *link, int ifindex)
{
	const char *type = rtnl_link_get_type(link);
	s32 nsid;

	return rtnl_link_get_link(link) == ifindex && rtnl_link_get_link_netnsid(link, &nsid) < 0 &&
	       (!type || strcmp(type, "veth") != 0);
}

bool links_is_on_top(struct links *links, int ifindex, int below_ifindex)
{
	struct rtnl_link *link = find(links, NULL, ifindex);
	struct rtnl_link *below = find(links, NULL, below_ifindex);

	return link && below && ifindex != below_ifindex &&
	       (rtnl_link_get_master(below) == ifindex || is_made_of(link, below_ifindex));
}

static int compare_links(const void *a, const void *b)
{
	const struct link_info *x = a, *y = b;

	return (x->ifindex > y->ifindex) - (x->ifindex < y->ifindex);
}

int links_list(struct links *links, struct link_info **ret, size_t *ret_n, struct error *err)
{
	size_t n = 0, room = (size_t)nl_cache_nitems(links->cache);
	struct link_info *list = calloc(room + 1, sizeof(*list));
	struct nl_object *object;

	if (!list)
		return error_no_memory(err);
	for (object = nl_cache_get_first(links->cache); object && n < room;
	     object = nl_cache_get_next(object))
		if (is_plain(links, object))
			describe((struct rtnl_link *)object, &list[n++]);
	qsort(list, n, sizeof(*list), compare_links);
	*ret = list;
	*ret_n = n;
	return 0;
}
