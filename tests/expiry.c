// SPDX-License-Identifier: GPL-2.0-or-later
#include "expiry.h"

#include "random.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	const u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Each item carries its end in its prefix, too. */
static void push(struct expiry *expiry, u64 ns)
{
	struct prefix prefix = {.family = FAMILY_IPV6, .len = 64};

	memcpy(prefix.addr, &ns, sizeof(ns));
	cr_assert_eq(expiry_reserve(expiry, 1), 0);
	expiry_push(expiry, ns, &prefix);
}

static u64 pop(struct random *random, struct expiry *expiry)
{
	const struct expiry_item *first = expiry_first(expiry);
	u64 ns;

	random_holds(random, first);
	ns = first->ns;
	random_holds(random, !memcmp(first->prefix.addr, &ns, sizeof(ns)));
	expiry_pop(expiry);
	return ns;
}

Test(expiry, gives_ends_in_order)
{
	struct random random = random_start();

	for (size_t n = 0; n < 300; n++) {
		struct expiry expiry = {0};
		u64 ends[300];

		for (size_t i = 0; i < n; i++) {
			ends[i] = random_below(&random, n); /* some of them the same */
			push(&expiry, ends[i]);
		}
		qsort(ends, n, sizeof(*ends), compare);
		for (size_t i = 0; i < n; i++)
			random_holds(&random, pop(&random, &expiry) == ends[i]);
		random_holds(&random, !expiry_first(&expiry));
		expiry_clear(&expiry);
	}
}

/* Pushes and pops as they come: what is popped is never later than what is left. */
Test(expiry, stays_in_order_while_ends_come_and_go)
{
	struct random random = random_start();
	struct expiry expiry = {0};

	for (size_t step = 0; step < 50000; step++) {
		if (!expiry_first(&expiry) || random_below(&random, 5) < 3) {
			push(&expiry, random_below(&random, 1000));
			continue;
		}
		u64 ns = pop(&random, &expiry);

		for (size_t i = 0; i < expiry.n && i < 64; i++)
			random_holds(&random, expiry.items[i].ns >= ns);
	}
	expiry_clear(&expiry);
}

Test(expiry, takes_as_many_as_were_reserved)
{
	const struct prefix prefix = {.family = FAMILY_IPV4};
	struct expiry expiry = {0};

	for (size_t n = 1; n < 5000; n *= 3) {
		cr_assert_eq(expiry_reserve(&expiry, n), 0);
		cr_assert_geq(expiry.room, expiry.n + n);
		for (size_t i = 0; i < n; i++)
			expiry_push(&expiry, i, &prefix);
	}
	cr_assert_eq(expiry_reserve(&expiry, 0), 0);
	expiry_clear(&expiry);
	cr_expect_null(expiry_first(&expiry));
}
