// SPDX-License-Identifier: GPL-2.0-or-later
#include "line_pool.h"

#include "fake_grace.h"
#include "random.h"

#include <criterion/criterion.h>

static u32 take(struct line_pool *pool, u32 n)
{
	u32 line = line_pool_take(pool, n);

	cr_assert_neq(line, 0, "no run of %u", n);
	cr_assert_leq(line + n, line_pool_capacity(pool));
	return line;
}

static void take_singles(struct line_pool *pool, u32 n)
{
	for (u32 i = 0; i < n; i++)
		take(pool, 1);
}

/* ---- runs ---- */

Test(line_pool, gives_all_lines_but_line_0)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 100);

	take_singles(pool, 99);
	cr_assert_eq(line_pool_used(pool), 99);
	cr_assert_eq(line_pool_take(pool, 1), 0);
	cr_assert_eq(grace_waits, 0);
}

Test(line_pool, splits_longer_runs)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 18);
	u32 run = take(pool, 17);

	cr_assert_eq(line_pool_take(pool, 1), 0);
	line_pool_give(pool, run, 17);
	take(pool, 16);
	take(pool, 1);
	cr_assert_eq(line_pool_take(pool, 1), 0);
}

Test(line_pool, makes_long_runs_of_neighbours)
{
	_cleanup_(line_pool_freep) struct line_pool *pool =
		line_pool_new(NULL, FWD_TABLE_LINES + 1);

	take_singles(pool, FWD_TABLE_LINES);
	for (u32 line = FWD_TABLE_LINES; line; line--)
		line_pool_give(pool, line, 1);
	cr_assert_eq(take(pool, FWD_TABLE_LINES), 1);
	cr_assert_eq(line_pool_take(pool, 1), 0);
}

Test(line_pool, keeps_a_table_for_a_table_while_there_is_another_run)
{
	_cleanup_(line_pool_freep) struct line_pool *pool =
		line_pool_new(NULL, FWD_TABLE_LINES + 18);
	u32 table = take(pool, FWD_TABLE_LINES);

	line_pool_give(pool, table, FWD_TABLE_LINES);
	take(pool, 17);
	cr_assert_eq(take(pool, FWD_TABLE_LINES), table);
	line_pool_give(pool, table, FWD_TABLE_LINES);
	take(pool, 17);
	cr_assert_eq(line_pool_take(pool, FWD_TABLE_LINES), 0);
}

/* ---- grace periods ---- */

Test(line_pool, keeps_a_retired_run_until_its_ticket_is_over)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 100);
	u32 retired = take(pool, 1);

	line_pool_retire(pool, retired, 1);
	cr_assert_eq(line_pool_used(pool), 1);
	for (u32 i = 0; i < 98; i++)
		cr_assert_neq(take(pool, 1), retired);
	cr_assert_eq(grace_waits, 0);
	grace_pass();
	cr_assert_eq(take(pool, 1), retired);
	cr_assert_eq(grace_waits, 0);
}

Test(line_pool, waits_for_the_oldest_ticket_when_nothing_else_is_left)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 4);
	u32 first = take(pool, 1), second = take(pool, 1), third = take(pool, 1);

	line_pool_retire(pool, second, 1);
	grace_begun++;
	line_pool_retire(pool, first, 1);
	line_pool_retire(pool, third, 1);
	cr_assert_eq(take(pool, 1), second);
	cr_assert_eq(grace_waits, 1);
	take_singles(pool, 2);
	cr_assert_eq(grace_waits, 2);
	cr_assert_eq(line_pool_take(pool, 1), 0);
	cr_assert_eq(grace_waits, 2);
}

Test(line_pool, waits_once_for_many_that_were_retired_together)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 1001);

	take_singles(pool, 1000);
	for (u32 line = 1; line <= 1000; line++)
		line_pool_retire(pool, line, 1);
	take_singles(pool, 1000);
	cr_assert_eq(grace_waits, 1);
}

/* ---- adoption ---- */

Test(line_pool, claims_what_is_in_range_and_free)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 100);

	cr_assert(!line_pool_claim(pool, 0, 1));
	cr_assert(!line_pool_claim(pool, 100, 1));
	cr_assert(!line_pool_claim(pool, 99, 2));
	cr_assert(!line_pool_claim(pool, 0xffffffff, 2));
	cr_assert(!line_pool_claim(pool, 1, 0xffffffff));
	cr_assert(!line_pool_claim(pool, 1, 100));
	cr_assert(line_pool_claim(pool, 99, 1));
	cr_assert(line_pool_claim(pool, 10, 3));
	cr_assert(!line_pool_claim(pool, 8, 3));
	cr_assert(!line_pool_claim(pool, 12, 1));
	cr_assert(line_pool_claim(pool, 8, 2));
	cr_assert_eq(line_pool_used(pool), 6);
}

Test(line_pool, gives_out_every_gap_between_claims)
{
	_cleanup_(line_pool_freep) struct line_pool *pool = line_pool_new(NULL, 200);
	bool seen[200] = {false};

	for (u32 line = 3; line < 190; line += 11)
		cr_assert(line_pool_claim(pool, line, 2));
	cr_assert_eq(line_pool_claimed(pool), 0);
	while (line_pool_used(pool) < 199) {
		u32 line = take(pool, 1);

		cr_assert(!seen[line] && (line < 3 || line >= 190 || (line - 3) % 11 >= 2));
		seen[line] = true;
	}
}

/* ---- whatever comes ---- */

#define CAPACITY 600

struct owned {
	u32 line, n;
};

struct world {
	struct random random;
	struct line_pool *pool;
	u64 kept[CAPACITY]; /* by line: 0 free, ~0 owned, else the ticket that it waits for */
	struct owned owned[CAPACITY];
	u32 n;
};

static void take_random(struct world *world)
{
	u32 n = 1 + (u32)random_below(&world->random, FWD_NODE_LINES_MAX);
	u32 line = line_pool_take(world->pool, n);

	if (!line)
		return;
	random_holds(&world->random, line + n <= CAPACITY);
	for (u32 i = line; i < line + n; i++) {
		random_holds(&world->random, world->kept[i] != ~0ull);
		random_holds(&world->random, !world->kept[i] || grace_over(world->kept[i]));
		world->kept[i] = ~0ull;
	}
	world->owned[world->n++] = (struct owned){line, n};
}

static void drop_random(struct world *world)
{
	u32 at = (u32)random_below(&world->random, world->n);
	struct owned run = world->owned[at];
	bool seen = random_below(&world->random, 2);

	world->owned[at] = world->owned[--world->n];
	for (u32 i = run.line; i < run.line + run.n; i++)
		world->kept[i] = seen ? grace_ticket() : 0;
	if (seen)
		line_pool_retire(world->pool, run.line, run.n);
	else
		line_pool_give(world->pool, run.line, run.n);
}

Test(line_pool, never_gives_out_what_is_owned_or_waits, .timeout = 60)
{
	struct world world = {.random = random_start(), .pool = line_pool_new(NULL, CAPACITY)};

	for (int i = 0; i < 200000; i++) {
		u64 what = random_below(&world.random, 100);

		if (what < 2)
			grace_pass();
		else if (what < 50 && world.n)
			drop_random(&world);
		else
			take_random(&world);
	}
	while (world.n)
		drop_random(&world);
	grace_pass();
	for (u32 line = 1; line < CAPACITY; line++)
		random_holds(&world.random, line_pool_take(world.pool, 1));
	random_holds(&world.random, !line_pool_take(world.pool, 1));
	line_pool_free(world.pool);
}
