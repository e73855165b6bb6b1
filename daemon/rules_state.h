/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the rules share: rules.c opens them, reads them, and makes small changes of
 * prefixes; rules_redirects.c changes redirects; rules_change.c makes large changes; rules_guard.c
 * has what the guard makes of them; rules_recover.c puts them right after damage.
 */
#pragma once

#include "expiry.h"
#include "guard.h"
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
	struct local_list locals; /* owned */
	bool adopted;
	struct change *changes;		  /* large ones, in order; the first is being made */
	bool hits_to_come;		  /* of the bank that the first of them has replaced */
	sd_event_source *release;	  /* NULL: there was no exchange yet */
	size_t stored_least[TABLE_COUNT]; /* so many stored changes ask for a snapshot, more than
					     STORE_BULKS_MANY */
	bool ends_failed;		  /* to be removed; it was logged */
};

/* Has the policy what the store has. Once more: in the place of what it had. */
int rules_load_runtime(struct rules *rules, struct error *err);

/* Before the policy is projected: puts the runtime rules right where the store recovers. */
int rules_recover(struct rules *rules, struct error *err);

/* Packets see what is staged, which the store has already. */
void rules_take_effect(struct rules *rules);

struct ruleset *rules_runtime(const struct policy *policy, enum prefix_table table);

/* -ENOSPC: more than the table may have. What the policy spares does not count. */
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
	s64 created_s; /* of what is put and was not there; 0: `puts` may be of any age */
	const struct prefix *removes;
	size_t n_removes;
	bool removes_all;
	bool force; /* what is put is meant (guard.h) */
};

/* When that which a RULES_ADD adds now ends (CLOCK_BOOTTIME); 0: never. */
u64 rules_end_of_add(const struct rules_request *request);

/*
 * Within a transaction of the store's that begins and ends here. `forced`: what is forced from then
 * on; NULL: what was.
 */
int rules_store_edit(struct store *store, const struct edit *edit, const struct ruleset *forced,
		     struct error *err);

/* NULL: the same. */
const struct ruleset *rules_new_forced(const struct policy *before, const struct policy *after);

/* Why a prefix that is no runtime rule cannot be removed: -ENOENT. */
int rules_refuse_removal(const struct policy *policy, enum prefix_table table,
			 const struct prefix *prefix, struct error *err);

/* Has the timer know of all ends that there are. -ENOMEM: it knows of those that it did. */
int rules_remember_ends(struct rules *rules);

/* ---- the guard ---- */

/* -EHOSTUNREACH: the request is to be refused (G1). Its prefixes are in order. */
int rules_guard_request(const struct policy *policy, const struct rules_request *request,
			const struct local_list *locals, struct error *err);

/*
 * The policy behind a small edit, with what it spares and what is forced then. *ret is left alone
 * where the edit has nothing to do with that. 0 or -ENOMEM.
 */
int rules_guard_edit(const struct rules *rules, const struct edit *edit, struct policy **ret);

/* The changes for packets that lead there. -ENOSPC: more than the edit's table may have. */
int rules_guard_changes(const struct rules *rules, const struct edit *edit,
			const struct policy *next, struct prefix_change_list *ret,
			struct error *err);

/* Takes from `next` what is spared and forced, once it is in force. */
void rules_guard_adopt(struct rules *rules, struct policy *next);

/*
 * Brings what a large change is to spare up to date: with this host's addresses and gateways, which
 * were `before`, and with prefixes that small changes have changed since. What differs it notes, as
 * a small change. 0 or -ENOMEM.
 */
int rules_guard_catch_up(struct rules *rules, struct policy *after, const struct local_list *before,
			 const struct prefix *changed, size_t n);

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

/* At the start: has packets see the items in a new bank. */
int change_bank_now(struct rules *rules, const struct prefix_item *items, size_t n,
		    struct error *err);

/* ---- behind an exchange of banks ---- */

/* Counts what the bank before has counted: behind a grace period, so that it is all there. */
void bank_take_hits(struct rules *rules);

/* Gives the memory of the bank that is not in use back, in a while. */
void bank_release_later(struct rules *rules);
