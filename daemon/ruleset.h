/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules of one origin, in order of prefix_compare(): what a user wrote, one rule a prefix.
 *
 * A two-level sorted array: blocks of rules, and a directory of blocks. Look-ups and changes are
 * logarithmic and touch one block; iteration is sequential and can be taken up again from any
 * prefix, so that a long listing survives changes in between.
 */
#pragma once

#include "cleanup.h"
#include "prefix.h"

struct rule {
	struct prefix prefix;
	s64 created_s;	/* CLOCK_REALTIME */
	u64 expires_ns; /* CLOCK_BOOTTIME; 0: never */
	char *comment;	/* NULL: none; owned by the rule's set */
};

struct ruleset;

struct ruleset *ruleset_new(void);
void ruleset_free(struct ruleset *set);
DEFINE_CLEANUP(struct ruleset *, ruleset_free);

size_t ruleset_size(const struct ruleset *set);

/* Valid until the next change of the set. */
const struct rule *ruleset_find(const struct ruleset *set, const struct prefix *prefix);

/* Memory for `n` more rules, so that as many ruleset_put() cannot fail. 0 or -ENOMEM. */
int ruleset_reserve(struct ruleset *set, size_t n);

/* Gives back what was reserved and not used. */
void ruleset_release_reserve(struct ruleset *set);

/*
 * Adds a rule, or replaces the one of the same prefix. Takes rule->comment over, on success only.
 * 0 or -ENOMEM.
 */
int ruleset_put(struct ruleset *set, const struct rule *rule);

/* False: it was not there. */
bool ruleset_remove(struct ruleset *set, const struct prefix *prefix);

/* Takes over when a rule was made from the rules of the same prefix in `old`. */
void ruleset_keep_created(struct ruleset *set, const struct ruleset *old);

/* Ends with a change of the set; then seek again. */
struct ruleset_cursor {
	const struct ruleset *set;
	size_t block, index;
};

/* At the first rule that is `from` or behind it; `from` NULL: at the very first. */
struct ruleset_cursor ruleset_seek(const struct ruleset *set, const struct prefix *from);

/* The rule at the cursor, or NULL at the end. */
const struct rule *ruleset_at(const struct ruleset_cursor *cursor);
void ruleset_next(struct ruleset_cursor *cursor);
