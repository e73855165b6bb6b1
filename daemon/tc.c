// SPDX-License-Identifier: GPL-2.0-or-later
#include "tc.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER_SIZE 32768 /* the kernel's dumps fill at most this much at once */

struct tc {
	struct mnl_socket *socket; /* NULL: an answer was not read to its end */
	unsigned port, seq;
	char buffer[BUFFER_SIZE] __attribute__((aligned(8)));
};

static void close_socket(struct tc *tc)
{
	int saved = errno;

	if (tc->socket)
		mnl_socket_close(tc->socket);
	tc->socket = NULL;
	errno = saved;
}

/* 0 or -errno. The first one gets a port from the kernel, and those after it have the same. */
static int open_socket(struct tc *tc)
{
	int one = 1;

	tc->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!tc->socket || mnl_socket_bind(tc->socket, 0, (pid_t)tc->port) < 0) {
		close_socket(tc);
		return -errno;
	}
	tc->port = mnl_socket_get_portid(tc->socket);
	/* Sentences instead of bare numbers, where the kernel has them. */
	mnl_socket_setsockopt(tc->socket, NETLINK_EXT_ACK, &one, sizeof(one));
	return 0;
}

int tc_open(struct tc **ret, struct error *err)
{
	_cleanup_(tc_closep) struct tc *tc = calloc(1, sizeof(*tc));
	int r;

	if (!tc)
		return error_no_memory(err);
	r = open_socket(tc);
	if (r < 0)
		return error_set(err, r, "cannot open a netlink socket: %s", error_name(r));
	*ret = take_pointer(&tc);
	return 0;
}

void tc_close(struct tc *tc)
{
	if (!tc)
		return;
	close_socket(tc);
	free(tc);
}

u32 tc_port(const struct tc *tc)
{
	return tc->port;
}

static u32 parent_of(enum fwd_hook hook)
{
	return TC_H_MAKE(TC_H_CLSACT, hook == FWD_HOOK_TC_IN ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
}

static struct nlmsghdr *new_message(struct tc *tc, u16 type, u16 flags, int ifindex,
				    struct tcmsg **ret_tcm)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(tc->buffer);
	struct tcmsg *tcm;

	msg->nlmsg_type = type;
	msg->nlmsg_flags = NLM_F_REQUEST | flags;
	msg->nlmsg_seq = ++tc->seq;
	tcm = mnl_nlmsg_put_extra_header(msg, sizeof(*tcm));
	tcm->tcm_family = AF_UNSPEC;
	tcm->tcm_ifindex = ifindex;
	*ret_tcm = tcm;
	return msg;
}

/* The kernel's own sentence of an error message, or NULL. */
static const char *kernel_text(const struct nlmsghdr *msg)
{
	const struct nlmsgerr *ack = mnl_nlmsg_get_payload(msg);
	unsigned skip = sizeof(*ack);
	const struct nlattr *attr;

	if (!(msg->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	/* The request comes back in front of the attributes unless it is capped. */
	if (!(msg->nlmsg_flags & NLM_F_CAPPED))
		skip += ack->msg.nlmsg_len - sizeof(ack->msg);
	mnl_attr_for_each (attr, msg, skip)
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG)
			return mnl_attr_get_str(attr);
	return NULL;
}

static int find_error(const struct tc *tc, const char *buffer, int size, const char *what,
		      struct error *err)
{
	const struct nlmsghdr *msg = (const struct nlmsghdr *)(const void *)buffer;
	const struct nlmsgerr *ack;
	const char *text;

	if (!mnl_nlmsg_ok(msg, size) || msg->nlmsg_type != NLMSG_ERROR)
		return error_set(err, -EPROTO, "%s: the kernel's answer is not understood", what);
	ack = mnl_nlmsg_get_payload(msg);
	if (!ack->error)
		return 0;
	text = kernel_text(msg);
	return error_set(err, ack->error, "%s: %s%s%s%s", what, error_name(ack->error),
			 text ? " (" : "", text ? text : "", text ? ")" : "");
}

/* 0 or -errno. */
static int send_request(struct tc *tc, const struct nlmsghdr *msg)
{
	int r = tc->socket ? 0 : open_socket(tc);

	if (!r && mnl_socket_sendto(tc->socket, msg, msg->nlmsg_len) < 0)
		r = -errno;
	return r;
}

/*
 * Its size or -errno; then the rest of the answer would stand in front of the next one, and while a
 * dump is not read to its end the kernel begins no other: so another socket is used from then on.
 */
static ssize_t receive(struct tc *tc)
{
	ssize_t n = mnl_socket_recvfrom(tc->socket, tc->buffer, sizeof(tc->buffer));

	if (n >= 0)
		return n;
	close_socket(tc);
	return -errno;
}

/* Sends what is in the buffer and waits for its acknowledgement. */
static int transact(struct tc *tc, struct nlmsghdr *msg, const char *what, struct error *err)
{
	ssize_t n;

	msg->nlmsg_flags |= NLM_F_ACK;
	n = send_request(tc, msg);
	if (n < 0)
		return error_set(err, (int)n, "%s: %s", what, error_name((int)n));
	do {
		n = receive(tc);
		if (n < 0)
			return error_set(err, (int)n, "%s: %s", what, error_name((int)n));
		/* The rest of a dump that was broken off is not for us. */
	} while (((const struct nlmsghdr *)(const void *)tc->buffer)->nlmsg_seq != tc->seq);
	return find_error(tc, tc->buffer, (int)n, what, err);
}

/* Sends a request for a dump and hands each message to `see`. */
static int dump(struct tc *tc, struct nlmsghdr *msg, mnl_cb_t see, void *data)
{
	unsigned seq = msg->nlmsg_seq;
	int r = send_request(tc, msg);

	if (r < 0)
		return r;
	do {
		ssize_t n = receive(tc);

		if (n < 0)
			return (int)n;
		r = mnl_cb_run(tc->buffer, (size_t)n, seq, tc->port, see, data);
	} while (r > MNL_CB_STOP);
	if (r < 0)
		close_socket(tc);
	return r < 0 ? -errno : 0;
}

/* ---- the qdisc ---- */

struct qdisc_search {
	int ifindex;
	char kind[16]; /* of the one at clsact's place; empty: none */
};

static int see_qdisc(const struct nlmsghdr *msg, void *data)
{
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(msg);
	struct qdisc_search *search = data;
	const struct nlattr *attr;

	/* The kernel's dump is of all interfaces. */
	if (msg->nlmsg_type != RTM_NEWQDISC || tcm->tcm_ifindex != search->ifindex ||
	    tcm->tcm_parent != TC_H_CLSACT)
		return MNL_CB_OK;
	mnl_attr_for_each (attr, msg, sizeof(*tcm))
		if (mnl_attr_get_type(attr) == TCA_KIND)
			snprintf(search->kind, sizeof(search->kind), "%s", mnl_attr_get_str(attr));
	return MNL_CB_OK;
}

/* "ingress" takes the same place, and has only one of the two directions. */
static int check_clsact(struct tc *tc, int ifindex, struct error *err)
{
	struct qdisc_search search = {.ifindex = ifindex};
	struct tcmsg *tcm;
	struct nlmsghdr *msg = new_message(tc, RTM_GETQDISC, NLM_F_DUMP, ifindex, &tcm);
	int r = dump(tc, msg, see_qdisc, &search);

	if (r < 0)
		return error_set(err, r, "cannot read the qdiscs: %s", error_name(r));
	if (search.kind[0] && strcmp(search.kind, "clsact") != 0)
		return error_set(
			err, -EBUSY,
			"a qdisc \"%s\" of another program is where clsact has to be: take it "
			"off (tc qdisc del dev IFACE %s)",
			search.kind, search.kind);
	return 0;
}

int tc_add_clsact(struct tc *tc, int ifindex, bool *ret_added, struct error *err)
{
	struct tcmsg *tcm;
	struct nlmsghdr *msg =
		new_message(tc, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, ifindex, &tcm);
	int r;

	tcm->tcm_parent = TC_H_CLSACT;
	tcm->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
	mnl_attr_put_strz(msg, TCA_KIND, "clsact");
	r = transact(tc, msg, "cannot add the clsact qdisc", err);
	if (r == -EEXIST) {
		r = check_clsact(tc, ifindex, err);
		if (!r)
			*ret_added = false;
		return r;
	}
	if (!r)
		*ret_added = true;
	return r;
}

/* ---- dumps of filters ---- */

struct filter_search {
	bool any;	/* somebody's filter was seen */
	bool ours;	/* the one at our place was */
	u32 program_id; /* its program */
};

static u32 filter_program_id(const struct nlattr *options)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested (attr, options)
		if (mnl_attr_get_type(attr) == TCA_BPF_ID)
			return mnl_attr_get_u32(attr);
	return 0;
}

static int see_filter(const struct nlmsghdr *msg, void *data)
{
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(msg);
	struct filter_search *search = data;
	const struct nlattr *attr;

	if (msg->nlmsg_type != RTM_NEWTFILTER)
		return MNL_CB_OK;
	/* A classifier announces itself with handle 0 before its filters. */
	if (!tcm->tcm_handle)
		return MNL_CB_OK;
	search->any = true;
	if (tcm->tcm_handle != TC_HANDLE || TC_H_MAJ(tcm->tcm_info) >> 16 != TC_PRIORITY)
		return MNL_CB_OK;
	search->ours = true;
	mnl_attr_for_each (attr, msg, sizeof(*tcm))
		if (mnl_attr_get_type(attr) == TCA_OPTIONS)
			search->program_id = filter_program_id(attr);
	return MNL_CB_OK;
}

static int dump_filters(struct tc *tc, int ifindex, enum fwd_hook hook,
			struct filter_search *search, struct error *err)
{
	struct tcmsg *tcm;
	struct nlmsghdr *msg = new_message(tc, RTM_GETTFILTER, NLM_F_DUMP, ifindex, &tcm);
	int r;

	tcm->tcm_parent = parent_of(hook);
	r = dump(tc, msg, see_filter, search);
	/* No such qdisc: no filters. */
	if (r < 0 && r != -EINVAL && r != -ENOENT && r != -EOPNOTSUPP)
		return error_set(err, r, "cannot read tc filters: %s", error_name(r));
	return 0;
}

int tc_get_filter(struct tc *tc, int ifindex, enum fwd_hook hook, u32 *ret_program_id,
		  struct error *err)
{
	struct filter_search search = {0};
	int r = dump_filters(tc, ifindex, hook, &search, err);

	if (!r)
		*ret_program_id = search.program_id;
	return r;
}

int tc_remove_clsact(struct tc *tc, int ifindex, bool *ret_gone, struct error *err)
{
	struct filter_search search = {0};
	struct nlmsghdr *msg;
	struct tcmsg *tcm;
	int r = dump_filters(tc, ifindex, FWD_HOOK_TC_IN, &search, err);

	if (!r)
		r = dump_filters(tc, ifindex, FWD_HOOK_TC_OUT, &search, err);
	if (r < 0)
		return r;
	if (!search.any) {
		msg = new_message(tc, RTM_DELQDISC, 0, ifindex, &tcm);
		tcm->tcm_parent = TC_H_CLSACT;
		tcm->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
		r = transact(tc, msg, "cannot remove the clsact qdisc", err);
		if (r < 0 && r != -ENOENT && r != -EINVAL && r != -ENODEV)
			return r;
	}
	*ret_gone = !search.any;
	return 0;
}

/* ---- our filters ---- */

int tc_set_filter(struct tc *tc, int ifindex, enum fwd_hook hook, int program_fd, struct error *err)
{
	struct tcmsg *tcm;
	struct nlmsghdr *msg =
		new_message(tc, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, ifindex, &tcm);
	struct nlattr *options;

	tcm->tcm_parent = parent_of(hook);
	tcm->tcm_handle = TC_HANDLE;
	tcm->tcm_info = TC_H_MAKE(TC_PRIORITY << 16, htons(ETH_P_ALL));
	mnl_attr_put_strz(msg, TCA_KIND, "bpf");
	options = mnl_attr_nest_start(msg, TCA_OPTIONS);
	mnl_attr_put_u32(msg, TCA_BPF_FD, (u32)program_fd);
	mnl_attr_put_strz(msg, TCA_BPF_NAME, hook == FWD_HOOK_TC_IN ? "fwd_tc_in" : "fwd_tc_out");
	mnl_attr_put_u32(msg, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	mnl_attr_nest_end(msg, options);
	return transact(tc, msg, "cannot set the tc filter", err);
}

int tc_remove_filter(struct tc *tc, int ifindex, enum fwd_hook hook, struct error *err)
{
	struct tcmsg *tcm;
	struct nlmsghdr *msg = new_message(tc, RTM_DELTFILTER, 0, ifindex, &tcm);
	int r;

	tcm->tcm_parent = parent_of(hook);
	tcm->tcm_handle = TC_HANDLE;
	tcm->tcm_info = TC_H_MAKE(TC_PRIORITY << 16, htons(ETH_P_ALL));
	mnl_attr_put_strz(msg, TCA_KIND, "bpf");
	r = transact(tc, msg, "cannot remove the tc filter", err);
	return r == -ENOENT || r == -EINVAL || r == -ENODEV ? 0 : r;
}
