/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The prefixes of one bank of maps as packets see them: those of the blacklist and the allowlist,
 * of both families. Four tries of lines (bpf/trie.h) lead to entries with counters.
 *
 * It is a projection: the rules themselves live in the policy. A small change is staged aside and
 * hooked in by one store of its caller's; a large one, or one that needs more room, makes a new
 * bank.
 *
 *   P1  Between calls at most one group of changes is staged.
 *   P2  stage() changes nothing that packets see, and on failure leaves nothing staged.
 *   P3  settle() and abort() cannot fail.
 *   P4  An entry keeps its index, and so its counters, as long as its prefix stays.
 */
#pragma once

#include "abi.h"
#include "cleanup.h"
#include "error.h"
#include "prefix.h"
#include "trie_compare.h"

struct prefix_map;

/* The tables of prefixes. */
enum prefix_table {
	TABLE_BLOCK,
	TABLE_ALLOW,
	TABLE_COUNT,
};

/* The maps of a bank. */
enum prefix_map_part {
	PART_LINES,
	PART_ENTRIES4,
	PART_ENTRIES6,
	PART_COUNT,
};

/* The name of a bank's map, and of its pin. */
#define PREFIX_MAP_NAME_MAX 16
void prefix_map_name(enum prefix_map_part part, unsigned bank,
		     char ret[static PREFIX_MAP_NAME_MAX]);

/* A prefix as packets are to see it. */
struct prefix_item {
	struct prefix prefix;
	u8 table;	/* enum prefix_table */
	u64 expires_ns; /* CLOCK_BOOTTIME; 0: never */
};

/*
 * Makes maps that hold the items, with some room to grow, and no others. Items are in order within
 * a table, the blacklist first, none twice. Touches nothing that packets see; any thread may call
 * it. `bank` is for the names of the maps.
 */
int prefix_map_build(const struct prefix_item *items, size_t n, unsigned bank,
		     struct prefix_map **ret, struct error *err);

/* The same with more room, for a set that small changes have made outgrow its maps. */
int prefix_map_build_growing(const struct prefix_item *items, size_t n, unsigned bank,
			     struct prefix_map **ret, struct error *err);

/*
 * Takes up the maps of an earlier daemon, whose descriptors it duplicates. -EUCLEAN: they do not
 * hold what they should.
 */
int prefix_map_adopt(const int fds[PART_COUNT], const u32 roots[FWD_TRIES], struct prefix_map **ret,
		     struct error *err);

void prefix_map_close(struct prefix_map *map);
DEFINE_CLEANUP(struct prefix_map *, prefix_map_close);

/* The map's. */
int prefix_map_fd(const struct prefix_map *map, enum prefix_map_part part);

/* Where packets are to begin; with staged changes: once those are in. */
void prefix_map_roots(const struct prefix_map *map, u32 ret[FWD_TRIES]);

enum prefix_change_kind {
	PREFIX_INSERT,
	PREFIX_REMOVE,
	PREFIX_RETIME, /* another end; hits stay */
};

struct prefix_change {
	struct prefix_item item;
	u8 kind; /* enum prefix_change_kind */
};

/* Begin with zeros; the owner frees the items. */
struct prefix_change_list {
	struct prefix_change *items;
	size_t n, room;
};

/* 0 or -ENOMEM. */
int prefix_change_add(struct prefix_change_list *list, enum prefix_change_kind kind,
		      const struct prefix_item *item);

/*
 * Stages changes; each prefix at most once a table. `alone`: nothing else has to take effect with
 * them; then a single change may be one store in a table of cells, and the roots stay. -E2BIG: a
 * new bank is needed. -ENOENT, -EEXIST: the map is not what the caller thinks.
 */
int prefix_map_stage(struct prefix_map *map, const struct prefix_change *changes, size_t n,
		     bool alone, struct error *err);

/*
 * Makes changes at once in a map that no packet has seen, as prefix_map_build() made it: they need
 * next to no room, and no grace period. Any thread may call it. After a failure the map is of no
 * use. Errors as above.
 */
int prefix_map_rework(struct prefix_map *map, const struct prefix_change *changes, size_t n,
		      struct error *err);

/*
 * Before the roots are stored, and settle() is to follow: entries that are to stay for good do not
 * end from here on. What they cover is no longer found behind them in the new tries.
 */
void prefix_map_prolong(struct prefix_map *map);

/* The roots are what packets see now. */
void prefix_map_settle(struct prefix_map *map);
void prefix_map_abort(struct prefix_map *map);

/* Entries of a table, those that have ended and are still there included. */
u32 prefix_map_size(const struct prefix_map *map, enum prefix_table table);

/* Entries that there is room for. */
u32 prefix_map_capacity(const struct prefix_map *map);

/* False: there is little room left, or far too much; a new bank should be made. */
bool prefix_map_fits(const struct prefix_map *map);

/* True if it is larger than one that holds nothing. */
bool prefix_map_is_large(const struct prefix_map *map);

/* Memory of the maps. */
size_t prefix_map_bytes(const struct prefix_map *map);

/* What is known of an entry. */
struct prefix_state {
	u64 expires_ns;
	u64 packets, bytes;
	u32 last_hit; /* as in struct fwd_entry */
};

/* False: there is no entry of exactly this prefix. */
bool prefix_map_read(const struct prefix_map *map, enum prefix_table table,
		     const struct prefix *prefix, struct prefix_state *ret);

/*
 * Adds the changes that lead from the map to the items, each prefix of them at most once a table. 0
 * or -ENOMEM.
 */
int prefix_map_diff(const struct prefix_map *map, const struct prefix_item *items, size_t n,
		    struct prefix_change_list *ret);

/* The same of one prefix; not `wanted`: it is to go. */
int prefix_map_diff_one(const struct prefix_map *map, const struct prefix_item *item, bool wanted,
			struct prefix_change_list *ret);

/* The prefix of an entry's key in a trie (enum fwd_trie). */
void prefix_map_prefix(struct fwd_bits bits, u32 len, unsigned trie, struct prefix *ret);

/* ---- verifying (prefix_map_verify.c) ---- */

/* What packets find otherwise than they should; faults as trie_compare.h has them. */
struct prefix_finding {
	struct prefix prefix;
	u8 table; /* enum prefix_table */
	u8 fault; /* enum trie_fault */
};

/* Begin with zeros; the owner frees the items. */
struct prefix_finding_list {
	struct prefix_finding *items;
	size_t n, room;
};

/* 0 or -ENOMEM. */
int prefix_finding_add(struct prefix_finding_list *list, const struct prefix_finding *finding);

/* By table, prefix and fault; for qsort(3) and bsearch(3). */
int prefix_finding_compare(const void *a, const void *b);

/* Puts them in order, each once. */
void prefix_finding_sort(struct prefix_finding_list *list);

/*
 * Compares what packets find from `roots` on, in the memory of the maps, with the items, in the
 * order of prefix_map_build(). Nothing that the daemon knows of the maps counts, and nothing that
 * stands there is trusted. Any thread may call it while the maps are open; if they are changed
 * meanwhile some findings may be of the moment. The findings are in order, each once.
 */
int prefix_map_verify(const struct prefix_map *map, const u32 roots[FWD_TRIES],
		      const struct prefix_item *items, size_t n, struct prefix_finding_list *ret,
		      struct error *err);

/*
 * The maps that prefix_map_build() would make of the items, in memory of the daemon's own; with a
 * table on top where `like` has one.
 */
int prefix_map_model(const struct prefix_item *items, size_t n, const u32 like[FWD_TRIES],
		     struct prefix_map **ret, struct error *err);

/* What the look-up of a trie (enum fwd_trie) works on; the map's. */
void prefix_map_memory(const struct prefix_map *map, unsigned trie, struct trie_memory *ret);

/* Adds the counters to those of `to`, for the prefixes that are in both. */
void prefix_map_add_counters(const struct prefix_map *from, struct prefix_map *to);
