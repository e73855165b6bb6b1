// SPDX-License-Identifier: GPL-2.0-or-later
#include "contest.h"

#include "clock.h"

#include <criterion/criterion.h>

/* The pause behind each loss, of a foe who takes it off as soon as it is back. */
static const u64 pauses_s[] = {0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60};

Test(contest, pauses_grow_to_a_minute)
{
	struct contest contest = {0};
	u64 now_ns = 1000 * NS_PER_S;

	for (size_t i = 0; i < ARRAY_SIZE(pauses_s); i++) {
		u64 resume_ns = now_ns + pauses_s[i] * NS_PER_S;

		contest_lose(&contest, now_ns);
		cr_expect_eq(contest_resume_ns(&contest), resume_ns, "loss %zu", i + 1);
		cr_expect_eq(contest_holds(&contest, now_ns), pauses_s[i] > 0, "loss %zu", i + 1);
		cr_expect_not(contest_holds(&contest, resume_ns), "loss %zu", i + 1);
		cr_expect_eq(contest_is_on(&contest, resume_ns), i >= 3, "loss %zu", i + 1);
		now_ns = resume_ns;
	}
}

Test(contest, is_over_after_twice_the_pause_and_ten_seconds)
{
	struct contest contest = {0};
	u64 now_ns = 1000 * NS_PER_S, end_ns = now_ns + 2 * 2 * NS_PER_S + 10 * NS_PER_S;

	for (int i = 0; i < 5; i++)
		contest_lose(&contest, now_ns);
	cr_expect_eq(contest_end_ns(&contest), end_ns);
	cr_expect(contest_is_on(&contest, end_ns - 1));
	cr_expect_not(contest_is_on(&contest, end_ns));
	contest_lose(&contest, end_ns);
	cr_expect_not(contest_holds(&contest, end_ns), "a new one begins");
}

Test(contest, losses_far_apart_are_made_good_at_once)
{
	struct contest contest = {0};

	for (u64 i = 0; i < 100; i++) {
		u64 now_ns = (1000 + 10 * i) * NS_PER_S;

		contest_lose(&contest, now_ns);
		cr_expect_not(contest_holds(&contest, now_ns));
		cr_expect_not(contest_is_on(&contest, now_ns));
	}
}
