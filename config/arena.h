/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that is given out in pieces and freed all at once. */
#pragma once

#include "types.h"

struct arena_block;

/* All zero is an empty arena. */
struct arena {
	struct arena_block *blocks;
	size_t used, size; /* of the block at hand */
};

/* Zeroed and aligned for any type; NULL when out of memory. */
void *arena_alloc(struct arena *arena, size_t size);

void arena_clear(struct arena *arena);
