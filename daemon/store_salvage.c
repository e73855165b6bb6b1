// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What can be read of a damaged database. Each table is walked forwards until an error, and
 * then backwards; the files of bulk changes up to the first key that is none. What is no
 * rule is left out.
 */
#include "clock.h"
#include "command.h"
#include "store_internal.h"
#include "text.h"

#include <errno.h>
#include <string.h>

#define DAY_S	  (24 * 3600)
#define END_MAX_S (1LL << 40) /* where the wall clock will never be */

static const char *const tables[] = {[STORE_BLOCK] = "block", [STORE_ALLOW] = "allow"};
_Static_assert(ARRAY_SIZE(tables) == STORE_TABLES, "a name for each table");

/* A table being walked, and where its rows go. */
struct walk {
	sqlite3 *from;
	sqlite3_stmt *put;
	const char *table;
};

static sqlite3_stmt *prepare_walk(const struct walk *walk, bool backwards)
{
	/* Version 1 had no seq. */
	static const char *const seqs[] = {"seq", "0"};
	sqlite3_stmt *rows = NULL;
	char sql[256];

	for (size_t i = 0; !rows && i < ARRAY_SIZE(seqs); i++) {
		snprintf(sql, sizeof(sql),
			 "SELECT prefix, created_s, expires_boot_ns, expires_s, comment, %s "
			 "FROM %s ORDER BY prefix %s",
			 seqs[i], walk->table, backwards ? "DESC" : "ASC");
		sqlite3_prepare_v2(walk->from, sql, -1, &rows, NULL);
	}
	return rows;
}

static bool is_prefix(sqlite3_stmt *row)
{
	struct prefix prefix;

	return sqlite3_column_type(row, 0) == SQLITE_BLOB &&
	       key_unpack(sqlite3_column_blob(row, 0), sqlite3_column_bytes(row, 0), &prefix);
}

/* But for a clock that was put right. */
static bool is_past(s64 at_s)
{
	return at_s >= 0 && at_s <= wall_s() + DAY_S;
}

static bool is_comment(const char *text)
{
	return !text || (strlen(text) <= COMMENT_MAX && text_is_printable(text));
}

static int put_row(const struct walk *walk, sqlite3_stmt *row)
{
	int r;

	if (!is_prefix(row))
		return 0;
	for (int i = 0; i < 6; i++)
		sqlite3_bind_value(walk->put, i + 1, sqlite3_column_value(row, i));
	if (!is_past(sqlite3_column_int64(row, 1)))
		sqlite3_bind_int64(walk->put, 2, wall_s());
	if (!is_comment((const char *)sqlite3_column_text(row, 4)))
		sqlite3_bind_null(walk->put, 5);
	r = sqlite3_step(walk->put) == SQLITE_DONE ? 0 : -ENOMEM;
	sqlite3_reset(walk->put);
	return r;
}

/* Up to an error, or a row out of order: pages that lead in a circle have none. */
static int walk_rows(const struct walk *walk, bool backwards, bool *ret_whole)
{
	sqlite3_stmt *rows = prepare_walk(walk, backwards);
	int r = 0, step = SQLITE_ERROR;
	u8 last[KEY_SIZE];
	bool has_last = false;

	while (rows && !r && (step = sqlite3_step(rows)) == SQLITE_ROW) {
		if (is_prefix(rows)) {
			const u8 *key = sqlite3_column_blob(rows, 0);
			int order = has_last ? memcmp(key, last, KEY_SIZE) : 0;

			if (has_last && (backwards ? order >= 0 : order <= 0))
				break;
			memcpy(last, key, KEY_SIZE);
			has_last = true;
		}
		r = put_row(walk, rows);
	}
	sqlite3_finalize(rows);
	*ret_whole = step == SQLITE_DONE;
	return r;
}

static int salvage_table(struct store *store, sqlite3 *from, enum store_table table)
{
	struct walk walk = {.from = from, .table = tables[table]};
	char sql[160];
	bool whole;
	int r;

	snprintf(sql, sizeof(sql),
		 "INSERT OR IGNORE INTO %s (prefix, created_s, expires_boot_ns, expires_s, "
		 "comment, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
		 tables[table]);
	if (sqlite3_prepare_v2(store->db, sql, -1, &walk.put, NULL) != SQLITE_OK)
		return -ENOMEM;
	r = walk_rows(&walk, false, &whole);
	if (!r && !whole)
		r = walk_rows(&walk, true, &whole);
	sqlite3_finalize(walk.put);
	return r;
}

static bool is_behind(const u8 key[static KEY_SIZE], const u8 last[static KEY_SIZE])
{
	struct prefix prefix;

	return memcmp(key, last, KEY_SIZE) > 0 && key_unpack(key, KEY_SIZE, &prefix);
}

/* Those before version 4 have none. */
static int salvage_forced(struct store *store, sqlite3 *from, struct error *err)
{
	sqlite3_stmt *rows = NULL;
	u8 last[KEY_SIZE] = {0};
	int r = 0;

	sqlite3_prepare_v2(from, "SELECT prefix FROM forced ORDER BY prefix", -1, &rows, NULL);
	while (rows && !r && sqlite3_step(rows) == SQLITE_ROW) {
		if (!is_prefix(rows) || !is_behind(sqlite3_column_blob(rows, 0), last))
			break;
		memcpy(last, sqlite3_column_blob(rows, 0), KEY_SIZE);
		sqlite3_bind_value(store->statements[PUT_FORCED], 1, sqlite3_column_value(rows, 0));
		r = store_run(store, PUT_FORCED, err);
	}
	sqlite3_finalize(rows);
	return r;
}

static int salvage_redirects(struct store *store, sqlite3 *from, struct error *err)
{
	sqlite3_stmt *rows = NULL;
	struct redirect redirect;
	int r = 0;

	sqlite3_prepare_v2(from, REDIRECT_ROWS, -1, &rows, NULL);
	while (rows && !r && sqlite3_step(rows) == SQLITE_ROW)
		if (redirect_unpack(rows, &redirect))
			r = store_put_redirect(store, &redirect, err);
	sqlite3_finalize(rows);
	return r;
}

/* What a record says, where it cannot be told from what it said. */
static struct bulk_rule plausible_rule(const struct bulk_reader *reader, const u8 *record)
{
	struct snapshot_record one;
	struct bulk_rule rule = {0};

	if (reader->bulk->kind == BULK_SNAPSHOT) {
		memcpy(&one, record, sizeof(one));
		if (!is_past(one.created_s))
			one.created_s = wall_s();
		if (one.expires_s < 0 || one.expires_s > END_MAX_S)
			one.expires_s = one.expires_ns = 0;
		if (one.comment > reader->comments_size)
			one.comment = 0;
		record = (const u8 *)&one;
	}
	bulk_reader_rule(reader, record, &rule, NULL);
	if (!is_comment(rule.comment))
		rule.comment = NULL;
	return rule;
}

/* Up to the end, or the first key that is out of order or none: then it is not whole. */
static int fold_readable(struct store *store, struct pending_bulk *bulk, bool *ret_whole,
			 struct error *err)
{
	struct bulk_reader reader;
	const u8 *record = NULL;
	u8 last[KEY_SIZE] = {0};
	int r = bulk_reader_open_damaged(store, bulk, &reader, ret_whole, err);

	if (r < 0) {
		bulk_reader_close(&reader);
		*ret_whole = false;
		return r == -ENOMEM ? r : 0;
	}
	while (!r && !bulk_reader_at(&reader, &record, err) && record && is_behind(record, last)) {
		const struct bulk_rule rule = plausible_rule(&reader, record);

		memcpy(last, record, KEY_SIZE);
		r = fold_rule(store, bulk, record, &rule, err);
		reader.at++;
	}
	if (reader.at < reader.n || reader.next < bulk->n)
		*ret_whole = false;
	bulk_reader_close(&reader);
	return r;
}

static int fold_clear(struct store *store, const struct pending_bulk *bulk, struct error *err)
{
	enum statement which = FOLD_CLEAR_BLOCK + bulk->table;

	sqlite3_bind_int64(store->statements[which], 1, bulk->seq);
	sqlite3_bind_int(store->statements[which], 2, -1); /* all */
	return store_run(store, which, err);
}

/* What a snapshot is known to have lost may be in the rows that it takes the place of: they stay.
 */
static int fold_bulk(struct store *store, struct pending_bulk *bulk, struct error *err)
{
	bool whole = true;
	int r = fold_readable(store, bulk, &whole, err);

	if (!r && (bulk->kind == BULK_CLEAR || (bulk->kind == BULK_SNAPSHOT && whole)))
		r = fold_clear(store, bulk, err);
	return r;
}

/* In order (S2); what cannot be read of one is not known. */
static int salvage_bulks(struct store *store, sqlite3 *from, struct error *err)
{
	sqlite3_stmt *rows = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(from, BULK_ROWS, -1, &rows, NULL) != SQLITE_OK)
		sqlite3_prepare_v2(from, BULK_ROWS_WITH("NULL"), -1, &rows, NULL);
	while (rows && !r && sqlite3_step(rows) == SQLITE_ROW) {
		struct pending_bulk bulk;

		r = pending_bulk_from(store, rows, &bulk, err);
		if (r == -EUCLEAN) {
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		r = fold_bulk(store, &bulk, err);
		pending_bulk_clear(&bulk);
	}
	sqlite3_finalize(rows);
	return r;
}

/* Those notes that say what the rows mean: whose boot their ends are of, and how new they are. */
static int salvage_notes(struct store *store, sqlite3 *from, struct error *err)
{
	sqlite3_stmt *rows = NULL, *put = NULL;
	int r = store_execute(store, "DELETE FROM meta", "set up", err);

	if (!r && sqlite3_prepare_v2(store->db, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)", -1,
				     &put, NULL) != SQLITE_OK)
		r = store_db_error(store, "set up", err);
	sqlite3_prepare_v2(from, "SELECT key, value FROM meta WHERE key IN ('boot_id', 'change')",
			   -1, &rows, NULL);
	while (rows && !r && sqlite3_step(rows) == SQLITE_ROW) {
		if (sqlite3_column_type(rows, 1) != SQLITE_TEXT)
			continue;
		sqlite3_bind_value(put, 1, sqlite3_column_value(rows, 0));
		sqlite3_bind_value(put, 2, sqlite3_column_value(rows, 1));
		if (sqlite3_step(put) != SQLITE_DONE)
			r = store_db_error(store, "set up", err);
		sqlite3_reset(put);
	}
	sqlite3_finalize(rows);
	sqlite3_finalize(put);
	return r;
}

/* Nothing is pending any more: no row is newer than another, and none remembers a removal (S3). */
static const char at_rest[] =
	"DELETE FROM block WHERE expires_boot_ns = 1; DELETE FROM allow WHERE expires_boot_ns = 1;"
	"UPDATE block SET seq = 0 WHERE seq <> 0; UPDATE allow SET seq = 0 WHERE seq <> 0;";

int store_salvage(struct store *store, sqlite3 *from, struct error *err)
{
	int r = store_execute(store, "BEGIN", "set up", err);

	for (size_t i = 0; !r && i < STORE_TABLES; i++)
		r = salvage_table(store, from, (enum store_table)i);
	if (r == -ENOMEM)
		return error_no_memory(err);
	if (!r)
		r = salvage_redirects(store, from, err);
	if (!r)
		r = salvage_forced(store, from, err);
	if (!r)
		r = salvage_bulks(store, from, err);
	if (!r)
		r = store_execute(store, at_rest, "set up", err);
	if (!r)
		r = salvage_notes(store, from, err);
	if (!r)
		r = store_execute(store, "COMMIT", "set up", err);
	if (!r)
		r = store_take_notes(store, err);
	return r;
}
