// SPDX-License-Identifier: GPL-2.0-or-later
#include "line_pool.h"

#include "grace.h"

#include <errno.h>
#include <string.h>

struct run {
	u32 line, n;
};

struct runs {
	struct run *items;
	size_t n, room;
};

/* Retired runs, in order of their tickets. */
struct limbo {
	struct retired {
		u64 ticket;
		struct run run;
	} * items;
	size_t first, n, room;
};

struct line_pool {
	struct fwd_line *lines;
	u32 capacity, used;
	u64 *taken; /* a bit a line: what is not free, so that the lists can be made anew */
	/* Free runs: by their length up to a node's, those of a table's, and all others. */
	struct runs of_length[FWD_NODE_LINES_MAX + 1], tables, extents;
	bool scattered; /* since the lists were made some runs became neighbours, or got lost */
	struct limbo limbo;
};

/* ---- lists of free runs ---- */

static struct runs *runs_of(struct line_pool *pool, u32 n)
{
	if (n <= FWD_NODE_LINES_MAX)
		return &pool->of_length[n];
	return n == FWD_TABLE_LINES ? &pool->tables : &pool->extents;
}

static int list(struct line_pool *pool, u32 line, u32 n)
{
	struct runs *runs = runs_of(pool, n);

	if (runs->n == runs->room) {
		size_t room = runs->room ? runs->room * 2 : 16;
		struct run *more = reallocarray(runs->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		runs->items = more;
		runs->room = room;
	}
	runs->items[runs->n++] = (struct run){line, n};
	return 0;
}

static void mark(struct line_pool *pool, u32 line, u32 n, bool taken)
{
	for (u32 i = line; i < line + n; i++) {
		u64 bit = 1ull << (i % 64);

		pool->taken[i / 64] =
			taken ? pool->taken[i / 64] | bit : pool->taken[i / 64] & ~bit;
	}
	pool->used = taken ? pool->used + n : pool->used - n;
}

/* The first line from `line` on that is taken, or is not; the capacity where there is none. */
static u32 next_line(const struct line_pool *pool, u32 line, bool taken)
{
	while (line < pool->capacity) {
		u64 word = taken ? pool->taken[line / 64] : ~pool->taken[line / 64];

		word >>= line % 64;
		if (word) {
			line += (u32)__builtin_ctzll(word);
			return line < pool->capacity ? line : pool->capacity;
		}
		line = (line / 64 + 1) * 64;
	}
	return pool->capacity;
}

/* Makes the lists of all that is free: neighbours become one run, lost lines are found again. */
static int list_all(struct line_pool *pool)
{
	u32 line = next_line(pool, 1, false);

	for (size_t n = 0; n < ARRAY_SIZE(pool->of_length); n++)
		pool->of_length[n].n = 0;
	pool->tables.n = pool->extents.n = 0;
	pool->scattered = false;
	while (line < pool->capacity) {
		u32 end = next_line(pool, line, true);
		int r = list(pool, line, end - line);

		if (r < 0) {
			pool->scattered = true;
			return r;
		}
		line = next_line(pool, end, false);
	}
	return 0;
}

/* Any run that is longer; a table's last, since those are hard to come by. */
static bool pop_longer(struct line_pool *pool, u32 n, struct run *ret)
{
	struct runs *runs = &pool->extents;

	for (size_t i = runs->n; i-- > 0;) {
		if (runs->items[i].n < n)
			continue;
		*ret = runs->items[i];
		runs->items[i] = runs->items[--runs->n];
		return true;
	}
	if (n > FWD_NODE_LINES_MAX)
		return false;
	for (u32 longer = n + 1; longer <= FWD_NODE_LINES_MAX + 1; longer++) {
		runs = longer <= FWD_NODE_LINES_MAX ? &pool->of_length[longer] : &pool->tables;
		if (!runs->n)
			continue;
		*ret = runs->items[--runs->n];
		return true;
	}
	return false;
}

static u32 take_listed(struct line_pool *pool, u32 n)
{
	struct runs *runs = runs_of(pool, n);
	struct run run;

	if (runs->n) {
		run = runs->items[--runs->n];
	} else {
		if (!pop_longer(pool, n, &run))
			return 0;
		if (run.n > n && list(pool, run.line + n, run.n - n) < 0)
			pool->scattered = true;
	}
	mark(pool, run.line, n, true);
	return run.line;
}

/* ---- the pool ---- */

struct line_pool *line_pool_new(struct fwd_line *lines, u32 capacity)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->taken = calloc(capacity / 64 + 1, sizeof(*pool->taken));
	if (!pool->taken)
		return NULL;
	pool->lines = lines;
	pool->capacity = capacity;
	if (list_all(pool) < 0)
		return NULL;
	return take_pointer(&pool);
}

void line_pool_free(struct line_pool *pool)
{
	if (!pool)
		return;
	for (size_t n = 0; n < ARRAY_SIZE(pool->of_length); n++)
		free(pool->of_length[n].items);
	free(pool->tables.items);
	free(pool->extents.items);
	free(pool->limbo.items);
	free(pool->taken);
	free(pool);
}

struct fwd_line *line_pool_lines(const struct line_pool *pool)
{
	return pool->lines;
}

u32 line_pool_used(const struct line_pool *pool)
{
	return pool->used;
}

u32 line_pool_end(const struct line_pool *pool)
{
	u32 line = pool->capacity;

	while (line > 1 && !(pool->taken[(line - 1) / 64] >> (line - 1) % 64 & 1))
		line--;
	return line;
}

u32 line_pool_capacity(const struct line_pool *pool)
{
	return pool->capacity;
}

void line_pool_give(struct line_pool *pool, u32 line, u32 n)
{
	mark(pool, line, n, false);
	pool->scattered = true;
	list(pool, line, n); /* where that fails list_all() finds it */
}

/* ---- runs that wait ---- */

/* Gives what waits for `ticket` or for an earlier one. */
static void give_until(struct line_pool *pool, u64 ticket)
{
	struct limbo *limbo = &pool->limbo;

	while (limbo->n && limbo->items[limbo->first].ticket <= ticket) {
		struct run run = limbo->items[limbo->first].run;

		limbo->first++;
		limbo->n--;
		line_pool_give(pool, run.line, run.n);
	}
	if (!limbo->n)
		limbo->first = 0;
}

static void give_what_is_over(struct line_pool *pool)
{
	const struct limbo *limbo = &pool->limbo;

	while (limbo->n && grace_over(limbo->items[limbo->first].ticket)) /* T2 */
		give_until(pool, limbo->items[limbo->first].ticket);
}

static bool wait_for_oldest(struct line_pool *pool)
{
	u64 ticket;

	if (!pool->limbo.n)
		return false;
	ticket = pool->limbo.items[pool->limbo.first].ticket;
	grace_wait_for(ticket);
	give_until(pool, ticket);
	return true;
}

u32 line_pool_take(struct line_pool *pool, u32 n)
{
	u32 line;

	give_what_is_over(pool);
	do {
		line = take_listed(pool, n);
		if (!line && pool->scattered) {
			list_all(pool);
			line = take_listed(pool, n);
		}
	} while (!line && wait_for_oldest(pool));
	return line;
}

static bool limbo_has_room(struct limbo *limbo)
{
	size_t room = limbo->room ? limbo->room * 2 : 64;
	struct retired *more;

	if (limbo->first + limbo->n < limbo->room)
		return true;
	if (limbo->first > limbo->room / 2) {
		memmove(limbo->items, limbo->items + limbo->first,
			limbo->n * sizeof(*limbo->items));
		limbo->first = 0;
		return true;
	}
	more = reallocarray(limbo->items, room, sizeof(*more));
	if (!more)
		return false;
	limbo->items = more;
	limbo->room = room;
	return true;
}

void line_pool_retire(struct line_pool *pool, u32 line, u32 n)
{
	struct limbo *limbo = &pool->limbo;

	if (limbo_has_room(limbo))
		limbo->items[limbo->first + limbo->n++] =
			(struct retired){grace_ticket(), {line, n}};
}

/* ---- adoption ---- */

bool line_pool_claim(struct line_pool *pool, u32 line, u32 n)
{
	if (!line || n > pool->capacity || line > pool->capacity - n ||
	    next_line(pool, line, true) < line + n)
		return false;
	mark(pool, line, n, true);
	return true;
}

int line_pool_claimed(struct line_pool *pool)
{
	return list_all(pool);
}
