/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The durable rules: what was changed at run time, in an SQLite database in the state directory.
 *
 * Changes are made between store_begin() and store_commit(). Once a commit has returned 0 they
 * survive the death of the daemon and, by fsync(2), a loss of power.
 *
 * A change of many rules would take SQLite a second a million. So its prefixes go into a file of
 * their own, which a worker writes; a row that names the file makes it durable. Afterwards it is
 * folded into rows, little by little, while nothing else is to do. store_load() knows of both.
 *
 * The lists of feeds that were replaced at run time are text files, one a feed.
 *
 * The end of a rule is kept on both clocks: CLOCK_BOOTTIME counts as long as the machine has not
 * been booted since, CLOCK_REALTIME after that.
 */
#pragma once

#include "address_list.h"
#include "cleanup.h"
#include "error.h"
#include "redirect.h"
#include "ruleset.h"

struct store;

#define STORE_FILE_MAX 320 /* bytes of the path of a file of the store, and its NUL */

/* The sets of prefixes that are kept. */
enum store_table {
	STORE_BLOCK,
	STORE_ALLOW,
	STORE_TABLES,
};

/*
 * Opens `dir`/rules.db, made where it is not there, and locks `dir` against a second daemon
 * (-EBUSY). -EINVAL: it was written by another program, or a newer fwd; it is left as it is.
 *
 * A database that is damaged, or whose bulk changes' files are, is put aside, and one with what
 * could be read of it comes in its place: see store_recovering(). Where the disk cannot be written
 * to, the rules are those that it has, and changes are refused until it can.
 */
int store_open(const char *dir, struct store **ret, struct error *err);
void store_close(struct store *store);
DEFINE_CLEANUP(struct store *, store_close);

/*
 * The same database for reading alone, as it is now: with store_load(), store_load_redirects() and
 * store_close(), in any thread. `store` may be used meanwhile, and has to stay open. A bulk change
 * that is folded meanwhile may take its file away: then open another reader. -EROFS: see
 * store_refuses().
 */
int store_open_reader(const struct store *store, struct store **ret, struct error *err);

/* ---- damage ---- */

/*
 * What was damaged, where it is kept, and what became of the rules: for people, until the store is
 * closed. NULL: nothing was.
 */
const char *store_damage(const struct store *store);

/*
 * True: the rules are what could be read of a damaged database, or none, where it was not there.
 * Who knows better (rules_recover.c) puts them right, in one change that ends with
 * store_recovered(); until then the next start says so again.
 */
bool store_recovering(const struct store *store);

/*
 * The last act of that change: `what` goes into store_damage(). Changes are numbered on from
 * `change`, at least. Where there was no database, and `what` is NULL, nothing was damaged.
 */
int store_recovered(struct store *store, u64 change, const char *what, struct error *err);

/* As store_open() over damage; `why` says what is wrong. Not within a change. */
int store_recover(struct store *store, const char *why, struct error *err);

/* The number of the last change that was committed; each change has the next one. */
u64 store_change(const struct store *store);

/* ---- rules ---- */

/* Reads everything. Rules that have ended are left out. The caller owns what it gets. */
int store_load(struct store *store, enum store_table table, struct ruleset **ret,
	       struct error *err);
int store_load_redirects(struct store *store, struct redirect **ret, size_t *ret_n,
			 struct error *err);

/* What store_set_forced() wrote last; of the rules only the prefixes have a meaning. */
int store_load_forced(struct store *store, struct ruleset **ret, struct error *err);

/* -EDQUOT, here and from what follows: the disk is full. */
int store_begin(struct store *store, struct error *err);
/* The same where rules go and none come: then it may use what is kept for a full disk. */
int store_begin_removal(struct store *store, struct error *err);
int store_commit(struct store *store, struct error *err);
void store_rollback(struct store *store);

/*
 * After -EDQUOT and store_rollback(): makes what room it can for a removal, which waits for the
 * disk. 0: try once more.
 */
int store_make_room(struct store *store);

/* Why changes are refused now; false: they are not. It may find that they need not be any more. */
bool store_refuses(struct store *store, struct error *ret_why);

int store_put(struct store *store, enum store_table table, const struct rule *rule,
	      struct error *err);
int store_remove(struct store *store, enum store_table table, const struct prefix *prefix,
		 struct error *err);

/*
 * Costs the same whatever the table holds: it is a bulk change, too. Those that were committed
 * before it have no effect any more.
 */
int store_clear(struct store *store, enum store_table table, struct error *err);

int store_put_redirect(struct store *store, const struct redirect *redirect, struct error *err);
int store_remove_redirect(struct store *store, const struct redirect *redirect, struct error *err);

/* The prefixes of STORE_BLOCK that were forced, in the place of those before; they are few. */
int store_set_forced(struct store *store, const struct ruleset *forced, struct error *err);

/* ---- bulk changes ---- */

/*
 * To put rules that differ in their prefix only, or to remove some. A rule that is there keeps its
 * created_s.
 */
struct store_bulk_change {
	enum store_table table;
	bool removes; /* then the others have no meaning */
	s64 created_s;
	u64 expires_ns;
	const char *comment; /* copied */
};

/*
 * The most of a table that wait to be folded: where there are as many, the oldest is folded first.
 * From STORE_BULKS_MANY on a snapshot is due.
 */
#define STORE_BULKS_MAX	 512
#define STORE_BULKS_MANY 128

/*
 * Within store_begin() and store_commit(): the prefixes, in order, each once, as one row, where
 * single ones would have the disk write a page each. For some thousand at most.
 */
int store_batch(struct store *store, const struct store_bulk_change *change,
		const struct prefix *prefixes, size_t n, struct error *err);

/* In front of store_begin(): makes room for a bulk change where STORE_BULKS_MAX are pending. */
int store_keep_bound(struct store *store, enum store_table table, struct error *err);

/* In a file. */
struct store_bulk;

/* Does not use the disk but for making a directory, once. */
int store_bulk_new(struct store *store, const struct store_bulk_change *change,
		   struct store_bulk **ret, struct error *err);

/*
 * Writes the prefixes, in order, each once, and waits for the disk. For any thread, beside all
 * other functions.
 */
int store_bulk_write(struct store_bulk *bulk, const struct prefix *prefixes, size_t n,
		     struct error *err);

/*
 * Once a bulk. One transaction of its own: durable, and in order with all other changes, once it
 * returned 0. With `forced`, not NULL, it does what store_set_forced() does, too.
 */
int store_bulk_commit(struct store *store, struct store_bulk *bulk, const struct ruleset *forced,
		      struct error *err);

/* The end of a bulk; one that was not committed leaves no trace. For any thread. */
void store_bulk_drop(struct store_bulk *bulk);
DEFINE_CLEANUP(struct store_bulk *, store_bulk_drop);

/*
 * Folds some 1,000 rules, a few milliseconds' work; does not wait for the disk but at the end of
 * each bulk change. While the database is being brought up to date by a thread of its own, it does
 * nothing: it is for a timer, not for a loop. Not within store_begin() and store_commit(). After an
 * error nothing is lost: it may be called again.
 */
int store_fold(struct store *store, bool *ret_more, struct error *err);

/* ---- snapshots ---- */

/*
 * All rules of a table in one file, in the place of the bulk changes that came before. Folding many
 * changes that are all over the table would have the disk write the table many times.
 */
struct store_snapshot;

/* How many bulk changes of the table are pending. */
int store_pending(struct store *store, enum store_table table, size_t *ret, struct error *err);

/* What is in the table now is what store_snapshot_write() has to be given. */
int store_snapshot_new(struct store *store, enum store_table table, struct store_snapshot **ret,
		       struct error *err);

/* Writes the rules and waits for the disk. For any thread, beside all other functions. */
int store_snapshot_write(struct store_snapshot *snapshot, const struct ruleset *rules,
			 struct error *err);

/* Once a snapshot. One transaction of its own. */
int store_snapshot_commit(struct store *store, struct store_snapshot *snapshot, struct error *err);

/* The end of it; one that was not committed leaves no trace. For any thread. */
void store_snapshot_drop(struct store_snapshot *snapshot);
DEFINE_CLEANUP(struct store_snapshot *, store_snapshot_drop);

/* ---- feeds ---- */

/*
 * These take the state directory instead of the store: no database is involved. The directory has
 * to be locked by a store that is open. A crash leaves the old or the new list of each feed, whole.
 */

/* A new list, or the removal of one, that was not committed. */
struct store_feed;

/* Writes a temporary file and waits for the disk. For any thread. */
int store_feed_write(const char *dir, const char *name, const struct prefix *prefixes, size_t n,
		     struct store_feed **ret, struct error *err);

/* To remove what may be there. */
int store_feed_remove(const char *dir, const char *name, struct store_feed **ret,
		      struct error *err);

/*
 * Makes all of them durable, waiting for the disk once. All are of one directory. They are put in
 * place one after the other: an error or a crash may leave those in front done and the others not.
 * More than one come of a reload only, which removes lists whose files were read: a feed whose list
 * is still there has it once more after the next start, and the others have their files.
 */
int store_feed_commit(struct store_feed *const *feeds, size_t n, struct error *err);

/* The end of it; one that was not committed leaves no trace. For any thread. */
void store_feed_drop(struct store_feed *feed);
DEFINE_CLEANUP(struct store_feed *, store_feed_drop);

/*
 * -ENOENT: the feed was not replaced. `ret_replaced_s`: when, of CLOCK_REALTIME. The caller frees
 * ret->prefixes.
 */
int store_feed_load(const char *dir, const char *name, struct address_list *ret,
		    s64 *ret_replaced_s, struct error *err);

/* The list, which is damaged, is there as *ret_path, too, in the place of an earlier one. */
int store_feed_keep(const char *dir, const char *name, char ret_path[static STORE_FILE_MAX],
		    struct error *err);

/* ---- what was not confirmed ---- */

/*
 * The text of a configuration to go back to: while it is there, the configuration's file is one
 * that nobody confirmed, and a start takes this text instead. These take the state directory, as
 * those of feeds do.
 */
struct store_unconfirmed;

/* Writes a temporary file and waits for the disk. For any thread; one at a time. */
int store_unconfirmed_write(const char *dir, const char *text, size_t size,
			    struct store_unconfirmed **ret, struct error *err);

/* Puts the text in place: old or new, whole. It is durable once this has returned 0. */
int store_unconfirmed_commit(struct store_unconfirmed *unconfirmed, struct error *err);

/* The end of it; one that was not committed leaves no trace. */
void store_unconfirmed_drop(struct store_unconfirmed *unconfirmed);
DEFINE_CLEANUP(struct store_unconfirmed *, store_unconfirmed_drop);

/* The text's path; -ENAMETOOLONG. */
int store_unconfirmed_path(const char *dir, char path[static STORE_FILE_MAX], struct error *err);

/* Removes the text where there is one, for good. */
int store_unconfirmed_remove(const char *dir, struct error *err);
