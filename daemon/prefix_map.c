// SPDX-License-Identifier: GPL-2.0-or-later
#include "prefix_map.h"

#include "entries.h"
#include "trie_writer.h"

#include <bpf/bpf.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* A flag of an entry that only this file sees: whether it ends is about to change. */
#define FLAG_TURNING 4u

/*
 * From this many entries on a trie gets a table on top, which costs 256 KiB. Of 1,000 entries it
 * halves the time of a look-up (docs/performance.md).
 */
#define TABLE_FROM 64

/* Slots of a table that entries with an end may take; each of them can need a list. */
#define TABLE_LISTS_MAX 4096

/*
 * Lines beside those of the content. A change of a thousand prefixes leaves some two thousand
 * lines, and with a hundred such changes a second several of them wait for the same grace period.
 */
#define LINES_LEAST   1024
#define LINES_GROWING 8192

/* From here on, as much room again would be a lot of memory. */
#define LARGE_FROM (256u << 10)

#define FAMILIES 2

/* Where an entry stands while it is changed. */
struct staged {
	u32 index;
	u8 kind, trie;
	u64 end;
};

/* What the trie's writer is told of the entries: those of one table. */
struct side {
	const struct entries *entries;
	bool allow;
};

struct prefix_map {
	int fds[PART_COUNT];
	void *memory[PART_COUNT];
	u32 elements[PART_COUNT];
	bool is_model; /* its memory is the daemon's own: it has no maps */
	struct entries *entries[FAMILIES];
	struct line_pool *pool;
	struct side sides[FWD_TRIES];
	struct trie tries[FWD_TRIES];
	u32 size[TABLE_COUNT];
	bool growing; /* it is made with more room */

	struct staged *staged;
	size_t n_staged;
};

static const struct {
	const char *name;
	size_t size_bytes;
} parts[] = {
	[PART_LINES] = {FWD_MAP_LINES, sizeof(struct fwd_line)},
	[PART_ENTRIES4] = {FWD_MAP_ENTRIES4, sizeof(struct fwd_entry)},
	[PART_ENTRIES6] = {FWD_MAP_ENTRIES6, sizeof(struct fwd_entry6)},
};
_Static_assert(ARRAY_SIZE(parts) == PART_COUNT, "each part");

/* ---- keys ---- */

static unsigned family_of(unsigned trie)
{
	return trie & 1; /* enum fwd_trie */
}

static unsigned trie_of(unsigned table, const struct prefix *prefix)
{
	return table * 2 + (prefix->family == FAMILY_IPV6);
}

static struct fwd_bits bits_of(const struct prefix *prefix)
{
	u64 words[2];

	memcpy(words, prefix->addr, sizeof(words));
	return (struct fwd_bits){be64toh(words[0]), be64toh(words[1])};
}

void prefix_map_prefix(struct fwd_bits bits, u32 len, unsigned trie, struct prefix *ret)
{
	u64 words[2] = {htobe64(bits.high), htobe64(bits.low)};

	*ret = (struct prefix){
		.family = family_of(trie) ? FAMILY_IPV6 : FAMILY_IPV4,
		.len = (u8)len,
	};
	memcpy(ret->addr, words, sizeof(words));
}

/* Rounded up: an entry must not end early. */
static u64 end_of(u64 expires_ns)
{
	return (expires_ns + (1u << FWD_END_SHIFT) - 1) >> FWD_END_SHIFT;
}

static struct entries *entries_of(const struct prefix_map *map, unsigned trie)
{
	return map->entries[family_of(trie)];
}

static u32 find(const struct prefix_map *map, unsigned table, const struct prefix *prefix)
{
	unsigned trie = trie_of(table, prefix);

	return entries_find(entries_of(map, trie), table == TABLE_ALLOW, bits_of(prefix),
			    prefix->len);
}

static void side_key(const void *data, u32 entry, struct fwd_bits *ret_bits, u32 *ret_len)
{
	const struct side *side = data;

	entries_key(side->entries, entry, ret_bits, ret_len);
}

static bool side_ends(const void *data, u32 entry)
{
	const struct side *side = data;
	u64 about = entries_at(side->entries, entry)->about;

	return (FWD_ABOUT_END(about) != 0) != ((about & FLAG_TURNING) != 0);
}

static u32 side_exact(const void *data, struct fwd_bits bits, u32 len)
{
	const struct side *side = data;

	return entries_find(side->entries, side->allow, bits, len);
}

static const struct trie_ops side_ops = {side_key, side_ends, side_exact};

/* ---- changes ---- */

static void set_about(struct fwd_entry *entry, u64 about)
{
	__atomic_store_n(&entry->about, about, __ATOMIC_RELEASE);
}

static void turn(struct fwd_entry *entry)
{
	set_about(entry, entry->about ^ FLAG_TURNING);
}

static int stage_insert(struct prefix_map *map, struct trie *trie, const struct prefix_item *item,
			struct staged *staged, struct error *err)
{
	struct entries *entries = entries_of(map, staged->trie);

	if (find(map, item->table, &item->prefix))
		return error_set(err, -EEXIST, "an entry to be added is there already");
	staged->index = entries_insert(entries, item->table == TABLE_ALLOW, bits_of(&item->prefix),
				       item->prefix.len, staged->end);
	if (!staged->index)
		return error_set(err, -E2BIG, "no room for another entry");
	map->n_staged++;
	return trie_put(trie, staged->index);
}

static int stage_old(struct prefix_map *map, struct trie *trie, const struct prefix_item *item,
		     struct staged *staged, struct error *err)
{
	struct entries *entries = entries_of(map, staged->trie);
	struct fwd_entry *entry;

	staged->index = find(map, item->table, &item->prefix);
	if (!staged->index)
		return error_set(err, -ENOENT, "an entry to be changed is not there");
	map->n_staged++;
	if (staged->kind == PREFIX_REMOVE) {
		entries_unlist(entries, staged->index);
		return trie_remove(trie, staged->index);
	}
	entry = entries_at(entries, staged->index);
	if (!staged->end == !FWD_ABOUT_END(entry->about))
		return 0;
	turn(entry);
	return trie_refresh(trie, staged->index);
}

/* One change; counted in n_staged once there is something to undo. */
static int stage_one(struct prefix_map *map, const struct prefix_change *change, bool alone,
		     struct error *err)
{
	const struct prefix_item *item = &change->item;
	struct staged *staged = &map->staged[map->n_staged];
	struct trie *trie = &map->tries[trie_of(item->table, &item->prefix)];
	int r = 0;

	*staged = (struct staged){
		.kind = change->kind,
		.trie = (u8)trie_of(item->table, &item->prefix),
		.end = end_of(item->expires_ns),
	};
	if (!trie->change)
		r = trie_begin(trie, alone && item->prefix.len >= FWD_TABLE_BITS);
	if (!r)
		r = change->kind == PREFIX_INSERT ? stage_insert(map, trie, item, staged, err)
						  : stage_old(map, trie, item, staged, err);
	if (r == -E2BIG)
		return error_set(err, r, "no room for another entry");
	return r == -ENOMEM ? error_no_memory(err) : r;
}

int prefix_map_stage(struct prefix_map *map, const struct prefix_change *changes, size_t n,
		     bool alone, struct error *err)
{
	int r = 0;

	if (!n)
		return 0;
	map->staged = calloc(n, sizeof(*map->staged));
	if (!map->staged)
		return error_no_memory(err);
	for (size_t i = 0; !r && i < n; i++)
		r = stage_one(map, &changes[i], alone && n == 1, err);
	if (r < 0)
		prefix_map_abort(map);
	return r;
}

void prefix_map_roots(const struct prefix_map *map, u32 ret[FWD_TRIES])
{
	for (size_t i = 0; i < FWD_TRIES; i++)
		ret[i] = map->tries[i].change ? trie_changed_root(&map->tries[i])
					      : map->tries[i].root;
}

static void forget_staged(struct prefix_map *map)
{
	free(map->staged);
	map->staged = NULL;
	map->n_staged = 0;
}

static void set_end(struct fwd_entry *entry, u64 end)
{
	set_about(entry, FWD_ABOUT(end, FWD_ABOUT_LEN(entry->about),
				   FWD_ABOUT_FLAGS(entry->about) & ~FLAG_TURNING));
}

void prefix_map_prolong(struct prefix_map *map)
{
	for (size_t i = 0; i < map->n_staged; i++) {
		const struct staged *staged = &map->staged[i];

		if (staged->kind == PREFIX_RETIME && !staged->end)
			set_end(entries_at(entries_of(map, staged->trie), staged->index), 0);
	}
}

void prefix_map_settle(struct prefix_map *map)
{
	for (size_t i = 0; i < FWD_TRIES; i++)
		if (map->tries[i].change)
			trie_finish(&map->tries[i]);
	for (size_t i = 0; i < map->n_staged; i++) {
		const struct staged *staged = &map->staged[i];
		struct entries *entries = entries_of(map, staged->trie);

		switch ((enum prefix_change_kind)staged->kind) {
		case PREFIX_INSERT:
			map->size[staged->trie / 2]++;
			break;
		case PREFIX_REMOVE:
			map->size[staged->trie / 2]--;
			if (map->tries[staged->trie].unseen)
				entries_give(entries, staged->index);
			else
				entries_retire(entries, staged->index);
			break;
		case PREFIX_RETIME:
			set_end(entries_at(entries, staged->index), staged->end);
			break;
		}
	}
	forget_staged(map);
}

void prefix_map_abort(struct prefix_map *map)
{
	for (size_t i = 0; i < FWD_TRIES; i++)
		if (map->tries[i].change)
			trie_abort(&map->tries[i]);
	for (size_t i = map->n_staged; i-- > 0;) {
		const struct staged *staged = &map->staged[i];
		struct entries *entries = entries_of(map, staged->trie);
		struct fwd_entry *entry = entries_at(entries, staged->index);

		if (staged->kind == PREFIX_INSERT) {
			entries_unlist(entries, staged->index);
			entries_give(entries, staged->index);
		} else if (staged->kind == PREFIX_REMOVE) {
			entries_relist(entries, staged->index);
		} else if (entry->about & FLAG_TURNING) {
			turn(entry);
		}
	}
	forget_staged(map);
}

static void set_unseen(struct prefix_map *map, bool unseen)
{
	for (size_t i = 0; i < FWD_TRIES; i++)
		map->tries[i].unseen = unseen;
}

static int stage_and_settle(struct prefix_map *map, const struct prefix_change *changes, size_t n,
			    struct error *err)
{
	int r = prefix_map_stage(map, changes, n, false, err);

	if (!r)
		prefix_map_settle(map);
	return r;
}

int prefix_map_rework(struct prefix_map *map, const struct prefix_change *changes, size_t n,
		      struct error *err)
{
	_cleanup_free_ struct prefix_change *in_order = calloc(n + 1, sizeof(*in_order));
	size_t n_first = 0, n_inserts = 0;
	int r;

	if (!in_order)
		return error_no_memory(err);
	/* What is removed makes room for what is inserted. */
	for (size_t i = 0; i < n; i++)
		if (changes[i].kind == PREFIX_INSERT)
			in_order[n - ++n_inserts] = changes[i];
		else
			in_order[n_first++] = changes[i];
	set_unseen(map, true);
	r = stage_and_settle(map, in_order, n_first, err);
	if (!r)
		r = stage_and_settle(map, in_order + n_first, n_inserts, err);
	set_unseen(map, false);
	return r;
}

/* ---- maps ---- */

_Static_assert(PREFIX_MAP_NAME_MAX == BPF_OBJ_NAME_LEN, "the kernel takes it");

void prefix_map_name(enum prefix_map_part part, unsigned bank, char ret[static PREFIX_MAP_NAME_MAX])
{
	snprintf(ret, PREFIX_MAP_NAME_MAX, "%s%u", parts[part].name, bank);
}

static int map_part(struct prefix_map *map, enum prefix_map_part part, struct error *err)
{
	void *memory = mmap(NULL, map->elements[part] * parts[part].size_bytes,
			    PROT_READ | PROT_WRITE, MAP_SHARED, map->fds[part], 0);

	if (memory == MAP_FAILED)
		return error_set(err, -errno, "cannot map a map into memory: %s",
				 error_name(errno));
	map->memory[part] = memory;
	return 0;
}

static int make_private_part(struct prefix_map *map, enum prefix_map_part part, u32 elements,
			     struct error *err)
{
	void *memory = mmap(NULL, elements * parts[part].size_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return error_no_memory(err);
	map->elements[part] = elements;
	map->memory[part] = memory;
	return 0;
}

static int make_part(struct prefix_map *map, enum prefix_map_part part, unsigned bank, u32 elements,
		     struct error *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	char name[PREFIX_MAP_NAME_MAX];

	if (map->is_model)
		return make_private_part(map, part, elements, err);
	prefix_map_name(part, bank, name);
	map->elements[part] = elements;
	map->fds[part] = bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(u32),
					(u32)parts[part].size_bytes, elements, &opts);
	if (map->fds[part] < 0)
		return error_set(err, -errno,
				 "the kernel does not make a map of %u times %zu bytes: %s",
				 elements, parts[part].size_bytes, error_name(errno));
	return map_part(map, part, err);
}

static int attach_entries(struct prefix_map *map, struct error *err)
{
	for (unsigned family = 0; family < FAMILIES; family++) {
		enum prefix_map_part part = family ? PART_ENTRIES6 : PART_ENTRIES4;

		map->entries[family] = entries_new(map->memory[part], map->elements[part],
						   family ? FWD_IPV6 : FWD_IPV4);
		if (!map->entries[family])
			return error_no_memory(err);
	}
	for (unsigned i = 0; i < FWD_TRIES; i++)
		map->sides[i] = (struct side){entries_of(map, i), i >= FWD_ALLOW4};
	return 0;
}

static void attach_tries(struct prefix_map *map, struct line_pool *pool, const u32 roots[FWD_TRIES])
{
	for (unsigned i = 0; i < FWD_TRIES; i++)
		map->tries[i] = (struct trie){
			.pool = pool,
			.ops = &side_ops,
			.data = &map->sides[i],
			.bits = family_of(i) ? 128 : 32,
			.root = roots[i],
		};
}

static struct prefix_map *new_map(void)
{
	struct prefix_map *map = calloc(1, sizeof(*map));

	for (size_t i = 0; map && i < PART_COUNT; i++)
		map->fds[i] = -1;
	return map;
}

void prefix_map_close(struct prefix_map *map)
{
	if (!map)
		return;
	if (map->staged)
		prefix_map_abort(map);
	line_pool_free(map->pool);
	for (size_t i = 0; i < FAMILIES; i++)
		entries_free(map->entries[i]);
	for (size_t i = 0; i < PART_COUNT; i++) {
		if (map->memory[i])
			munmap(map->memory[i], map->elements[i] * parts[i].size_bytes);
		closep(&map->fds[i]);
	}
	free(map);
}

int prefix_map_fd(const struct prefix_map *map, enum prefix_map_part part)
{
	return map->fds[part];
}

/* ---- building ---- */

/*
 * For what comes one by one: an eighth, or, where much does, as much as there is; of a large set
 * half of that. So a set that grows does not need other maps, and programs, all the time.
 */
static size_t room_beside(size_t n, bool growing)
{
	if (!growing)
		return n / 8;
	return n < LARGE_FROM ? n : n / 2;
}

/* Element 0 stands for none. */
static u32 room_for_entries(size_t n, size_t least, bool growing)
{
	return (u32)(n + room_beside(n, growing) + least + 1);
}

/* Changes copy what they touch, and what they leave waits for a grace period. */
static u32 room_for_lines(u32 used, u32 tables, bool growing)
{
	return used + used / 8 + (u32)room_beside(used, growing) +
	       (growing ? LINES_GROWING : LINES_LEAST) + tables * FWD_TABLE_LINES;
}

static int fill_entries(struct prefix_map *map, const struct prefix_item *items, size_t n,
			unsigned bank, u32 *indices, struct error *err)
{
	size_t n6 = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		n6 += items[i].prefix.family == FAMILY_IPV6;
	r = make_part(map, PART_ENTRIES4, bank, room_for_entries(n - n6, 256, map->growing), err);
	if (!r)
		r = make_part(map, PART_ENTRIES6, bank, room_for_entries(n6, 64, map->growing),
			      err);
	if (!r)
		r = attach_entries(map, err);
	for (size_t i = 0; !r && i < n; i++) {
		const struct prefix *prefix = &items[i].prefix;

		indices[i] = entries_insert(entries_of(map, trie_of(items[i].table, prefix)),
					    items[i].table == TABLE_ALLOW, bits_of(prefix),
					    prefix->len, end_of(items[i].expires_ns));
		map->size[items[i].table]++;
	}
	return r;
}

static bool needs_table(const struct prefix_item *items, size_t n)
{
	size_t lists = 0;

	for (size_t i = 0; i < n; i++)
		if (items[i].expires_ns && items[i].prefix.len < FWD_TABLE_BITS)
			lists += 1u << (FWD_TABLE_BITS - items[i].prefix.len);
	return n >= TABLE_FROM && lists <= TABLE_LISTS_MAX;
}

static int build_trie(struct trie *trie, const u32 *indices, size_t n, bool table)
{
	int r;

	if (!n && !table)
		return 0;
	r = trie_begin(trie, false);
	if (r < 0)
		return r;
	r = trie_build(trie, indices, n, table);
	if (r < 0)
		trie_abort(trie);
	else
		trie_finish(trie);
	return r;
}

/*
 * All tries, in lines of `pool`; the roots are left in map->tries. Those that have a table on top
 * are those of `like`; NULL: those that gain by it.
 */
static int build_tries(struct prefix_map *map, struct line_pool *pool,
		       const struct prefix_item *items, const u32 *indices, size_t n,
		       const u32 like[FWD_TRIES])
{
	const u32 empty[FWD_TRIES] = {0};
	size_t first = 0;
	int r = 0;

	attach_tries(map, pool, empty);
	for (unsigned which = 0; !r && which < FWD_TRIES; which++) {
		size_t end = first;
		bool table;

		while (end < n && trie_of(items[end].table, &items[end].prefix) == which)
			end++;
		table = like ? (like[which] & FWD_CELL_TABLE) == FWD_CELL_TABLE
			     : needs_table(items + first, end - first);
		r = build_trie(&map->tries[which], indices + first, end - first, table);
		first = end;
	}
	return r;
}

/* Moves what was built into a map of the size that it needs. */
static int move_lines(struct prefix_map *map, const struct line_pool *built, unsigned bank,
		      struct error *err)
{
	u32 end = line_pool_end(built), roots[FWD_TRIES], tables = 0;
	int r;

	prefix_map_roots(map, roots);
	for (size_t i = 0; i < FWD_TRIES; i++)
		tables += (roots[i] & FWD_CELL_TABLE) == FWD_CELL_TABLE;
	r = make_part(map, PART_LINES, bank, room_for_lines(end, tables, map->growing), err);
	if (r < 0)
		return r;
	memcpy(map->memory[PART_LINES], line_pool_lines(built), end * sizeof(struct fwd_line));
	map->pool = line_pool_new(map->memory[PART_LINES], map->elements[PART_LINES]);
	if (!map->pool || (end > 1 && !line_pool_claim(map->pool, 1, end - 1)) ||
	    line_pool_claimed(map->pool) < 0)
		return error_no_memory(err);
	attach_tries(map, map->pool, roots);
	return 0;
}

static int build_lines(struct prefix_map *map, const struct prefix_item *items, const u32 *indices,
		       size_t n, unsigned bank, const u32 like[FWD_TRIES], struct error *err)
{
	size_t capacity = 2 * n + (FWD_TRIES + 1) * FWD_TABLE_LINES;
	bool full;
	int r;

	do {
		_cleanup_(line_pool_freep) struct line_pool *pool = NULL;
		size_t bytes = capacity * sizeof(struct fwd_line);
		/* Only what is touched takes memory. */
		void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (memory == MAP_FAILED)
			return error_no_memory(err);
		pool = line_pool_new(memory, (u32)capacity);
		r = pool ? build_tries(map, pool, items, indices, n, like) : -ENOMEM;
		/* The kernel, too, says -E2BIG, where a map is too large for it (up to 5.10). */
		full = r == -E2BIG;
		if (r == -ENOMEM)
			error_no_memory(err);
		if (!r)
			r = move_lines(map, pool, bank, err);
		munmap(memory, bytes);
		capacity *= 4;
	} while (full && capacity < FWD_CELL_INDEX);
	if (full)
		error_set(err, r, "%zu entries do not fit into %u lines", n, FWD_CELL_INDEX);
	return r;
}

/* Takes the new map over, which may be NULL: out of memory. */
static int build(struct prefix_map *fresh, const struct prefix_item *items, size_t n, unsigned bank,
		 const u32 like[FWD_TRIES], struct prefix_map **ret, struct error *err)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = fresh;
	_cleanup_free_ u32 *indices = calloc(n + 1, sizeof(*indices));
	int r;

	if (!map || !indices)
		return error_no_memory(err);
	r = fill_entries(map, items, n, bank, indices, err);
	if (!r)
		r = build_lines(map, items, indices, n, bank, like, err);
	if (r < 0)
		return r;
	*ret = take_pointer(&map);
	return 0;
}

int prefix_map_build(const struct prefix_item *items, size_t n, unsigned bank,
		     struct prefix_map **ret, struct error *err)
{
	return build(new_map(), items, n, bank, NULL, ret, err);
}

int prefix_map_build_growing(const struct prefix_item *items, size_t n, unsigned bank,
			     struct prefix_map **ret, struct error *err)
{
	struct prefix_map *map = new_map();

	if (map)
		map->growing = true;
	return build(map, items, n, bank, NULL, ret, err);
}

int prefix_map_model(const struct prefix_item *items, size_t n, const u32 like[FWD_TRIES],
		     struct prefix_map **ret, struct error *err)
{
	struct prefix_map *map = new_map();

	if (map)
		map->is_model = true;
	return build(map, items, n, 0, like, ret, err);
}

void prefix_map_memory(const struct prefix_map *map, unsigned trie, struct trie_memory *ret)
{
	enum prefix_map_part part = family_of(trie) ? PART_ENTRIES6 : PART_ENTRIES4;

	*ret = (struct trie_memory){
		.lines = map->memory[PART_LINES],
		.n_lines = map->elements[PART_LINES],
		.entries = map->memory[part],
		.n_entries = map->elements[part],
	};
}

/* ---- taking up ---- */

/* 0: it is no map of this kind. */
static u32 elements_of(int fd, enum prefix_map_part part)
{
	struct bpf_map_info info = {0};
	u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0 || info.type != BPF_MAP_TYPE_ARRAY ||
	    info.value_size != parts[part].size_bytes || !(info.map_flags & BPF_F_MMAPABLE))
		return 0;
	return info.max_entries;
}

static int damaged(struct error *err)
{
	return error_set(err, -EUCLEAN, "the pinned maps do not hold what they should");
}

static int list_entries(struct prefix_map *map, struct error *err)
{
	for (unsigned family = 0; family < FAMILIES; family++) {
		struct entries *entries = map->entries[family];

		for (u32 i = 1; i <= entries_capacity(entries); i++) {
			u64 about = entries_at(entries, i)->about;

			if (!(about & FWD_ENTRY_USED))
				continue;
			if (!entries_list(entries, i))
				return damaged(err);
			map->size[about & FWD_ENTRY_ALLOW ? TABLE_ALLOW : TABLE_BLOCK]++;
		}
		if (entries_listed(entries) < 0)
			return error_no_memory(err);
	}
	return 0;
}

/* An entry that packets find has to be a listed one. */
struct check {
	const struct side *side;
	bool bad;
};

static void check_seen(void *data, u32 entry)
{
	struct check *check = data;
	const struct entries *entries = check->side->entries;
	u64 about;

	if (!entry || entry > entries_capacity(entries)) {
		check->bad = true;
		return;
	}
	about = entries_at(entries, entry)->about;
	check->bad |=
		!(about & FWD_ENTRY_USED) || ((about & FWD_ENTRY_ALLOW) != 0) != check->side->allow;
}

static int adopt_tries(struct prefix_map *map, const u32 roots[FWD_TRIES], struct error *err)
{
	map->pool = line_pool_new(map->memory[PART_LINES], map->elements[PART_LINES]);
	if (!map->pool)
		return error_no_memory(err);
	attach_tries(map, map->pool, roots);
	for (size_t i = 0; i < FWD_TRIES; i++) {
		struct check check = {.side = &map->sides[i]};

		if (trie_adopt(&map->tries[i], check_seen, &check) < 0 || check.bad)
			return damaged(err);
	}
	return line_pool_claimed(map->pool) < 0 ? error_no_memory(err) : 0;
}

int prefix_map_adopt(const int fds[PART_COUNT], const u32 roots[FWD_TRIES], struct prefix_map **ret,
		     struct error *err)
{
	_cleanup_(prefix_map_closep) struct prefix_map *map = new_map();
	int r = 0;

	if (!map)
		return error_no_memory(err);
	for (size_t i = 0; !r && i < PART_COUNT; i++) {
		map->elements[i] = elements_of(fds[i], (enum prefix_map_part)i);
		if (!map->elements[i])
			return damaged(err);
		map->fds[i] = dup(fds[i]);
		if (map->fds[i] < 0)
			return error_set(err, -errno, "cannot keep a map: %s", error_name(errno));
		r = map_part(map, (enum prefix_map_part)i, err);
	}
	if (!r)
		r = attach_entries(map, err);
	if (!r)
		r = list_entries(map, err);
	if (!r)
		r = adopt_tries(map, roots, err);
	if (r < 0)
		return r;
	*ret = take_pointer(&map);
	return 0;
}

/* ---- reading ---- */

u32 prefix_map_size(const struct prefix_map *map, enum prefix_table table)
{
	return map->size[table];
}

u32 prefix_map_capacity(const struct prefix_map *map)
{
	return entries_capacity(map->entries[0]) + entries_capacity(map->entries[1]);
}

static bool fits(u32 used, u32 capacity, u32 spare)
{
	return capacity - used >= capacity / spare + 8 && capacity / 4 <= used + 4096;
}

bool prefix_map_fits(const struct prefix_map *map)
{
	for (size_t i = 0; i < FAMILIES; i++)
		if (!fits(entries_used(map->entries[i]), entries_capacity(map->entries[i]), 32))
			return false;
	/* Changes wait for a grace period where there are no more lines. */
	return fits(line_pool_used(map->pool), line_pool_capacity(map->pool), 16);
}

bool prefix_map_is_large(const struct prefix_map *map)
{
	return map->elements[PART_LINES] > room_for_lines(0, 0, false) + 1;
}

size_t prefix_map_bytes(const struct prefix_map *map)
{
	size_t bytes = 0;

	for (size_t i = 0; i < PART_COUNT; i++)
		bytes += map->elements[i] * parts[i].size_bytes;
	return bytes;
}

bool prefix_map_read(const struct prefix_map *map, enum prefix_table table,
		     const struct prefix *prefix, struct prefix_state *ret)
{
	const struct fwd_entry *entry;
	u32 index = find(map, table, prefix);

	if (!index)
		return false;
	entry = entries_at(entries_of(map, trie_of(table, prefix)), index);
	*ret = (struct prefix_state){
		.expires_ns = FWD_ABOUT_END(entry->about) << FWD_END_SHIFT,
		.last_hit = entry->last_hit,
	};
	entries_read_hits(entry, &ret->packets, &ret->bytes);
	return true;
}

/* ---- the difference ---- */

int prefix_change_add(struct prefix_change_list *list, enum prefix_change_kind kind,
		      const struct prefix_item *item)
{
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 64;
		struct prefix_change *more = reallocarray(list->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		list->items = more;
		list->room = room;
	}
	list->items[list->n++] = (struct prefix_change){.item = *item, .kind = (u8)kind};
	return 0;
}

int prefix_map_diff_one(const struct prefix_map *map, const struct prefix_item *item, bool wanted,
			struct prefix_change_list *ret)
{
	u32 index = find(map, item->table, &item->prefix);
	const struct entries *entries = entries_of(map, trie_of(item->table, &item->prefix));

	if (!index)
		return wanted ? prefix_change_add(ret, PREFIX_INSERT, item) : 0;
	if (!wanted)
		return prefix_change_add(ret, PREFIX_REMOVE, item);
	if (FWD_ABOUT_END(entries_at(entries, index)->about) == end_of(item->expires_ns))
		return 0;
	return prefix_change_add(ret, PREFIX_RETIME, item);
}

/* Those that nobody wanted. */
static int add_removals(const struct prefix_map *map, unsigned family, const u8 *wanted,
			struct prefix_change_list *ret)
{
	const struct entries *entries = map->entries[family];
	int r = 0;

	for (u32 i = 1; !r && (i = entries_next(entries, i)); i++) {
		bool allow = entries_at(entries, i)->about & FWD_ENTRY_ALLOW;
		struct prefix_item item = {.table = allow ? TABLE_ALLOW : TABLE_BLOCK};
		struct fwd_bits bits;
		u32 len;

		if (wanted[i])
			continue;
		entries_key(entries, i, &bits, &len);
		prefix_map_prefix(bits, len, family, &item.prefix);
		r = prefix_change_add(ret, PREFIX_REMOVE, &item);
	}
	return r;
}

int prefix_map_diff(const struct prefix_map *map, const struct prefix_item *items, size_t n,
		    struct prefix_change_list *ret)
{
	_cleanup_free_ u8 *wanted4 = calloc(entries_capacity(map->entries[0]) + 1, 1);
	_cleanup_free_ u8 *wanted6 = calloc(entries_capacity(map->entries[1]) + 1, 1);
	int r = wanted4 && wanted6 ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < n; i++) {
		u8 *wanted = items[i].prefix.family == FAMILY_IPV6 ? wanted6 : wanted4;

		wanted[find(map, items[i].table, &items[i].prefix)] = 1;
		r = prefix_map_diff_one(map, &items[i], true, ret);
	}
	if (!r)
		r = add_removals(map, 0, wanted4, ret);
	return r ? r : add_removals(map, 1, wanted6, ret);
}

void prefix_map_add_counters(const struct prefix_map *from, struct prefix_map *to)
{
	for (unsigned family = 0; family < FAMILIES; family++) {
		const struct entries *entries = from->entries[family];

		for (u32 i = 1; (i = entries_next(entries, i)); i++) {
			const struct fwd_entry *old = entries_at(entries, i);
			struct fwd_entry *entry;
			struct fwd_bits bits;
			u64 packets, bytes;
			u32 len, index;

			entries_read_hits(old, &packets, &bytes);
			if (!packets)
				continue;
			entries_key(entries, i, &bits, &len);
			index = entries_find(to->entries[family], old->about & FWD_ENTRY_ALLOW,
					     bits, len);
			if (!index)
				continue;
			entry = entries_at(to->entries[family], index);
			entries_add_hits(entry, packets, bytes);
			if (!entry->last_hit)
				entry->last_hit = old->last_hit;
		}
	}
}
