// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct store_bulk {
	struct store_bulk_change change; /* owns the comment */
	u64 file, n, checksum;
	bool written;
	bool keeps_file;
	char directory[FILE_PATH_MAX], path[FILE_PATH_MAX];
};

u64 checksum_add(u64 sum, const u8 *bytes, size_t size)
{
	for (size_t i = 0; i < size; i += 8) {
		u64 word = 0;

		memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
		sum = (sum ^ word) * 0x100000001b3;
		sum ^= sum >> 32;
	}
	return sum;
}

_Static_assert(KEYS_AT_ONCE *KEY_SIZE % 8 == 0, "parts end at a word");

void bulk_directory(const char *dir, char path[static FILE_PATH_MAX])
{
	snprintf(path, FILE_PATH_MAX, "%s/" BULK_DIRECTORY, dir);
}

void bulk_path(const char *dir, u64 file, char path[static FILE_PATH_MAX])
{
	snprintf(path, FILE_PATH_MAX, "%s/" BULK_DIRECTORY "/%llu", dir, (unsigned long long)file);
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
	bulk_directory(store->dir, bulk->directory);
	bulk_path(store->dir, bulk->file, bulk->path);
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

/* `keys`: of one without a file; else NULL. */
static int add_row(struct store *store, const struct store_bulk *bulk, const u8 *keys,
		   struct error *err)
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
	if (keys)
		sqlite3_bind_blob64(statement, 10, keys, bulk->n * KEY_SIZE, SQLITE_STATIC);
	else
		sqlite3_bind_null(statement, 10);
	return store_run(store, ADD_BULK, err);
}

int store_commit_file(struct store *store, bool *ret_keeps_file, struct error *err)
{
	int r = store_commit(store, err);

	/* A commit that the disk failed may be on it all the same: the next start knows. */
	*ret_keeps_file = !r || (sqlite3_errcode(store->db) & 0xff) == SQLITE_IOERR;
	return r;
}

int store_bulk_commit(struct store *store, struct store_bulk *bulk, const struct ruleset *forced,
		      struct error *err)
{
	int r;

	if (!bulk->written)
		return error_set(err, -EINVAL, "%s was not written", bulk->path);
	r = store_check_room(store, bulk->change.removes, err);
	if (!r)
		r = store_keep_bound(store, bulk->change.table, err);
	if (!r)
		r = bulk->change.removes ? store_begin_removal(store, err)
					 : store_begin(store, err);
	if (r < 0)
		return r;
	r = add_row(store, bulk, NULL, err);
	if (!r && forced)
		r = store_set_forced(store, forced, err);
	if (!r)
		r = store_commit_file(store, &bulk->keeps_file, err);
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

/* ---- those without a file ---- */

int store_batch(struct store *store, const struct store_bulk_change *change,
		const struct prefix *prefixes, size_t n, struct error *err)
{
	_cleanup_free_ u8 *keys = malloc(n * KEY_SIZE + 1);
	struct store_bulk bulk = {.change = *change, .n = n};

	if (!keys)
		return error_no_memory(err);
	for (size_t i = 0; i < n; i++)
		key_pack(&prefixes[i], keys + i * KEY_SIZE);
	bulk.checksum = checksum_add(CHECKSUM_START, keys, n * KEY_SIZE);
	return add_row(store, &bulk, keys, err);
}
