/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two clocks. Rules end on CLOCK_BOOTTIME, which the programs read too and which nobody can
 * set; people are shown CLOCK_REALTIME.
 */
#pragma once

#include "types.h"

#include <time.h>

#define NS_PER_S 1000000000ull

static inline u64 clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (u64)ts.tv_sec * NS_PER_S + (u64)ts.tv_nsec;
}

static inline u64 boot_ns(void)
{
	return clock_ns(CLOCK_BOOTTIME);
}

static inline s64 wall_s(void)
{
	return (s64)time(NULL);
}

/* A moment of CLOCK_BOOTTIME as seconds of CLOCK_REALTIME. */
static inline s64 boot_to_wall_s(u64 ns)
{
	s64 apart_ns = (s64)clock_ns(CLOCK_REALTIME) - (s64)boot_ns();

	return ((s64)ns + apart_ns) / (s64)NS_PER_S;
}
