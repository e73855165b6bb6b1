// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The XDP program, and what both programs share: each odd packet is a row of a table. Every row
 * asserts the verdict, the action, and that exactly one counter rose; packet_tc.c has the TC
 * programs.
 */
#include "packet_loaded.h"

#include "clock.h"
#include "kernel_entries.h"
#include "ticks.h"

#include <criterion/criterion.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <string.h>

#define LIVE  0
#define ENDED 1 /* a nanosecond after boot */

/* ---- what is blocked in the tables below ---- */

static const struct {
	const char *prefix;
	bool allow;
	u64 expires_ns;
} world[] = {
	{"10.1.0.0/16"},
	{"10.1.2.3"},
	{"10.1.5.0/24", .expires_ns = ENDED},
	{"172.16.0.0/16", .expires_ns = ENDED},
	{"192.0.2.0/24"},
	{"2001:db8:1::/48"},
	{"2001:db8:1::3"},
	{"2001:db8:1:5::/64", .expires_ns = ENDED},
	{"2001:db8:2::/48", .expires_ns = ENDED},
	{"10.1.8.0/24", .allow = true, .expires_ns = ENDED},
	{"10.1.9.0/24", .allow = true},
	{"192.0.0.0/16", .allow = true},
	{"2001:db8:1:9::/64", .allow = true},
	{"198.51.100.0/24", .allow = true},
};

static struct loaded loaded;

static void set_up(void)
{
	loaded_open(&loaded);
	for (size_t i = 0; i < ARRAY_SIZE(world); i++)
		(world[i].allow ? loaded_allow : loaded_block)(&loaded, world[i].prefix,
							       world[i].expires_ns);
}

static void tear_down(void)
{
	loaded_close(&loaded);
}

TestSuite(packets, .init = set_up, .fini = tear_down, .timeout = 120);

/* Sources; the destination is blocked too, which XDP does not look at. */
#define FROM4(source)  IP4(source, "10.1.0.1")
#define FROM6(source)  IP6(source, "2001:db8:1::1")
#define BLOCKED4       FROM4("10.1.7.7")
#define BLOCKED4_ENTRY "10.1.0.0/16"
#define BLOCKED6       FROM6("2001:db8:1:7::7")
#define BLOCKED6_ENTRY "2001:db8:1::/48"
#define FREE4	       FROM4("203.0.113.1")
#define FREE6	       FROM6("2001:db8:ffff::1")

/* ---- tables ---- */

/* clang-format off */
static const struct packet_case sources[] = {
	{"IPv4 from nobody in particular passes",
	 {ETHERNET, FREE4, TCP(80)}, FWD_PASS},
	{"IPv4 from a blocked prefix is dropped",
	 {ETHERNET, BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"of two prefixes that cover an IPv4 source the more specific one counts",
	 {ETHERNET, FROM4("10.1.2.3"), UDP(53)}, FWD_DROP, "10.1.2.3"},
	{"an IPv4 source on the allowlist inside a blocked prefix passes",
	 {ETHERNET, FROM4("10.1.9.1"), TCP(80)}, FWD_ALLOW, "10.1.9.0/24"},
	{"the allowlist's wider prefix wins over a more specific block",
	 {ETHERNET, FROM4("192.0.2.1"), TCP(80)}, FWD_ALLOW, "192.0.0.0/16"},
	{"an allowlisted source that nothing blocks is not counted as allowed",
	 {ETHERNET, FROM4("198.51.100.1"), TCP(80)}, FWD_PASS},
	{"an ended entry of the allowlist does not let pass",
	 {ETHERNET, FROM4("10.1.8.1"), TCP(80)}, FWD_DROP, "10.1.0.0/16"},
	{"an ended IPv4 entry does not block",
	 {ETHERNET, FROM4("172.16.1.1"), TCP(80)}, FWD_PASS},
	{"an ended more specific IPv4 entry uncovers the one around it",
	 {ETHERNET, FROM4("10.1.5.1"), TCP(80)}, FWD_DROP, "10.1.0.0/16"},
	{"the address before a blocked prefix passes",
	 {ETHERNET, FROM4("10.0.255.255"), TCP(80)}, FWD_PASS},
	{"the address behind a blocked prefix passes",
	 {ETHERNET, FROM4("10.2.0.0"), TCP(80)}, FWD_PASS},

	{"IPv6 from nobody in particular passes",
	 {ETHERNET, FREE6, TCP(80)}, FWD_PASS},
	{"IPv6 from a blocked prefix is dropped",
	 {ETHERNET, BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"of two prefixes that cover an IPv6 source the more specific one counts",
	 {ETHERNET, FROM6("2001:db8:1::3"), ICMP6}, FWD_DROP, "2001:db8:1::3"},
	{"an IPv6 source on the allowlist inside a blocked prefix passes",
	 {ETHERNET, FROM6("2001:db8:1:9::1"), TCP(80)}, FWD_ALLOW, "2001:db8:1:9::/64"},
	{"an ended IPv6 entry does not block",
	 {ETHERNET, FROM6("2001:db8:2::1"), TCP(80)}, FWD_PASS},
	{"an ended more specific IPv6 entry uncovers the one around it",
	 {ETHERNET, FROM6("2001:db8:1:5::1"), TCP(80)}, FWD_DROP, "2001:db8:1::/48"},
};

static const struct packet_case shapes[] = {
	{"a tag does not hide an IPv4 source",
	 {ETHERNET, TAG(7), BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"a service tag alone does not hide it",
	 {ETHERNET, SERVICE_TAG(7), BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"QinQ does not hide it",
	 {ETHERNET, SERVICE_TAG(5), TAG(7), BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"two customer tags do not hide it",
	 {ETHERNET, TAG(5), TAG(7), BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"three tags are more than are parsed",
	 {ETHERNET, SERVICE_TAG(5), TAG(6), TAG(7), BLOCKED4, TCP(80)}, FWD_NOT_IP},
	{"options do not hide an IPv4 source",
	 {ETHERNET, BLOCKED4, OPTIONS(1), TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"the most options that IPv4 has do not hide it",
	 {ETHERNET, BLOCKED4, OPTIONS(10), TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"a first fragment of IPv4 is dropped",
	 {ETHERNET, BLOCKED4, SET_FRAGMENT(0, 1), UDP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"a later fragment of IPv4 is dropped",
	 {ETHERNET, BLOCKED4, SET_FRAGMENT(185, 1), PROTOCOL(17)}, FWD_DROP, BLOCKED4_ENTRY},
	{"a last fragment of IPv4 is dropped",
	 {ETHERNET, BLOCKED4, SET_FRAGMENT(8191, 0), PROTOCOL(17)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 with AH is dropped",
	 {ETHERNET, BLOCKED4, AH, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 with nothing behind the header is dropped",
	 {ETHERNET, BLOCKED4}, FWD_DROP, BLOCKED4_ENTRY},

	{"a tag does not hide an IPv6 source",
	 {ETHERNET, TAG(7), BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"QinQ does not hide it",
	 {ETHERNET, SERVICE_TAG(5), TAG(7), BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"three tags are more than are parsed",
	 {ETHERNET, TAG(5), TAG(6), TAG(7), BLOCKED6, TCP(80)}, FWD_NOT_IP},
	{"hop-by-hop options do not hide an IPv6 source",
	 {ETHERNET, BLOCKED6, HOP_BY_HOP, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"a routing header does not hide it",
	 {ETHERNET, BLOCKED6, ROUTING, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"destination options do not hide it",
	 {ETHERNET, BLOCKED6, DEST_OPTIONS, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"AH does not hide it",
	 {ETHERNET, BLOCKED6, AH, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"a mobility header does not hide it",
	 {ETHERNET, BLOCKED6, MOBILITY, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"a chain of extension headers does not hide it",
	 {ETHERNET, BLOCKED6, HOP_BY_HOP, DEST_OPTIONS, ROUTING, FRAGMENT(0, 1), AH, DEST_OPTIONS,
	  TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"an extension header that is longer than the packet does not hide it",
	 {ETHERNET, BLOCKED6, HOP_BY_HOP, SET_EXTENSION_SIZE(255), TCP(80)}, FWD_DROP,
	 BLOCKED6_ENTRY},
	{"a first fragment of IPv6 is dropped",
	 {ETHERNET, BLOCKED6, FRAGMENT(0, 1), UDP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"a later fragment of IPv6 is dropped",
	 {ETHERNET, BLOCKED6, FRAGMENT(181, 1), PROTOCOL(17)}, FWD_DROP, BLOCKED6_ENTRY},

	{"ARP is not IP", {ETHERNET, ETHERTYPE(ETH_P_ARP)}, FWD_NOT_IP},
	{"LLDP is not IP", {ETHERNET, ETHERTYPE(0x88cc)}, FWD_NOT_IP},
	{"an unknown Ethernet type is not IP", {ETHERNET, ETHERTYPE(0x1234)}, FWD_NOT_IP},
	{"a length in the place of the type (802.3) is not IP",
	 {ETHERNET, ETHERTYPE(46)}, FWD_NOT_IP},
	{"ARP behind a tag is not IP", {ETHERNET, TAG(7), ETHERTYPE(ETH_P_ARP)}, FWD_NOT_IP},
	{"a header of version 6 under IPv4's type is malformed",
	 {ETHERNET, BLOCKED6, SET_ETHERTYPE(ETH_P_IP), TCP(80)}, FWD_MALFORMED},
	{"a header of version 4 under IPv6's type is malformed",
	 {ETHERNET, BLOCKED4, SET_ETHERTYPE(ETH_P_IPV6), TCP(80), PROTOCOL(6)}, FWD_MALFORMED},
	{"version 5 under IPv4's type is malformed",
	 {ETHERNET, BLOCKED4, SET_VERSION(5), TCP(80)}, FWD_MALFORMED},
	{"version 0 under IPv6's type is malformed",
	 {ETHERNET, BLOCKED6, SET_VERSION(0), TCP(80)}, FWD_MALFORMED},
	{"an IPv4 header of 4 words is malformed",
	 {ETHERNET, BLOCKED4, SET_IHL(4), TCP(80)}, FWD_MALFORMED},
	{"an IPv4 header of 0 words is malformed",
	 {ETHERNET, BLOCKED4, SET_IHL(0), TCP(80)}, FWD_MALFORMED},
	{"an IPv4 header that is longer than the packet is malformed",
	 {ETHERNET, BLOCKED4, SET_IHL(15), TCP(80)}, FWD_MALFORMED},
	{"an IPv4 header that just ends with the packet is not",
	 {ETHERNET, BLOCKED4, SET_IHL(10), TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"an IPv4 header that ends a word behind the packet is",
	 {ETHERNET, BLOCKED4, SET_IHL(11), TCP(80)}, FWD_MALFORMED},
};

/* The packets of a device without a link-layer header; they begin with the IP header. */
static const struct packet_case bare[] = {
	{"IPv4 from nobody in particular passes", {FREE4, TCP(80)}, FWD_PASS},
	{"IPv4 from a blocked prefix is dropped", {BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"an IPv4 source on the allowlist passes", {FROM4("10.1.9.1"), TCP(80)}, FWD_ALLOW,
	 "10.1.9.0/24"},
	{"options do not hide an IPv4 source", {BLOCKED4, OPTIONS(10), TCP(80)}, FWD_DROP,
	 BLOCKED4_ENTRY},
	{"a later fragment of IPv4 is dropped",
	 {BLOCKED4, SET_FRAGMENT(185, 1), PROTOCOL(17)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv6 from nobody in particular passes", {FREE6, TCP(80)}, FWD_PASS},
	{"IPv6 from a blocked prefix is dropped", {BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"extension headers do not hide an IPv6 source",
	 {BLOCKED6, HOP_BY_HOP, FRAGMENT(9, 1), TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"version 5 is not IP", {BLOCKED4, SET_VERSION(5), TCP(80)}, FWD_NOT_IP},
	{"version 0 is not IP", {BLOCKED6, SET_VERSION(0), TCP(80)}, FWD_NOT_IP},
	{"IPv4 that says it is IPv6 is malformed: it is too short",
	 {BLOCKED4, SET_VERSION(6)}, FWD_MALFORMED},
	{"an IPv4 header of 4 words is malformed", {BLOCKED4, SET_IHL(4), TCP(80)}, FWD_MALFORMED},
	{"an IPv4 header longer than the packet is malformed",
	 {BLOCKED4, SET_IHL(15), TCP(80)}, FWD_MALFORMED},
};

/* Each cut at every length. */
static const struct packet_case cut[] = {
	{"IPv4", {ETHERNET, BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 with a tag", {ETHERNET, TAG(7), BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 in QinQ", {ETHERNET, SERVICE_TAG(5), TAG(7), BLOCKED4, UDP(80)}, FWD_DROP,
	 BLOCKED4_ENTRY},
	{"IPv4 with options", {ETHERNET, BLOCKED4, OPTIONS(4), UDP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 with options in QinQ",
	 {ETHERNET, SERVICE_TAG(5), TAG(7), BLOCKED4, OPTIONS(10), UDP(80)}, FWD_DROP,
	 BLOCKED4_ENTRY},
	{"IPv6", {ETHERNET, BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"IPv6 with a tag", {ETHERNET, TAG(7), BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
	{"IPv6 in QinQ", {ETHERNET, SERVICE_TAG(5), TAG(7), BLOCKED6, UDP(80)}, FWD_DROP,
	 BLOCKED6_ENTRY},
	{"IPv6 with extension headers",
	 {ETHERNET, BLOCKED6, HOP_BY_HOP, DEST_OPTIONS, ROUTING, FRAGMENT(0, 1), AH, TCP(80)},
	 FWD_DROP, BLOCKED6_ENTRY},
};

static const struct packet_case bare_cut[] = {
	{"IPv4", {BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv4 with options", {BLOCKED4, OPTIONS(4), UDP(80)}, FWD_DROP, BLOCKED4_ENTRY},
	{"IPv6", {BLOCKED6, HOP_BY_HOP, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY},
};
/* clang-format on */

static void check_all(enum loaded_slot slot, const struct packet_case *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		loaded_check(&loaded, slot, FWD_HOOK_XDP, &rows[i]);
}

Test(packets, sources_are_dropped_or_pass)
{
	check_all(SLOT_ETHERNET, sources, ARRAY_SIZE(sources));
}

static int compare_items(const void *a, const void *b)
{
	const struct prefix_item *x = a, *y = b;

	return x->table != y->table ? x->table - y->table : prefix_compare(&x->prefix, &y->prefix);
}

static void replace_by_the_same(void)
{
	struct prefix_item items[ARRAY_SIZE(world)];

	for (size_t i = 0; i < ARRAY_SIZE(world); i++)
		items[i] = item_of(world[i].allow ? TABLE_ALLOW : TABLE_BLOCK, world[i].prefix,
				   world[i].expires_ns);
	qsort(items, ARRAY_SIZE(items), sizeof(*items), compare_items);
	loaded_replace(&loaded, items, ARRAY_SIZE(items));
}

Test(packets, in_either_bank_sources_are_dropped_or_pass_and_hits_stay)
{
	struct fwd_entry before, after;

	for (int i = 0; i < 2; i++) {
		check_all(SLOT_ETHERNET, sources, ARRAY_SIZE(sources));
		check_all(SLOT_BARE, bare, ARRAY_SIZE(bare));
		cr_assert(loaded_find(&loaded, TABLE_BLOCK, BLOCKED6_ENTRY, &before));
		replace_by_the_same();
		cr_assert(loaded_find(&loaded, TABLE_BLOCK, BLOCKED6_ENTRY, &after));
		cr_expect(before.hits && after.hits == before.hits);
		cr_expect_eq(after.last_hit, before.last_hit);
	}
	check_all(SLOT_ETHERNET, sources, ARRAY_SIZE(sources));
}

Test(packets, no_shape_hides_a_source)
{
	check_all(SLOT_ETHERNET, shapes, ARRAY_SIZE(shapes));
}

Test(packets, a_device_without_a_link_layer_is_filtered_too)
{
	check_all(SLOT_BARE, bare, ARRAY_SIZE(bare));
}

Test(packets, cut_at_every_length_they_are_malformed_or_dropped)
{
	for (size_t i = 0; i < ARRAY_SIZE(cut); i++)
		loaded_check_lengths(&loaded, SLOT_ETHERNET, FWD_HOOK_XDP, &cut[i],
				     packet_network_end(cut[i].layers));
	for (size_t i = 0; i < ARRAY_SIZE(bare_cut); i++)
		loaded_check_lengths(&loaded, SLOT_BARE, FWD_HOOK_XDP, &bare_cut[i],
				     packet_network_end(bare_cut[i].layers));
}

/* ---- what the tables cannot say ---- */

static const struct packet_case dropped4 = {
	"IPv4 from a blocked prefix", {ETHERNET, BLOCKED4, TCP(80)}, FWD_DROP, BLOCKED4_ENTRY};
static const struct packet_case dropped6 = {
	"IPv6 from a blocked prefix", {ETHERNET, BLOCKED6, TCP(80)}, FWD_DROP, BLOCKED6_ENTRY};

static void check(const struct packet_case *row)
{
	loaded_check(&loaded, SLOT_ETHERNET, FWD_HOOK_XDP, row);
}

static void check_as(const struct packet_case *row, const char *sentence, enum fwd_verdict verdict,
		     const char *entry)
{
	struct packet_case as = *row;

	as.sentence = sentence;
	as.verdict = verdict;
	as.entry = entry;
	check(&as);
}

Test(packets, without_the_direction_in_nothing_is_dropped)
{
	check(&dropped4);
	check(&dropped6);
	loaded_set_flags(&loaded, FWD_BLOCK_OUT);
	check_as(&dropped4, "FWD_BLOCK_IN is off", FWD_PASS, NULL);
	check_as(&dropped6, "FWD_BLOCK_IN is off", FWD_PASS, NULL);
	loaded_set_flags(&loaded, FWD_BLOCK_IN);
	check(&dropped4);
	check(&dropped6);
}

static void set_hits(const char *text, u64 hits)
{
	const struct prefix prefix = prefix_of(text);
	struct kernel_entries entries;

	kernel_entries_open(datapath_prefixes(loaded.dp), (enum family)prefix.family, &entries);
	kernel_entries_find(&entries, TABLE_BLOCK, &prefix)->hits = hits;
	kernel_entries_close(&entries);
}

Test(packets, a_hit_in_a_half_full_word_moves_a_chunk_on_and_none_is_lost)
{
	const struct {
		u64 hits;
		u32 packet_chunks, byte_chunks; /* one packet later */
	} rows[] = {
		{FWD_PACKETS_HALF_FULL - FWD_HIT(0), 0,
		 0}, /* the packet fills it; the next one sees it */
		{FWD_PACKETS_HALF_FULL, 1, 0},
		{FWD_BYTES_HALF_FULL - 1, 0, 0},
		{FWD_BYTES_HALF_FULL, 0, 1},
		{FWD_PACKETS_HALF_FULL | FWD_BYTES_HALF_FULL, 1, 1},
		{~(FWD_HIT(0) | FWD_BYTES_HALF_FULL), 1, 0},
	};
	struct fwd_entry entry = {0};
	u32 packet_chunks = 0, byte_chunks = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		set_hits(BLOCKED4_ENTRY, rows[i].hits);
		check(&dropped4);
		cr_assert(loaded_find(&loaded, TABLE_BLOCK, BLOCKED4_ENTRY, &entry));
		packet_chunks += rows[i].packet_chunks;
		byte_chunks += rows[i].byte_chunks;
		cr_expect_eq(entry.packet_chunks, packet_chunks, "row %zu", i);
		cr_expect_eq(entry.byte_chunks, byte_chunks, "row %zu", i);
	}
}

Test(packets, a_removed_entry_uncovers_the_one_around_it)
{
	const struct packet_case specific = {"from a blocked host",
					     {ETHERNET, FROM4("10.1.2.3"), TCP(80)},
					     FWD_DROP,
					     "10.1.2.3"};

	check(&specific);
	loaded_unblock(&loaded, "10.1.2.3");
	check_as(&specific, "the host's entry is gone", FWD_DROP, "10.1.0.0/16");
	loaded_unblock(&loaded, "10.1.0.0/16");
	check_as(&specific, "the prefix is gone, too", FWD_PASS, NULL);
}

Test(packets, an_entry_ends_on_time_with_nobody_there_to_remove_it)
{
	const struct packet_case row = {"before its end",
					{ETHERNET, FROM4("203.0.113.9"), TCP(80)},
					FWD_DROP,
					"203.0.113.9"};
	u64 end = boot_ns() + NS_PER_S;

	loaded_block(&loaded, "203.0.113.9", end);
	check(&row);
	while (boot_ns() < end + NS_PER_S / 100)
		usleep(10000);
	check_as(&row, "behind its end", FWD_PASS, NULL);
}

Test(packets, length_0_covers_a_whole_family_and_no_other)
{
	const struct packet_case from4 = {"", {ETHERNET, FREE4, TCP(80)}, FWD_PASS};
	const struct packet_case from6 = {"", {ETHERNET, FREE6, TCP(80)}, FWD_PASS};

	check_as(&from4, "before", FWD_PASS, NULL);
	loaded_block(&loaded, "0.0.0.0/0", LIVE);
	check_as(&from4, "0.0.0.0/0 covers it", FWD_DROP, "0.0.0.0/0");
	check_as(&from6, "0.0.0.0/0 does not cover IPv6", FWD_PASS, NULL);
	loaded_block(&loaded, "::/0", LIVE);
	check_as(&from6, "::/0 covers it", FWD_DROP, "::/0");
	check_as(&dropped4, "a longer prefix counts before 0.0.0.0/0", FWD_DROP, BLOCKED4_ENTRY);
	loaded_allow(&loaded, "0.0.0.0/0", LIVE);
	check_as(&dropped4, "the allowlist has everybody", FWD_ALLOW, "0.0.0.0/0");
	check_as(&from6, "the allowlist has nobody of IPv6", FWD_DROP, "::/0");
}

/* ---- views ---- */

static int stage(const struct prefix_change *changes, size_t n)
{
	const struct datapath_change change = {
		.prefixes = changes,
		.n_prefixes = n,
		.flags = datapath_flags(loaded.dp),
	};
	struct error err;

	return datapath_stage(loaded.dp, &change, &err);
}

static const struct packet_case comes = {"the new one", {ETHERNET, FREE4, TCP(80)}, FWD_PASS};

static void check_before(const char *when)
{
	check_as(&comes, when, FWD_PASS, NULL);
	check_as(&dropped4, when, FWD_DROP, BLOCKED4_ENTRY);
}

Test(packets, many_changes_are_seen_at_once_with_the_commit)
{
	const struct prefix_change changes[] = {insertion("203.0.113.1", LIVE),
						removal("10.1.0.0/16")};

	check_before("before");
	cr_assert_eq(stage(changes, 2), 0);
	check_before("staged");
	datapath_commit(loaded.dp);
	check_as(&comes, "committed", FWD_DROP, "203.0.113.1");
	check_as(&dropped4, "committed", FWD_PASS, NULL);
}

Test(packets, aborted_changes_are_never_seen)
{
	const struct prefix_change changes[] = {insertion("203.0.113.1", LIVE),
						removal("10.1.0.0/16")};

	for (int i = 0; i < 3; i++) {
		cr_assert_eq(stage(changes, 2), 0);
		check_before("staged");
		datapath_abort(loaded.dp);
		check_before("aborted");
	}
	cr_assert_eq(stage(changes, 2), 0);
	datapath_commit(loaded.dp);
	check_as(&comes, "committed at last", FWD_DROP, "203.0.113.1");
	check_as(&dropped4, "committed at last", FWD_PASS, NULL);
}

/* One change takes effect without switching views. */
Test(packets, one_change_is_seen_with_the_commit)
{
	const struct prefix_change insert = insertion("203.0.113.1", LIVE);
	const struct prefix_change remove = removal("10.1.0.0/16");

	cr_assert_eq(stage(&insert, 1), 0);
	check_before("an insertion staged");
	datapath_commit(loaded.dp);
	check_as(&comes, "committed", FWD_DROP, "203.0.113.1");
	cr_assert_eq(stage(&remove, 1), 0);
	check_as(&dropped4, "a removal staged", FWD_DROP, BLOCKED4_ENTRY);
	datapath_abort(loaded.dp);
	check_as(&dropped4, "aborted", FWD_DROP, BLOCKED4_ENTRY);
	cr_assert_eq(stage(&remove, 1), 0);
	datapath_commit(loaded.dp);
	check_as(&dropped4, "committed", FWD_PASS, NULL);
}

/* ---- prefixes of all lengths around one address ---- */

static const char nested_from4[] = "77.85.170.201";
static const char nested_from6[] = "4d55:aac9:4d55:aac9:4d55:aac9:4d55:aac9";

static void nested_prefix(const char *address, u8 len, char text[static PREFIX_TEXT_MAX])
{
	struct prefix prefix = prefix_of(address);

	prefix_truncate(&prefix, len);
	prefix_format(&prefix, text);
}

/* The address with its bit `len` turned over: /len covers it and no longer prefix does. */
static void turn_bit(const char *address, u8 len, char text[static PREFIX_TEXT_MAX])
{
	struct prefix prefix = prefix_of(address);

	if (len < prefix.len)
		prefix.addr[len / 8] ^= (u8)(0x80 >> len % 8);
	prefix_format(&prefix, text);
}

/* All of the address's prefixes. */
static size_t nested_items(const char *address, u64 expires_ns, struct prefix_item items[129])
{
	u8 bits = prefix_of(address).len;
	char text[PREFIX_TEXT_MAX];

	for (u8 len = 0; len <= bits; len++) {
		nested_prefix(address, len, text);
		items[len] = item_of(TABLE_BLOCK, text, expires_ns);
	}
	return bits + 1u;
}

/* In place of all that is there. */
static void replace_by_all_lengths(const char *address, u64 expires_ns)
{
	struct prefix_item items[129];
	size_t n = nested_items(address, expires_ns, items);

	loaded_replace(&loaded, items, n);
}

static void block_all_lengths(const char *address, u64 expires_ns)
{
	struct prefix_change changes[129];
	struct prefix_item items[129];
	size_t n = nested_items(address, expires_ns, items);

	for (size_t i = 0; i < n; i++)
		changes[i] = (struct prefix_change){items[i], PREFIX_INSERT};
	cr_assert_eq(stage(changes, n), 0);
	datapath_commit(loaded.dp);
}

static void check_source(const char *source, enum fwd_verdict verdict, const char *entry)
{
	struct packet_case row = {source, {ETHERNET, FROM4(source), TCP(80)}, verdict, entry};

	if (prefix_of(source).family == FAMILY_IPV6)
		row.layers[1] = (struct layer)FROM6(source);
	check(&row);
}

/* They are all there; ends with none. */
static void check_and_remove_all_lengths(const char *address)
{
	char source[PREFIX_TEXT_MAX], entry[PREFIX_TEXT_MAX];

	for (u8 len = 0; len <= prefix_of(address).len; len++) {
		turn_bit(address, len, source);
		nested_prefix(address, len, entry);
		check_source(source, FWD_DROP, entry);
	}
	/* From the most specific on they go, and the next one counts. */
	for (int len = prefix_of(address).len; len >= 0; len--) {
		nested_prefix(address, (u8)len, entry);
		check_source(address, FWD_DROP, entry);
		loaded_unblock(&loaded, entry);
	}
	check_source(address, FWD_PASS, NULL);
}

/* As they are built, and then as one change of what is there. */
static void check_all_lengths(const char *address)
{
	replace_by_all_lengths(address, LIVE);
	check_and_remove_all_lengths(address);
	block_all_lengths(address, LIVE);
	check_and_remove_all_lengths(address);
}

Test(packets, the_most_specific_of_all_33_lengths_counts)
{
	check_all_lengths(nested_from4);
}

Test(packets, the_most_specific_of_all_129_lengths_counts)
{
	check_all_lengths(nested_from6);
}

/* Each length alone: its last bit counts, the one behind it does not. */
static void check_each_length(const char *address)
{
	char source[PREFIX_TEXT_MAX], entry[PREFIX_TEXT_MAX];

	loaded_replace(&loaded, NULL, 0);
	for (u8 len = 0; len <= prefix_of(address).len; len++) {
		nested_prefix(address, len, entry);
		loaded_block(&loaded, entry, LIVE);
		check_source(address, FWD_DROP, entry);
		turn_bit(address, len, source);
		check_source(source, FWD_DROP, entry);
		if (len) {
			turn_bit(address, len - 1, source);
			check_source(source, FWD_PASS, NULL);
			turn_bit(address, 0, source);
			check_source(source, FWD_PASS, NULL);
		}
		loaded_unblock(&loaded, entry);
		check_source(address, FWD_PASS, NULL);
	}
}

Test(packets, each_length_of_ipv4_is_matched_exactly)
{
	check_each_length(nested_from4);
}

Test(packets, each_length_of_ipv6_is_matched_exactly)
{
	check_each_length(nested_from6);
}

/* ---- ends, with no daemon there ---- */

static void check_ended_lengths(const char *address, const char *all)
{
	replace_by_all_lengths(address, ENDED);
	check_source(address, FWD_PASS, NULL);
	loaded_unblock(&loaded, all);
	loaded_block(&loaded, all, LIVE);
	check_source(address, FWD_DROP, all);
}

/* The longest way that a lookup can take. */
Test(packets, a_live_length_0_counts_below_ended_entries_of_every_length)
{
	check_ended_lengths(nested_from4, "0.0.0.0/0");
	check_ended_lengths(nested_from6, "::/0");
}

/* Another end, where there was one, is a store to the entry alone: it is as if time went on. */
static void end_length(const char *address, u8 len)
{
	char entry[PREFIX_TEXT_MAX];

	nested_prefix(address, len, entry);
	loaded_retime(&loaded, entry, ENDED);
}

static void expect_length(const char *address, int len)
{
	char entry[PREFIX_TEXT_MAX];

	if (len < 0) {
		check_source(address, FWD_PASS, NULL);
		return;
	}
	nested_prefix(address, (u8)len, entry);
	check_source(address, FWD_DROP, entry);
}

/* They all have an end before them, and most of them share a slot with others. */
static void check_ends(const char *address)
{
	int bits = prefix_of(address).len;

	for (int len = bits; len >= 0; len--) {
		expect_length(address, len);
		end_length(address, (u8)len);
	}
	expect_length(address, -1);
}

static void check_ends_in_gaps(const char *address)
{
	int bits = prefix_of(address).len;

	for (int len = 1; len < bits; len += 2)
		end_length(address, (u8)len);
	for (int len = bits; len >= 0; len -= 2) {
		expect_length(address, len);
		end_length(address, (u8)len);
	}
	expect_length(address, -1);
}

Test(packets, each_nested_entry_that_ends_uncovers_the_next)
{
	static const char *const addresses[] = {nested_from4, nested_from6};
	u64 end = boot_ns() + 3600 * NS_PER_S;

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		replace_by_all_lengths(addresses[i], end);
		check_ends(addresses[i]);
		replace_by_all_lengths(addresses[i], end);
		check_ends_in_gaps(addresses[i]);
	}
}

/* So many that the trie of IPv4 has a table on top; none of them covers the nested ones. */
#define BESIDE 4096

static void replace_by_many_and_all_lengths(u64 expires_ns)
{
	struct prefix_item *items = calloc(BESIDE + 129, sizeof(*items));
	size_t n = nested_items(nested_from4, expires_ns, items);

	for (u32 i = 0; i < BESIDE; i++)
		items[n++] = (struct prefix_item){
			.prefix = {.family = FAMILY_IPV4,
				   .len = 32,
				   .addr = {100, (u8)(i >> 4), (u8)(i << 4), 1}},
		};
	loaded_replace(&loaded, items, n);
	free(items);
}

Test(packets, below_a_table_the_most_specific_counts_until_it_ends)
{
	char entry[PREFIX_TEXT_MAX];

	replace_by_many_and_all_lengths(boot_ns() + 3600 * NS_PER_S);
	check_source("100.255.240.1", FWD_DROP, "100.255.240.1");
	/* 100/8 shares its first bits with 77/8. */
	nested_prefix(nested_from4, 2, entry);
	check_source("100.255.240.2", FWD_DROP, entry);
	check_ends_in_gaps(nested_from4);
	replace_by_many_and_all_lengths(boot_ns() + 3600 * NS_PER_S);
	check_ends(nested_from4);
	replace_by_many_and_all_lengths(LIVE);
	check_and_remove_all_lengths(nested_from4);
	check_source("100.255.240.1", FWD_DROP, "100.255.240.1");
	check_source("100.255.240.2", FWD_PASS, NULL);
}

static void wait_until(u64 ns)
{
	while (boot_ns() < ns)
		usleep(5000);
}

Test(packets, nested_entries_end_one_after_the_other_with_nobody_there_to_remove_them)
{
	u64 first = boot_ns() + NS_PER_S, second = first + NS_PER_S, slack = NS_PER_S / 20;

	loaded_block(&loaded, "10.1.77.0/24", second);
	loaded_block(&loaded, "10.1.77.1", first);
	loaded_allow(&loaded, "10.1.77.0/25", first);
	loaded_block(&loaded, "2001:db8:1:77::/64", first);
	check_source("10.1.77.1", FWD_ALLOW, "10.1.77.0/25");
	check_source("2001:db8:1:77::1", FWD_DROP, "2001:db8:1:77::/64");
	wait_until(first + slack);
	check_source("10.1.77.1", FWD_DROP, "10.1.77.0/24");
	check_source("2001:db8:1:77::1", FWD_DROP, BLOCKED6_ENTRY);
	wait_until(second + slack);
	check_source("10.1.77.1", FWD_DROP, "10.1.0.0/16");
}

/* ---- the allowlist ---- */

/* One prefix of the address is blocked and one allowed: it passes, whichever is the longer. */
static void check_pair(const char *address, u8 block_len, u8 allow_len)
{
	char block[PREFIX_TEXT_MAX], allow[PREFIX_TEXT_MAX], source[PREFIX_TEXT_MAX];

	nested_prefix(address, block_len, block);
	nested_prefix(address, allow_len, allow);
	loaded_block(&loaded, block, LIVE);
	check_source(address, FWD_DROP, block);
	loaded_allow(&loaded, allow, LIVE);
	check_source(address, FWD_ALLOW, allow);
	if (allow_len > block_len) {
		turn_bit(address, allow_len - 1, source);
		check_source(source, FWD_DROP, block);
	} else if (block_len > allow_len) {
		turn_bit(address, block_len - 1, source);
		check_source(source, FWD_PASS, NULL);
	}
	loaded_disallow(&loaded, allow);
	check_source(address, FWD_DROP, block);
	loaded_unblock(&loaded, block);
}

static void check_pairs(const char *address, const u8 *lengths, size_t n)
{
	loaded_replace(&loaded, NULL, 0);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			check_pair(address, lengths[i], lengths[j]);
}

Test(packets, the_allowlist_wins_over_the_blacklist_whichever_is_more_specific)
{
	static const u8 of_ipv4[] = {0, 1, 7, 8, 9, 16, 17, 24, 31, 32};
	static const u8 of_ipv6[] = {0, 1, 16, 32, 33, 63, 64, 65, 127, 128};

	check_pairs(nested_from4, of_ipv4, ARRAY_SIZE(of_ipv4));
	check_pairs(nested_from6, of_ipv6, ARRAY_SIZE(of_ipv6));
}

/* ---- hits ---- */

Test(packets, a_hit_is_counted_with_its_time)
{
	struct fwd_entry entry;
	struct error err;

	cr_assert_eq(ticks_open(&err), 0, "%s", err.text);
	cr_assert(loaded_find(&loaded, TABLE_BLOCK, BLOCKED4_ENTRY, &entry));
	cr_expect_eq(entry.last_hit, 0);
	check(&dropped4);
	cr_assert(loaded_find(&loaded, TABLE_BLOCK, BLOCKED4_ENTRY, &entry));
	cr_expect_leq(llabs(ticks_to_wall_s(entry.last_hit) - wall_s()), 1);
	ticks_close();
}
