/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When rules end: a heap of ends, the earliest first. It is a reminder only. A rule whose end was
 * changed, or that is gone, leaves its old reminder behind, which the one who takes it must check
 * against the rule.
 */
#pragma once

#include "prefix.h"

struct expiry_item {
	u64 ns; /* CLOCK_BOOTTIME */
	struct prefix prefix;
};

struct expiry {
	struct expiry_item *items;
	size_t n, room;
};

/* Memory for `n` more. 0 or -ENOMEM. */
int expiry_reserve(struct expiry *expiry, size_t n);

/* Takes memory that was reserved. */
void expiry_push(struct expiry *expiry, u64 ns, const struct prefix *prefix);

/* The earliest, or NULL. */
const struct expiry_item *expiry_first(const struct expiry *expiry);
void expiry_pop(struct expiry *expiry);

void expiry_clear(struct expiry *expiry);
