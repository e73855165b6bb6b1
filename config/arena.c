// SPDX-License-Identifier: GPL-2.0-or-later
#include "arena.h"

#include <stdalign.h>
#include <stdlib.h>

#define BLOCK_MIN_BYTES 4096
#define BLOCK_MAX_BYTES (1u << 20)

struct arena_block {
	struct arena_block *next;
	alignas(max_align_t) char bytes[];
};

/* Blocks double, so that a small file costs little and a large one few calls. */
static int grow(struct arena *arena, size_t size)
{
	size_t block_size = arena->size * 2;
	struct arena_block *block;

	if (block_size < BLOCK_MIN_BYTES)
		block_size = BLOCK_MIN_BYTES;
	if (block_size > BLOCK_MAX_BYTES)
		block_size = BLOCK_MAX_BYTES;
	if (block_size < size)
		block_size = size;
	block = calloc(1, sizeof(*block) + block_size);
	if (!block)
		return -1;
	block->next = arena->blocks;
	arena->blocks = block;
	arena->size = block_size;
	arena->used = 0;
	return 0;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	size_t align = alignof(max_align_t);
	void *piece;

	size = (size + align - 1) / align * align;
	if (arena->size - arena->used < size && grow(arena, size) < 0)
		return NULL;
	piece = arena->blocks->bytes + arena->used;
	arena->used += size;
	return piece;
}

void arena_clear(struct arena *arena)
{
	for (struct arena_block *block = arena->blocks, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	*arena = (struct arena){0};
}
