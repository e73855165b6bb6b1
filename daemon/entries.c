// SPDX-License-Identifier: GPL-2.0-or-later
#include "entries.h"

#include "grace.h"
#include "trie_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct waiting {
	u64 ticket;
	u32 index;
};

struct entries {
	char *memory;
	u32 capacity;
	int family;
	size_t size_bytes; /* of an element */

	u32 unused; /* the first element that was never used */
	u32 used;
	u32 *free;
	size_t n_free, free_room;
	struct waiting *limbo; /* a queue in order of tickets, from `limbo_first` on */
	size_t limbo_first, limbo_end, limbo_room;

	u32 *slots; /* of the index: open addressing, linear probing; 0: empty */
	u32 mask;
};

/* ---- elements ---- */

struct fwd_entry *entries_at(const struct entries *entries, u32 index)
{
	return (struct fwd_entry *)(entries->memory + index * entries->size_bytes);
}

void entries_key(const struct entries *entries, u32 index, struct fwd_bits *ret_bits, u32 *ret_len)
{
	const struct fwd_entry *entry = entries_at(entries, index);
	const struct fwd_entry6 *entry6 = (const struct fwd_entry6 *)entry;

	*ret_len = FWD_ABOUT_LEN(entry->about);
	if (entries->family == FWD_IPV4)
		*ret_bits = (struct fwd_bits){.high = (u64)entry->addr << 32};
	else
		*ret_bits = (struct fwd_bits){entry6->addr[0], entry6->addr[1]};
}

static bool is_allow(const struct fwd_entry *entry)
{
	return FWD_ABOUT_FLAGS(entry->about) & FWD_ENTRY_ALLOW;
}

u32 entries_used(const struct entries *entries)
{
	return entries->used;
}

u32 entries_capacity(const struct entries *entries)
{
	return entries->capacity - 1; /* element 0 stands for none */
}

/* ---- hits ---- */

/* Until no chunk moved on meanwhile. */
void entries_read_hits(const struct fwd_entry *entry, u64 *ret_packets, u64 *ret_bytes)
{
	u32 packet_chunks, byte_chunks;
	u64 hits;

	do {
		packet_chunks = __atomic_load_n(&entry->packet_chunks, __ATOMIC_ACQUIRE);
		byte_chunks = __atomic_load_n(&entry->byte_chunks, __ATOMIC_ACQUIRE);
		hits = __atomic_load_n(&entry->hits, __ATOMIC_ACQUIRE);
	} while (packet_chunks != __atomic_load_n(&entry->packet_chunks, __ATOMIC_ACQUIRE) ||
		 byte_chunks != __atomic_load_n(&entry->byte_chunks, __ATOMIC_ACQUIRE));
	*ret_packets =
		((u64)packet_chunks << FWD_PACKET_CHUNK_SHIFT) + (hits >> FWD_HIT_BYTES_BITS);
	*ret_bytes = ((u64)byte_chunks << FWD_BYTE_CHUNK_SHIFT) + (hits & (FWD_HIT(0) - 1));
}

void entries_add_hits(struct fwd_entry *entry, u64 packets, u64 bytes)
{
	u64 hits = (packets & ((1u << FWD_PACKET_CHUNK_SHIFT) - 1)) << FWD_HIT_BYTES_BITS |
		   (bytes & (FWD_BYTE_CHUNK - 1));

	__atomic_fetch_add(&entry->packet_chunks, (u32)(packets >> FWD_PACKET_CHUNK_SHIFT),
			   __ATOMIC_RELAXED);
	__atomic_fetch_add(&entry->byte_chunks, (u32)(bytes >> FWD_BYTE_CHUNK_SHIFT),
			   __ATOMIC_RELAXED);
	__atomic_fetch_add(&entry->hits, hits, __ATOMIC_RELAXED);
}

/* ---- the index ---- */

/* The finalizer of MurmurHash3, over all that makes a key. */
static u32 hash(bool allow, struct fwd_bits bits, u32 len)
{
	u64 h = bits.high ^ (bits.low * 0x9e3779b97f4a7c15ull) ^ (u64)(len << 1 | allow);

	h = (h ^ h >> 33) * 0xff51afd7ed558ccdull;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ull;
	return (u32)(h ^ h >> 33);
}

static u32 hash_of(const struct entries *entries, u32 index)
{
	struct fwd_bits bits;
	u32 len;

	entries_key(entries, index, &bits, &len);
	return hash(is_allow(entries_at(entries, index)), bits, len);
}

static bool is_key(const struct entries *entries, u32 index, bool allow, struct fwd_bits bits,
		   u32 len)
{
	struct fwd_bits other;
	u32 other_len;

	entries_key(entries, index, &other, &other_len);
	return other.high == bits.high && other.low == bits.low && other_len == len &&
	       is_allow(entries_at(entries, index)) == allow;
}

u32 entries_find(const struct entries *entries, bool allow, struct fwd_bits bits, u32 len)
{
	u32 slot = hash(allow, bits, len) & entries->mask;

	while (entries->slots[slot] && !is_key(entries, entries->slots[slot], allow, bits, len))
		slot = (slot + 1) & entries->mask;
	return entries->slots[slot];
}

/* The index is larger than the map, so there is an empty slot. */
void entries_relist(struct entries *entries, u32 index)
{
	u32 slot = hash_of(entries, index) & entries->mask;

	while (entries->slots[slot])
		slot = (slot + 1) & entries->mask;
	entries->slots[slot] = index;
}

/* Closes the gap, so that no look-up stops before what it looks for. */
void entries_unlist(struct entries *entries, u32 index)
{
	u32 gap = hash_of(entries, index) & entries->mask, slot, home;

	while (entries->slots[gap] != index)
		gap = (gap + 1) & entries->mask;
	for (slot = (gap + 1) & entries->mask; entries->slots[slot];
	     slot = (slot + 1) & entries->mask) {
		home = hash_of(entries, entries->slots[slot]) & entries->mask;
		if (((slot - home) & entries->mask) < ((slot - gap) & entries->mask))
			continue;
		entries->slots[gap] = entries->slots[slot];
		gap = slot;
	}
	entries->slots[gap] = 0;
}

/* ---- free elements ---- */

/* Where memory for the note is lacking, the element is lost until the bank is made anew. */
void entries_give(struct entries *entries, u32 index)
{
	entries_at(entries, index)->about = 0;
	entries->used--;
	if (entries->n_free == entries->free_room) {
		size_t room = entries->free_room ? entries->free_room * 2 : 256;
		u32 *more = reallocarray(entries->free, room, sizeof(*more));

		if (!more)
			return;
		entries->free = more;
		entries->free_room = room;
	}
	entries->free[entries->n_free++] = index;
}

static void reclaim(struct entries *entries)
{
	while (entries->limbo_first < entries->limbo_end &&
	       grace_over(entries->limbo[entries->limbo_first].ticket))
		entries_give(entries, entries->limbo[entries->limbo_first++].index);
}

void entries_retire(struct entries *entries, u32 index)
{
	reclaim(entries);
	/* What packets look at stays (E1). */
	entries_at(entries, index)->about &= ~(u64)FWD_ENTRY_USED;
	if (entries->limbo_end == entries->limbo_room && entries->limbo_first) {
		entries->limbo_end -= entries->limbo_first;
		memmove(entries->limbo, entries->limbo + entries->limbo_first,
			entries->limbo_end * sizeof(*entries->limbo));
		entries->limbo_first = 0;
	}
	if (entries->limbo_end == entries->limbo_room) {
		size_t room = entries->limbo_room ? entries->limbo_room * 2 : 256;
		struct waiting *more = reallocarray(entries->limbo, room, sizeof(*more));

		if (!more)
			return;
		entries->limbo = more;
		entries->limbo_room = room;
	}
	entries->limbo[entries->limbo_end++] = (struct waiting){grace_ticket(), index};
}

static u32 take(struct entries *entries)
{
	u32 index = 0;

	if (!entries->n_free)
		reclaim(entries);
	if (!entries->n_free && entries->unused == entries->capacity &&
	    entries->limbo_first < entries->limbo_end) {
		grace_wait_for(entries->limbo[entries->limbo_first].ticket);
		reclaim(entries);
	}
	if (entries->n_free)
		index = entries->free[--entries->n_free];
	else if (entries->unused < entries->capacity)
		index = entries->unused++;
	if (index)
		entries->used++;
	return index;
}

u32 entries_insert(struct entries *entries, bool allow, struct fwd_bits bits, u32 len, u64 end)
{
	u32 index = take(entries);
	struct fwd_entry *entry = entries_at(entries, index);

	if (!index)
		return 0;
	memset(entry, 0, entries->size_bytes);
	if (entries->family == FWD_IPV4) {
		entry->addr = (u32)(bits.high >> 32);
	} else {
		struct fwd_entry6 *entry6 = (struct fwd_entry6 *)entry;

		entry6->addr[0] = bits.high;
		entry6->addr[1] = bits.low;
		entry6->mask[0] = trie_mask(len).high;
		entry6->mask[1] = trie_mask(len).low;
	}
	entry->about = FWD_ABOUT(end, len, FWD_ENTRY_USED | (allow ? FWD_ENTRY_ALLOW : 0));
	entries_relist(entries, index);
	return index;
}

/* ---- taking up ---- */

bool entries_list(struct entries *entries, u32 index)
{
	const struct fwd_entry *entry = entries_at(entries, index);
	struct fwd_bits bits;
	u32 len;

	entries_key(entries, index, &bits, &len);
	if (!(FWD_ABOUT_FLAGS(entry->about) & FWD_ENTRY_USED) ||
	    len > (entries->family == FWD_IPV4 ? 32 : 128) ||
	    entries_find(entries, is_allow(entry), bits, len))
		return false;
	entries_relist(entries, index);
	entries->used++;
	return true;
}

int entries_listed(struct entries *entries)
{
	u32 last = entries->capacity;

	while (last > 1 && !entries_at(entries, last - 1)->about)
		last--;
	entries->unused = last;
	for (u32 index = 1; index < last; index++) {
		if (FWD_ABOUT_FLAGS(entries_at(entries, index)->about) & FWD_ENTRY_USED)
			continue;
		entries->used++; /* for entries_give() */
		entries_give(entries, index);
	}
	return entries->n_free + entries->used + 1 == last ? 0 : -ENOMEM;
}

u32 entries_next(const struct entries *entries, u32 index)
{
	for (; index < entries->unused; index++)
		if (FWD_ABOUT_FLAGS(entries_at(entries, index)->about) & FWD_ENTRY_USED)
			return index;
	return 0;
}

struct entries *entries_new(void *memory, u32 capacity, int family)
{
	_cleanup_(entries_freep) struct entries *entries = calloc(1, sizeof(*entries));
	u32 slots = 16;

	if (!entries)
		return NULL;
	/* At most two thirds full. */
	while (slots < capacity + capacity / 2)
		slots *= 2;
	*entries = (struct entries){
		.memory = memory,
		.capacity = capacity,
		.family = family,
		.size_bytes =
			family == FWD_IPV4 ? sizeof(struct fwd_entry) : sizeof(struct fwd_entry6),
		.unused = 1,
		.mask = slots - 1,
	};
	entries->slots = calloc(slots, sizeof(*entries->slots));
	return entries->slots ? take_pointer(&entries) : NULL;
}

void entries_free(struct entries *entries)
{
	if (!entries)
		return;
	free(entries->free);
	free(entries->limbo);
	free(entries->slots);
	free(entries);
}
