/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What tests of the rules share: the parts of a daemon that rules need, over a real database and
 * real maps, with no interface.
 */
#pragma once

#include "rules.h"

extern sd_event *event;
extern struct worker *worker;
extern struct interfaces *ifs;
extern struct store *store;
extern struct rules *rules;
extern struct local_list locals; /* what start() tells them of this host; none at first */

void rules_set_up(void);
void rules_tear_down(void);

/* With a configuration but for its places, which are the test's. */
void start(const char *text);
void stop(void);
void restart(const char *text);

/* Files in the state directory. The path is valid until the next call. */
const char *file_path(const char *name);
void write_file(const char *name, const char *text);

/* A configuration of one feed with a file of one address, and one without a file. */
const char *two_feeds(void);

/* What the store or the interfaces refuse from now on, until 0. */
enum refusal {
	REFUSE_STORE_COMMIT = 1u << 0,
	REFUSE_BULK_COMMIT = 1u << 1,
	REFUSE_FEED_COMMIT = 1u << 2,
	REFUSE_PREPARE = 1u << 3, /* to attach */
	REFUSE_MOVE = 1u << 4,	  /* the first time only: a way back must be there */
	REFUSE_BUILD = 1u << 5,	  /* the same of maps */
	REFUSE_NOTE = 1u << 6,	  /* memory to note small changes in */
	REFUSE_JOB = 1u << 7,	  /* memory for the worker's */
	REFUSE_ENDS = 1u << 8,	  /* memory to remember ends in */
};
extern unsigned refuse;

/* ---- changes ---- */

/* How a change ended that was made later. */
struct ending {
	unsigned n_done;
	int r;
	struct rules_count count;
	struct error err;
	size_t n_errors;
};

/* Begins a change; *ret is written when it has ended. As rules_submit(). */
int submit_later(struct rules_request request, struct ending *ret);
void await(const struct ending *ending);

/* To the end, and nothing is under way any more. */
int submit(struct rules_request request, struct rules_count *ret, struct error *err);
struct rules_count submit_ok(struct rules_request request);
/* A small one, while the worker is held. */
void submit_at_once(struct rules_request request);

/* Until release_worker() it begins no job; what is submitted meanwhile is on its way. */
void hold_worker(void);
void release_worker(void);

/* Prefixes that are the request's; of NULL they are zeros, to be filled in. */
struct prefix *copy_prefixes(const struct prefix *prefixes, size_t n);

/* Prefixes of both families, by number. */
struct prefix numbered(u32 number);
struct rules_request many(enum rules_kind kind, u32 first, u32 n);

/* One of a configuration, which is written to a file. */
struct rules_request reload_request(const char *text);
int reload(const char *text, struct error *err);

/* Up to a NULL. */
int add_with(s64 ttl_s, const char *comment, struct rules_count *ret, struct error *err, ...)
	__attribute__((sentinel));
int del(enum prefix_table table, struct error *err, ...) __attribute__((sentinel));
void add(const char *text);
int allow(const char *text);

/* ---- facts ---- */

struct prefix prefix_of(const char *text);

/* What packets see; zeros and false where there is none. */
bool find_entry(const char *text, struct prefix_state *ret);
struct prefix_state entry_of(const char *text);
/* As packets would count. */
void set_hits(const char *text, u64 packets, u32 last_hit);

const struct rule *find_rule(size_t origin, const char *text);

/* The policy, the database and the maps say so, and agree on all else (expect_agreement()). */
void expect_blocked(const char *text, bool blocked);

/*
 * At rest: what packets see is the policy, the database has its runtime rules, the feeds' files the
 * lists that were given, and the other bank holds nothing.
 */
void expect_agreement(void);

/* The bank in use. */
unsigned bank(void);

void expect_text(const struct error *err, const char *text);
