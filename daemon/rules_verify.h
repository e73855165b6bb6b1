/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Comparing everything with the rules, as a change of the queue of rules_change.c that changes
 * nothing, and mending what differs.
 *
 *   F1  The worker looks at what there may be a million of, from a snapshot, the maps' memory and a
 *       connection to the database of its own; the event loop at the rest.
 *   F2  What small changes touched meanwhile does not count. What the worker found while there were
 *       any counts only if it finds it a second time: it may have seen lines that were used again.
 *   F3  Only what was found is mended, and then everything is looked at again.
 */
#pragma once

#include "rules_state.h"

struct verification;

/* NULL: no memory. */
struct verification *verification_new(struct rules *rules, bool repair);
void verification_free(struct verification *verification);

/* The worker's part, of a snapshot. */
int verification_look(struct verification *verification, const struct policy *policy,
		      struct error *err);

enum verification_step {
	VERIFICATION_DONE,
	VERIFICATION_LOOK,  /* the worker has to look again */
	VERIFICATION_BUILD, /* a new bank has to be put in force; then tell it */
};

/*
 * The event loop's part. `is_noted`: a small change of the prefix was made since the snapshot;
 * `notes`: of any prefix. Writes *ret_step on success.
 */
int verification_judge(struct verification *verification, bool notes,
		       bool (*is_noted)(const void *data, enum prefix_table table,
					const struct prefix *prefix),
		       const void *data, enum verification_step *ret_step, struct error *err);

/* What became of the new bank. The worker has to look again. */
void verification_built(struct verification *verification, int r, const struct error *err);

/* Once it is done. */
const struct rules_verified *verification_result(const struct verification *verification);
