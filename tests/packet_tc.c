// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The TC programs: destinations that are blocked on their way out, and redirects, in both
 * directions. As in packets.c, each row asserts that exactly one counter rose.
 */
#include "packet_loaded.h"

#include <criterion/criterion.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <string.h>

#define IN  FWD_HOOK_TC_IN
#define OUT FWD_HOOK_TC_OUT

/* ---- the redirects of all tests ---- */

/* clang-format off */
static const struct redirect redirects[] = {
	{.protocol = IPPROTO_TCP, .port_first = 8080, .port_last = 8080, .target = "lan"},
	{.protocol = IPPROTO_TCP, .port_first = 1, .port_last = 1, .target = "lan"},
	{.protocol = IPPROTO_TCP, .port_first = 65535, .port_last = 65535, .target = "lan"},
	{.protocol = IPPROTO_UDP, .port_first = 8000, .port_last = 8099, .target = "lan"},
	{.protocol = IPPROTO_UDP, .port_first = 1, .port_last = 1, .target = "lan"},
	{.protocol = IPPROTO_UDP, .port_first = 65535, .port_last = 65535, .target = "lan"},
	{.protocol = IPPROTO_TCP, .port_first = 9000, .port_last = 9000, .target = "nowhere"},
	{.protocol = IPPROTO_TCP, .port_first = 7000, .port_last = 7000, .target = "lan",
	 .mode = REDIRECT_L2},
	{.protocol = IPPROTO_TCP, .port_first = 7001, .port_last = 7001, .target = "lan",
	 .mode = REDIRECT_NEIGH},
	{.protocol = IPPROTO_TCP, .port_first = 7002, .port_last = 7002, .target = "lan",
	 .mode = REDIRECT_INGRESS},
	{.protocol = IPPROTO_TCP, .port_first = 7003, .port_last = 7003, .target = "tunnel"},
	{.protocol = IPPROTO_TCP, .port_first = 5000, .port_last = 5000, .target = "lan",
	 .direction = DIRECTION_OUT},
};
/* clang-format on */

static const u8 lan_mac[ETH_ALEN] = {2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};

static struct loaded loaded;

static void set_up(void)
{
	struct redirect_link lan = {.ifindex = 1, .has_l2 = true};
	struct redirect_link tunnel = {.ifindex = 1};

	memcpy(lan.mac, lan_mac, ETH_ALEN);
	loaded_open(&loaded);
	loaded_block(&loaded, "10.1.0.0/16", 0);
	loaded_block(&loaded, "2001:db8:1::/48", 0);
	loaded_block(&loaded, "10.1.5.0/24", 1 /* ended */);
	loaded_allow(&loaded, "10.1.9.0/24", 0);
	loaded_allow(&loaded, "2001:db8:1:9::/64", 0);
	loaded_set_redirects(&loaded, redirects, ARRAY_SIZE(redirects));
	redirect_map_set_target(datapath_redirects(loaded.dp), "lan", &lan);
	redirect_map_set_target(datapath_redirects(loaded.dp), "tunnel", &tunnel);
}

static void tear_down(void)
{
	loaded_close(&loaded);
}

TestSuite(packets_tc, .init = set_up, .fini = tear_down, .timeout = 120);

/* Destinations; the source is blocked too, which TC does not look at. */
#define TO4(dest)      IP4("10.1.0.1", dest)
#define TO6(dest)      IP6("2001:db8:1::1", dest)
#define BLOCKED4       TO4("10.1.7.7")
#define BLOCKED4_ENTRY "10.1.0.0/16"
#define BLOCKED6       TO6("2001:db8:1:7::7")
#define BLOCKED6_ENTRY "2001:db8:1::/48"
#define FREE4	       TO4("203.0.113.1")
#define FREE6	       TO6("2001:db8:ffff::1")

#define EIGHT_EXTENSIONS \
	HOP_BY_HOP, DEST_OPTIONS, ROUTING, FRAGMENT(0, 1), AH, DEST_OPTIONS, MOBILITY, ROUTING

/* ---- tables ---- */

/* clang-format off */
static const struct packet_case outward[] = {
	{"IPv4 to nobody in particular passes",
	 {ETHERNET, FREE4, TCP(80)}, FWD_PASS},
	{"IPv4 to a blocked prefix is dropped",
	 {ETHERNET, BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 to an allowlisted part of it passes",
	 {ETHERNET, TO4("10.1.9.1"), TCP(80)}, FWD_ALLOW, "10.1.9.0/24"},
	{"an ended entry uncovers the one around it",
	 {ETHERNET, TO4("10.1.5.1"), TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"what is neither TCP nor UDP is dropped, too",
	 {ETHERNET, BLOCKED4, ICMP4}, FWD_DROP, BLOCKED4_ENTRY},
	{"a later fragment of IPv4 is dropped",
	 {ETHERNET, BLOCKED4, SET_FRAGMENT(185, 1), PROTOCOL(17)}, FWD_DROP, BLOCKED4_ENTRY},
	{"QinQ and options do not hide a destination",
	 {ETHERNET, SERVICE_TAG(5), TAG(7), BLOCKED4, OPTIONS(10), TCP(80)}, FWD_DROP,
	 BLOCKED4_ENTRY},
	{"dropping goes before redirecting",
	 {ETHERNET, BLOCKED4, TCP(5000)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv6 to nobody in particular passes",
	 {ETHERNET, FREE6, TCP(80)}, FWD_PASS},
	{"IPv6 to a blocked prefix is dropped",
	 {ETHERNET, BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"IPv6 to an allowlisted part of it passes",
	 {ETHERNET, TO6("2001:db8:1:9::1"), ICMP6}, FWD_ALLOW, "2001:db8:1:9::/64"},
	{"a later fragment of IPv6 is dropped",
	 {ETHERNET, BLOCKED6, FRAGMENT(181, 1), PROTOCOL(17)}, FWD_DROP, BLOCKED6_ENTRY},
	{"more extension headers than are parsed do not hide a destination",
	 {ETHERNET, BLOCKED6, EIGHT_EXTENSIONS, HOP_BY_HOP, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
};

static const struct packet_case inward[] = {
	{"TCP to a redirected port is", {ETHERNET, FREE4, TCP(8080)}, FWD_REDIRECT},
	{"a blocked destination does not matter inward",
	 {ETHERNET, BLOCKED4, TCP(8080)}, FWD_REDIRECT},
	{"nor does it drop", {ETHERNET, BLOCKED4, TCP(80)}, FWD_PASS},
	{"nor in IPv6", {ETHERNET, BLOCKED6, TCP(80)}, FWD_PASS},
	{"TCP to the port before it is not", {ETHERNET, FREE4, TCP(8079)}, FWD_PASS},
	{"TCP to the port behind it is not", {ETHERNET, FREE4, TCP(8081)}, FWD_PASS},
	{"UDP to the port before a range is not", {ETHERNET, FREE4, UDP(7999)}, FWD_PASS},
	{"UDP to the first port of a range is", {ETHERNET, FREE4, UDP(8000)}, FWD_REDIRECT},
	{"UDP to a port in a range is", {ETHERNET, FREE4, UDP(8064)}, FWD_REDIRECT},
	{"UDP to the last port of a range is", {ETHERNET, FREE4, UDP(8099)}, FWD_REDIRECT},
	{"UDP to the port behind a range is not", {ETHERNET, FREE4, UDP(8100)}, FWD_PASS},
	{"TCP to a port of UDP is not", {ETHERNET, FREE4, TCP(8000)}, FWD_PASS},
	{"UDP to a port of TCP is not", {ETHERNET, FREE4, UDP(7000)}, FWD_PASS},
	{"TCP to port 0 is not", {ETHERNET, FREE4, TCP(0)}, FWD_PASS},
	{"TCP to port 1 is", {ETHERNET, FREE4, TCP(1)}, FWD_REDIRECT},
	{"TCP to port 65535 is", {ETHERNET, FREE4, TCP(65535)}, FWD_REDIRECT},
	{"TCP to port 65534 is not", {ETHERNET, FREE4, TCP(65534)}, FWD_PASS},
	{"UDP to port 1 is", {ETHERNET, FREE4, UDP(1)}, FWD_REDIRECT},
	{"UDP to port 65535 is", {ETHERNET, FREE4, UDP(65535)}, FWD_REDIRECT},
	{"a port of the other direction is not", {ETHERNET, FREE4, TCP(5000)}, FWD_PASS},
	{"ICMP is not", {ETHERNET, FREE4, ICMP4}, FWD_PASS},
	{"ESP is not", {ETHERNET, FREE4, ESP}, FWD_PASS},
	{"IPv6 is, in the same way", {ETHERNET, FREE6, TCP(8080)}, FWD_REDIRECT},
	{"UDP in IPv6 is", {ETHERNET, FREE6, UDP(8000)}, FWD_REDIRECT},
	{"ICMPv6 is not", {ETHERNET, FREE6, ICMP6}, FWD_PASS},
	{"ESP in IPv6 is not", {ETHERNET, FREE6, ESP}, FWD_PASS},
	{"IPv6 without a next header is not", {ETHERNET, FREE6, PROTOCOL(59)}, FWD_PASS},
	{"to a target that does not exist it is dropped",
	 {ETHERNET, FREE4, TCP(9000)}, FWD_NO_TARGET},
	{"also in IPv6", {ETHERNET, FREE6, TCP(9000)}, FWD_NO_TARGET},
	{"ARP is not IP", {ETHERNET, ETHERTYPE(ETH_P_ARP)}, FWD_NOT_IP},
	{"LLDP is not IP", {ETHERNET, ETHERTYPE(0x88cc)}, FWD_NOT_IP},
};

static const struct packet_case hidden[] = {
	{"a tag does not hide a port", {ETHERNET, TAG(7), FREE4, TCP(8080)}, FWD_REDIRECT},
	{"QinQ does not hide a port",
	 {ETHERNET, SERVICE_TAG(5), TAG(7), FREE4, TCP(8080)}, FWD_REDIRECT},
	{"three tags do", {ETHERNET, TAG(5), TAG(6), TAG(7), FREE4, TCP(8080)}, FWD_NOT_IP},
	{"options do not hide a port", {ETHERNET, FREE4, OPTIONS(1), TCP(8080)}, FWD_REDIRECT},
	{"the most options do not", {ETHERNET, FREE4, OPTIONS(10), UDP(8000)}, FWD_REDIRECT},
	{"AH in IPv4 does not", {ETHERNET, FREE4, AH, TCP(8080)}, FWD_REDIRECT},
	{"AH behind options does not", {ETHERNET, FREE4, OPTIONS(3), AH, TCP(8080)}, FWD_REDIRECT},
	{"a first fragment of IPv4 has its port",
	 {ETHERNET, FREE4, SET_FRAGMENT(0, 1), UDP(8000)}, FWD_REDIRECT},
	{"a later fragment of IPv4 has none",
	 {ETHERNET, FREE4, SET_FRAGMENT(1, 1), UDP(8000)}, FWD_PASS},
	{"nor has the last one", {ETHERNET, FREE4, SET_FRAGMENT(8191, 0), UDP(8000)}, FWD_PASS},
	{"a later fragment need not be long enough for a port",
	 {ETHERNET, FREE4, SET_FRAGMENT(185, 0), UDP(8000)}, FWD_PASS, NULL, ETH_HLEN + 21},
	{"hop-by-hop options do not hide a port",
	 {ETHERNET, FREE6, HOP_BY_HOP, TCP(8080)}, FWD_REDIRECT},
	{"a routing header does not", {ETHERNET, FREE6, ROUTING, TCP(8080)}, FWD_REDIRECT},
	{"destination options do not", {ETHERNET, FREE6, DEST_OPTIONS, TCP(8080)}, FWD_REDIRECT},
	{"AH does not", {ETHERNET, FREE6, AH, TCP(8080)}, FWD_REDIRECT},
	{"a mobility header does not", {ETHERNET, FREE6, MOBILITY, TCP(8080)}, FWD_REDIRECT},
	{"the longest extension header does not",
	 {ETHERNET, FREE6, EXTENSION(60, 127), TCP(8080)}, FWD_REDIRECT},
	{"a first fragment of IPv6 has its port",
	 {ETHERNET, FREE6, FRAGMENT(0, 1), UDP(8000)}, FWD_REDIRECT},
	{"a later fragment of IPv6 has none",
	 {ETHERNET, FREE6, FRAGMENT(1, 1), UDP(8000)}, FWD_PASS},
	{"nor has the last one", {ETHERNET, FREE6, FRAGMENT(8191, 0), UDP(8000)}, FWD_PASS},
	{"eight extension headers do not hide a port",
	 {ETHERNET, FREE6, EIGHT_EXTENSIONS, TCP(8080)}, FWD_REDIRECT},
	{"nine are given up on",
	 {ETHERNET, FREE6, EIGHT_EXTENSIONS, HOP_BY_HOP, TCP(8080)}, FWD_PASS},
	{"an extension header longer than the packet is malformed",
	 {ETHERNET, FREE6, DEST_OPTIONS, SET_EXTENSION_SIZE(255), TCP(8080)}, FWD_MALFORMED},
	{"AH longer than the packet is malformed",
	 {ETHERNET, FREE4, AH, SET_EXTENSION_SIZE(255), TCP(8080)}, FWD_MALFORMED},
	{"an IPv4 header of 4 words is malformed",
	 {ETHERNET, FREE4, SET_IHL(4), TCP(8080)}, FWD_MALFORMED},
	{"an IPv4 header longer than the packet is malformed",
	 {ETHERNET, FREE4, SET_IHL(15), TCP(8080)}, FWD_MALFORMED},
	{"version 6 under IPv4's type is malformed",
	 {ETHERNET, FREE6, SET_ETHERTYPE(ETH_P_IP), TCP(8080)}, FWD_MALFORMED},
};

/* Each cut at every length. */
static const struct packet_case cut[] = {
	{"IPv4", {ETHERNET, FREE4, TCP(8080)}, FWD_REDIRECT},
	{"IPv4 with a tag", {ETHERNET, TAG(7), FREE4, TCP(8080)}, FWD_REDIRECT},
	{"IPv4 in QinQ with options",
	 {ETHERNET, SERVICE_TAG(5), TAG(7), FREE4, OPTIONS(10), UDP(8000)}, FWD_REDIRECT},
	{"IPv4 with AH", {ETHERNET, FREE4, AH, TCP(8080)}, FWD_REDIRECT},
	{"ICMP", {ETHERNET, FREE4, ICMP4}, FWD_PASS},
	{"IPv6", {ETHERNET, FREE6, TCP(8080)}, FWD_REDIRECT},
	{"IPv6 with a tag", {ETHERNET, TAG(7), FREE6, TCP(8080)}, FWD_REDIRECT},
	{"IPv6 with extension headers",
	 {ETHERNET, FREE6, EIGHT_EXTENSIONS, UDP(8000)}, FWD_REDIRECT},
};

/*
 * Packets of a device without a link-layer header. The kernel's test takes the bytes 12 and 13 for
 * an Ethernet type all the same, which the program then sees as skb->protocol: hence the sources.
 */
#define BARE4(dest) IP4("8.0.0.1", dest)		 /* 0x0800 */
#define BARE6(dest) IP6("2001:db8:86dd::1", dest)	 /* 0x86dd */

static const struct packet_case bare[] = {
	{"TCP is redirected", {BARE4("203.0.113.1"), TCP(8080)}, FWD_REDIRECT},
	{"TCP to another port passes", {BARE4("203.0.113.1"), TCP(80)}, FWD_PASS},
	{"IPv6 is redirected", {BARE6("2001:db8:ffff::1"), TCP(8080)}, FWD_REDIRECT},
	{"a frame as it is cannot go to Ethernet", {BARE4("203.0.113.1"), TCP(7000)},
	 FWD_NO_TARGET},
	{"neigh puts a header in front", {BARE4("203.0.113.1"), TCP(7001)}, FWD_REDIRECT},
	{"ingress puts a header in front", {BARE6("2001:db8:ffff::1"), TCP(7002)}, FWD_REDIRECT},
	{"from tunnel to tunnel nothing changes", {BARE4("203.0.113.1"), TCP(7003)}, FWD_REDIRECT},
	{"a version that is not the protocol's is malformed",
	 {BARE4("203.0.113.1"), SET_VERSION(6), TCP(8080)}, FWD_MALFORMED},
};
/* clang-format on */

static void check_all(enum loaded_slot slot, enum fwd_hook hook, const struct packet_case *rows,
		      size_t n)
{
	for (size_t i = 0; i < n; i++)
		loaded_check(&loaded, slot, hook, &rows[i]);
}

Test(packets_tc, blocked_destinations_are_dropped_outward)
{
	check_all(SLOT_ETHERNET, OUT, outward, ARRAY_SIZE(outward));
}

Test(packets_tc, in_the_other_bank_blocked_destinations_are_dropped_outward)
{
	const struct prefix_item items[] = {
		item_of(TABLE_BLOCK, "10.1.0.0/16", 0),
		item_of(TABLE_BLOCK, "10.1.5.0/24", 1),
		item_of(TABLE_BLOCK, "2001:db8:1::/48", 0),
		item_of(TABLE_ALLOW, "10.1.9.0/24", 0),
		item_of(TABLE_ALLOW, "2001:db8:1:9::/64", 0),
	};

	loaded_replace(&loaded, items, ARRAY_SIZE(items));
	check_all(SLOT_ETHERNET, OUT, outward, ARRAY_SIZE(outward));
	check_all(SLOT_ETHERNET, IN, inward, ARRAY_SIZE(inward));
}

Test(packets_tc, ports_are_redirected_inward)
{
	check_all(SLOT_ETHERNET, IN, inward, ARRAY_SIZE(inward));
}

Test(packets_tc, options_and_extension_headers_do_not_hide_a_port)
{
	check_all(SLOT_ETHERNET, IN, hidden, ARRAY_SIZE(hidden));
}

Test(packets_tc, a_device_without_a_link_layer_is_redirected_too)
{
	check_all(SLOT_BARE, IN, bare, ARRAY_SIZE(bare));
}

Test(packets_tc, cut_at_every_length_they_are_malformed_or_redirected)
{
	for (size_t i = 0; i < ARRAY_SIZE(cut); i++)
		loaded_check_lengths(&loaded, SLOT_ETHERNET, IN, &cut[i],
				     packet_ports_end(cut[i].layers));
}

/* The tag lets the kernel's test run lengths that it refuses without one. */
Test(packets_tc, cut_behind_the_ip_header_a_blocked_destination_is_dropped_all_the_same)
{
	const struct packet_case ipv4 = {
		"IPv4", {ETHERNET, TAG(7), BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY};
	const struct packet_case ipv6 = {"IPv6",
					 {ETHERNET, TAG(7), BLOCKED6, HOP_BY_HOP, TCP(80)},
					 FWD_DROP,
					 BLOCKED6_ENTRY};

	loaded_check_lengths(&loaded, SLOT_ETHERNET, OUT, &ipv4, ETH_HLEN + 4 + 20);
	loaded_check_lengths(&loaded, SLOT_ETHERNET, OUT, &ipv6, ETH_HLEN + 4 + 40);
}

Test(packets_tc, ports_are_redirected_outward_by_rules_for_out_alone)
{
	const struct packet_case redirected = {
		"a port of a rule for out", {ETHERNET, FREE4, TCP(5000)}, FWD_REDIRECT};
	const struct packet_case passed = {
		"a port of a rule for in", {ETHERNET, FREE4, TCP(8080)}, FWD_PASS};

	loaded_check(&loaded, SLOT_ETHERNET, OUT, &redirected);
	loaded_check(&loaded, SLOT_ETHERNET, OUT, &passed);
}

/* It counts as redirected, and its entry of the allowlist counts it besides. */
Test(packets_tc, an_allowlisted_destination_is_redirected)
{
	const struct layer layers[LAYERS_MAX] = {ETHERNET, TO4("10.1.9.1"), TCP(5000)};
	struct outcome outcome;
	struct packet packet;

	packet_build(layers, &packet);
	cr_assert(loaded_run(&loaded, SLOT_ETHERNET, OUT, &packet, FWD_REDIRECT, "allowlisted",
			     &outcome));
	cr_expect_eq(outcome.action, TC_ACT_REDIRECT);
}

Test(packets_tc, without_the_direction_out_no_destination_is_blocked)
{
	struct packet_case row = {"", {ETHERNET, BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY};

	loaded_check(&loaded, SLOT_ETHERNET, OUT, &row);
	loaded_set_flags(&loaded, FWD_BLOCK_IN);
	row = (struct packet_case){"off", {ETHERNET, BLOCKED4, TCP(80)}, FWD_PASS};
	loaded_check(&loaded, SLOT_ETHERNET, OUT, &row);
}

/* ---- what becomes of the frame ---- */

static struct redirect_state read_redirect(const struct redirect *redirect)
{
	struct redirect_state state;

	cr_assert(redirect_map_read(datapath_redirects(loaded.dp), redirect, &state));
	return state;
}

static void run(enum loaded_slot slot, const struct layer *layers, const char *what,
		struct packet *ret_in, struct packet *ret_out)
{
	struct outcome outcome;

	packet_build(layers, ret_in);
	cr_assert(loaded_run(&loaded, slot, IN, ret_in, FWD_REDIRECT, what, &outcome));
	cr_expect_eq(outcome.action, TC_ACT_REDIRECT, "%s: %d", what, (int)outcome.action);
	*ret_out = outcome.out;
}

static void expect_bytes(const struct packet *packet, size_t at, const void *bytes, size_t size,
			 const char *what)
{
	cr_assert_geq(packet->size, at + size, "%s", what);
	cr_expect_eq(memcmp(packet->bytes + at, bytes, size), 0, "%s", what);
}

Test(packets_tc, a_redirect_counts_its_packets)
{
	const struct layer layers[LAYERS_MAX] = {ETHERNET, FREE4, UDP(8050)};
	struct redirect_state state;
	struct packet in, out;

	state = read_redirect(&redirects[3]);
	cr_expect_eq(state.packets, 0);
	for (int i = 0; i < 3; i++)
		run(SLOT_ETHERNET, layers, "a port of a range", &in, &out);
	state = read_redirect(&redirects[3]);
	cr_expect_eq(state.packets, 3);
	cr_expect_eq(state.bytes, 3 * in.size);
	state = read_redirect(&redirects[0]);
	cr_expect_eq(state.packets, 0, "another redirect counted them");
}

Test(packets_tc, mode_l2_leaves_the_frame_as_it_is)
{
	const struct layer layers[LAYERS_MAX] = {ETHERNET, SERVICE_TAG(5), TAG(7), FREE4,
						 TCP(7000)};
	struct packet in, out;

	run(SLOT_ETHERNET, layers, "l2", &in, &out);
	cr_expect_eq(out.size, in.size);
	expect_bytes(&out, 0, in.bytes, in.size, "the frame changed");
}

Test(packets_tc, mode_neigh_takes_the_tags_off)
{
	const struct layer layers[LAYERS_MAX] = {ETHERNET, SERVICE_TAG(5), TAG(7), FREE4,
						 TCP(7001)};
	struct packet in, out;

	run(SLOT_ETHERNET, layers, "neigh", &in, &out);
	cr_expect_eq(out.size, in.size - 8);
	expect_bytes(&out, 12, "\x08\x00", 2, "the type is IPv4's");
	expect_bytes(&out, ETH_HLEN, in.bytes + ETH_HLEN + 8, in.size - ETH_HLEN - 8,
		     "the packet is behind it");
}

Test(packets_tc, mode_ingress_puts_the_targets_address_in_front)
{
	const struct layer layers[LAYERS_MAX] = {ETHERNET, TAG(7), FREE6, TCP(7002)};
	struct packet in, out;

	run(SLOT_ETHERNET, layers, "ingress", &in, &out);
	cr_expect_eq(out.size, in.size);
	expect_bytes(&out, 0, lan_mac, ETH_ALEN, "the destination is the target");
	expect_bytes(&out, ETH_ALEN, in.bytes + ETH_ALEN, in.size - ETH_ALEN,
		     "the rest is as it was");
}

Test(packets_tc, a_target_without_a_link_layer_gets_no_tags)
{
	const struct layer layers[LAYERS_MAX] = {ETHERNET, TAG(7), FREE4, TCP(7003)};
	struct packet in, out;

	run(SLOT_ETHERNET, layers, "to a tunnel", &in, &out);
	cr_expect_eq(out.size, in.size - 4);
	expect_bytes(&out, 12, "\x08\x00", 2, "the type is IPv4's");
}

Test(packets_tc, from_a_device_without_a_link_layer_a_header_comes_in_front)
{
	const struct layer layers[LAYERS_MAX] = {BARE4("203.0.113.1"), TCP(7002)};
	struct packet in, out;

	run(SLOT_BARE, layers, "ingress from a tunnel", &in, &out);
	cr_expect_eq(out.size, in.size + ETH_HLEN);
	expect_bytes(&out, 0, lan_mac, ETH_ALEN, "the destination is the target");
	expect_bytes(&out, 12, "\x08\x00", 2, "the type is IPv4's");
	expect_bytes(&out, ETH_HLEN, in.bytes, in.size, "the packet is behind it");
}

Test(packets_tc, a_target_comes_and_goes)
{
	const struct packet_case there = {
		"the target is there", {ETHERNET, FREE4, TCP(9000)}, FWD_REDIRECT};
	const struct packet_case gone = {
		"the target is gone", {ETHERNET, FREE4, TCP(9000)}, FWD_NO_TARGET};
	struct redirect_map *map = datapath_redirects(loaded.dp);

	loaded_check(&loaded, SLOT_ETHERNET, IN, &gone);
	redirect_map_set_target(map, "nowhere", &(struct redirect_link){.ifindex = 1});
	loaded_check(&loaded, SLOT_ETHERNET, IN, &there);
	redirect_map_set_target(map, "nowhere", &(struct redirect_link){0});
	loaded_check(&loaded, SLOT_ETHERNET, IN, &gone);
}

Test(packets_tc, without_redirects_nothing_is_redirected)
{
	const struct packet_case row = {"", {ETHERNET, FREE4, TCP(8080)}, FWD_PASS};

	loaded_set_redirects(&loaded, NULL, 0);
	loaded_check(&loaded, SLOT_ETHERNET, IN, &row);
}
