// SPDX-License-Identifier: GPL-2.0-or-later
#include "trie_writer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- lines of a change ---- */

struct run {
	u32 line, n;
};

/*
 * The runs that a change made, by their first line: a hash table whose hash is the line itself,
 * since lines come mostly one after the other. n is 0 for those that are gone again.
 */
struct made {
	struct run *items;
	u32 n, room; /* a power of two */
};

struct trie_change {
	u32 root;
	int error;
	struct made made;    /* no reader knows these */
	struct run *retired; /* readers may, until the end of the change */
	size_t retired_n, retired_room;
	/* The one cell of the table that is changed in place. */
	bool in_place, has_cell;
	u32 top, cell;
};

/* Where the run is, or belongs. */
static struct run *made_at(const struct made *made, u32 line)
{
	u32 i = line & (made->room - 1);

	while (made->items[i].line && made->items[i].line != line)
		i = (i + 1) & (made->room - 1);
	return &made->items[i];
}

static bool made_has(const struct made *made, u32 line)
{
	return made->room && made_at(made, line)->n;
}

static int made_grow(struct made *made)
{
	struct made more = {.n = made->n, .room = made->room ? made->room * 2 : 64};

	more.items = calloc(more.room, sizeof(*more.items));
	if (!more.items)
		return -ENOMEM;
	for (u32 i = 0; i < made->room; i++)
		if (made->items[i].line)
			*made_at(&more, made->items[i].line) = made->items[i];
	free(made->items);
	*made = more;
	return 0;
}

static int made_add(struct made *made, u32 line, u32 n)
{
	struct run *run;

	if (made->n >= made->room / 2) {
		int r = made_grow(made);

		if (r < 0)
			return r;
	}
	run = made_at(made, line);
	made->n += !run->line;
	*run = (struct run){line, n};
	return 0;
}

static u32 allocate(struct trie *trie, u32 n)
{
	struct trie_change *change = trie->change;
	u32 line;

	if (change->error)
		return 0;
	line = line_pool_take(trie->pool, n);
	if (!line) {
		change->error = -E2BIG;
		return 0;
	}
	if (!trie->unseen)
		change->error = made_add(&change->made, line, n);
	if (change->error) {
		line_pool_give(trie->pool, line, n);
		return 0;
	}
	return line;
}

/* A run is no longer part of the trie that is being made. */
static void let_go(struct trie *trie, u32 line, u32 n)
{
	struct trie_change *change = trie->change;

	if (trie->unseen) {
		line_pool_give(trie->pool, line, n);
		return;
	}
	if (made_has(&change->made, line)) {
		made_at(&change->made, line)->n = 0;
		line_pool_give(trie->pool, line, n);
		return;
	}
	if (change->retired_n == change->retired_room) {
		size_t room = change->retired_room ? change->retired_room * 2 : 64;
		struct run *more = reallocarray(change->retired, room, sizeof(*more));

		if (!more) {
			change->error = -ENOMEM;
			return;
		}
		change->retired = more;
		change->retired_room = room;
	}
	change->retired[change->retired_n++] = (struct run){line, n};
}

/* The words of a run. */
static u32 *words(const struct trie *trie, u32 line)
{
	return (u32 *)(line_pool_lines(trie->pool) + line);
}

/* ---- cells ---- */

static bool is_table(u32 cell)
{
	return (cell & FWD_CELL_TABLE) == FWD_CELL_TABLE;
}

static bool is_node(u32 cell)
{
	return (cell & FWD_CELL_TABLE) == FWD_CELL_NODE;
}

static bool is_list(u32 cell)
{
	return (cell & FWD_CELL_TABLE) == FWD_CELL_LIST;
}

/* A list's last word is 0. */
static u32 list_lines(u32 entries)
{
	return entries / FWD_LINE_WORDS + 1;
}

static u32 give_list(struct trie *trie, const u32 *entries, u32 n)
{
	u32 line = allocate(trie, list_lines(n));

	if (!line)
		return 0;
	memset(words(trie, line), 0, list_lines(n) * sizeof(struct fwd_line));
	memcpy(words(trie, line), entries, n * sizeof(*entries));
	return line | FWD_CELL_LIST;
}

static void drop_value(struct trie *trie, u32 cell)
{
	u32 line = cell & FWD_CELL_INDEX, n = 0;

	if (!is_list(cell))
		return;
	while (words(trie, line)[n])
		n++;
	let_go(trie, line, list_lines(n));
}

/* ---- nodes, unpacked ---- */

struct node {
	u32 cover;
	u32 skip_n, skip;
	u32 cell[FWD_SLOTS];
};

static u32 node_lines(u32 cells)
{
	return cells <= FWD_NODE_CELLS
		       ? 1
		       : 1 + (cells - FWD_NODE_CELLS + FWD_LINE_WORDS - 1) / FWD_LINE_WORDS;
}

static const struct fwd_node *packed_node(const struct trie *trie, u32 cell)
{
	return (const struct fwd_node *)words(trie, cell & FWD_CELL_INDEX);
}

static u32 packed_skip(const struct fwd_node *node)
{
	return node->rank[0] & FWD_NODE_SKIP;
}

/* The cells behind the head of a node's first line go on in the lines behind. */
static const u32 *packed_cells(const struct fwd_node *node)
{
	return (const u32 *)node + offsetof(struct fwd_node, cell) / sizeof(u32);
}

/* Unpacks a node and lets go of its lines. */
static void take_node(struct trie *trie, u32 cell, struct node *ret)
{
	const struct fwd_node *packed = packed_node(trie, cell);
	const u32 *cells = packed_cells(packed);
	u32 n = 0;

	memset(ret, 0, sizeof(*ret));
	ret->cover = packed->cover;
	ret->skip_n = packed_skip(packed);
	ret->skip = packed->skip;
	for (u32 slot = 0; slot < FWD_SLOTS; slot++) {
		bool counted = packed->taken[slot / 32] >> slot % 32 & 1;

		n += counted;
		if (counted || packed->rank[0] & FWD_NODE_RUNS)
			ret->cell[slot] = cells[n - 1];
	}
	let_go(trie, cell & FWD_CELL_INDEX, node_lines(n));
}

static bool begins_run(const struct node *node, u32 slot)
{
	return !slot || node->cell[slot] != node->cell[slot - 1];
}

/* True if its runs make fewer cells than its slots that are taken. */
static bool has_few_runs(const struct node *node)
{
	u32 taken = 0, runs = 0;

	for (u32 slot = 0; slot < FWD_SLOTS; slot++) {
		taken += node->cell[slot] != 0;
		runs += begins_run(node, slot);
	}
	return runs < taken;
}

/* Packs a node into lines of its own. 0 after an error. */
static u32 give_node(struct trie *trie, const struct node *node)
{
	struct fwd_node packed = {.cover = node->cover, .skip = node->skip};
	bool runs = has_few_runs(node);
	u32 cells[FWD_SLOTS], n = 0, line;

	for (u32 slot = 0; slot < FWD_SLOTS; slot++) {
		if (slot % 32 == 0)
			packed.rank[slot / 32] = (u8)n;
		if (!(runs ? begins_run(node, slot) : node->cell[slot] != 0))
			continue;
		packed.taken[slot / 32] |= 1u << (slot % 32);
		cells[n++] = node->cell[slot];
	}
	packed.rank[0] = (u8)(node->skip_n | (runs ? FWD_NODE_RUNS : 0));
	line = allocate(trie, node_lines(n));
	if (!line)
		return 0;
	memset(words(trie, line), 0, node_lines(n) * sizeof(struct fwd_line));
	memcpy(words(trie, line), &packed, offsetof(struct fwd_node, cell));
	memcpy(words(trie, line) + offsetof(struct fwd_node, cell) / sizeof(u32), cells,
	       n * sizeof(*cells));
	return line | FWD_CELL_NODE;
}

/* ---- prefixes ---- */

/* An entry and its prefix. */
struct item {
	struct fwd_bits bits;
	u32 len, entry;
};

static struct item get_item(const struct trie *trie, u32 entry)
{
	struct item item = {.entry = entry};

	trie->ops->key(trie->data, entry, &item.bits, &item.len);
	return item;
}

static u32 byte_at(struct fwd_bits bits, u32 at)
{
	return (at < 8 ? bits.high : bits.low) >> (56 - 8 * (at % 8)) & 0xff;
}

static u32 skip_byte(u32 skip, u32 at)
{
	return skip >> (24 - 8 * at) & 0xff;
}

static struct fwd_bits truncate_bits(struct fwd_bits bits, u32 len)
{
	if (len < 64)
		return (struct fwd_bits){.high = len ? bits.high & ~0ull << (64 - len) : 0};
	if (len < 128)
		bits.low &= len > 64 ? ~0ull << (128 - len) : 0;
	return bits;
}

/*
 * How many bytes from `depth` on a node over both can skip: those that they share, and that neither
 * ends in.
 */
static u32 shared_bytes(const struct item *a, const struct item *b, u32 depth)
{
	u64 high = a->bits.high ^ b->bits.high, low = a->bits.low ^ b->bits.low;
	u32 len = a->len < b->len ? a->len : b->len;
	u32 end = (len - 1) / 8;
	u32 same = 16;

	if (high)
		same = (u32)__builtin_clzll(high) / 8;
	else if (low)
		same = 8 + (u32)__builtin_clzll(low) / 8;
	if (same < end)
		end = same;
	return end - depth < FWD_SKIP_MAX ? end - depth : FWD_SKIP_MAX;
}

static void set_skip(struct node *node, struct fwd_bits bits, u32 depth, u32 n)
{
	node->skip_n = n;
	node->skip = 0;
	for (u32 i = 0; i < n; i++)
		node->skip |= byte_at(bits, depth + i) << (24 - 8 * i);
}

/* ---- levels ---- */

/*
 * The slots of a node, of a table, or the one on top of all; the values of these slots are made of
 * the prefixes of these lengths. The longest has a slot of its own.
 */
struct level {
	u32 shortest, longest;
};

static const struct level table_level = {0, FWD_TABLE_BITS};
static const struct level top_level = {0, 0};

/* Of a node whose slots are by the byte `at`. */
static struct level node_level(u32 at)
{
	return (struct level){8 * at + 1, 8 * at + 8};
}

static u32 level_slot(struct level level, struct fwd_bits bits)
{
	u32 begin = level.shortest ? level.shortest - 1 : 0, n = level.longest - begin;

	if (!n)
		return 0;
	return (u32)((begin < 64 ? bits.high : bits.low) << begin % 64 >> (64 - n));
}

/* The last one of the slots that the prefix has a part in. */
static u32 level_last_slot(struct level level, const struct item *item)
{
	u32 slot = level_slot(level, item->bits);

	return item->len < level.longest ? slot | ((1u << (level.longest - item->len)) - 1) : slot;
}

/* The value of one slot after the other. What they share is asked for once. */
struct values {
	struct level level;
	struct fwd_bits bits;	       /* of the slot */
	u32 exact[FWD_TABLE_BITS + 1]; /* the entry by length, of the shortest first */
};

#define UNKNOWN 0xffffffffu /* no entry */

static void values_forget(struct values *values, u32 from)
{
	for (u32 len = from; len <= values->level.longest; len++)
		values->exact[len - values->level.shortest] = UNKNOWN;
}

static void values_next(struct values *values)
{
	u32 longest = values->level.longest;
	__u64 *word = longest <= 64 ? &values->bits.high : &values->bits.low;

	*word += 1ull << (64 - longest) % 64;
	/* As many bits are others now as are 0 behind the last that is set, and that one. */
	values_forget(values, longest - (u32)__builtin_ctzll(*word >> (64 - longest) % 64));
}

/*
 * The entries of the level that cover the slot, the most specific first, up to one that never ends,
 * as a cell: 0, an entry, or a list.
 */
static u32 value(struct trie *trie, struct values *values)
{
	u32 shortest = values->level.shortest, list[FWD_LIST_MAX], n = 0;

	for (u32 len = values->level.longest + 1; len-- > shortest;) {
		u32 *exact = &values->exact[len - shortest];

		if (*exact == UNKNOWN)
			*exact =
				trie->ops->exact(trie->data, truncate_bits(values->bits, len), len);
		if (!*exact)
			continue;
		list[n++] = *exact;
		if (!trie->ops->ends(trie->data, *exact))
			break;
	}
	if (n <= 1)
		return n ? list[0] : 0;
	return give_list(trie, list, n);
}

/* ---- changing ---- */

enum operation {
	PUT,
	REMOVE,
	REFRESH,
};

struct update {
	struct item item;
	enum operation operation;
};

static u32 update_below(struct trie *trie, u32 cell, u32 depth, const struct update *update);
static u32 settle(struct trie *trie, struct node *node, u32 depth);
static void lay(struct trie *trie, struct node *node, u32 at, const struct item *item);

/* The cell of a slot of `depth` bytes, with another value. */
static u32 set_value(struct trie *trie, u32 cell, u32 depth, u32 value_cell)
{
	struct node node = {.cover = value_cell};
	struct item alone;

	if (is_node(cell)) {
		take_node(trie, cell, &node);
		drop_value(trie, node.cover);
		node.cover = value_cell;
		return settle(trie, &node, depth);
	}
	if (cell && !is_list(cell)) {
		alone = get_item(trie, cell);
		if (alone.len > 8 * depth) {
			lay(trie, &node, depth, &alone);
			return settle(trie, &node, depth);
		}
	}
	drop_value(trie, cell);
	return value_cell;
}

/* All of a level's slots that the prefix has a part in; `cells` is the first one of them. */
static void update_slots(struct trie *trie, u32 *cells, struct level level,
			 const struct update *update)
{
	struct values values = {.level = level, .bits = update->item.bits};
	u32 n = level_last_slot(level, &update->item) - level_slot(level, update->item.bits) + 1;

	if (update->item.len > level.longest) {
		*cells = update_below(trie, *cells, level.longest / 8, update);
		return;
	}
	values_forget(&values, level.shortest);
	for (u32 i = 0; i < n && !trie->change->error; i++) {
		if (i)
			values_next(&values);
		cells[i] = set_value(trie, cells[i], level.longest / 8, value(trie, &values));
	}
}

/* Puts an entry into a node whose slots are by the byte `at`. */
static void lay(struct trie *trie, struct node *node, u32 at, const struct item *item)
{
	struct update update = {*item, PUT};

	update_slots(trie, &node->cell[byte_at(item->bits, at)], node_level(at), &update);
}

/* A node in the place of a cell that is none, for what is put there now. */
static u32 put_beside(struct trie *trie, u32 cell, u32 depth, const struct item *item)
{
	struct node node = {0};
	struct item other = {0};

	if (!is_list(cell))
		other = get_item(trie, cell);
	if (other.len > 8 * depth) {
		set_skip(&node, item->bits, depth, shared_bytes(item, &other, depth));
		lay(trie, &node, depth + node.skip_n, &other);
	} else {
		node.cover = cell;
	}
	lay(trie, &node, depth + node.skip_n, item);
	return settle(trie, &node, depth);
}

/* Ends the skip of a node of `depth` after n bytes: a node above it branches there. */
static void split_skip(struct trie *trie, struct node *node, u32 depth, u32 n)
{
	struct node above = {.cover = node->cover, .skip_n = n};
	u32 slot = skip_byte(node->skip, n);

	above.skip = n ? node->skip & ~(0xffffffffu >> 8 * n) : 0;
	node->cover = 0;
	node->skip_n -= n + 1;
	node->skip = n + 1 < FWD_SKIP_MAX ? node->skip << 8 * (n + 1) : 0;
	above.cell[slot] = settle(trie, node, depth + n + 1);
	*node = above;
}

static u32 update_node(struct trie *trie, u32 cell, u32 depth, const struct update *update)
{
	const struct fwd_node *packed = packed_node(trie, cell);
	const struct item *item = &update->item;
	u32 skip_n = packed_skip(packed), n = 0, at;
	struct node node;

	while (n < skip_n && 8 * (depth + n) + 8 < item->len &&
	       skip_byte(packed->skip, n) == byte_at(item->bits, depth + n))
		n++;
	if (n < skip_n && update->operation != PUT)
		return cell;
	take_node(trie, cell, &node);
	if (n < skip_n)
		split_skip(trie, &node, depth, n);
	at = depth + node.skip_n;
	update_slots(trie, &node.cell[byte_at(item->bits, at)], node_level(at), update);
	return settle(trie, &node, depth);
}

/* The cell of a slot of `depth` bytes that the prefix is longer than. */
static u32 update_below(struct trie *trie, u32 cell, u32 depth, const struct update *update)
{
	if (trie->change->error)
		return cell;
	if (is_node(cell))
		return update_node(trie, cell, depth, update);
	if (cell == update->item.entry)
		return update->operation == REMOVE ? 0 : cell;
	if (update->operation != PUT)
		return cell;
	return cell ? put_beside(trie, cell, depth, &update->item) : update->item.entry;
}

/* ---- one shape for the same entries (W2) ---- */

/* How many different cells a node has, 2 for more; the first of them, and its slot. */
static u32 count_cells(const struct node *node, u32 *ret_cell, u32 *ret_slot)
{
	u32 cell = 0;

	for (u32 slot = 0; slot < FWD_SLOTS; slot++) {
		if (!node->cell[slot] || node->cell[slot] == cell)
			continue;
		if (cell)
			return 2;
		cell = *ret_cell = node->cell[slot];
		*ret_slot = slot;
	}
	return cell != 0;
}

/* A node whose only cell is another node: as much as can be in one skip. */
static void join_skips(struct trie *trie, struct node *node, u32 depth, u32 cell, u32 slot)
{
	struct node below;
	u64 skip;
	u32 n;

	if (node->skip_n == FWD_SKIP_MAX || packed_node(trie, cell)->cover)
		return;
	take_node(trie, cell, &below);
	n = node->skip_n + 1;
	skip = (u64)node->skip << 32 | (u64)slot << (64 - 8 * n) | (u64)below.skip << 32 >> 8 * n;
	n += below.skip_n;
	if (n <= FWD_SKIP_MAX) {
		below.cover = node->cover;
		below.skip = (u32)(skip >> 32);
		below.skip_n = n;
		*node = below;
		return;
	}
	node->skip = (u32)(skip >> 32);
	node->skip_n = FWD_SKIP_MAX;
	node->cell[slot] = 0;
	below.skip = (u32)(skip << 8);
	below.skip_n = n - FWD_SKIP_MAX - 1;
	node->cell[skip >> 24 & 0xff] = settle(trie, &below, depth + FWD_SKIP_MAX + 1);
}

/*
 * The cell of a node that was changed, in the one shape for what is in it: an entry alone is no
 * node; beside a cover it is one that skips nothing; a node skips all that it can.
 */
static u32 settle(struct trie *trie, struct node *node, u32 depth)
{
	u32 cell, slot, n;

	if (trie->change->error)
		return 0;
	n = count_cells(node, &cell, &slot);
	if (!n)
		return node->cover;
	if (n == 1 && is_node(cell)) {
		join_skips(trie, node, depth, cell, slot);
	} else if (n == 1 && !is_list(cell)) {
		if (!node->cover)
			return cell;
		if (node->skip_n) {
			struct node anew = {.cover = node->cover};
			struct item alone = get_item(trie, cell);

			lay(trie, &anew, depth, &alone);
			return settle(trie, &anew, depth);
		}
	}
	return give_node(trie, node);
}

/* ---- changes ---- */

static u32 *table(const struct trie *trie, u32 root)
{
	return words(trie, root & FWD_CELL_INDEX);
}

static void update_in_place(struct trie *trie, const struct update *update)
{
	struct trie_change *change = trie->change;
	u32 top = level_slot(table_level, update->item.bits);

	assert(update->item.len >= FWD_TABLE_BITS && (!change->has_cell || change->top == top));
	if (!change->has_cell)
		change->cell = table(trie, trie->root)[top];
	change->top = top;
	change->has_cell = true;
	update_slots(trie, &change->cell, table_level, update);
}

static int update(struct trie *trie, u32 entry, enum operation operation)
{
	struct update update = {get_item(trie, entry), operation};
	struct trie_change *change = trie->change;

	if (change->error)
		return change->error;
	if (!is_table(change->root))
		update_slots(trie, &change->root, top_level, &update);
	else if (change->in_place)
		update_in_place(trie, &update);
	else
		update_slots(trie,
			     table(trie, change->root) + level_slot(table_level, update.item.bits),
			     table_level, &update);
	return change->error;
}

int trie_put(struct trie *trie, u32 entry)
{
	return update(trie, entry, PUT);
}

int trie_remove(struct trie *trie, u32 entry)
{
	return update(trie, entry, REMOVE);
}

int trie_refresh(struct trie *trie, u32 entry)
{
	return update(trie, entry, REFRESH);
}

static void end_change(struct trie *trie)
{
	free(trie->change->made.items);
	free(trie->change->retired);
	free(trie->change);
	trie->change = NULL;
}

int trie_begin(struct trie *trie, bool in_place)
{
	struct trie_change *change = calloc(1, sizeof(*change));
	u32 line;

	if (!change)
		return -ENOMEM;
	trie->change = change;
	change->root = trie->root;
	change->in_place = in_place;
	if (in_place || trie->unseen || !is_table(trie->root))
		return 0;
	line = allocate(trie, FWD_TABLE_LINES);
	if (line) {
		memcpy(words(trie, line), table(trie, trie->root),
		       FWD_TABLE_LINES * sizeof(struct fwd_line));
		let_go(trie, trie->root & FWD_CELL_INDEX, FWD_TABLE_LINES);
		change->root = line | FWD_CELL_TABLE;
	}
	if (change->error) {
		int r = change->error;

		trie_abort(trie);
		return r;
	}
	return 0;
}

u32 trie_changed_root(const struct trie *trie)
{
	return trie->change->root;
}

void trie_finish(struct trie *trie)
{
	struct trie_change *change = trie->change;

	if (change->has_cell)
		__atomic_store_n(&table(trie, trie->root)[change->top], change->cell,
				 __ATOMIC_RELEASE); /* T3 */
	for (size_t i = 0; i < change->retired_n; i++)
		line_pool_retire(trie->pool, change->retired[i].line, change->retired[i].n);
	trie->root = change->root;
	end_change(trie);
}

void trie_abort(struct trie *trie)
{
	const struct made *made = &trie->change->made;

	for (u32 i = 0; i < made->room; i++)
		if (made->items[i].n)
			line_pool_give(trie->pool, made->items[i].line, made->items[i].n);
	end_change(trie);
}

/* ---- building ---- */

/* The entries of a level that cover the slot where a build is, the least specific first. */
struct nest {
	const struct item *items[FWD_LIST_MAX];
	u32 n;
};

/* What value() makes with ops->exact(). */
static u32 nest_value(struct trie *trie, const struct nest *nest)
{
	u32 list[FWD_LIST_MAX], n = 0;

	if (nest->n <= 1)
		return nest->n ? nest->items[0]->entry : 0;
	for (u32 i = nest->n; i-- > 0;) {
		list[n++] = nest->items[i]->entry;
		if (!trie->ops->ends(trie->data, nest->items[i]->entry))
			break;
	}
	return n == 1 ? list[0] : give_list(trie, list, n);
}

static void nest_leave(struct nest *nest, struct level level, u32 slot)
{
	while (nest->n && level_last_slot(level, nest->items[nest->n - 1]) < slot)
		nest->n--;
}

/* The values of the slots from `slot` up to `end`, as far as there are any. */
static void build_values(struct trie *trie, u32 *cells, struct level level, struct nest *nest,
			 u32 slot, u32 end)
{
	for (; slot < end && !trie->change->error; slot++) {
		nest_leave(nest, level, slot);
		if (!nest->n)
			return;
		cells[slot] = nest_value(trie, nest);
	}
}

static u32 build_below(struct trie *trie, u32 depth, u32 value_cell, const struct item *items,
		       size_t n);

/* All slots of a level, of items that are in order: what covers a slot comes before what is in it.
 */
static void build_slots(struct trie *trie, u32 *cells, struct level level, const struct item *items,
			size_t n)
{
	u32 slot = 0, next;
	struct nest nest = {0};
	size_t begin;

	for (size_t i = 0; i < n && !trie->change->error;) {
		next = level_slot(level, items[i].bits);
		build_values(trie, cells, level, &nest, slot, next);
		nest_leave(&nest, level, next);
		slot = next;
		if (items[i].len <= level.longest) {
			nest.items[nest.n++] = &items[i++];
			continue;
		}
		for (begin = i++; i < n && level_slot(level, items[i].bits) == slot;)
			i++;
		cells[slot] = build_below(trie, level.longest / 8, nest_value(trie, &nest),
					  &items[begin], i - begin);
		slot++;
	}
	next = 1u << (level.longest - (level.shortest ? level.shortest - 1 : 0));
	build_values(trie, cells, level, &nest, slot, next);
}

/*
 * The cell of a slot of `depth` bytes: its value and the items, all of them longer. What the first
 * and the last of them share all share, and one that ends in that would be the first.
 */
static u32 build_below(struct trie *trie, u32 depth, u32 value_cell, const struct item *items,
		       size_t n)
{
	struct node node = {.cover = value_cell};
	u32 skip_n = 0;

	if (trie->change->error)
		return 0;
	if (n == 1 && !value_cell)
		return items[0].entry;
	if (n > 1)
		skip_n = shared_bytes(&items[0], &items[n - 1], depth);
	set_skip(&node, items[0].bits, depth, skip_n);
	build_slots(trie, node.cell, node_level(depth + skip_n), items, n);
	return give_node(trie, &node);
}

static void build_table(struct trie *trie, const struct item *items, size_t n)
{
	u32 line = allocate(trie, FWD_TABLE_LINES);

	if (!line)
		return;
	memset(words(trie, line), 0, FWD_TABLE_LINES * sizeof(struct fwd_line));
	build_slots(trie, words(trie, line), table_level, items, n);
	trie->change->root = line | FWD_CELL_TABLE;
}

int trie_build(struct trie *trie, const u32 *entries, size_t n, bool with_table)
{
	_cleanup_free_ struct item *items = reallocarray(NULL, n + 1, sizeof(*items));
	struct trie_change *change = trie->change;

	assert(!change->root);
	if (!items)
		change->error = -ENOMEM;
	if (change->error)
		return change->error;
	for (size_t i = 0; i < n; i++)
		items[i] = get_item(trie, entries[i]);
	if (with_table)
		build_table(trie, items, n);
	else
		build_slots(trie, &change->root, top_level, items, n);
	return change->error;
}

/* ---- adoption ---- */

struct adoption {
	const struct trie *trie;
	void (*seen)(void *data, u32 entry);
	void *data;
};

static int adopt_list(const struct adoption *adoption, u32 line)
{
	struct line_pool *pool = adoption->trie->pool;
	const u32 *list;
	u32 n;

	if (!line_pool_claim(pool, line, 1))
		return -EUCLEAN;
	list = words(adoption->trie, line);
	for (n = 0; n <= FWD_LIST_MAX; n++) {
		if (n == FWD_LINE_WORDS && !line_pool_claim(pool, line + 1, 1))
			return -EUCLEAN;
		if (!list[n])
			break;
		if (list[n] & FWD_CELL_TABLE)
			return -EUCLEAN;
		adoption->seen(adoption->data, list[n]);
	}
	return n < 2 || n > FWD_LIST_MAX ? -EUCLEAN : 0;
}

/* What is neither a node nor a table. */
static int adopt_value(const struct adoption *adoption, u32 cell)
{
	if (cell & FWD_CELL_NODE)
		return -EUCLEAN;
	if (is_list(cell))
		return adopt_list(adoption, cell & FWD_CELL_INDEX);
	adoption->seen(adoption->data, cell);
	return 0;
}

static int adopt_cell(const struct adoption *adoption, u32 cell, u32 depth);

/* Claims a node's lines. */
static int adopt_lines(const struct adoption *adoption, u32 line, u32 *ret_cells)
{
	struct line_pool *pool = adoption->trie->pool;
	const struct fwd_node *node;
	u32 cells = 0;

	if (!line_pool_claim(pool, line, 1))
		return -EUCLEAN;
	node = packed_node(adoption->trie, line);
	for (u32 i = 0; i < ARRAY_SIZE(node->taken); i++) {
		if (i && node->rank[i] != cells)
			return -EUCLEAN;
		cells += (u32)__builtin_popcount(node->taken[i]);
	}
	if (node_lines(cells) > 1 && !line_pool_claim(pool, line + 1, node_lines(cells) - 1))
		return -EUCLEAN;
	*ret_cells = cells;
	return 0;
}

/* Each node takes a byte, so that this ends (T4). */
static int adopt_node(const struct adoption *adoption, u32 line, u32 depth)
{
	const struct fwd_node *node;
	bool runs;
	u32 cells;
	int r = adopt_lines(adoption, line, &cells);

	if (r < 0)
		return r;
	node = packed_node(adoption->trie, line);
	runs = node->rank[0] & FWD_NODE_RUNS;
	depth += packed_skip(node);
	if (!cells || node->rank[0] & ~(FWD_NODE_SKIP | FWD_NODE_RUNS) ||
	    packed_skip(node) > FWD_SKIP_MAX || depth >= adoption->trie->bits / 8 ||
	    (runs && !(node->taken[0] & 1)))
		return -EUCLEAN;
	if (node->cover)
		r = adopt_value(adoption, node->cover);
	for (u32 i = 0; r == 0 && i < cells; i++)
		if (packed_cells(node)[i] || !runs)
			r = adopt_cell(adoption, packed_cells(node)[i], depth + 1);
	return r;
}

static int adopt_cell(const struct adoption *adoption, u32 cell, u32 depth)
{
	if (!cell)
		return -EUCLEAN;
	return is_node(cell) ? adopt_node(adoption, cell & FWD_CELL_INDEX, depth)
			     : adopt_value(adoption, cell);
}

int trie_adopt(const struct trie *trie, void (*seen)(void *data, u32 entry), void *data)
{
	const struct adoption adoption = {trie, seen, data};
	int r = 0;

	if (!trie->root)
		return 0;
	if (!is_table(trie->root))
		return adopt_cell(&adoption, trie->root, 0);
	if (!line_pool_claim(trie->pool, trie->root & FWD_CELL_INDEX, FWD_TABLE_LINES))
		return -EUCLEAN;
	for (u32 top = 0; r == 0 && top < 1u << FWD_TABLE_BITS; top++) {
		u32 cell = table(trie, trie->root)[top];

		if (cell)
			r = adopt_cell(&adoption, cell, FWD_TABLE_BITS / 8);
	}
	return r;
}
