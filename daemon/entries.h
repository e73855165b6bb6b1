/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The entries of one family in a bank (struct fwd_entry, fwd_entry6 in bpf/trie.h): which elements
 * of the map are free, and an index from a prefix to its entry.
 *
 *   N1  An entry is listed in the index from entries_insert() to entries_unlist().
 *   N2  An element that packets may still read is given out again only after a grace period.
 */
#pragma once

#include "cleanup.h"
#include "trie.h"
#include "types.h"

struct entries;

/* Over the map's memory of `capacity` elements, which stays the caller's. NULL: no memory. */
struct entries *entries_new(void *memory, u32 capacity, int family);
void entries_free(struct entries *entries);
DEFINE_CLEANUP(struct entries *, entries_free);

/* Bits are zero behind `len`. 0: there is none. */
u32 entries_find(const struct entries *entries, bool allow, struct fwd_bits bits, u32 len);

/* Makes and lists an entry; 0: there is no room, not even after waiting. `end` as in FWD_ABOUT().
 */
u32 entries_insert(struct entries *entries, bool allow, struct fwd_bits bits, u32 len, u64 end);

/* Puts the entry that an earlier daemon made under `index` on the list. False: it cannot be. */
bool entries_list(struct entries *entries, u32 index);
/* After the last entries_list(): the others are free. 0 or -ENOMEM. */
int entries_listed(struct entries *entries);

/* Takes an entry off the list; entries_relist() puts it back. */
void entries_unlist(struct entries *entries, u32 index);
void entries_relist(struct entries *entries, u32 index);

/* Gives an element back that is not listed: one that no packet has seen, or one that may be read.
 */
void entries_give(struct entries *entries, u32 index);
void entries_retire(struct entries *entries, u32 index);

struct fwd_entry *entries_at(const struct entries *entries, u32 index);
void entries_key(const struct entries *entries, u32 index, struct fwd_bits *ret_bits, u32 *ret_len);

/* Packets and bytes of an entry, in which programs may be counting. */
void entries_read_hits(const struct fwd_entry *entry, u64 *ret_packets, u64 *ret_bytes);
void entries_add_hits(struct fwd_entry *entry, u64 packets, u64 bytes);

u32 entries_used(const struct entries *entries); /* elements that are not free */
u32 entries_capacity(const struct entries *entries);

/* The listed entry from `index` on; 0 at the end. Begin with 1. */
u32 entries_next(const struct entries *entries, u32 index);
