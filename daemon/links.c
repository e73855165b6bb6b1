// SPDX-License-Identifier: GPL-2.0-or-later
#include "links.h"

#include <errno.h>
#include <linux/if_arp.h>
#include <netlink/cache.h>
#include <netlink/errno.h>
#include <netlink/route/link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct links {
	struct nl_sock *socket;
	struct nl_cache_mngr *manager;
	struct nl_cache *cache; /* owned by the manager */
	void (*changed)(void *data);
	void *data;
};

static int nl_failed(struct error *err, int code, const char *what)
{
	return error_set(err, -EIO, "%s: %s", what, nl_geterror(code));
}

static void on_change(struct nl_cache *cache, struct nl_object *object, int action, void *data)
{
	struct links *links = data;

	links->changed(links->data);
}

int links_open(void (*changed)(void *data), void *data, struct links **ret, struct error *err)
{
	_cleanup_(links_closep) struct links *links = calloc(1, sizeof(*links));
	int r;

	if (!links)
		return error_no_memory(err);
	links->changed = changed;
	links->data = data;
	r = nl_cache_mngr_alloc(NULL, NETLINK_ROUTE, NL_AUTO_PROVIDE, &links->manager);
	if (r < 0)
		return nl_failed(err, r, "cannot watch the network interfaces");
	r = nl_cache_mngr_add(links->manager, "route/link", on_change, links, &links->cache);
	if (r < 0)
		return nl_failed(err, r, "cannot list the network interfaces");
	*ret = take_pointer(&links);
	return 0;
}

void links_close(struct links *links)
{
	if (!links)
		return;
	if (links->manager)
		nl_cache_mngr_free(links->manager);
	free(links);
}

int links_fd(const struct links *links)
{
	return nl_cache_mngr_get_fd(links->manager);
}

int links_process(struct links *links, struct error *err)
{
	int r = nl_cache_mngr_data_ready(links->manager);

	return r < 0 ? nl_failed(err, r, "cannot read changes of the network interfaces") : 0;
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

/* A bridge's ports are in the cache a second time, as members of the bridge. */
static bool is_plain(struct nl_object *object)
{
	return rtnl_link_get_family((struct rtnl_link *)object) == AF_UNSPEC;
}

/* The link of that name, or, with `name` NULL, of that index. */
static bool find(struct links *links, const char *name, int ifindex, struct link_info *ret)
{
	for (struct nl_object *object = nl_cache_get_first(links->cache); object;
	     object = nl_cache_get_next(object)) {
		struct rtnl_link *link = (struct rtnl_link *)object;

		if (!is_plain(object) || (name ? strcmp(rtnl_link_get_name(link), name) != 0
					       : rtnl_link_get_ifindex(link) != ifindex))
			continue;
		describe(link, ret);
		return true;
	}
	return false;
}

bool links_find(struct links *links, const char *name, struct link_info *ret)
{
	return find(links, name, 0, ret);
}

bool links_get(struct links *links, int ifindex, struct link_info *ret)
{
	return find(links, NULL, ifindex, ret);
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
		if (is_plain(object))
			describe((struct rtnl_link *)object, &list[n++]);
	qsort(list, n, sizeof(*list), compare_links);
	*ret = list;
	*ret_n = n;
	return 0;
}
