// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define BULK_DIRECTORY "bulk"

struct store_bulk {
	struct store_bulk_change change; /* owns the comment */
	u64 file, n, checksum;
	bool written;
	bool keeps_file;
	char directory[FILE_PATH_MAX], path[FILE_PATH_MAX];
};

/*
 * FNV-1a with 64-bit words and the upper half folded into the lower. Each step is a permutation, so
 * a change within one word is always seen. A part that is not the last has a multiple of 8 bytes.
 */
static u64 checksum_add(u64 sum, const u8 *bytes, size_t size)
{
	for (size_t i = 0; i < size; i += 8) {
		u64 word = 0;

		memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
		sum = (sum ^ word) * 0x100000001b3;
		sum ^= sum >> 32;
	}
	return sum;
}

#define CHECKSUM_START 0xcbf29ce484222325
_Static_assert(KEYS_AT_ONCE *KEY_SIZE % 8 == 0, "parts end at a word");

void pending_bulk_path(const struct store *store, u64 file, char path[static FILE_PATH_MAX])
{
	snprintf(path, FILE_PATH_MAX, "%s/" BULK_DIRECTORY "/%llu", store->dir,
		 (unsigned long long)file);
}

/* ---- making one ---- */

int store_bulk_new(struct store *store, const struct store_bulk_change *change,
		   struct store_bulk **ret, struct error *err)
{
	_cleanup_(store_bulk_dropp) struct store_bulk *bulk = calloc(1, sizeof(*bulk));
	int r = directory_make(store->dir, BULK_DIRECTORY, err);

	if (r < 0)
		return r;
	if (!bulk)
		return error_no_memory(err);
	bulk->change = *change;
	if (change->comment) {
		bulk->change.comment = strdup(change->comment);
		if (!bulk->change.comment)
			return error_no_memory(err);
	}
	bulk->file = ++store->last_file;
	snprintf(bulk->directory, sizeof(bulk->directory), "%s/" BULK_DIRECTORY, store->dir);
	pending_bulk_path(store, bulk->file, bulk->path);
	*ret = take_pointer(&bulk);
	return 0;
}

/* At most KEYS_AT_ONCE. */
static int write_keys(struct store_bulk *bulk, int fd, const struct prefix *prefixes, size_t n,
		      struct error *err)
{
	u8 keys[KEYS_AT_ONCE * KEY_SIZE];
	int r;

	for (size_t i = 0; i < n; i++)
		key_pack(&prefixes[i], keys + i * KEY_SIZE);
	bulk->checksum = checksum_add(bulk->checksum, keys, n * KEY_SIZE);
	r = file_write(fd, keys, n * KEY_SIZE);
	if (r < 0) {
		errno = -r;
		return file_error(err, "write", bulk->path);
	}
	bulk->n += n;
	return 0;
}

int store_bulk_write(struct store_bulk *bulk, const struct prefix *prefixes, size_t n,
		     struct error *err)
{
	/* What may be there is of an earlier daemon, and no row names it (S5). */
	_cleanup_close_ int fd = open(bulk->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		return file_error(err, "make", bulk->path);
	bulk->n = 0;
	bulk->checksum = CHECKSUM_START;
	while (!r && bulk->n < n) {
		size_t left = n - bulk->n;

		r = write_keys(bulk, fd, prefixes + bulk->n,
			       left < KEYS_AT_ONCE ? left : KEYS_AT_ONCE, err);
	}
	if (r < 0)
		return r;
	if (fsync(fd) < 0)
		return file_error(err, "write", bulk->path);
	r = directory_sync(bulk->directory, err);
	bulk->written = !r;
	return r;
}

static int add_row(struct store *store, const struct store_bulk *bulk, struct error *err)
{
	const struct store_bulk_change *change = &bulk->change;
	sqlite3_stmt *statement = store->statements[ADD_BULK];
	u64 end = change->expires_ns;

	sqlite3_bind_int(statement, 1, (int)change->table);
	sqlite3_bind_int(statement, 2, change->removes ? BULK_REMOVE : BULK_PUT);
	sqlite3_bind_int64(statement, 3, change->created_s);
	sqlite3_bind_int64(statement, 4, (s64)end);
	sqlite3_bind_int64(statement, 5, end ? boot_to_wall_s(end) : 0);
	sqlite3_bind_text(statement, 6, change->comment, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 7, (s64)bulk->file);
	sqlite3_bind_int64(statement, 8, (s64)bulk->n);
	sqlite3_bind_int64(statement, 9, (s64)bulk->checksum);
	return store_run(store, ADD_BULK, err);
}

int store_bulk_commit(struct store *store, struct store_bulk *bulk, struct error *err)
{
	s64 n = 0;
	int r;

	if (!bulk->written)
		return error_set(err, -EINVAL, "%s was not written", bulk->path);
	r = store_query(store, "SELECT count(*) FROM bulk", &n, err);
	if (!r && n >= STORE_BULKS_MAX)
		r = store_fold_oldest(store, err);
	if (!r)
		r = store_begin(store, err);
	if (r < 0)
		return r;
	r = add_row(store, bulk, err);
	if (!r) {
		r = store_commit(store, err);
		/* A commit that the disk failed may be on it all the same: the next start knows. */
		bulk->keeps_file = !r || (sqlite3_errcode(store->db) & 0xff) == SQLITE_IOERR;
	}
	if (r < 0)
		store_rollback(store);
	return r;
}

void store_bulk_drop(struct store_bulk *bulk)
{
	if (!bulk)
		return;
	if (!bulk->keeps_file)
		unlink(bulk->path);
	free((char *)bulk->change.comment);
	free(bulk);
}

/* ---- those that are registered ---- */

static int pending_bulk_from(struct store *store, sqlite3_stmt *row, struct pending_bulk *ret,
			     struct error *err)
{
	const char *comment = (const char *)sqlite3_column_text(row, 6);
	struct pending_bulk bulk = {
		.seq = sqlite3_column_int64(row, 0),
		.table = (enum store_table)sqlite3_column_int(row, 1),
		.kind = (enum bulk_kind)sqlite3_column_int(row, 2),
		.created_s = sqlite3_column_int64(row, 3),
		.expires_ns = (u64)sqlite3_column_int64(row, 4),
		.expires_s = sqlite3_column_int64(row, 5),
		.file = (u64)sqlite3_column_int64(row, 7),
		.n = (u64)sqlite3_column_int64(row, 8),
		.checksum = (u64)sqlite3_column_int64(row, 9),
		.folded = (u64)sqlite3_column_int64(row, 10),
	};

	if (bulk.table >= STORE_TABLES || bulk.kind > BULK_CLEAR || bulk.folded > bulk.n ||
	    bulk.n > (u64)INT64_MAX / KEY_SIZE)
		return store_damaged(store, "a row that is no bulk change", err);
	if (comment) {
		bulk.comment = strdup(comment);
		if (!bulk.comment)
			return error_no_memory(err);
	}
	*ret = bulk;
	return 0;
}

int pending_bulks_load(struct store *store, struct pending_bulk **ret, size_t *ret_n,
		       struct error *err)
{
	struct pending_bulk *bulks = NULL;
	sqlite3_stmt *rows = NULL;
	size_t n = 0;
	s64 count = 0;
	int step, r = store_query(store, "SELECT count(*) FROM bulk", &count, err);

	if (r < 0)
		return r;
	bulks = calloc((size_t)count + 1, sizeof(*bulks));
	if (!bulks)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db,
			       "SELECT seq, tbl, kind, created_s, expires_boot_ns, expires_s, "
			       "comment, file, n, checksum, folded FROM bulk ORDER BY seq",
			       -1, &rows, NULL) != SQLITE_OK) {
		free(bulks);
		return store_db_error(store, "read", err);
	}
	while (!r && n < (size_t)count && (step = sqlite3_step(rows)) != SQLITE_DONE) {
		r = step == SQLITE_ROW ? pending_bulk_from(store, rows, &bulks[n], err)
				       : store_db_error(store, "read", err);
		n += !r;
	}
	sqlite3_finalize(rows);
	if (r < 0) {
		pending_bulks_free(bulks, n);
		return r;
	}
	*ret = bulks;
	*ret_n = n;
	return 0;
}

void pending_bulks_free(struct pending_bulk *bulks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(bulks[i].comment);
	free(bulks);
}

static int file_damaged(const struct store *store, const struct pending_bulk *bulk,
			const char *what, struct error *err)
{
	char why[64];

	snprintf(why, sizeof(why), BULK_DIRECTORY "/%llu %s", (unsigned long long)bulk->file, what);
	return store_damaged(store, why, err);
}

int pending_bulk_open(const struct store *store, const struct pending_bulk *bulk, int *ret_fd,
		      struct error *err)
{
	char path[FILE_PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct stat st;

	pending_bulk_path(store, bulk->file, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ENOENT)
		return file_damaged(store, bulk, "is missing", err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return file_error(err, "open", path);
	if (!S_ISREG(st.st_mode) || (u64)st.st_size != bulk->n * KEY_SIZE)
		return file_damaged(store, bulk, "has not the size that it had", err);
	*ret_fd = take_fd(&fd);
	return 0;
}

int pending_bulk_read(const struct store *store, const struct pending_bulk *bulk, int fd, u64 from,
		      size_t n, u8 *keys, struct error *err)
{
	size_t have = 0, size = n * KEY_SIZE;

	while (have < size) {
		ssize_t got = pread(fd, keys + have, size - have, (off_t)(from * KEY_SIZE + have));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			char path[FILE_PATH_MAX];

			pending_bulk_path(store, bulk->file, path);
			return file_error(err, "read", path);
		}
		if (!got)
			return file_damaged(store, bulk, "is cut off", err);
		have += (size_t)got;
	}
	return 0;
}

static int check_file(const struct store *store, const struct pending_bulk *bulk, struct error *err)
{
	u8 keys[KEYS_AT_ONCE * KEY_SIZE];
	_cleanup_close_ int fd = -1;
	u64 sum = CHECKSUM_START;
	int r = pending_bulk_open(store, bulk, &fd, err);

	for (u64 at = 0; !r && at < bulk->n; at += KEYS_AT_ONCE) {
		u64 left = bulk->n - at;
		size_t n = left < KEYS_AT_ONCE ? (size_t)left : KEYS_AT_ONCE;

		r = pending_bulk_read(store, bulk, fd, at, n, keys, err);
		if (!r)
			sum = checksum_add(sum, keys, n * KEY_SIZE);
	}
	if (!r && sum != bulk->checksum)
		return file_damaged(store, bulk, "has a wrong checksum", err);
	return r;
}

struct named_files {
	const struct pending_bulk *bulks;
	size_t n;
};

static bool is_unnamed(const char *file, const void *data)
{
	const struct named_files *named = data;
	char name[24];

	for (size_t i = 0; i < named->n; i++) {
		snprintf(name, sizeof(name), "%llu", (unsigned long long)named->bulks[i].file);
		if (!strcmp(file, name))
			return false;
	}
	return true;
}

int pending_bulks_check(struct store *store, struct error *err)
{
	struct named_files named = {0};
	struct pending_bulk *bulks = NULL;
	size_t n = 0;
	int r = pending_bulks_load(store, &bulks, &n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; !r && i < n; i++) {
		if (bulks[i].file > store->last_file)
			store->last_file = bulks[i].file;
		if (bulks[i].folded < bulks[i].n)
			r = check_file(store, &bulks[i], err);
	}
	named.bulks = bulks;
	named.n = n;
	if (!r)
		directory_sweep(store->dir, BULK_DIRECTORY, is_unnamed, &named);
	pending_bulks_free(bulks, n);
	return r;
}
