/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The durable rules: what was changed at run time, in an SQLite database in the state directory.
 *
 * Changes are made between store_begin() and store_commit(). Once a commit has returned 0 they
 * survive the death of the daemon and, by fsync(2), a loss of power.
 *
 * The end of a rule is kept on both clocks: CLOCK_BOOTTIME counts as long as the machine has not
 * been booted since, CLOCK_REALTIME after that.
 */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "redirect.h"
#include "ruleset.h"

struct store;

/* The sets of prefixes that are kept. */
enum store_table {
	STORE_BLOCK,
	STORE_ALLOW,
	STORE_TABLES,
};

/*
 * Opens `dir`/rules.db, made where it is not there, and locks `dir` against a second daemon
 * (-EBUSY). -EUCLEAN: the database is damaged; it is left as it is.
 */
int store_open(const char *dir, struct store **ret, struct error *err);
void store_close(struct store *store);
DEFINE_CLEANUP(struct store *, store_close);

/* Reads everything. Rules that have ended are left out. The caller owns what it gets. */
int store_load(struct store *store, enum store_table table, struct ruleset **ret,
	       struct error *err);
int store_load_redirects(struct store *store, struct redirect **ret, size_t *ret_n,
			 struct error *err);

int store_begin(struct store *store, struct error *err);
int store_commit(struct store *store, struct error *err);
void store_rollback(struct store *store);

int store_put(struct store *store, enum store_table table, const struct rule *rule,
	      struct error *err);
int store_remove(struct store *store, enum store_table table, const struct prefix *prefix,
		 struct error *err);
int store_clear(struct store *store, enum store_table table, struct error *err);

int store_put_redirect(struct store *store, const struct redirect *redirect, struct error *err);
int store_remove_redirect(struct store *store, const struct redirect *redirect, struct error *err);
