/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules of one origin, in order of prefix_compare(): what a user wrote, one rule a prefix.
 *
 * A two-level sorted array: blocks of rules, and a directory of blocks. Look-ups and changes are
 * logarithmic and touch one block; iteration is sequential and can be taken up again from any
 * prefix, so that a long listing survives changes in between.
 *
 * Clones share their blocks. Invariants, cited in ruleset.c:
 *   R1  A block that several sets have is never written: a set that is to change it puts a copy in
 *       its place. So each of the sets may be read, changed and freed by a thread of its own,
 *       without locks.
 *   R2  Only the thread that has a set makes more references to its blocks. So a block that no
 *       other set has stays so for as long as that thread does not clone.
 *   R3  Each rule in a block has a reference to its comment, whatever number of sets have the
 * block.
 */
#pragma once

#include "cleanup.h"
#include "prefix.h"

#include <stdatomic.h>

/* Never changes once it is made, so that any number of rules, of any thread, can have the same. */
struct comment {
	_Atomic u32 references;
	char text[];
};

/* With one reference, the caller's. NULL: no memory. */
struct comment *comment_new(const char *text);

/* Another reference to `comment`, which is returned; NULL, for none, is left alone by both. */
struct comment *comment_ref(struct comment *comment);
void comment_unref(struct comment *comment);
DEFINE_CLEANUP(struct comment *, comment_unref);

/* NULL where there is no comment. */
static inline const char *comment_text(const struct comment *comment)
{
	return comment ? comment->text : NULL;
}

struct rule {
	struct prefix prefix;
	s64 created_s;		 /* CLOCK_REALTIME */
	u64 expires_ns;		 /* CLOCK_BOOTTIME; 0: never */
	struct comment *comment; /* NULL: none */
};

struct ruleset;

struct ruleset *ruleset_new(void);
void ruleset_free(struct ruleset *set);
DEFINE_CLEANUP(struct ruleset *, ruleset_free);

/*
 * A set of its own with the same rules, in a time that goes by the number of blocks. For the thread
 * that has `set`. What is reserved in `set` may not suffice any more. NULL: no memory.
 */
struct ruleset *ruleset_clone(const struct ruleset *set);

size_t ruleset_size(const struct ruleset *set);

/* Memory of the set without comments; what clones share counts in each. */
size_t ruleset_bytes(const struct ruleset *set);

/* Valid until the next change of the set. */
const struct rule *ruleset_find(const struct ruleset *set, const struct prefix *prefix);

/*
 * Changes. The set takes references of its own to the comments that it keeps; the caller keeps his.
 * A change that fails leaves the set as it was.
 */

/*
 * Memory, so that the next `n` ruleset_put() or ruleset_remove() cannot fail, in whatever order
 * they come; a clone and the sorted changes below end that. Removes alone need less. 0 or -ENOMEM.
 */
int ruleset_reserve(struct ruleset *set, size_t n);
int ruleset_reserve_removes(struct ruleset *set, size_t n);

/* Gives back what was reserved and not used. */
void ruleset_release_reserve(struct ruleset *set);

/* Adds a rule, or replaces the one of the same prefix. 0 or -ENOMEM. */
int ruleset_put(struct ruleset *set, const struct rule *rule);

/* 0, also of what is not there; -ENOMEM, only in what clones share. */
int ruleset_remove(struct ruleset *set, const struct prefix *prefix);

/*
 * Many at once, all or none of them, in order of their prefixes. Of puts of the same prefix the
 * last one counts; removes of what is not there are ignored. Blocks that none of them falls into
 * are left as they are. 0 or -ENOMEM.
 */
int ruleset_put_sorted(struct ruleset *set, const struct rule *rules, size_t n);
int ruleset_remove_sorted(struct ruleset *set, const struct prefix *prefixes, size_t n);

/*
 * Takes over when a rule was made from the rules of the same prefix in `old`. -ENOMEM, only in what
 * clones share: it has done so for some of them.
 */
int ruleset_keep_created(struct ruleset *set, const struct ruleset *old);

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
