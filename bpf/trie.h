/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The trie: the layout of what leads from an address to the most specific entry that covers it and
 * has not ended. bpf/trie_walk.h reads it, daemon/trie_writer.h makes and changes it.
 *
 * It is made of lines of 64 bytes, the size of a cache line and of an array's element: 16
 * words. A word that leads on is a cell:
 *
 *   0                  nothing
 *   FWD_CELL_NODE | L  a node, whose first line is L
 *   FWD_CELL_LIST | L  several entries, from line L on
 *   I                  the entry I
 *
 *   node   one line, more where it has more than 4 cells: up to 256 slots, by the next byte
 *   table  only on top, of large IPv4 sets, FWD_CELL_NODE | FWD_CELL_LIST | L: 4,096 lines of
 *          cells, by the first two bytes
 *   list   entries of one slot, the most specific first, up to one that never ends, then 0
 *
 * A node's first line begins with the slots that are taken, so that a slot's cell is found by
 * counting the bits below it: a byte and one popcount. Where that makes fewer cells, as a short
 * prefix does that many slots have, a bit says instead that a slot has another cell than the one
 * before it (FWD_NODE_RUNS), and a cell may be 0. A node may skip up to 4 bytes that all below it
 * have in common.
 *
 * Within a node each slot has the entry that is the most specific of those that end in the node's
 * byte; its cover is that of its own slot in the node above. A list stands where the most specific
 * entry can end, so that what it covers up is found when it has, daemon or no daemon. An entry that
 * is alone below a slot stands in that slot, whatever its length: so what is found is a candidate,
 * to be compared with the entry's own prefix. If that fails the covers on the way count, the
 * deepest first.
 *
 *   T1  A line that a reader can reach never changes, but for single words of a table.
 *   T2  A line is used again only after a grace period from the store that unhooked it.
 *   T3  What hooks a change is one store of one word: a reader finds the old or the new, whole.
 *   T4  Cells lead down: at most FWD_STEPS4 or FWD_STEPS6 nodes, whatever the memory holds.
 *   T5  Index 0 stands for no entry, line 0 for no line.
 */
#ifndef FWD_TRIE_H
#define FWD_TRIE_H

#include <linux/types.h>

#define FWD_LINE_WORDS 16

struct fwd_line {
	__u32 word[FWD_LINE_WORDS];
};

#define FWD_CELL_NODE  0x80000000u
#define FWD_CELL_LIST  0x40000000u
#define FWD_CELL_TABLE (FWD_CELL_NODE | FWD_CELL_LIST)
#define FWD_CELL_INDEX 0x3fffffffu

#define FWD_TABLE_BITS	16
#define FWD_TABLE_LINES ((1u << FWD_TABLE_BITS) / FWD_LINE_WORDS)

#define FWD_SLOTS	   256
#define FWD_SKIP_MAX	   4
#define FWD_NODE_CELLS	   4 /* in the first line */
#define FWD_NODE_LINES_MAX (1 + (FWD_SLOTS - FWD_NODE_CELLS + FWD_LINE_WORDS - 1) / FWD_LINE_WORDS)

/* Prefixes of 0 to 16 bits may share a slot of a table. Two lines; the word behind the last is 0.
 */
#define FWD_LIST_MAX (FWD_TABLE_BITS + 1)

/* The first line of a node. */
struct fwd_node {
	__u32 taken[FWD_SLOTS / 32]; /* bit s % 32 of word s / 32: slot s has a cell, or another */
	__u8 rank[FWD_SLOTS / 32];   /* cells of the words below; rank[0]: see below */
	__u32 cover;		     /* a cell: entry or list */
	__u32 skip;		     /* the bytes themselves, the first one on top */
	__u32 cell[FWD_NODE_CELLS];
};

#define FWD_NODE_HEAD_WORDS (FWD_LINE_WORDS - FWD_NODE_CELLS)

/* In the first rank, which would always be 0. */
#define FWD_NODE_SKIP 0x07 /* bytes skipped */
#define FWD_NODE_RUNS 0x80

_Static_assert(sizeof(struct fwd_line) == 64, "a cache line");
_Static_assert(sizeof(struct fwd_node) == sizeof(struct fwd_line), "a node begins with one line");

/* Nodes on the way to the last bit: each takes a byte. */
#define FWD_STEPS4 4
#define FWD_STEPS6 16

/* An address, its first bit on top; IPv4 in the upper half of `high`. */
struct fwd_bits {
	__u64 high, low;
};

/* ---- entries ---- */

#define FWD_IPV4 4
#define FWD_IPV6 6

/*
 * A prefix and all that belongs to it, the elements of the entries' maps; those of IPv6 have their
 * address behind. One cache line holds it, so that a hit touches no second one to count.
 *
 *   E1  `about` and the address are set before an entry is hooked into a trie, and stay until a
 *       grace period after it was unhooked; but for the end, which may be another at any time.
 */
struct fwd_entry {
	__u64 about; /* its end, its length and flags in one word, so that they belong together */
	__u64 hits;  /* packets and bytes, see FWD_HIT() */
	__u32 packet_chunks;
	__u32 byte_chunks;
	__u32 last_hit; /* of bpf_jiffies64(), without FWD_HIT_SHIFT low bits; 0: never */
	__u32 addr;	/* IPv4, host byte order; zero below the prefix */
};

struct fwd_entry6 {
	struct fwd_entry entry;
	__u64 addr[2]; /* the first half first, each in host byte order; zero below the prefix */
	__u64 mask[2]; /* ones above */
};

_Static_assert(sizeof(struct fwd_entry) == 32, "two in a cache line");
_Static_assert(sizeof(struct fwd_entry6) == 64, "a cache line");

/* CLOCK_BOOTTIME in units of some 16 microseconds: 48 bits of them are 146 years. */
#define FWD_END_SHIFT	14
#define FWD_ENTRY_USED	1u /* the element holds an entry */
#define FWD_ENTRY_ALLOW 2u /* of the allowlist */

/* 64 ticks of the kernel, a fraction of a second; 32 bits of them are 8 years at least. */
#define FWD_HIT_SHIFT 6

/*
 * Counting a packet and its bytes is one locked addition to `hits`, which takes half the time of
 * two. Whoever finds a half of it half full moves a chunk on to where there is room for 2^44
 * packets and 2^56 bytes. If many programs do so at once, each moves one: so a half cannot run
 * empty below 8,192 of them, and never overflows.
 */
#define FWD_HIT(bytes)	       ((__u64)1 << FWD_HIT_BYTES_BITS | (bytes))
#define FWD_HIT_BYTES_BITS     38
#define FWD_PACKETS_HALF_FULL  ((__u64)1 << 63)
#define FWD_BYTES_HALF_FULL    ((__u64)1 << (FWD_HIT_BYTES_BITS - 1))
#define FWD_PACKET_CHUNK_SHIFT 12
#define FWD_BYTE_CHUNK_SHIFT   24
#define FWD_PACKET_CHUNK       ((__u64)1 << (FWD_HIT_BYTES_BITS + FWD_PACKET_CHUNK_SHIFT))
#define FWD_BYTE_CHUNK	       ((__u64)1 << FWD_BYTE_CHUNK_SHIFT)

/* `end`: 0 for good. */
#define FWD_ABOUT(end, len, flags) ((__u64)(end) << 16 | (__u64)(len) << 8 | (flags))
#define FWD_ABOUT_END(about)	   ((about) >> 16)
#define FWD_ABOUT_LEN(about)	   ((about) >> 8 & 0xff)
#define FWD_ABOUT_FLAGS(about)	   ((about)&0xff)

#endif
