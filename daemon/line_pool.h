/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lines of a trie's map (bpf/trie.h), given out in runs of 1 to FWD_NODE_LINES_MAX, or of
 * FWD_TABLE_LINES. Runs that readers could reach are used again only after a grace period (T2):
 * they wait with a ticket, many on one, and nobody waits for them unless there is nothing else
 * left.
 */
#pragma once

#include "cleanup.h"
#include "trie.h"
#include "types.h"

struct line_pool;

/* Over `lines`, which stay the caller's; all are free but line 0. NULL: no memory. */
struct line_pool *line_pool_new(struct fwd_line *lines, u32 capacity);
void line_pool_free(struct line_pool *pool);
DEFINE_CLEANUP(struct line_pool *, line_pool_free);

struct fwd_line *line_pool_lines(const struct line_pool *pool);

/* Lines in use, those that wait included, and all there are. */
u32 line_pool_used(const struct line_pool *pool);
u32 line_pool_capacity(const struct line_pool *pool);

/* Behind the last line that is in use. */
u32 line_pool_end(const struct line_pool *pool);

/* The first line of a run; 0: there is none, not even after waiting. */
u32 line_pool_take(struct line_pool *pool, u32 n);

/* A run that no reader has seen. Cannot fail. */
void line_pool_give(struct line_pool *pool, u32 line, u32 n);

/*
 * A run that readers may still hold, unhooked already. Cannot fail; where memory for the note
 * lacks, the lines are lost.
 */
void line_pool_retire(struct line_pool *pool, u32 line, u32 n);

/*
 * For maps that an earlier daemon filled: all lines but line 0 are free; claim those that are not.
 * False: one of them is out of range, or claimed already.
 */
bool line_pool_claim(struct line_pool *pool, u32 line, u32 n);
/* After the last claim. 0 or -ENOMEM. */
int line_pool_claimed(struct line_pool *pool);
