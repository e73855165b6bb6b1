/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lookup of the kernel (bpf/trie_walk.h) over the memory of its maps. */
#pragma once

#include "clock.h"
#include "trie.h"
#include "types.h"

/* Of one family. */
struct trie_memory {
	const struct fwd_line *lines;
	u32 n_lines;
	void *entries; /* struct fwd_entry, or struct fwd_entry6 */
	u32 n_entries;
};

static inline struct fwd_entry *trie_entry(const struct trie_memory *memory, int family, u32 index)
{
	size_t size = family == FWD_IPV4 ? sizeof(struct fwd_entry) : sizeof(struct fwd_entry6);

	return index < memory->n_entries ? (void *)((char *)memory->entries + index * size) : NULL;
}

/* The `mask` of a struct fwd_entry6. */
static inline struct fwd_bits trie_mask(u32 len)
{
	return (struct fwd_bits){
		.high = len >= 64 ? ~0ull : ~(~0ull >> len),
		.low = len >= 128 ? ~0ull
		       : len > 64 ? ~(~0ull >> (len - 64))
				  : 0,
	};
}

#define FWD_BANK const struct trie_memory *
#define FWD_LINE(memory, index) \
	((index) < (memory)->n_lines ? (const void *)&(memory)->lines[index] : NULL)
#define FWD_ENTRY(memory, family, index)	 trie_entry(memory, family, index)
#define FWD_CELL_FIND(memory, cell, key, family) fwd_cell_find(memory, cell, key, family)
#define FWD_NOW()				 (boot_ns() >> FWD_END_SHIFT)

#include "trie_walk.h"
