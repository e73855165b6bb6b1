// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The set of prefixes in the kernel: staging, settling, aborting, and a daemon that dies at any
 * point of it. packets.c has what packets see of it.
 */
#include "prefix_map.h"

#include "private_bpffs.h"
#include "random.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>

#define CAPACITY 64
#define ALL	 (1u << 0 | 1u << 1) /* views */

static struct prefix_map_fds fds;

static int make_trie(u32 key_size, u32 capacity)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);
	int fd = bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "test_trie", key_size, sizeof(u32), capacity,
				&opts);

	cr_assert_geq(fd, 0, "%d", fd);
	return fd;
}

static void make_maps(u32 capacity)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);

	fds = (struct prefix_map_fds){
		.trie4 = make_trie(sizeof(struct fwd_key4), capacity),
		.trie6 = make_trie(sizeof(struct fwd_key6), capacity),
		.entries = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_entries", sizeof(u32),
					  sizeof(struct fwd_entry), capacity, &opts),
		.capacity = capacity,
	};
	cr_assert_geq(fds.entries, 0);
}

static void set_up(void)
{
	enter_private_bpffs();
	make_maps(CAPACITY);
}

TestSuite(prefix_map, .init = set_up, .timeout = 120);

/* ---- the parts of a test ---- */

static struct prefix_map *open_map(unsigned view)
{
	struct prefix_map *map = NULL;
	struct error err;

	cr_assert_eq(prefix_map_open(&fds, view, &map, &err), 0, "%s", err.text);
	return map;
}

/* Prefixes of both families, some inside others. */
static struct prefix numbered(u32 n)
{
	struct prefix prefix = {
		.family = n % 2 ? FAMILY_IPV4 : FAMILY_IPV6,
		.len = 32,
		.addr = {10, (u8)(n / 16), (u8)(n / 4 % 4)},
	};

	prefix_truncate(&prefix, n / 2 % 2 ? 24 : 22);
	prefix.addr[2] = n / 2 % 2 ? prefix.addr[2] : (u8)(n / 4 % 4 * 4);
	return prefix;
}

static struct prefix_change change(u32 n, enum prefix_change_kind kind, u64 expires_ns)
{
	return (struct prefix_change){numbered(n), (u8)kind, expires_ns};
}

static int stage(struct prefix_map *map, unsigned view, const struct prefix_change *changes,
		 size_t n)
{
	struct error err;

	return prefix_map_stage(map, view, changes, n, &err);
}

/* Inserts numbers `first` to `last`, which packets of `view` and of the other then see. */
static void insert(struct prefix_map *map, u32 first, u32 last)
{
	for (u32 n = first; n <= last; n++) {
		struct prefix_change one = change(n, PREFIX_INSERT, 0);

		cr_assert_eq(stage(map, 1, &one, 1), 0);
		prefix_map_settle(map);
	}
}

static u32 trie_size(int fd, size_t key_size)
{
	u8 key[sizeof(struct fwd_key6)], next[sizeof(struct fwd_key6)];
	const void *from = NULL;
	u32 n = 0;

	while (!bpf_map_get_next_key(fd, from, next)) {
		memcpy(key, next, key_size);
		from = key;
		n++;
	}
	return n;
}

/*
 * At rest the tries lead to the entries of the map and to nothing else, and both views see each
 * (V1).
 */
static void expect_rest(const struct prefix_map *map, u32 size)
{
	_cleanup_free_ struct prefix_map_item *items = NULL;
	size_t n;

	cr_assert_eq(prefix_map_size(map), size, "%u entries, not %u", prefix_map_size(map), size);
	cr_assert_eq(trie_size(fds.trie4, sizeof(struct fwd_key4)) +
			     trie_size(fds.trie6, sizeof(struct fwd_key6)),
		     size);
	cr_assert_eq(prefix_map_snapshot(map, &items, &n, NULL), 0);
	cr_assert_eq(n, size);
	for (size_t i = 0; i < n; i++) {
		const struct fwd_entry *entry = prefix_map_find(map, &items[i].prefix);

		cr_assert(entry);
		cr_assert(entry->used);
		cr_assert_eq(entry->views, ALL);
		cr_assert(!i || prefix_compare(&items[i - 1].prefix, &items[i].prefix) < 0);
	}
}

static bool has(const struct prefix_map *map, u32 n)
{
	struct prefix prefix = numbered(n);

	return prefix_map_find(map, &prefix) != NULL;
}

/* ---- staging ---- */

Test(prefix_map, staged_changes_are_seen_in_their_view_alone)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix gone = numbered(0), new = numbered(1);
	const struct prefix_change changes[] = {change(0, PREFIX_REMOVE, 0),
						change(1, PREFIX_INSERT, 5)};

	insert(map, 0, 0);
	cr_assert_eq(stage(map, 1, changes, 2), 0);
	cr_expect_eq(prefix_map_find(map, &gone)->views, 1u << 0);
	cr_expect_eq(prefix_map_find(map, &new)->views, 1u << 1);
	prefix_map_settle(map);
	expect_rest(map, 1);
	cr_expect(!has(map, 0) && has(map, 1));
	cr_expect_eq(prefix_map_find(map, &new)->expires_ns, 5);
}

Test(prefix_map, an_abort_leaves_everything_as_it_was)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix retimed = numbered(1);
	const struct prefix_change changes[] = {change(0, PREFIX_REMOVE, 0),
						change(1, PREFIX_RETIME, 9),
						change(2, PREFIX_INSERT, 0)};

	insert(map, 0, 1);
	for (int i = 0; i < 3 * CAPACITY; i++) {
		cr_assert_eq(stage(map, 1, changes, 3), 0, "round %d", i);
		prefix_map_abort(map);
	}
	prefix_map_abort(map); /* nothing is staged */
	expect_rest(map, 2);
	cr_expect(has(map, 0) && !has(map, 2));
	cr_expect_eq(prefix_map_find(map, &retimed)->expires_ns, 0);
}

Test(prefix_map, another_end_keeps_the_hits)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix_change retime = change(0, PREFIX_RETIME, 9);
	const struct prefix prefix = numbered(0);
	struct fwd_entry *entry;

	insert(map, 0, 0);
	entry = (struct fwd_entry *)prefix_map_find(map, &prefix);
	entry->packets = 3;
	cr_assert_eq(stage(map, 1, &retime, 1), 0);
	prefix_map_settle(map);
	cr_expect_eq(prefix_map_find(map, &prefix)->expires_ns, 9);
	cr_expect_eq(prefix_map_find(map, &prefix)->packets, 3);
}

Test(prefix_map, a_reused_entry_begins_without_hits)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix_change remove = change(0, PREFIX_REMOVE, 0);
	const struct prefix last = numbered(CAPACITY);

	insert(map, 0, CAPACITY - 1);
	for (u32 n = 0; n < CAPACITY; n++) {
		const struct prefix prefix = numbered(n);

		((struct fwd_entry *)prefix_map_find(map, &prefix))->packets = 3;
	}
	cr_assert_eq(stage(map, 1, &remove, 1), 0);
	prefix_map_settle(map);
	insert(map, CAPACITY, CAPACITY);
	cr_expect_eq(prefix_map_find(map, &last)->packets, 0);
}

Test(prefix_map, refuses_what_the_caller_has_wrong)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix_change again[] = {change(5, PREFIX_INSERT, 0),
					      change(0, PREFIX_INSERT, 0)};
	const struct prefix_change absent[] = {change(5, PREFIX_INSERT, 0),
					       change(6, PREFIX_REMOVE, 0)};
	const struct prefix_change retime[] = {change(5, PREFIX_INSERT, 0),
					       change(6, PREFIX_RETIME, 0)};

	insert(map, 0, 0);
	cr_expect_eq(stage(map, 1, again, 2), -EEXIST);
	expect_rest(map, 1);
	cr_expect_eq(stage(map, 1, absent, 2), -ENOENT);
	expect_rest(map, 1);
	cr_expect_eq(stage(map, 1, retime, 2), -ENOENT);
	expect_rest(map, 1);
}

/* A prefix inside another one, or around it, is not that one. */
Test(prefix_map, finds_exactly_the_prefix_it_is_asked_for)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	struct prefix around = numbered(3), inside = numbered(3);

	insert(map, 3, 3);
	around.len--;
	prefix_truncate(&around, around.len);
	inside.len++;
	cr_expect(has(map, 3));
	cr_expect_null(prefix_map_find(map, &around));
	cr_expect_null(prefix_map_find(map, &inside));
}

Test(prefix_map, takes_as_many_as_it_has_room_for_and_not_one_more)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	struct prefix_change changes[CAPACITY + 1];

	for (u32 n = 0; n <= CAPACITY; n++)
		changes[n] = change(n, PREFIX_INSERT, 0);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(stage(map, 1, changes, CAPACITY + 1), -E2BIG);
		expect_rest(map, 0);
	}
	cr_expect_eq(stage(map, 1, changes, CAPACITY), 0);
	prefix_map_settle(map);
	expect_rest(map, CAPACITY);
	cr_expect_eq(stage(map, 1, &changes[CAPACITY], 1), -E2BIG);
	expect_rest(map, CAPACITY);
	changes[0].kind = PREFIX_REMOVE;
	cr_expect_eq(stage(map, 1, &changes[0], 1), 0);
	prefix_map_settle(map);
	cr_expect_eq(stage(map, 1, &changes[CAPACITY], 1), 0, "room was made");
	prefix_map_settle(map);
	expect_rest(map, CAPACITY);
}

/* ---- a daemon that dies ---- */

/* Rules 0 to 3 are there; 0 and 1 are to go and 4 to come, when the daemon dies. */
static void die_staged(void)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix_change changes[] = {change(0, PREFIX_REMOVE, 0),
						change(1, PREFIX_REMOVE, 0),
						change(4, PREFIX_INSERT, 0)};

	insert(map, 0, 3);
	cr_assert_eq(stage(map, 1, changes, 3), 0);
}

Test(prefix_map, death_before_the_switch_leaves_the_old_rules)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = NULL;

	die_staged();
	map = open_map(0);
	expect_rest(map, 4);
	cr_expect(has(map, 0) && has(map, 1) && !has(map, 4));
	insert(map, 4, CAPACITY - 1);
	expect_rest(map, CAPACITY);
}

Test(prefix_map, death_behind_the_switch_leaves_the_new_rules)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = NULL;

	die_staged();
	map = open_map(1);
	expect_rest(map, 3);
	cr_expect(!has(map, 0) && !has(map, 1) && has(map, 4));
	insert(map, 5, CAPACITY + 1);
	expect_rest(map, CAPACITY);
}

/* At each store that an insertion or a removal consists of (E1, E2). */
Test(prefix_map, death_within_a_change_leaves_no_half_entry)
{
	static const struct fwd_entry halves[] = {
		{.family = FAMILY_IPV4, .len = 32, .used = 1}, /* not in the trie yet */
		{.family = FAMILY_IPV4,
		 .len = 32,
		 .views = ALL}, /* never so, but it does not hurt */
		{.family = 9, .len = 200, .used = 1, .views = ALL},
		{.family = FAMILY_IPV4, .len = 33, .used = 1, .views = ALL},
		{.family = FAMILY_IPV6, .len = 129, .used = 1},
	};

	for (u32 i = 0; i < ARRAY_SIZE(halves); i++)
		cr_assert_eq(bpf_map_update_elem(fds.entries, &i, &halves[i], BPF_ANY), 0);
	for (int again = 0; again < 2; again++) {
		_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);

		expect_rest(map, 0);
		if (again)
			insert(map, 0, CAPACITY - 1);
	}
}

Test(prefix_map, death_within_a_removal_ends_it)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = open_map(0);
	const struct prefix prefix = numbered(2);

	insert(map, 0, 3);
	((struct fwd_entry *)prefix_map_find(map, &prefix))->views = 0;
	prefix_map_close(take_pointer(&map));
	map = open_map(0);
	expect_rest(map, 3);
	cr_expect_not(has(map, 2));
}

/* ---- counters ---- */

Test(prefix_map, counters_go_over_to_larger_maps)
{
	_cleanup_(prefix_map_closep) struct prefix_map *from = open_map(0), *to = NULL;
	const struct prefix prefixes[] = {numbered(0), numbered(1), numbered(2)};
	struct fwd_entry *entry;
	u32 reversed;

	insert(from, 0, 1);
	for (u32 n = 0; n < 2; n++) {
		entry = (struct fwd_entry *)prefix_map_find(from, &prefixes[n]);
		*entry = (struct fwd_entry){.packets = 10 + n,
					    .bytes = 100,
					    .last_hit_ns = 50 + n,
					    .used = 1,
					    .views = ALL,
					    .family = entry->family,
					    .len = entry->len};
		memcpy(entry->addr, prefixes[n].addr, sizeof(entry->addr));
	}
	make_maps(2 * CAPACITY);
	to = open_map(0);
	for (reversed = 3; reversed--;)
		insert(to, reversed, reversed);
	entry = (struct fwd_entry *)prefix_map_find(to, &prefixes[1]);
	entry->packets = 5; /* counted since */
	entry->last_hit_ns = 90;
	prefix_map_copy_counters(from, to);
	cr_expect_eq(prefix_map_find(to, &prefixes[0])->packets, 10);
	cr_expect_eq(prefix_map_find(to, &prefixes[0])->last_hit_ns, 50);
	cr_expect_eq(prefix_map_find(to, &prefixes[1])->packets, 16);
	cr_expect_eq(prefix_map_find(to, &prefixes[1])->bytes, 100);
	cr_expect_eq(prefix_map_find(to, &prefixes[1])->last_hit_ns, 90);
	cr_expect_eq(prefix_map_find(to, &prefixes[2])->packets, 0);
}

/* ---- all of it in any order ---- */

#define NUMBERS 100

struct model {
	bool there[NUMBERS];
	u64 expires_ns[NUMBERS];
	u32 size;
};

/* A group of changes that the model takes; the new model is `ret`. */
static size_t random_changes(struct random *random, const struct model *model,
			     struct prefix_change *changes, struct model *ret, u32 *ret_inserts)
{
	u64 density = 1 + random_below(random, 50);
	size_t n_changes = 0;

	*ret = *model;
	*ret_inserts = 0;
	for (u32 n = 0; n < NUMBERS; n++) {
		u64 end = random_below(random, 100);
		enum prefix_change_kind kind;

		if (random_below(random, density))
			continue;
		if (!model->there[n])
			kind = PREFIX_INSERT;
		else
			kind = random_below(random, 2) ? PREFIX_REMOVE : PREFIX_RETIME;
		changes[n_changes++] = change(n, kind, end);
		ret->there[n] = kind != PREFIX_REMOVE;
		ret->expires_ns[n] = end;
		ret->size += kind == PREFIX_INSERT;
		ret->size -= kind == PREFIX_REMOVE;
		*ret_inserts += kind == PREFIX_INSERT;
	}
	return n_changes;
}

/* `ends` false: they may be the old ones or the new ones. */
static void expect_model(struct random *random, const struct prefix_map *map,
			 const struct model *model, bool ends)
{
	expect_rest(map, model->size);
	for (u32 n = 0; n < NUMBERS; n++) {
		const struct prefix prefix = numbered(n);
		const struct fwd_entry *entry = prefix_map_find(map, &prefix);

		random_holds(random, !entry == !model->there[n]);
		if (entry && ends)
			random_holds(random, entry->expires_ns == model->expires_ns[n]);
	}
}

enum fate {
	SETTLES,
	ABORTS,
	DIES_BEFORE_THE_SWITCH,
	DIES_BEHIND_THE_SWITCH,
	FATES,
};

/* What becomes of staged changes; true: they are in force. */
static bool meet_fate(enum fate fate, struct prefix_map **map, unsigned *view)
{
	bool done = fate == SETTLES || fate == DIES_BEHIND_THE_SWITCH;

	if (done)
		*view = !*view;
	if (fate == SETTLES)
		prefix_map_settle(*map);
	if (fate == ABORTS)
		prefix_map_abort(*map);
	if (fate == DIES_BEFORE_THE_SWITCH || fate == DIES_BEHIND_THE_SWITCH) {
		prefix_map_close(take_pointer(map));
		*map = open_map(*view);
	}
	return done;
}

/* The ends as they are: a death may lose new ones, which the policy then puts right. */
static void read_ends(const struct prefix_map *map, struct model *model)
{
	for (u32 n = 0; n < NUMBERS; n++) {
		const struct prefix prefix = numbered(n);

		if (model->there[n])
			model->expires_ns[n] = prefix_map_find(map, &prefix)->expires_ns;
	}
}

Test(prefix_map, holds_what_was_settled_whoever_dies_when)
{
	struct prefix_map *map = open_map(0);
	struct random random = random_start();
	struct model model = {0}, next;
	unsigned view = 0;

	for (int step = 0; step < 1500; step++) {
		struct prefix_change changes[NUMBERS];
		enum fate fate = (enum fate)random_below(&random, FATES);
		u32 inserts;
		size_t n = random_changes(&random, &model, changes, &next, &inserts);
		bool fits = model.size + inserts <= CAPACITY;

		random_holds(&random, stage(map, !view, changes, n) == (fits ? 0 : -E2BIG));
		if (fits && meet_fate(fate, &map, &view))
			model = next;
		expect_model(&random, map, &model, fate != DIES_BEHIND_THE_SWITCH);
		read_ends(map, &model);
	}
	prefix_map_close(map);
}
