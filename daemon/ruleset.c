// SPDX-License-Identifier: GPL-2.0-or-later
#include "ruleset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* 6 KiB a block: an insert moves half of that on average, the directory of a million has 16,000. */
#define BLOCK_RULES 128

struct block {
	_Atomic u32 references; /* the sets that have it */
	u32 n;			/* at least 1 */
	struct rule rules[BLOCK_RULES];
};

struct ruleset {
	struct block **blocks;
	size_t n_blocks, room; /* of the directory */
	size_t n_rules;
	struct block **spare; /* reserved for splits and copies; nothing in them is set */
	size_t n_spare, spare_room;
};

/* ---- references ---- */

/*
 * A new reference is made from one that its maker has, so that nothing has to be ordered. The last
 * one to go, or the last one left, has to see all that was done through the others.
 */
static void reference(_Atomic u32 *references, u32 n)
{
	atomic_fetch_add_explicit(references, n, memory_order_relaxed);
}

/* True if those were the last ones. */
static bool unreference(_Atomic u32 *references, u32 n)
{
	return atomic_fetch_sub_explicit(references, n, memory_order_acq_rel) == n;
}

static bool is_shared(const struct block *block)
{
	return atomic_load_explicit(&block->references, memory_order_acquire) > 1;
}

struct comment *comment_new(const char *text)
{
	size_t size = strlen(text) + 1;
	struct comment *comment = malloc(sizeof(*comment) + size);

	if (!comment)
		return NULL;
	atomic_init(&comment->references, 1);
	memcpy(comment->text, text, size);
	return comment;
}

struct comment *comment_ref(struct comment *comment)
{
	if (comment)
		reference(&comment->references, 1);
	return comment;
}

void comment_unref(struct comment *comment)
{
	if (comment && unreference(&comment->references, 1))
		free(comment);
}

/* ---- blocks ---- */

static void block_init(struct block *block)
{
	atomic_init(&block->references, 1);
	block->n = 0;
}

/* How many rules from `i` on have the same comment: bulk changes give theirs to all of their rules.
 */
static u32 same_comments(const struct block *block, u32 i)
{
	u32 n = 1;

	while (i + n < block->n && block->rules[i + n].comment == block->rules[i].comment)
		n++;
	return n;
}

static void ref_comments(struct block *block)
{
	for (u32 i = 0, n; i < block->n; i += n) {
		n = same_comments(block, i);
		if (block->rules[i].comment)
			reference(&block->rules[i].comment->references, n);
	}
}

static void block_unref(struct block *block)
{
	if (!unreference(&block->references, 1))
		return;
	for (u32 i = 0, n; i < block->n; i += n) {
		struct comment *comment = block->rules[i].comment;

		n = same_comments(block, i);
		if (comment && unreference(&comment->references, n))
			free(comment);
	}
	free(block);
}

/* ---- sets ---- */

struct ruleset *ruleset_new(void)
{
	return calloc(1, sizeof(struct ruleset));
}

void ruleset_free(struct ruleset *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->n_blocks; i++)
		block_unref(set->blocks[i]);
	ruleset_release_reserve(set);
	free(set->blocks);
	free(set);
}

struct ruleset *ruleset_clone(const struct ruleset *set)
{
	_cleanup_(ruleset_freep) struct ruleset *clone = ruleset_new();

	if (!clone || !set->n_blocks)
		return take_pointer(&clone);
	clone->blocks = calloc(set->n_blocks, sizeof(clone->blocks[0]));
	if (!clone->blocks)
		return NULL;
	for (size_t i = 0; i < set->n_blocks; i++) {
		reference(&set->blocks[i]->references, 1);
		clone->blocks[i] = set->blocks[i];
	}
	clone->n_blocks = clone->room = set->n_blocks;
	clone->n_rules = set->n_rules;
	return take_pointer(&clone);
}

size_t ruleset_size(const struct ruleset *set)
{
	return set->n_rules;
}

size_t ruleset_bytes(const struct ruleset *set)
{
	return sizeof(*set) + (set->n_blocks + set->n_spare) * sizeof(struct block) +
	       (set->room + set->spare_room) * sizeof(struct block *);
}

/* The last block that begins at or before `prefix`; 0 where there is none. */
static size_t find_block(const struct ruleset *set, const struct prefix *prefix)
{
	size_t low = 0, high = set->n_blocks;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&set->blocks[middle]->rules[0].prefix, prefix) <= 0)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The first rule of the block that is `prefix` or behind it; block->n where there is none. */
static size_t find_in_block(const struct block *block, const struct prefix *prefix)
{
	size_t low = 0, high = block->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&block->rules[middle].prefix, prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Where a rule of the prefix is, or else belongs; false: it is not there. */
static bool locate(const struct ruleset *set, const struct prefix *prefix, size_t *ret_at,
		   size_t *ret_index)
{
	const struct block *block;

	*ret_at = find_block(set, prefix);
	*ret_index = 0;
	if (!set->n_blocks)
		return false;
	block = set->blocks[*ret_at];
	*ret_index = find_in_block(block, prefix);
	return *ret_index < block->n && prefix_equal(&block->rules[*ret_index].prefix, prefix);
}

const struct rule *ruleset_find(const struct ruleset *set, const struct prefix *prefix)
{
	size_t at, i;

	return locate(set, prefix, &at, &i) ? &set->blocks[at]->rules[i] : NULL;
}

/* ---- memory for changes ---- */

/* Blocks for so many splits, with their places in the directory, and for so many copies. */
static int reserve(struct ruleset *set, size_t splits, size_t copies)
{
	struct block **grown;

	if (set->n_blocks + splits > set->room) {
		size_t room = set->n_blocks + splits + set->room / 2;

		grown = reallocarray(set->blocks, room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		set->blocks = grown;
		set->room = room;
	}
	if (splits + copies > set->spare_room) {
		grown = reallocarray(set->spare, splits + copies, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		set->spare = grown;
		set->spare_room = splits + copies;
	}
	while (set->n_spare < splits + copies) {
		struct block *block = malloc(sizeof(*block));

		if (!block)
			return -ENOMEM;
		set->spare[set->n_spare++] = block;
	}
	return 0;
}

/* The most that `n` changes can have to copy, each one block. */
static size_t count_copies(const struct ruleset *set, size_t n)
{
	size_t shared = 0;

	/* For a few changes it costs less to allocate than to look at every block. */
	if (n < set->n_blocks / 64)
		return n;
	for (size_t i = 0; i < set->n_blocks && shared < n; i++)
		shared += is_shared(set->blocks[i]);
	return shared;
}

int ruleset_reserve(struct ruleset *set, size_t n)
{
	/*
	 * At worst each block that is there splits, and each new one once it is full again. One
	 * that a remove empties is a spare one again, so removes in between need no more.
	 */
	size_t splits = (n < set->n_blocks ? n : set->n_blocks) + n / (BLOCK_RULES / 2) + 1;

	return reserve(set, splits, count_copies(set, n));
}

int ruleset_reserve_removes(struct ruleset *set, size_t n)
{
	return reserve(set, 0, count_copies(set, n));
}

void ruleset_release_reserve(struct ruleset *set)
{
	while (set->n_spare)
		free(set->spare[--set->n_spare]);
	free(set->spare);
	set->spare = NULL;
	set->spare_room = 0;
}

/* Memory to write the block at `at`, and with `adds` to put one more rule into it. */
static int make_room(struct ruleset *set, size_t at, bool adds)
{
	size_t splits = adds && (!set->n_blocks || set->blocks[at]->n == BLOCK_RULES);
	size_t copies = set->n_blocks && is_shared(set->blocks[at]);

	if (set->n_spare >= splits + copies && set->n_blocks + splits <= set->room)
		return 0;
	return reserve(set, splits, copies);
}

static struct block *take_spare(struct ruleset *set)
{
	struct block *block = set->spare[--set->n_spare];

	block_init(block);
	return block;
}

/* R1: the block at `at`, for the set to write; there is room for a copy. */
static struct block *own_block(struct ruleset *set, size_t at)
{
	struct block *shared = set->blocks[at], *block;

	if (!is_shared(shared))
		return shared; /* and stays so: R2 */
	block = take_spare(set);
	block->n = shared->n;
	memcpy(block->rules, shared->rules, shared->n * sizeof(block->rules[0]));
	ref_comments(block); /* R3 */
	block_unref(shared);
	set->blocks[at] = block;
	return block;
}

/* Puts a spare block into the directory at `at`. */
static struct block *insert_block(struct ruleset *set, size_t at)
{
	struct block *block = take_spare(set);

	memmove(&set->blocks[at + 1], &set->blocks[at],
		(set->n_blocks - at) * sizeof(set->blocks[0]));
	set->blocks[at] = block;
	set->n_blocks++;
	return block;
}

/* Takes a block of one rule out of the directory. What was reserved for the set stays with it. */
static void remove_block(struct ruleset *set, size_t at)
{
	struct block *block = set->blocks[at];

	if (set->n_spare < set->spare_room && !is_shared(block)) {
		comment_unref(block->rules[0].comment);
		set->spare[set->n_spare++] = block;
	} else {
		block_unref(block);
	}
	set->n_blocks--;
	memmove(&set->blocks[at], &set->blocks[at + 1],
		(set->n_blocks - at) * sizeof(set->blocks[0]));
}

/* ---- changes of one rule ---- */

/* Makes room in a full block by moving its end to a new one behind it. */
static void split(struct ruleset *set, size_t at, bool appending)
{
	/* Rules that come in order fill their blocks. */
	u32 keep = appending ? BLOCK_RULES - 1 : BLOCK_RULES / 2;
	struct block *from = set->blocks[at];
	struct block *to = insert_block(set, at + 1);

	to->n = from->n - keep;
	memcpy(to->rules, &from->rules[keep], to->n * sizeof(to->rules[0]));
	from->n = keep;
}

/* Puts a new rule at `i` of the block at `at`; there is room. */
static void insert(struct ruleset *set, size_t at, size_t i, const struct rule *rule)
{
	struct block *block = set->n_blocks ? own_block(set, at) : insert_block(set, 0);

	if (block->n == BLOCK_RULES) {
		split(set, at, i == block->n && at + 1 == set->n_blocks);
		if (i > block->n) {
			i -= block->n;
			block = set->blocks[at + 1];
		}
	}
	memmove(&block->rules[i + 1], &block->rules[i], (block->n - i) * sizeof(*rule));
	block->rules[i] = *rule;
	block->n++;
	set->n_rules++;
}

int ruleset_put(struct ruleset *set, const struct rule *rule)
{
	size_t at, i;
	bool there = locate(set, &rule->prefix, &at, &i);

	if (make_room(set, at, !there) < 0)
		return -ENOMEM;
	comment_ref(rule->comment); /* R3 */
	if (there) {
		struct block *block = own_block(set, at);

		comment_unref(block->rules[i].comment);
		block->rules[i] = *rule;
	} else {
		insert(set, at, i, rule);
	}
	return 0;
}

int ruleset_remove(struct ruleset *set, const struct prefix *prefix)
{
	struct block *block;
	size_t at, i;

	if (!locate(set, prefix, &at, &i))
		return 0;
	if (set->blocks[at]->n == 1) {
		remove_block(set, at);
	} else {
		if (make_room(set, at, false) < 0)
			return -ENOMEM;
		block = own_block(set, at);
		comment_unref(block->rules[i].comment);
		block->n--;
		memmove(&block->rules[i], &block->rules[i + 1],
			(block->n - i) * sizeof(block->rules[0]));
	}
	set->n_rules--;
	return 0;
}

int ruleset_keep_created(struct ruleset *set, const struct ruleset *old)
{
	struct ruleset_cursor to = ruleset_seek(set, NULL), from = ruleset_seek(old, NULL);
	const struct rule *rule, *kept;

	while ((rule = ruleset_at(&to)) && (kept = ruleset_at(&from))) {
		int order = prefix_compare(&rule->prefix, &kept->prefix);

		if (!order && rule->created_s != kept->created_s) {
			if (make_room(set, to.block, false) < 0)
				return -ENOMEM;
			own_block(set, to.block)->rules[to.index].created_s = kept->created_s;
		}
		if (order <= 0)
			ruleset_next(&to);
		if (order >= 0)
			ruleset_next(&from);
	}
	return 0;
}

/* ---- changes of many ---- */

struct block_list {
	struct block **items;
	size_t n;
};

/*
 * A directory made beside the one that is there, with new blocks in the place of those that
 * changes fall into. Until all of them are made, nothing has happened, nor have they references.
 */
struct merge {
	const struct rule *puts; /* NULL: they are removes */
	const struct prefix *removes;
	size_t next, n; /* changes that are left */

	struct block_list blocks; /* the directory */
	struct block_list made;	  /* those of them that are new */
	struct block_list left;	  /* those whose place they take */
	size_t n_made, n_left;	  /* rules in them */
};

static const struct prefix *change_at(const struct merge *merge, size_t i)
{
	return merge->puts ? &merge->puts[i].prefix : &merge->removes[i];
}

/* The first change that is left at `prefix` or behind it. */
static size_t find_change(const struct merge *merge, const struct prefix *prefix)
{
	size_t low = merge->next, high = merge->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(change_at(merge, middle), prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The number `i` from the end of the directory, if it is a new block. */
static struct block *made_block(const struct merge *merge, size_t i)
{
	const struct block_list *blocks = &merge->blocks, *made = &merge->made;

	if (made->n <= i || blocks->items[blocks->n - 1 - i] != made->items[made->n - 1 - i])
		return NULL;
	return made->items[made->n - 1 - i];
}

static int emit(struct merge *merge, const struct rule *rule)
{
	struct block *block = made_block(merge, 0);

	if (!block || block->n == BLOCK_RULES) {
		block = malloc(sizeof(*block));
		if (!block)
			return -ENOMEM;
		block_init(block);
		merge->blocks.items[merge->blocks.n++] = block;
		merge->made.items[merge->made.n++] = block;
	}
	block->rules[block->n++] = *rule;
	merge->n_made++;
	return 0;
}

/* A new block of few rules in the middle of the set gets half of those of the one before it. */
static void balance(struct merge *merge)
{
	struct block *last = made_block(merge, 0), *before = made_block(merge, 1);
	u32 moved;

	if (!last || !before || last->n >= BLOCK_RULES / 2)
		return;
	moved = (before->n - last->n) / 2;
	memmove(&last->rules[moved], last->rules, last->n * sizeof(last->rules[0]));
	memcpy(last->rules, &before->rules[before->n - moved], moved * sizeof(last->rules[0]));
	last->n += moved;
	before->n -= moved;
}

/* Blocks that no change falls into. */
static void keep_blocks(struct merge *merge, struct block **blocks, size_t n)
{
	balance(merge);
	memcpy(&merge->blocks.items[merge->blocks.n], blocks, n * sizeof(*blocks));
	merge->blocks.n += n;
}

/* The rules of a block, NULL for none, with the changes up to `end`. */
static int merge_block(struct merge *merge, struct block *old, size_t end)
{
	size_t i = 0, n = old ? old->n : 0;
	int r = 0;

	while (!r && (i < n || merge->next < end)) {
		size_t next = merge->next;
		int order = next == end ? -1
			    : i == n
				    ? 1
				    : prefix_compare(&old->rules[i].prefix, change_at(merge, next));

		if (order < 0) {
			r = emit(merge, &old->rules[i++]);
			continue;
		}
		merge->next++;
		if (next + 1 < end &&
		    prefix_equal(change_at(merge, next), change_at(merge, next + 1)))
			continue; /* the last one counts */
		if (merge->puts)
			r = emit(merge, &merge->puts[next]);
		i += !order;
	}
	if (!r && old) {
		merge->left.items[merge->left.n++] = old;
		merge->n_left += old->n;
	}
	return r;
}

static int merge_all(struct merge *merge, const struct ruleset *set)
{
	size_t done = 0;
	int r = 0;

	while (!r && merge->next < merge->n) {
		size_t at = find_block(set, change_at(merge, merge->next)), end = merge->n;

		if (at > done)
			keep_blocks(merge, &set->blocks[done], at - done);
		if (at + 1 < set->n_blocks)
			end = find_change(merge, &set->blocks[at + 1]->rules[0].prefix);
		r = merge_block(merge, set->n_blocks ? set->blocks[at] : NULL, end);
		done = at + 1;
	}
	if (!r && done < set->n_blocks)
		keep_blocks(merge, &set->blocks[done], set->n_blocks - done);
	return r;
}

static int merge_into(struct ruleset *set, struct merge *merge)
{
	/* Each change may touch another block, and at the end of each row of those one is begun. */
	size_t touched = merge->n < set->n_blocks ? merge->n : set->n_blocks;
	size_t more = touched + merge->n / BLOCK_RULES + 1, room = set->n_blocks + more;
	_cleanup_free_ struct block **blocks = calloc(room, sizeof(*blocks));
	_cleanup_free_ struct block **made = calloc(touched + more, sizeof(*made));
	_cleanup_free_ struct block **left = calloc(touched + 1, sizeof(*left));

	if (!blocks || !made || !left)
		return -ENOMEM;
	merge->blocks.items = blocks;
	merge->made.items = made;
	merge->left.items = left;
	if (merge_all(merge, set) < 0) {
		for (size_t i = 0; i < merge->made.n; i++)
			free(made[i]);
		return -ENOMEM;
	}
	for (size_t i = 0; i < merge->made.n; i++)
		ref_comments(made[i]); /* R3 */
	for (size_t i = 0; i < merge->left.n; i++)
		block_unref(left[i]);
	free(set->blocks);
	set->blocks = take_pointer(&blocks);
	set->n_blocks = merge->blocks.n;
	set->room = room;
	set->n_rules = set->n_rules - merge->n_left + merge->n_made;
	return 0;
}

int ruleset_put_sorted(struct ruleset *set, const struct rule *rules, size_t n)
{
	struct merge merge = {.puts = rules, .n = n};

	return n ? merge_into(set, &merge) : 0;
}

int ruleset_remove_sorted(struct ruleset *set, const struct prefix *prefixes, size_t n)
{
	struct merge merge = {.removes = prefixes, .n = n};

	return n ? merge_into(set, &merge) : 0;
}

/* ---- reading in order ---- */

struct ruleset_cursor ruleset_seek(const struct ruleset *set, const struct prefix *from)
{
	struct ruleset_cursor cursor = {.set = set};

	if (!from || !set->n_blocks)
		return cursor;
	cursor.block = find_block(set, from);
	cursor.index = find_in_block(set->blocks[cursor.block], from);
	if (cursor.index == set->blocks[cursor.block]->n) {
		cursor.block++;
		cursor.index = 0;
	}
	return cursor;
}

const struct rule *ruleset_at(const struct ruleset_cursor *cursor)
{
	if (cursor->block >= cursor->set->n_blocks)
		return NULL;
	return &cursor->set->blocks[cursor->block]->rules[cursor->index];
}

void ruleset_next(struct ruleset_cursor *cursor)
{
	if (cursor->block >= cursor->set->n_blocks)
		return;
	if (++cursor->index == cursor->set->blocks[cursor->block]->n) {
		cursor->block++;
		cursor->index = 0;
	}
}
