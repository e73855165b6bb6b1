// SPDX-License-Identifier: GPL-2.0-or-later
#include "tc_watch.h"

#include "tc.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BUFFER_SIZE   32768
#define READS_AT_ONCE 64

struct tc_watch {
	struct mnl_socket *socket;
	u32 own_port;
	char buffer[BUFFER_SIZE] __attribute__((aligned(8)));
};

int tc_watch_open(u32 own_port, struct tc_watch **ret, struct error *err)
{
	_cleanup_(tc_watch_closep) struct tc_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return error_no_memory(err);
	watch->own_port = own_port;
	watch->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!watch->socket || mnl_socket_bind(watch->socket, RTMGRP_TC, MNL_SOCKET_AUTOPID) < 0)
		return error_set(err, -errno, "cannot watch the tc filters: %s", error_name(errno));
	*ret = take_pointer(&watch);
	return 0;
}

void tc_watch_close(struct tc_watch *watch)
{
	if (!watch)
		return;
	if (watch->socket)
		mnl_socket_close(watch->socket);
	free(watch);
}

int tc_watch_fd(const struct tc_watch *watch)
{
	return mnl_socket_get_fd(watch->socket);
}

/* A change at our place, whichever interface it is on. */
static bool is_our_place(const struct nlmsghdr *msg)
{
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(msg);
	u32 priority = TC_H_MAJ(tcm->tcm_info) >> 16;

	switch (msg->nlmsg_type) {
	case RTM_NEWQDISC:
	case RTM_DELQDISC:
		return tcm->tcm_parent == TC_H_CLSACT;
	case RTM_NEWTFILTER:
	case RTM_DELTFILTER:
		/* Priority 0: all of them. */
		return TC_H_MAJ(tcm->tcm_parent) == TC_H_MAJ(TC_H_CLSACT) &&
		       (priority == TC_PRIORITY || !priority);
	default:
		return false;
	}
}

static bool concerns_us(const struct tc_watch *watch, const struct nlmsghdr *msg,
			tc_watch_filter is_watched, void *data)
{
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(msg);

	/* The kernel signs a notification with the port of the request. */
	return mnl_nlmsg_get_payload_len(msg) >= sizeof(*tcm) &&
	       msg->nlmsg_pid != watch->own_port && is_our_place(msg) &&
	       is_watched(data, tcm->tcm_ifindex);
}

int tc_watch_process(struct tc_watch *watch, tc_watch_filter is_watched, void *data,
		     bool *ret_changed, struct error *err)
{
	bool changed = false;

	for (int i = 0; i < READS_AT_ONCE; i++) {
		ssize_t n = mnl_socket_recvfrom(watch->socket, watch->buffer, BUFFER_SIZE);
		const struct nlmsghdr *msg = (const struct nlmsghdr *)(const void *)watch->buffer;
		int left = (int)n;

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0 && errno != ENOBUFS && errno != EINTR)
			return error_set(err, -errno, "cannot read tc notifications: %s",
					 error_name(errno));
		/* What was lost may have been about us. */
		changed |= n < 0 && errno == ENOBUFS;
		for (; mnl_nlmsg_ok(msg, left); msg = mnl_nlmsg_next(msg, &left))
			changed |= concerns_us(watch, msg, is_watched, data);
	}
	*ret_changed = changed;
	return 0;
}
