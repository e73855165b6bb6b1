// SPDX-License-Identifier: GPL-2.0-or-later
#include "prefix_map.h"

#include "grace.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Where an entry stands while it is changed. */
struct staged {
	u32 index;
	u8 kind;
	u64 expires_ns;
};

struct prefix_map {
	struct prefix_map_fds fds;
	struct fwd_entry *entries;
	u32 size;
	u32 unused; /* the first entry that was never used */
	u32 *free;
	u32 n_free;
	u32 *limbo; /* freed, but a packet may still hold them (V4) */
	u32 n_limbo;
	struct staged *staged;
	size_t n_staged;
	unsigned staged_view;
};

union key {
	struct fwd_key4 v4;
	struct fwd_key6 v6;
};

static int make_key(const struct prefix_map *map, const u8 *addr, u8 family, u8 len, union key *key)
{
	if (family == FAMILY_IPV4) {
		key->v4.prefixlen = len;
		memcpy(key->v4.addr, addr, sizeof(key->v4.addr));
		return map->fds.trie4;
	}
	key->v6.prefixlen = len;
	memcpy(key->v6.addr, addr, sizeof(key->v6.addr));
	return map->fds.trie6;
}

static void entry_prefix(const struct fwd_entry *entry, struct prefix *ret)
{
	ret->family = entry->family;
	ret->len = entry->len;
	memcpy(ret->addr, entry->addr, sizeof(ret->addr));
}

/* Bytes and flags that a packet's program reads meanwhile: one plain store each. */
static void set_views(struct fwd_entry *entry, u8 views)
{
	__atomic_store_n(&entry->views, views, __ATOMIC_RELEASE);
}

static bool find_index(const struct prefix_map *map, const struct prefix *prefix, u32 *ret)
{
	const struct fwd_entry *entry;
	union key key;
	u32 index;
	int trie = make_key(map, prefix->addr, prefix->family, prefix->len, &key);

	if (bpf_map_lookup_elem(trie, &key, &index) < 0 || index >= map->fds.capacity)
		return false;
	entry = &map->entries[index];
	/* The trie gives the most specific one, which may be a shorter prefix. */
	if (!entry->used || entry->len != prefix->len || entry->family != prefix->family)
		return false;
	*ret = index;
	return true;
}

/* ---- room ---- */

static void reclaim(struct prefix_map *map)
{
	grace_wait();
	memcpy(map->free + map->n_free, map->limbo, map->n_limbo * sizeof(*map->free));
	map->n_free += map->n_limbo;
	map->n_limbo = 0;
}

static bool allocate(struct prefix_map *map, u32 *ret)
{
	if (!map->n_free && map->unused == map->fds.capacity && map->n_limbo)
		reclaim(map);
	if (map->n_free)
		*ret = map->free[--map->n_free];
	else if (map->unused < map->fds.capacity)
		*ret = map->unused++;
	else
		return false;
	return true;
}

/* Takes an entry out of its trie and lets it go. */
static void unlink_entry(struct prefix_map *map, u32 index)
{
	struct fwd_entry *entry = &map->entries[index];
	union key key;
	int trie = make_key(map, entry->addr, entry->family, entry->len, &key);

	set_views(entry, 0); /* E2 */
	bpf_map_delete_elem(trie, &key);
	entry->used = 0; /* E1 */
	map->limbo[map->n_limbo++] = index;
}

/* ---- changes ---- */

static int stage_insert(struct prefix_map *map, unsigned view, const struct prefix_change *change,
			u32 *ret_index, struct error *err)
{
	const struct prefix *prefix = &change->prefix;
	struct fwd_entry *entry;
	union key key;
	u32 index;
	int trie, r;

	if (find_index(map, prefix, &index))
		return error_set(err, -EEXIST, "an entry to be added is there already");
	if (!allocate(map, &index))
		return error_set(err, -E2BIG, "no room for another entry among %u",
				 map->fds.capacity);
	entry = &map->entries[index];
	*entry = (struct fwd_entry){
		.family = prefix->family,
		.len = prefix->len,
		.used = 1,
		.expires_ns = change->expires_ns,
	};
	memcpy(entry->addr, prefix->addr, sizeof(entry->addr));
	trie = make_key(map, prefix->addr, prefix->family, prefix->len, &key);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (bpf_map_update_elem(trie, &key, &index, BPF_NOEXIST) < 0) {
		r = -errno;
		entry->used = 0;
		map->free[map->n_free++] = index;
		return error_set(err, r, "the kernel does not take another entry: %s",
				 error_name(r));
	}
	set_views(entry, (u8)(1u << view)); /* E2 */
	*ret_index = index;
	return 0;
}

static int stage_one(struct prefix_map *map, unsigned view, const struct prefix_change *change,
		     struct staged *ret, struct error *err)
{
	struct staged staged = {.kind = change->kind, .expires_ns = change->expires_ns};
	struct fwd_entry *entry;
	int r;

	if (change->kind == PREFIX_INSERT) {
		r = stage_insert(map, view, change, &staged.index, err);
		if (r < 0)
			return r;
	} else if (!find_index(map, &change->prefix, &staged.index)) {
		return error_set(err, -ENOENT, "an entry to be changed is not there");
	} else if (change->kind == PREFIX_REMOVE) {
		entry = &map->entries[staged.index];
		set_views(entry, entry->views & (u8) ~(1u << view));
	}
	*ret = staged;
	return 0;
}

int prefix_map_stage(struct prefix_map *map, unsigned view, const struct prefix_change *changes,
		     size_t n, struct error *err)
{
	struct staged *staged;
	int r;

	if (!n)
		return 0;
	staged = reallocarray(NULL, n, sizeof(*staged));
	if (!staged)
		return error_no_memory(err);
	map->staged = staged;
	map->staged_view = view;
	for (size_t i = 0; i < n; i++) {
		r = stage_one(map, view, &changes[i], &staged[i], err);
		if (r < 0) {
			prefix_map_abort(map);
			return r;
		}
		map->n_staged = i + 1;
	}
	return 0;
}

static void forget_staged(struct prefix_map *map)
{
	free(map->staged);
	map->staged = NULL;
	map->n_staged = 0;
}

void prefix_map_settle(struct prefix_map *map)
{
	const u8 both = (1u << FWD_VIEWS) - 1;

	for (size_t i = 0; i < map->n_staged; i++) {
		const struct staged *staged = &map->staged[i];
		struct fwd_entry *entry = &map->entries[staged->index];

		switch ((enum prefix_change_kind)staged->kind) {
		case PREFIX_INSERT:
			set_views(entry, both); /* V1 */
			map->size++;
			break;
		case PREFIX_REMOVE:
			unlink_entry(map, staged->index);
			map->size--;
			break;
		case PREFIX_RETIME:
			__atomic_store_n(&entry->expires_ns, staged->expires_ns, __ATOMIC_RELAXED);
			break;
		}
	}
	forget_staged(map);
}

void prefix_map_abort(struct prefix_map *map)
{
	for (size_t i = 0; i < map->n_staged; i++) {
		const struct staged *staged = &map->staged[i];
		struct fwd_entry *entry = &map->entries[staged->index];

		if (staged->kind == PREFIX_INSERT)
			unlink_entry(map, staged->index);
		else if (staged->kind == PREFIX_REMOVE)
			set_views(entry, entry->views | (u8)(1u << map->staged_view));
	}
	forget_staged(map);
}

/* ---- opening ---- */

/* True if packets see the entry, so it is whole (E2). Anything else is a rest of a daemon's death.
 */
static bool is_sound(const struct fwd_entry *entry, unsigned view)
{
	return entry->used && (entry->views >> view & 1) &&
	       (entry->family == FAMILY_IPV4 || entry->family == FAMILY_IPV6) &&
	       entry->len <= family_bits(entry->family);
}

static void adopt(struct prefix_map *map, unsigned view)
{
	for (u32 i = 0; i < map->fds.capacity; i++)
		if (map->entries[i].used || map->entries[i].views)
			map->unused = i + 1;
	for (u32 i = 0; i < map->unused; i++) {
		struct fwd_entry *entry = &map->entries[i];
		struct prefix prefix;
		u32 index;

		if (is_sound(entry, view)) {
			set_views(entry, (1u << FWD_VIEWS) - 1);
			map->size++;
			continue;
		}
		entry_prefix(entry, &prefix);
		if (entry->used && prefix.len <= family_bits(prefix.family) &&
		    find_index(map, &prefix, &index) && index == i) {
			unlink_entry(map, i);
			continue;
		}
		set_views(entry, 0);
		entry->used = 0;
		map->limbo[map->n_limbo++] = i;
	}
}

static size_t mapped_bytes(u32 capacity)
{
	return capacity * sizeof(struct fwd_entry);
}

int prefix_map_open(const struct prefix_map_fds *fds, unsigned view, struct prefix_map **ret,
		    struct error *err)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = calloc(1, sizeof(*map));
	void *memory;

	if (!map)
		return error_no_memory(err);
	map->fds = *fds;
	map->free = calloc(fds->capacity, sizeof(*map->free));
	map->limbo = calloc(fds->capacity, sizeof(*map->limbo));
	if (!map->free || !map->limbo)
		return error_no_memory(err);
	memory = mmap(NULL, mapped_bytes(fds->capacity), PROT_READ | PROT_WRITE, MAP_SHARED,
		      fds->entries, 0);
	if (memory == MAP_FAILED)
		return error_set(err, -errno, "cannot map the entries: %s", error_name(errno));
	map->entries = memory;
	adopt(map, view);
	*ret = take_pointer(&map);
	return 0;
}

void prefix_map_close(struct prefix_map *map)
{
	if (!map)
		return;
	if (map->entries)
		munmap(map->entries, mapped_bytes(map->fds.capacity));
	free(map->staged);
	free(map->free);
	free(map->limbo);
	free(map);
}

/* ---- reading ---- */

u32 prefix_map_size(const struct prefix_map *map)
{
	return map->size;
}

u32 prefix_map_capacity(const struct prefix_map *map)
{
	return map->fds.capacity;
}

const struct fwd_entry *prefix_map_find(const struct prefix_map *map, const struct prefix *prefix)
{
	u32 index;

	return find_index(map, prefix, &index) ? &map->entries[index] : NULL;
}

static int compare_items(const void *a, const void *b)
{
	const struct prefix_map_item *x = a, *y = b;

	return prefix_compare(&x->prefix, &y->prefix);
}

int prefix_map_snapshot(const struct prefix_map *map, struct prefix_map_item **ret, size_t *ret_n,
			struct error *err)
{
	struct prefix_map_item *items = calloc((size_t)map->size + 1, sizeof(*items));
	size_t n = 0;

	if (!items)
		return error_no_memory(err);
	for (u32 i = 0; i < map->unused && n < map->size; i++) {
		const struct fwd_entry *entry = &map->entries[i];

		if (!entry->used || !entry->views)
			continue;
		entry_prefix(entry, &items[n].prefix);
		items[n++].expires_ns = entry->expires_ns;
	}
	qsort(items, n, sizeof(*items), compare_items);
	*ret = items;
	*ret_n = n;
	return 0;
}

void prefix_map_copy_counters(const struct prefix_map *from, struct prefix_map *to)
{
	for (u32 i = 0; i < from->unused; i++) {
		const struct fwd_entry *old = &from->entries[i];
		struct fwd_entry *entry;
		struct prefix prefix;
		u32 index;

		if (!old->used || !old->packets)
			continue;
		entry_prefix(old, &prefix);
		if (!find_index(to, &prefix, &index))
			continue;
		entry = &to->entries[index];
		__atomic_fetch_add(&entry->packets, old->packets, __ATOMIC_RELAXED);
		__atomic_fetch_add(&entry->bytes, old->bytes, __ATOMIC_RELAXED);
		if (entry->last_hit_ns < old->last_hit_ns)
			entry->last_hit_ns = old->last_hit_ns;
	}
}
