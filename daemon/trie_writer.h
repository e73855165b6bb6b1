/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Building and changing a trie (bpf/trie.h). A change is made aside, on copies of what it touches,
 * and hooked in at the end:
 *
 *   trie_begin(), any of trie_put(), trie_remove(), trie_refresh(), or one trie_build();
 *   then the caller stores trie_changed_root() where readers find it, and calls trie_finish();
 *   or trie_abort().
 *
 *   W1  Until that store readers find what they found at trie_begin(); in place, until
 *       trie_finish().
 *   W2  The trie is a function of its entries: whatever changes led there, the same entries make
 *       the same nodes.
 *   W3  After a failure the change can only be aborted, which cannot fail.
 *   W4  A change costs by its prefix's length and nesting, not by the number of entries.
 *   W5  Where there are no readers, what a change leaves is free at once, and a table is changed
 *       where it is. Then an aborted change leaves a trie that is of no use.
 */
#pragma once

#include "line_pool.h"

/* What the trie asks of the entries' owner. */
struct trie_ops {
	/*
	 * The first bits of an entry, zero behind its length. Asked for until the end of the change
	 * that removes it.
	 */
	void (*key)(const void *data, u32 entry, struct fwd_bits *ret_bits, u32 *ret_len);
	/* The entry has an end. */
	bool (*ends)(const void *data, u32 entry);
	/*
	 * The entry of exactly these first `len` bits, 0 for none: also one that is being put, not
	 * one that is being removed. Bits behind `len` are zero.
	 */
	u32 (*exact)(const void *data, struct fwd_bits bits, u32 len);
};

struct trie {
	struct line_pool *pool; /* tries may share one */
	const struct trie_ops *ops;
	const void *data; /* of ops */
	u32 bits;	  /* of an address: 32 or 128 */
	u32 root;	  /* the cell on top; 0: empty */
	bool unseen;	  /* there are no readers (W5) */
	struct trie_change *change;
};

/*
 * 0, -E2BIG (no lines left) or -ENOMEM, and there is no change. Where the top is a table a change
 * copies it, and the copy is the new root. With `in_place` the table stays, and trie_finish()
 * stores the one cell that changed: for changes of one entry of FWD_TABLE_BITS or more, with
 * nothing beside them that has to take effect with them. Where the top is no table that makes no
 * difference.
 */
int trie_begin(struct trie *trie, bool in_place);

/*
 * 0, -E2BIG (no lines left) or -ENOMEM. trie_refresh(): the entry is in the trie and has an end now
 * where it had none, or the other way round. Where it gets one, readers must not see that before
 * the change: until then the list that goes on behind the entry is not there.
 */
int trie_put(struct trie *trie, u32 entry);
int trie_remove(struct trie *trie, u32 entry);
int trie_refresh(struct trie *trie, u32 entry);

/*
 * Makes the whole trie of entries, no two of the same prefix, in order of their bits and, where
 * those are equal, of their length; the trie has to be empty. `table`: with a table on top, for
 * IPv4. Does not ask for ops->exact().
 */
int trie_build(struct trie *trie, const u32 *entries, size_t n, bool table);

/* The root as it will be after the change. */
u32 trie_changed_root(const struct trie *trie);

/*
 * trie_finish() ends the change: hooks it in where it is made in place, retires what it unhooked,
 * and sets trie->root to what readers use from now on. The caller has stored trie_changed_root()
 * for them before.
 */
void trie_finish(struct trie *trie);
void trie_abort(struct trie *trie);

/*
 * Claims (line_pool_claim()) all lines that can be reached from trie->root, and tells every entry
 * that is, some of them several times; whether there is such an entry is for `seen` to find out.
 * -EUCLEAN: it is no trie; the pool is good for nothing then.
 */
int trie_adopt(const struct trie *trie, void (*seen)(void *data, u32 entry), void *data);
