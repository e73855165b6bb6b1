// SPDX-License-Identifier: GPL-2.0-or-later
#include "trie_compare.h"

#include "cleanup.h"

#include <errno.h>
#include <string.h>

struct comparison {
	const struct trie_memory *seen, *model;
	int family;
	u64 budget; /* of cells; there are no more in the memory (Q1) */
	trie_found found;
	void *data;
};

/* The first `len` bits of an address; all others are zero. */
struct place {
	struct fwd_bits bits;
	u32 len;
};

/* ---- reading, within bounds, what may change meanwhile ---- */

static u32 word(const struct trie_memory *memory, u32 line, u32 i)
{
	line += i / FWD_LINE_WORDS;
	if (line >= memory->n_lines)
		return 0;
	return __atomic_load_n(&memory->lines[line].word[i % FWD_LINE_WORDS], __ATOMIC_RELAXED);
}

static void read_node(const struct trie_memory *memory, u32 cell, struct fwd_node *ret)
{
	u32 words[FWD_LINE_WORDS];

	for (u32 i = 0; i < FWD_LINE_WORDS; i++)
		words[i] = word(memory, cell & FWD_CELL_INDEX, i);
	memcpy(ret, words, sizeof(*ret));
}

static u32 count_cells(const struct fwd_node *node)
{
	u32 n = 0;

	for (u32 i = 0; i < ARRAY_SIZE(node->taken); i++)
		n += (u32)__builtin_popcount(node->taken[i]);
	return n;
}

static u32 node_cell(const struct trie_memory *memory, u32 cell, u32 i)
{
	return word(memory, cell & FWD_CELL_INDEX, FWD_NODE_HEAD_WORDS + i);
}

static bool is_table(u32 cell)
{
	return (cell & FWD_CELL_TABLE) == FWD_CELL_TABLE;
}

/* ---- what is the same ---- */

static bool same_entry(const struct comparison *c, u32 seen, u32 model)
{
	const struct fwd_entry *a = trie_entry(c->seen, c->family, seen);
	const struct fwd_entry *b = trie_entry(c->model, c->family, model);
	const struct fwd_entry6 *a6 = (const struct fwd_entry6 *)a;
	const struct fwd_entry6 *b6 = (const struct fwd_entry6 *)b;

	if (!seen || !a || __atomic_load_n(&a->about, __ATOMIC_RELAXED) != b->about)
		return false;
	if (c->family == FWD_IPV4)
		return a->addr == b->addr;
	return !memcmp(a6->addr, b6->addr, sizeof(a6->addr)) &&
	       !memcmp(a6->mask, b6->mask, sizeof(a6->mask));
}

static bool same_list(const struct comparison *c, u32 seen, u32 model)
{
	for (u32 i = 0; i <= FWD_LIST_MAX; i++) {
		u32 a = word(c->seen, seen & FWD_CELL_INDEX, i);
		u32 b = word(c->model, model & FWD_CELL_INDEX, i);

		if (!a || !b)
			return a == b;
		if (!same_entry(c, a, b))
			return false;
	}
	return false;
}

/* Of cells that are no node in the model: nothing, an entry or a list. */
static bool same_value(const struct comparison *c, u32 seen, u32 model)
{
	if (!model || (seen & FWD_CELL_TABLE) != (model & FWD_CELL_TABLE))
		return seen == model;
	return model & FWD_CELL_LIST ? same_list(c, seen, model) : same_entry(c, seen, model);
}

/* ---- naming what differs ---- */

struct numbers {
	u32 *items;
	size_t n, room;
};

static int add_number(struct numbers *numbers, u32 number)
{
	if (numbers->n == numbers->room) {
		size_t room = numbers->room ? numbers->room * 2 : 64;
		u32 *more = reallocarray(numbers->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		numbers->items = more;
		numbers->room = room;
	}
	numbers->items[numbers->n++] = number;
	return 0;
}

/* The entries that can be reached from a cell, some of them several times. */
static int collect(struct comparison *c, const struct trie_memory *memory, u32 cell, u32 steps,
		   struct numbers *ret)
{
	struct fwd_node node;
	u32 n;
	int r = 0;

	if (!cell || !c->budget)
		return 0;
	c->budget--;
	if (cell & FWD_CELL_NODE) {
		if (!steps)
			return 0;
		read_node(memory, cell, &node);
		n = count_cells(&node);
		if (!(node.cover & FWD_CELL_NODE))
			r = collect(c, memory, node.cover, 0, ret);
		for (u32 i = 0; !r && i < n; i++)
			r = collect(c, memory, node_cell(memory, cell, i), steps - 1, ret);
		return r;
	}
	if (!(cell & FWD_CELL_LIST))
		return add_number(ret, cell);
	for (u32 i = 0; !r && i < FWD_LIST_MAX; i++) {
		n = word(memory, cell & FWD_CELL_INDEX, i);
		if (!n)
			break;
		r = add_number(ret, n);
	}
	return r;
}

static int collect_root(struct comparison *c, const struct trie_memory *memory, u32 cell, u32 steps,
			struct numbers *ret)
{
	int r = 0;

	if (!is_table(cell))
		return collect(c, memory, cell, steps, ret);
	for (u32 i = 0; !r && i < 1u << FWD_TABLE_BITS; i++)
		r = collect(c, memory, word(memory, cell & FWD_CELL_INDEX, i), steps, ret);
	return r;
}

struct key {
	struct place place;
	u64 about;
};

static int compare_numbers(const void *a, const void *b)
{
	const u32 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int compare_keys(const void *a, const void *b)
{
	const struct place *x = &((const struct key *)a)->place;
	const struct place *y = &((const struct key *)b)->place;

	if (x->bits.high != y->bits.high)
		return x->bits.high < y->bits.high ? -1 : 1;
	if (x->bits.low != y->bits.low)
		return x->bits.low < y->bits.low ? -1 : 1;
	return x->len < y->len ? -1 : x->len > y->len;
}

/* False: there is no such entry, or it has no prefix. */
static bool read_key(const struct comparison *c, const struct trie_memory *memory, u32 number,
		     struct key *ret)
{
	const struct fwd_entry *entry = trie_entry(memory, c->family, number);
	const struct fwd_entry6 *entry6 = (const struct fwd_entry6 *)entry;

	if (!number || !entry)
		return false;
	ret->about = __atomic_load_n(&entry->about, __ATOMIC_RELAXED);
	ret->place.len = FWD_ABOUT_LEN(ret->about);
	ret->place.bits = (struct fwd_bits){.high = (u64)entry->addr << 32};
	if (c->family == FWD_IPV6)
		ret->place.bits = (struct fwd_bits){entry6->addr[0], entry6->addr[1]};
	return ret->place.len <= (c->family == FWD_IPV4 ? 32 : 128);
}

/* The keys of the entries below a cell, in order, each entry once. The caller frees *ret. */
static int read_keys(struct comparison *c, const struct trie_memory *memory, u32 cell,
		     struct key **ret, size_t *ret_n)
{
	struct numbers numbers = {0};
	struct key *keys = NULL;
	size_t n = 0;
	int r = collect_root(c, memory, cell, c->family == FWD_IPV4 ? FWD_STEPS4 : FWD_STEPS6,
			     &numbers);

	if (!r && numbers.n)
		qsort(numbers.items, numbers.n, sizeof(*numbers.items), compare_numbers);
	if (!r)
		keys = calloc(numbers.n + 1, sizeof(*keys));
	for (size_t i = 0; keys && i < numbers.n; i++)
		if (!i || numbers.items[i] != numbers.items[i - 1])
			n += read_key(c, memory, numbers.items[i], &keys[n]);
	free(numbers.items);
	if (!keys)
		return -ENOMEM;
	qsort(keys, n, sizeof(*keys), compare_keys);
	*ret = keys;
	*ret_n = n;
	return 0;
}

static int tell(const struct comparison *c, enum trie_fault fault, const struct place *place)
{
	return c->found(c->data, fault, place->bits, place->len);
}

/* All that lies below two cells that differ. */
static int tell_difference(struct comparison *c, u32 seen, u32 model, const struct place *at)
{
	_cleanup_free_ struct key *a = NULL, *b = NULL;
	size_t n_a, n_b, i = 0, j = 0;
	bool told = false;
	int r = read_keys(c, c->seen, seen, &a, &n_a);

	if (!r)
		r = read_keys(c, c->model, model, &b, &n_b);
	while (!r && (i < n_a || j < n_b)) {
		int order = i == n_a ? 1 : j == n_b ? -1 : compare_keys(&a[i], &b[j]);
		bool same = !order && FWD_ABOUT_END(a[i].about) == FWD_ABOUT_END(b[j].about);

		if (!same)
			r = tell(c,
				 order < 0   ? TRIE_UNWANTED
				 : order > 0 ? TRIE_MISSING
					     : TRIE_OTHER_END,
				 order < 0 ? &a[i].place : &b[j].place);
		told |= !same;
		i += order <= 0;
		j += order >= 0;
	}
	return r || told ? r : tell(c, TRIE_GARBLED, at);
}

/* ---- the walk ---- */

/* Bits behind those of a place: the first `n` of `bits`, whose first one is on top. */
static struct place below(const struct place *place, u32 bits, u32 n)
{
	struct place ret = {place->bits, place->len + n};
	u64 top = n ? (u64)(bits >> (32 - n) << (32 - n)) << 32 : 0;
	u32 at = place->len;

	if (at < 64) {
		ret.bits.high |= top >> at;
		ret.bits.low |= at ? top << (64 - at) : 0;
	} else {
		ret.bits.low |= top >> (at - 64);
	}
	return ret;
}

static int compare_cell(struct comparison *c, u32 seen, u32 model, const struct place *at);

static bool same_head(const struct comparison *c, const struct fwd_node *seen,
		      const struct fwd_node *model)
{
	return !memcmp(seen->taken, model->taken, sizeof(seen->taken)) &&
	       !memcmp(seen->rank, model->rank, sizeof(seen->rank)) && seen->skip == model->skip &&
	       same_value(c, seen->cover, model->cover);
}

static int compare_node(struct comparison *c, u32 seen, u32 model, const struct place *at)
{
	struct fwd_node a, b;
	struct place slots;
	u32 cell = 0;
	int r = 0;

	read_node(c->seen, seen, &a);
	read_node(c->model, model, &b);
	if (!same_head(c, &a, &b))
		return tell_difference(c, seen, model, at);
	slots = below(at, b.skip, (b.rank[0] & FWD_NODE_SKIP) * 8);
	for (u32 slot = 0; !r && slot < FWD_SLOTS; slot++) {
		struct place next;

		if (!(b.taken[slot / 32] >> slot % 32 & 1))
			continue;
		next = below(&slots, slot << 24, 8);
		r = compare_cell(c, node_cell(c->seen, seen, cell),
				 node_cell(c->model, model, cell), &next);
		cell++;
	}
	return r;
}

static int compare_cell(struct comparison *c, u32 seen, u32 model, const struct place *at)
{
	u32 kind = model & FWD_CELL_TABLE;

	if (kind == FWD_CELL_NODE && (seen & FWD_CELL_TABLE) == kind)
		return compare_node(c, seen, model, at);
	if (kind != FWD_CELL_NODE && same_value(c, seen, model))
		return 0;
	return tell_difference(c, seen, model, at);
}

int trie_compare(const struct trie_memory *seen, u32 seen_root, const struct trie_memory *model,
		 u32 model_root, int family, trie_found found, void *data)
{
	struct comparison c = {
		.seen = seen,
		.model = model,
		.family = family,
		.budget = ((u64)seen->n_lines + model->n_lines + 1) * FWD_LINE_WORDS,
		.found = found,
		.data = data,
	};
	struct place at = {0};
	int r = 0;

	if (!is_table(model_root) || !is_table(seen_root))
		return compare_cell(&c, seen_root, model_root, &at);
	for (u32 top = 0; !r && top < 1u << FWD_TABLE_BITS; top++) {
		at = (struct place){{.high = (u64)top << (64 - FWD_TABLE_BITS)}, FWD_TABLE_BITS};
		r = compare_cell(&c, word(seen, seen_root & FWD_CELL_INDEX, top),
				 word(model, model_root & FWD_CELL_INDEX, top), &at);
	}
	return r;
}
