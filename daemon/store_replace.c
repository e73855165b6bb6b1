// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Databases in memory: one that is to take the place of a damaged or missing file, and a copy of a
 * file that cannot be opened as usual, since the disk is full or may not be written to.
 */
#include "log.h"
#include "store_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* "rules.db.damaged-20261122T192000Z", and with these behind it. */
#define ASIDE	       ".damaged-"
#define STAMP	       "%Y%m%dT%H%M%SZ"
#define STAMP_SIZE     (sizeof("20261122T192000Z") - 1)
#define ASIDE_PATH_MAX (STORE_PATH_MAX + 64)

static const char *const parts[] = {"", "-wal", "-shm"};

/* Damaged databases that are kept: a disk that goes bad must not be filled by them, too. */
#define ASIDE_KEPT 8

static void aside_path(const struct store *store, s64 at_s, char path[static ASIDE_PATH_MAX])
{
	char stamp[STAMP_SIZE + 1];
	time_t at = at_s;
	struct tm tm;

	gmtime_r(&at, &tm);
	strftime(stamp, sizeof(stamp), STAMP, &tm);
	snprintf(path, ASIDE_PATH_MAX, "%s" ASIDE "%s", store->path, stamp);
}

static void path_with(const struct store *store, const char *ending,
		      char path[static ASIDE_PATH_MAX])
{
	snprintf(path, ASIDE_PATH_MAX, "%s%s", store->path, ending);
}

static bool has_log(const struct store *store)
{
	char path[ASIDE_PATH_MAX];
	struct stat st;

	path_with(store, "-wal", path);
	return !stat(path, &st) && st.st_size > 0;
}

int store_file_is_empty(const struct store *store, struct error *err)
{
	struct stat st;

	if (stat(store->path, &st) < 0) {
		if (errno != ENOENT)
			return file_error(err, "open", store->path);
		if (has_log(store))
			return store_damaged(store, "the file is missing, its log is there", err);
		return error_set(err, -ENOENT, "%s is missing", store->path);
	}
	return S_ISREG(st.st_mode) && !st.st_size ? store_damaged(store, "the file is empty", err)
						  : 0;
}

/* ---- putting one in the place of another ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int is_aside(const struct dirent *entry)
{
	static const char front[] = "rules.db" ASIDE;

	return strlen(entry->d_name) == sizeof(front) - 1 + STAMP_SIZE &&
	       !strncmp(entry->d_name, front, sizeof(front) - 1);
}

/* Their names sort by their age. */
static void forget_oldest(const struct store *store)
{
	struct dirent **names;
	int n = scandir(store->dir, &names, is_aside, alphasort);

	for (int i = 0; i < n; i++) {
		char path[FILE_PATH_MAX + 32];

		for (size_t part = 0; i < n - ASIDE_KEPT && part < ARRAY_SIZE(parts); part++) {
			snprintf(path, sizeof(path), "%s/%.*s%s", store->dir, 40, names[i]->d_name,
				 parts[part]);
			unlink(path);
		}
		if (i < n - ASIDE_KEPT) {
			snprintf(path, sizeof(path), "%s/%.*s-bulk", store->dir, 40,
				 names[i]->d_name);
			nftw(path, remove_one, 4, FTW_DEPTH | FTW_PHYS);
			log_notice("removed %s/%s: %d newer damaged ones are kept", store->dir,
				   names[i]->d_name, ASIDE_KEPT);
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static int put_aside(const struct store *store, s64 at_s, struct error *err)
{
	char from[ASIDE_PATH_MAX], aside[ASIDE_PATH_MAX], to[ASIDE_PATH_MAX + 8];

	aside_path(store, at_s, aside);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		path_with(store, parts[i], from);
		snprintf(to, sizeof(to), "%s%s", aside, parts[i]);
		if (rename(from, to) < 0 && errno != ENOENT)
			return file_error(err, "put aside", from);
	}
	bulk_directory(store->dir, from);
	snprintf(to, sizeof(to), "%s-" BULK_DIRECTORY, aside);
	if (rmdir(from) < 0 && errno != ENOENT && rename(from, to) < 0)
		return file_error(err, "put aside", from);
	return 0;
}

int store_finish_replacing(struct store *store, struct error *err)
{
	char path[ASIDE_PATH_MAX];
	struct stat st;
	int r;

	path_with(store, ".new", path);
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : file_error(err, "open", path);
	r = put_aside(store, st.st_mtim.tv_sec, err);
	if (r < 0)
		return r;
	if (rename(path, store->path) < 0)
		return file_error(err, "rename", path);
	r = directory_sync(store->dir, err);
	if (!r)
		forget_oldest(store);
	return r;
}

static int copy_database(struct store *store, sqlite3 *from, sqlite3 *to, const char *what,
			 struct error *err)
{
	sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
	int code;

	if (backup)
		sqlite3_backup_step(backup, -1);
	if (backup && sqlite3_backup_finish(backup) == SQLITE_OK)
		return 0;
	code = sqlite3_errcode(to) & 0xff;
	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		return store_damaged(store, sqlite3_errmsg(to), err);
	if (code == SQLITE_FULL)
		return disk_full(err, what, store->path);
	return error_set(err, -EIO, "cannot %s %s: %s", what, store->path, sqlite3_errmsg(to));
}

/* Its time is that of the damage, by which the file that it replaces is named. */
static int sync_copy(const struct store *store, const char *path, struct error *err)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = store->damaged_s}};
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || futimens(fd, times) < 0 || fsync(fd) < 0)
		return file_error(err, "write", path);
	return 0;
}

/* What is in memory becomes rules.db.new, whole. */
static int save(struct store *store, struct error *err)
{
	char copy[ASIDE_PATH_MAX], path[ASIDE_PATH_MAX];
	sqlite3 *db = NULL;
	int r;

	path_with(store, ".tmp", copy);
	path_with(store, ".new", path);
	unlink(copy);
	if (sqlite3_open_v2(copy, &db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		r = error_set(err, -EIO, "cannot make %s: %s", copy, sqlite3_errmsg(db));
	else
		r = copy_database(store, store->db, db, "write", err);
	sqlite3_close(db);
	if (!r)
		r = sync_copy(store, copy, err);
	if (!r && rename(copy, path) < 0)
		r = file_error(err, "rename", copy);
	if (r < 0)
		unlink(copy);
	return r ? r : directory_sync(store->dir, err);
}

static void take_database(struct store *store, struct store *from)
{
	store_close_database(store);
	store->db = from->db;
	memcpy(store->statements, from->statements, sizeof(store->statements));
	store->checkpointer = from->checkpointer;
	store->same_boot = from->same_boot;
	store->change = from->change;
	if (from->last_file > store->last_file)
		store->last_file = from->last_file;
	store->in_memory = false;
}

int store_leave_memory(struct store *store, struct error *err)
{
	struct store file = {.lock_fd = -1};
	int r = 0;

	if (store->is_anew) {
		r = save(store, err);
		if (!r)
			r = store_finish_replacing(store, err);
		if (r < 0)
			return r;
		store->is_anew = false;
	}
	memcpy(file.dir, store->dir, sizeof(file.dir));
	memcpy(file.path, store->path, sizeof(file.path));
	r = store_open_file(&file, err);
	if (r < 0)
		store_close_database(&file);
	else
		take_database(store, &file);
	return r;
}

/* ---- recovery ---- */

static int open_memory(struct store *store, struct error *err)
{
	store_close_database(store);
	if (sqlite3_open(":memory:", &store->db) != SQLITE_OK)
		return store_db_error(store, "copy", err);
	store->in_memory = true;
	return 0;
}

/* Behind that of the newest, so that names sort by age. */
static s64 next_stamp(const struct store *store)
{
	struct dirent **names;
	int n = scandir(store->dir, &names, is_aside, alphasort);
	s64 at_s = (s64)time(NULL);

	for (int i = 0; i < n; i++) {
		struct tm tm = {0};

		if (strptime(names[i]->d_name + sizeof("rules.db" ASIDE) - 1, STAMP, &tm) &&
		    timegm(&tm) >= at_s)
			at_s = timegm(&tm) + 1;
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return at_s;
}

static int note_recovery(struct store *store, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(store->db, "INSERT OR REPLACE INTO meta VALUES ('recovering', ?1)",
			       -1, &statement, NULL) != SQLITE_OK)
		return store_db_error(store, "set up", err);
	sqlite3_bind_text(statement, 1, store->damage, -1, SQLITE_STATIC);
	if (sqlite3_step(statement) != SQLITE_DONE)
		r = store_db_error(store, "set up", err);
	sqlite3_finalize(statement);
	store->recovering = !r;
	return r;
}

/* `why` is NULL where there was no database. */
static int salvage(struct store *store, const char *why, struct error *err)
{
	char aside[ASIDE_PATH_MAX];
	sqlite3 *from = NULL;
	s64 n = 0;
	int r = 0;

	store->damage[0] = '\0';
	if (!why)
		return 0;
	if (!store_open_frozen(store, &from))
		r = store_salvage(store, from, err);
	sqlite3_close(from);
	if (!r)
		r = store_query(store,
				"SELECT (SELECT count(*) FROM block) + (SELECT count(*) FROM "
				"allow) + (SELECT count(*) FROM redirect)",
				&n, err);
	aside_path(store, store->damaged_s, aside);
	snprintf(store->damage, sizeof(store->damage), "%.*s: kept as %s; %lld rules could be read",
		 ERROR_TEXT_MAX / 2, why, aside, (long long)n);
	return r;
}

int store_recover(struct store *store, const char *why, struct error *err)
{
	struct error text = {""};
	int r;

	/* `why` may be the text of `err`. */
	if (why)
		snprintf(text.text, sizeof(text.text), "%s", why);
	if (store->db)
		store_keep_log(store, true);
	r = open_memory(store, err);
	if (!r)
		r = store_set_up(store, 0, err);
	if (r < 0)
		return r;
	store->is_anew = true;
	store->damaged_s = next_stamp(store);
	r = salvage(store, why ? text.text : NULL, err);
	if (!r)
		r = note_recovery(store, err);
	if (r < 0)
		return r;
	/* Where the disk is full, later. */
	return store_leave_memory(store, err) == -ENOMEM ? -ENOMEM : 0;
}

int store_open_copy(struct store *store, struct error *err)
{
	struct error why = *err;
	sqlite3 *from = NULL;
	s64 version = 0;
	int r = store_open_frozen(store, &from);

	if (!r)
		r = open_memory(store, err);
	if (!r)
		r = copy_database(store, from, store->db, "copy", err);
	sqlite3_close(from);
	if (r < 0 && r != -EUCLEAN) {
		*err = why;
		return -EIO;
	}
	if (!r)
		r = store_check(store, &version, err);
	if (!r)
		r = store_set_up(store, version, err);
	if (!r)
		r = pending_bulks_check(store, err);
	return r == -EUCLEAN ? store_recover(store, err->text, err) : r;
}

const char *store_damage(const struct store *store)
{
	return *store->damage ? store->damage : NULL;
}

bool store_recovering(const struct store *store)
{
	return store->recovering;
}

int store_recovered(struct store *store, u64 change, const char *what, struct error *err)
{
	size_t size = strlen(store->damage);
	int r = store_execute(store, "DELETE FROM meta WHERE key = 'recovering'", "write", err);

	if (r < 0)
		return r;
	if ((u64)store->change < change)
		store->change = (s64)change;
	r = store_commit(store, err);
	if (r < 0)
		return r;
	store->recovering = false;
	/* A log that is lost does not bring the note back. */
	if (!store->in_memory)
		sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (what && !size)
		snprintf(store->damage, sizeof(store->damage), "%s was missing; %s", store->path,
			 what);
	else if (what)
		snprintf(store->damage + size, sizeof(store->damage) - size, "; %s", what);
	return 0;
}

/* ---- reading only ---- */

/* sqlite.org/uri.html; what is not plain is escaped. */
static void make_uri(const char *path, char *uri)
{
	uri += sprintf(uri, "file:");
	for (; *path; path++)
		if (isalnum((unsigned char)*path) || strchr("/._-", *path))
			*uri++ = *path;
		else
			uri += sprintf(uri, "%%%02x", (unsigned char)*path);
	strcpy(uri, "?immutable=1");
}

/*
 * With a log: as the only one who has it open, so that the log's index is in memory; the directory
 * is locked. Without: as a file that nobody changes, since a log would be made.
 */
int store_open_frozen(const struct store *store, sqlite3 **ret)
{
	const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
	char uri[3 * STORE_PATH_MAX + 32];
	sqlite3 *db = NULL;
	int r;

	make_uri(store->path, uri);
	if (has_log(store))
		r = sqlite3_open_v2(store->path, &db, flags, "unix-none");
	else
		r = sqlite3_open_v2(uri, &db, flags | SQLITE_OPEN_URI, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	if (r != SQLITE_OK) {
		sqlite3_close(db);
		return -EIO;
	}
	*ret = db;
	return 0;
}
