// SPDX-License-Identifier: GPL-2.0-or-later
/* This host's addresses and default gateways: what messages say, and the kernel's own. */
#include "locals.h"

#include "private_bpffs.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* ---- the parts of a test ---- */

static char buffer[4096] __attribute__((aligned(8)));

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0, "%s", text);
	return prefix;
}

static void put_text(struct nlmsghdr *msg, u16 type, int family, const char *address)
{
	u8 bytes[16];

	cr_assert_eq(inet_pton(family, address, bytes), 1, "%s", address);
	mnl_attr_put(msg, type, family == AF_INET ? 4 : 16, bytes);
}

static struct nlmsghdr *address_message(u16 type, int family)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buffer);
	struct ifaddrmsg *ifa;

	msg->nlmsg_type = type;
	ifa = mnl_nlmsg_put_extra_header(msg, sizeof(*ifa));
	ifa->ifa_family = (u8)family;
	ifa->ifa_prefixlen = 24;
	ifa->ifa_index = 7;
	return msg;
}

static struct nlmsghdr *route_message(int family, u8 dst_len)
{
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buffer);
	struct rtmsg *rtm;

	msg->nlmsg_type = RTM_NEWROUTE;
	rtm = mnl_nlmsg_put_extra_header(msg, sizeof(*rtm));
	rtm->rtm_family = (u8)family;
	rtm->rtm_dst_len = dst_len;
	rtm->rtm_table = RT_TABLE_MAIN;
	return msg;
}

static void put_via(struct nlmsghdr *msg, const char *address)
{
	u8 bytes[sizeof(struct rtvia) + 16];
	struct rtvia via = {.rtvia_family = AF_INET6};

	memcpy(bytes, &via, sizeof(via));
	cr_assert_eq(inet_pton(AF_INET6, address, bytes + offsetof(struct rtvia, rtvia_addr)), 1);
	mnl_attr_put(msg, RTA_VIA, sizeof(via) + 16, bytes);
}

/* A path of RTA_MULTIPATH, whose attributes `put` adds. */
static void put_hop(struct nlmsghdr *msg, int ifindex, const char *gateway)
{
	struct rtnexthop *hop = mnl_nlmsg_get_payload_tail(msg);

	memset(hop, 0, sizeof(*hop));
	hop->rtnh_ifindex = ifindex;
	msg->nlmsg_len += sizeof(*hop);
	put_text(msg, RTA_GATEWAY, AF_INET, gateway);
	hop->rtnh_len = (u16)((char *)mnl_nlmsg_get_payload_tail(msg) - (char *)hop);
}

static void expect_one(const struct nlmsghdr *msg, enum local_kind kind, const char *address,
		       int ifindex)
{
	const struct prefix wanted = prefix_of(address);
	struct local_message message;

	cr_assert(local_message_read(msg, &message), "%s", address);
	cr_expect_eq(message.kind, kind);
	cr_assert_eq(message.n, 1);
	cr_expect(prefix_equal(&message.at[0].address, &wanted), "not %s", address);
	cr_expect_eq(message.at[0].ifindex, ifindex);
}

/* ---- messages ---- */

Test(locals, an_address_is_its_own_end_of_the_link)
{
	struct nlmsghdr *msg = address_message(RTM_NEWADDR, AF_INET);

	put_text(msg, IFA_ADDRESS, AF_INET, "192.0.2.9");
	put_text(msg, IFA_LOCAL, AF_INET, "192.0.2.1");
	expect_one(msg, LOCAL_ADDRESS, "192.0.2.1", 7);
	msg = address_message(RTM_NEWADDR, AF_INET);
	put_text(msg, IFA_LOCAL, AF_INET, "192.0.2.1");
	put_text(msg, IFA_ADDRESS, AF_INET, "192.0.2.9");
	expect_one(msg, LOCAL_ADDRESS, "192.0.2.1", 7);
	msg = address_message(RTM_NEWADDR, AF_INET6);
	put_text(msg, IFA_ADDRESS, AF_INET6, "fe80::1");
	expect_one(msg, LOCAL_ADDRESS, "fe80::1", 7);
}

Test(locals, an_address_that_goes_is_told_apart)
{
	struct nlmsghdr *msg = address_message(RTM_DELADDR, AF_INET);
	struct local_message message;

	put_text(msg, IFA_LOCAL, AF_INET, "192.0.2.1");
	cr_assert(local_message_read(msg, &message));
	cr_expect(message.gone);
}

Test(locals, a_default_route_has_a_gateway)
{
	struct nlmsghdr *msg = route_message(AF_INET, 0);

	put_text(msg, RTA_GATEWAY, AF_INET, "192.0.2.254");
	mnl_attr_put_u32(msg, RTA_OIF, 3);
	expect_one(msg, LOCAL_GATEWAY, "192.0.2.254", 3);
	msg = route_message(AF_INET6, 0);
	mnl_attr_put_u32(msg, RTA_OIF, 3);
	put_text(msg, RTA_GATEWAY, AF_INET6, "fe80::2");
	expect_one(msg, LOCAL_GATEWAY, "fe80::2", 3);
	msg = route_message(AF_INET, 0);
	mnl_attr_put_u32(msg, RTA_OIF, 3);
	put_via(msg, "fe80::3");
	expect_one(msg, LOCAL_GATEWAY, "fe80::3", 3);
}

Test(locals, a_default_route_of_several_paths_has_a_gateway_each)
{
	struct nlmsghdr *msg = route_message(AF_INET, 0);
	struct nlattr *paths = mnl_attr_nest_start(msg, RTA_MULTIPATH);
	const struct prefix first = prefix_of("192.0.2.1"), second = prefix_of("198.51.100.1");
	struct local_message message;

	put_hop(msg, 3, "192.0.2.1");
	put_hop(msg, 4, "198.51.100.1");
	mnl_attr_nest_end(msg, paths);
	cr_assert(local_message_read(msg, &message));
	cr_assert_eq(message.n, 2);
	cr_expect(prefix_equal(&message.at[0].address, &first));
	cr_expect(prefix_equal(&message.at[1].address, &second));
	cr_expect_eq(message.at[0].ifindex, 3);
	cr_expect_eq(message.at[1].ifindex, 4);
}

Test(locals, other_routes_and_routes_without_a_gateway_do_not_count)
{
	struct nlmsghdr *msg = route_message(AF_INET, 24);
	struct local_message message;

	put_text(msg, RTA_GATEWAY, AF_INET, "192.0.2.254");
	cr_expect_not(local_message_read(msg, &message));
	msg = route_message(AF_INET, 0);
	mnl_attr_put_u32(msg, RTA_OIF, 3);
	cr_expect_not(local_message_read(msg, &message));
}

Test(locals, attributes_that_are_too_short_are_left_alone)
{
	struct nlmsghdr *msg = address_message(RTM_NEWADDR, AF_INET6);
	struct local_message message;

	mnl_attr_put_u32(msg, IFA_ADDRESS, 1);
	cr_expect_not(local_message_read(msg, &message));
	msg = route_message(AF_INET, 0);
	mnl_attr_put_u8(msg, RTA_GATEWAY, 1);
	mnl_attr_put_u8(msg, RTA_VIA, 1);
	mnl_attr_put_u8(msg, RTA_MULTIPATH, 1);
	cr_expect_not(local_message_read(msg, &message));
}

/* ---- lists ---- */

Test(locals, those_within_a_prefix_stand_side_by_side)
{
	struct local items[] = {
		{.address = prefix_of("10.0.0.1")},    {.address = prefix_of("10.0.0.255")},
		{.address = prefix_of("10.0.1.0")},    {.address = prefix_of("fe80::1")},
		{.address = prefix_of("2001:db8::1")},
	};
	const struct local_list list = {items, ARRAY_SIZE(items)};
	const struct {
		const char *prefix;
		size_t first, n;
	} cases[] = {{"10.0.0.0/24", 0, 2}, {"10.0.0.0/8", 0, 3}, {"10.0.0.255", 1, 1},
		     {"0.0.0.0/0", 0, 3},   {"::/0", 3, 2},	  {"10.0.2.0/24", 3, 0}};

	/* As they are ordered. */
	items[3].address = prefix_of("2001:db8::1");
	items[4].address = prefix_of("fe80::1");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct prefix prefix = prefix_of(cases[i].prefix);
		size_t first, n = local_list_within(&list, &prefix, &first);

		cr_expect_eq(n, cases[i].n, "%s has %zu", cases[i].prefix, n);
		cr_expect(!n || first == cases[i].first, "%s", cases[i].prefix);
	}
}

/* ---- the kernel ---- */

static struct locals *locals;

static void ip(const char *words)
{
	char command[256];

	snprintf(command, sizeof(command), "ip %s", words);
	cr_assert_eq(system(command), 0, "%s", command);
}

static const struct local *find_local(const struct local_list *list, const char *address)
{
	const struct prefix wanted = prefix_of(address);
	size_t first;

	return local_list_within(list, &wanted, &first) ? &list->items[first] : NULL;
}

/* Waits until the address is there, or not. */
static void expect_local(const char *address, bool there, enum local_kind kind)
{
	for (unsigned tries = 0;; tries++) {
		struct pollfd ready = {.fd = locals_fd(locals), .events = POLLIN};
		const struct local *local;
		struct local_list list;
		struct error err;
		bool changed, found;

		cr_assert_eq(locals_list(locals, &list), 0);
		local = find_local(&list, address);
		found = local && local->kind == kind;
		free(list.items);
		if (found == there)
			return;
		cr_assert(tries < 1000 && poll(&ready, 1, 10000) == 1, "%s is %s", address,
			  there ? "missing" : "still there");
		cr_assert_eq(locals_process(locals, &changed, &err), 0, "%s", err.text);
	}
}

static void make_links(void)
{
	struct error err;

	enter_private_bpffs();
	ip("link set lo up");
	ip("link add fwd0 type veth peer name fwd1");
	/* No addresses of their own, which would come and be confirmed at some time. */
	ip("link set fwd0 addrgenmode none");
	ip("link set fwd1 addrgenmode none");
	ip("link set fwd0 up");
	ip("link set fwd1 up");
	ip("addr add 192.0.2.1/24 dev fwd0");
	ip("route add default via 192.0.2.254");
	cr_assert_eq(locals_open(&locals, &err), 0, "%s", err.text);
}

static void drop_links(void)
{
	locals_close(locals);
}

TestSuite(locals_live, .init = make_links, .fini = drop_links, .timeout = 60);

Test(locals_live, knows_what_is_there_at_the_start)
{
	struct local_list list;

	expect_local("127.0.0.1", true, LOCAL_ADDRESS);
	expect_local("::1", true, LOCAL_ADDRESS);
	expect_local("192.0.2.1", true, LOCAL_ADDRESS);
	expect_local("192.0.2.254", true, LOCAL_GATEWAY);
	cr_assert_eq(locals_list(locals, &list), 0);
	cr_expect_str_eq(find_local(&list, "192.0.2.254")->interface, "fwd0");
	free(list.items);
}

Test(locals_live, knows_an_interface_by_its_new_name)
{
	struct local_list list;
	struct error err;
	bool changed;

	ip("link set fwd0 down");
	expect_local("192.0.2.254", false, LOCAL_GATEWAY);
	ip("link set fwd0 name wan0");
	cr_assert_eq(locals_process(locals, &changed, &err), 0, "%s", err.text);
	cr_expect(changed);
	cr_assert_eq(locals_list(locals, &list), 0);
	cr_expect_str_eq(find_local(&list, "192.0.2.1")->interface, "wan0");
	free(list.items);
}

Test(locals_live, follows_addresses)
{
	ip("addr add 192.0.2.2/24 dev fwd0");
	expect_local("192.0.2.2", true, LOCAL_ADDRESS);
	ip("addr add 192.0.2.2/32 dev fwd0");
	ip("addr del 192.0.2.2/24 dev fwd0");
	ip("addr add 192.0.2.3/24 dev fwd1");
	expect_local("192.0.2.3", true, LOCAL_ADDRESS);
	expect_local("192.0.2.2", true, LOCAL_ADDRESS);
	ip("addr del 192.0.2.2/32 dev fwd0");
	expect_local("192.0.2.2", false, LOCAL_ADDRESS);
}

Test(locals_live, follows_default_routes_of_every_table_and_family)
{
	ip("route add default via 192.0.2.253 table 77");
	expect_local("192.0.2.253", true, LOCAL_GATEWAY);
	ip("-6 route add default via fe80::9 dev fwd0");
	expect_local("fe80::9", true, LOCAL_GATEWAY);
	ip("route add default metric 5 nexthop via 192.0.2.10 dev fwd0 "
	   "nexthop via inet6 fe80::10 dev fwd1");
	expect_local("192.0.2.10", true, LOCAL_GATEWAY);
	expect_local("fe80::10", true, LOCAL_GATEWAY);
	ip("route del default metric 5 nexthop via 192.0.2.10 dev fwd0 "
	   "nexthop via inet6 fe80::10 dev fwd1");
	expect_local("192.0.2.10", false, LOCAL_GATEWAY);
	expect_local("fe80::10", false, LOCAL_GATEWAY);
	ip("route flush table 77");
	expect_local("192.0.2.253", false, LOCAL_GATEWAY);
}

Test(locals_live, a_replaced_route_has_one_gateway)
{
	ip("route replace default via 192.0.2.252");
	expect_local("192.0.2.252", true, LOCAL_GATEWAY);
	expect_local("192.0.2.254", false, LOCAL_GATEWAY);
}

/* The kernel does not tell of these. */
Test(locals_live, gateways_go_with_their_link)
{
	ip("link set fwd0 down");
	expect_local("192.0.2.254", false, LOCAL_GATEWAY);
	expect_local("192.0.2.1", true, LOCAL_ADDRESS);
}

Test(locals_live, gateways_go_with_the_address_that_leads_there)
{
	ip("addr del 192.0.2.1/24 dev fwd0");
	expect_local("192.0.2.254", false, LOCAL_GATEWAY);
}

/* What waits to be read; links have messages of their own. */
static bool is_told_of_other_routes(void)
{
	const struct nlmsghdr *msg = (const struct nlmsghdr *)(const void *)buffer;

	while (recv(locals_fd(locals), buffer, sizeof(buffer), MSG_DONTWAIT) > 0) {
		const struct rtmsg *rtm = mnl_nlmsg_get_payload(msg);

		if ((msg->nlmsg_type == RTM_NEWROUTE || msg->nlmsg_type == RTM_DELROUTE) &&
		    rtm->rtm_dst_len)
			return true;
	}
	return false;
}

Test(locals_live, is_not_told_of_other_routes)
{
	ip("route add 198.51.100.0/24 via 192.0.2.254");
	ip("-6 route add 2001:db8:1::/48 via fe80::9 dev fwd0");
	ip("route del 198.51.100.0/24 via 192.0.2.254");
	cr_expect_not(is_told_of_other_routes());
}

Test(locals_live, lists_anew_what_was_lost)
{
	struct error err;
	bool changed;

	/* More than the socket holds. */
	cr_assert_eq(system("for i in $(seq 1 60); do for j in $(seq 1 250); do "
			    "echo addr add 10.0.$i.$j/32 dev fwd0; "
			    "echo addr del 10.0.$i.$j/32 dev fwd0; done; done | ip -batch -"),
		     0);
	ip("addr add 192.0.2.77/24 dev fwd0");
	cr_assert_eq(locals_process(locals, &changed, &err), 0, "%s", err.text);
	expect_local("192.0.2.77", true, LOCAL_ADDRESS);
	expect_local("10.0.60.250", false, LOCAL_ADDRESS);
}
