/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random operations that can be repeated: the seed is printed, and FWD_SEED=... gives it back.
 */
#pragma once

#include "types.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct random {
	u64 seed, state;
};

static inline struct random random_start(void)
{
	const char *text = getenv("FWD_SEED");
	u64 seed = 0;

	if (text)
		seed = strtoull(text, NULL, 0);
	else
		cr_assert_eq(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
	fprintf(stderr, "FWD_SEED=%#llx\n", (unsigned long long)seed);
	return (struct random){.seed = seed, .state = seed};
}

/* splitmix64 by Sebastiano Vigna, public domain. */
static inline u64 random_next(struct random *random)
{
	u64 z = random->state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static inline u64 random_below(struct random *random, u64 bound)
{
	return random_next(random) % bound;
}

#define random_holds(random, fact) \
	cr_assert((fact), "%s: FWD_SEED=%#llx", #fact, (unsigned long long)(random)->seed)
