// SPDX-License-Identifier: GPL-2.0-or-later
#include "store_internal.h"

#include <errno.h>
#include <string.h>

/* A connection of its own, which sees the database as it is at the first look. */
int store_open_reader(const struct store *store, struct store **ret, struct error *err)
{
	_cleanup_(store_closep) struct store *reader = calloc(1, sizeof(*reader));
	int r;

	if (store->in_memory)
		return error_set(err, -EROFS,
				 "cannot compare with %s, which cannot be written to yet",
				 store->path);
	if (!reader)
		return error_no_memory(err);
	reader->lock_fd = -1;
	reader->same_boot = store->same_boot;
	memcpy(reader->dir, store->dir, sizeof(reader->dir));
	memcpy(reader->path, store->path, sizeof(reader->path));
	if (sqlite3_open_v2(reader->path, &reader->db,
			    SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
			    NULL) != SQLITE_OK)
		return store_db_error(reader, "open", err);
	sqlite3_busy_timeout(reader->db, STORE_BUSY_MS);
	r = store_execute(reader, "BEGIN; SELECT 1 FROM meta", "read", err);
	if (!r)
		*ret = take_pointer(&reader);
	return r;
}
