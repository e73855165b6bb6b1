/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the rules share: rules.c opens them, reads them, and makes small changes of
 * prefixes; rules_redirects.c changes redirects; rules_change.c makes large changes.
 */
#pragma once

#include "expiry.h"
#include "rules.h"
#include "worker.h"

struct rules {
	struct config *config; /* owned */
	struct policy *policy; /* owned */
	struct datapath *dp;   /* owned */
	struct store *store;
	struct interfaces *ifs;
	struct worker *worker;
	struct expiry expiry;
	bool adopted;
	struct change *changes;		  /* large ones, in order; the first is being made */
	size_t stored_least[TABLE_COUNT]; /* so many stored changes ask for a snapshot, more than
					     STORE_BULKS_MANY */
};

struct ruleset *rules_runtime(const struct policy *policy, enum prefix_table table);

/* -ENOSPC: more than the table may have. */
int rules_check_limit(const struct policy *policy, enum prefix_table table, size_t n,
		      struct error *err);

/* Has the interfaces want what a configuration and redirects ask for. */
void rules_want(struct rules *rules, const struct config *config, u32 flags,
		const struct redirect *redirects, size_t n_redirects);

/* Rules that come, or prefixes whose rules go, or all of them. */
struct edit {
	enum prefix_table table;
	const struct rule *puts;
	size_t n_puts;
	const struct prefix *removes;
	size_t n_removes;
	bool removes_all;
};

/* When that which a RULES_ADD adds now ends (CLOCK_BOOTTIME); 0: never. */
u64 rules_end_of_add(const struct rules_request *request);

/* Within a transaction of the store's that begins and ends here. */
int rules_store_edit(struct store *store, const struct edit *edit, struct error *err);

/* Why a prefix that is no runtime rule cannot be removed: -ENOENT. */
int rules_refuse_removal(const struct policy *policy, enum prefix_table table,
			 const struct prefix *prefix, struct error *err);

/* Has the timer know of all ends that there are. -ENOMEM: it knows of those that it did. */
int rules_remember_ends(struct rules *rules);

/* ---- large changes ---- */

/*
 * Takes the request over, and begins with it once those before it are done. 0 or -ENOMEM; then the
 * request is still the caller's.
 */
int change_start(struct rules *rules, struct rules_request *request,
		 const struct rules_later *later);

/* Fits the maps to what is in them, ahead of need, so that a change seldom has to wait for it. */
void change_keep_fitting(struct rules *rules);

/* Has a snapshot made where many changes are stored that were not folded yet. */
void change_keep_stored(struct rules *rules);

/* A small change of this prefix was made, which a large one on its way does not know of yet. */
void change_note(struct rules *rules, enum prefix_table table, const struct prefix *prefix);

/* Gives them all up, behind worker_close(), and says so: -ECANCELED. */
void change_drop_all(struct rules *rules);

/* Puts an empty bank in the place of the one that is not in use. */
int change_offer_empty(struct rules *rules, struct error *err);

/* At the start: has packets see the items in a new bank. */
int change_bank_now(struct rules *rules, const struct prefix_item *items, size_t n,
		    struct error *err);
