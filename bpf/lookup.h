/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From an address to the verdict of the blacklist and the allowlist, in one view. */
#ifndef FWD_LOOKUP_H
#define FWD_LOOKUP_H

#include "maps.h"

#include <bpf/bpf_endian.h>

static __always_inline void *fwd_element(void *map, __u32 index)
{
	return bpf_map_lookup_elem(map, &index);
}

/*
 * A map has to be a constant to the verifier, for it to put the look-up into the program itself. So
 * what walks a trie stands once a bank, whose number is a constant to it.
 */
#define FWD_BANK	      const __u32
#define FWD_LINE(bank, index) ((bank) ? fwd_element(&lines_1, index) : fwd_element(&lines_0, index))
#define FWD_ENTRY(bank, family, index)                                                          \
	((family) == FWD_IPV4                                                                   \
		 ? ((bank) ? fwd_element(&entries4_1, index) : fwd_element(&entries4_0, index)) \
		 : ((bank) ? fwd_element(&entries6_1, index) : fwd_element(&entries6_0, index)))
#define FWD_CELL_FIND(bank, cell, key, family)                          \
	((family) == FWD_IPV4 ? fwd_cell_find4(bank, cell, (key)->high) \
			      : fwd_cell_find6(bank, cell, (key)->high, (key)->low))
#define FWD_NOW() (bpf_ktime_get_boot_ns() >> FWD_END_SHIFT)

__u32 fwd_cell_find4(__u32 bank, __u32 cell, __u64 high);
__u32 fwd_cell_find6(__u32 bank, __u32 cell, __u64 high, __u64 low);

#include "trie_walk.h"

/*
 * What is rarely needed stands out of line, and is global: so the verifier looks at it once, not at
 * each call.
 */
__noinline __u32 fwd_cell_find4(__u32 bank, __u32 cell, __u64 high)
{
	const struct fwd_bits key = {.high = high};

	return bank ? fwd_cell_find(1, cell, &key, FWD_IPV4)
		    : fwd_cell_find(0, cell, &key, FWD_IPV4);
}

__noinline __u32 fwd_cell_find6(__u32 bank, __u32 cell, __u64 high, __u64 low)
{
	const struct fwd_bits key = {high, low};

	return bank ? fwd_cell_find(1, cell, &key, FWD_IPV6)
		    : fwd_cell_find(0, cell, &key, FWD_IPV6);
}

__noinline __u32 fwd_find_exact4(__u32 bank, __u32 root, __u64 high)
{
	const struct fwd_bits key = {.high = high};

	return bank ? fwd_trie_find_exact(1, root, &key, FWD_IPV4)
		    : fwd_trie_find_exact(0, root, &key, FWD_IPV4);
}

__noinline __u32 fwd_find_exact6(__u32 bank, __u32 root, __u64 high, __u64 low)
{
	const struct fwd_bits key = {high, low};

	return bank ? fwd_trie_find_exact(1, root, &key, FWD_IPV6)
		    : fwd_trie_find_exact(0, root, &key, FWD_IPV6);
}

/* The index of the entry, 0: none. */
static __always_inline __u32 fwd_find_exact(__u32 bank, __u32 root, const struct fwd_bits *key,
					    int family)
{
	return family == FWD_IPV4 ? fwd_find_exact4(bank, root, key->high)
				  : fwd_find_exact6(bank, root, key->high, key->low);
}

/* V3: a root is read once. */
static __always_inline __u32 fwd_root(const struct fwd_view *view, enum fwd_trie trie)
{
	return *(const volatile __u32 *)&view->root[trie];
}

static __always_inline void fwd_entry_hit(struct fwd_entry *entry, __u64 bytes)
{
	/* As it was before: to read what was just written in this way would mean to wait for it. */
	__u64 hits = *(volatile __u64 *)&entry->hits;

	__sync_fetch_and_add(&entry->hits, FWD_HIT(bytes));
	if (hits & FWD_PACKETS_HALF_FULL) {
		__sync_fetch_and_add(&entry->packet_chunks, 1);
		__sync_fetch_and_add(&entry->hits, -FWD_PACKET_CHUNK);
	}
	if (hits & FWD_BYTES_HALF_FULL) {
		__sync_fetch_and_add(&entry->byte_chunks, 1);
		__sync_fetch_and_add(&entry->hits, -FWD_BYTE_CHUNK);
	}
	entry->last_hit = bpf_jiffies64() >> FWD_HIT_SHIFT;
}

static __always_inline enum fwd_verdict fwd_blacklist_in(FWD_BANK bank, const struct fwd_view *view,
							 const struct fwd_bits *key, int family,
							 __u64 bytes)
{
	__u32 block = fwd_root(view, family == FWD_IPV4 ? FWD_BLOCK4 : FWD_BLOCK6);
	__u32 allow = fwd_root(view, family == FWD_IPV4 ? FWD_ALLOW4 : FWD_ALLOW6);
	struct fwd_entry *blocked, *allowed = NULL;
	bool ask;

	if (!block)
		return FWD_PASS;
	blocked = fwd_trie_find_fast(bank, block, key, family, &ask);
	if (ask) {
		block = fwd_find_exact(bank, block, key, family);
		blocked = block ? FWD_ENTRY(bank, family, block) : NULL;
	}
	if (!blocked)
		return FWD_PASS;
	if (allow) {
		allow = fwd_find_exact(bank, allow, key, family);
		allowed = allow ? FWD_ENTRY(bank, family, allow) : NULL;
	}
	if (allowed) {
		fwd_entry_hit(allowed, bytes);
		return FWD_ALLOW;
	}
	fwd_entry_hit(blocked, bytes);
	return FWD_DROP;
}

/* FWD_DROP, FWD_ALLOW or FWD_PASS; counts the hit in the entry that decides. */
static __always_inline enum fwd_verdict fwd_blacklist(const struct fwd_view *view,
						      const struct fwd_bits *key, int family,
						      __u64 bytes)
{
	return view->bank ? fwd_blacklist_in(1, view, key, family, bytes)
			  : fwd_blacklist_in(0, view, key, family, bytes);
}

static __always_inline enum fwd_verdict fwd_blacklist_ipv4(const struct fwd_view *view, __be32 addr,
							   __u64 bytes)
{
	const struct fwd_bits key = {.high = (__u64)bpf_ntohl(addr) << 32};

	return fwd_blacklist(view, &key, FWD_IPV4, bytes);
}

/* The address need not be aligned. */
static __always_inline enum fwd_verdict fwd_blacklist_ipv6(const struct fwd_view *view,
							   const __be32 addr[4], __u64 bytes)
{
	const struct fwd_bits key = {
		.high = (__u64)bpf_ntohl(addr[0]) << 32 | bpf_ntohl(addr[1]),
		.low = (__u64)bpf_ntohl(addr[2]) << 32 | bpf_ntohl(addr[3]),
	};

	return fwd_blacklist(view, &key, FWD_IPV6, bytes);
}

#endif
