/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Spans of time as people write them: "90s", "15m", "1h30m", "2d", "1w"; a bare number: seconds. */
#pragma once

#include "error.h"
#include "types.h"

/* The longest span a rule may have: 100 years, far below where nanoseconds overflow 64 bits. */
#define DURATION_MAX_S (100LL * 365 * 24 * 3600)

/* What duration_format() makes of the largest s64, and its NUL. */
#define DURATION_TEXT_MAX 24

/* From 1 s to DURATION_MAX_S; units must stand in descending order, each at most once. */
int duration_parse(const char *text, s64 *ret_s, struct error *err);

/*
 * The largest unit that is not zero and the one below it: "1h30m", "5s", "3d2h"; two days and five
 * minutes are "2d". 0 and less is "0s".
 */
void duration_format(s64 s, char text[static DURATION_TEXT_MAX]);
