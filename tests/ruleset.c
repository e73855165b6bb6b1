// SPDX-License-Identifier: GPL-2.0-or-later
/* The sets of rules, held to a sorted array that does the same in the simplest way. */
#include "ruleset.h"

#include "random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

/* ---- memory that runs out when a test says so ---- */

#define ENOUGH SIZE_MAX

static _Thread_local size_t memory_left = ENOUGH; /* allocations */

static bool has_memory(void)
{
	if (memory_left == ENOUGH)
		return true;
	if (!memory_left)
		return false;
	memory_left--;
	return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);

void *__wrap_malloc(size_t size)
{
	return has_memory() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t n, size_t size)
{
	return has_memory() ? __real_calloc(n, size) : NULL;
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
	return has_memory() ? __real_reallocarray(old, n, size) : NULL;
}

/* ---- rules ---- */

#define PREFIXES 4096

/* Of few enough prefixes that the same ones come again; nested ones and both families. */
static struct prefix random_prefix(struct random *random, u64 n)
{
	u64 number = random_below(random, n);
	struct prefix prefix = {
		.family = number % 2 ? FAMILY_IPV4 : FAMILY_IPV6,
		.addr = {10, (u8)(number >> 9), (u8)(number >> 1)},
	};

	prefix_truncate(&prefix, number % 16 < 2 ? 16 : 24);
	return prefix;
}

static struct prefix nth_prefix(u32 n)
{
	return (struct prefix){
		.family = FAMILY_IPV4,
		.len = 32,
		.addr = {(u8)(n >> 24), (u8)(n >> 16), (u8)(n >> 8), (u8)n},
	};
}

static void put(struct ruleset *set, const struct prefix *prefix, s64 created_s)
{
	struct rule rule = {.prefix = *prefix, .created_s = created_s};

	cr_assert_eq(ruleset_put(set, &rule), 0);
}

/* ---- the model ---- */

#define MODEL_MAX (2 * PREFIXES)

struct model {
	struct prefix prefixes[MODEL_MAX];
	s64 created_s[MODEL_MAX];
	size_t n;
};

/* The first that is `prefix` or behind it. */
static size_t model_seek(const struct model *model, const struct prefix *prefix)
{
	size_t i = 0;

	while (i < model->n && prefix_compare(&model->prefixes[i], prefix) < 0)
		i++;
	return i;
}

static bool model_has(const struct model *model, const struct prefix *prefix, size_t at)
{
	return at < model->n && prefix_equal(&model->prefixes[at], prefix);
}

static void model_put(struct model *model, const struct prefix *prefix, s64 created_s)
{
	size_t at = model_seek(model, prefix);

	if (!model_has(model, prefix, at)) {
		cr_assert_lt(model->n, MODEL_MAX);
		memmove(&model->prefixes[at + 1], &model->prefixes[at],
			(model->n - at) * sizeof(model->prefixes[0]));
		memmove(&model->created_s[at + 1], &model->created_s[at],
			(model->n - at) * sizeof(model->created_s[0]));
		model->prefixes[at] = *prefix;
		model->n++;
	}
	model->created_s[at] = created_s;
}

static bool model_remove(struct model *model, const struct prefix *prefix)
{
	size_t at = model_seek(model, prefix);

	if (!model_has(model, prefix, at))
		return false;
	model->n--;
	memmove(&model->prefixes[at], &model->prefixes[at + 1],
		(model->n - at) * sizeof(model->prefixes[0]));
	memmove(&model->created_s[at], &model->created_s[at + 1],
		(model->n - at) * sizeof(model->created_s[0]));
	return true;
}

/* The set has what the model has from `from` on, in order, and no more. */
static void compare(struct random *random, const struct ruleset *set, const struct model *model,
		    const struct prefix *from)
{
	struct ruleset_cursor cursor = ruleset_seek(set, from);
	const struct rule *rule;

	for (size_t i = from ? model_seek(model, from) : 0; i < model->n; i++) {
		rule = ruleset_at(&cursor);
		random_holds(random, rule && prefix_equal(&rule->prefix, &model->prefixes[i]));
		random_holds(random, rule->created_s == model->created_s[i]);
		ruleset_next(&cursor);
	}
	random_holds(random, !ruleset_at(&cursor));
	ruleset_next(&cursor); /* stays at the end */
	random_holds(random, !ruleset_at(&cursor));
	random_holds(random, ruleset_size(set) == model->n);
}

/* ---- facts ---- */

/* First mostly puts, then mostly removals, so that blocks split, empty and go. */
Test(ruleset, does_what_a_sorted_array_does)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct random random = random_start();
	static struct model model;

	for (size_t step = 0; step < 40000; step++) {
		struct prefix prefix = random_prefix(&random, PREFIXES);
		bool grows = step / 10000 % 2 == 0;

		if (random_below(&random, 10) < (grows ? 8 : 2)) {
			put(set, &prefix, (s64)step);
			model_put(&model, &prefix, (s64)step);
		} else {
			model_remove(&model, &prefix);
			random_holds(&random, ruleset_remove(set, &prefix) == 0);
		}
		prefix = random_prefix(&random, PREFIXES);
		random_holds(&random,
			     !ruleset_find(set, &prefix) ==
				     !model_has(&model, &prefix, model_seek(&model, &prefix)));
		if (step % 500 == 0)
			compare(&random, set, &model, NULL);
		if (step % 500 == 250)
			compare(&random, set, &model, &prefix);
	}
}

Test(ruleset, is_empty_at_first_and_after_the_last_removal)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct prefix prefix = nth_prefix(7);
	struct ruleset_cursor cursor;

	for (int i = 0; i < 2; i++) {
		cursor = ruleset_seek(set, NULL);
		cr_expect_null(ruleset_at(&cursor));
		cursor = ruleset_seek(set, &prefix);
		cr_expect_null(ruleset_at(&cursor));
		cr_expect_null(ruleset_find(set, &prefix));
		cr_expect_eq(ruleset_remove(set, &prefix), 0);
		cr_expect_eq(ruleset_size(set), 0);
		put(set, &prefix, 1);
		cr_expect_eq(ruleset_size(set), 1);
		cr_expect_eq(ruleset_remove(set, &prefix), 0);
	}
}

/* LeakSanitizer and AddressSanitizer tell if a comment is freed too rarely or too often. */
Test(ruleset, has_references_of_its_own_to_comments)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct comment *first = comment_new("first"), *second = comment_new("second");
	struct rule rule = {.prefix = nth_prefix(7), .comment = first};
	const struct rule *found;

	cr_assert_eq(ruleset_put(set, &rule), 0);
	cr_assert_eq(ruleset_put(set, &rule), 0, "the same comment again");
	rule.prefix = nth_prefix(8);
	cr_assert_eq(ruleset_put(set, &rule), 0);
	comment_unref(first);
	cr_expect_str_eq(ruleset_find(set, &rule.prefix)->comment->text, "first");
	rule.comment = second;
	rule.expires_ns = 5;
	cr_assert_eq(ruleset_put(set, &rule), 0);
	comment_unref(second);
	found = ruleset_find(set, &rule.prefix);
	cr_expect_str_eq(found->comment->text, "second");
	cr_expect_eq(found->expires_ns, 5);
	cr_expect_eq(ruleset_remove(set, &rule.prefix), 0);
	rule.prefix = nth_prefix(7);
	cr_expect_str_eq(ruleset_find(set, &rule.prefix)->comment->text, "first");
}

Test(ruleset, no_comment_is_a_comment_too)
{
	cr_expect_null(comment_text(NULL));
	cr_expect_null(comment_ref(NULL));
	comment_unref(NULL);
}

Test(ruleset, refuses_a_rule_without_memory)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	_cleanup_(comment_unrefp) struct comment *comment = comment_new("kept");
	struct rule rule = {.prefix = nth_prefix(7), .comment = comment};

	memory_left = 0;
	cr_expect_eq(ruleset_put(set, &rule), -ENOMEM);
	cr_expect_eq(ruleset_reserve(set, 1), -ENOMEM);
	cr_expect_null(ruleset_clone(set));
	cr_expect_null(comment_new("none"));
	memory_left = ENOUGH;
	cr_expect_eq(ruleset_size(set), 0);
	cr_expect_eq(comment->references, 1);
}

/* In the orders that split the most: rising, falling, inside out, random. */
static struct prefix in_order(struct random *random, int order, u32 i, u32 n)
{
	const u32 base = 1u << 30, far = 1u << 20;

	switch (order) {
	case 0:
		return nth_prefix(base + i);
	case 1:
		return nth_prefix(base - i);
	case 2: /* one at the end, then two into the block that this has split */
		return i % 3 ? nth_prefix(base + far - 3 * n + i) : nth_prefix(base + far + i);
	default:
		return nth_prefix((u32)random_next(random));
	}
}

static void fill_reserved(struct random *random, int order, u32 there, u32 n, bool shared)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	_cleanup_(ruleset_freep) struct ruleset *other = NULL;

	for (u32 i = 0; i < there; i++) {
		struct prefix prefix = in_order(random, order, i, there + n);

		put(set, &prefix, 0);
	}
	if (shared)
		cr_assert(other = ruleset_clone(set));
	cr_assert_eq(ruleset_reserve(set, n), 0);
	memory_left = 0;
	for (u32 i = 0; i < n; i++) {
		struct rule rule = {.prefix = in_order(random, order, there + i, there + n)};

		if (ruleset_put(set, &rule) < 0) {
			memory_left = ENOUGH;
			cr_assert_fail("order %d, %u rules, %u of %u reserved%s: FWD_SEED=%#llx",
				       order, there, i, n, shared ? ", shared" : "",
				       (unsigned long long)random->seed);
		}
	}
	memory_left = ENOUGH;
	ruleset_release_reserve(set);
}

Test(ruleset, what_is_reserved_can_be_put_without_memory)
{
	struct random random = random_start();
	const u32 sizes[] = {0, 1, 2, 127, 128, 129, 1000, 20000};

	for (int order = 0; order < 4; order++)
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			for (size_t j = 0; j < ARRAY_SIZE(sizes); j++)
				for (int shared = 0; shared < 2; shared++)
					fill_reserved(&random, order, sizes[i], sizes[j], shared);
}

/* Puts and removes at the end and in the middle of it, in any order. */
Test(ruleset, what_is_reserved_can_be_put_and_removed_without_memory)
{
	struct random random = random_start();

	for (int round = 0; round < 2000; round++) {
		_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new(), *other = NULL;
		u32 there = (u32)random_below(&random, 600), n = (u32)random_below(&random, 400);
		u32 puts = (u32)random_below(&random, 10) + 1, near = there > 140 ? there - 140 : 0;

		for (u32 i = 0; i < there; i++) {
			struct prefix prefix = nth_prefix(i);

			put(set, &prefix, 0);
		}
		if (round % 2)
			cr_assert(other = ruleset_clone(set));
		cr_assert_eq(ruleset_reserve(set, n), 0);
		memory_left = 0;
		for (u32 i = 0; i < n; i++) {
			struct rule rule = {
				.prefix = nth_prefix(near + (u32)random_below(&random, 300))};

			random_holds(&random,
				     random_below(&random, 10) < puts
					     ? ruleset_put(set, &rule) == 0
					     : ruleset_remove(set, &rule.prefix) != -ENOMEM);
		}
		memory_left = ENOUGH;
	}
}

/* Rules at the end that take another block again and again, more often than one is reserved. */
Test(ruleset, a_block_that_empties_is_reserved_again)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct rule rules[2] = {{.prefix = nth_prefix(127)}, {.prefix = nth_prefix(128)}};
	struct prefix prefix;

	for (u32 i = 0; i < 127; i++) {
		prefix = nth_prefix(i);
		put(set, &prefix, 0);
	}
	cr_assert_eq(ruleset_reserve(set, 400), 0);
	memory_left = 0;
	for (int i = 0; i < 400; i += 4) {
		cr_assert_eq(ruleset_put(set, &rules[0]), 0);
		cr_assert_eq(ruleset_put(set, &rules[1]), 0, "after %d", i);
		cr_assert_eq(ruleset_remove(set, &rules[0].prefix), 0);
		cr_assert_eq(ruleset_remove(set, &rules[1].prefix), 0);
	}
	memory_left = ENOUGH;
}

Test(ruleset, what_is_reserved_can_be_removed_without_memory)
{
	for (u32 n = 0; n <= 1000; n += n < 3 ? 1 : 333) {
		_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new(), *other;

		for (u32 i = 0; i < 20000; i++) {
			struct prefix prefix = nth_prefix(i);

			put(set, &prefix, 0);
		}
		other = ruleset_clone(set);
		cr_assert_eq(ruleset_reserve_removes(set, n), 0);
		memory_left = 0;
		for (u32 i = 0; i < n; i++) {
			struct prefix prefix = nth_prefix(i * 19);

			cr_assert_eq(ruleset_remove(set, &prefix), 0, "%u of %u", i, n);
		}
		memory_left = ENOUGH;
		cr_expect_eq(ruleset_size(set), 20000 - n);
		cr_expect_eq(ruleset_size(other), 20000);
	}
}

/* A listing goes on behind the last one it showed, whether that is still there or not. */
Test(ruleset, a_cursor_is_found_again_behind_a_removed_rule)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct ruleset_cursor cursor;
	struct prefix last;

	for (u32 i = 0; i < 1000; i++) {
		struct prefix prefix = nth_prefix(i);

		put(set, &prefix, i);
	}
	for (u32 i = 0; i < 999; i++) {
		last = nth_prefix(i);
		cr_assert_eq(ruleset_remove(set, &last), 0);
		cursor = ruleset_seek(set, &last);
		cr_assert(ruleset_at(&cursor));
		cr_assert_eq(ruleset_at(&cursor)->created_s, i + 1);
	}
}

/* ---- many at once ---- */

static int compare_prefixes(const void *a, const void *b)
{
	return prefix_compare(a, b);
}

/* Random ones in order, some of them twice; every now and then those of a small range alone. */
static size_t random_changes(struct random *random, struct rule rules[static PREFIXES],
			     s64 created_s)
{
	size_t n = random_below(random, 1ull << random_below(random, 12));
	u64 range = random_below(random, 4) ? PREFIXES : random_below(random, PREFIXES) + 1;

	for (size_t i = 0; i < n; i++)
		rules[i] = (struct rule){.prefix = random_prefix(random, range)};
	/* The prefix is the first member. */
	qsort(rules, n, sizeof(*rules), compare_prefixes);
	for (size_t i = 0; i < n; i++)
		rules[i].created_s = created_s + (s64)i;
	return n;
}

static void random_put_sorted(struct random *random, struct ruleset *set, struct model *model,
			      struct comment *comment)
{
	static struct rule rules[PREFIXES];
	size_t n = random_changes(random, rules, (s64)random_below(random, 1000000));

	for (size_t i = 0; i < n; i++) {
		rules[i].comment = comment;
		model_put(model, &rules[i].prefix, rules[i].created_s);
	}
	random_holds(random, ruleset_put_sorted(set, rules, n) == 0);
}

static void random_remove_sorted(struct random *random, struct ruleset *set, struct model *model)
{
	static struct rule rules[PREFIXES];
	static struct prefix prefixes[PREFIXES];
	size_t n = random_changes(random, rules, 0);

	for (size_t i = 0; i < n; i++) {
		prefixes[i] = rules[i].prefix;
		model_remove(model, &prefixes[i]);
	}
	random_holds(random, ruleset_remove_sorted(set, prefixes, n) == 0);
}

/* A few single changes, or many at once. */
static void random_change(struct random *random, struct ruleset *set, struct model *model,
			  struct comment *comment)
{
	switch (random_below(random, 8)) {
	case 0:
		random_put_sorted(random, set, model, comment);
		return;
	case 1:
	case 2:
		random_remove_sorted(random, set, model);
		return;
	}
	for (size_t i = 0; i < 20; i++) {
		struct rule rule = {.prefix = random_prefix(random, PREFIXES),
				    .created_s = (s64)i,
				    .comment = comment};

		if (random_below(random, 2)) {
			random_holds(random, ruleset_put(set, &rule) == 0);
			model_put(model, &rule.prefix, rule.created_s);
		} else {
			model_remove(model, &rule.prefix);
			random_holds(random, ruleset_remove(set, &rule.prefix) == 0);
		}
	}
}

Test(ruleset, changes_many_at_once_as_one_by_one)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	_cleanup_(comment_unrefp) struct comment *comment = comment_new("many");
	struct random random = random_start();
	static struct model model;

	for (size_t step = 0; step < 600; step++) {
		random_change(&random, set, &model, comment);
		compare(&random, set, &model, NULL);
	}
}

/* Whichever allocation fails. */
Test(ruleset, changes_none_of_many_without_memory)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	_cleanup_(comment_unrefp) struct comment *comment = comment_new("many");
	struct random random = random_start();
	static struct prefix prefixes[3000];
	static struct rule rules[3000];
	static struct model model;
	size_t failed = 0;

	for (size_t i = 0; i < 500; i++)
		random_change(&random, set, &model, comment);
	for (u32 i = 0; i < ARRAY_SIZE(rules); i++) {
		prefixes[i] = nth_prefix((10u << 24) + (i << 8));
		rules[i] = (struct rule){.prefix = prefixes[i], .comment = comment};
	}
	for (int r = -ENOMEM; r; failed++) {
		compare(&random, set, &model, NULL);
		memory_left = failed;
		r = ruleset_put_sorted(set, rules, ARRAY_SIZE(rules));
		memory_left = ENOUGH;
	}
	cr_expect_gt(failed, ARRAY_SIZE(rules) / 128);
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		model_put(&model, &prefixes[i], 0);
	memory_left = 2;
	cr_expect_eq(ruleset_remove_sorted(set, prefixes, ARRAY_SIZE(prefixes)), -ENOMEM);
	memory_left = ENOUGH;
	compare(&random, set, &model, NULL);
}

Test(ruleset, a_row_of_rules_fills_its_blocks)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	static struct rule rules[12800];

	for (u32 i = 0; i < ARRAY_SIZE(rules); i++)
		rules[i].prefix = nth_prefix(i);
	cr_assert_eq(ruleset_put_sorted(set, rules, ARRAY_SIZE(rules)), 0);
	cr_expect_lt(ruleset_bytes(set), sizeof(rules) + sizeof(rules) / 50);
}

/* ---- clones ---- */

Test(ruleset, a_clone_and_its_original_change_apart)
{
	struct ruleset *sets[2] = {ruleset_new()};
	_cleanup_(comment_unrefp) struct comment *comment = comment_new("shared");
	struct random random = random_start();
	static struct model models[2];

	for (size_t round = 0; round < 40; round++) {
		size_t from = round % 2, to = !from;

		sets[to] = ruleset_clone(sets[from]);
		models[to] = models[from];
		for (size_t step = 0; step < 12; step++) {
			size_t i = random_below(&random, 2);

			random_change(&random, sets[i], &models[i], comment);
			compare(&random, sets[0], &models[0], NULL);
			compare(&random, sets[1], &models[1], NULL);
		}
		ruleset_free(sets[from]);
		compare(&random, sets[to], &models[to], NULL);
		sets[from] = NULL;
	}
	ruleset_free(sets[0]);
	ruleset_free(sets[1]);
	cr_expect_eq(comment->references, 1);
}

Test(ruleset, a_clone_copies_what_it_writes_and_nothing_without_memory)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new(), *old = ruleset_new(), *clone;
	struct rule rule = {.prefix = nth_prefix(5), .created_s = 2};
	struct prefix prefix;

	for (u32 i = 0; i < 300; i++) {
		prefix = nth_prefix(i);
		put(set, &prefix, 3);
		put(old, &prefix, i % 2 ? 1 : 3);
	}
	clone = ruleset_clone(set);
	memory_left = 0;
	cr_expect_eq(ruleset_put(clone, &rule), -ENOMEM);
	cr_expect_eq(ruleset_remove(clone, &rule.prefix), -ENOMEM);
	cr_expect_eq(ruleset_keep_created(clone, old), -ENOMEM);
	memory_left = ENOUGH;
	cr_assert_eq(ruleset_keep_created(clone, old), 0);
	for (u32 i = 0; i < 300; i++) {
		prefix = nth_prefix(i);
		cr_expect_eq(ruleset_find(clone, &prefix)->created_s, i % 2 ? 1 : 3);
		cr_expect_eq(ruleset_find(set, &prefix)->created_s, 3);
	}
	memory_left = 0;
	cr_expect_eq(ruleset_put(clone, &rule), 0, "a block of its own is copied again");
	cr_expect_eq(ruleset_remove(clone, &rule.prefix), 0);
	memory_left = ENOUGH;
}

struct worker {
	struct ruleset *set; /* the thread's */
	struct model model;
	struct random random;
	struct comment *comment; /* everybody's */
};

static void *walk_and_change(void *data)
{
	struct worker *worker = data;

	for (size_t step = 0; step < 40; step++) {
		for (size_t i = 0; i < 10; i++) {
			struct rule rule = {.prefix = random_prefix(&worker->random, PREFIXES),
					    .created_s = (s64)step,
					    .comment = worker->comment};

			if (random_below(&worker->random, 3)) {
				random_holds(&worker->random, ruleset_put(worker->set, &rule) == 0);
				model_put(&worker->model, &rule.prefix, rule.created_s);
			} else {
				random_holds(&worker->random,
					     ruleset_remove(worker->set, &rule.prefix) != -ENOMEM);
				model_remove(&worker->model, &rule.prefix);
			}
		}
		compare(&worker->random, worker->set, &worker->model, NULL);
	}
	return NULL;
}

/* As a job and the daemon's loop do; ThreadSanitizer, too, has nothing to say of this. */
Test(ruleset, threads_change_clones_at_the_same_time)
{
	static struct worker here, there;
	pthread_t thread;

	here.random = random_start();
	here.set = ruleset_new();
	here.comment = there.comment = comment_new("everybody's");
	random_put_sorted(&here.random, here.set, &here.model, here.comment);
	for (int round = 0; round < 20; round++) {
		there.set = ruleset_clone(here.set);
		there.model = here.model;
		there.random = (struct random){.seed = here.random.seed,
					       .state = random_next(&here.random)};
		cr_assert_eq(pthread_create(&thread, NULL, walk_and_change, &there), 0);
		walk_and_change(&here);
		if (round % 2) { /* freed while the other is being changed */
			ruleset_free(here.set);
			here.set = NULL;
		}
		cr_assert_eq(pthread_join(thread, NULL), 0);
		if (here.set) {
			ruleset_free(there.set);
		} else {
			here.set = there.set;
			here.model = there.model;
		}
	}
	ruleset_free(here.set);
	cr_expect_eq(here.comment->references, 1);
	comment_unref(here.comment);
}
