// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Room on the disk: a file that is kept so that rules can still be removed when the disk is full,
 * and the way back once it is not.
 */
#include "log.h"
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/*
 * The log's index of 32 KiB and some 50 pages of the log: what a start needs, or a removal of one
 * prefix, many times over. Each such removal begins the log again.
 */
#define RESERVE_BYTES (256 << 10)

static void reserve_path(const struct store *store, char path[static FILE_PATH_MAX])
{
	snprintf(path, FILE_PATH_MAX, "%s/reserve", store->dir);
}

/* With `more`: as much once more has to be there, which is not kept. */
static int fill_reserve(struct store *store, bool more, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char path[FILE_PATH_MAX];
	int code;

	reserve_path(store, path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return file_error(err, "make", path);
	code = posix_fallocate(fd, 0, more ? 2 * RESERVE_BYTES : RESERVE_BYTES);
	if (code && !store->has_reserve)
		unlink(path);
	else if (ftruncate(fd, RESERVE_BYTES) < 0 && !code)
		code = errno;
	if (code) {
		errno = code;
		return file_error(err, "make", path);
	}
	store->has_reserve = true;
	store->is_full = false;
	return 0;
}

int store_keep_reserve(struct store *store)
{
	fill_reserve(store, false, NULL);
	return 0;
}

int store_give_reserve(struct store *store)
{
	char path[FILE_PATH_MAX];

	reserve_path(store, path);
	store->has_reserve = false;
	return unlink(path) < 0 ? -ENOENT : 0;
}

int store_check_room(struct store *store, bool removes, struct error *err)
{
	int r = 0;

	if (store->in_memory || (!removes && (!store->has_reserve || store->is_full))) /* S8 */
		r = fill_reserve(store, store->is_full, err);
	if (!r && store->in_memory)
		r = store_leave_memory(store, err);
	return r;
}

bool store_refuses(struct store *store, struct error *ret_why)
{
	bool refuses = store_check_room(store, false, ret_why) < 0;

	if (refuses && !store->told_refusal)
		log_error("rules cannot be changed: %s; those that there are stay in force",
			  ret_why->text);
	else if (!refuses && store->told_refusal)
		log_notice("there is room again: rules can be changed");
	store->told_refusal = refuses;
	return refuses;
}

int store_make_room(struct store *store)
{
	if (store->in_memory)
		return -EDQUOT;
	store_give_reserve(store);
	/* The log begins again, over what it takes already; nobody waits for those who read it. */
	sqlite3_busy_timeout(store->db, 0);
	sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
	sqlite3_busy_timeout(store->db, STORE_BUSY_MS);
	return 0;
}
