/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the store call of each other: store.c opens the database and changes single
 * rows, store_load.c reads it, store_bulk.c makes and registers bulk changes, store_pending.c reads
 * those that are registered, store_snapshot.c puts one file in the place of many, store_fold.c
 * turns them into rows, store_feed.c keeps lists of feeds, store_unconfirmed.c a configuration to
 * go back to, store_checkpoint.c moves the write-ahead log into the database, store_file.c has what
 * plain files need, store_reader.c opens it once more for another thread, store_replace.c puts a
 * new database in the place of a damaged one, store_salvage.c reads what can be read of that,
 * store_room.c sees to the room on the disk.
 *
 * Rows and bulk changes are put in order by `seq`. A bulk change gets the next number as it is
 * registered; a row carries the number of the newest bulk change at the time it was written. A
 * clear is a bulk change without a file: it makes those before it void, and removes older rows. A
 * snapshot does both, and has all rules that there are instead. It gets its number when it is
 * begun, as a bulk change of nothing, and its rules when it is committed.
 *
 *   S1  A bulk change does not touch rows whose seq is its own or higher: they are newer.
 *   S2  Bulk changes are folded in order of their seq.
 *   S3  While a bulk change is pending, a single removal leaves a row that has ended (its
 *       expires_boot_ns is 1), so that S1 holds for it, too. It goes with the last bulk change that
 *       it outranks.
 *   S4  What is folded, and how far (`folded`, of `n`), is one transaction.
 *   S5  A file of a bulk change is on the disk, whole, before a row names it, and is removed after
 *       the row is gone from the disk. Files that no row names are nobody's.
 *
 * A database comes whole: it is made in memory, copied to rules.db.tmp, synced, and renamed to
 * rules.db.new; from then on it is the one that counts. What it replaces is put aside, then it is
 * renamed to rules.db (store_replace.c).
 *
 *   S6  A database in memory takes no change, but that of a recovery, which nobody was promised.
 *   S7  What is put aside of a damaged database is never written to. Of many the oldest go.
 *   S8  What adds is refused while there is no reserve: so that is left for what removes.
 */
#pragma once

#include "store.h"

#include <sqlite3.h>

/* family, address, length: in this order, keys sort as prefix_compare() does. */
#define KEY_SIZE 18

/* Keys that are read or written at once; a multiple of four, for the checksum's words. */
#define KEYS_AT_ONCE 1000

/* Another connection, the checkpointer's or a reader's, is waited for so long. */
#define STORE_BUSY_MS 2000

#define STORE_PATH_MAX 256 /* of the database, and its NUL */
#define FILE_PATH_MAX  STORE_FILE_MAX
_Static_assert(FILE_PATH_MAX >= STORE_PATH_MAX + 64, "room for a file's name");

/* Of two alike, one a table: BLOCK is the first, and `+ table` leads to the others. */
enum statement {
	PUT_BLOCK,
	PUT_ALLOW,
	REMOVE_BLOCK,
	REMOVE_ALLOW,
	MARK_REMOVED_BLOCK,
	MARK_REMOVED_ALLOW,
	FOLD_PUT_BLOCK,
	FOLD_PUT_ALLOW,
	FOLD_REMOVE_BLOCK,
	FOLD_REMOVE_ALLOW,
	FOLD_CLEAR_BLOCK,
	FOLD_CLEAR_ALLOW,
	FORGET_REMOVED_BLOCK,
	FORGET_REMOVED_ALLOW,
	VOID_BULKS,
	FORGET_CLEAR,
	ADD_BULK,
	ADD_CLEAR,
	MOVE_BULK,
	END_BULK,
	FOLD_SNAPSHOT_BLOCK,
	FOLD_SNAPSHOT_ALLOW,
	FILL_SNAPSHOT,
	END_OLDER,
	PUT_REDIRECT,
	REMOVE_REDIRECT,
	PUT_FORCED,
	CLEAR_FORCED,
	NOTE_CHANGE,
	BEGIN,
	COMMIT,
	ROLLBACK,
	STATEMENTS,
};

struct checkpointer;

struct store {
	int lock_fd;
	sqlite3 *db; /* NULL only within the functions that open it */
	sqlite3_stmt *statements[STATEMENTS];
	struct checkpointer *checkpointer; /* NULL: the database does it itself */
	char dir[STORE_PATH_MAX];
	char path[STORE_PATH_MAX];
	bool relaxed;	    /* commits do not wait for the disk */
	bool same_boot;	    /* the database was last opened since this boot */
	unsigned snapshots; /* that are being made */
	u64 last_file;	    /* the highest number that a bulk change's file has had */
	s64 change;	    /* the number of the last change */
	bool is_change;	    /* what was begun gets the next one */
	bool in_use;	    /* a change was begun */

	/* store_replace.c */
	bool in_memory;	 /* S6 */
	bool is_anew;	 /* what is in memory is to take the place of the file */
	bool recovering; /* until store_recovered() */
	s64 damaged_s;	 /* when it was seen */
	char damage[ERROR_TEXT_MAX];

	/* store_room.c */
	bool has_reserve, is_full, told_refusal;
};

/* What opening the database in its file has in common with one in memory. */
int store_set_up(struct store *store, s64 version, struct error *err);
int store_check(struct store *store, s64 *ret_version, struct error *err);
/* Carries ends over from another boot, and reads what else is noted beside the rules. */
int store_take_notes(struct store *store, struct error *err);
/* -ENOENT: it is not there. -EUCLEAN: it is damaged. */
int store_open_file(struct store *store, struct error *err);
void store_close_database(struct store *store);
/* Closing a database would move the log into it: not into a damaged one. */
void store_keep_log(const struct store *store, bool keep);

/* -EUCLEAN: it is there, and empty. -ENOENT: neither it is there, nor what belongs to it. */
int store_file_is_empty(const struct store *store, struct error *err);
/* Of a daemon that died in replacing the database. */
int store_finish_replacing(struct store *store, struct error *err);
/* `err` says why the file cannot be opened as usual, and keeps that where this fails, too. */
int store_open_copy(struct store *store, struct error *err);
/* Opens the file, or puts a new one in its place, once that is possible. */
int store_leave_memory(struct store *store, struct error *err);

/* What can be read of a database, and of its bulk changes' files, into the empty one of `store`. */
int store_salvage(struct store *store, sqlite3 *from, struct error *err);
/* Opens the database for reading, without a file beside it being made or written to. */
int store_open_frozen(const struct store *store, sqlite3 **ret);

/* 0: a change may be begun. */
int store_check_room(struct store *store, bool removes, struct error *err);
/* Always 0: it does without. */
int store_keep_reserve(struct store *store);
/* -ENOENT: there is none. */
int store_give_reserve(struct store *store);

int store_damaged(const struct store *store, const char *why, struct error *err);
int store_db_error(struct store *store, const char *what, struct error *err);
int store_execute(struct store *store, const char *sql, const char *what, struct error *err);
int store_query(struct store *store, const char *sql, s64 *ret, struct error *err);
/* Runs a statement that is bound and returns no rows. */
int store_run(struct store *store, enum statement which, struct error *err);

/* As store_begin(), for what changes no rule, and has no number: the file only (S6). */
int store_begin_upkeep(struct store *store, struct error *err);
/* The same, and the commit does not wait for the disk: a loss of power may undo it. */
int store_begin_relaxed(struct store *store, struct error *err);

void key_pack(const struct prefix *prefix, u8 key[static KEY_SIZE]);
bool key_unpack(const u8 *key, int size, struct prefix *ret);

#define REDIRECT_ROWS                                                            \
	"SELECT interface, direction, protocol, port_first, port_last, target, " \
	"mode FROM redirect"

/* From a row of REDIRECT_ROWS; false: it is none. */
bool redirect_unpack(sqlite3_stmt *row, struct redirect *ret);

/* The numbers are the database's. */
enum bulk_kind {
	BULK_PUT,
	BULK_REMOVE,
	BULK_CLEAR,    /* all rows that are older; has no file, and n is 0 */
	BULK_SNAPSHOT, /* the same, and puts rules, each with an age, an end and a comment */
	BULK_KINDS,
};

/* A file of a snapshot: this, the records, the comments, each with its NUL. Little endian. */
struct snapshot_header {
	char boot_id[40]; /* whose CLOCK_BOOTTIME the ends are of */
};

struct snapshot_record {
	u8 key[KEY_SIZE];
	u8 reserved[2];
	u32 comment; /* 0: none; else one more than its place behind the records */
	s64 created_s, expires_s;
	u64 expires_ns;
};
_Static_assert(sizeof(struct snapshot_record) == 48, "layout of a file");

/* A registered bulk change, as its row has it. */
struct pending_bulk {
	s64 seq;
	u64 file; /* 0: none; then `keys` */
	u8 *keys;
	enum store_table table;
	enum bulk_kind kind;
	s64 created_s, expires_s;
	u64 expires_ns;
	char *comment;
	u64 n, folded;
	u64 checksum;
};

/*
 * Those that are pending, by seq, the oldest `most` of them; those that store_clear() made void
 * have nothing left to fold.
 */
int pending_bulks_load(struct store *store, size_t most, struct pending_bulk **ret, size_t *ret_n,
		       struct error *err);
void pending_bulks_free(struct pending_bulk *bulks, size_t n);

/* The rows, with `keys` as the last column; those of version 2 have none. */
#define BULK_ROWS_WITH(keys)                                                      \
	"SELECT seq, tbl, kind, created_s, expires_boot_ns, expires_s, comment, " \
	"file, n, checksum, folded, " keys " FROM bulk ORDER BY seq"
#define BULK_ROWS BULK_ROWS_WITH("keys")

/* From one of those rows, for pending_bulk_clear(). */
int pending_bulk_from(struct store *store, sqlite3_stmt *row, struct pending_bulk *ret,
		      struct error *err);
void pending_bulk_clear(struct pending_bulk *bulk);

/* What a bulk change says, record by record, in order of the keys. */
struct bulk_reader {
	const struct store *store;
	const struct pending_bulk *bulk; /* borrowed */
	int fd;				 /* -1: none */
	size_t record_size;		 /* each begins with its key */
	u64 next;			 /* to be read */
	size_t n, at;			 /* in `records` */
	u8 *records;			 /* room for KEYS_AT_ONCE */
	char *comments;			 /* of a snapshot */
	size_t comments_size;
	bool other_boot; /* the ends of a snapshot have to be carried over */
};

/* From what is folded already on. bulk_reader_close() also after an error. */
int bulk_reader_open(const struct store *store, const struct pending_bulk *bulk,
		     struct bulk_reader *ret, struct error *err);
void bulk_reader_close(struct bulk_reader *reader);

/* The same of a file that is damaged: it has as many records as are left, which is told. */
int bulk_reader_open_damaged(const struct store *store, struct pending_bulk *bulk,
			     struct bulk_reader *ret, bool *ret_whole, struct error *err);

/* The record at hand, read if need be; *ret NULL behind the last. */
int bulk_reader_at(struct bulk_reader *reader, const u8 **ret, struct error *err);

/* What a record says of its prefix; `comment` is the bulk's or the reader's. */
struct bulk_rule {
	s64 created_s, expires_s;
	u64 expires_ns;
	const char *comment;
};

int bulk_reader_rule(const struct bulk_reader *reader, const u8 *record, struct bulk_rule *ret,
		     struct error *err);

/* Does to the row what the bulk change says of its prefix, if the bulk change is newer. */
int fold_rule(struct store *store, const struct pending_bulk *bulk, const u8 key[static KEY_SIZE],
	      const struct bulk_rule *rule, struct error *err);

#define BULK_DIRECTORY "bulk"

void bulk_directory(const char *dir, char path[static FILE_PATH_MAX]);
void bulk_path(const char *dir, u64 file, char path[static FILE_PATH_MAX]);

/* store_commit() of a row that names a file. *ret_keeps_file: the row is there, or may be. */
int store_commit_file(struct store *store, bool *ret_keeps_file, struct error *err);

/*
 * FNV-1a with 64-bit words and the upper half folded into the lower. Each step is a permutation, so
 * a change within one word is always seen. A part that is not the last has a multiple of 8 bytes.
 */
u64 checksum_add(u64 sum, const u8 *bytes, size_t size);
#define CHECKSUM_START 0xcbf29ce484222325

/* An end of another boot in this one's CLOCK_BOOTTIME, as the wall clock has it. */
u64 end_carried_over(s64 expires_s, s64 created_s);
void boot_id_read(char id[static 40]);

/* Checks the files of what is pending, and removes those that no row names. */
int pending_bulks_check(struct store *store, struct error *err);

/* A thread that checkpoints, so that nobody waits for it. `store` outlives it. NULL: none. */
struct checkpointer *checkpointer_start(struct store *store);
bool checkpointer_works(struct checkpointer *checkpointer);
void checkpointer_stop(struct checkpointer *checkpointer);

/* Removes what feeds that were not committed have left. */
void feeds_sweep(const char *dir);

/* -EDQUOT where the disk is full: -ENOSPC says that a set is. */
int disk_full(struct error *err, const char *what, const char *path);
int file_error(struct error *err, const char *what, const char *path);
int file_write(int fd, const void *bytes, size_t size);
int directory_sync(const char *path, struct error *err);
/* Makes `dir`/`name` where it is not there, for good. */
int directory_make(const char *dir, const char *name, struct error *err);
/* Removes the files in `dir`/`name` whose names `is_stale` says so of. */
void directory_sweep(const char *dir, const char *name,
		     bool (*is_stale)(const char *file, const void *data), const void *data);
