/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lookup in a trie (bpf/trie.h). Compiles for the kernel, where lines and entries are elements
 * of array maps, and for user space, where they are the memory of those maps
 * (daemon/trie_reader.h).
 *
 * The file that includes this one defines
 *
 *   FWD_BANK                           what names a bank of maps
 *   FWD_LINE(bank, index)              a pointer to the line, or NULL
 *   FWD_ENTRY(bank, family, index)     to the entry, or NULL
 *   FWD_CELL_FIND(bank, cell, key, family)   fwd_cell_find(), here or out of line
 *   FWD_NOW()                          CLOCK_BOOTTIME in units of FWD_END_SHIFT
 *
 * The verifier relies on the bounds of the array maps, on masks for words, and on T4's loop bounds.
 */
#ifndef FWD_TRIE_WALK_H
#define FWD_TRIE_WALK_H

#include "trie.h"

#include <stdbool.h>
#include <stddef.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

static __always_inline void fwd_bits_shift(struct fwd_bits *bits, __u32 bytes)
{
	__u32 n = bytes * 8;

	/* In two steps: a shift by 64 is none. `bytes` is 4 at most. */
	bits->high = bits->high << n | (bits->low >> 1) >> (63 - n);
	bits->low <<= n;
}

static __always_inline __u32 fwd_popcount(__u32 x)
{
	x -= x >> 1 & 0x55555555;
	x = (x & 0x33333333) + (x >> 2 & 0x33333333);
	x = (x + (x >> 4)) & 0x0f0f0f0f;
	return x * 0x01010101 >> 24;
}

static __always_inline bool fwd_entry_covers(const struct fwd_entry *entry, __u32 len,
					     const struct fwd_bits *key, int family)
{
	const struct fwd_entry6 *entry6 = (const struct fwd_entry6 *)entry;
	if (family == FWD_IPV4)
		return (key->high >> 32 ^ entry->addr) >> ((32 - len) & 63) == 0;
	/* Without a branch on the length, which no processor could predict. */
	return !(((key->high ^ entry6->addr[0]) & entry6->mask[0]) |
		 ((key->low ^ entry6->addr[1]) & entry6->mask[1]));
}

/* One node: from its cell to the next one, 0 where the way ends. Its cover, if any, to *cover. */
static __always_inline __u32 fwd_trie_step(FWD_BANK bank, __u32 cell, struct fwd_bits *bits,
					   __u32 *cover)
{
	__u32 index = cell & FWD_CELL_INDEX, slot, bit, taken, rank, skip;
	const struct fwd_node *node = FWD_LINE(bank, index);
	const struct fwd_line *line;

	if (!node)
		return 0;
	if (node->cover)
		*cover = node->cover;
	skip = node->rank[0] & FWD_NODE_SKIP;
	if (skip) {
		/* The bytes to compare are on top of both words. */
		if (((__u32)(bits->high >> 32) ^ node->skip) >> ((FWD_SKIP_MAX - skip) * 8 & 31))
			return 0;
		fwd_bits_shift(bits, skip);
	}
	slot = bits->high >> 56;
	fwd_bits_shift(bits, 1);
	taken = node->taken[slot >> 5 & 7];
	bit = 1u << (slot & 31);
	if (!(taken & bit) && !(node->rank[0] & FWD_NODE_RUNS))
		return 0;
	/* Without a branch: the first rank does not count. */
	rank = node->rank[slot >> 5 & 7] & -(slot >> 5) >> 24;
	rank += fwd_popcount(taken & (bit | (bit - 1))) - 1 + FWD_NODE_HEAD_WORDS;
	line = FWD_LINE(bank, index + rank / FWD_LINE_WORDS);
	return line ? line->word[rank & (FWD_LINE_WORDS - 1)] : 0;
}

/* From the root to the first cell that may be a node's. */
static __always_inline __u32 fwd_trie_top(FWD_BANK bank, __u32 root, struct fwd_bits *bits)
{
	__u32 top = bits->high >> (64 - FWD_TABLE_BITS);
	const struct fwd_line *line;

	if ((root & FWD_CELL_TABLE) != FWD_CELL_TABLE)
		return root;
	line = FWD_LINE(bank, (root & FWD_CELL_INDEX) + top / FWD_LINE_WORDS);
	fwd_bits_shift(bits, FWD_TABLE_BITS / 8);
	return line ? line->word[top & (FWD_LINE_WORDS - 1)] : 0;
}

static __always_inline bool fwd_has_ended(__u64 about)
{
	return FWD_ABOUT_END(about) && FWD_NOW() >= FWD_ABOUT_END(about);
}

/*
 * The most specific entry that covers the key and has not ended, or NULL. *ret_ask: the fast way
 * cannot tell, since it came to a list, or to an entry that has ended and is still there.
 */
static __always_inline struct fwd_entry *fwd_trie_find_fast(FWD_BANK bank, __u32 root,
							    const struct fwd_bits *key, int family,
							    bool *ret_ask)
{
	const int steps = family == FWD_IPV4 ? FWD_STEPS4 : FWD_STEPS6;
	struct fwd_bits bits = *key;
	__u32 cell = fwd_trie_top(bank, root, &bits), cover = 0;
	struct fwd_entry *entry;
	__u64 about;

	*ret_ask = false;
	for (int i = 0; i < steps && cell & FWD_CELL_NODE; i++)
		cell = fwd_trie_step(bank, cell, &bits, &cover);
	if ((cell | cover) & FWD_CELL_LIST) {
		*ret_ask = true;
		return NULL;
	}
	if (cell) {
		entry = FWD_ENTRY(bank, family, cell);
		if (!entry)
			return NULL;
		about = entry->about;
		if (fwd_entry_covers(entry, FWD_ABOUT_LEN(about), key, family)) {
			*ret_ask = fwd_has_ended(about);
			return entry;
		}
	}
	if (!cover)
		return NULL;
	entry = FWD_ENTRY(bank, family, cover);
	*ret_ask = entry && fwd_has_ended(entry->about);
	return entry;
}

/* The first entry of a cell, entry or list, that covers the key and has not ended; 0: none. */
static __always_inline __u32 fwd_cell_find(FWD_BANK bank, __u32 cell, const struct fwd_bits *key,
					   int family)
{
	for (__u32 i = 0; i < FWD_LIST_MAX; i++) {
		const struct fwd_entry *entry;
		const struct fwd_line *line;
		__u32 index = cell;

		if (cell & FWD_CELL_LIST) {
			line = FWD_LINE(bank, (cell & FWD_CELL_INDEX) + i / FWD_LINE_WORDS);
			index = line ? line->word[i & (FWD_LINE_WORDS - 1)] : 0;
		}
		if (!index)
			return 0;
		entry = FWD_ENTRY(bank, family, index);
		if (entry && fwd_entry_covers(entry, FWD_ABOUT_LEN(entry->about), key, family) &&
		    !fwd_has_ended(entry->about))
			return index;
		if (!(cell & FWD_CELL_LIST))
			return 0;
	}
	return 0;
}

/* The same, exact: looks at each entry on the way. */
static __always_inline __u32 fwd_trie_find_exact(FWD_BANK bank, __u32 root,
						 const struct fwd_bits *key, int family)
{
	const int steps = family == FWD_IPV4 ? FWD_STEPS4 : FWD_STEPS6;
	struct fwd_bits bits = *key;
	__u32 cell = fwd_trie_top(bank, root, &bits), found = 0, cover, last;

	for (int i = 0; i < steps && cell & FWD_CELL_NODE; i++) {
		cover = 0;
		cell = fwd_trie_step(bank, cell, &bits, &cover);
		if (!cover)
			continue;
		cover = FWD_CELL_FIND(bank, cover, key, family);
		if (cover)
			found = cover;
	}
	last = cell & FWD_CELL_NODE ? 0 : FWD_CELL_FIND(bank, cell, key, family);
	return last ? last : found;
}

#endif
