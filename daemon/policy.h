/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The desired state: the rules as users wrote them, each with its origin. What packets see is a
 * projection of it, and can be made again from it at any time.
 *
 * A prefix may be blocked by several origins at once. It is blocked while one of them has it, until
 * the latest of their ends.
 */
#pragma once

#include "cleanup.h"
#include "command.h"
#include "config.h"
#include "prefix_map.h"
#include "ruleset.h"

enum {
	ORIGIN_CONFIG,
	ORIGIN_RUNTIME,
	ORIGIN_FEEDS, /* the first of them */
};

/* The sets of the allowlist: of the first two origins, and of the daemon itself (guard.h). */
enum {
	ALLOW_SYSTEM = ORIGIN_FEEDS,
	ALLOW_SETS,
};

struct origin {
	char name[ORIGIN_NAME_MAX + 1];
	struct ruleset *rules; /* blocked */
	s64 loaded_s;	       /* when they were read, CLOCK_REALTIME */
	bool replaced;	       /* of a feed: by a list that was given at run time */
};

struct policy {
	struct origin *origins; /* at ORIGIN_CONFIG, ORIGIN_RUNTIME, then a feed each */
	size_t n_origins;
	struct ruleset *allow[ALLOW_SETS];
	/* Prefixes of runtime rules of the blacklist that are meant, whatever they block. */
	struct ruleset *forced;
	bool spares; /* whether the daemon puts anything on the allowlist */

	/* Those of the configuration in front, each part in order. */
	struct redirect *redirects;
	size_t n_redirects, n_config_redirects;

	u32 max_entries; /* of the blacklist */
	u32 flags;	 /* FWD_BLOCK_IN, FWD_BLOCK_OUT */
};

/*
 * A policy of the configuration and its feeds, with nothing from run time else. A feed has the list
 * that was given at run time, if there is one, and otherwise its file's; a given list that is
 * damaged goes into the log, and the feed does without. With `files_first`, as a reload has it, it
 * is the other way round, and a damaged list an error. That names the file, and the line where one
 * is at fault.
 */
int policy_from_config(const struct config *config, bool files_first, struct policy **ret,
		       struct error *err);
void policy_free(struct policy *policy);
DEFINE_CLEANUP(struct policy *, policy_free);

/*
 * The file of a feed as the feed's rules; what `old`, which may be NULL, has, too, is as old as
 * there.
 */
int policy_read_feed(const struct config_feed *feed, const struct ruleset *old,
		     struct ruleset **ret, struct error *err);

/* Rules of prefixes, which are put in order, in the same way. */
int policy_rules_from(struct prefix *prefixes, size_t n, const struct ruleset *old,
		      struct ruleset **ret, struct error *err);

/*
 * A snapshot of everything, in a time that goes by the number of blocks (ruleset.h). From then on
 * each of the two may be changed and freed by a thread of its own. 0 or -ENOMEM.
 */
int policy_clone(const struct policy *policy, struct policy **ret);

/* Puts what `from` has from run time in the place of what `to` has. 0 or -ENOMEM. */
int policy_take_runtime(struct policy *to, const struct policy *from, struct error *err);

/* What `old` has from the same origins stays as old as it is. 0 or -ENOMEM. */
int policy_keep_created(struct policy *policy, const struct policy *old, struct error *err);

/* -EEXIST: a runtime redirect overlaps one of the configuration. -ENOSPC: there are too many. */
int policy_check_redirects(const struct policy *policy, struct error *err);

/* Puts runtime redirects in the place of those that are there. 0 or -ENOMEM. */
int policy_set_runtime_redirects(struct policy *policy, const struct redirect *redirects, size_t n,
				 struct error *err);

/* A prefix as packets are to see it. */
struct effective {
	struct prefix prefix;
	u64 expires_ns; /* 0: never */
};

/* The rules that make it up; the same code for the blacklist and the allowlist. */
struct policy_sets {
	const struct ruleset *sets[CONFIG_FEEDS_MAX + ORIGIN_FEEDS];
	size_t n;
};

struct policy_sets policy_sets_of(const struct policy *policy, enum prefix_table table);

/* False: no set has the prefix. */
bool policy_effective(const struct policy_sets *sets, const struct prefix *prefix,
		      struct effective *ret);

/* The most specific prefix of the sets that covers the address and has not ended. */
bool policy_find_cover(const struct policy_sets *sets, const struct prefix *address,
		       struct prefix *ret);

/* The later of two ends, where 0 is never. */
u64 latest_end(u64 a, u64 b);

/*
 * All rules of the sets in order: by prefix, then by set. With `from`, only those at it or behind,
 * so that a walk can go on where it stopped, even if rules have changed since.
 */
struct policy_walk {
	struct ruleset_cursor cursors[CONFIG_FEEDS_MAX + ORIGIN_FEEDS];
	size_t n;
};

void policy_walk_start(struct policy_walk *walk, const struct policy_sets *sets,
		       const struct prefix *from);
/* NULL at the end. *ret_set is the position of the rule's set. */
const struct rule *policy_walk_next(struct policy_walk *walk, size_t *ret_set);

/* The next prefix, all its rules taken together; false at the end. */
bool policy_walk_next_effective(struct policy_walk *walk, struct effective *ret);

/*
 * All that packets are to see, as prefix_map_build() takes it. *ret_n_block: those of the
 * blacklist. The caller frees *ret.
 */
int policy_items(const struct policy *policy, struct prefix_item **ret, size_t *ret_n,
		 size_t *ret_n_block, struct error *err);

/* Adds the changes that lead from one such list to another. 0 or -ENOMEM. */
int policy_diff(const struct prefix_item *from, size_t n_from, const struct prefix_item *to,
		size_t n_to, struct prefix_change_list *ret);
