// SPDX-License-Identifier: GPL-2.0-or-later
#include "contest.h"

#include "clock.h"

#define FREE_LOSSES 3
#define PAUSE_MAX_S 60
#define CALM_NS	    (10 * NS_PER_S)

static u64 pause_ns(const struct contest *contest)
{
	u32 doublings = contest->losses - FREE_LOSSES - 1;

	if (contest->losses <= FREE_LOSSES)
		return 0;
	return doublings < 6 ? NS_PER_S << doublings : PAUSE_MAX_S * NS_PER_S;
}

void contest_lose(struct contest *contest, u64 now_ns)
{
	if (now_ns >= contest_end_ns(contest))
		contest->losses = 0;
	contest->losses++;
	contest->last_ns = now_ns;
}

bool contest_holds(const struct contest *contest, u64 now_ns)
{
	return now_ns < contest_resume_ns(contest);
}

bool contest_is_on(const struct contest *contest, u64 now_ns)
{
	return contest->losses > FREE_LOSSES && now_ns < contest_end_ns(contest);
}

u64 contest_resume_ns(const struct contest *contest)
{
	return contest->last_ns + pause_ns(contest);
}

u64 contest_end_ns(const struct contest *contest)
{
	return contest->last_ns + 2 * pause_ns(contest) + CALM_NS;
}
