/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares a trie that packets look through with a model of it: one that was built from the same
 * entries has the same nodes (W2 in trie_writer.h), only other numbers of lines and entries.
 *
 *   Q1  The model alone leads the walk, and what stands in the other memory is checked before it is
 *       used: whatever that holds, the walk ends, and stays within.
 *   Q2  No finding means that every look-up finds what it finds in the model.
 */
#pragma once

#include "trie_reader.h"

enum trie_fault {
	TRIE_MISSING,	/* of the model; packets do not find it, or not everywhere below it */
	TRIE_UNWANTED,	/* packets find it, and the model has no such entry */
	TRIE_OTHER_END, /* it ends at another time than in the model */
	TRIE_GARBLED,	/* below these bits it is damaged in a way that no entry tells of */
};

/* Called for each finding, for some more than once. 0, or an error that ends the comparison. */
typedef int (*trie_found)(void *data, enum trie_fault fault, struct fwd_bits bits, u32 len);

/*
 * `family` is FWD_IPV4 or FWD_IPV6. Both have a table on top, or neither has. 0, -ENOMEM, or what
 * found() returned.
 */
int trie_compare(const struct trie_memory *seen, u32 seen_root, const struct trie_memory *model,
		 u32 model_root, int family, trie_found found, void *data);
