// SPDX-License-Identifier: GPL-2.0-or-later
#include "store.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* "fwd" and the version of the schema; see SQLite's PRAGMA application_id and user_version. */
#define APPLICATION_ID 0x667764
#define SCHEMA_VERSION 1

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

/* family, address, length: in this order, keys sort as prefix_compare() does. */
#define KEY_SIZE 18

enum statement {
	PUT_BLOCK,
	PUT_ALLOW,
	REMOVE_BLOCK,
	REMOVE_ALLOW,
	CLEAR_BLOCK,
	CLEAR_ALLOW,
	PUT_REDIRECT,
	REMOVE_REDIRECT,
	BEGIN,
	COMMIT,
	ROLLBACK,
	STATEMENTS,
};

#define PUT_INTO(table)                 \
	"INSERT OR REPLACE INTO " table \
	" (prefix, created_s, expires_boot_ns, expires_s, comment) VALUES (?1, ?2, ?3, ?4, ?5)"

static const char *const statement_sql[] = {
	[PUT_BLOCK] = PUT_INTO("block"),
	[PUT_ALLOW] = PUT_INTO("allow"),
	[REMOVE_BLOCK] = "DELETE FROM block WHERE prefix = ?1",
	[REMOVE_ALLOW] = "DELETE FROM allow WHERE prefix = ?1",
	[CLEAR_BLOCK] = "DELETE FROM block",
	[CLEAR_ALLOW] = "DELETE FROM allow",
	[PUT_REDIRECT] = "INSERT OR REPLACE INTO redirect (interface, direction, protocol, "
			 "port_first, port_last, target, mode) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[REMOVE_REDIRECT] = "DELETE FROM redirect WHERE interface = ?1 AND direction = ?2 AND "
			    "protocol = ?3 AND port_first = ?4 AND port_last = ?5",
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
};
_Static_assert(ARRAY_SIZE(statement_sql) == STATEMENTS, "the text of each statement");

static const char schema[] =
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

struct store {
	int lock_fd;
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
	char path[256];
	bool same_boot; /* the database was last opened since this boot */
};

static int damaged(const struct store *store, const char *why, struct error *err)
{
	return error_set(err, -EUCLEAN,
			 "the rules in %s are damaged (%s): move the file away to start without "
			 "runtime rules, or restore it",
			 store->path, why);
}

static int db_error(struct store *store, const char *what, struct error *err)
{
	int code = sqlite3_errcode(store->db) & 0xff;

	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		return damaged(store, sqlite3_errmsg(store->db), err);
	/* -EIO, not -ENOSPC: a full disk is no full set. */
	return error_set(err, -EIO, "cannot %s %s: %s", what, store->path,
			 sqlite3_errmsg(store->db));
}

static int execute(struct store *store, const char *sql, const char *what, struct error *err)
{
	if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return db_error(store, what, err);
	return 0;
}

static int run(struct store *store, enum statement which, const char *what, struct error *err)
{
	sqlite3_stmt *statement = store->statements[which];
	int r = sqlite3_step(statement) == SQLITE_DONE ? 0 : db_error(store, what, err);

	sqlite3_reset(statement);
	return r;
}

static int query_int(struct store *store, const char *sql, int *ret, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK ||
	    sqlite3_step(statement) != SQLITE_ROW)
		r = db_error(store, "read", err);
	else
		*ret = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return r;
}

static void read_boot_id(char id[static 40])
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

	read_boot_id(id);
	if (sqlite3_prepare_v2(store->db, "SELECT value FROM meta WHERE key = 'boot_id'", -1,
			       &statement, NULL) != SQLITE_OK)
		return db_error(store, "read", err);
	if (sqlite3_step(statement) == SQLITE_ROW)
		store->same_boot =
			*id && !strcmp(id, (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	if (store->same_boot)
		return 0;

	/* CLOCK_BOOTTIME has begun again: carry the ends over by the wall clock. */
	if (sqlite3_prepare_v2(store->db, "INSERT OR REPLACE INTO meta VALUES ('boot_id', ?1)", -1,
			       &statement, NULL) != SQLITE_OK)
		return db_error(store, "read", err);
	sqlite3_bind_text(statement, 1, id, -1, SQLITE_TRANSIENT);
	if (sqlite3_step(statement) != SQLITE_DONE)
		r = db_error(store, "write", err);
	sqlite3_finalize(statement);
	return r;
}

static int carry_over(struct store *store, const char *table, struct error *err)
{
	char sql[256];

	/* Never more than the whole span: a wall clock that starts in the past must not add to it.
	 */
	snprintf(sql, sizeof(sql),
		 "UPDATE %s SET expires_boot_ns = max(1, min(expires_s - %lld, "
		 "max(expires_s - created_s, 1)) * 1000000000 + %lld) WHERE expires_boot_ns <> 0",
		 table, (long long)wall_s(), (long long)boot_ns());
	return execute(store, sql, "write", err);
}

/* One transaction, so that a crash in it leaves the ends to be carried over again. */
static int settle_boot(struct store *store, struct error *err)
{
	int r = store_begin(store, err);

	if (r < 0)
		return r;
	r = compare_boot(store, err);
	if (!r && !store->same_boot)
		r = carry_over(store, "block", err);
	if (!r && !store->same_boot)
		r = carry_over(store, "allow", err);
	if (!r)
		return store_commit(store, err);
	store_rollback(store);
	return r;
}

/* Rules that have ended are not loaded; that a full disk keeps them does no harm. */
static void forget_ended(struct store *store, const char *table)
{
	char sql[128];

	snprintf(sql, sizeof(sql), "DELETE FROM %s WHERE expires_boot_ns BETWEEN 1 AND %lld", table,
		 (long long)boot_ns());
	execute(store, sql, "write", NULL);
}

static int check_version(struct store *store, struct error *err)
{
	int id = 0, version = 0, r;
	char sql[128];

	r = query_int(store, "PRAGMA application_id", &id, err);
	if (!r)
		r = query_int(store, "PRAGMA user_version", &version, err);
	if (r < 0)
		return r;
	if ((id && id != APPLICATION_ID) || version > SCHEMA_VERSION)
		return error_set(err, -EINVAL,
				 "%s was written by %s: its application id is %#x, its version %d",
				 store->path,
				 id == APPLICATION_ID ? "a newer fwd" : "another program",
				 (unsigned)id, version);
	if (id == APPLICATION_ID && version == SCHEMA_VERSION)
		return 0; /* writing it again would need room on the disk */
	snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		 APPLICATION_ID, SCHEMA_VERSION);
	return execute(store, sql, "write", err);
}

static int open_database(struct store *store, struct error *err)
{
	int r;

	if (sqlite3_open_v2(store->path, &store->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
				    SQLITE_OPEN_PRIVATECACHE,
			    NULL) != SQLITE_OK)
		return db_error(store, "open", err);
	sqlite3_busy_timeout(store->db, 2000);
	/* First, so that what is not ours is not written to. */
	r = check_version(store, err);
	/* WAL with FULL: one fsync a commit, and readers such as backups do not get in the way. */
	if (!r)
		r = execute(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", "open",
			    err);
	if (!r)
		r = execute(store, schema, "set up", err);
	for (size_t i = 0; !r && i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(store->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &store->statements[i], NULL) != SQLITE_OK)
			r = db_error(store, "set up", err);
	if (!r)
		r = settle_boot(store, err);
	if (r < 0)
		return r;
	forget_ended(store, "block");
	forget_ended(store, "allow");
	return 0;
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
	if ((size_t)snprintf(store->path, sizeof(store->path), "%s/rules.db", dir) >=
	    sizeof(store->path))
		return error_set(err, -ENAMETOOLONG, "state_dir \"%s\" is too long", dir);
	r = open_database(store, err);
	if (r < 0)
		return r;
	*ret = take_pointer(&store);
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(store->statements[i]);
	sqlite3_close(store->db);
	if (store->lock_fd >= 0)
		close(store->lock_fd);
	free(store);
}

static void pack_key(const struct prefix *prefix, u8 key[static KEY_SIZE])
{
	key[0] = prefix->family;
	memcpy(key + 1, prefix->addr, sizeof(prefix->addr));
	key[KEY_SIZE - 1] = prefix->len;
}

static bool unpack_key(const u8 *key, int size, struct prefix *ret)
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

static int load_row(struct store *store, sqlite3_stmt *row, struct ruleset *set, struct error *err)
{
	const char *text = (const char *)sqlite3_column_text(row, 4);
	_cleanup_(comment_unrefp) struct comment *comment = NULL;
	struct rule rule = {
		.created_s = sqlite3_column_int64(row, 1),
		.expires_ns = (u64)sqlite3_column_int64(row, 2),
	};

	if (!unpack_key(sqlite3_column_blob(row, 0), sqlite3_column_bytes(row, 0), &rule.prefix))
		return damaged(store, "a row that is no prefix", err);
	if (rule.expires_ns && rule.expires_ns <= boot_ns())
		return 0;
	if (text) {
		rule.comment = comment = comment_new(text);
		if (!comment)
			return error_no_memory(err);
	}
	return ruleset_put(set, &rule) < 0 ? error_no_memory(err) : 0;
}

int store_load(struct store *store, enum store_table table, struct ruleset **ret, struct error *err)
{
	static const char *const sql[] = {
		[STORE_BLOCK] = "SELECT prefix, created_s, expires_boot_ns, expires_s, comment "
				"FROM block ORDER BY prefix",
		[STORE_ALLOW] = "SELECT prefix, created_s, expires_boot_ns, expires_s, comment "
				"FROM allow ORDER BY prefix",
	};
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	sqlite3_stmt *rows = NULL;
	int r = 0, step;

	if (!set)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db, sql[table], -1, &rows, NULL) != SQLITE_OK)
		return db_error(store, "read", err);
	while ((step = sqlite3_step(rows)) == SQLITE_ROW && !r)
		r = load_row(store, rows, set, err);
	if (!r && step != SQLITE_DONE)
		r = db_error(store, "read", err);
	sqlite3_finalize(rows);
	if (r < 0)
		return r;
	*ret = take_pointer(&set);
	return 0;
}

static bool unpack_redirect(sqlite3_stmt *row, struct redirect *ret)
{
	const char *interface = (const char *)sqlite3_column_text(row, 0);
	const char *target = (const char *)sqlite3_column_text(row, 5);
	int direction = sqlite3_column_int(row, 1), protocol = sqlite3_column_int(row, 2);
	int first = sqlite3_column_int(row, 3), last = sqlite3_column_int(row, 4);
	int mode = sqlite3_column_int(row, 6);
	struct redirect redirect = {
		.direction = (u8)direction,
		.protocol = (u8)protocol,
		.port_first = (u16)first,
		.port_last = (u16)last,
		.mode = (u8)mode,
	};

	if (!interface || (*interface && interface_name_check(interface, NULL) < 0) || !target ||
	    interface_name_check(target, NULL) < 0 || direction < 0 ||
	    direction >= DIRECTION_COUNT || mode < 0 || mode >= REDIRECT_MODE_COUNT ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || first < 1 || last < first ||
	    last > UINT16_MAX)
		return false;
	snprintf(redirect.interface, sizeof(redirect.interface), "%s", interface);
	snprintf(redirect.target, sizeof(redirect.target), "%s", target);
	*ret = redirect;
	return true;
}

int store_load_redirects(struct store *store, struct redirect **ret, size_t *ret_n,
			 struct error *err)
{
	_cleanup_free_ struct redirect *redirects = NULL;
	sqlite3_stmt *rows = NULL;
	int count = 0, step, r;
	size_t n = 0;

	r = query_int(store, "SELECT count(*) FROM redirect", &count, err);
	if (r < 0)
		return r;
	redirects = calloc((size_t)count + 1, sizeof(*redirects));
	if (!redirects)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db,
			       "SELECT interface, direction, protocol, port_first, port_last, "
			       "target, mode FROM redirect",
			       -1, &rows, NULL) != SQLITE_OK)
		return db_error(store, "read", err);
	while ((step = sqlite3_step(rows)) == SQLITE_ROW && n < (size_t)count && !r)
		r = unpack_redirect(rows, &redirects[n++])
			    ? 0
			    : damaged(store, "a row that is no redirect", err);
	if (!r && step != SQLITE_DONE)
		r = db_error(store, "read", err);
	sqlite3_finalize(rows);
	if (r < 0)
		return r;
	*ret = take_pointer(&redirects);
	*ret_n = n;
	return 0;
}

int store_begin(struct store *store, struct error *err)
{
	return run(store, BEGIN, "write", err);
}

int store_commit(struct store *store, struct error *err)
{
	return run(store, COMMIT, "write", err);
}

void store_rollback(struct store *store)
{
	/* Some failures have rolled back already; then there is nothing to do. */
	if (!sqlite3_get_autocommit(store->db))
		run(store, ROLLBACK, "roll back", NULL);
}

int store_put(struct store *store, enum store_table table, const struct rule *rule,
	      struct error *err)
{
	enum statement which = table == STORE_BLOCK ? PUT_BLOCK : PUT_ALLOW;
	sqlite3_stmt *statement = store->statements[which];
	u8 key[KEY_SIZE];

	pack_key(&rule->prefix, key);
	sqlite3_bind_blob(statement, 1, key, sizeof(key), SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, rule->created_s);
	sqlite3_bind_int64(statement, 3, (s64)rule->expires_ns);
	sqlite3_bind_int64(statement, 4, rule->expires_ns ? boot_to_wall_s(rule->expires_ns) : 0);
	sqlite3_bind_text(statement, 5, comment_text(rule->comment), -1, SQLITE_STATIC);
	return run(store, which, "write", err);
}

int store_remove(struct store *store, enum store_table table, const struct prefix *prefix,
		 struct error *err)
{
	enum statement which = table == STORE_BLOCK ? REMOVE_BLOCK : REMOVE_ALLOW;
	u8 key[KEY_SIZE];

	pack_key(prefix, key);
	sqlite3_bind_blob(store->statements[which], 1, key, sizeof(key), SQLITE_STATIC);
	return run(store, which, "write", err);
}

int store_clear(struct store *store, enum store_table table, struct error *err)
{
	return run(store, table == STORE_BLOCK ? CLEAR_BLOCK : CLEAR_ALLOW, "write", err);
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
	return run(store, PUT_REDIRECT, "write", err);
}

int store_remove_redirect(struct store *store, const struct redirect *redirect, struct error *err)
{
	bind_match(store->statements[REMOVE_REDIRECT], redirect);
	return run(store, REMOVE_REDIRECT, "write", err);
}
