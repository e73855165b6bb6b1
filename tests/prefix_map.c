// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The prefixes of a bank: building, taking up, staging, settling, aborting, and a daemon that dies
 * in it. What packets see is asked with their own lookup, over the memory of the maps; packets.c
 * has the programs.
 */
#include "prefix_map.h"

#include "grace.h"
#include "private_bpffs.h"
#include "random.h"
#include "trie_reader.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(prefix_map, .init = enter_private_bpffs, .timeout = 300);

/* ---- the parts of a test ---- */

#define ENDED_NS 1			       /* in the first microseconds of this boot */
#define LATER_NS (boot_ns() + 3600 * NS_PER_S) /* not in this test */

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;
	struct error err;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, &err), 0, "%s", err.text);
	return prefix;
}

static struct prefix_item item(const char *text, enum prefix_table table, u64 expires_ns)
{
	return (struct prefix_item){prefix_of(text), (u8)table, expires_ns};
}

static struct prefix_item block(const char *text)
{
	return item(text, TABLE_BLOCK, 0);
}

static struct prefix_change change_of(enum prefix_change_kind kind, struct prefix_item one)
{
	return (struct prefix_change){one, (u8)kind};
}

static int by_table(const void *a, const void *b)
{
	const struct prefix_item *x = a, *y = b;

	return x->table != y->table ? x->table - y->table : prefix_compare(&x->prefix, &y->prefix);
}

/* In any order. */
static struct prefix_map *build(const struct prefix_item *items, size_t n)
{
	struct prefix_item *sorted = calloc(n + 1, sizeof(*sorted));
	struct prefix_map *map = NULL;
	struct error err;

	for (size_t i = 0; i < n; i++)
		sorted[i] = items[i];
	qsort(sorted, n, sizeof(*sorted), by_table);
	cr_assert_eq(prefix_map_build(sorted, n, 0, &map, &err), 0, "%s", err.text);
	free(sorted);
	return map;
}

static int stage(struct prefix_map *map, const struct prefix_change *changes, size_t n, bool alone)
{
	struct error err;

	return prefix_map_stage(map, changes, n, alone, &err);
}

/* As datapath_commit() does. */
static void settle(struct prefix_map *map)
{
	prefix_map_prolong(map);
	prefix_map_settle(map);
}

static void apply(struct prefix_map *map, const struct prefix_change *changes, size_t n)
{
	struct error err;

	cr_assert_eq(prefix_map_stage(map, changes, n, false, &err), 0, "%s", err.text);
	settle(map);
}

static int adopt(const struct prefix_map *of, const u32 roots[FWD_TRIES], struct prefix_map **ret)
{
	int fds[PART_COUNT];
	struct error err;

	for (size_t i = 0; i < PART_COUNT; i++)
		fds[i] = prefix_map_fd(of, (enum prefix_map_part)i);
	return prefix_map_adopt(fds, roots, ret, &err);
}

/* ---- what packets see ---- */

/* The maps, and where packets begin. */
struct sight {
	void *memory[PART_COUNT];
	size_t bytes[PART_COUNT];
	u32 n[PART_COUNT];
	u32 roots[FWD_TRIES];
};

static void sight_open(const struct prefix_map *map, struct sight *sight)
{
	for (size_t i = 0; i < PART_COUNT; i++) {
		int fd = prefix_map_fd(map, (enum prefix_map_part)i);
		struct bpf_map_info info = {0};
		u32 size = sizeof(info);

		cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
		sight->n[i] = info.max_entries;
		sight->bytes[i] = (size_t)info.max_entries * info.value_size;
		sight->memory[i] =
			mmap(NULL, sight->bytes[i], PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		cr_assert_neq(sight->memory[i], MAP_FAILED);
	}
	prefix_map_roots(map, sight->roots);
}

static void sight_close(struct sight *sight)
{
	for (size_t i = 0; i < PART_COUNT; i++)
		munmap(sight->memory[i], sight->bytes[i]);
}

static struct trie_memory family_memory(const struct sight *sight, u8 family)
{
	enum prefix_map_part part = family == FAMILY_IPV6 ? PART_ENTRIES6 : PART_ENTRIES4;

	return (struct trie_memory){
		.lines = sight->memory[PART_LINES],
		.n_lines = sight->n[PART_LINES],
		.entries = sight->memory[part],
		.n_entries = sight->n[part],
	};
}

static struct fwd_bits bits_of(const struct prefix *prefix)
{
	u64 words[2];

	memcpy(words, prefix->addr, sizeof(words));
	return (struct fwd_bits){be64toh(words[0]), be64toh(words[1])};
}

static u32 trie_of(enum prefix_table table, u8 family)
{
	return (u32)table * 2 + (family == FAMILY_IPV6);
}

/* The entry that a packet of the address finds; NULL: none. */
static struct fwd_entry *look_up(const struct sight *sight, enum prefix_table table,
				 const struct prefix *address)
{
	const struct trie_memory memory = family_memory(sight, address->family);
	struct fwd_bits key = bits_of(address);
	u32 root = sight->roots[trie_of(table, address->family)], index;
	struct fwd_entry *found;
	bool ask;

	found = address->family == FAMILY_IPV4
			? fwd_trie_find_fast(&memory, root, &key, FWD_IPV4, &ask)
			: fwd_trie_find_fast(&memory, root, &key, FWD_IPV6, &ask);
	if (!ask)
		return found;
	index = address->family == FAMILY_IPV4 ? fwd_trie_find_exact(&memory, root, &key, FWD_IPV4)
					       : fwd_trie_find_exact(&memory, root, &key, FWD_IPV6);
	return index ? trie_entry(&memory, address->family, index) : NULL;
}

/* The prefix that an entry's bits make. */
static struct prefix entry_prefix(const struct fwd_entry *entry, u8 family)
{
	struct prefix prefix = {.family = family, .len = (u8)FWD_ABOUT_LEN(entry->about)};
	const struct fwd_entry6 *entry6 = (const struct fwd_entry6 *)entry;
	u64 words[2];

	words[0] = htobe64(family == FAMILY_IPV4 ? (u64)entry->addr << 32 : entry6->addr[0]);
	words[1] = family == FAMILY_IPV4 ? 0 : htobe64(entry6->addr[1]);
	memcpy(prefix.addr, words, sizeof(words));
	return prefix;
}

/* `expected` NULL: nothing is found. */
static void expect_found(const struct sight *sight, enum prefix_table table, const char *address,
			 const char *expected)
{
	const struct prefix key = prefix_of(address);
	const struct fwd_entry *entry = look_up(sight, table, &key);
	char text[PREFIX_TEXT_MAX] = "nothing";
	struct prefix found;

	if (entry) {
		found = entry_prefix(entry, key.family);
		prefix_format(&found, text);
	}
	cr_expect_str_eq(text, expected ? expected : "nothing", "%s: %s, not %s", address, text,
			 expected ? expected : "nothing");
}

/* What packets of the map's own roots find. */
static void expect_seen(const struct prefix_map *map, enum prefix_table table, const char *address,
			const char *expected)
{
	struct sight sight;

	sight_open(map, &sight);
	expect_found(&sight, table, address, expected);
	sight_close(&sight);
}

/* The element of exactly this prefix. */
static struct fwd_entry *entry_of(const struct sight *sight, enum prefix_table table,
				  const char *text)
{
	const struct prefix prefix = prefix_of(text);
	const struct trie_memory memory = family_memory(sight, prefix.family);
	u32 flags = FWD_ENTRY_USED | (table == TABLE_ALLOW ? FWD_ENTRY_ALLOW : 0);

	for (u32 i = 1; i < memory.n_entries; i++) {
		struct fwd_entry *entry = trie_entry(&memory, prefix.family, i);
		struct prefix other = entry_prefix(entry, prefix.family);

		if (FWD_ABOUT_FLAGS(entry->about) == flags && prefix_equal(&other, &prefix))
			return entry;
	}
	cr_assert(false, "there is no entry %s", text);
	return NULL;
}

static bool has(const struct prefix_map *map, enum prefix_table table, const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct prefix_state state;

	return prefix_map_read(map, table, &prefix, &state);
}

static struct prefix_state read_state(const struct prefix_map *map, const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct prefix_state state;

	cr_assert(prefix_map_read(map, TABLE_BLOCK, &prefix, &state), "%s", text);
	return state;
}

static void expect_sizes(const struct prefix_map *map, u32 n_block, u32 n_allow)
{
	cr_expect_eq(prefix_map_size(map, TABLE_BLOCK), n_block, "%u are blocked, not %u",
		     prefix_map_size(map, TABLE_BLOCK), n_block);
	cr_expect_eq(prefix_map_size(map, TABLE_ALLOW), n_allow, "%u are allowed, not %u",
		     prefix_map_size(map, TABLE_ALLOW), n_allow);
}

/* The map leads to the items and to no others: nothing is to be changed. */
static void expect_items(const struct prefix_map *map, const struct prefix_item *items, size_t n)
{
	struct prefix_change_list list = {0};

	cr_assert_eq(prefix_map_diff(map, items, n, &list), 0);
	cr_expect_eq(list.n, 0, "%zu changes", list.n);
	free(list.items);
}

/* ---- building ---- */

Test(prefix_map, holds_what_it_was_built_of)
{
	const struct prefix_item items[] = {
		block("10.0.0.0/8"),
		block("10.1.0.0/16"),
		block("10.1.2.3"),
		item("192.0.2.0/24", TABLE_BLOCK, 1000000007),
		block("2001:db8::/32"),
		block("2001:db8::1"),
		item("10.1.2.3", TABLE_ALLOW, 0),
		item("2001:db8::/32", TABLE_ALLOW, 0),
	};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(items, ARRAY_SIZE(items));
	struct prefix_state state;

	expect_items(map, items, ARRAY_SIZE(items));
	expect_sizes(map, 6, 2);
	expect_seen(map, TABLE_BLOCK, "10.1.2.3", "10.1.2.3");
	expect_seen(map, TABLE_BLOCK, "10.1.2.4", "10.1.0.0/16");
	expect_seen(map, TABLE_BLOCK, "10.2.0.0", "10.0.0.0/8");
	expect_seen(map, TABLE_BLOCK, "11.0.0.0", NULL);
	expect_seen(map, TABLE_BLOCK, "192.0.2.9", NULL);
	expect_seen(map, TABLE_ALLOW, "10.1.2.3", "10.1.2.3");
	expect_seen(map, TABLE_ALLOW, "10.1.2.4", NULL);
	expect_seen(map, TABLE_BLOCK, "2001:db8::1", "2001:db8::1");
	expect_seen(map, TABLE_BLOCK, "2001:db8::2", "2001:db8::/32");
	expect_seen(map, TABLE_ALLOW, "2001:db8::1", "2001:db8::/32");
	expect_seen(map, TABLE_ALLOW, "2001:db9::1", NULL);
	state = read_state(map, "192.0.2.0/24");
	cr_expect_geq(state.expires_ns, 1000000007);
	cr_expect_lt(state.expires_ns, 1000000007 + (1 << FWD_END_SHIFT));
	cr_expect_eq(state.packets + state.bytes + state.last_hit, 0);
	cr_expect_eq(read_state(map, "10.0.0.0/8").expires_ns, 0);
}

/* A prefix inside another one, or around it, is not that one. */
Test(prefix_map, reads_exactly_the_prefix_it_is_asked_for)
{
	const struct prefix_item items[] = {block("10.1.0.0/16"), block("2001:db8::/32")};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(items, 2);

	cr_expect(has(map, TABLE_BLOCK, "10.1.0.0/16") && has(map, TABLE_BLOCK, "2001:db8::/32"));
	cr_expect_not(has(map, TABLE_ALLOW, "10.1.0.0/16"));
	cr_expect_not(has(map, TABLE_BLOCK, "10.1.0.0/17"));
	cr_expect_not(has(map, TABLE_BLOCK, "10.0.0.0/15"));
	cr_expect_not(has(map, TABLE_BLOCK, "10.1.0.0"));
	cr_expect_not(has(map, TABLE_BLOCK, "2001:db8::/33"));
	cr_expect_not(has(map, TABLE_BLOCK, "2001:db8::"));
}

Test(prefix_map, a_map_of_nothing_is_small_and_has_room)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(NULL, 0);
	const u32 none[FWD_TRIES] = {0};
	u32 roots[FWD_TRIES];

	prefix_map_roots(map, roots);
	cr_expect_eq(memcmp(roots, none, sizeof(none)), 0);
	expect_sizes(map, 0, 0);
	cr_expect(prefix_map_fits(map) && !prefix_map_is_large(map));
	cr_expect_geq(prefix_map_capacity(map), 256 + 64);
	expect_seen(map, TABLE_BLOCK, "0.0.0.0", NULL);
}

/* Of each two the first covers half a node, and the second a list in each slot of its own. */
static struct prefix_item of_many_lines(u32 n)
{
	struct prefix prefix = {.family = FAMILY_IPV4, .addr = {10, (u8)(n / 2)}};

	prefix.len = n % 2 ? 18 : 17;
	return (struct prefix_item){prefix, TABLE_BLOCK, LATER_NS};
}

/* Some 36 lines an entry, where two are expected. */
Test(prefix_map, is_built_whatever_lines_it_takes)
{
	struct prefix_item items[512];
	struct prefix_map *map;

	for (u32 n = 0; n < ARRAY_SIZE(items); n++)
		items[n] = of_many_lines(n);
	map = build(items, ARRAY_SIZE(items));
	cr_expect_gt(prefix_map_bytes(map), 512 * 36 * sizeof(struct fwd_line));
	expect_items(map, items, ARRAY_SIZE(items));
	expect_seen(map, TABLE_BLOCK, "10.255.64.1", "10.255.0.0/17");
	expect_seen(map, TABLE_BLOCK, "10.255.63.1", "10.255.0.0/18");
	prefix_map_close(map);
}

/* ---- taking up ---- */

Test(prefix_map, is_taken_up_as_it_was)
{
	const struct prefix_item items[] = {
		block("10.0.0.0/8"),
		item("10.1.0.0/16", TABLE_BLOCK, LATER_NS),
		block("2001:db8::/32"),
		block("2001:db8::1"),
		item("10.0.0.0/8", TABLE_ALLOW, 0),
	};
	struct prefix_map *before = build(items, ARRAY_SIZE(items)), *map = NULL;
	const struct prefix_change remove = change_of(PREFIX_REMOVE, items[0]);
	struct sight sight;

	sight_open(before, &sight);
	entry_of(&sight, TABLE_BLOCK, "10.1.0.0/16")->hits = 3 * FWD_HIT(60);
	cr_assert_eq(adopt(before, sight.roots, &map), 0);
	prefix_map_close(before);
	expect_items(map, items, ARRAY_SIZE(items));
	expect_sizes(map, 4, 1);
	cr_expect_eq(read_state(map, "10.1.0.0/16").packets, 3);
	apply(map, &remove, 1);
	expect_seen(map, TABLE_BLOCK, "10.2.0.0", NULL);
	expect_seen(map, TABLE_BLOCK, "10.1.0.0", "10.1.0.0/16");
	expect_seen(map, TABLE_ALLOW, "10.2.0.0", "10.0.0.0/8");
	expect_items(map, items + 1, ARRAY_SIZE(items) - 1);
	sight_close(&sight);
	prefix_map_close(map);
}

static u32 index_of(const struct sight *sight, enum prefix_table table, const char *text)
{
	const struct fwd_entry *entry = entry_of(sight, table, text);

	return (u32)(entry - (struct fwd_entry *)sight->memory[PART_ENTRIES4]);
}

static struct fwd_node *root_node(const struct sight *sight)
{
	struct fwd_line *lines = sight->memory[PART_LINES];

	return (struct fwd_node *)&lines[sight->roots[FWD_BLOCK4] & FWD_CELL_INDEX];
}

static void damage_none(struct sight *sight)
{
}

static void damage_node(struct sight *sight)
{
	sight->roots[FWD_BLOCK4] = FWD_CELL_NODE | sight->n[PART_LINES];
}

static void damage_list(struct sight *sight)
{
	sight->roots[FWD_BLOCK4] = FWD_CELL_LIST | sight->n[PART_LINES];
}

static void damage_table(struct sight *sight)
{
	sight->roots[FWD_BLOCK4] = FWD_CELL_TABLE | (sight->n[PART_LINES] - 100);
}

static void damage_index(struct sight *sight)
{
	sight->roots[FWD_ALLOW4] = FWD_CELL_INDEX;
}

static void damage_unlisted(struct sight *sight)
{
	sight->roots[FWD_ALLOW4] = sight->n[PART_ENTRIES4] - 1;
}

static void damage_other_table(struct sight *sight)
{
	sight->roots[FWD_ALLOW4] = index_of(sight, TABLE_BLOCK, "10.1.2.3");
}

static void damage_used(struct sight *sight)
{
	entry_of(sight, TABLE_BLOCK, "10.1.2.3")->about &= ~(u64)FWD_ENTRY_USED;
}

static void damage_len(struct sight *sight)
{
	entry_of(sight, TABLE_BLOCK, "10.1.2.3")->about = FWD_ABOUT(0, 33, FWD_ENTRY_USED);
}

static void damage_twice(struct sight *sight)
{
	struct fwd_entry *entries = sight->memory[PART_ENTRIES4];

	entries[sight->n[PART_ENTRIES4] - 1] = *entry_of(sight, TABLE_BLOCK, "10.1.2.3");
}

static void damage_rank(struct sight *sight)
{
	root_node(sight)->rank[5]++;
}

static void damage_cell(struct sight *sight)
{
	root_node(sight)->cell[0] = FWD_CELL_NODE | sight->n[PART_LINES];
}

Test(prefix_map, maps_that_are_damaged_are_not_taken_up)
{
	static const struct {
		const char *what;
		void (*make)(struct sight *);
		int r;
	} rows[] = {
		{"no damage", damage_none, 0},
		{"a node behind the last line", damage_node, -EUCLEAN},
		{"a list behind the last line", damage_list, -EUCLEAN},
		{"a table that goes on behind it", damage_table, -EUCLEAN},
		{"an entry behind the last one", damage_index, -EUCLEAN},
		{"an element that holds none", damage_unlisted, -EUCLEAN},
		{"an entry of the other table", damage_other_table, -EUCLEAN},
		{"an entry that is not listed", damage_used, -EUCLEAN},
		{"a length past 32", damage_len, -EUCLEAN},
		{"the same prefix twice", damage_twice, -EUCLEAN},
		{"slots and cells that do not agree", damage_rank, -EUCLEAN},
		{"a cell of a line out of range", damage_cell, -EUCLEAN},
	};
	const struct prefix_item items[] = {
		block("10.1.2.0/24"), block("10.1.2.3"),   block("10.1.2.4"),
		block("10.200.0.1"),  block("10.200.0.2"), item("192.0.2.1", TABLE_ALLOW, 0),
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_(prefix_map_closep) struct prefix_map *map = NULL, *taken = NULL;
		struct sight sight;

		map = build(items, ARRAY_SIZE(items));
		sight_open(map, &sight);
		rows[i].make(&sight);
		cr_expect_eq(adopt(map, sight.roots, &taken), rows[i].r, "%s", rows[i].what);
		cr_expect_eq(taken != NULL, !rows[i].r, "%s", rows[i].what);
		sight_close(&sight);
	}
}

Test(prefix_map, maps_of_another_kind_are_not_taken_up)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(NULL, 0), *taken = NULL;
	const u32 roots[FWD_TRIES] = {0};
	int good[PART_COUNT], fds[PART_COUNT];
	int unmapped = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test", 4, 64, 8, NULL);
	int hash = bpf_map_create(BPF_MAP_TYPE_HASH, "test", 4, 64, 8, NULL);
	struct error err;

	for (size_t i = 0; i < PART_COUNT; i++)
		good[i] = prefix_map_fd(map, (enum prefix_map_part)i);
	for (size_t i = 0; i < PART_COUNT; i++) {
		const int bad[] = {-1, unmapped, hash, good[i == PART_ENTRIES4 ? 0 : 1]};

		for (size_t j = 0; j < ARRAY_SIZE(bad); j++) {
			memcpy(fds, good, sizeof(fds));
			fds[i] = bad[j];
			cr_expect_eq(prefix_map_adopt(fds, roots, &taken, &err), -EUCLEAN,
				     "part %zu, %zu", i, j);
			cr_expect_null(taken);
		}
	}
	cr_expect_eq(prefix_map_adopt(good, roots, &taken, &err), 0, "%s", err.text);
	close(unmapped);
	close(hash);
}

/* ---- staging ---- */

#define MANY 2600 /* an IPv4 trie has a table on top of these */

/* Six prefixes to change, and `many` others beside. */
static struct prefix_map *build_with(size_t many)
{
	struct prefix_item *items = calloc(many + 6, sizeof(*items));
	struct prefix_map *map;
	size_t n = 0;

	items[n++] = block("10.0.0.0/12");
	items[n++] = item("10.1.0.0/18", TABLE_BLOCK, LATER_NS);
	items[n++] = block("10.1.0.0/17");
	items[n++] = block("10.1.2.3");
	items[n++] = item("10.1.2.3", TABLE_ALLOW, 0);
	items[n++] = block("2001:db8::/32");
	for (size_t i = 0; i < many; i++)
		items[n++] = (struct prefix_item){
			.prefix = {FAMILY_IPV4, 32, {172, 16, (u8)(i >> 8), (u8)i}},
		};
	map = build(items, n);
	free(items);
	return map;
}

/* A change, and an address that tells whether it was made. */
struct one_change {
	struct prefix_change change;
	const char *address, *before, *after;
};

static size_t each_change(struct one_change ret[static 16])
{
	const struct one_change changes[] = {
		{change_of(PREFIX_INSERT, block("10.1.2.0/24")), "10.1.2.4", "10.1.0.0/18",
		 "10.1.2.0/24"},
		{change_of(PREFIX_INSERT, block("10.1.2.4")), "10.1.2.4", "10.1.0.0/18",
		 "10.1.2.4"},
		{change_of(PREFIX_INSERT, block("10.0.0.0/8")), "10.77.0.1", NULL, "10.0.0.0/8"},
		{change_of(PREFIX_INSERT, block("0.0.0.0/0")), "99.0.0.1", NULL, "0.0.0.0/0"},
		{change_of(PREFIX_REMOVE, block("10.1.2.3")), "10.1.2.3", "10.1.2.3",
		 "10.1.0.0/18"},
		{change_of(PREFIX_REMOVE, block("10.1.0.0/18")), "10.1.0.1", "10.1.0.0/18",
		 "10.1.0.0/17"},
		{change_of(PREFIX_REMOVE, block("10.0.0.0/12")), "10.2.0.1", "10.0.0.0/12", NULL},
		{change_of(PREFIX_RETIME, item("10.1.2.3", TABLE_BLOCK, ENDED_NS)), "10.1.2.3",
		 "10.1.2.3", "10.1.0.0/18"},
		{change_of(PREFIX_RETIME, item("10.1.0.0/18", TABLE_BLOCK, ENDED_NS)), "10.1.0.1",
		 "10.1.0.0/18", "10.1.0.0/17"},
		{change_of(PREFIX_RETIME, item("10.0.0.0/12", TABLE_BLOCK, ENDED_NS)), "10.2.0.1",
		 "10.0.0.0/12", NULL},
		{change_of(PREFIX_INSERT, block("2001:db8::1")), "2001:db8::1", "2001:db8::/32",
		 "2001:db8::1"},
		{change_of(PREFIX_REMOVE, block("2001:db8::/32")), "2001:db8::1", "2001:db8::/32",
		 NULL},
		{change_of(PREFIX_RETIME, item("2001:db8::/32", TABLE_BLOCK, ENDED_NS)),
		 "2001:db8::1", "2001:db8::/32", NULL},
	};

	_Static_assert(ARRAY_SIZE(changes) <= 16, "room for each");
	memcpy(ret, changes, sizeof(changes));
	return ARRAY_SIZE(changes);
}

/*
 * P2, P3: at the old roots packets see what they saw until the change is settled, or one word of a
 * table is stored.
 */
static void expect_staged(const struct one_change *one, size_t many, bool alone)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(many);
	u32 n_block = prefix_map_size(map, TABLE_BLOCK), roots[FWD_TRIES];
	struct sight sight;

	sight_open(map, &sight);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(stage(map, &one->change, 1, alone), 0);
		expect_found(&sight, TABLE_BLOCK, one->address, one->before);
		prefix_map_abort(map);
		expect_seen(map, TABLE_BLOCK, one->address, one->before);
		expect_sizes(map, n_block, 1);
	}
	cr_assert_eq(stage(map, &one->change, 1, alone), 0);
	prefix_map_roots(map, roots);
	if (alone && many && one->change.item.prefix.len >= FWD_TABLE_BITS &&
	    one->change.item.prefix.family == FAMILY_IPV4)
		cr_expect_eq(memcmp(roots, sight.roots, sizeof(roots)), 0, "%s: a root moved",
			     one->address);
	memcpy(sight.roots, roots, sizeof(roots));
	settle(map);
	expect_found(&sight, TABLE_BLOCK, one->address, one->after);
	prefix_map_roots(map, roots);
	cr_expect_eq(memcmp(roots, sight.roots, sizeof(roots)), 0, "%s: other roots than staged",
		     one->address);
	expect_found(&sight, TABLE_ALLOW, "10.1.2.3", "10.1.2.3");
	n_block += one->change.kind == PREFIX_INSERT;
	n_block -= one->change.kind == PREFIX_REMOVE;
	expect_sizes(map, n_block, 1);
	sight_close(&sight);
}

Test(prefix_map, each_change_is_staged_aside)
{
	struct one_change changes[16];
	size_t n = each_change(changes);

	for (size_t i = 0; i < n; i++) {
		expect_staged(&changes[i], 0, true);
		expect_staged(&changes[i], 0, false);
		expect_staged(&changes[i], MANY, true);
		expect_staged(&changes[i], MANY, false);
	}
}

Test(prefix_map, a_batch_is_staged_as_one)
{
	const struct prefix_change batch[] = {
		change_of(PREFIX_INSERT, block("10.1.2.0/24")),
		change_of(PREFIX_INSERT, item("10.1.2.0/24", TABLE_ALLOW, 0)),
		change_of(PREFIX_REMOVE, block("10.1.2.3")),
		change_of(PREFIX_REMOVE, item("10.1.2.3", TABLE_ALLOW, 0)),
		change_of(PREFIX_REMOVE, block("2001:db8::/32")),
		change_of(PREFIX_INSERT, block("2001:db8::/48")),
		change_of(PREFIX_RETIME, item("10.1.0.0/18", TABLE_BLOCK, 0)),
	};

	for (int i = 0; i < 4; i++) {
		_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(i & 1 ? MANY : 0);
		u32 n_block = prefix_map_size(map, TABLE_BLOCK);
		bool settles = i & 2;
		struct sight sight;

		sight_open(map, &sight);
		cr_assert_eq(stage(map, batch, ARRAY_SIZE(batch), false), 0);
		expect_found(&sight, TABLE_BLOCK, "10.1.2.3", "10.1.2.3");
		expect_found(&sight, TABLE_ALLOW, "10.1.2.4", NULL);
		expect_found(&sight, TABLE_BLOCK, "2001:db8:1::", "2001:db8::/32");
		if (settles)
			settle(map);
		else
			prefix_map_abort(map);
		expect_seen(map, TABLE_BLOCK, "10.1.2.3", settles ? "10.1.2.0/24" : "10.1.2.3");
		expect_seen(map, TABLE_ALLOW, "10.1.2.3", settles ? "10.1.2.0/24" : "10.1.2.3");
		expect_seen(map, TABLE_ALLOW, "10.1.2.4", settles ? "10.1.2.0/24" : NULL);
		expect_seen(map, TABLE_BLOCK, "2001:db8::9",
			    settles ? "2001:db8::/48" : "2001:db8::/32");
		expect_seen(map, TABLE_BLOCK, "2001:db8:1::", settles ? NULL : "2001:db8::/32");
		cr_expect_eq(!read_state(map, "10.1.0.0/18").expires_ns, settles);
		expect_sizes(map, n_block, 1);
		sight_close(&sight);
	}
}

Test(prefix_map, nothing_to_stage_is_no_change)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(0);

	cr_expect_eq(stage(map, NULL, 0, true), 0);
	settle(map);
	prefix_map_abort(map);
	expect_sizes(map, 5, 1);
}

Test(prefix_map, refuses_what_the_caller_has_wrong)
{
	static const struct {
		enum prefix_change_kind kind;
		const char *text;
		enum prefix_table table;
		int r;
	} rows[] = {
		{PREFIX_INSERT, "10.0.0.0/12", TABLE_BLOCK, -EEXIST},
		{PREFIX_INSERT, "10.1.2.3", TABLE_ALLOW, -EEXIST},
		{PREFIX_REMOVE, "10.0.0.0/13", TABLE_BLOCK, -ENOENT},
		{PREFIX_RETIME, "10.0.0.0/11", TABLE_BLOCK, -ENOENT},
		{PREFIX_REMOVE, "10.0.0.0/12", TABLE_ALLOW, -ENOENT},
		{PREFIX_RETIME, "2001:db8::", TABLE_BLOCK, -ENOENT},
	};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(0);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct prefix_change changes[] = {
			change_of(PREFIX_INSERT, block("10.9.0.0/16")),
			change_of(PREFIX_REMOVE, block("10.1.2.3")),
			change_of(rows[i].kind, item(rows[i].text, rows[i].table, 0)),
		};

		cr_expect_eq(stage(map, changes, 3, false), rows[i].r, "row %zu", i);
		expect_sizes(map, 5, 1);
		expect_seen(map, TABLE_BLOCK, "10.9.0.1", "10.0.0.0/12");
		cr_expect(has(map, TABLE_BLOCK, "10.1.2.3"));
		cr_expect_not(has(map, TABLE_BLOCK, "10.9.0.0/16"));
	}
}

/* P4, and what a retimed entry counted. */
Test(prefix_map, an_entry_keeps_its_hits_whatever_changes_around_it)
{
	static const u64 ends_ns[] = {ENDED_NS, 0, 5000000000, 6000000000, 0};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(0);
	const struct prefix_change around[] = {
		change_of(PREFIX_REMOVE, block("10.1.0.0/17")),
		change_of(PREFIX_INSERT, block("10.1.2.0/24")),
	};
	struct sight sight;

	sight_open(map, &sight);
	*entry_of(&sight, TABLE_BLOCK, "10.1.2.3") = (struct fwd_entry){
		.about = FWD_ABOUT(0, 32, FWD_ENTRY_USED),
		.hits = 3 * FWD_HIT(60),
		.last_hit = 7,
		.addr = 0x0a010203,
	};
	apply(map, around, 2);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(ends_ns); i++) {
		const struct prefix_change retime =
			change_of(PREFIX_RETIME, item("10.1.2.3", TABLE_BLOCK, ends_ns[i / 2]));
		struct prefix_state state;

		cr_assert_eq(stage(map, &retime, 1, i & 1), 0);
		settle(map);
		state = read_state(map, "10.1.2.3");
		cr_expect_eq(state.expires_ns >> FWD_END_SHIFT,
			     (ends_ns[i / 2] + (1 << FWD_END_SHIFT) - 1) >> FWD_END_SHIFT);
		cr_expect(state.packets == 3 && state.bytes == 180 && state.last_hit == 7);
	}
	expect_seen(map, TABLE_BLOCK, "10.1.2.3", "10.1.2.3");
	sight_close(&sight);
}

/*
 * An entry whose end has passed, and that is to stay for good now. Behind it the old trie goes on
 * to what it covers, the new one does not.
 */
Test(prefix_map, an_entry_that_comes_back_never_leaves_a_gap)
{
	const struct prefix_item items[] = {item("10.1.0.0/18", TABLE_BLOCK, ENDED_NS),
					    block("10.1.0.0/17")};
	const struct prefix_change retime = change_of(PREFIX_RETIME, block("10.1.0.0/18"));
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(items, 2);
	struct sight sight;

	sight_open(map, &sight);
	expect_found(&sight, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/17");
	cr_assert_eq(stage(map, &retime, 1, true), 0);
	expect_found(&sight, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/17");
	prefix_map_prolong(map);
	expect_found(&sight, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/18");
	prefix_map_roots(map, sight.roots);
	expect_found(&sight, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/18");
	prefix_map_settle(map);
	expect_found(&sight, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/18");
	expect_found(&sight, TABLE_BLOCK, "10.1.64.1", "10.1.0.0/17");
	sight_close(&sight);
}

/* The other way round the list has to be there before the end is. */
Test(prefix_map, an_end_uncovers_what_is_behind_it)
{
	const struct prefix_item items[] = {block("10.1.0.0/18"), block("10.1.0.0/17"),
					    block("10.1.0.0/24")};
	const struct prefix_change ends[] = {
		change_of(PREFIX_RETIME, item("10.1.0.0/24", TABLE_BLOCK, ENDED_NS)),
		change_of(PREFIX_RETIME, item("10.1.0.0/18", TABLE_BLOCK, ENDED_NS)),
		change_of(PREFIX_RETIME, item("10.1.0.0/17", TABLE_BLOCK, ENDED_NS)),
	};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(items, 3);

	apply(map, &ends[0], 1);
	expect_seen(map, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/18");
	apply(map, &ends[1], 1);
	expect_seen(map, TABLE_BLOCK, "10.1.0.1", "10.1.0.0/17");
	apply(map, &ends[2], 1);
	expect_seen(map, TABLE_BLOCK, "10.1.0.1", NULL);
	expect_sizes(map, 3, 0);
}

/* ---- room ---- */

static struct prefix_change host(u32 n)
{
	return (struct prefix_change){
		.item.prefix = {FAMILY_IPV4, 32, {10, (u8)(n >> 16), (u8)(n >> 8), (u8)n}},
		.kind = PREFIX_INSERT,
	};
}

Test(prefix_map, takes_as_many_entries_as_it_has_room_for_and_not_one_more)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(NULL, 0);
	struct prefix_change changes[1024];
	const struct prefix_change other = change_of(PREFIX_INSERT, block("2001:db8::1"));
	struct sight sight;
	u32 room;

	sight_open(map, &sight);
	room = sight.n[PART_ENTRIES4] - 1; /* element 0 stands for none */
	sight_close(&sight);
	cr_assert_lt(room, ARRAY_SIZE(changes));
	for (u32 n = 0; n <= room; n++)
		changes[n] = host(n);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(stage(map, changes, room + 1, false), -E2BIG);
		expect_sizes(map, 0, 0);
		expect_seen(map, TABLE_BLOCK, "10.0.0.1", NULL);
	}
	apply(map, changes, room);
	expect_sizes(map, room, 0);
	cr_expect_not(prefix_map_fits(map));
	for (int i = 0; i < 3; i++)
		cr_expect_eq(stage(map, &changes[room], 1, true), -E2BIG);
	apply(map, &other, 1);
	expect_sizes(map, room + 1, 0);
	changes[0].kind = PREFIX_REMOVE;
	apply(map, changes, 1);
	cr_expect_eq(stage(map, &changes[room], 1, true), 0, "room was made");
	settle(map);
	expect_sizes(map, room + 1, 0);
	expect_seen(map, TABLE_BLOCK, "10.0.0.0", NULL);
	expect_seen(map, TABLE_BLOCK, "10.0.0.1", "10.0.0.1");
}

/* One by one, until there are no more lines; then everything is as it was, again and again. */
Test(prefix_map, takes_what_it_has_lines_for_and_leaves_the_rest)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = build(NULL, 0);
	struct prefix_change changes[64];
	u32 n = 0;
	int r;

	for (u32 i = 0; i < ARRAY_SIZE(changes); i++)
		changes[i] = change_of(PREFIX_INSERT, of_many_lines(i));
	for (int i = 0; i < 20; i++) {
		cr_expect_eq(stage(map, changes, ARRAY_SIZE(changes), false), -E2BIG);
		expect_sizes(map, 0, 0);
		expect_seen(map, TABLE_BLOCK, "10.0.0.1", NULL);
	}
	while (!(r = stage(map, &changes[n], 1, true))) {
		settle(map);
		cr_assert_lt(++n, ARRAY_SIZE(changes));
	}
	cr_expect_eq(r, -E2BIG);
	cr_expect_gt(n, 20, "only %u fit", n);
	for (int i = 0; i < 20; i++)
		cr_expect_eq(stage(map, &changes[n], 1, true), -E2BIG);
	expect_sizes(map, n, 0);
	expect_seen(map, TABLE_BLOCK, "10.0.0.1", "10.0.0.0/18");
	changes[n - 1].kind = PREFIX_REMOVE;
	cr_assert_eq(stage(map, &changes[n - 1], 1, true), 0);
	settle(map);
	changes[n - 1].kind = PREFIX_INSERT;
	cr_expect_eq(stage(map, &changes[n - 1], 1, true), 0, "lines were made free");
	settle(map);
	expect_sizes(map, n, 0);
}

/* Both tables of a large set are copied by the same change. */
Test(prefix_map, a_batch_finds_room_for_the_copies_of_tables)
{
	struct prefix_item *items = calloc((size_t)2 * MANY, sizeof(*items));
	struct prefix_change changes[4];
	struct prefix_map *map;

	for (u32 n = 0; n < 2 * MANY; n++) {
		items[n] = host(n).item;
		items[n].table = n < MANY ? TABLE_BLOCK : TABLE_ALLOW;
	}
	for (u32 n = 0; n < 4; n++) {
		changes[n] = host(1000000 + n);
		changes[n].item.table = n & 1 ? TABLE_ALLOW : TABLE_BLOCK;
	}
	map = build(items, (size_t)2 * MANY);
	apply(map, changes, 4);
	expect_sizes(map, MANY + 2, MANY + 2);
	prefix_map_close(map);
	map = build(items + MANY, MANY);
	changes[2].item.table = TABLE_ALLOW;
	apply(map, changes + 1, 3);
	expect_sizes(map, 0, MANY + 3);
	prefix_map_close(map);
	free(items);
}

/* ---- maps that no packet has seen ---- */

Test(prefix_map, rework_needs_no_room_for_copies)
{
	const u32 n = 100000;
	struct prefix_item *items = calloc(n, sizeof(*items));
	struct prefix_change *changes = calloc(n, sizeof(*changes));
	struct prefix_map *map;
	struct error err;

	/* All over it, so that each node is touched early. */
	for (u32 i = 0; i < n; i++) {
		changes[i] = host(i % 200 * (n / 200) + i / 200);
		changes[i].kind = PREFIX_REMOVE;
		items[i] = changes[i].item;
	}
	map = build(items, n);
	cr_assert_eq(stage(map, changes, n / 4, false), -E2BIG, "or the test tests nothing");
	cr_expect_eq(prefix_map_rework(map, changes, n - 10, &err), 0, "%s", err.text);
	expect_items(map, items + n - 10, 10);
	expect_seen(map, TABLE_BLOCK, "10.0.0.0", NULL);
	for (u32 i = 0; i < n - 10; i++)
		changes[i].kind = PREFIX_INSERT;
	apply(map, changes, 100);
	expect_sizes(map, 110, 0);
	cr_expect_eq(prefix_map_rework(map, changes + 100, n - 110, &err), 0, "%s", err.text);
	expect_items(map, items, n);
	/* Half of them for others, which come first. */
	for (u32 i = 0; i < n; i++) {
		changes[i].kind = i < n / 2 ? PREFIX_INSERT : PREFIX_REMOVE;
		if (i < n / 2)
			changes[i].item.prefix.addr[0] = 11;
		items[i] = changes[i < n / 2 ? i : i - n / 2].item;
		if (i >= n / 2)
			items[i].prefix.addr[0] = 10;
	}
	cr_expect_eq(prefix_map_rework(map, changes, n, &err), 0, "%s", err.text);
	expect_items(map, items, n);
	prefix_map_close(map);
	free(changes);
	free(items);
}

/* ---- sizes ---- */

Test(prefix_map, ten_entries_take_well_under_a_megabyte)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = NULL;
	struct prefix_item items[10];

	for (u32 n = 0; n < ARRAY_SIZE(items); n++)
		items[n] = host(n * 65537).item;
	map = build(items, ARRAY_SIZE(items));
	cr_expect_lt(prefix_map_bytes(map), 256 << 10, "%zu", prefix_map_bytes(map));
	cr_expect(prefix_map_fits(map));
}

Test(prefix_map, a_million_random_hosts_take_64_mib_at_most)
{
	const size_t n = 1000000;
	struct prefix *prefixes = calloc(n, sizeof(*prefixes));
	struct prefix_item *items = calloc(n, sizeof(*items));
	struct random random = random_start();
	struct prefix_map *map = NULL;
	struct error err;
	size_t unique;

	for (size_t i = 0; i < n; i++) {
		u32 addr = (u32)random_next(&random);

		prefixes[i] = (struct prefix){.family = FAMILY_IPV4, .len = 32};
		memcpy(prefixes[i].addr, &addr, sizeof(addr));
	}
	unique = prefix_sort_unique(prefixes, n);
	for (size_t i = 0; i < unique; i++)
		items[i].prefix = prefixes[i];
	cr_assert_eq(prefix_map_build(items, unique, 0, &map, &err), 0, "%s", err.text);
	random_holds(&random, prefix_map_bytes(map) <= 64 << 20);
	random_holds(&random, prefix_map_size(map, TABLE_BLOCK) == unique);
	cr_expect_geq(prefix_map_capacity(map), unique + unique / 16);
	cr_expect(prefix_map_fits(map) && prefix_map_is_large(map));
	prefix_map_close(map);
	free(items);
	free(prefixes);
}

Test(prefix_map, a_map_that_lost_most_of_its_entries_is_too_large)
{
	const size_t n = 50000, batch = 5000;
	struct prefix_item *items = calloc(n, sizeof(*items));
	struct prefix_change *changes = calloc(n, sizeof(*changes));
	struct prefix_map *map;

	for (u32 i = 0; i < n; i++) {
		changes[i] = host(i);
		changes[i].kind = PREFIX_REMOVE;
		items[i] = changes[i].item;
	}
	map = build(items, n);
	cr_expect(prefix_map_fits(map));
	for (size_t i = 0; i + 1 < n / batch; i++)
		apply(map, changes + i * batch, batch);
	grace_wait();
	apply(map, changes + n - 1, 1);
	cr_expect_not(prefix_map_fits(map));
	expect_sizes(map, (u32)batch - 1, 0);
	prefix_map_close(map);
	free(changes);
	free(items);
}

/* ---- the difference ---- */

static size_t count_kind(const struct prefix_change_list *list, enum prefix_change_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += list->items[i].kind == kind;
	return n;
}

Test(prefix_map, the_difference_leads_to_what_is_wanted)
{
	const struct prefix_item wanted[] = {
		item("10.1.0.0/18", TABLE_BLOCK, 0),	 /* another end */
		block("10.1.2.3"),			 /* as it is */
		item("10.1.2.3", TABLE_ALLOW, LATER_NS), /* another end */
		item("10.0.0.0/12", TABLE_ALLOW, 0),	 /* new there, and gone here */
		block("2001:db8::/48"),			 /* new, and 2001:db8::/32 is gone */
	};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(0);
	struct prefix_change_list list = {0};

	cr_assert_eq(prefix_map_diff(map, wanted, ARRAY_SIZE(wanted), &list), 0);
	cr_expect_eq(count_kind(&list, PREFIX_INSERT), 2);
	cr_expect_eq(count_kind(&list, PREFIX_RETIME), 2);
	cr_expect_eq(count_kind(&list, PREFIX_REMOVE), 3);
	apply(map, list.items, list.n);
	free(list.items);
	expect_items(map, wanted, ARRAY_SIZE(wanted));
	expect_sizes(map, 3, 2);
}

Test(prefix_map, the_difference_of_one_prefix)
{
	static const struct {
		const char *text;
		u64 expires_ns;
		bool wanted;
		int kind; /* -1: no change */
	} rows[] = {
		{"10.1.2.3", 0, true, -1},
		{"10.1.2.3", ENDED_NS, true, PREFIX_RETIME},
		{"10.1.2.3", 0, false, PREFIX_REMOVE},
		{"10.1.2.0/24", 0, true, PREFIX_INSERT},
		{"10.1.2.0/24", 0, false, -1},
		{"2001:db8::/32", 0, false, PREFIX_REMOVE},
		{"2001:db8::/31", 0, true, PREFIX_INSERT},
	};
	_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(0);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct prefix_item one = item(rows[i].text, TABLE_BLOCK, rows[i].expires_ns);
		struct prefix_change_list list = {0};

		cr_assert_eq(prefix_map_diff_one(map, &one, rows[i].wanted, &list), 0);
		cr_expect_eq(list.n, rows[i].kind >= 0, "row %zu", i);
		if (list.n && rows[i].kind >= 0)
			cr_expect_eq(list.items[0].kind, rows[i].kind, "row %zu", i);
		free(list.items);
	}
}

/* ---- counters ---- */

Test(prefix_map, counters_go_over_to_another_bank)
{
	const struct prefix_item old[] = {block("10.0.0.1"), block("10.0.0.2"), block("10.0.0.3"),
					  item("10.0.0.1", TABLE_ALLOW, 0), block("2001:db8::1")};
	const struct prefix_item new[] = {block("10.0.0.1"), block("10.0.0.2"), block("10.0.0.4"),
					  block("2001:db8::1")};
	_cleanup_(prefix_map_closep) struct prefix_map *from = build(old, ARRAY_SIZE(old));
	_cleanup_(prefix_map_closep) struct prefix_map *to = build(new, ARRAY_SIZE(new));
	struct sight before, after;
	struct fwd_entry *entry;

	sight_open(from, &before);
	sight_open(to, &after);
	for (size_t i = 0; i < ARRAY_SIZE(old); i++) {
		char text[PREFIX_TEXT_MAX];

		prefix_format(&old[i].prefix, text);
		entry = entry_of(&before, (enum prefix_table)old[i].table, text);
		entry->hits = (10 + i) * FWD_HIT(0) + 100;
		entry->last_hit = 50;
	}
	entry = entry_of(&after, TABLE_BLOCK, "10.0.0.2");
	entry->hits = 5 * FWD_HIT(0); /* counted since */
	entry->last_hit = 90;
	prefix_map_add_counters(from, to);
	cr_expect_eq(read_state(to, "10.0.0.1").packets, 10);
	cr_expect_eq(read_state(to, "10.0.0.1").last_hit, 50);
	cr_expect_eq(read_state(to, "10.0.0.2").packets, 16);
	cr_expect_eq(read_state(to, "10.0.0.2").bytes, 100);
	cr_expect_eq(read_state(to, "10.0.0.2").last_hit, 90);
	cr_expect_eq(read_state(to, "10.0.0.4").packets, 0);
	cr_expect_eq(read_state(to, "2001:db8::1").packets, 14);
	sight_close(&before);
	sight_close(&after);
}

/* ---- a daemon that dies ---- */

/* Leaves the maps as a daemon does that is killed with staged changes. */
static void die(struct prefix_map *map, const struct prefix_change *changes, size_t n,
		bool prolonged)
{
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (!pid) {
		if (stage(map, changes, n, false))
			_exit(1);
		if (prolonged)
			prefix_map_prolong(map);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "status %d", status);
}

/* Packets still see the old set, and the maps can be taken up until there are others. */
Test(prefix_map, chunks_of_hits_are_packets_and_bytes_too)
{
	const struct prefix_item one = block("10.0.0.1");
	struct prefix_map *from = build(&one, 1), *to = build(&one, 1);
	struct sight before, after;
	struct fwd_entry *entry;
	struct prefix_state state;

	sight_open(from, &before);
	sight_open(to, &after);
	entry = entry_of(&before, TABLE_BLOCK, "10.0.0.1");
	entry->hits = 5 * FWD_HIT(0) + 7;
	entry->packet_chunks = 3;
	entry->byte_chunks = 2;
	/* Another bank, in which packets were counted already. */
	entry = entry_of(&after, TABLE_BLOCK, "10.0.0.1");
	entry->hits = FWD_HIT(60);
	entry->packet_chunks = 1;
	prefix_map_add_counters(from, to);
	state = read_state(to, "10.0.0.1");
	cr_expect_eq(state.packets, (4ull << FWD_PACKET_CHUNK_SHIFT) + 6);
	cr_expect_eq(state.bytes, (2ull << FWD_BYTE_CHUNK_SHIFT) + 67);
	sight_close(&before);
	sight_close(&after);
	prefix_map_close(from);
	prefix_map_close(to);
}

Test(prefix_map, death_in_a_change_leaves_what_packets_see)
{
	const struct prefix_change changes[] = {
		change_of(PREFIX_INSERT, block("10.1.2.0/24")),
		change_of(PREFIX_REMOVE, block("10.1.2.3")),
		change_of(PREFIX_RETIME, item("10.0.0.0/12", TABLE_BLOCK, ENDED_NS)),
		change_of(PREFIX_RETIME, item("10.1.0.0/18", TABLE_BLOCK, 0)),
		change_of(PREFIX_REMOVE, block("2001:db8::/32")),
	};

	for (int i = 0; i < 4; i++) {
		_cleanup_(prefix_map_closep) struct prefix_map *map = build_with(i & 1 ? MANY : 0);
		_cleanup_(prefix_map_closep) struct prefix_map *next = NULL;
		struct sight sight;

		sight_open(map, &sight);
		die(map, changes, ARRAY_SIZE(changes), i & 2);
		expect_found(&sight, TABLE_BLOCK, "10.1.2.3", "10.1.2.3");
		expect_found(&sight, TABLE_BLOCK, "10.1.2.4", "10.1.0.0/18");
		expect_found(&sight, TABLE_BLOCK, "10.1.64.4", "10.1.0.0/17");
		expect_found(&sight, TABLE_BLOCK, "10.2.0.1", "10.0.0.0/12");
		expect_found(&sight, TABLE_BLOCK, "2001:db8::1", "2001:db8::/32");
		cr_expect_eq(adopt(map, sight.roots, &next), 0);
		expect_found(&sight, TABLE_BLOCK, "10.1.2.3", "10.1.2.3");
		expect_found(&sight, TABLE_BLOCK, "10.1.2.4", "10.1.0.0/18");
		sight_close(&sight);
	}
}

/* ---- all of it in any order ---- */

#define NUMBERS 96

/* Of the numbered prefixes in each table: what is there, and its end. */
struct model {
	bool there[TABLE_COUNT][NUMBERS];
	u64 expires_ns[TABLE_COUNT][NUMBERS];
};

struct life {
	struct random random;
	struct prefix_map *map;
	struct model model;
	size_t many; /* others beside */
	u64 later_ns;
};

/* Both families, all lengths around a byte's end, many inside others. */
static struct prefix numbered(u32 n)
{
	static const u8 lens[] = {0, 7, 8, 9, 15, 16, 17, 18, 23, 24, 31, 32};
	struct prefix prefix = {
		.family = n % 2 ? FAMILY_IPV4 : FAMILY_IPV6,
		.len = 32,
		.addr = {10, 1, n & 8 ? 0x80 : 2, n & 4 ? 3 : 0x83},
	};

	if (n & 2)
		prefix.addr[1] = (u8)n;
	prefix_truncate(&prefix, lens[n / 8]);
	return prefix;
}

/* Several numbers may be the same prefix: the first one counts. */
static bool is_first(u32 n)
{
	const struct prefix prefix = numbered(n);

	for (u32 i = 0; i < n; i++) {
		const struct prefix other = numbered(i);

		if (prefix_equal(&prefix, &other))
			return false;
	}
	return true;
}

/* What packets of the address are to find: NUMBERS for nothing. */
static u32 expected_entry(const struct model *model, unsigned table, const struct prefix *address)
{
	u32 best = NUMBERS;

	for (u32 n = 0; n < NUMBERS; n++) {
		const struct prefix prefix = numbered(n);

		if (!model->there[table][n] || model->expires_ns[table][n] == ENDED_NS ||
		    !prefix_contains(&prefix, address))
			continue;
		if (best == NUMBERS || prefix.len > numbered(best).len)
			best = n;
	}
	return best;
}

static void expect_model_seen(struct life *life, const struct sight *sight,
			      const struct model *model)
{
	for (u32 n = 0; n < TABLE_COUNT * NUMBERS; n++) {
		unsigned table = n % TABLE_COUNT;
		struct prefix address = numbered(n / TABLE_COUNT), found;
		const struct fwd_entry *entry;
		u32 expected;

		address.len = family_bits(address.family);
		expected = expected_entry(model, table, &address);
		entry = look_up(sight, (enum prefix_table)table, &address);
		random_holds(&life->random, (entry != NULL) == (expected < NUMBERS));
		if (!entry)
			continue;
		found = entry_prefix(entry, address.family);
		address = numbered(expected);
		random_holds(&life->random, prefix_equal(&found, &address));
	}
}

static size_t model_items(const struct life *life, const struct model *model,
			  struct prefix_item *items)
{
	size_t n_items = 0;

	for (unsigned table = 0; table < TABLE_COUNT; table++)
		for (u32 n = 0; n < NUMBERS; n++)
			if (model->there[table][n])
				items[n_items++] = (struct prefix_item){
					numbered(n), (u8)table, model->expires_ns[table][n]};
	for (u32 i = 0; i < life->many; i++) {
		items[n_items] = host(i).item;
		items[n_items++].prefix.addr[0] = 99;
	}
	return n_items;
}

/* The map holds the model, to its last entry and end. */
static void expect_model(struct life *life, const struct model *model)
{
	_cleanup_free_ struct prefix_item *items = calloc(2 * NUMBERS + MANY, sizeof(*items));
	size_t n = model_items(life, model, items);
	struct prefix_change_list list = {0};
	struct sight sight;

	cr_assert_eq(prefix_map_diff(life->map, items, n, &list), 0);
	random_holds(&life->random, list.n == 0);
	random_holds(&life->random, prefix_map_size(life->map, TABLE_BLOCK) +
						    prefix_map_size(life->map, TABLE_ALLOW) ==
					    n);
	free(list.items);
	sight_open(life->map, &sight);
	expect_model_seen(life, &sight, model);
	sight_close(&sight);
}

static void rebuild(struct life *life)
{
	struct prefix_item *items = calloc(2 * NUMBERS + MANY, sizeof(*items));

	prefix_map_close(life->map);
	life->map = build(items, model_items(life, &life->model, items));
	free(items);
}

/* A group of changes; the model that they lead to is `ret`. */
static size_t random_changes(struct life *life, struct prefix_change *changes, struct model *ret)
{
	const u64 ends_ns[] = {0, ENDED_NS, life->later_ns};
	bool one = random_below(&life->random, 2);
	u64 density = 1 + random_below(&life->random, 100);
	u32 at = (u32)random_below(&life->random, TABLE_COUNT * NUMBERS);
	size_t n_changes = 0;

	*ret = life->model;
	for (u32 i = 0; i < TABLE_COUNT * NUMBERS && !(one && n_changes); i++) {
		u32 n = (i + at) % NUMBERS, table = (i + at) / NUMBERS % TABLE_COUNT;
		u64 end_ns = ends_ns[random_below(&life->random, ARRAY_SIZE(ends_ns))];
		struct prefix_item it = {numbered(n), (u8)table, end_ns};
		enum prefix_change_kind kind = PREFIX_INSERT;

		if (random_below(&life->random, density) || !is_first(n))
			continue;
		if (ret->there[table][n])
			kind = random_below(&life->random, 2) ? PREFIX_REMOVE : PREFIX_RETIME;
		changes[n_changes++] = change_of(kind, it);
		ret->there[table][n] = kind != PREFIX_REMOVE;
		ret->expires_ns[table][n] = end_ns;
	}
	return n_changes;
}

static void take_up_again(struct life *life)
{
	struct prefix_map *map = NULL;
	u32 roots[FWD_TRIES];

	prefix_map_roots(life->map, roots);
	random_holds(&life->random, adopt(life->map, roots, &map) == 0);
	prefix_map_close(life->map);
	life->map = map;
}

/* Where it fails the map is of no use. */
static void live_rework(struct life *life)
{
	struct prefix_change changes[TABLE_COUNT * NUMBERS];
	struct model next;
	size_t n = random_changes(life, changes, &next);
	struct error err;
	int r = prefix_map_rework(life->map, changes, n, &err);

	random_holds(&life->random, r == 0 || r == -E2BIG);
	life->model = next;
	if (r < 0)
		rebuild(life);
	expect_model(life, &life->model);
}

static void live_one_change(struct life *life)
{
	struct prefix_change changes[TABLE_COUNT * NUMBERS];
	struct model next;
	struct sight sight;
	size_t n = random_changes(life, changes, &next);
	bool alone = n == 1 && random_below(&life->random, 4);
	int r;

	sight_open(life->map, &sight);
	r = stage(life->map, changes, n, alone);
	random_holds(&life->random, r == 0 || r == -E2BIG);
	expect_model_seen(life, &sight, &life->model);
	sight_close(&sight);
	if (r < 0) {
		expect_model(life, &life->model);
		life->model = next;
		rebuild(life);
	} else if (random_below(&life->random, 4)) {
		settle(life->map);
		life->model = next;
	} else {
		prefix_map_abort(life->map);
	}
	if (!random_below(&life->random, 16))
		take_up_again(life);
	expect_model(life, &life->model);
}

static void live(size_t many, int steps)
{
	struct life life = {
		.random = random_start(),
		.map = build(NULL, 0),
		.many = many,
		.later_ns = LATER_NS,
	};

	rebuild(&life);
	for (int step = 0; step < steps; step++) {
		if (!random_below(&life.random, 4))
			live_rework(&life);
		live_one_change(&life);
	}
	prefix_map_close(life.map);
}

Test(prefix_map, packets_see_what_was_settled)
{
	live(0, 600);
}

Test(prefix_map, packets_see_what_was_settled_below_a_table)
{
	live(MANY, 200);
}
