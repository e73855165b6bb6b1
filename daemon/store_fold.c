// SPDX-License-Identifier: GPL-2.0-or-later
#include "store_internal.h"

#include <unistd.h>

int fold_rule(struct store *store, const struct pending_bulk *bulk, const u8 key[static KEY_SIZE],
	      const struct bulk_rule *rule, struct error *err)
{
	static const enum statement steps[BULK_KINDS] = {
		[BULK_PUT] = FOLD_PUT_BLOCK,
		[BULK_REMOVE] = FOLD_REMOVE_BLOCK,
		[BULK_SNAPSHOT] = FOLD_SNAPSHOT_BLOCK,
	};
	enum statement which = steps[bulk->kind] + (unsigned)bulk->table;
	sqlite3_stmt *statement = store->statements[which];

	sqlite3_bind_blob(statement, 1, key, KEY_SIZE, SQLITE_STATIC);
	if (bulk->kind == BULK_REMOVE) {
		sqlite3_bind_int64(statement, 2, bulk->seq);
		return store_run(store, which, err);
	}
	sqlite3_bind_int64(statement, 2, rule->created_s);
	sqlite3_bind_int64(statement, 3, (s64)rule->expires_ns);
	sqlite3_bind_int64(statement, 4, rule->expires_s);
	sqlite3_bind_text(statement, 5, rule->comment, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 6, bulk->seq);
	return store_run(store, which, err);
}

static int fold_record(struct store *store, const struct bulk_reader *reader, const u8 *record,
		       struct error *err)
{
	struct bulk_rule rule;
	int r = bulk_reader_rule(reader, record, &rule, err);

	return r ? r : fold_rule(store, reader->bulk, record, &rule, err);
}

static int fold_records(struct store *store, const struct pending_bulk *bulk, size_t n,
			struct error *err)
{
	struct bulk_reader reader;
	const u8 *record = NULL;
	int r = bulk_reader_open(store, bulk, &reader, err);

	for (size_t i = 0; !r && i < n; i++) {
		r = bulk_reader_at(&reader, &record, err);
		if (!r)
			r = fold_record(store, &reader, record, err);
		reader.at++;
	}
	bulk_reader_close(&reader);
	return r;
}

/* What was removed while older bulk changes were pending need not be remembered any more (S3). */
static int end_bulk(struct store *store, const struct pending_bulk *bulk, struct error *err)
{
	static const enum statement steps[] = {END_BULK, FORGET_REMOVED_BLOCK,
					       FORGET_REMOVED_ALLOW};
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(steps); i++) {
		sqlite3_bind_int64(store->statements[steps[i]], 1, bulk->seq);
		r = store_run(store, steps[i], err);
	}
	return r;
}

static int move_bulk(struct store *store, const struct pending_bulk *bulk, u64 folded,
		     struct error *err)
{
	sqlite3_stmt *statement = store->statements[MOVE_BULK];

	sqlite3_bind_int64(statement, 1, bulk->seq);
	sqlite3_bind_int64(statement, 2, (s64)folded);
	return store_run(store, MOVE_BULK, err);
}

/* S4 */
static int fold_within(struct store *store, const struct pending_bulk *bulk, size_t n, bool is_last,
		       struct error *err)
{
	int r = is_last ? store_begin_upkeep(store, err) : store_begin_relaxed(store, err);

	if (r < 0)
		return r;
	if (n)
		r = fold_records(store, bulk, n, err);
	if (!r)
		r = is_last ? end_bulk(store, bulk, err)
			    : move_bulk(store, bulk, bulk->folded + n, err);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

/* Some of the rows that are older. */
static int clear_some(struct store *store, const struct pending_bulk *bulk, bool *ret_all,
		      struct error *err)
{
	enum statement which = FOLD_CLEAR_BLOCK + bulk->table;
	int r = store_begin_relaxed(store, err);

	if (r < 0)
		return r;
	sqlite3_bind_int64(store->statements[which], 1, bulk->seq);
	sqlite3_bind_int(store->statements[which], 2, KEYS_AT_ONCE);
	r = store_run(store, which, err);
	if (!r)
		*ret_all = sqlite3_changes(store->db) < KEYS_AT_ONCE;
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

/*
 * A step that a loss of power undoes is done again, so only the last one of a bulk change waits for
 * the disk: a file may go after it only (S5).
 */
static int fold_some(struct store *store, const struct pending_bulk *bulk, bool *ret_ended,
		     struct error *err)
{
	bool clears = bulk->kind == BULK_CLEAR || bulk->kind == BULK_SNAPSHOT, is_last;
	u64 left = bulk->n - bulk->folded;
	size_t n = left < KEYS_AT_ONCE ? (size_t)left : KEYS_AT_ONCE;
	char path[FILE_PATH_MAX];
	int r = 0;

	is_last = n == left && !clears;
	/* First what a snapshot has: most rows are there already, and only change. */
	if (clears && !left) {
		r = clear_some(store, bulk, &is_last, err);
		if (!r && !is_last)
			return 0;
	}
	if (!r)
		r = fold_within(store, bulk, n, is_last, err);
	if (r < 0)
		return r;
	if (is_last && bulk->file) {
		bulk_path(store->dir, bulk->file, path);
		unlink(path);
	}
	*ret_ended = is_last;
	return 0;
}

static int fold_oldest_some(struct store *store, bool *ret_more, struct error *err)
{
	struct pending_bulk *bulks = NULL;
	bool ended = false;
	size_t n = 0;
	int r = pending_bulks_load(store, 2, &bulks, &n, err);

	if (r < 0)
		return r;
	if (n)
		r = fold_some(store, &bulks[0], &ended, err);
	if (!r)
		*ret_more = n > 1 || (n && !ended);
	pending_bulks_free(bulks, n);
	return r;
}

int store_fold(struct store *store, bool *ret_more, struct error *err)
{
	/*
	 * A log that grows all the time is never done with, and cannot be begun again. And what a
	 * snapshot is about to take the place of need not be folded.
	 */
	if (store->snapshots || checkpointer_works(store->checkpointer)) {
		*ret_more = true;
		return 0;
	}
	return fold_oldest_some(store, ret_more, err);
}

int store_keep_bound(struct store *store, enum store_table table, struct error *err)
{
	size_t n = 0;
	bool more = true;
	int r = store_pending(store, table, &n, err);

	while (!r && more && n >= STORE_BULKS_MAX) {
		r = fold_oldest_some(store, &more, err);
		if (!r)
			r = store_pending(store, table, &n, err);
	}
	return r;
}
