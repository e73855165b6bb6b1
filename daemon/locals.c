// SPDX-License-Identifier: GPL-2.0-or-later
#include "locals.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER_SIZE 32768 /* the kernel's dumps fill at most this much at once */

/* Messages of that size a turn of the event loop: a few milliseconds. */
#define READS_AT_ONCE 16

/* How long the start waits for the kernel's next answer. */
#define ANSWER_WAIT_MS 10000

#define RECEIVE_BYTES (1 << 20)

/* What is asked for, one after the other. */
enum dump {
	DUMP_ADDRESSES,
	DUMP_ROUTES4,
	DUMP_ROUTES6,
	DUMP_END, /* nothing is asked for */
};

/* One address or one path of a default route; several may be the same address. */
struct known {
	struct {
		struct prefix address;
		u8 kind, len, tos, pad[3];
		int ifindex;
		u32 table, priority;
	} key; /* without padding, so that memcmp() compares it */
	char interface[IFNAMSIZ];
	bool stale; /* not seen again, so far */
};

_Static_assert(sizeof(((struct known *)0)->key) == 36, "a key has no padding");

struct locals {
	struct mnl_socket *socket;
	unsigned seq;
	enum dump dump;	  /* that is being answered */
	enum dump again;  /* the first to be asked for once more; DUMP_END: none */
	bool interrupted; /* the answer may lack something */
	bool changed;
	struct known *known; /* in order of their keys */
	size_t n, room;
	char buffer[BUFFER_SIZE] __attribute__((aligned(8)));
};

/* ---- one message ---- */

static bool read_address(int family, const struct nlattr *attr, struct prefix *ret)
{
	struct prefix prefix = {.family = family == AF_INET ? FAMILY_IPV4 : FAMILY_IPV6};
	size_t size = family == AF_INET ? 4 : 16;

	if ((family != AF_INET && family != AF_INET6) || mnl_attr_get_payload_len(attr) < size)
		return false;
	memcpy(prefix.addr, mnl_attr_get_payload(attr), size);
	prefix.len = family_bits(prefix.family);
	*ret = prefix;
	return true;
}

static bool read_via(const struct nlattr *attr, struct prefix *ret)
{
	const struct rtvia *via = mnl_attr_get_payload(attr);
	size_t size = mnl_attr_get_payload_len(attr);
	struct prefix prefix = {0};

	if (size < sizeof(*via))
		return false;
	size -= sizeof(*via);
	if (via->rtvia_family == AF_INET && size >= 4)
		prefix.family = FAMILY_IPV4;
	else if (via->rtvia_family == AF_INET6 && size >= 16)
		prefix.family = FAMILY_IPV6;
	else
		return false;
	prefix.len = family_bits(prefix.family);
	memcpy(prefix.addr, via->rtvia_addr, prefix.len / 8);
	*ret = prefix;
	return true;
}

static void add_path(struct local_message *ret, const struct prefix *address, int ifindex)
{
	if (ret->n == LOCAL_GATEWAYS_MAX)
		return;
	ret->at[ret->n].address = *address;
	ret->at[ret->n++].ifindex = ifindex;
}

/* IFA_LOCAL is ours where the address is that of a link's other end. */
static bool read_own(const struct nlmsghdr *msg, struct local_message *ret)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr;
	struct prefix address;
	bool found = false;

	if (mnl_nlmsg_get_payload_len(msg) < sizeof(*ifa))
		return false;
	mnl_attr_for_each (attr, msg, sizeof(*ifa)) {
		unsigned type = mnl_attr_get_type(attr);

		if (type == IFA_LOCAL || (type == IFA_ADDRESS && !found))
			found |= read_address(ifa->ifa_family, attr, &address);
	}
	*ret = (struct local_message){
		.gone = msg->nlmsg_type == RTM_DELADDR,
		.kind = LOCAL_ADDRESS,
		.len = ifa->ifa_prefixlen,
	};
	if (found)
		add_path(ret, &address, (int)ifa->ifa_index);
	return found;
}

/* The gateway among attributes; RTA_VIA is one of another family than the route's. */
static bool read_gateway(int family, const struct nlattr *attr, struct prefix *ret)
{
	switch (mnl_attr_get_type(attr)) {
	case RTA_GATEWAY:
		return read_address(family, attr, ret);
	case RTA_VIA:
		return read_via(attr, ret);
	default:
		return false;
	}
}

static void read_paths(int family, const struct nlattr *multipath, struct local_message *ret)
{
	const struct rtnexthop *hop = mnl_attr_get_payload(multipath);
	int left = mnl_attr_get_payload_len(multipath);

	for (; RTNH_OK(hop, left); left -= RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop)) {
		const void *attrs = RTNH_DATA(hop);
		size_t size = hop->rtnh_len - sizeof(*hop);
		const struct nlattr *attr;
		struct prefix gateway;

		mnl_attr_for_each_payload(attrs, size) if (read_gateway(family, attr, &gateway))
			add_path(ret, &gateway, hop->rtnh_ifindex);
	}
}

static bool read_route(const struct nlmsghdr *msg, struct local_message *ret)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(msg);
	struct prefix gateway;
	bool found = false;
	const struct nlattr *attr;
	int oif = 0;

	if (mnl_nlmsg_get_payload_len(msg) < sizeof(*rtm) || rtm->rtm_dst_len ||
	    (rtm->rtm_family != AF_INET && rtm->rtm_family != AF_INET6))
		return false;
	*ret = (struct local_message){
		.gone = msg->nlmsg_type == RTM_DELROUTE,
		.kind = LOCAL_GATEWAY,
		.replaces = msg->nlmsg_flags & NLM_F_REPLACE,
		.tos = rtm->rtm_tos,
		.table = rtm->rtm_table,
	};
	mnl_attr_for_each (attr, msg, sizeof(*rtm)) {
		unsigned type = mnl_attr_get_type(attr);

		if (type == RTA_MULTIPATH)
			read_paths(rtm->rtm_family, attr, ret);
		else if (type == RTA_TABLE && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			ret->table = mnl_attr_get_u32(attr);
		else if (type == RTA_PRIORITY && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			ret->priority = mnl_attr_get_u32(attr);
		else if (type == RTA_OIF && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
			oif = (int)mnl_attr_get_u32(attr);
		else
			found |= read_gateway(rtm->rtm_family, attr, &gateway);
	}
	if (found)
		add_path(ret, &gateway, oif);
	return ret->n || ret->replaces;
}

bool local_message_read(const struct nlmsghdr *msg, struct local_message *ret)
{
	switch (msg->nlmsg_type) {
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return read_own(msg, ret);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return read_route(msg, ret);
	default:
		return false;
	}
}

/* ---- what is known ---- */

/* Where it is, or would be. */
static size_t position_of(const struct locals *locals, const struct known *wanted, bool *ret_found)
{
	size_t low = 0, high = locals->n;
	int order = 1;

	while (low < high && order) {
		size_t middle = low + (high - low) / 2;

		order = memcmp(&wanted->key, &locals->known[middle].key, sizeof(wanted->key));
		if (order > 0)
			low = middle + 1;
		else if (order < 0)
			high = middle;
		else
			low = middle;
	}
	*ret_found = !order;
	return low;
}

static int make_room(struct locals *locals)
{
	size_t room = locals->room ? locals->room * 2 : 16;
	struct known *more;

	if (locals->n < locals->room)
		return 0;
	more = reallocarray(locals->known, room, sizeof(*more));
	if (!more)
		return -ENOMEM;
	locals->known = more;
	locals->room = room;
	return 0;
}

static int put(struct locals *locals, const struct known *known)
{
	bool found;
	size_t at = position_of(locals, known, &found);
	struct known *to;

	if (!found && make_room(locals) < 0)
		return -ENOMEM;
	to = &locals->known[at];
	if (found) {
		to->stale = false;
		return 0;
	}
	memmove(to + 1, to, (locals->n++ - at) * sizeof(*to));
	*to = *known;
	if (!if_indextoname((unsigned)known->key.ifindex, to->interface))
		strcpy(to->interface, "?");
	locals->changed = true;
	return 0;
}

static void forget(struct locals *locals, size_t at)
{
	struct known *known = &locals->known[at];

	memmove(known, known + 1, (--locals->n - at) * sizeof(*known));
	locals->changed = true;
}

static void forget_known(struct locals *locals, const struct known *known)
{
	bool found;
	size_t at = position_of(locals, known, &found);

	if (found)
		forget(locals, at);
}

static bool has_gateway_on(const struct locals *locals, int ifindex)
{
	for (size_t i = 0; i < locals->n; i++)
		if (locals->known[i].key.kind == LOCAL_GATEWAY &&
		    locals->known[i].key.ifindex == ifindex)
			return true;
	return false;
}

static void ask_again(struct locals *locals, enum dump first)
{
	if (first < locals->again)
		locals->again = first;
}

static int take_message(struct locals *locals, const struct local_message *message)
{
	int r = 0;

	/* Of the routes that go with an address, or that another one replaces, nobody tells. */
	if (message->replaces || (message->gone && message->kind == LOCAL_ADDRESS && message->n &&
				  has_gateway_on(locals, message->at[0].ifindex)))
		ask_again(locals, DUMP_ROUTES4);
	for (size_t i = 0; !r && i < message->n; i++) {
		struct known known = {.key = {
					      .address = message->at[i].address,
					      .kind = message->kind,
					      .len = message->len,
					      .tos = message->tos,
					      .ifindex = message->at[i].ifindex,
					      .table = message->table,
					      .priority = message->priority,
				      }};

		if (message->gone)
			forget_known(locals, &known);
		else
			r = put(locals, &known);
	}
	return r;
}

static void take_name(struct locals *locals, int ifindex)
{
	char name[IFNAMSIZ] = "";

	for (size_t i = 0; i < locals->n; i++) {
		struct known *known = &locals->known[i];

		if (known->key.ifindex != ifindex)
			continue;
		if (!name[0] && !if_indextoname((unsigned)ifindex, name))
			return;
		locals->changed |= strcmp(known->interface, name) != 0;
		memcpy(known->interface, name, sizeof(name));
	}
}

/* The routes over a link that goes down are gone, and nobody tells of those of IPv4. */
static void take_link(struct locals *locals, const struct nlmsghdr *msg)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(msg);

	if (mnl_nlmsg_get_payload_len(msg) < sizeof(*ifi))
		return;
	if (msg->nlmsg_type == RTM_NEWLINK)
		take_name(locals, ifi->ifi_index);
	if ((msg->nlmsg_type == RTM_DELLINK || !(ifi->ifi_flags & IFF_UP)) &&
	    has_gateway_on(locals, ifi->ifi_index))
		ask_again(locals, DUMP_ROUTES4);
}

/* ---- asking ---- */

static bool is_of_dump(const struct known *known, enum dump dump)
{
	switch (dump) {
	case DUMP_ADDRESSES:
		return known->key.kind == LOCAL_ADDRESS;
	case DUMP_ROUTES4:
		/* All gateways: those of IPv4 routes may be of either family. */
		return known->key.kind == LOCAL_GATEWAY;
	case DUMP_ROUTES6:
	case DUMP_END:
		return false;
	}
	return false;
}

static int ask(struct locals *locals, enum dump dump, struct error *err)
{
	static const struct {
		u16 type;
		u8 family;
	} requests[] = {
		[DUMP_ADDRESSES] = {RTM_GETADDR, AF_UNSPEC},
		[DUMP_ROUTES4] = {RTM_GETROUTE, AF_INET},
		[DUMP_ROUTES6] = {RTM_GETROUTE, AF_INET6},
	};
	char buffer[NLMSG_SPACE(sizeof(struct rtmsg))] __attribute__((aligned(8)));
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buffer);
	struct rtgenmsg *family;

	msg->nlmsg_type = requests[dump].type;
	msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	msg->nlmsg_seq = ++locals->seq;
	/* Both headers begin with the family. */
	family = mnl_nlmsg_put_extra_header(msg, dump == DUMP_ADDRESSES ? sizeof(struct ifaddrmsg)
									: sizeof(struct rtmsg));
	family->rtgen_family = requests[dump].family;
	if (mnl_socket_sendto(locals->socket, msg, msg->nlmsg_len) < 0)
		return error_set(err, -errno, "cannot ask for %s: %s",
				 dump == DUMP_ADDRESSES ? "this host's addresses" : "routes",
				 error_name(errno));
	for (size_t i = 0; i < locals->n; i++)
		locals->known[i].stale |= is_of_dump(&locals->known[i], dump);
	locals->dump = dump;
	locals->interrupted = false;
	return 0;
}

/* O2. The routes of both families end together. */
static void end_dump(struct locals *locals, enum dump ended)
{
	bool routes = ended == DUMP_ROUTES6;

	if (ended == DUMP_ROUTES4)
		return;
	for (size_t i = 0; i < locals->n;) {
		struct known *known = &locals->known[i];

		if (known->stale && (known->key.kind == LOCAL_GATEWAY) == routes)
			forget(locals, i);
		else
			i++;
	}
}

/* The next of what is to be asked for, where nothing is being answered. */
static int go_on(struct locals *locals, struct error *err)
{
	enum dump next = locals->again;

	if (locals->dump != DUMP_END || next == DUMP_END)
		return 0;
	locals->again = DUMP_END;
	return ask(locals, next, err);
}

static int take_done(struct locals *locals, struct error *err)
{
	enum dump ended = locals->dump;

	locals->dump = DUMP_END;
	/* What has changed meanwhile may have been left out: what is known stays, too. */
	if (locals->interrupted)
		ask_again(locals, ended == DUMP_ADDRESSES ? DUMP_ADDRESSES : DUMP_ROUTES4);
	if (locals->again > ended) {
		end_dump(locals, ended);
		ask_again(locals, ended + 1);
	}
	return go_on(locals, err);
}

/* ---- reading ---- */

static int take_answer(struct locals *locals, const struct nlmsghdr *msg, struct error *err)
{
	const struct nlmsgerr *failure = mnl_nlmsg_get_payload(msg);

	locals->interrupted |= msg->nlmsg_flags & NLM_F_DUMP_INTR;
	if (msg->nlmsg_type == NLMSG_DONE)
		return take_done(locals, err);
	if (msg->nlmsg_type != NLMSG_ERROR)
		return 0;
	locals->dump = DUMP_END;
	return error_set(err, failure->error, "cannot list addresses and routes: %s",
			 error_name(failure->error));
}

static int take_one(struct locals *locals, const struct nlmsghdr *msg, struct error *err)
{
	struct local_message message;

	if (msg->nlmsg_type == RTM_NEWLINK || msg->nlmsg_type == RTM_DELLINK)
		take_link(locals, msg);
	else if (local_message_read(msg, &message) && take_message(locals, &message) < 0)
		return error_no_memory(err);
	if (locals->dump != DUMP_END && msg->nlmsg_seq == locals->seq &&
	    msg->nlmsg_pid == mnl_socket_get_portid(locals->socket))
		return take_answer(locals, msg, err);
	return 0;
}

static int take_buffer(struct locals *locals, int size, struct error *err)
{
	const struct nlmsghdr *msg = (const struct nlmsghdr *)(const void *)locals->buffer;
	int r = 0;

	for (; !r && mnl_nlmsg_ok(msg, size); msg = mnl_nlmsg_next(msg, &size))
		r = take_one(locals, msg, err);
	return r;
}

int locals_process(struct locals *locals, bool *ret_changed, struct error *err)
{
	int r = 0;

	locals->changed = false;
	for (unsigned i = 0; !r && i < READS_AT_ONCE; i++) {
		ssize_t n = recv(mnl_socket_get_fd(locals->socket), locals->buffer,
				 sizeof(locals->buffer), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		/* The kernel had more to say than the socket holds. */
		if (n < 0 && errno == ENOBUFS)
			ask_again(locals, DUMP_ADDRESSES);
		else if (n < 0)
			r = error_set(err, -errno, "cannot follow addresses and routes: %s",
				      error_name(errno));
		else
			r = take_buffer(locals, (int)n, err);
		if (!r)
			r = go_on(locals, err);
	}
	*ret_changed = locals->changed;
	return r;
}

/* ---- opening ---- */

/* O1: of routes that are told of, the default ones alone wake us. Lists come with several at once.
 */
static int filter_routes(struct locals *locals)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_flags)),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, htons(NLM_F_MULTI), 6, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWROUTE), 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELROUTE), 0, 3),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS,
			 NLMSG_HDRLEN + offsetof(struct rtmsg, rtm_dst_len)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	const struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	return setsockopt(mnl_socket_get_fd(locals->socket), SOL_SOCKET, SO_ATTACH_FILTER, &program,
			  sizeof(program));
}

static int follow(struct locals *locals)
{
	static const int groups[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
				     RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE};
	int size = RECEIVE_BYTES;

	/* Without the right to more it has what it has. */
	setsockopt(mnl_socket_get_fd(locals->socket), SOL_SOCKET, SO_RCVBUFFORCE, &size,
		   sizeof(size));
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (mnl_socket_setsockopt(locals->socket, NETLINK_ADD_MEMBERSHIP,
					  (void *)&groups[i], sizeof(groups[i])) < 0)
			return -1;
	return 0;
}

/* To the end of what is asked for. */
static int wait_for_list(struct locals *locals, struct error *err)
{
	int r = go_on(locals, err);

	while (!r && locals->dump != DUMP_END) {
		struct pollfd ready = {.fd = locals_fd(locals), .events = POLLIN};
		bool changed;

		if (!poll(&ready, 1, ANSWER_WAIT_MS))
			return error_set(err, -ETIMEDOUT,
					 "cannot list addresses and routes: no answer");
		r = locals_process(locals, &changed, err);
	}
	return r;
}

int locals_open(struct locals **ret, struct error *err)
{
	_cleanup_(locals_closep) struct locals *locals = calloc(1, sizeof(*locals));
	int r;

	if (!locals)
		return error_no_memory(err);
	locals->dump = DUMP_END;
	locals->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!locals->socket || filter_routes(locals) < 0 ||
	    mnl_socket_bind(locals->socket, 0, MNL_SOCKET_AUTOPID) < 0 || follow(locals) < 0)
		return error_set(err, -errno, "cannot follow addresses and routes: %s",
				 error_name(errno));
	r = wait_for_list(locals, err);
	if (r < 0)
		return r;
	*ret = take_pointer(&locals);
	return 0;
}

void locals_close(struct locals *locals)
{
	if (!locals)
		return;
	if (locals->socket)
		mnl_socket_close(locals->socket);
	free(locals->known);
	free(locals);
}

int locals_fd(const struct locals *locals)
{
	return mnl_socket_get_fd(locals->socket);
}

/* ---- lists ---- */

static int compare_locals(const void *a, const void *b)
{
	const struct local *x = a, *y = b;
	int order = prefix_compare(&x->address, &y->address);

	if (!order)
		order = (int)x->kind - (int)y->kind;
	return order ? order : strcmp(x->interface, y->interface);
}

int locals_list(const struct locals *locals, struct local_list *ret)
{
	struct local *items = calloc(locals->n + 1, sizeof(*items));
	size_t n = 0;

	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < locals->n; i++) {
		items[i].address = locals->known[i].key.address;
		items[i].kind = locals->known[i].key.kind;
		memcpy(items[i].interface, locals->known[i].interface, IFNAMSIZ);
	}
	qsort(items, locals->n, sizeof(*items), compare_locals);
	for (size_t i = 0; i < locals->n; i++)
		if (!n || !prefix_equal(&items[n - 1].address, &items[i].address))
			items[n++] = items[i];
	*ret = (struct local_list){items, n};
	return 0;
}

int local_list_copy(const struct local_list *list, struct local_list *ret)
{
	struct local *items = calloc(list->n + 1, sizeof(*items));

	if (!items)
		return -ENOMEM;
	if (list->n)
		memcpy(items, list->items, list->n * sizeof(*items));
	*ret = (struct local_list){items, list->n};
	return 0;
}

size_t local_list_within(const struct local_list *list, const struct prefix *prefix,
			 size_t *ret_first)
{
	size_t low = 0, high = list->n, n = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&list->items[middle].address, prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + n < list->n && prefix_contains(prefix, &list->items[low + n].address))
		n++;
	*ret_first = low;
	return n;
}
