// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <string.h>

struct store_snapshot {
	struct store *store;
	enum store_table table;
	s64 seq;
	u64 file, n, checksum;
	bool written, keeps_file;
	char directory[FILE_PATH_MAX], path[FILE_PATH_MAX];
};

int store_pending(struct store *store, enum store_table table, size_t *ret, struct error *err)
{
	char sql[64];
	s64 n = 0;
	int r;

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM bulk WHERE tbl = %d", (int)table);
	r = store_query(store, sql, &n, err);
	if (!r)
		*ret = (size_t)n;
	return r;
}

/* A bulk change of nothing: rows from now on are newer than it is. */
static int take_number(struct store *store, enum store_table table, s64 *ret, struct error *err)
{
	sqlite3_stmt *statement = store->statements[ADD_BULK];
	int r = store_begin_relaxed(store, err);

	if (r < 0)
		return r;
	sqlite3_clear_bindings(statement);
	sqlite3_bind_int(statement, 1, (int)table);
	sqlite3_bind_int(statement, 2, BULK_PUT);
	for (int i = 3; i <= 9; i++)
		if (i != 6) /* the comment */
			sqlite3_bind_int64(statement, i, 0);
	r = store_run(store, ADD_BULK, err);
	*ret = sqlite3_last_insert_rowid(store->db);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

int store_snapshot_new(struct store *store, enum store_table table, struct store_snapshot **ret,
		       struct error *err)
{
	_cleanup_free_ struct store_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	int r;

	if (!snapshot)
		return error_no_memory(err);
	r = store_check_room(store, false, err);
	if (!r)
		r = directory_make(store->dir, BULK_DIRECTORY, err);
	if (!r)
		r = take_number(store, table, &snapshot->seq, err);
	if (r < 0)
		return r;
	snapshot->store = store;
	snapshot->table = table;
	snapshot->file = ++store->last_file;
	bulk_directory(store->dir, snapshot->directory);
	bulk_path(store->dir, snapshot->file, snapshot->path);
	store->snapshots++;
	*ret = take_pointer(&snapshot);
	return 0;
}

/* ---- writing ---- */

/* A comment that rules share, and where it will stand in the file. */
struct place {
	const struct comment *comment;
	u32 at;
};

struct writer {
	struct store_snapshot *snapshot;
	int fd;
	void *places; /* a tree of struct place, by address; see tsearch(3) */
	char *comments;
	size_t comments_size, comments_room;
	size_t n;
	struct snapshot_record records[KEYS_AT_ONCE];
};

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return (x->comment > y->comment) - (x->comment < y->comment);
}

static int write_part(struct writer *w, const void *bytes, size_t size, struct error *err)
{
	struct store_snapshot *snapshot = w->snapshot;
	int r = file_write(w->fd, bytes, size);

	if (r < 0) {
		errno = -r;
		return file_error(err, "write", snapshot->path);
	}
	snapshot->checksum = checksum_add(snapshot->checksum, bytes, size);
	return 0;
}

static int append_comment(struct writer *w, const char *text)
{
	size_t size = strlen(text) + 1;

	if (w->comments_size + size > w->comments_room) {
		size_t room = w->comments_room * 2 + 4096;
		char *more = realloc(w->comments, room);

		if (!more)
			return -ENOMEM;
		w->comments = more;
		w->comments_room = room;
	}
	memcpy(w->comments + w->comments_size, text, size);
	w->comments_size += size;
	return 0;
}

/* 0 in *ret: the rule has none. */
static int place_comment(struct writer *w, const struct comment *comment, u32 *ret)
{
	struct place key = {.comment = comment}, *place;
	struct place **found;

	*ret = 0;
	if (!comment)
		return 0;
	found = tfind(&key, &w->places, compare_places);
	if (!found) {
		place = malloc(sizeof(*place));
		if (!place)
			return -ENOMEM;
		*place = (struct place){comment, (u32)w->comments_size + 1};
		if (append_comment(w, comment->text) < 0 ||
		    !(found = tsearch(place, &w->places, compare_places))) {
			free(place);
			return -ENOMEM;
		}
	}
	*ret = (*found)->at;
	return 0;
}

static int write_rule(struct writer *w, const struct rule *rule, struct error *err)
{
	struct snapshot_record *record = &w->records[w->n++];

	*record = (struct snapshot_record){
		.created_s = rule->created_s,
		.expires_ns = rule->expires_ns,
		.expires_s = rule->expires_ns ? boot_to_wall_s(rule->expires_ns) : 0,
	};
	key_pack(&rule->prefix, record->key);
	if (place_comment(w, rule->comment, &record->comment) < 0)
		return error_no_memory(err);
	w->snapshot->n++;
	if (w->n < KEYS_AT_ONCE)
		return 0;
	w->n = 0;
	return write_part(w, w->records, sizeof(w->records), err);
}

static int write_all(struct writer *w, const struct ruleset *rules, struct error *err)
{
	struct ruleset_cursor cursor = ruleset_seek(rules, NULL);
	struct snapshot_header header = {0};
	int r;

	boot_id_read(header.boot_id);
	r = write_part(w, &header, sizeof(header), err);
	for (const struct rule *rule; !r && (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		r = write_rule(w, rule, err);
	if (!r)
		r = write_part(w, w->records, w->n * sizeof(*w->records), err);
	if (!r)
		r = write_part(w, w->comments, w->comments_size, err);
	if (!r && fsync(w->fd) < 0)
		r = file_error(err, "write", w->snapshot->path);
	return r ? r : directory_sync(w->snapshot->directory, err);
}

int store_snapshot_write(struct store_snapshot *snapshot, const struct ruleset *rules,
			 struct error *err)
{
	struct writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_no_memory(err);
	w->snapshot = snapshot;
	snapshot->n = 0;
	snapshot->checksum = CHECKSUM_START;
	/* What may be there is of an earlier daemon, and no row names it (S5). */
	w->fd = open(snapshot->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = w->fd < 0 ? file_error(err, "make", snapshot->path) : write_all(w, rules, err);
	snapshot->written = !r;
	closep(&w->fd);
	tdestroy(w->places, free);
	free(w->comments);
	free(w);
	return r;
}

/* ---- putting it in the place of others ---- */

/* The files of the bulk changes that it takes the place of; the caller frees it. */
static int list_older(const struct store_snapshot *snapshot, u64 **ret, size_t *ret_n,
		      struct error *err)
{
	struct store *store = snapshot->store;
	_cleanup_free_ u64 *files = calloc(STORE_BULKS_MAX + 1, sizeof(*files));
	sqlite3_stmt *rows = NULL;
	size_t n = 0;

	if (!files)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db,
			       "SELECT file FROM bulk WHERE tbl = ?1 AND seq < ?2 AND file <> 0",
			       -1, &rows, NULL) != SQLITE_OK)
		return store_db_error(store, "read", err);
	sqlite3_bind_int(rows, 1, (int)snapshot->table);
	sqlite3_bind_int64(rows, 2, snapshot->seq);
	/* Of what may be behind the bound the files go at the next start. */
	while (n < STORE_BULKS_MAX && sqlite3_step(rows) == SQLITE_ROW)
		files[n++] = (u64)sqlite3_column_int64(rows, 0);
	sqlite3_finalize(rows);
	*ret = take_pointer(&files);
	*ret_n = n;
	return 0;
}

static int replace_older(const struct store_snapshot *snapshot, struct error *err)
{
	struct store *store = snapshot->store;
	sqlite3_stmt *statement = store->statements[FILL_SNAPSHOT];
	int r;

	sqlite3_bind_int64(statement, 1, snapshot->seq);
	sqlite3_bind_int64(statement, 2, (s64)snapshot->file);
	sqlite3_bind_int64(statement, 3, (s64)snapshot->n);
	sqlite3_bind_int64(statement, 4, (s64)snapshot->checksum);
	r = store_run(store, FILL_SNAPSHOT, err);
	if (!r && !sqlite3_changes(store->db))
		return error_set(err, -ECANCELED,
				 "the snapshot %s was overtaken by a clear, or folded away",
				 snapshot->path);
	if (r < 0)
		return r;
	sqlite3_bind_int(store->statements[END_OLDER], 1, (int)snapshot->table);
	sqlite3_bind_int64(store->statements[END_OLDER], 2, snapshot->seq);
	return store_run(store, END_OLDER, err);
}

int store_snapshot_commit(struct store *store, struct store_snapshot *snapshot, struct error *err)
{
	_cleanup_free_ u64 *older = NULL;
	char path[FILE_PATH_MAX];
	size_t n = 0;
	int r;

	if (!snapshot->written)
		return error_set(err, -EINVAL, "%s was not written", snapshot->path);
	r = list_older(snapshot, &older, &n, err);
	if (!r)
		r = store_begin_upkeep(store, err);
	if (r < 0)
		return r;
	r = replace_older(snapshot, err);
	if (!r)
		r = store_commit_file(store, &snapshot->keeps_file, err);
	if (r < 0) {
		store_rollback(store);
		return r;
	}
	for (size_t i = 0; i < n; i++) {
		bulk_path(store->dir, older[i], path);
		unlink(path);
	}
	return 0;
}

void store_snapshot_drop(struct store_snapshot *snapshot)
{
	if (!snapshot)
		return;
	if (!snapshot->keeps_file)
		unlink(snapshot->path);
	snapshot->store->snapshots--;
	free(snapshot);
}
