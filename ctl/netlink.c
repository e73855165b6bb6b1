// SPDX-License-Identifier: GPL-2.0-or-later
#include "netlink.h"

#include "cleanup.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

/* The kernel answers at once, or something in between swallows it. */
#define ANSWER_WAIT_S 5

DEFINE_CLEANUP(struct mnl_socket *, mnl_socket_close);

struct nlmsghdr *netlink_begin(void *buffer, u16 type, u16 flags, size_t size, void **ret_header)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buffer);

	msg->nlmsg_type = type;
	msg->nlmsg_flags = NLM_F_REQUEST | flags;
	msg->nlmsg_seq = (u32)time(NULL);
	*ret_header = mnl_nlmsg_put_extra_header(msg, size);
	return msg;
}

int netlink_ask(int bus, struct nlmsghdr *question, mnl_cb_t see, void *data)
{
	_cleanup_(mnl_socket_closep) struct mnl_socket *socket = NULL;
	char buffer[NETLINK_BUFFER_SIZE] __attribute__((aligned(8)));
	const struct timeval wait = {.tv_sec = ANSWER_WAIT_S};
	unsigned seq = question->nlmsg_seq, port;
	int r = MNL_CB_OK;

	socket = mnl_socket_open2(bus, SOCK_CLOEXEC);
	if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	port = mnl_socket_get_portid(socket);
	setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	/* An end to wait for, whatever the question. */
	if ((question->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		question->nlmsg_flags |= NLM_F_ACK;
	if (mnl_socket_sendto(socket, question, question->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));

		if (n < 0)
			return -errno;
		r = mnl_cb_run(buffer, (size_t)n, seq, port, see, data);
	}
	return r < 0 ? -errno : 0;
}
