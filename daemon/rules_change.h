/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One large change of the rules on its way; for rules_change.c, and rules_catch_up.c alone. */
#pragma once

#include "rules_state.h"

struct noted {
	struct prefix prefix;
	u8 table;
};

struct noted_list {
	struct noted *items;
	size_t n, room;
};

struct change {
	struct change *next;
	struct rules *rules;
	struct rules_request request;
	struct rules_later later;
	bool rebuild;			   /* a difference did not fit: a new bank is needed */
	struct verification *verification; /* of RULES_VERIFY */

	/* For the worker. */
	struct policy *before;
	struct local_list locals;
	unsigned bank;
	size_t capacity; /* of the maps in use */
	u64 expires_ns;	 /* of what RULES_ADD adds */
	s64 created_s;

	/* Of the worker; `end` of both. */
	struct policy *after;
	struct config *config; /* of a reload */
	struct config_errors errors;
	struct prefix_change_list list; /* the difference, */
	struct prefix_map *prefixes;	/* or a new bank, */
	struct program_set programs;	/* the programs for it, */
	bool offered;			/* which is the datapath's already */
	struct store_bulk *bulk;
	struct store_snapshot *snapshot;
	struct store_feed *feeds[CONFIG_FEEDS_MAX];
	size_t n_feeds;
	struct store_unconfirmed *unconfirmed;
	struct rules_in_force replaced; /* by an unconfirmed reload */
	struct rules_end end;

	/* What small changes did since the snapshot, or since the last round. */
	struct noted_list noted;
	bool lost_note;
	bool overtaken; /* one of them has made a rule that is to stay as it is */

	/* L3, for the worker: a round, what it catches up with, and what is there then. */
	struct noted_list round;
	struct policy *now;
	struct noted_list guarded; /* of all rounds: what local addresses are within */
};

/* The next step of the event loop (L3), behind each job of the worker. */
void change_finish(void *data);

/* ---- what small changes did meanwhile (rules_catch_up.c) ---- */

/* Puts what was noted in order, each once. */
void change_sort_noted(struct change *change);
/* Behind that. */
bool change_is_noted(const struct change *change, enum prefix_table table,
		     const struct prefix *prefix);

/* True: there is so much of it that the worker puts it in first. */
bool change_start_round(struct change *change);

/*
 * Puts it into `after`, and into the difference, or the difference from the new bank. -EAGAIN, with
 * `overtaken`: it has to be made once more.
 */
int change_catch_up(struct change *change, struct error *err);
