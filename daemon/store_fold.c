// SPDX-License-Identifier: GPL-2.0-or-later
#include "store_internal.h"

#include <unistd.h>

static void bind_put(sqlite3_stmt *statement, const struct pending_bulk *bulk)
{
	sqlite3_bind_int64(statement, 2, bulk->created_s);
	sqlite3_bind_int64(statement, 3, (s64)bulk->expires_ns);
	sqlite3_bind_int64(statement, 4, bulk->expires_s);
	sqlite3_bind_text(statement, 5, bulk->comment, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 6, bulk->seq);
}

static int fold_keys(struct store *store, const struct pending_bulk *bulk, size_t n,
		     struct error *err)
{
	enum statement which = (bulk->kind == BULK_PUT ? FOLD_PUT_BLOCK : FOLD_REMOVE_BLOCK) +
			       (unsigned)bulk->table;
	sqlite3_stmt *statement = store->statements[which];
	u8 keys[KEYS_AT_ONCE * KEY_SIZE];
	_cleanup_close_ int fd = -1;
	int r = pending_bulk_open(store, bulk, &fd, err);

	if (!r)
		r = pending_bulk_read(store, bulk, fd, bulk->folded, n, keys, err);
	if (bulk->kind == BULK_PUT)
		bind_put(statement, bulk);
	else
		sqlite3_bind_int64(statement, 2, bulk->seq);
	for (size_t i = 0; !r && i < n; i++) {
		sqlite3_bind_blob(statement, 1, keys + i * KEY_SIZE, KEY_SIZE, SQLITE_STATIC);
		r = store_run(store, which, err);
	}
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
	int r = is_last ? store_begin(store, err) : store_begin_relaxed(store, err);

	if (r < 0)
		return r;
	if (n)
		r = fold_keys(store, bulk, n, err);
	if (!r)
		r = is_last ? end_bulk(store, bulk, err)
			    : move_bulk(store, bulk, bulk->folded + n, err);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

static int clear_within(struct store *store, const struct pending_bulk *bulk, bool *ret_ended,
			struct error *err)
{
	enum statement which = FOLD_CLEAR_BLOCK + bulk->table;
	bool ended;
	int r;

	sqlite3_bind_int64(store->statements[which], 1, bulk->seq);
	sqlite3_bind_int(store->statements[which], 2, KEYS_AT_ONCE);
	r = store_run(store, which, err);
	if (r < 0)
		return r;
	ended = sqlite3_changes(store->db) < KEYS_AT_ONCE;
	if (ended)
		r = end_bulk(store, bulk, err);
	if (!r)
		*ret_ended = ended;
	return r;
}

static int fold_clear(struct store *store, const struct pending_bulk *bulk, bool *ret_ended,
		      struct error *err)
{
	int r = store_begin_relaxed(store, err);

	if (r < 0)
		return r;
	r = clear_within(store, bulk, ret_ended, err);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

/*
 * A step that a loss of power undoes is done again, so only the last one of a bulk change with a
 * file waits for the disk: the file may go after it only (S5).
 */
static int fold_some(struct store *store, const struct pending_bulk *bulk, bool *ret_ended,
		     struct error *err)
{
	u64 left = bulk->n - bulk->folded;
	bool is_last = left <= KEYS_AT_ONCE;
	char path[FILE_PATH_MAX];
	int r;

	if (bulk->kind == BULK_CLEAR)
		return fold_clear(store, bulk, ret_ended, err);
	r = fold_within(store, bulk, is_last ? (size_t)left : KEYS_AT_ONCE, is_last, err);
	if (r < 0)
		return r;
	if (is_last) {
		pending_bulk_path(store, bulk->file, path);
		unlink(path);
	}
	*ret_ended = is_last;
	return 0;
}

static int fold_oldest_some(struct store *store, bool *ret_more, struct error *err)
{
	struct pending_bulk *bulks = NULL;
	bool ended = true;
	size_t n = 0;
	int r = pending_bulks_load(store, &bulks, &n, err);

	if (r < 0)
		return r;
	if (n)
		r = fold_some(store, &bulks[0], &ended, err);
	if (!r)
		*ret_more = n > 1 || !ended;
	pending_bulks_free(bulks, n);
	return r;
}

int store_fold(struct store *store, bool *ret_more, struct error *err)
{
	/* A log that grows all the time is never done with, and cannot be begun again. */
	if (checkpointer_works(store->checkpointer)) {
		*ret_more = true;
		return 0;
	}
	return fold_oldest_some(store, ret_more, err);
}

int store_fold_oldest(struct store *store, struct error *err)
{
	s64 before = 0, now = 0;
	bool more = true;
	int r = store_query(store, "SELECT count(*) FROM bulk", &before, err);

	for (now = before; !r && more && now == before;) {
		r = fold_oldest_some(store, &more, err);
		if (!r)
			r = store_query(store, "SELECT count(*) FROM bulk", &now, err);
	}
	return r;
}
