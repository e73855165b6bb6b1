/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The redirects as the packets see them: for each interface and direction a table from port to
 * redirect, and the redirects with their targets and counters (bpf/abi.h). A projection, staged and
 * settled like a prefix_map, with the same promises (P1 to P3 there).
 */
#pragma once

#include "abi.h"
#include "cleanup.h"
#include "differences.h"
#include "error.h"
#include "redirect.h"

struct redirect_map;

/* The descriptors stay the caller's and must stay open. */
struct redirect_map_fds {
	int tables, redirects, counts;
	/* The slots that an earlier daemon used; NULL: the maps are new. */
	const struct fwd_interface *slots;
};

/* `set`: that of the port tables (FWD_TABLE_SETS) that packets see. */
int redirect_map_open(const struct redirect_map_fds *fds, unsigned set, struct redirect_map **ret,
		      struct error *err);
void redirect_map_close(struct redirect_map *map);
DEFINE_CLEANUP(struct redirect_map *, redirect_map_close);

/* An interface that has programs, and its slot. */
struct redirect_scope {
	u32 slot;
	char name[IFNAMSIZ];
};

/*
 * Stages all redirects in `set`, on the interfaces given. On an interface its own redirects go
 * before those of every interface; one of every interface is left out on its own target.
 */
int redirect_map_stage(struct redirect_map *map, unsigned set, const struct redirect *redirects,
		       size_t n, const struct redirect_scope *scopes, size_t n_scopes,
		       struct error *err);
void redirect_map_settle(struct redirect_map *map);
void redirect_map_abort(struct redirect_map *map);

/* What the daemon knows of a target; ifindex 0: it does not exist. */
struct redirect_link {
	u32 ifindex;
	bool has_l2; /* its frames carry an Ethernet header */
	u8 mac[6];
};

/*
 * Tells every redirect to the interface `name`, staged ones too, what that is now. Takes effect at
 * once. Packets of a redirect whose target is not known, or unknown yet, are dropped.
 */
void redirect_map_set_target(struct redirect_map *map, const char *name,
			     const struct redirect_link *link);

/* The target's name of the next redirect from `*at` on, which moves behind it; false at the end. */
bool redirect_map_next_target(const struct redirect_map *map, u32 *at, char name[static IFNAMSIZ]);

/*
 * The redirect of the next number from `*at` on, which moves behind it; false at the end. What an
 * earlier daemon left may be none: then its target is empty.
 */
bool redirect_map_next(const struct redirect_map *map, u32 *at, struct redirect *ret);

/* Counters over all CPUs, and the mode in force; false: there is no such redirect. */
struct redirect_state {
	u64 packets, bytes;
	bool has_target;
	u8 mode; /* enum redirect_mode, not REDIRECT_AUTO */
};

bool redirect_map_read(const struct redirect_map *map, const struct redirect *redirect,
		       struct redirect_state *ret);

/* Which tables there are in the kernel: identifiers by slot and direction; 0: none. */
struct redirect_tables {
	u32 ids[FWD_MAX_INTERFACES][2];
};

/* Of the slots in use. For any thread, since each look waits for a grace period up to Linux 6.6. */
void redirect_map_find_tables(const struct redirect_map *map, unsigned set,
			      const struct fwd_interface *slots, struct redirect_tables *ret);

/*
 * Adds what the kernel's maps have otherwise than these redirects, on the interfaces given, as
 * redirect_map_stage() would make it in `set`, which packets see. `found`, or NULL, saves looks: a
 * table that was found just where the daemon has put it is not looked for again. 0 or -ENOMEM.
 */
int redirect_map_verify(const struct redirect_map *map, unsigned set,
			const struct redirect_tables *found, const struct redirect *redirects,
			size_t n, const struct redirect_scope *scopes, size_t n_scopes,
			struct differences *ret);

/*
 * The same of the target of one redirect, by its number: the one in front of where
 * redirect_map_next_target() has moved to.
 */
void redirect_map_verify_target(const struct redirect_map *map, u32 number,
				const struct redirect_link *link, struct differences *ret);

/*
 * Forgets what the daemon knows of the tables in `set`, which packets see, and looks again. Then
 * the next stage puts right what others changed. `slots`: as in struct redirect_map_fds.
 */
void redirect_map_look_again(struct redirect_map *map, unsigned set,
			     const struct fwd_interface *slots);

/* Memory of the port tables. */
size_t redirect_map_bytes(const struct redirect_map *map);
