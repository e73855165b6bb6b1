// SPDX-License-Identifier: GPL-2.0-or-later
/* The sets of rules, held to a sorted array that does the same in the simplest way. */
#include "ruleset.h"

#include "random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

/* ---- memory that runs out when a test says so ---- */

static bool no_memory;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);

void *__wrap_malloc(size_t size)
{
	return no_memory ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return no_memory ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
	return no_memory ? NULL : __real_reallocarray(old, n, size);
}

/* ---- rules ---- */

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

#define MODEL_MAX 4096

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
		struct prefix prefix = random_prefix(&random, MODEL_MAX);
		bool grows = step / 10000 % 2 == 0;

		if (random_below(&random, 10) < (grows ? 8 : 2)) {
			put(set, &prefix, (s64)step);
			model_put(&model, &prefix, (s64)step);
		} else {
			bool removed = model_remove(&model, &prefix);

			random_holds(&random, ruleset_remove(set, &prefix) == removed);
		}
		prefix = random_prefix(&random, MODEL_MAX);
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
		cr_expect_not(ruleset_remove(set, &prefix));
		cr_expect_eq(ruleset_size(set), 0);
		put(set, &prefix, 1);
		cr_expect_eq(ruleset_size(set), 1);
		cr_expect(ruleset_remove(set, &prefix));
	}
}

/* LeakSanitizer and AddressSanitizer tell if a comment is freed too rarely or too often. */
Test(ruleset, owns_the_comments_that_it_takes)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct rule rule = {.prefix = nth_prefix(7), .comment = strdup("first")};
	const struct rule *found;

	cr_assert_eq(ruleset_put(set, &rule), 0);
	rule.comment = strdup("second");
	cr_assert_eq(ruleset_put(set, &rule), 0);
	found = ruleset_find(set, &rule.prefix);
	cr_expect_str_eq(found->comment, "second");
	rule.expires_ns = 5;
	cr_assert_eq(ruleset_put(set, &rule), 0, "the same comment again");
	found = ruleset_find(set, &rule.prefix);
	cr_expect_str_eq(found->comment, "second");
	cr_expect_eq(found->expires_ns, 5);
	rule = (struct rule){.prefix = nth_prefix(8), .comment = strdup("removed")};
	cr_assert_eq(ruleset_put(set, &rule), 0);
	cr_expect(ruleset_remove(set, &rule.prefix));
}

Test(ruleset, refuses_a_rule_without_memory_and_leaves_the_comment_to_the_caller)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct rule rule = {.prefix = nth_prefix(7), .comment = strdup("kept")};

	no_memory = true;
	cr_expect_eq(ruleset_put(set, &rule), -ENOMEM);
	cr_expect_eq(ruleset_reserve(set, 1), -ENOMEM);
	no_memory = false;
	cr_expect_eq(ruleset_size(set), 0);
	cr_expect_str_eq(rule.comment, "kept");
	free(rule.comment);
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

static void fill_reserved(struct random *random, int order, u32 there, u32 n)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();

	for (u32 i = 0; i < there; i++) {
		struct prefix prefix = in_order(random, order, i, there + n);

		put(set, &prefix, 0);
	}
	cr_assert_eq(ruleset_reserve(set, n), 0);
	no_memory = true;
	for (u32 i = 0; i < n; i++) {
		struct rule rule = {.prefix = in_order(random, order, there + i, there + n)};

		if (ruleset_put(set, &rule) < 0) {
			no_memory = false;
			cr_assert_fail("order %d, %u rules, %u of %u reserved: FWD_SEED=%#llx",
				       order, there, i, n, (unsigned long long)random->seed);
		}
	}
	no_memory = false;
	ruleset_release_reserve(set);
}

Test(ruleset, what_is_reserved_can_be_put_without_memory)
{
	struct random random = random_start();
	const u32 sizes[] = {0, 1, 2, 127, 128, 129, 1000, 20000};

	for (int order = 0; order < 4; order++)
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			for (size_t j = 0; j < ARRAY_SIZE(sizes); j++)
				fill_reserved(&random, order, sizes[i], sizes[j]);
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
		cr_assert(ruleset_remove(set, &last));
		cursor = ruleset_seek(set, &last);
		cr_assert(ruleset_at(&cursor));
		cr_assert_eq(ruleset_at(&cursor)->created_s, i + 1);
	}
}
