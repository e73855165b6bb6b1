// SPDX-License-Identifier: GPL-2.0-or-later
#include "ruleset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* 6 KiB a block: an insert moves half of that on average, the directory of a million has 16,000. */
#define BLOCK_RULES 128

struct block {
	size_t n; /* at least 1 */
	struct rule rules[BLOCK_RULES];
};

struct ruleset {
	struct block **blocks;
	size_t n_blocks, room; /* of the directory */
	size_t n_rules;
	struct block **spare; /* reserved for splits */
	size_t n_spare;
};

struct ruleset *ruleset_new(void)
{
	return calloc(1, sizeof(struct ruleset));
}

void ruleset_free(struct ruleset *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->n_blocks; i++) {
		for (size_t j = 0; j < set->blocks[i]->n; j++)
			free(set->blocks[i]->rules[j].comment);
		free(set->blocks[i]);
	}
	for (size_t i = 0; i < set->n_spare; i++)
		free(set->spare[i]);
	free(set->blocks);
	free(set->spare);
	free(set);
}

size_t ruleset_size(const struct ruleset *set)
{
	return set->n_rules;
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

static struct rule *find(const struct ruleset *set, const struct prefix *prefix)
{
	struct block *block;
	size_t i;

	if (!set->n_blocks)
		return NULL;
	block = set->blocks[find_block(set, prefix)];
	i = find_in_block(block, prefix);
	if (i == block->n || !prefix_equal(&block->rules[i].prefix, prefix))
		return NULL;
	return &block->rules[i];
}

const struct rule *ruleset_find(const struct ruleset *set, const struct prefix *prefix)
{
	return find(set, prefix);
}

int ruleset_reserve(struct ruleset *set, size_t n)
{
	/* At worst each block that is there splits, and each new one once it is full again. */
	size_t splits = (n < set->n_blocks ? n : set->n_blocks) + n / (BLOCK_RULES / 2) + 1;
	struct block **grown;

	if (set->n_blocks + splits > set->room) {
		size_t room = set->n_blocks + splits + set->room / 2;

		grown = reallocarray(set->blocks, room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		set->blocks = grown;
		set->room = room;
	}
	if (set->n_spare >= splits)
		return 0;
	grown = reallocarray(set->spare, splits, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	set->spare = grown;
	while (set->n_spare < splits) {
		struct block *block = malloc(sizeof(*block));

		if (!block)
			return -ENOMEM;
		set->spare[set->n_spare++] = block;
	}
	return 0;
}

void ruleset_release_reserve(struct ruleset *set)
{
	while (set->n_spare)
		free(set->spare[--set->n_spare]);
}

/* Puts a spare block into the directory at `at`. */
static struct block *insert_block(struct ruleset *set, size_t at)
{
	struct block *block = set->spare[--set->n_spare];

	memmove(&set->blocks[at + 1], &set->blocks[at],
		(set->n_blocks - at) * sizeof(set->blocks[0]));
	set->blocks[at] = block;
	set->n_blocks++;
	block->n = 0;
	return block;
}

/* Makes room in a full block by moving its end to a new one behind it. */
static void split(struct ruleset *set, size_t at, bool appending)
{
	/* Rules that come in order fill their blocks. */
	size_t keep = appending ? BLOCK_RULES - 1 : BLOCK_RULES / 2;
	struct block *from = set->blocks[at];
	struct block *to = insert_block(set, at + 1);

	to->n = from->n - keep;
	memcpy(to->rules, &from->rules[keep], to->n * sizeof(to->rules[0]));
	from->n = keep;
}

/* True if a rule that goes to the block at `at` makes another one. */
static bool needs_block(const struct ruleset *set, size_t at)
{
	return !set->n_blocks || set->blocks[at]->n == BLOCK_RULES;
}

int ruleset_put(struct ruleset *set, const struct rule *rule)
{
	struct rule *old = find(set, &rule->prefix);
	struct block *block;
	size_t at, i;

	if (old) {
		if (old->comment != rule->comment)
			free(old->comment);
		*old = *rule;
		return 0;
	}
	at = find_block(set, &rule->prefix);
	if (needs_block(set, at) && (!set->n_spare || set->n_blocks == set->room) &&
	    ruleset_reserve(set, 1) < 0)
		return -ENOMEM;
	if (!set->n_blocks)
		insert_block(set, 0);
	block = set->blocks[at];
	i = find_in_block(block, &rule->prefix);
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
	return 0;
}

static void remove_block(struct ruleset *set, size_t at)
{
	free(set->blocks[at]);
	set->n_blocks--;
	memmove(&set->blocks[at], &set->blocks[at + 1],
		(set->n_blocks - at) * sizeof(set->blocks[0]));
}

bool ruleset_remove(struct ruleset *set, const struct prefix *prefix)
{
	struct rule *rule = find(set, prefix);
	struct block *block;
	size_t at, i;

	if (!rule)
		return false;
	at = find_block(set, prefix);
	block = set->blocks[at];
	i = (size_t)(rule - block->rules);
	free(rule->comment);
	block->n--;
	memmove(rule, rule + 1, (block->n - i) * sizeof(*rule));
	if (!block->n)
		remove_block(set, at);
	set->n_rules--;
	return true;
}

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

void ruleset_keep_created(struct ruleset *set, const struct ruleset *old)
{
	struct ruleset_cursor to = ruleset_seek(set, NULL), from = ruleset_seek(old, NULL);
	const struct rule *rule, *kept;

	while ((rule = ruleset_at(&to)) && (kept = ruleset_at(&from))) {
		int order = prefix_compare(&rule->prefix, &kept->prefix);

		if (!order)
			set->blocks[to.block]->rules[to.index].created_s = kept->created_s;
		if (order <= 0)
			ruleset_next(&to);
		if (order >= 0)
			ruleset_next(&from);
	}
}
