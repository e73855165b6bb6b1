// SPDX-License-Identifier: GPL-2.0-or-later
/* What packets find, compared with what they should. */
#include "clock.h"
#include "grace.h"
#include "kernel_entries.h"
#include "prefix_map.h"
#include "private_bpffs.h"
#include "random.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

TestSuite(prefix_map_verify, .init = enter_private_bpffs, .timeout = 120);

/* ---- the parts of a test ---- */

#define ITEMS_MAX 4096

static struct prefix_item items[ITEMS_MAX];
static size_t n_items;
static struct prefix_map *map;

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0, "%s", text);
	return prefix;
}

static int compare_items(const void *a, const void *b)
{
	const struct prefix_item *x = a, *y = b;

	if (x->table != y->table)
		return x->table < y->table ? -1 : 1;
	return prefix_compare(&x->prefix, &y->prefix);
}

static void want(enum prefix_table table, const char *text, u64 expires_ns)
{
	items[n_items++] = (struct prefix_item){
		.prefix = prefix_of(text), .table = (u8)table, .expires_ns = expires_ns};
	qsort(items, n_items, sizeof(*items), compare_items);
}

/* So many hosts that the trie of IPv4 has a table on top. */
static void want_hosts(u32 n)
{
	char text[PREFIX_TEXT_MAX];

	for (u32 i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "172.16.%u.%u", i / 200, i % 200);
		want(TABLE_BLOCK, text, 0);
	}
}

static void build(void)
{
	struct error err;

	cr_assert_eq(prefix_map_build(items, n_items, 0, &map, &err), 0, "%s", err.text);
}

static struct prefix_finding_list verify(void)
{
	struct prefix_finding_list list = {0};
	u32 roots[FWD_TRIES];
	struct error err;

	prefix_map_roots(map, roots);
	cr_assert_eq(prefix_map_verify(map, roots, items, n_items, &list, &err), 0, "%s", err.text);
	return list;
}

/* Lines of "fault table prefix", in order. */
static void expect_findings(const char *expected)
{
	static const char *const faults[] = {
		[TRIE_MISSING] = "missing",
		[TRIE_UNWANTED] = "unwanted",
		[TRIE_OTHER_END] = "other end",
		[TRIE_GARBLED] = "garbled",
	};
	struct prefix_finding_list list = verify();
	char text[PREFIX_TEXT_MAX], found[4096] = "";

	for (size_t i = 0; i < list.n; i++) {
		size_t end = strlen(found);

		prefix_format(&list.items[i].prefix, text);
		snprintf(found + end, sizeof(found) - end, "%s %s %s\n",
			 faults[list.items[i].fault],
			 list.items[i].table == TABLE_BLOCK ? "block" : "allow", text);
	}
	cr_expect_str_eq(found, expected);
	free(list.items);
}

static struct fwd_entry *find_entry(enum prefix_table table, const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct kernel_entries entries;
	struct fwd_entry *entry;

	kernel_entries_open(map, (enum family)prefix.family, &entries);
	entry = kernel_entries_find(&entries, table, &prefix);
	cr_assert(entry, "%s", text);
	return entry;
}

static struct fwd_line *lines(u32 *ret_n)
{
	struct trie_memory memory;

	prefix_map_memory(map, FWD_BLOCK4, &memory);
	*ret_n = memory.n_lines;
	return (struct fwd_line *)(uintptr_t)memory.lines;
}

static u32 root(enum fwd_trie trie)
{
	u32 roots[FWD_TRIES];

	prefix_map_roots(map, roots);
	return roots[trie];
}

/* The cell of a table on top. */
static u32 *table_cell(u32 top)
{
	u32 n;

	cr_assert_eq(root(FWD_BLOCK4) & FWD_CELL_TABLE, FWD_CELL_TABLE);
	return &lines(&n)[(root(FWD_BLOCK4) & FWD_CELL_INDEX) + top / FWD_LINE_WORDS]
			.word[top % FWD_LINE_WORDS];
}

static void change_one(enum prefix_change_kind kind, const struct prefix_item *item)
{
	const struct prefix_change change = {.item = *item, .kind = (u8)kind};
	struct error err;

	cr_assert_eq(prefix_map_stage(map, &change, 1, true, &err), 0, "%s", err.text);
	prefix_map_prolong(map);
	prefix_map_settle(map);
}

/* ---- what is right ---- */

/* A map has room for so many more of each. */
static size_t count_family(u8 family)
{
	size_t n = 0;

	for (size_t i = 0; i < n_items; i++)
		n += items[i].prefix.family == family;
	return n;
}

Test(prefix_map_verify, finds_nothing_where_nothing_is_wanted)
{
	build();
	expect_findings("");
	prefix_map_close(map);
}

Test(prefix_map_verify, finds_nothing_whatever_changes_led_there)
{
	struct random random = random_start();
	char text[PREFIX_TEXT_MAX];

	want_hosts(100);
	want(TABLE_ALLOW, "172.16.0.0/24", 0);
	want(TABLE_BLOCK, "2001:db8::/32", 0);
	build();
	for (u32 i = 0; i < 1500; i++) {
		size_t at = random_below(&random, n_items);
		u32 what = (u32)random_below(&random, 10);

		/* So that what was removed is room again, however slow the machine is. */
		if (i % 50 == 0)
			grace_wait();

		if (what < 3 && n_items > 1) {
			change_one(PREFIX_REMOVE, &items[at]);
			memmove(&items[at], &items[at + 1], (--n_items - at) * sizeof(*items));
		} else if (what < 5) {
			items[at].expires_ns = items[at].expires_ns ? 0 : boot_ns() + NS_PER_S * 60;
			change_one(PREFIX_RETIME, &items[at]);
		} else {
			const bool ipv6 = random_below(&random, 4) == 0;
			struct prefix_item item = {.table = random_below(&random, 4) == 0};

			snprintf(text, sizeof(text), ipv6 ? "2001:db8:%x:%x::" : "172.%u.%u.0",
				 (u32)random_below(&random, 4), (u32)random_below(&random, 20));
			item.prefix = prefix_of(text);
			prefix_truncate(&item.prefix,
					(u8)(8 + random_below(&random, ipv6 ? 121 : 25)));
			if (count_family(item.prefix.family) >= (ipv6 ? 50 : 300) ||
			    bsearch(&item, items, n_items, sizeof(item), compare_items))
				continue;
			change_one(PREFIX_INSERT, &item);
			items[n_items++] = item;
			qsort(items, n_items, sizeof(*items), compare_items);
		}
		if (i % 100 == 0)
			expect_findings("");
	}
	expect_findings("");
	prefix_map_close(map);
}

/* ---- what is wrong ---- */

Test(prefix_map_verify, names_what_the_items_have_and_the_maps_do_not_and_the_other_way_round)
{
	want(TABLE_BLOCK, "10.0.0.1", 0);
	want(TABLE_BLOCK, "2001:db8::/32", 0);
	want(TABLE_ALLOW, "10.0.0.0/8", 0);
	build();
	n_items = 0;
	want(TABLE_BLOCK, "10.0.0.1", boot_ns() + NS_PER_S);
	want(TABLE_BLOCK, "10.0.0.2", 0);
	want(TABLE_ALLOW, "2001:db8::/32", 0);
	expect_findings("other end block 10.0.0.1\nmissing block 10.0.0.2\n"
			"unwanted block 2001:db8::/32\nunwanted allow 10.0.0.0/8\n"
			"missing allow 2001:db8::/32\n");
	prefix_map_close(map);
}

Test(prefix_map_verify, names_an_entry_that_was_changed_in_memory)
{
	struct fwd_entry *entry;

	want_hosts(100);
	want(TABLE_BLOCK, "2001:db8::/32", 0);
	want(TABLE_ALLOW, "10.0.0.0/8", 0);
	build();
	find_entry(TABLE_BLOCK, "172.16.0.7")->addr = 0x0a0a0a0a;
	expect_findings("unwanted block 10.10.10.10\nmissing block 172.16.0.7\n");
	find_entry(TABLE_BLOCK, "10.10.10.10")->addr = 0xac100007;
	expect_findings("");
	entry = find_entry(TABLE_ALLOW, "10.0.0.0/8");
	entry->about = FWD_ABOUT(5, 8, FWD_ENTRY_USED | FWD_ENTRY_ALLOW);
	expect_findings("other end allow 10.0.0.0/8\n");
	entry->about = FWD_ABOUT(0, 9, FWD_ENTRY_USED | FWD_ENTRY_ALLOW);
	expect_findings("missing allow 10.0.0.0/8\nunwanted allow 10.0.0.0/9\n");
	entry->about = FWD_ABOUT(0, 8, FWD_ENTRY_USED);
	expect_findings("garbled allow 0.0.0.0/0\n");
	entry->about = FWD_ABOUT(0, 200, FWD_ENTRY_USED | FWD_ENTRY_ALLOW);
	expect_findings("missing allow 10.0.0.0/8\n");
	entry->about = FWD_ABOUT(0, 8, FWD_ENTRY_USED | FWD_ENTRY_ALLOW);
	((struct fwd_entry6 *)find_entry(TABLE_BLOCK, "2001:db8::/32"))->mask[0] = 0;
	expect_findings("garbled block ::/0\n");
	prefix_map_close(map);
}

Test(prefix_map_verify, names_what_a_cell_of_a_table_leads_to)
{
	u32 *cell, kept;

	want_hosts(100);
	want(TABLE_BLOCK, "10.0.0.0/8", 0);
	want(TABLE_BLOCK, "10.7.0.1", 0);
	build();
	cell = table_cell(0x0a09);
	kept = *cell;
	*cell = 0;
	expect_findings("missing block 10.0.0.0/8\n");
	*cell = *table_cell(0x0a07);
	expect_findings("unwanted block 10.7.0.1\n");
	*cell = kept;
	expect_findings("");
	*table_cell(0xc0a8) = kept;
	expect_findings("unwanted block 10.0.0.0/8\n");
	prefix_map_close(map);
}

Test(prefix_map_verify, names_the_place_where_nodes_differ_and_entries_do_not)
{
	struct fwd_node *node;
	u32 n;

	want_hosts(100);
	build();
	node = (struct fwd_node *)&lines(&n)[*table_cell(0xac10) & FWD_CELL_INDEX];
	node->rank[7]++;
	expect_findings("garbled block 172.16.0.0/16\n");
	prefix_map_close(map);
}

Test(prefix_map_verify, takes_lines_out_of_range_as_programs_do_as_nothing)
{
	want_hosts(70);
	want(TABLE_BLOCK, "10.7.0.1", 0);
	build();
	*table_cell(0x0a07) = FWD_CELL_NODE | FWD_CELL_INDEX;
	expect_findings("missing block 10.7.0.1\n");
	*table_cell(0x0a07) = FWD_CELL_LIST | FWD_CELL_INDEX;
	expect_findings("missing block 10.7.0.1\n");
	*table_cell(0x0a07) = FWD_CELL_INDEX;
	expect_findings("missing block 10.7.0.1\n");
	prefix_map_close(map);
}

static int count(void *data, enum trie_fault fault, struct fwd_bits bits, u32 len)
{
	++*(size_t *)data;
	return 0;
}

/* In memory of just that size, so that the sanitizer sees each step outside. */
static size_t compare_garbage(const struct trie_memory *model, enum fwd_trie trie, u32 model_root,
			      struct random *random)
{
	bool ipv6 = trie & 1;
	size_t entry = ipv6 ? sizeof(struct fwd_entry6) : sizeof(struct fwd_entry), n_found = 0;
	struct fwd_line *copy = aligned_alloc(64, model->n_lines * sizeof(*copy));
	struct trie_memory seen = *model;
	u32 words = (u32)random_below(random, 200) + 1, seen_root = model_root;

	cr_assert(copy);
	seen.entries = malloc(model->n_entries * entry);
	memcpy(copy, model->lines, model->n_lines * sizeof(*copy));
	memcpy(seen.entries, model->entries, model->n_entries * entry);
	seen.lines = copy;
	for (u32 i = 0; i < words; i++) {
		u32 line = (u32)random_below(random, model->n_lines);
		u32 *word = &copy[line].word[random_below(random, FWD_LINE_WORDS)];

		/* A cell that leads somewhere, or anything. */
		*word = random_below(random, 2)
				? (u32)random_below(random, model->n_lines) |
					  (random_below(random, 2) ? FWD_CELL_NODE : FWD_CELL_LIST)
				: (u32)random_next(random);
	}
	if (random_below(random, 8) == 0)
		seen_root = (u32)random_next(random);
	cr_assert_eq(trie_compare(&seen, seen_root, model, model_root, ipv6 ? FWD_IPV6 : FWD_IPV4,
				  count, &n_found),
		     0);
	free(copy);
	free(seen.entries);
	return n_found;
}

Test(prefix_map_verify, ends_and_stays_within_whatever_the_memory_holds)
{
	struct random random = random_start();
	char text[PREFIX_TEXT_MAX];
	size_t n_found = 0;

	want_hosts(300);
	for (u32 i = 0; i < 300; i++) {
		snprintf(text, sizeof(text), "2001:db8:%x:%x::%x", i % 3, i % 7, i);
		want(TABLE_BLOCK, text, i % 5 ? 0 : NS_PER_S);
	}
	build();
	for (u32 i = 0; i < 200; i++) {
		enum fwd_trie trie = i % 2 ? FWD_BLOCK6 : FWD_BLOCK4;
		struct trie_memory memory;

		prefix_map_memory(map, trie, &memory);
		n_found += compare_garbage(&memory, trie, root(trie), &random);
	}
	cr_expect_gt(n_found, 0);
	prefix_map_close(map);
}
