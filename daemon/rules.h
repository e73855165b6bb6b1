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
#include "guard.h"
#include "interfaces.h"
#include "policy.h"
#include "store.h"
#include "worker.h"

struct rules;

/*
 * Takes up the rules of `config` and `store`: adopts what is pinned, or makes it, brings it to the
 * policy, and has `ifs` attach it. All arguments must outlive the rules, but for `config`, which
 * becomes theirs on success, and `locals`, which they copy; the worker is to be closed before.
 */
int rules_open(struct config *config, struct store *store, struct interfaces *ifs,
	       struct worker *worker, const struct local_list *locals, struct rules **ret,
	       struct error *err);
/*
 * Before the worker is closed: a change that is in force already, and waits for the worker alone,
 * is told so.
 */
void rules_stop(struct rules *rules);

/*
 * Packets go on to be filtered. Large changes that are not done are not made: -ECANCELED, which
 * their done() is told from within.
 */
void rules_close(struct rules *rules);
DEFINE_CLEANUP(struct rules *, rules_close);

/* For reading. */
const struct config *rules_config(const struct rules *rules);
const struct policy *rules_policy(const struct rules *rules);
struct datapath *rules_datapath(const struct rules *rules);
bool rules_adopted(const struct rules *rules);

/* Of one table: the rules by origin. */
struct policy_sets rules_sets(const struct rules *rules, enum prefix_table table);

/* What packets see. */
const struct prefix_map *rules_map(const struct rules *rules);

/* As prefix_map_read() of it; hits from before other maps came into use are always among them. */
bool rules_read_entry(const struct rules *rules, enum prefix_table table,
		      const struct prefix *prefix, struct prefix_state *ret);

enum rules_kind {
	RULES_ADD,	    /* block prefixes, or put them on the allowlist */
	RULES_REMOVE,	    /* -ENOENT: one of them is not a runtime rule; then none is removed */
	RULES_FLUSH,	    /* remove all runtime rules of the blacklist */
	RULES_FEED_REPLACE, /* put a list in the place of a feed's */
	RULES_FEED_RELOAD,  /* read the files of feeds again */
	RULES_RELOAD,	    /* put another configuration in the place of the one in force */
	RULES_RESTORE,	    /* go back to what an unconfirmed reload has replaced */
	RULES_RESIZE,	    /* fit the maps to what is in them */
	RULES_SNAPSHOT,	    /* put one file in the place of many stored changes of a table */
	RULES_VERIFY,	    /* compare the kernel and the store with the rules; changes nothing */
	RULES_RELEASE,	    /* give the memory of maps back that are no longer used */
};

/* A configuration and its policy. */
struct rules_in_force {
	struct config *config; /* owned */
	struct policy *policy; /* owned */
};

void rules_in_force_clear(struct rules_in_force *in_force);

/*
 * A change of prefixes. What it points to is its own.
 *
 * A reload that is `unconfirmed` can be gone back from: what it replaces comes to its done(), and
 * the text of that configuration is durable (store_unconfirmed_write()) before the new one is in
 * force. RULES_RESTORE leads back, with the runtime rules that there are then, and refuses nothing
 * that a start would take; rules_confirm() gives the way back up.
 */
struct rules_request {
	enum rules_kind kind;
	enum prefix_table table; /* of RULES_SNAPSHOT, RULES_ADD and RULES_REMOVE, as are: */
	struct prefix *prefixes; /* to be put in order */
	size_t n;
	int list_fd;			/* a list of addresses instead of them; -1: none */
	s64 ttl_s;			/* 0: for good */
	u64 expires_ns;			/* the end itself, in the place of ttl_s; 0: by ttl_s */
	bool only_new;			/* of RULES_ADD: rules that are there stay as they are */
	struct comment *comment;	/* or NULL */
	char feed[ORIGIN_NAME_MAX + 1]; /* of RULES_FEED_...; empty: all */
	const char *config_file;	/* of RULES_RELOAD; stays the caller's */
	bool unconfirmed;		/* of RULES_RELOAD */
	struct rules_in_force *restore; /* of RULES_RESTORE; the caller's, its config until done */
	bool repair;			/* of RULES_VERIFY: and mend what differs */

	/* Of RULES_ADD to the blacklist and RULES_REMOVE from the allowlist (guard.h): */
	bool force;				    /* whatever they block, it is meant */
	struct prefix sessions[GUARD_SESSIONS_MAX]; /* where the caller is logged in from by SSH */
	size_t n_sessions;
};

void rules_request_clear(struct rules_request *request);

struct rules_count {
	size_t entries; /* of the feeds that were changed */
	size_t added, updated, removed;
	u64 expires_ns; /* of RULES_ADD: the end of what it added; 0: none */
};

/* What RULES_VERIFY found, behind its repair. */
struct rules_verified {
	struct differences differences;
	size_t n_repaired;
	size_t n_entries, n_redirects, n_interfaces; /* what was compared */
};

/* How a large change ended: as the function would have returned. */
struct rules_end {
	int r;
	struct rules_count count;
	struct error err;
	const struct config_errors *errors;    /* of the configuration's file; or NULL */
	struct rules_in_force *replaced;       /* by an unconfirmed reload: to be taken; or NULL */
	const struct rules_verified *verified; /* of RULES_VERIFY, where r is 0 */
};

struct rules_later {
	void (*done)(void *data, const struct rules_end *end); /* NULL: nobody wants to know */
	void *data;
};

/* Up to this many prefixes are changed at once; what is more is made in the worker thread. */
#define RULES_SMALL 4096

/*
 * Makes a change. What is large comes back as -EINPROGRESS, and then later->done() is called from
 * the event loop; meanwhile small changes go on to be made at once. What the request points to is
 * taken over, whatever comes back. -ENOSPC: full. -EHOSTUNREACH: it would cut the caller or this
 * host off.
 */
int rules_submit(struct rules *rules, struct rules_request *request,
		 const struct rules_later *later, struct rules_count *ret, struct error *err);

/*
 * Makes the configuration in force, which an unconfirmed reload has put in the place of `replaced`,
 * the one to start with.
 */
int rules_confirm(struct rules *rules, const struct rules_in_force *replaced, struct error *err);

/*
 * This host's addresses and gateways are others now: what is spared changes at once. The list
 * becomes the rules'.
 */
int rules_set_locals(struct rules *rules, struct local_list *locals, struct error *err);

/* -EEXIST: it overlaps another, or is the configuration's. */
int rules_add_redirect(struct rules *rules, const struct redirect *redirect,
		       struct rules_count *ret, struct error *err);
int rules_remove_redirect(struct rules *rules, const struct redirect *redirect,
			  struct rules_count *ret, struct error *err);

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
