/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of the store have in common. */
#pragma once

#include "clock.h"
#include "store.h"
#include "temporary.h"

#include <criterion/criterion.h>
#include <sqlite3.h>

#define HOUR_NS (3600 * NS_PER_S)

static inline struct store *open_store(void)
{
	struct store *store = NULL;
	struct error err = {""};

	cr_assert_eq(store_open(temporary, &store, &err), 0, "%s", err.text);
	return store;
}

static inline struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0);
	return prefix;
}

static inline void put(struct store *store, enum store_table table, const char *prefix,
		       u64 expires_ns, const char *comment)
{
	_cleanup_(comment_unrefp) struct comment *text = comment ? comment_new(comment) : NULL;
	const struct rule rule = {
		.prefix = prefix_of(prefix),
		.created_s = 1764000000,
		.expires_ns = expires_ns,
		.comment = text,
	};
	struct error err;

	cr_assert_eq(store_put(store, table, &rule, &err), 0, "%s", err.text);
}

static inline void begin(struct store *store)
{
	struct error err;

	cr_assert_eq(store_begin(store, &err), 0, "%s", err.text);
}

static inline void commit(struct store *store)
{
	struct error err;

	cr_assert_eq(store_commit(store, &err), 0, "%s", err.text);
}

static inline struct ruleset *load(struct store *store, enum store_table table)
{
	struct ruleset *set = NULL;
	struct error err;

	cr_assert_eq(store_load(store, table, &set, &err), 0, "%s", err.text);
	return set;
}

static inline const struct rule *find(const struct ruleset *set, const char *text)
{
	struct prefix prefix = prefix_of(text);

	return ruleset_find(set, &prefix);
}

static inline void expect_size(struct store *store, enum store_table table, size_t n)
{
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, table);

	cr_expect_eq(ruleset_size(set), n, "%zu rules", ruleset_size(set));
}

/* Behind the store's back. */
static inline void run_sql(const char *sql)
{
	char *why = NULL;
	sqlite3 *db;

	cr_assert_eq(sqlite3_open(temporary_path("rules.db"), &db), SQLITE_OK);
	sqlite3_exec(db, sql, NULL, NULL, &why);
	cr_assert_null(why, "%s: %s", sql, why);
	sqlite3_close(db);
}

/* It is refused with this code and text, and the file is left as it was. */
static inline void expect_refusal(int code, const char *why)
{
	struct store *store = NULL;
	struct error err = {""};

	cr_expect_eq(store_open(temporary, &store, &err), code, "%s", err.text);
	cr_expect(strstr(err.text, why), "\"%s\" does not say \"%s\"", err.text, why);
	cr_expect_null(store);
	store_close(store);
}
