/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A quarrel with somebody who takes off what we put on. The first losses are made good at once, the
 * later ones after a pause that doubles, so that neither side keeps the machine busy.
 *
 *   losses that follow each other    pause before putting back
 *   1 to 3                           none
 *   4, 5, 6, ...                     1 s, 2 s, 4 s, ... at most 60 s
 *
 * Losses follow each other while there are less than twice the pause and 10 s between them.
 * Times are nanoseconds of one clock that nobody can set. Zeroes: no quarrel.
 */
#pragma once

#include "types.h"

struct contest {
	u32 losses;  /* that follow each other */
	u64 last_ns; /* the last one's time */
};

void contest_lose(struct contest *contest, u64 now_ns);

/* It is not to be put back yet. */
bool contest_holds(const struct contest *contest, u64 now_ns);

/* There have been more losses than are made good at once, and peace has not lasted. */
bool contest_is_on(const struct contest *contest, u64 now_ns);

/* The end of the pause, and the earliest end of the quarrel. */
u64 contest_resume_ns(const struct contest *contest);
u64 contest_end_ns(const struct contest *contest);
