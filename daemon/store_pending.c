// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Bytes of a file that are read at once to check it: whole words. */
#define CHECK_BYTES 65536

/* ---- rows ---- */

/* Of a row that has its keys itself. */
static int copy_keys(struct store *store, sqlite3_stmt *row, struct pending_bulk *bulk,
		     struct error *err)
{
	int size = sqlite3_column_bytes(row, 11);
	const void *keys = sqlite3_column_blob(row, 11);

	if (sqlite3_column_type(row, 11) == SQLITE_NULL)
		return 0;
	if ((u64)size != bulk->n * KEY_SIZE || bulk->file)
		return store_damaged(store, "a row that is no bulk change", err);
	bulk->keys = malloc((size_t)size + 1);
	if (!bulk->keys)
		return error_no_memory(err);
	if (size)
		memcpy(bulk->keys, keys, (size_t)size);
	return 0;
}

int pending_bulk_from(struct store *store, sqlite3_stmt *row, struct pending_bulk *ret,
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
	int r;

	if (bulk.table >= STORE_TABLES || bulk.kind >= BULK_KINDS || bulk.folded > bulk.n ||
	    bulk.n > (u64)INT64_MAX / sizeof(struct snapshot_record))
		return store_damaged(store, "a row that is no bulk change", err);
	r = copy_keys(store, row, &bulk, err);
	if (r < 0)
		return r;
	if (comment) {
		bulk.comment = strdup(comment);
		if (!bulk.comment) {
			free(bulk.keys);
			return error_no_memory(err);
		}
	}
	*ret = bulk;
	return 0;
}

int pending_bulks_load(struct store *store, size_t most, struct pending_bulk **ret, size_t *ret_n,
		       struct error *err)
{
	struct pending_bulk *bulks = NULL;
	sqlite3_stmt *rows = NULL;
	size_t n = 0;
	s64 count = 0;
	int step, r = store_query(store, "SELECT count(*) FROM bulk", &count, err);

	if (r < 0)
		return r;
	if ((u64)count > most)
		count = (s64)most;
	bulks = calloc((size_t)count + 1, sizeof(*bulks));
	if (!bulks)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db, BULK_ROWS, -1, &rows, NULL) != SQLITE_OK) {
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

void pending_bulk_clear(struct pending_bulk *bulk)
{
	free(bulk->comment);
	free(bulk->keys);
}

void pending_bulks_free(struct pending_bulk *bulks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pending_bulk_clear(&bulks[i]);
	free(bulks);
}

/* ---- files ---- */

static size_t record_size(const struct pending_bulk *bulk)
{
	return bulk->kind == BULK_SNAPSHOT ? sizeof(struct snapshot_record) : KEY_SIZE;
}

static size_t header_size(const struct pending_bulk *bulk)
{
	return bulk->kind == BULK_SNAPSHOT ? sizeof(struct snapshot_header) : 0;
}

static int file_damaged(const struct store *store, const struct pending_bulk *bulk,
			const char *what, struct error *err)
{
	char why[64];

	snprintf(why, sizeof(why), BULK_DIRECTORY "/%llu %s", (unsigned long long)bulk->file, what);
	return store_damaged(store, why, err);
}

static int open_any(const struct store *store, const struct pending_bulk *bulk, int *ret_fd,
		    u64 *ret_size, struct error *err)
{
	char path[FILE_PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct stat st;

	bulk_path(store->dir, bulk->file, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ENOENT)
		return file_damaged(store, bulk, "is missing", err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return file_error(err, "open", path);
	if (!S_ISREG(st.st_mode))
		return file_damaged(store, bulk, "is no file", err);
	*ret_fd = take_fd(&fd);
	*ret_size = (u64)st.st_size;
	return 0;
}

static int open_file(const struct store *store, const struct pending_bulk *bulk, int *ret_fd,
		     u64 *ret_size, struct error *err)
{
	u64 least = header_size(bulk) + bulk->n * record_size(bulk), size = 0;
	_cleanup_close_ int fd = -1;
	int r = open_any(store, bulk, &fd, &size, err);

	if (r < 0)
		return r;
	if (size < least || (bulk->kind != BULK_SNAPSHOT && size != least))
		return file_damaged(store, bulk, "has not the size that it had", err);
	*ret_fd = take_fd(&fd);
	*ret_size = size;
	return 0;
}

static int read_file(const struct store *store, const struct pending_bulk *bulk, int fd, u64 from,
		     void *bytes, size_t size, struct error *err)
{
	size_t have = 0;

	while (have < size) {
		ssize_t got = pread(fd, (u8 *)bytes + have, size - have, (off_t)(from + have));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			char path[FILE_PATH_MAX];

			bulk_path(store->dir, bulk->file, path);
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
	_cleanup_close_ int fd = -1;
	_cleanup_free_ u8 *bytes = malloc(CHECK_BYTES);
	u64 sum = CHECKSUM_START, size = 0;
	int r = bytes ? open_file(store, bulk, &fd, &size, err) : error_no_memory(err);

	for (u64 at = 0; !r && at < size; at += CHECK_BYTES) {
		size_t n = size - at < CHECK_BYTES ? (size_t)(size - at) : CHECK_BYTES;

		r = read_file(store, bulk, fd, at, bytes, n, err);
		if (!r)
			sum = checksum_add(sum, bytes, n);
	}
	if (!r && sum != bulk->checksum)
		return file_damaged(store, bulk, "has a wrong checksum", err);
	return r;
}

static int check_bulk(const struct store *store, const struct pending_bulk *bulk, struct error *err)
{
	if (bulk->folded == bulk->n)
		return 0;
	if (!bulk->keys)
		return check_file(store, bulk, err);
	if (checksum_add(CHECKSUM_START, bulk->keys, bulk->n * KEY_SIZE) != bulk->checksum)
		return store_damaged(store, "a bulk change with a wrong checksum", err);
	return 0;
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
	int r = pending_bulks_load(store, SIZE_MAX, &bulks, &n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; !r && i < n; i++) {
		if (bulks[i].file > store->last_file)
			store->last_file = bulks[i].file;
		r = check_bulk(store, &bulks[i], err);
	}
	named.bulks = bulks;
	named.n = n;
	if (!r)
		directory_sweep(store->dir, BULK_DIRECTORY, is_unnamed, &named);
	pending_bulks_free(bulks, n);
	return r;
}

/* ---- reading records ---- */

/* Whose boot the ends of a snapshot are of. */
static int read_header(struct bulk_reader *reader, struct error *err)
{
	struct snapshot_header header;
	char boot_id[40];
	int r = read_file(reader->store, reader->bulk, reader->fd, 0, &header, sizeof(header), err);

	if (r < 0)
		return r;
	boot_id_read(boot_id);
	reader->other_boot = strncmp(header.boot_id, boot_id, sizeof(header.boot_id)) != 0;
	return 0;
}

static int read_comments(struct bulk_reader *reader, u64 size, struct error *err)
{
	const struct pending_bulk *bulk = reader->bulk;
	u64 behind = header_size(bulk) + bulk->n * record_size(bulk);

	reader->comments_size = (size_t)(size - behind);
	reader->comments = malloc(reader->comments_size + 1);
	if (!reader->comments)
		return error_no_memory(err);
	reader->comments[reader->comments_size] = '\0';
	return read_file(reader->store, bulk, reader->fd, behind, reader->comments,
			 reader->comments_size, err);
}

/* Without what may be in a file. */
static int begin_reading(const struct store *store, const struct pending_bulk *bulk,
			 struct bulk_reader *ret, struct error *err)
{
	*ret = (struct bulk_reader){
		.store = store,
		.bulk = bulk,
		.fd = -1,
		.record_size = record_size(bulk),
		.next = bulk->folded,
	};
	if (bulk->folded == bulk->n)
		return 0;
	ret->records = malloc(KEYS_AT_ONCE * ret->record_size);
	return ret->records ? 0 : error_no_memory(err);
}

int bulk_reader_open(const struct store *store, const struct pending_bulk *bulk,
		     struct bulk_reader *ret, struct error *err)
{
	u64 size = 0;
	int r = begin_reading(store, bulk, ret, err);

	if (r < 0 || bulk->keys || bulk->folded == bulk->n)
		return r;
	r = open_file(store, bulk, &ret->fd, &size, err);
	if (!r && bulk->kind == BULK_SNAPSHOT)
		r = read_header(ret, err);
	if (!r && bulk->kind == BULK_SNAPSHOT)
		r = read_comments(ret, size, err);
	return r;
}

int bulk_reader_open_damaged(const struct store *store, struct pending_bulk *bulk,
			     struct bulk_reader *ret, bool *ret_whole, struct error *err)
{
	u64 size = 0, left, n = bulk->n;
	int r = begin_reading(store, bulk, ret, err);

	*ret_whole = !r;
	if (r < 0 || bulk->keys || bulk->folded == n)
		return r;
	r = open_any(store, bulk, &ret->fd, &size, err);
	if (!r && bulk->kind == BULK_SNAPSHOT)
		r = read_header(ret, err);
	if (r < 0)
		return r;
	left = (size - header_size(bulk)) / record_size(bulk);
	*ret_whole = left >= n;
	if (left < n)
		bulk->n = left < bulk->folded ? bulk->folded : left;
	/* Behind records that are cut off are none. */
	return *ret_whole && bulk->kind == BULK_SNAPSHOT ? read_comments(ret, size, err) : 0;
}

void bulk_reader_close(struct bulk_reader *reader)
{
	closep(&reader->fd);
	free(reader->records);
	free(reader->comments);
}

static int fill(struct bulk_reader *reader, struct error *err)
{
	const struct pending_bulk *bulk = reader->bulk;
	u64 left = bulk->n - reader->next, at = reader->next * reader->record_size;
	size_t n = left < KEYS_AT_ONCE ? (size_t)left : KEYS_AT_ONCE;
	int r = 0;

	if (bulk->keys)
		memcpy(reader->records, bulk->keys + at, n * reader->record_size);
	else
		r = read_file(reader->store, bulk, reader->fd, header_size(bulk) + at,
			      reader->records, n * reader->record_size, err);
	if (r < 0)
		return r;
	reader->next += n;
	reader->n = n;
	reader->at = 0;
	return 0;
}

int bulk_reader_at(struct bulk_reader *reader, const u8 **ret, struct error *err)
{
	int r = 0;

	if (reader->at == reader->n && reader->next < reader->bulk->n)
		r = fill(reader, err);
	if (r < 0)
		return r;
	*ret = reader->at < reader->n ? reader->records + reader->at * reader->record_size : NULL;
	return 0;
}

int bulk_reader_rule(const struct bulk_reader *reader, const u8 *record, struct bulk_rule *ret,
		     struct error *err)
{
	const struct pending_bulk *bulk = reader->bulk;
	struct snapshot_record one;

	if (bulk->kind != BULK_SNAPSHOT) {
		*ret = (struct bulk_rule){
			.created_s = bulk->created_s,
			.expires_s = bulk->expires_s,
			.expires_ns = bulk->expires_ns,
			.comment = bulk->comment,
		};
		return 0;
	}
	memcpy(&one, record, sizeof(one));
	if (one.comment > reader->comments_size)
		return file_damaged(reader->store, bulk, "has a comment that is not there", err);
	*ret = (struct bulk_rule){
		.created_s = one.created_s,
		.expires_s = one.expires_s,
		.expires_ns = one.expires_ns && reader->other_boot
				      ? end_carried_over(one.expires_s, one.created_s)
				      : one.expires_ns,
		.comment = one.comment ? reader->comments + one.comment - 1 : NULL,
	};
	return 0;
}
