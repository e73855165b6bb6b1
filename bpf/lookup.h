/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lookup: from an address to the verdict of the blacklist and the allowlist, in one view.
 *
 * The tries hold indices of entries. A trie gives the most specific entry, which may have expired,
 * or be in the other view only; then the next one that covers it counts, so the lookup goes on with
 * a shorter key until an entry counts or none is left.
 */
#ifndef FWD_LOOKUP_H
#define FWD_LOOKUP_H

#include "maps.h"

static __always_inline bool fwd_entry_counts(const struct fwd_entry *entry, __u32 view)
{
	if (!(entry->views >> view & 1))
		return false;
	return !entry->expires_ns || bpf_ktime_get_boot_ns() < entry->expires_ns;
}

/* `steps` is one more than the number of prefix lengths. */
#define FWD_FIND(name, key_type, steps)                                                         \
	static __always_inline struct fwd_entry *name(void *trie, void *entries, key_type *key, \
						      __u32 view)                               \
	{                                                                                       \
		for (int i = 0; i < (steps); i++) {                                             \
			const __u32 *index = bpf_map_lookup_elem(trie, key);                    \
			struct fwd_entry *entry;                                                \
                                                                                                \
			if (!index)                                                             \
				return NULL;                                                    \
			entry = bpf_map_lookup_elem(entries, index);                            \
			if (!entry)                                                             \
				return NULL;                                                    \
			if (fwd_entry_counts(entry, view))                                      \
				return entry;                                                   \
			if (!entry->len)                                                        \
				return NULL;                                                    \
			key->prefixlen = entry->len - 1;                                        \
		}                                                                               \
		return NULL;                                                                    \
	}

FWD_FIND(fwd_find4, struct fwd_key4, 33)
FWD_FIND(fwd_find6, struct fwd_key6, 129)

static __always_inline void fwd_entry_hit(struct fwd_entry *entry, __u64 bytes)
{
	__sync_fetch_and_add(&entry->packets, 1);
	__sync_fetch_and_add(&entry->bytes, bytes);
	entry->last_hit_ns = bpf_ktime_get_boot_ns();
}

/* FWD_DROP, FWD_ALLOW or FWD_PASS; counts the hit in the entry that decides. */
static __always_inline enum fwd_verdict fwd_blacklist_ipv4(const __u8 *addr, __u32 view,
							   __u64 bytes)
{
	struct fwd_key4 key = {.prefixlen = 32};
	struct fwd_entry *blocked, *allowed;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	blocked = fwd_find4(&block4, &block_entries, &key, view);
	if (!blocked)
		return FWD_PASS;
	key.prefixlen = 32;
	allowed = fwd_find4(&allow4, &allow_entries, &key, view);
	fwd_entry_hit(allowed ? allowed : blocked, bytes);
	return allowed ? FWD_ALLOW : FWD_DROP;
}

static __always_inline enum fwd_verdict fwd_blacklist_ipv6(const __u8 *addr, __u32 view,
							   __u64 bytes)
{
	struct fwd_key6 key = {.prefixlen = 128};
	struct fwd_entry *blocked, *allowed;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	blocked = fwd_find6(&block6, &block_entries, &key, view);
	if (!blocked)
		return FWD_PASS;
	key.prefixlen = 128;
	allowed = fwd_find6(&allow6, &allow_entries, &key, view);
	fwd_entry_hit(allowed ? allowed : blocked, bytes);
	return allowed ? FWD_ALLOW : FWD_DROP;
}

#endif
