/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A set of prefixes as the packets see it: two tries in the kernel, one a family, that lead to
 * entries with counters (bpf/abi.h). The seam behind which the lookup can change.
 *
 * It is a projection: the rules themselves live in the policy. Changes are staged in the view that
 * packets do not see; nothing they see changes before the caller has switched views. Then the
 * changes are settled, or aborted if the switch did not come.
 *
 *   P1  Between calls at most one group of changes is staged.
 *   P2  stage() changes nothing that packets see, and on failure leaves nothing staged.
 *   P3  settle() and abort() cannot fail.
 */
#pragma once

#include "abi.h"
#include "cleanup.h"
#include "error.h"
#include "prefix.h"

struct prefix_map;

/*
 * The maps; the descriptors stay the caller's and must stay open.
 */
struct prefix_map_fds {
	int trie4, trie6, entries;
	u32 capacity; /* elements of `entries` */
};

/* `view`: the one that packets see. What an earlier daemon left half done is cleaned up. */
int prefix_map_open(const struct prefix_map_fds *fds, unsigned view, struct prefix_map **ret,
		    struct error *err);
void prefix_map_close(struct prefix_map *map);
DEFINE_CLEANUP(struct prefix_map *, prefix_map_close);

enum prefix_change_kind {
	PREFIX_INSERT,
	PREFIX_REMOVE,
	PREFIX_RETIME, /* another end; hits stay */
};

struct prefix_change {
	struct prefix prefix;
	u8 kind;	/* enum prefix_change_kind */
	u64 expires_ns; /* CLOCK_BOOTTIME; 0: never */
};

/*
 * Stages changes for `view`, the one that packets do not see; each prefix at most once. -E2BIG: a
 * map of larger capacity is needed. -ENOENT, -EEXIST: the map is not what the caller thinks.
 */
int prefix_map_stage(struct prefix_map *map, unsigned view, const struct prefix_change *changes,
		     size_t n, struct error *err);

/* The view of the last stage() is what packets see now, and no packet sees the other any more. */
void prefix_map_settle(struct prefix_map *map);
void prefix_map_abort(struct prefix_map *map);

/* Entries that packets can see; not those that have expired and are still there. */
u32 prefix_map_size(const struct prefix_map *map);
u32 prefix_map_capacity(const struct prefix_map *map);

/* The entry of exactly this prefix. Valid until the next change. NULL: there is none. */
const struct fwd_entry *prefix_map_find(const struct prefix_map *map, const struct prefix *prefix);

/* What packets see now, in order. The caller frees it. */
struct prefix_map_item {
	struct prefix prefix;
	u64 expires_ns;
};

int prefix_map_snapshot(const struct prefix_map *map, struct prefix_map_item **ret, size_t *ret_n,
			struct error *err);

/* Carries counters over to `to`, for the prefixes that are in both. */
void prefix_map_copy_counters(const struct prefix_map *from, struct prefix_map *to);
