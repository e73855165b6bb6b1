/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of the rules: each change passes through here, in three steps that together happen or do
 * not.
 *
 *   1. It is checked against the policy, and staged where packets do not see it.
 *   2. It is made durable (store.h).
 *   3. Packets see it, by one store (datapath.h), and the policy holds it.
 *
 *   R1  Whatever can fail is in steps 1 and 2; failing there leaves everything as it was.
 *   R2  When a function here returns 0, the change is durable and in force.
 */
#pragma once

#include "cleanup.h"
#include "interfaces.h"
#include "policy.h"
#include "store.h"

struct rules;

/*
 * Takes up the rules of `config` and `store`: adopts what is pinned, or makes it, brings it to the
 * policy, and has `ifs` attach it. All arguments must outlive the rules, but for `config`, which
 * becomes theirs on success.
 */
int rules_open(struct config *config, struct store *store, struct interfaces *ifs,
	       struct rules **ret, struct error *err);
/* Packets go on to be filtered. */
void rules_close(struct rules *rules);
DEFINE_CLEANUP(struct rules *, rules_close);

/* For reading. */
const struct config *rules_config(const struct rules *rules);
const struct policy *rules_policy(const struct rules *rules);
struct datapath *rules_datapath(const struct rules *rules);
bool rules_adopted(const struct rules *rules);

/* Of one table: the rules by origin, and what packets see. */
struct policy_sets rules_sets(const struct rules *rules, enum store_table table);
struct prefix_map *rules_map(const struct rules *rules, enum store_table table);

struct rules_count {
	size_t added, updated, removed;
};

/*
 * Blocks prefixes, or puts them on the allowlist. `ttl_s` 0: for good; `comment` may be NULL.
 * `prefixes` are put in order. -ENOSPC: full.
 */
int rules_add(struct rules *rules, enum store_table table, struct prefix *prefixes, size_t n,
	      s64 ttl_s, const char *comment, struct rules_count *ret, struct error *err);

/* -ENOENT: one of them is not a runtime rule; then none is removed. */
int rules_remove(struct rules *rules, enum store_table table, struct prefix *prefixes, size_t n,
		 struct rules_count *ret, struct error *err);

/* Removes all runtime rules. */
int rules_flush(struct rules *rules, enum store_table table, struct rules_count *ret,
		struct error *err);

/* -EEXIST: it overlaps another, or is the configuration's. */
int rules_add_redirect(struct rules *rules, const struct redirect *redirect,
		       struct rules_count *ret, struct error *err);
int rules_remove_redirect(struct rules *rules, const struct redirect *redirect,
			  struct rules_count *ret, struct error *err);

/* Puts another configuration in the place of the one in force, which becomes theirs on success. */
int rules_reload(struct rules *rules, struct config *config, struct rules_count *ret,
		 struct error *err);

/*
 * Puts `prefixes`, which are put in order, in the place of a feed's entries; they stand until its
 * file is read again. -ENOENT: the configuration has no feed of the name. -ENOSPC: full.
 */
int rules_replace_feed(struct rules *rules, const char *name, struct prefix *prefixes, size_t n,
		       struct rules_count *ret, struct error *err);

/*
 * Reads the file of a feed again, or, with NULL, of every feed that has one. -ENOENT: there is no
 * such feed; -EINVAL: it has no file, or a bad one.
 */
int rules_reload_feed(struct rules *rules, const char *name_or_NULL, struct rules_count *ret,
		      struct error *err);

/* Removes rules that have ended. Returns when the next one ends (CLOCK_BOOTTIME), 0 for never. */
u64 rules_expire(struct rules *rules);

/*
 * Would a packet from this address be dropped? The prefixes that decide, the most specific of each
 * kind. `allowed` wins over `blocked`.
 */
struct rules_match {
	bool blocked, allowed;
	struct prefix blocked_by, allowed_by;
};

void rules_test(const struct rules *rules, const struct prefix *address, struct rules_match *ret);
