// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The trie against a naive model: random changes of a set, staged and then committed or aborted,
 * and after each of them the same answers. The lookup is that of the kernel, over plain memory.
 */
#include "trie_reader.h"
#include "trie_writer.h"

#include "fake_grace.h"
#include "random.h"

#include <criterion/criterion.h>
#include <errno.h>

#define ENTRIES 4096
#define BUCKETS 4096

/* ---- the clock, and what is counted on the way ---- */

static u64 now = 1000; /* in units of FWD_END_SHIFT */
static u64 lines_taken;
static u8 *claimed; /* by line, while it is set */

int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
u32 __real_line_pool_take(struct line_pool *pool, u32 n);
u32 __wrap_line_pool_take(struct line_pool *pool, u32 n);
bool __real_line_pool_claim(struct line_pool *pool, u32 line, u32 n);
bool __wrap_line_pool_claim(struct line_pool *pool, u32 line, u32 n);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	u64 ns = now << FWD_END_SHIFT;

	if (clock != CLOCK_BOOTTIME)
		return __real_clock_gettime(clock, ts);
	*ts = (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
	return 0;
}

u32 __wrap_line_pool_take(struct line_pool *pool, u32 n)
{
	lines_taken += n;
	return __real_line_pool_take(pool, n);
}

bool __wrap_line_pool_claim(struct line_pool *pool, u32 line, u32 n)
{
	bool free = __real_line_pool_claim(pool, line, n);

	if (free && claimed)
		memset(claimed + line, 1, n);
	return free;
}

/* ---- the set ---- */

/* What is staged is what the trie asks for, what is in force is what lookups find. */
struct state {
	bool listed;
	u64 end;
};

struct element {
	struct fwd_bits bits;
	u32 len, next; /* in its bucket */
	struct state staged, in_force;
};

struct set {
	struct random random;
	int family;
	bool clustered;
	u32 shortest, rare; /* one of so many prefixes is shorter than that, none if 0 */
	struct trie trie;
	struct trie_memory memory;
	u32 capacity; /* entries */
	struct element *elements;
	u32 buckets[BUCKETS], of_length[129];
	u32 *free, n_free, *listed, n_listed, touched[128], n_touched;
};

static struct fwd_bits truncated(struct fwd_bits bits, u32 len)
{
	for (u32 i = 0; i < 2; i++) {
		__u64 *word = i ? &bits.low : &bits.high;
		u32 keep = len > 64 * i ? len - 64 * i : 0;

		if (keep < 64)
			*word = keep ? *word >> (64 - keep) << (64 - keep) : 0;
	}
	return bits;
}

static bool same(struct fwd_bits a, struct fwd_bits b)
{
	return a.high == b.high && a.low == b.low;
}

static u32 bucket_of(struct fwd_bits bits, u32 len)
{
	u64 hash = (bits.high ^ bits.low * 0x9e3779b97f4a7c15 ^ len) * 0xbf58476d1ce4e5b9;

	return (u32)(hash >> 40) % BUCKETS;
}

/* The entry of that prefix, staged or in force. */
static u32 find(const struct set *set, struct fwd_bits bits, u32 len, bool staged)
{
	u32 entry = set->of_length[len] ? set->buckets[bucket_of(bits, len)] : 0;

	for (; entry; entry = set->elements[entry].next) {
		const struct element *element = &set->elements[entry];

		if (element->len == len && same(element->bits, bits) &&
		    (staged ? element->staged.listed : element->in_force.listed))
			return entry;
	}
	return 0;
}

static void get_key(const void *data, u32 entry, struct fwd_bits *ret_bits, u32 *ret_len)
{
	const struct set *set = data;

	*ret_bits = set->elements[entry].bits;
	*ret_len = set->elements[entry].len;
}

static bool has_end(const void *data, u32 entry)
{
	const struct set *set = data;

	return set->elements[entry].staged.end;
}

static u32 get_exact(const void *data, struct fwd_bits bits, u32 len)
{
	cr_assert(same(truncated(bits, len), bits));
	return find(data, bits, len, true);
}

static const struct trie_ops ops = {get_key, has_end, get_exact};

static struct fwd_entry *entry_at(const struct set *set, u32 entry)
{
	return trie_entry(&set->memory, set->family, entry);
}

static void set_up(struct set *set, int family, u32 capacity, u32 lines)
{
	size_t size = family == FWD_IPV4 ? sizeof(struct fwd_entry) : sizeof(struct fwd_entry6);
	struct fwd_line *memory = aligned_alloc(64, lines * sizeof(*memory));

	*set = (struct set){
		.random = random_start(),
		.family = family,
		.capacity = capacity,
		.elements = calloc(capacity, sizeof(*set->elements)),
		.free = calloc(capacity, sizeof(*set->free)),
		.listed = calloc(capacity, sizeof(*set->listed)),
		.memory = {memory, lines, calloc(capacity, size), capacity},
		.trie = {.pool = line_pool_new(memory, lines),
			 .ops = &ops,
			 .data = set,
			 .bits = family == FWD_IPV4 ? 32 : 128},
	};
	memset(memory, 0xee, lines * sizeof(*memory));
	for (u32 entry = capacity; --entry;)
		set->free[set->n_free++] = entry;
}

static void tear_down(struct set *set)
{
	line_pool_free(set->trie.pool);
	free((void *)set->memory.lines);
	free(set->memory.entries);
	free(set->elements);
	free(set->free);
	free(set->listed);
}

static void link_element(struct set *set, u32 entry)
{
	struct element *element = &set->elements[entry];
	u32 *bucket = &set->buckets[bucket_of(element->bits, element->len)];

	element->next = *bucket;
	*bucket = entry;
	set->of_length[element->len]++;
}

static void unlink_element(struct set *set, u32 entry)
{
	struct element *element = &set->elements[entry];
	u32 *at = &set->buckets[bucket_of(element->bits, element->len)];

	while (*at != entry)
		at = &set->elements[*at].next;
	*at = element->next;
	set->of_length[element->len]--;
}

/* Writes what readers are to see of an entry. */
static void write_entry(struct set *set, u32 entry, u64 end)
{
	const struct element *element = &set->elements[entry];
	struct fwd_entry *written = entry_at(set, entry);

	written->about = FWD_ABOUT(end, element->len, FWD_ENTRY_USED);
	if (set->family == FWD_IPV4) {
		written->addr = (u32)(element->bits.high >> 32);
	} else {
		((struct fwd_entry6 *)written)->addr[0] = element->bits.high;
		((struct fwd_entry6 *)written)->addr[1] = element->bits.low;
		((struct fwd_entry6 *)written)->mask[0] = trie_mask(element->len).high;
		((struct fwd_entry6 *)written)->mask[1] = trie_mask(element->len).low;
	}
}

/* A new element, staged; 0 where there is that prefix already, or no room. */
static u32 insert(struct set *set, struct fwd_bits bits, u32 len, u64 end)
{
	u32 entry;

	if (!set->n_free || find(set, bits, len, true))
		return 0;
	entry = set->free[--set->n_free];
	set->elements[entry] = (struct element){bits, len, 0, {true, end}, {false, 0}};
	link_element(set, entry);
	write_entry(set, entry, end);
	return entry;
}

/* ---- answers ---- */

static u32 naive(const struct set *set, struct fwd_bits key)
{
	for (u32 len = set->trie.bits + 1; len-- > 0;) {
		u32 entry = find(set, truncated(key, len), len, false);
		u64 end = set->elements[entry].in_force.end;

		if (entry && (!end || now < end))
			return entry;
	}
	return 0;
}

static const struct fwd_entry *entry_or_none(const struct set *set, u32 index)
{
	return index ? trie_entry(&set->memory, set->family, index) : NULL;
}

static void compare_at(struct set *set, u32 root, struct fwd_bits key)
{
	const struct fwd_entry *fast;
	u32 right, exact;
	bool ask;

	if (set->family == FWD_IPV4)
		key = truncated(key, 32);
	right = naive(set, key);
	exact = fwd_trie_find_exact(&set->memory, root, &key, set->family);
	random_holds(&set->random, exact == right);
	fast = fwd_trie_find_fast(&set->memory, root, &key, set->family, &ask);
	random_holds(&set->random, ask || fast == entry_or_none(set, right));
}

/* The address `by` before or behind. */
static struct fwd_bits moved(const struct set *set, struct fwd_bits key, int by)
{
	if (set->family == FWD_IPV4) {
		key.high += (u64)by << 32;
		return key;
	}
	key.low += (u64)by;
	if (by > 0 && !key.low)
		key.high++;
	if (by < 0 && key.low == ~0ull)
		key.high--;
	return key;
}

static struct fwd_bits last_address(const struct set *set, const struct element *element)
{
	struct fwd_bits all = {~0ull, ~0ull}, prefix = truncated(all, element->len);

	if (set->family == FWD_IPV4)
		all = truncated(all, 32);
	return (struct fwd_bits){element->bits.high | (all.high ^ prefix.high),
				 element->bits.low | (all.low ^ prefix.low)};
}

/* At the ends of a prefix, just before and behind, and somewhere in it. */
static void compare_around(struct set *set, u32 root, u32 entry)
{
	const struct element *element = &set->elements[entry];
	struct fwd_bits last = last_address(set, element), key = element->bits;

	compare_at(set, root, key);
	compare_at(set, root, moved(set, key, -1));
	compare_at(set, root, last);
	compare_at(set, root, moved(set, last, 1));
	key.high |= random_next(&set->random) & (key.high ^ last.high);
	key.low |= random_next(&set->random) & (key.low ^ last.low);
	compare_at(set, root, key);
}

static struct fwd_bits random_address(struct set *set)
{
	static const u8 few[] = {0, 1, 10, 127, 128, 255};
	struct fwd_bits key = {0};

	if (!set->clustered)
		return (struct fwd_bits){random_next(&set->random), random_next(&set->random)};
	for (u32 i = 0; i < 16; i++) {
		u64 byte = few[random_below(&set->random, i % 3 ? 2 : ARRAY_SIZE(few))];

		if (i < 8)
			key.high |= byte << (56 - 8 * i);
		else
			key.low |= byte << (120 - 8 * i);
	}
	return key;
}

static void compare_somewhere(struct set *set, u32 root)
{
	compare_at(set, root, random_address(set));
	if (set->n_listed)
		compare_around(set, root, set->listed[random_below(&set->random, set->n_listed)]);
}

/* ---- changes ---- */

static void touch(struct set *set, u32 entry)
{
	for (u32 i = 0; i < set->n_touched; i++)
		if (set->touched[i] == entry)
			return;
	set->touched[set->n_touched++] = entry;
}

static u64 random_end(struct set *set)
{
	return random_below(&set->random, 2) ? 0 : now + 1 + random_below(&set->random, 2000);
}

static int stage_put(struct set *set)
{
	u32 bits = set->trie.bits, len = bits, entry;

	if (random_below(&set->random, 4))
		len = (u32)random_below(&set->random, bits + 1);
	if (len < set->shortest && (!set->rare || random_below(&set->random, set->rare)))
		len = set->shortest + (u32)random_below(&set->random, bits + 1 - set->shortest);
	entry = insert(set, truncated(random_address(set), len), len, random_end(set));
	if (!entry)
		return 0;
	touch(set, entry);
	return trie_put(&set->trie, entry);
}

/* Removed, and sometimes made anew as another entry, in either order. */
static int stage_remove(struct set *set, u32 entry)
{
	struct element *element = &set->elements[entry];
	bool anew = !random_below(&set->random, 8), first = random_below(&set->random, 2);
	u32 other = 0;
	int r = 0;

	element->staged.listed = false;
	touch(set, entry);
	if (anew)
		other = insert(set, element->bits, element->len, random_end(set));
	if (other) {
		touch(set, other);
		if (first)
			r = trie_put(&set->trie, other);
	}
	if (r == 0)
		r = trie_remove(&set->trie, entry);
	return r == 0 && other && !first ? trie_put(&set->trie, other) : r;
}

static int stage_refresh(struct set *set, u32 entry)
{
	set->elements[entry].staged.end = random_end(set);
	touch(set, entry);
	return trie_refresh(&set->trie, entry);
}

static int stage(struct set *set, u64 removes_percent)
{
	u64 what = random_below(&set->random, 100);
	u32 entry;

	if (what >= removes_percent + 10 || !set->n_listed)
		return stage_put(set);
	entry = set->listed[random_below(&set->random, set->n_listed)];
	if (!set->elements[entry].staged.listed)
		return 0;
	return what < removes_percent ? stage_remove(set, entry) : stage_refresh(set, entry);
}

/* The model takes over what was staged, or forgets it. */
static void settle_touched(struct set *set, bool committed)
{
	for (u32 i = 0; i < set->n_touched; i++) {
		u32 entry = set->touched[i];
		struct element *element = &set->elements[entry];
		bool was = element->in_force.listed;

		if (committed)
			element->in_force = element->staged;
		else
			element->staged = element->in_force;
		if (element->in_force.listed)
			write_entry(set, entry, element->in_force.end);
		if (element->in_force.listed && !was)
			set->listed[set->n_listed++] = entry;
		for (u32 at = 0; was && !element->in_force.listed; at++) {
			if (set->listed[at] != entry)
				continue;
			set->listed[at] = set->listed[--set->n_listed];
			break;
		}
		if (!element->in_force.listed) {
			unlink_element(set, entry);
			set->free[set->n_free++] = entry;
		}
	}
}

static void commit(struct set *set)
{
	trie_finish(&set->trie);
	settle_touched(set, true);
}

static void abort_change(struct set *set)
{
	trie_abort(&set->trie);
	settle_touched(set, false);
}

/* One change: `n` random operations. Returns how many were made. */
static u32 change(struct set *set, u32 n, u64 removes_percent)
{
	u32 before = set->trie.root, made = 0;
	int r = 0;

	set->n_touched = 0;
	cr_assert_eq(trie_begin(&set->trie, false), 0);
	for (; r == 0 && made < n; made++)
		r = stage(set, removes_percent);
	for (u32 i = 0; i < 2; i++) /* W1 */
		compare_somewhere(set, before);
	random_holds(&set->random, r == 0 || r == -E2BIG);
	if (r < 0 || !random_below(&set->random, 10))
		abort_change(set);
	else
		commit(set);
	for (u32 i = 0; i < set->n_touched && i < 4; i++)
		compare_around(set, set->trie.root, set->touched[i]);
	compare_somewhere(set, set->trie.root);
	now += random_below(&set->random, 20);
	if (!random_below(&set->random, 4))
		grace_pass();
	return made;
}

/* One operation, in place, of an entry that has one cell of the table. */
static void change_in_place(struct set *set, u64 removes_percent)
{
	set->n_touched = 0;
	cr_assert_eq(trie_begin(&set->trie, true), 0);
	cr_assert_eq(stage(set, removes_percent), 0);
	compare_somewhere(set, set->trie.root); /* W1 */
	if (random_below(&set->random, 10))
		commit(set);
	else
		abort_change(set);
	for (u32 i = 0; i < set->n_touched; i++)
		compare_around(set, set->trie.root, set->touched[i]);
	compare_somewhere(set, set->trie.root);
	now += random_below(&set->random, 20);
	if (!random_below(&set->random, 4))
		grace_pass();
}

/* ---- shapes ---- */

static bool same_value(const struct fwd_line *a, u32 x, const struct fwd_line *b, u32 y)
{
	const u32 *list_a = a[x & FWD_CELL_INDEX].word, *list_b = b[y & FWD_CELL_INDEX].word;
	u32 i = 0;

	if (!(x & FWD_CELL_LIST) || !(y & FWD_CELL_LIST))
		return x == y;
	while (list_a[i] && list_a[i] == list_b[i])
		i++;
	return list_a[i] == list_b[i];
}

static bool same_cell(const struct fwd_line *a, u32 x, const struct fwd_line *b, u32 y);

static bool same_node(const struct fwd_line *a, u32 x, const struct fwd_line *b, u32 y)
{
	const struct fwd_node *m = (const void *)&a[x & FWD_CELL_INDEX];
	const struct fwd_node *n = (const void *)&b[y & FWD_CELL_INDEX];
	u32 cells = 0, begin = offsetof(struct fwd_node, cell) / sizeof(u32);

	for (u32 i = 0; i < ARRAY_SIZE(m->taken); i++)
		cells += (u32)__builtin_popcount(m->taken[i]);
	if (memcmp(m->taken, n->taken, sizeof(m->taken)) ||
	    memcmp(m->rank, n->rank, sizeof(m->rank)) || m->skip != n->skip ||
	    !same_value(a, m->cover, b, n->cover))
		return false;
	for (u32 i = begin; i < begin + cells; i++)
		if (!same_cell(a, ((const u32 *)m)[i], b, ((const u32 *)n)[i]))
			return false;
	return true;
}

static bool same_cell(const struct fwd_line *a, u32 x, const struct fwd_line *b, u32 y)
{
	if ((x & FWD_CELL_TABLE) != (y & FWD_CELL_TABLE))
		return false;
	if ((x & FWD_CELL_TABLE) == FWD_CELL_TABLE) {
		const u32 *table_a = a[x & FWD_CELL_INDEX].word;
		const u32 *table_b = b[y & FWD_CELL_INDEX].word;

		for (u32 i = 0; i < 1u << FWD_TABLE_BITS; i++)
			if (!same_cell(a, table_a[i], b, table_b[i]))
				return false;
		return true;
	}
	return x & FWD_CELL_NODE ? same_node(a, x, b, y) : same_value(a, x, b, y);
}

static const struct set *sorted_set;

static int compare_entries(const void *a, const void *b)
{
	const struct element *x = &sorted_set->elements[*(const u32 *)a];
	const struct element *y = &sorted_set->elements[*(const u32 *)b];

	if (x->bits.high != y->bits.high)
		return x->bits.high < y->bits.high ? -1 : 1;
	if (x->bits.low != y->bits.low)
		return x->bits.low < y->bits.low ? -1 : 1;
	return (int)x->len - (int)y->len;
}

/* Built anew from its entries a trie has the same nodes, in as many lines (W2). */
static void compare_rebuilt(struct set *set, u32 lines_used)
{
	_cleanup_free_ struct fwd_line *memory =
		aligned_alloc(64, set->memory.n_lines * sizeof(*memory));
	_cleanup_(line_pool_freep) struct line_pool *pool =
		line_pool_new(memory, set->memory.n_lines);
	_cleanup_free_ u32 *sorted = calloc(set->n_listed + 1, sizeof(*sorted));
	struct trie trie = set->trie;
	bool table = (set->trie.root & FWD_CELL_TABLE) == FWD_CELL_TABLE;

	memcpy(sorted, set->listed, set->n_listed * sizeof(*sorted));
	sorted_set = set;
	qsort(sorted, set->n_listed, sizeof(*sorted), compare_entries);
	trie.pool = pool;
	trie.root = 0;
	cr_assert_eq(trie_begin(&trie, false), 0);
	cr_assert_eq(trie_build(&trie, sorted, set->n_listed, table), 0);
	trie_finish(&trie);
	random_holds(&set->random, line_pool_used(pool) == lines_used);
	random_holds(&set->random, same_cell(memory, trie.root, set->memory.lines, set->trie.root));
	line_pool_free(pool);
	pool = line_pool_new(memory, set->memory.n_lines);
}

static void note_seen(void *data, u32 entry)
{
	((u8 *)data)[entry] = 1;
}

/* What is reached from the root is what is in use, and entries that are in force. */
static u32 compare_adopted(struct set *set)
{
	_cleanup_(line_pool_freep) struct line_pool *pool =
		line_pool_new((struct fwd_line *)set->memory.lines, set->memory.n_lines);
	_cleanup_free_ u8 *seen = calloc(set->capacity, 1);
	struct trie trie = set->trie;

	trie.pool = pool;
	cr_assert_eq(trie_adopt(&trie, note_seen, seen), 0);
	cr_assert_eq(line_pool_claimed(pool), 0);
	for (u32 entry = 0; entry < set->capacity; entry++)
		random_holds(&set->random, !seen[entry] || set->elements[entry].in_force.listed);
	/* Those that wait are over now; a look at the pool gives them. */
	grace_pass();
	line_pool_give(set->trie.pool, __real_line_pool_take(set->trie.pool, 1), 1);
	random_holds(&set->random, line_pool_used(pool) == line_pool_used(set->trie.pool));
	return line_pool_used(pool);
}

/* ---- the differential test ---- */

static void build_empty_table(struct set *set)
{
	cr_assert_eq(trie_begin(&set->trie, false), 0);
	cr_assert_eq(trie_build(&set->trie, NULL, 0, true), 0);
	trie_finish(&set->trie);
}

/* At least `operations` in changes of up to `batch`, the set growing and shrinking. */
static void run(struct set *set, u32 operations, u32 batch)
{
	u32 next_check = 0, done = 0;
	bool shrinks = false;

	while (done < operations) {
		if (set->n_listed > ENTRIES / 3 || set->n_listed < 3)
			shrinks = set->n_listed > 3;
		done += change(set, 1 + (u32)random_below(&set->random, batch), shrinks ? 60 : 20);
		if (done < next_check)
			continue;
		compare_rebuilt(set, compare_adopted(set));
		next_check += operations / 40;
	}
	tear_down(set);
}

static void run_random(int family, bool clustered, bool table, u32 operations)
{
	static struct set set;

	set_up(&set, family, ENTRIES, table ? 1 << 16 : 1 << 15);
	set.clustered = clustered;
	if (table) {
		set.shortest = 12;
		set.rare = 200;
		build_empty_table(&set);
	}
	run(&set, operations, 60);
}

TestSuite(trie, .timeout = 300);

Test(trie, answers_as_the_model_ipv4_clustered)
{
	run_random(FWD_IPV4, true, false, 200000);
}

Test(trie, answers_as_the_model_ipv4_uniform)
{
	run_random(FWD_IPV4, false, false, 200000);
}

Test(trie, answers_as_the_model_ipv4_clustered_with_table)
{
	run_random(FWD_IPV4, true, true, 200000);
}

Test(trie, answers_as_the_model_ipv4_uniform_with_table)
{
	run_random(FWD_IPV4, false, true, 100000);
}

Test(trie, answers_as_the_model_ipv6_clustered)
{
	run_random(FWD_IPV6, true, false, 200000);
}

Test(trie, answers_as_the_model_ipv6_uniform)
{
	run_random(FWD_IPV6, false, false, 100000);
}

/* Each of a few lines' worth of changes may find the pool full: that changes nothing. */
Test(trie, is_as_before_when_the_lines_run_out)
{
	static struct set set;

	set_up(&set, FWD_IPV4, ENTRIES, 300);
	set.clustered = true;
	run(&set, 50000, 20);
	cr_assert_gt(grace_waits, 0);
}

Test(trie, answers_as_the_model_changed_in_place)
{
	static struct set set;

	set_up(&set, FWD_IPV4, ENTRIES, 1 << 16);
	set.clustered = true;
	set.shortest = FWD_TABLE_BITS;
	build_empty_table(&set);
	for (u32 i = 0; i < 50000; i++) {
		bool shrinks = i / 3000 % 2;
		u32 root = set.trie.root;

		change_in_place(&set, shrinks ? 60 : 20);
		random_holds(&set.random, set.trie.root == root);
		if (i % 5000 == 0)
			compare_rebuilt(&set, compare_adopted(&set));
	}
	tear_down(&set);
}

/* ---- one thing at a time ---- */

/* Puts an entry in a change of its own. */
static u32 put(struct set *set, u64 high, u32 len, u64 end)
{
	u32 entry = insert(set, (struct fwd_bits){high, 0}, len, end);

	cr_assert_neq(entry, 0);
	set->n_touched = 0;
	touch(set, entry);
	cr_assert_eq(trie_begin(&set->trie, false), 0);
	cr_assert_eq(trie_put(&set->trie, entry), 0);
	commit(set);
	return entry;
}

static void nest_all(struct set *set, u64 high, u32 longest)
{
	for (u32 len = 0; len <= longest; len++)
		put(set, truncated((struct fwd_bits){high, 0}, len).high, len,
		    now + 1 + longest - len);
}

/* Each ends one unit before the one that it is in: all are found, one after the other. */
static void compare_nest(struct set *set, u64 high, u32 longest)
{
	struct fwd_bits key = {high, 0};

	for (u32 n = 0; n <= longest + 1; n++, now++) {
		u32 found = fwd_trie_find_exact(&set->memory, set->trie.root, &key, set->family);

		cr_assert_eq(found, naive(set, key));
		cr_assert_eq(!found, n > longest);
		compare_adopted(set);
	}
}

Test(trie, uncovers_17_entries_of_a_slot_of_a_table_as_they_end)
{
	static struct set set;

	set_up(&set, FWD_IPV4, ENTRIES, 1 << 18);
	build_empty_table(&set);
	nest_all(&set, 0xaaaa000000000000, FWD_TABLE_BITS);
	compare_rebuilt(&set, compare_adopted(&set));
	compare_nest(&set, 0xaaaa000000000000, FWD_TABLE_BITS);
	tear_down(&set);
}

Test(trie, uncovers_129_nested_entries_as_they_end)
{
	static struct set set;

	set_up(&set, FWD_IPV6, ENTRIES, 1 << 15);
	nest_all(&set, 0xaaaa000000000000, 128);
	compare_rebuilt(&set, compare_adopted(&set));
	compare_nest(&set, 0xaaaa000000000000, 128);
	tear_down(&set);
}

Test(trie, of_one_entry_has_no_lines)
{
	static struct set set;

	set_up(&set, FWD_IPV6, ENTRIES, 2);
	cr_assert_eq(put(&set, 0x20010db800000000, 32, 0), set.trie.root);
	cr_assert_eq(line_pool_used(set.trie.pool), 0);
	compare_around(&set, set.trie.root, set.trie.root);
	tear_down(&set);
}

/* T1, for whole changes: what readers can reach is as it was, to the last byte, until the end. */
Test(trie, leaves_the_lines_in_reach_alone_until_the_change_ends)
{
	static struct set set;
	struct fwd_line *before;

	set_up(&set, FWD_IPV4, ENTRIES, 1 << 15);
	set.clustered = true;
	before = malloc(set.memory.n_lines * sizeof(*before));
	claimed = malloc(set.memory.n_lines);
	for (u32 i = 0; i < 300; i++) {
		set.n_touched = 0;
		memset(claimed, 0, set.memory.n_lines);
		compare_adopted(&set);
		memcpy(before, set.memory.lines, set.memory.n_lines * sizeof(*before));
		cr_assert_eq(trie_begin(&set.trie, false), 0);
		for (u32 n = 0; n < 50; n++)
			cr_assert_eq(stage(&set, i / 40 % 2 ? 60 : 20), 0);
		for (u32 line = 0; line < set.memory.n_lines; line++)
			random_holds(&set.random, !claimed[line] || !memcmp(&before[line],
									    &set.memory.lines[line],
									    sizeof(*before)));
		commit(&set);
	}
	free(before);
	free(claimed);
	claimed = NULL;
	tear_down(&set);
}

/* ---- builds and their cost ---- */

/* Builds a trie of `n` hosts that have no end. */
static int fill(struct set *set, u32 n)
{
	_cleanup_free_ u32 *sorted = calloc(n, sizeof(*sorted));
	int r;

	while (set->n_listed < n) {
		u32 entry = insert(set, truncated(random_address(set), 32), 32, 0);

		if (!entry)
			continue;
		set->elements[entry].in_force = set->elements[entry].staged;
		set->listed[set->n_listed++] = entry;
	}
	memcpy(sorted, set->listed, n * sizeof(*sorted));
	sorted_set = set;
	qsort(sorted, n, sizeof(*sorted), compare_entries);
	cr_assert_eq(trie_begin(&set->trie, false), 0);
	r = trie_build(&set->trie, sorted, n, n > 1000);
	if (r < 0)
		trie_abort(&set->trie);
	else
		trie_finish(&set->trie);
	return r;
}

Test(trie, needs_but_the_fast_way_while_nothing_ends)
{
	static struct set set;

	set_up(&set, FWD_IPV4, ENTRIES, 1 << 15);
	cr_assert_eq(fill(&set, 3000), 0);
	for (u32 i = 0; i < 3000; i++) {
		struct fwd_bits key =
			i % 2 ? set.elements[set.listed[i]].bits : random_address(&set);
		const struct fwd_entry *found;
		bool ask;

		key = truncated(key, 32);
		found = fwd_trie_find_fast(&set.memory, set.trie.root, &key, FWD_IPV4, &ask);
		random_holds(&set.random, !ask && found == entry_or_none(&set, naive(&set, key)));
	}
	tear_down(&set);
}

Test(trie, gives_all_lines_back_when_a_build_finds_too_few)
{
	static struct set set;

	set_up(&set, FWD_IPV4, ENTRIES, FWD_TABLE_LINES + 200);
	cr_assert_eq(fill(&set, 3000), 0);
	cr_assert_eq(trie_begin(&set.trie, false), -E2BIG, "there is room for one table");
	tear_down(&set);

	set_up(&set, FWD_IPV4, ENTRIES, FWD_TABLE_LINES + 20);
	cr_assert_eq(fill(&set, 3000), -E2BIG);
	cr_assert_eq(line_pool_used(set.trie.pool), 0);
	cr_assert_eq(set.trie.root, 0);
	tear_down(&set);
}

Test(trie, is_left_alone_where_what_goes_is_not_there)
{
	static struct set set;
	u32 other;

	set_up(&set, FWD_IPV4, 16, 64);
	put(&set, 0x0a010100ull << 32, 32, 0);
	put(&set, 0x0a010101ull << 32, 32, 0);
	other = insert(&set, (struct fwd_bits){0x0a020101ull << 32, 0}, 32, 0);
	cr_assert_eq(trie_begin(&set.trie, false), 0);
	cr_assert_eq(trie_remove(&set.trie, other), 0);
	cr_assert_eq(trie_changed_root(&set.trie), set.trie.root);
	trie_finish(&set.trie);
	tear_down(&set);
}

/* The most lines that one of 100 hosts took, put one by one. */
static u64 lines_of_a_put(u32 n)
{
	static struct set set;
	u64 most = 0;

	set_up(&set, FWD_IPV4, n + 1000, 1 << 18);
	cr_assert_eq(fill(&set, n), 0);
	for (u32 i = 0; i < 100; i++) {
		u32 entry = insert(&set, truncated(random_address(&set), 32), 32, 0);

		lines_taken = 0;
		cr_assert_eq(trie_begin(&set.trie, true), 0);
		cr_assert_eq(trie_put(&set.trie, entry), 0);
		trie_finish(&set.trie);
		most = lines_taken > most ? lines_taken : most;
	}
	tear_down(&set);
	return most;
}

/* W4: nodes of 256 slots at each of two bytes is the most there can be, here it is far less. */
Test(trie, takes_as_few_lines_for_a_put_at_100000_entries_as_at_10)
{
	cr_assert_leq(lines_of_a_put(10), FWD_NODE_LINES_MAX);
	cr_assert_leq(lines_of_a_put(100000), FWD_NODE_LINES_MAX);
}

/* ---- adoption of what is no trie ---- */

static void ignore(void *data, u32 entry)
{
}

static int adopt(const struct set *set)
{
	_cleanup_(line_pool_freep) struct line_pool *pool =
		line_pool_new((struct fwd_line *)set->memory.lines, set->memory.n_lines);
	struct trie trie = set->trie;

	trie.pool = pool;
	return trie_adopt(&trie, ignore, NULL);
}

static void make_two(struct set *set)
{
	set_up(set, FWD_IPV4, 16, 64);
	put(set, 0x0a00000000000000, 8, now + 10);
	put(set, 0x0a01000000000000, 16, 0);
	cr_assert_eq(adopt(set), 0);
}

static struct fwd_node *root_node(const struct set *set)
{
	return (void *)&set->memory.lines[set->trie.root & FWD_CELL_INDEX];
}

Test(trie, refuses_to_adopt_lines_out_of_range)
{
	static struct set set;

	make_two(&set);
	set.trie.root = FWD_CELL_NODE;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	set.trie.root = FWD_CELL_NODE | 64;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	set.trie.root = FWD_CELL_LIST | FWD_CELL_INDEX;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	set.trie.root = FWD_CELL_TABLE | 1;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	tear_down(&set);
}

Test(trie, refuses_to_adopt_a_line_twice)
{
	static struct set set;

	make_two(&set);
	root_node(&set)->cell[0] = set.trie.root;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	tear_down(&set);
}

Test(trie, refuses_to_adopt_a_node_below_the_last_byte)
{
	static struct set set;

	make_two(&set);
	root_node(&set)->rank[0] = 4;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	root_node(&set)->rank[0] = 5;
	set.trie.bits = 128;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	tear_down(&set);
}

Test(trie, refuses_to_adopt_nodes_that_are_not_whole)
{
	static struct set set;
	struct fwd_node *node, good;

	make_two(&set);
	node = root_node(&set);
	good = *node;
	node->rank[7]++;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	*node = good;
	memset(node->taken, 0, sizeof(node->taken));
	memset(node->rank, 0, sizeof(node->rank));
	cr_assert_eq(adopt(&set), -EUCLEAN);
	*node = good;
	node->cell[0] = 0;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	*node = good;
	node->cover = FWD_CELL_NODE | 2;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	*node = good;
	node->cell[0] = FWD_CELL_TABLE | 2;
	cr_assert_eq(adopt(&set), -EUCLEAN);
	tear_down(&set);
}

Test(trie, refuses_to_adopt_a_list_of_one_or_of_more_than_17)
{
	static struct set set;
	u32 list[] = {1, 2, 16, 17, 18};

	make_two(&set);
	set.trie.root = FWD_CELL_LIST | 20;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		u32 *words = (u32 *)set.memory.lines[20].word;

		memset(words, 0, 2 * sizeof(struct fwd_line));
		for (u32 n = 0; n < list[i]; n++)
			words[n] = 1;
		cr_assert_eq(adopt(&set), list[i] < 2 || list[i] > 17 ? -EUCLEAN : 0);
		words[1] = FWD_CELL_LIST | 2;
		cr_assert_eq(adopt(&set), -EUCLEAN);
	}
	tear_down(&set);
}

/* Words at random: it ends, and is one or the other. */
Test(trie, adopts_or_refuses_whatever_the_memory_holds)
{
	static struct set set;

	set_up(&set, FWD_IPV6, 16, 256);
	for (u32 i = 0; i < 20000; i++) {
		u32 *words = (u32 *)set.memory.lines->word;
		int r;

		for (u32 n = 0; n < 256 * FWD_LINE_WORDS; n++) {
			u64 random = random_next(&set.random);

			words[n] = random & 7 ? (u32)(random >> 32) & 0xc00000ff : 0;
		}
		set.trie.root = FWD_CELL_NODE | (1 + (u32)random_below(&set.random, 255));
		r = adopt(&set);
		random_holds(&set.random, r == 0 || r == -EUCLEAN);
	}
	tear_down(&set);
}
