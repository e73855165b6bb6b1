// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* "fwd" and the version of the schema; see SQLite's PRAGMA application_id and user_version. */
#define APPLICATION_ID 0x667764
#define SCHEMA_VERSION 4

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

/* The newest bulk change that ever was; see S1. */
#define NEWEST_BULK "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'bulk')"

#define PUT_INTO(table)                                                           \
	"INSERT OR REPLACE INTO " table                                           \
	" (prefix, created_s, expires_boot_ns, expires_s, comment, seq) VALUES (" \
	"?1, ?2, ?3, ?4, ?5, " NEWEST_BULK ")"

/* S3; the columns of a row that never was in force. */
#define MARK_REMOVED_IN(table, number)                                                \
	"INSERT INTO " table " (prefix, created_s, expires_boot_ns, expires_s, seq) " \
	"SELECT ?1, 0, 1, 0, " NEWEST_BULK " WHERE EXISTS "                           \
	"(SELECT 1 FROM bulk WHERE tbl = " number ")"

/* S1. A rule that had not ended when the bulk change was made keeps its age. */
#define FOLD_PUT_INTO(table)                                                                     \
	"INSERT INTO " table " (prefix, created_s, expires_boot_ns, expires_s, comment, seq) "   \
	"VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (prefix) DO UPDATE SET "                    \
	"created_s = CASE WHEN expires_boot_ns <> 0 AND expires_s <= excluded.created_s "        \
	"THEN excluded.created_s ELSE created_s END, expires_boot_ns = excluded.expires_boot_ns" \
	", expires_s = excluded.expires_s, comment = excluded.comment, seq = excluded.seq "      \
	"WHERE seq < excluded.seq"

/* S1. It knows the age. */
#define FOLD_SNAPSHOT_INTO(table)                                                              \
	"INSERT INTO " table " (prefix, created_s, expires_boot_ns, expires_s, comment, seq) " \
	"VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (prefix) DO UPDATE SET "                  \
	"created_s = excluded.created_s, expires_boot_ns = excluded.expires_boot_ns, "         \
	"expires_s = excluded.expires_s, comment = excluded.comment, seq = excluded.seq "      \
	"WHERE seq < excluded.seq"

/* As many rows as a step of folding takes. */
#define FOLD_CLEAR_OF(table)                                               \
	"DELETE FROM " table " WHERE prefix IN (SELECT prefix FROM " table \
	" WHERE seq < ?1 LIMIT ?2)"

static const char *const statement_sql[] = {
	[PUT_BLOCK] = PUT_INTO("block"),
	[PUT_ALLOW] = PUT_INTO("allow"),
	[REMOVE_BLOCK] = "DELETE FROM block WHERE prefix = ?1",
	[REMOVE_ALLOW] = "DELETE FROM allow WHERE prefix = ?1",
	[MARK_REMOVED_BLOCK] = MARK_REMOVED_IN("block", "0"),
	[MARK_REMOVED_ALLOW] = MARK_REMOVED_IN("allow", "1"),
	[FOLD_PUT_BLOCK] = FOLD_PUT_INTO("block"),
	[FOLD_PUT_ALLOW] = FOLD_PUT_INTO("allow"),
	[FOLD_REMOVE_BLOCK] = "DELETE FROM block WHERE prefix = ?1 AND seq < ?2",
	[FOLD_REMOVE_ALLOW] = "DELETE FROM allow WHERE prefix = ?1 AND seq < ?2",
	[FOLD_CLEAR_BLOCK] = FOLD_CLEAR_OF("block"),
	[FOLD_CLEAR_ALLOW] = FOLD_CLEAR_OF("allow"),
	[FORGET_REMOVED_BLOCK] = "DELETE FROM block WHERE expires_boot_ns = 1 AND seq <= ?1",
	[FORGET_REMOVED_ALLOW] = "DELETE FROM allow WHERE expires_boot_ns = 1 AND seq <= ?1",
	[VOID_BULKS] = "UPDATE bulk SET folded = n WHERE tbl = ?1",
	[FORGET_CLEAR] = "DELETE FROM bulk WHERE tbl = ?1 AND kind = 2",
	[ADD_CLEAR] = "INSERT INTO bulk (tbl, kind, created_s, expires_boot_ns, expires_s, file, "
		      "n, checksum, folded) VALUES (?1, 2, 0, 0, 0, 0, 0, 0, 0)",
	[ADD_BULK] = "INSERT INTO bulk (tbl, kind, created_s, expires_boot_ns, expires_s, "
		     "comment, file, n, checksum, folded, keys) "
		     "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10)",
	[MOVE_BULK] = "UPDATE bulk SET folded = ?2 WHERE seq = ?1",
	[END_BULK] = "DELETE FROM bulk WHERE seq = ?1",
	[FOLD_SNAPSHOT_BLOCK] = FOLD_SNAPSHOT_INTO("block"),
	[FOLD_SNAPSHOT_ALLOW] = FOLD_SNAPSHOT_INTO("allow"),
	[FILL_SNAPSHOT] = "UPDATE bulk SET kind = 3, file = ?2, n = ?3, checksum = ?4 WHERE "
			  "seq = ?1 AND NOT EXISTS (SELECT 1 FROM bulk AS newer WHERE "
			  "newer.tbl = bulk.tbl AND newer.kind = 2 AND newer.seq > ?1)",
	[END_OLDER] = "DELETE FROM bulk WHERE tbl = ?1 AND seq < ?2",
	[PUT_REDIRECT] = "INSERT OR REPLACE INTO redirect (interface, direction, protocol, "
			 "port_first, port_last, target, mode) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[REMOVE_REDIRECT] = "DELETE FROM redirect WHERE interface = ?1 AND direction = ?2 AND "
			    "protocol = ?3 AND port_first = ?4 AND port_last = ?5",
	[PUT_FORCED] = "INSERT OR IGNORE INTO forced (prefix) VALUES (?1)",
	[CLEAR_FORCED] = "DELETE FROM forced",
	[NOTE_CHANGE] = "INSERT OR REPLACE INTO meta VALUES ('change', ?1)",
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
};
_Static_assert(ARRAY_SIZE(statement_sql) == STATEMENTS, "the text of each statement");
_Static_assert(BULK_CLEAR == 2 && BULK_SNAPSHOT == 3, "the numbers in the statements");
_Static_assert(STORE_BLOCK == 0 && STORE_ALLOW == 1 && STORE_TABLES == 2,
	       "the numbers in MARK_REMOVED_IN");

/* Version 1. An earlier fwd may have died between noting the version and making the tables. */
static const char schema_1[] =
	"CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS block (prefix BLOB PRIMARY KEY, created_s INTEGER NOT NULL,"
	" expires_boot_ns INTEGER NOT NULL, expires_s INTEGER NOT NULL, comment TEXT)"
	" WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS allow (prefix BLOB PRIMARY KEY, created_s INTEGER NOT NULL,"
	" expires_boot_ns INTEGER NOT NULL, expires_s INTEGER NOT NULL, comment TEXT)"
	" WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS redirect (interface TEXT NOT NULL, direction INTEGER NOT NULL,"
	" protocol INTEGER NOT NULL, port_first INTEGER NOT NULL, port_last INTEGER NOT NULL,"
	" target TEXT NOT NULL, mode INTEGER NOT NULL,"
	" PRIMARY KEY (interface, direction, protocol, port_first, port_last)) WITHOUT ROWID;";

/* Version 2 adds bulk changes. */
static const char schema_2[] =
	"ALTER TABLE block ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE allow ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;"
	"CREATE INDEX block_removed ON block (seq) WHERE expires_boot_ns = 1;"
	"CREATE INDEX allow_removed ON allow (seq) WHERE expires_boot_ns = 1;"
	"CREATE TABLE bulk (seq INTEGER PRIMARY KEY AUTOINCREMENT, tbl INTEGER NOT NULL,"
	" kind INTEGER NOT NULL, created_s INTEGER NOT NULL, expires_boot_ns INTEGER NOT NULL,"
	" expires_s INTEGER NOT NULL, comment TEXT, file INTEGER NOT NULL, n INTEGER NOT NULL,"
	" checksum INTEGER NOT NULL, folded INTEGER NOT NULL);";

/* Version 3 has bulk changes with their keys, and snapshots. */
static const char schema_3[] = "ALTER TABLE bulk ADD COLUMN keys BLOB;";

/* Version 4 adds the runtime rules of `block` that were forced. */
static const char schema_4[] = "CREATE TABLE forced (prefix BLOB PRIMARY KEY) WITHOUT ROWID;";

int store_damaged(const struct store *store, const char *why, struct error *err)
{
	return error_set(err, -EUCLEAN, "the rules in %s are damaged (%s)%s", store->path, why,
			 store->in_use ? ": restart fwd, which keeps the file aside and recovers "
					 "what packets see"
				       : "");
}

int store_db_error(struct store *store, const char *what, struct error *err)
{
	int code = sqlite3_errcode(store->db) & 0xff;
	int system_code = code == SQLITE_IOERR ? sqlite3_system_errno(store->db) : 0;

	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		return store_damaged(store, sqlite3_errmsg(store->db), err);
	/* Of the files beside the database it says no more than that they failed. */
	if (code == SQLITE_FULL || (code == SQLITE_IOERR && system_code == ENOSPC)) {
		store->is_full = true;
		return disk_full(err, what, store->path);
	}
	return error_set(err, -EIO, "cannot %s %s: %s%s%s", what, store->path,
			 sqlite3_errmsg(store->db), system_code ? ": " : "",
			 system_code ? error_name(system_code) : "");
}

int store_execute(struct store *store, const char *sql, const char *what, struct error *err)
{
	if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return store_db_error(store, what, err);
	return 0;
}

int store_run(struct store *store, enum statement which, struct error *err)
{
	sqlite3_stmt *statement = store->statements[which];
	int r = sqlite3_step(statement) == SQLITE_DONE ? 0 : store_db_error(store, "write", err);

	sqlite3_reset(statement);
	return r;
}

int store_query(struct store *store, const char *sql, s64 *ret, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK ||
	    sqlite3_step(statement) != SQLITE_ROW)
		r = store_db_error(store, "read", err);
	else
		*ret = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return r;
}

void boot_id_read(char id[static 40])
{
	_cleanup_fclose_ FILE *file = fopen(BOOT_ID_FILE, "re");

	if (!file || !fgets(id, 40, file))
		id[0] = '\0';
	id[strcspn(id, "\n")] = '\0';
}

/* Notes whose boot it is, and whether that is still the one of the last time. */
static int compare_boot(struct store *store, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	char id[40];
	int r = 0;

	boot_id_read(id);
	store->same_boot = false;
	if (sqlite3_prepare_v2(store->db, "SELECT value FROM meta WHERE key = 'boot_id'", -1,
			       &statement, NULL) != SQLITE_OK)
		return store_db_error(store, "read", err);
	if (sqlite3_step(statement) == SQLITE_ROW)
		store->same_boot =
			*id && !strcmp(id, (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	if (store->same_boot)
		return 0;

	/* CLOCK_BOOTTIME has begun again: carry the ends over by the wall clock. */
	if (sqlite3_prepare_v2(store->db, "INSERT OR REPLACE INTO meta VALUES ('boot_id', ?1)", -1,
			       &statement, NULL) != SQLITE_OK)
		return store_db_error(store, "read", err);
	sqlite3_bind_text(statement, 1, id, -1, SQLITE_TRANSIENT);
	if (sqlite3_step(statement) != SQLITE_DONE)
		r = store_db_error(store, "write", err);
	sqlite3_finalize(statement);
	return r;
}

/* Never more than the whole span: a wall clock that starts in the past must not add to it. */
u64 end_carried_over(s64 expires_s, s64 created_s)
{
	s64 left_s = expires_s - wall_s(), span_s = expires_s - created_s;
	s64 end_ns;

	if (span_s < 1)
		span_s = 1;
	end_ns = (left_s < span_s ? left_s : span_s) * (s64)NS_PER_S + (s64)boot_ns();
	return end_ns < 1 ? 1 : (u64)end_ns;
}

/* The same for rows. */
static int carry_over(struct store *store, const char *table, struct error *err)
{
	char sql[256];

	snprintf(sql, sizeof(sql),
		 "UPDATE %s SET expires_boot_ns = max(1, min(expires_s - %lld, "
		 "max(expires_s - created_s, 1)) * 1000000000 + %lld) WHERE expires_boot_ns <> 0",
		 table, (long long)wall_s(), (long long)boot_ns());
	return store_execute(store, sql, "write", err);
}

/* One transaction, so that a crash in it leaves the ends to be carried over again. */
static int settle_boot(struct store *store, struct error *err)
{
	static const char *const tables[] = {"block", "allow", "bulk"};
	int r = store_run(store, BEGIN, err);

	if (r < 0)
		return r;
	r = compare_boot(store, err);
	for (size_t i = 0; !r && !store->same_boot && i < ARRAY_SIZE(tables); i++)
		r = carry_over(store, tables[i], err);
	if (!r)
		return store_run(store, COMMIT, err);
	store_rollback(store);
	return r;
}

/*
 * Rules that have ended are not loaded; that a full disk keeps them does no harm. Those that a
 * pending bulk change must not bring back stay, too (S3).
 */
static void forget_ended(struct store *store, const char *table)
{
	char sql[192];

	snprintf(sql, sizeof(sql),
		 "DELETE FROM %s WHERE expires_boot_ns BETWEEN 1 AND %lld "
		 "AND NOT EXISTS (SELECT 1 FROM bulk)",
		 table, (long long)boot_ns());
	store_execute(store, sql, "write", NULL);
}

/* By its tables, where the application id says otherwise: that is in the first page, which is the
 * first to be damaged. */
static bool has_tables(struct store *store)
{
	s64 n = 0;

	return !store_query(store,
			    "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN "
			    "('meta', 'block', 'allow', 'redirect')",
			    &n, NULL) &&
	       n == 4;
}

static int check_version(struct store *store, s64 *ret_version, struct error *err)
{
	s64 id = 0, version = 0;
	int r = store_query(store, "PRAGMA application_id", &id, err);

	if (!r)
		r = store_query(store, "PRAGMA user_version", &version, err);
	if (r < 0)
		return r;
	if (id != APPLICATION_ID && has_tables(store))
		return store_damaged(store, "its application id is not that of fwd", err);
	if (id != APPLICATION_ID || version > SCHEMA_VERSION)
		return error_set(
			err, -EINVAL,
			"%s was written by %s: its application id is %#llx, its version %lld; "
			"%s, or give fwd another state_dir",
			store->path, id == APPLICATION_ID ? "a newer fwd" : "another program",
			(unsigned long long)id, (long long)version,
			id == APPLICATION_ID ? "install that version again" : "move it away");
	*ret_version = version;
	return 0;
}

/* The structure of the whole file: 0.13 s for a million rules. Rows are looked at in store_load().
 */
static int check_structure(struct store *store, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	char why[128] = "";
	int r = 0;

	if (sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &statement, NULL) !=
		    SQLITE_OK ||
	    sqlite3_step(statement) != SQLITE_ROW)
		r = store_db_error(store, "read", err);
	else
		snprintf(why, sizeof(why), "%s", (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	if (r < 0 || !strcmp(why, "ok"))
		return r;
	/* Behind the line that names the database. */
	return store_damaged(store, strchr(why, '\n') ? strchr(why, '\n') + 1 : why, err);
}

/* In one transaction: from nothing, or from an earlier version. */
static int upgrade_schema(struct store *store, s64 version, struct error *err)
{
	char sql[sizeof(schema_1) + sizeof(schema_2) + sizeof(schema_3) + sizeof(schema_4) + 128];

	if (version == SCHEMA_VERSION)
		return 0; /* writing it again would need room on the disk */
	snprintf(sql, sizeof(sql),
		 "BEGIN IMMEDIATE; PRAGMA application_id = %d; PRAGMA user_version = %d; %s %s %s "
		 "%s "
		 "COMMIT",
		 APPLICATION_ID, SCHEMA_VERSION, schema_1, version < 2 ? schema_2 : "",
		 version < 3 ? schema_3 : "", schema_4);
	return store_execute(store, sql, "set up", err);
}

static int prepare_statements(struct store *store, struct error *err)
{
	for (size_t i = 0; i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(store->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &store->statements[i], NULL) != SQLITE_OK)
			return store_db_error(store, "set up", err);
	return 0;
}

/* The number of the last change, and whether a recovery has begun that has not ended. */
static int read_notes(struct store *store, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	int r = store_query(store,
			    "SELECT coalesce((SELECT value FROM meta WHERE key = 'change'), 0)",
			    &store->change, err);

	if (r < 0)
		return r;
	if (sqlite3_prepare_v2(store->db, "SELECT value FROM meta WHERE key = 'recovering'", -1,
			       &statement, NULL) != SQLITE_OK)
		return store_db_error(store, "read", err);
	store->recovering = sqlite3_step(statement) == SQLITE_ROW;
	if (store->recovering)
		snprintf(store->damage, sizeof(store->damage), "%s",
			 (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	return 0;
}

int store_take_notes(struct store *store, struct error *err)
{
	int r = settle_boot(store, err);

	return r ? r : read_notes(store, err);
}

int store_set_up(struct store *store, s64 version, struct error *err)
{
	int r = upgrade_schema(store, version, err);

	if (!r)
		r = prepare_statements(store, err);
	return r ? r : store_take_notes(store, err);
}

int store_check(struct store *store, s64 *ret_version, struct error *err)
{
	int r = check_version(store, ret_version, err);

	return r ? r : check_structure(store, err);
}

void store_keep_log(const struct store *store, bool keep)
{
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep, NULL);
}

int store_open_file(struct store *store, struct error *err)
{
	s64 version = 0;
	int r;

	/* An empty one is not what it was: they come whole (store_replace.c). */
	r = store_file_is_empty(store, err);
	if (r < 0)
		return r;
	if (sqlite3_open_v2(store->path, &store->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
			    NULL) != SQLITE_OK)
		return store_db_error(store, "open", err);
	sqlite3_busy_timeout(store->db, STORE_BUSY_MS);
	store_keep_log(store, true);
	/* First, so that what is not ours is not written to. */
	r = store_check(store, &version, err);
	/* WAL with FULL: one fsync a commit, and readers such as backups do not get in the way. */
	if (!r)
		r = store_execute(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
				  "open", err);
	if (!r)
		r = store_set_up(store, version, err);
	if (!r)
		r = pending_bulks_check(store, err);
	if (r < 0)
		return r;
	forget_ended(store, "block");
	forget_ended(store, "allow");
	store_keep_log(store, false);
	store->checkpointer = checkpointer_start(store);
	return 0;
}

void store_close_database(struct store *store)
{
	checkpointer_stop(store->checkpointer);
	store->checkpointer = NULL;
	for (size_t i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(store->statements[i]);
	memset(store->statements, 0, sizeof(store->statements));
	sqlite3_close(store->db);
	store->db = NULL;
	store->relaxed = false;
}

static int lock_directory(const char *dir, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_set(err, -errno, "cannot open the state directory %s: %s", dir,
				 error_name(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return error_set(
				err, -EBUSY,
				"another fwd uses the state directory %s; stop it, or give "
				"this one a state_dir of its own",
				dir);
		return error_set(err, -errno, "cannot lock %s: %s", dir, error_name(errno));
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Damage does not stop it, nor a disk that cannot be written to. */
static int open_or_recover(struct store *store, struct error *err)
{
	int r = store_open_file(store, err);

	/* For what comes first, and at the end, which is larger. */
	if (r == -EDQUOT && !store_give_reserve(store)) {
		store_close_database(store);
		r = store_open_file(store, err);
	}
	if (r == -EUCLEAN)
		return store_recover(store, err->text, err);
	if (r == -ENOENT)
		return store_recover(store, NULL, err);
	if (r == -EINVAL || r == -ENOMEM)
		return r;
	return r ? store_open_copy(store, err) : store_keep_reserve(store);
}

int store_open(const char *dir, struct store **ret, struct error *err)
{
	_cleanup_(store_closep) struct store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return error_no_memory(err);
	store->lock_fd = -1;
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make the state directory %s: %s", dir,
				 error_name(errno));
	r = lock_directory(dir, &store->lock_fd, err);
	if (r < 0)
		return r;
	if ((size_t)snprintf(store->dir, sizeof(store->dir), "%s", dir) >= sizeof(store->dir) ||
	    (size_t)snprintf(store->path, sizeof(store->path), "%s/rules.db", dir) >=
		    sizeof(store->path))
		return error_set(err, -ENAMETOOLONG, "state_dir \"%s\" is too long", dir);
	r = store_finish_replacing(store, err);
	if (!r)
		r = open_or_recover(store, err);
	if (r < 0)
		return r;
	feeds_sweep(dir);
	*ret = take_pointer(&store);
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	store_close_database(store);
	if (store->lock_fd >= 0)
		close(store->lock_fd);
	free(store);
}

void key_pack(const struct prefix *prefix, u8 key[static KEY_SIZE])
{
	key[0] = prefix->family;
	memcpy(key + 1, prefix->addr, sizeof(prefix->addr));
	key[KEY_SIZE - 1] = prefix->len;
}

bool key_unpack(const u8 *key, int size, struct prefix *ret)
{
	struct prefix prefix = {0}, masked;

	if (size != KEY_SIZE || (key[0] != FAMILY_IPV4 && key[0] != FAMILY_IPV6) ||
	    key[KEY_SIZE - 1] > family_bits(key[0]))
		return false;
	prefix.family = key[0];
	prefix.len = key[KEY_SIZE - 1];
	memcpy(prefix.addr, key + 1, sizeof(prefix.addr));
	masked = prefix;
	prefix_truncate(&masked, prefix.len);
	*ret = prefix;
	return prefix_equal(&masked, &prefix);
}

/* A database in memory is of no use to what changes no rule (S6). */
static int check_file(struct store *store, struct error *err)
{
	return store->in_memory ? error_set(err, -EROFS, "cannot write %s yet", store->path) : 0;
}

static int begin_synced(struct store *store, bool is_change, struct error *err)
{
	int r = 0;

	if (store->relaxed)
		r = store_execute(store, "PRAGMA synchronous = FULL", "write", err);
	if (r < 0)
		return r;
	store->relaxed = false;
	store->is_change = is_change;
	return store_run(store, BEGIN, err);
}

int store_begin_upkeep(struct store *store, struct error *err)
{
	int r = check_file(store, err);

	return r ? r : begin_synced(store, false, err);
}

int store_begin(struct store *store, struct error *err)
{
	int r = 0;

	if (!store->recovering) {
		store->in_use = true;
		r = store_check_room(store, false, err);
	}
	return r ? r : begin_synced(store, true, err);
}

int store_begin_removal(struct store *store, struct error *err)
{
	int r = store_check_room(store, true, err);

	store->in_use = true;
	return r ? r : begin_synced(store, true, err);
}

int store_begin_relaxed(struct store *store, struct error *err)
{
	int r = check_file(store, err);

	if (!r && !store->relaxed)
		r = store_execute(store, "PRAGMA synchronous = NORMAL", "write", err);
	if (r < 0)
		return r;
	store->relaxed = true;
	store->is_change = false;
	return store_run(store, BEGIN, err);
}

int store_commit(struct store *store, struct error *err)
{
	int r;

	if (!store->is_change)
		return store_run(store, COMMIT, err);
	sqlite3_bind_int64(store->statements[NOTE_CHANGE], 1, store->change + 1);
	r = store_run(store, NOTE_CHANGE, err);
	if (!r)
		r = store_run(store, COMMIT, err);
	if (!r)
		store->change++;
	return r;
}

u64 store_change(const struct store *store)
{
	return (u64)store->change;
}

void store_rollback(struct store *store)
{
	/* Some failures have rolled back already; then there is nothing to do. */
	if (!sqlite3_get_autocommit(store->db))
		store_run(store, ROLLBACK, NULL);
}

int store_put(struct store *store, enum store_table table, const struct rule *rule,
	      struct error *err)
{
	sqlite3_stmt *statement = store->statements[PUT_BLOCK + table];
	u8 key[KEY_SIZE];

	key_pack(&rule->prefix, key);
	sqlite3_bind_blob(statement, 1, key, sizeof(key), SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, rule->created_s);
	sqlite3_bind_int64(statement, 3, (s64)rule->expires_ns);
	sqlite3_bind_int64(statement, 4, rule->expires_ns ? boot_to_wall_s(rule->expires_ns) : 0);
	sqlite3_bind_text(statement, 5, comment_text(rule->comment), -1, SQLITE_STATIC);
	return store_run(store, PUT_BLOCK + table, err);
}

int store_remove(struct store *store, enum store_table table, const struct prefix *prefix,
		 struct error *err)
{
	static const enum statement steps[] = {REMOVE_BLOCK, MARK_REMOVED_BLOCK};
	u8 key[KEY_SIZE];
	int r = 0;

	key_pack(prefix, key);
	for (size_t i = 0; !r && i < ARRAY_SIZE(steps); i++) {
		sqlite3_bind_blob(store->statements[steps[i] + table], 1, key, sizeof(key),
				  SQLITE_STATIC);
		r = store_run(store, steps[i] + table, err);
	}
	return r;
}

int store_clear(struct store *store, enum store_table table, struct error *err)
{
	static const enum statement steps[] = {VOID_BULKS, FORGET_CLEAR, ADD_CLEAR};
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(steps); i++) {
		sqlite3_bind_int(store->statements[steps[i]], 1, (int)table);
		r = store_run(store, steps[i], err);
	}
	return r;
}

/* The five columns of the key. */
static void bind_match(sqlite3_stmt *statement, const struct redirect *redirect)
{
	sqlite3_bind_text(statement, 1, redirect->interface, -1, SQLITE_STATIC);
	sqlite3_bind_int(statement, 2, redirect->direction);
	sqlite3_bind_int(statement, 3, redirect->protocol);
	sqlite3_bind_int(statement, 4, redirect->port_first);
	sqlite3_bind_int(statement, 5, redirect->port_last);
}

int store_put_redirect(struct store *store, const struct redirect *redirect, struct error *err)
{
	sqlite3_stmt *statement = store->statements[PUT_REDIRECT];

	bind_match(statement, redirect);
	sqlite3_bind_text(statement, 6, redirect->target, -1, SQLITE_STATIC);
	sqlite3_bind_int(statement, 7, redirect->mode);
	return store_run(store, PUT_REDIRECT, err);
}

int store_remove_redirect(struct store *store, const struct redirect *redirect, struct error *err)
{
	bind_match(store->statements[REMOVE_REDIRECT], redirect);
	return store_run(store, REMOVE_REDIRECT, err);
}

int store_set_forced(struct store *store, const struct ruleset *forced, struct error *err)
{
	struct ruleset_cursor cursor = ruleset_seek(forced, NULL);
	int r = store_run(store, CLEAR_FORCED, err);

	for (const struct rule *rule; !r && (rule = ruleset_at(&cursor)); ruleset_next(&cursor)) {
		u8 key[KEY_SIZE];

		key_pack(&rule->prefix, key);
		sqlite3_bind_blob(store->statements[PUT_FORCED], 1, key, sizeof(key),
				  SQLITE_STATIC);
		r = store_run(store, PUT_FORCED, err);
	}
	return r;
}
