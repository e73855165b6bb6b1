// SPDX-License-Identifier: GPL-2.0-or-later
/* Bulk changes: durable at once, folded into rows afterwards, in order with all other changes. */
#include "random.h"
#include "store_parts.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(store_bulk, .init = temporary_make, .fini = temporary_remove);

#define CREATED_S 1764000000

/* ---- the parts of a test ---- */

/* 10.0.0.0, 10.0.0.1 and so on. */
static struct prefix host(unsigned number)
{
	return (struct prefix){
		.family = FAMILY_IPV4,
		.len = 32,
		.addr = {10, (u8)(number >> 16), (u8)(number >> 8), (u8)number},
	};
}

/* The hosts `from` to `from + n - 1`. The caller frees them. */
static struct prefix *hosts(unsigned from, size_t n)
{
	struct prefix *prefixes = calloc(n + 1, sizeof(*prefixes));

	cr_assert(prefixes);
	for (size_t i = 0; i < n; i++)
		prefixes[i] = host(from + (unsigned)i);
	return prefixes;
}

static const struct store_bulk_change put_change = {.created_s = CREATED_S, .comment = "bulk"};
static const struct store_bulk_change remove_change = {.removes = true};

static struct store_bulk *bulk_new(struct store *store, const struct store_bulk_change *change)
{
	struct store_bulk *bulk = NULL;
	struct error err;

	cr_assert_eq(store_bulk_new(store, change, &bulk, &err), 0, "%s", err.text);
	return bulk;
}

static void bulk_write(struct store_bulk *bulk, unsigned from, size_t n)
{
	_cleanup_free_ struct prefix *prefixes = hosts(from, n);
	struct error err;

	cr_assert_eq(store_bulk_write(bulk, prefixes, n, &err), 0, "%s", err.text);
}

static void bulk_commit(struct store *store, struct store_bulk *bulk)
{
	struct error err;

	cr_assert_eq(store_bulk_commit(store, bulk, NULL, &err), 0, "%s", err.text);
}

static void change_hosts(struct store *store, const struct store_bulk_change *change, unsigned from,
			 size_t n)
{
	struct store_bulk *bulk = bulk_new(store, change);

	bulk_write(bulk, from, n);
	bulk_commit(store, bulk);
	store_bulk_drop(bulk);
}

/* The same without a file. */
static void batch_hosts(struct store *store, const struct store_bulk_change *change, unsigned from,
			size_t n)
{
	_cleanup_free_ struct prefix *prefixes = hosts(from, n);
	struct error err;

	begin(store);
	cr_assert_eq(store_batch(store, change, prefixes, n, &err), 0, "%s", err.text);
	commit(store);
}

static bool fold(struct store *store)
{
	struct error err;
	bool more = false;

	cr_assert_eq(store_fold(store, &more, &err), 0, "%s", err.text);
	return more;
}

static void fold_all(struct store *store)
{
	while (fold(store))
		;
}

static void put_one(struct store *store, const char *prefix, u64 expires_ns, const char *comment)
{
	begin(store);
	put(store, STORE_BLOCK, prefix, expires_ns, comment);
	commit(store);
}

static void remove_one(struct store *store, const char *text)
{
	const struct prefix prefix = prefix_of(text);

	begin(store);
	cr_assert_eq(store_remove(store, STORE_BLOCK, &prefix, NULL), 0);
	commit(store);
}

static void clear(struct store *store, enum store_table table)
{
	begin(store);
	cr_assert_eq(store_clear(store, table, NULL), 0);
	commit(store);
}

/* What a rule's comment is; "-": it has none; "gone": it is not there. */
static void expect_comment(struct store *store, const char *prefix, const char *comment)
{
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, STORE_BLOCK);
	const struct rule *rule = find(set, prefix);
	const char *found = !rule ? "gone" : rule->comment ? rule->comment->text : "-";

	cr_expect_str_eq(found, comment, "%s: %s, not %s", prefix, found, comment);
}

static size_t count_files(void)
{
	DIR *files = opendir(temporary_path("bulk"));
	size_t n = 0;

	for (struct dirent *entry; files && (entry = readdir(files));)
		n += entry->d_name[0] != '.';
	if (files)
		closedir(files);
	return n;
}

static s64 count_rows(const char *what)
{
	sqlite3_stmt *statement = NULL;
	char sql[128];
	sqlite3 *db;
	s64 n;

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", what);
	cr_assert_eq(sqlite3_open(temporary_path("rules.db"), &db), SQLITE_OK);
	cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
	cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
	n = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return n;
}

static struct store *reopen(struct store *store)
{
	store_close(store);
	return open_store();
}

/* ---- what it keeps ---- */

static void expect_bulk(struct store *store, size_t n, u64 end)
{
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, STORE_ALLOW);
	struct ruleset_cursor cursor = ruleset_seek(set, NULL);
	unsigned number = 0;

	cr_assert_eq(ruleset_size(set), n, "%zu rules", ruleset_size(set));
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor)) {
		struct prefix expected = host(number++);

		cr_assert(prefix_equal(&rule->prefix, &expected));
		cr_assert_eq(rule->created_s, CREATED_S);
		cr_assert_eq(rule->expires_ns, end);
		cr_assert_str_eq(comment_text(rule->comment), "süß");
	}
	expect_size(store, STORE_BLOCK, 0);
}

Test(store_bulk, is_the_same_before_folding_and_after)
{
	static const size_t sizes[] = {0, 1, 999, 1000, 1001, 2500};
	u64 end = boot_ns() + HOUR_NS;
	const struct store_bulk_change change = {
		.table = STORE_ALLOW,
		.created_s = CREATED_S,
		.expires_ns = end,
		.comment = "süß",
	};
	struct store *store = open_store();

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		clear(store, STORE_ALLOW);
		change_hosts(store, &change, 0, sizes[i]);
		expect_bulk(store, sizes[i], end);
		store = reopen(store);
		expect_bulk(store, sizes[i], end);
		while (fold(store))
			expect_bulk(store, sizes[i], end);
		expect_bulk(store, sizes[i], end);
		store = reopen(store);
		expect_bulk(store, sizes[i], end);
		cr_expect_eq(count_files(), 0);
		cr_expect_eq(count_rows("bulk"), 0);
	}
	store_close(store);
}

Test(store_bulk, keeps_both_families_in_order)
{
	static const char *const texts[] = {"0.0.0.0/0", "10.0.0.0/8",	  "10.0.0.0",
					    "::/0",	 "2001:db8::/32", "2001:db8::"};
	struct prefix prefixes[ARRAY_SIZE(texts)];
	struct store *store = open_store();
	struct store_bulk *bulk = bulk_new(store, &put_change);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		prefixes[i] = prefix_of(texts[i]);
	put_one(store, "9.0.0.0", 0, "row");
	put_one(store, "2001:db8::/48", 0, "row");
	cr_assert_eq(store_bulk_write(bulk, prefixes, ARRAY_SIZE(texts), NULL), 0);
	bulk_commit(store, bulk);
	store_bulk_drop(bulk);
	for (int round = 0; round < 2; round++) {
		expect_size(store, STORE_BLOCK, ARRAY_SIZE(texts) + 2);
		for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
			expect_comment(store, texts[i], "bulk");
		fold_all(store);
	}
	store_close(store);
}

Test(store_bulk, leaves_no_trace_without_a_commit)
{
	struct store *store = open_store();
	struct store_bulk *bulk = bulk_new(store, &put_change);
	struct error err;

	cr_expect_eq(store_bulk_commit(store, bulk, NULL, &err), -EINVAL, "it was not written");
	store_bulk_drop(bulk);
	bulk = bulk_new(store, &put_change);
	bulk_write(bulk, 0, 10);
	cr_expect_eq(count_files(), 1);
	store_bulk_drop(bulk);
	store_bulk_drop(NULL);
	cr_expect_eq(count_files(), 0);
	cr_expect_not(fold(store));
	expect_size(store, STORE_BLOCK, 0);
	store_close(store);
}

/* ---- order ---- */

Test(store_bulk, replaces_older_rows_and_not_newer_ones)
{
	struct store *store = open_store();

	put_one(store, "10.0.0.1", 0, "older");
	put_one(store, "10.0.0.2", 0, "older");
	remove_one(store, "10.0.0.3");
	change_hosts(store, &put_change, 0, 10);
	put_one(store, "10.0.0.2", 0, "newer");
	remove_one(store, "10.0.0.4");
	remove_one(store, "10.0.0.5");
	put_one(store, "10.0.0.5", 0, NULL);
	for (int round = 0; round < 3; round++) {
		expect_size(store, STORE_BLOCK, 9);
		expect_comment(store, "10.0.0.1", "bulk");
		expect_comment(store, "10.0.0.2", "newer");
		expect_comment(store, "10.0.0.3", "bulk");
		expect_comment(store, "10.0.0.4", "gone");
		expect_comment(store, "10.0.0.5", "-");
		if (round)
			fold_all(store);
		else
			store = reopen(store);
	}
	cr_expect_eq(count_rows("block"), 9, "what was removed is not remembered any more");
	store_close(store);
}

Test(store_bulk, removes_older_rows_and_not_newer_ones)
{
	struct store *store = open_store();

	put_one(store, "10.0.0.1", 0, "older");
	put_one(store, "10.0.0.2", 0, "older");
	put_one(store, "192.0.2.1", 0, "other");
	change_hosts(store, &put_change, 0, 1500);
	put_one(store, "10.0.0.3", 0, "between");
	change_hosts(store, &remove_change, 0, 1200);
	put_one(store, "10.0.0.2", 0, "newer");
	for (int round = 0; round < 3; round++) {
		expect_size(store, STORE_BLOCK, 302);
		expect_comment(store, "10.0.0.1", "gone");
		expect_comment(store, "10.0.0.2", "newer");
		expect_comment(store, "10.0.0.3", "gone");
		if (round)
			fold_all(store);
		else
			store = reopen(store);
	}
	store_close(store);
}

/* A removal outranks all that are older, whichever is folded first. */
Test(store_bulk, remembers_a_removal_for_as_long_as_it_is_needed)
{
	const struct store_bulk_change allow = {.table = STORE_ALLOW, .created_s = CREATED_S};
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 10);
	change_hosts(store, &put_change, 0, 10);
	change_hosts(store, &allow, 0, 10);
	remove_one(store, "10.0.0.4");
	for (int i = 0; i < 4; i++) {
		expect_comment(store, "10.0.0.4", "gone");
		cr_expect_eq(count_rows("block WHERE expires_boot_ns = 1"), i < 3);
		fold(store);
	}
	remove_one(store, "10.0.0.5");
	cr_expect_eq(count_rows("block"), 8, "with nothing pending, it is gone at once");
	store_close(store);
}

static s64 created_of(struct store *store, const char *prefix)
{
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, STORE_BLOCK);

	cr_assert(find(set, prefix), "%s", prefix);
	return find(set, prefix)->created_s;
}

Test(store_bulk, keeps_the_age_of_rules_that_are_there)
{
	struct store_bulk_change later = put_change;
	struct store *store = open_store();

	later.created_s = wall_s() + 10;
	put_one(store, "10.0.0.1", 0, "there");
	put_one(store, "10.0.0.2", boot_ns() + HOUR_NS, "there, too");
	put_one(store, "10.0.0.3", boot_ns() + NS_PER_S, "ended when the bulk change is made");
	put_one(store, "10.0.0.4", 0, "removed");
	remove_one(store, "10.0.0.4");
	change_hosts(store, &put_change, 5, 1);
	change_hosts(store, &put_change, 6, 1);
	remove_one(store, "10.0.0.6");
	change_hosts(store, &later, 1, 6);
	for (int round = 0; round < 2; round++) {
		cr_expect_eq(created_of(store, "10.0.0.1"), CREATED_S);
		cr_expect_eq(created_of(store, "10.0.0.2"), CREATED_S);
		cr_expect_eq(created_of(store, "10.0.0.3"), later.created_s);
		cr_expect_eq(created_of(store, "10.0.0.4"), later.created_s);
		cr_expect_eq(created_of(store, "10.0.0.5"), CREATED_S);
		cr_expect_eq(created_of(store, "10.0.0.6"), later.created_s);
		fold_all(store);
	}
	store_close(store);
}

Test(store_bulk, is_void_after_a_clear_and_not_before)
{
	const struct store_bulk_change allow = {.table = STORE_ALLOW, .created_s = CREATED_S};
	struct store *store = open_store();
	struct store_bulk *bulk;

	change_hosts(store, &put_change, 0, 2500);
	fold(store);
	change_hosts(store, &put_change, 5000, 10);
	change_hosts(store, &allow, 0, 10);
	bulk = bulk_new(store, &put_change);
	bulk_write(bulk, 100, 7);
	clear(store, STORE_BLOCK);
	expect_size(store, STORE_BLOCK, 0);
	bulk_commit(store, bulk);
	store_bulk_drop(bulk);
	for (int round = 0; round < 3; round++) {
		expect_size(store, STORE_BLOCK, 7);
		expect_size(store, STORE_ALLOW, 10);
		if (round)
			fold_all(store);
		else
			store = reopen(store);
	}
	cr_expect_eq(count_files(), 0);
	store_close(store);
}

Test(store_bulk, clears_older_rows_and_not_newer_ones)
{
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 2500);
	begin(store);
	put(store, STORE_ALLOW, "10.0.0.1", 0, NULL);
	commit(store);
	fold_all(store);
	clear(store, STORE_BLOCK);
	put_one(store, "10.0.0.1", 0, "newer");
	put_one(store, "10.0.0.2", 0, "newer");
	remove_one(store, "10.0.0.2");
	clear(store, STORE_ALLOW);
	for (int round = 0; round < 5; round++) {
		expect_size(store, STORE_BLOCK, 1);
		expect_comment(store, "10.0.0.1", "newer");
		expect_size(store, STORE_ALLOW, 0);
		cr_expect_eq(count_rows("bulk"), round < 3 ? 2 : round < 4, "%d", round);
		store = reopen(store);
		fold(store);
	}
	cr_expect_eq(count_rows("block"), 1);
	cr_expect_eq(count_rows("allow"), 0);
	store_close(store);
}

Test(store_bulk, remembers_one_clear_a_table)
{
	struct store *store = open_store();

	put_one(store, "10.0.0.1", 0, NULL);
	for (int i = 0; i < 1000; i++) {
		begin(store);
		cr_assert_eq(store_clear(store, STORE_BLOCK, NULL), 0);
		cr_assert_eq(store_clear(store, STORE_ALLOW, NULL), 0);
		commit(store);
	}
	cr_expect_eq(count_rows("bulk"), 2);
	expect_size(store, STORE_BLOCK, 0);
	store_close(store);
}

Test(store_bulk, comes_back_when_a_clear_is_rolled_back)
{
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 10);
	begin(store);
	cr_assert_eq(store_clear(store, STORE_BLOCK, NULL), 0);
	store_rollback(store);
	expect_size(store, STORE_BLOCK, 10);
	fold_all(store);
	expect_size(store, STORE_BLOCK, 10);
	store_close(store);
}

Test(store_bulk, waits_in_no_longer_line_than_the_bound)
{
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 1500);
	for (unsigned i = 1; i < STORE_BULKS_MAX; i++)
		batch_hosts(store, &put_change, i * 1500, 10);
	cr_expect_eq(count_rows("bulk"), STORE_BULKS_MAX);
	cr_expect_eq(count_rows("block"), 0);
	change_hosts(store, &put_change, STORE_BULKS_MAX * 1500, 1500);
	cr_expect_eq(count_rows("bulk"), STORE_BULKS_MAX);
	cr_expect_eq(count_rows("block"), 1500, "the oldest is folded");
	cr_expect_eq(count_files(), 1, "of the newest");
	expect_size(store, STORE_BLOCK, 2 * 1500 + (STORE_BULKS_MAX - 1) * 10);
	store_close(store);
}

/* The database grows by checkpoints only. */
Test(store_bulk, reaches_the_database_beside_the_folding)
{
	struct store *store = open_store();
	struct stat st;

	change_hosts(store, &put_change, 0, 200000);
	fold_all(store);
	cr_assert_eq(stat(temporary_path("rules.db"), &st), 0);
	cr_expect_gt(st.st_size, 2 << 20);
	cr_assert_eq(stat(temporary_path("rules.db-wal"), &st), 0);
	cr_expect_lt(st.st_size, 8 << 20, "the log has %lld bytes", (long long)st.st_size);
	store_close(store);
}

/* ---- ends ---- */

Test(store_bulk, carries_ends_over_to_another_boot)
{
	struct store_bulk_change change = put_change;
	struct store *store = open_store();
	u64 end = boot_ns() + HOUR_NS;
	const struct rule *rule;
	struct ruleset *set;

	change.expires_ns = end;
	change_hosts(store, &change, 0, 1500);
	remove_one(store, "10.0.0.1");
	fold(store);
	remove_one(store, "10.0.0.2");
	store_close(store);
	run_sql("UPDATE meta SET value = 'another' WHERE key = 'boot_id';"
		"UPDATE bulk SET expires_boot_ns = 7");
	store = open_store();
	for (int round = 0; round < 2; round++) {
		set = load(store, STORE_BLOCK);
		cr_expect_eq(ruleset_size(set), 1498);
		cr_expect_null(find(set, "10.0.0.1"));
		cr_expect_null(find(set, "10.0.0.2"));
		rule = find(set, "10.0.5.200");
		cr_assert(rule);
		cr_expect_leq(rule->expires_ns, end + 2 * NS_PER_S);
		cr_expect_geq(rule->expires_ns, end - 2 * NS_PER_S);
		ruleset_free(set);
		fold_all(store);
	}
	store_close(store);
}

/* A rule for good that got an end by a bulk change must not be back for good after that. */
Test(store_bulk, has_ended_for_the_rules_that_it_replaced)
{
	struct store_bulk_change change = put_change;
	struct store *store = open_store();

	change.expires_ns = boot_ns() - 1;
	put_one(store, "10.0.0.1", 0, "for good");
	change_hosts(store, &change, 0, 10);
	for (int round = 0; round < 3; round++) {
		expect_size(store, STORE_BLOCK, 0);
		fold_all(store);
		if (round)
			store = reopen(store);
	}
	cr_expect_eq(count_rows("block"), 0);
	store_close(store);
}

Test(store_bulk, outranks_nothing_that_ended_after_it)
{
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 10);
	put_one(store, "10.0.0.1", boot_ns() - 1, "has ended");
	store = reopen(store);
	expect_comment(store, "10.0.0.1", "gone");
	fold_all(store);
	expect_comment(store, "10.0.0.1", "gone");
	store_close(store);
}

/* ---- death ---- */

enum death {
	AFTER_NEW,
	AFTER_WRITE,
	AFTER_COMMIT,
	AFTER_FOLD, /* and a step more each */
	DEATHS = AFTER_FOLD + 4,
};

static void live_until(enum death death)
{
	struct store *store = open_store();
	struct store_bulk *bulk;

	put_one(store, "192.0.2.1", 0, NULL);
	bulk = bulk_new(store, &put_change);
	for (enum death at = AFTER_NEW; at < death; at++) {
		if (at + 1 == AFTER_WRITE)
			bulk_write(bulk, 0, 3500);
		else if (at + 1 == AFTER_COMMIT)
			bulk_commit(store, bulk);
		else
			fold(store);
	}
	kill(getpid(), SIGKILL);
}

Test(store_bulk, is_there_as_a_whole_or_not_at_all_after_a_death)
{
	for (enum death death = AFTER_NEW; death < DEATHS; death++) {
		struct store *store;
		pid_t pid = fork();
		int status;

		if (!pid)
			live_until(death);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		store = open_store();
		expect_size(store, STORE_BLOCK, death < AFTER_COMMIT ? 1 : 3501);
		cr_expect_eq(count_files(), death >= AFTER_COMMIT && death < DEATHS - 1,
			     "%d: %zu files", death, count_files());
		fold_all(store);
		expect_size(store, STORE_BLOCK, death < AFTER_COMMIT ? 1 : 3501);
		cr_expect_eq(count_files(), 0);
		clear(store, STORE_BLOCK);
		fold_all(store);
		store_close(store);
	}
}

/* Between the end of the row and the end of the file, or the other way round after a clear. */
Test(store_bulk, removes_files_that_no_row_names)
{
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 10);
	temporary_write("bulk/7", "left", 4);
	temporary_write("bulk/01", "left", 4);
	temporary_write("bulk/1x", "left", 4);
	store = reopen(store);
	cr_expect_eq(count_files(), 1);
	expect_size(store, STORE_BLOCK, 10);
	clear(store, STORE_BLOCK);
	cr_assert_eq(unlink(temporary_path("bulk/1")), 0);
	store = reopen(store);
	fold_all(store);
	cr_expect_eq(count_rows("bulk"), 0);
	change_hosts(store, &put_change, 0, 10);
	expect_size(store, STORE_BLOCK, 10);
	store_close(store);
}

/* ---- damage ---- */

/* The path of the only file. */
static const char *only_file(void)
{
	DIR *files = opendir(temporary_path("bulk"));
	static char name[300];

	cr_assert(files);
	for (struct dirent *entry; (entry = readdir(files));)
		if (entry->d_name[0] != '.')
			snprintf(name, sizeof(name), "bulk/%s", entry->d_name);
	closedir(files);
	return temporary_path(name);
}

Test(store_bulk, reports_a_file_that_goes_while_it_is_folded)
{
	struct store *store = open_store();
	struct ruleset *set = NULL;
	struct error err;
	bool more = false;

	change_hosts(store, &put_change, 0, 2000);
	fold(store);
	cr_assert_eq(truncate(only_file(), 18000), 0);
	cr_expect_eq(store_fold(store, &more, &err), -EUCLEAN, "%s", err.text);
	cr_expect_eq(store_load(store, STORE_BLOCK, &set, &err), -EUCLEAN, "%s", err.text);
	put_one(store, "192.0.2.1", 0, NULL);
	store_close(store);
}

/* ---- a full disk ---- */

/* A file system of a megabyte, until the process ends. */
static void enter_small_disk(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root: it mounts a small file system");
	if (unshare(CLONE_NEWNS) < 0)
		cr_skip_test("needs a mount namespace: %s", strerror(errno));
	cr_assert_eq(mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%s", strerror(errno));
	cr_assert_eq(mount("tmpfs", temporary, "tmpfs", 0, "size=1m"), 0, "%s", strerror(errno));
}

/* Takes all that is left; gives back how much was taken. */
static long fill_disk(void)
{
	static const char zeros[4096];
	FILE *file = fopen(temporary_path("filling"), "w");
	long size = 0;

	cr_assert(file);
	setbuf(file, NULL);
	while (fwrite(zeros, 1, sizeof(zeros), file) == sizeof(zeros))
		size += (long)sizeof(zeros);
	fclose(file);
	return size;
}

Test(store_bulk, says_that_the_disk_is_full_and_goes_on)
{
	_cleanup_free_ struct prefix *prefixes = hosts(0, 100000);
	struct store_bulk *bulk;
	struct store *store;
	struct error err;

	enter_small_disk();
	store = open_store();
	bulk = bulk_new(store, &put_change);
	cr_expect_eq(store_bulk_write(bulk, prefixes, 100000, &err), -EDQUOT);
	cr_expect(strstr(err.text, "disk is full"), "%s", err.text);
	store_bulk_drop(bulk);
	cr_expect_eq(count_files(), 0);
	change_hosts(store, &put_change, 0, 10);
	expect_size(store, STORE_BLOCK, 10);
	store_close(store);
}

Test(store_bulk, starts_with_what_is_pending_on_a_full_disk)
{
	struct store *store;
	struct error err;
	bool more = true;

	enter_small_disk();
	store = open_store();
	change_hosts(store, &put_change, 0, 10000);
	store_close(store);
	cr_assert_gt(fill_disk(), 100000);
	cr_assert_eq(truncate(temporary_path("filling"), 100 << 10), 0);
	temporary_write("rest", "", 0);
	store = open_store();
	expect_size(store, STORE_BLOCK, 10000);
	fill_disk();
	for (int i = 0; i < 10000 && store_fold(store, &more, &err) == 0 && more; i++)
		;
	cr_expect(more, "it does not fit");
	expect_size(store, STORE_BLOCK, 10000);
	cr_assert_eq(unlink(temporary_path("filling")), 0);
	expect_size(store, STORE_BLOCK, 10000);
	store_close(store);
}

Test(store_bulk, is_not_there_when_it_could_not_be_committed)
{
	struct store_bulk *bulk;
	struct store *store;
	struct error err;

	enter_small_disk();
	store = open_store();
	bulk = bulk_new(store, &put_change);
	bulk_write(bulk, 0, 10);
	fill_disk();
	cr_expect_eq(store_bulk_commit(store, bulk, NULL, &err), -EDQUOT, "%s", err.text);
	store_bulk_drop(bulk);
	expect_size(store, STORE_BLOCK, 0);
	cr_assert_eq(unlink(temporary_path("filling")), 0);
	store = reopen(store);
	expect_size(store, STORE_BLOCK, 0);
	cr_expect_eq(count_files(), 0);
	change_hosts(store, &put_change, 0, 10);
	expect_size(store, STORE_BLOCK, 10);
	store_close(store);
}

/* ---- a database of version 1 ---- */

static const char version_1[] =
	"PRAGMA journal_mode = WAL; PRAGMA application_id = 6715236; PRAGMA user_version = 1;"
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE block (prefix BLOB PRIMARY KEY, created_s INTEGER NOT NULL,"
	" expires_boot_ns INTEGER NOT NULL, expires_s INTEGER NOT NULL, comment TEXT)"
	" WITHOUT ROWID;"
	"CREATE TABLE allow (prefix BLOB PRIMARY KEY, created_s INTEGER NOT NULL,"
	" expires_boot_ns INTEGER NOT NULL, expires_s INTEGER NOT NULL, comment TEXT)"
	" WITHOUT ROWID;"
	"CREATE TABLE redirect (interface TEXT NOT NULL, direction INTEGER NOT NULL,"
	" protocol INTEGER NOT NULL, port_first INTEGER NOT NULL, port_last INTEGER NOT NULL,"
	" target TEXT NOT NULL, mode INTEGER NOT NULL,"
	" PRIMARY KEY (interface, direction, protocol, port_first, port_last)) WITHOUT ROWID;"
	"INSERT INTO block VALUES (x'040a00000100000000000000000000000020', 1764000001, 0, 0, 'a');"
	"INSERT INTO block VALUES (x'040a00000200000000000000000000000020', 1764000002, 0, 0, "
	"NULL);"
	"INSERT INTO allow VALUES (x'040a00000300000000000000000000000020', 1764000003, 0, 0, 'c');"
	"INSERT INTO redirect VALUES ('eth0', 0, 6, 80, 80, 'tun0', 0);";

Test(store_bulk, opens_a_database_of_version_1)
{
	struct redirect *redirects = NULL;
	struct store *store;
	size_t n;

	run_sql(version_1);
	store = open_store();
	expect_comment(store, "10.0.0.1", "a");
	expect_comment(store, "10.0.0.2", "-");
	expect_size(store, STORE_ALLOW, 1);
	cr_assert_eq(store_load_redirects(store, &redirects, &n, NULL), 0);
	cr_expect_eq(n, 1);
	free(redirects);
	change_hosts(store, &put_change, 2, 10);
	store = reopen(store);
	fold_all(store);
	expect_size(store, STORE_BLOCK, 11);
	expect_comment(store, "10.0.0.2", "bulk");
	cr_expect_eq(created_of(store, "10.0.0.2"), 1764000002);
	store_close(store);
}

Test(store_bulk, opens_a_database_of_version_1_that_was_not_finished)
{
	struct store *store;

	run_sql("PRAGMA application_id = 6715236; PRAGMA user_version = 1");
	store = open_store();
	change_hosts(store, &put_change, 2, 10);
	expect_size(store, STORE_BLOCK, 10);
	store_close(store);
}

Test(store_bulk, opens_a_database_of_version_2)
{
	struct store *store = open_store();

	change_hosts(store, &put_change, 0, 10);
	store_close(store);
	run_sql("DROP TABLE forced; ALTER TABLE bulk DROP COLUMN keys; PRAGMA user_version = 2");
	store = open_store();
	expect_size(store, STORE_BLOCK, 10);
	batch_hosts(store, &remove_change, 2, 3);
	fold_all(store);
	expect_size(store, STORE_BLOCK, 7);
	store_close(store);
}

Test(store_bulk, opens_a_database_of_version_3)
{
	struct store *store = open_store();
	struct ruleset *forced = NULL;

	change_hosts(store, &put_change, 0, 10);
	store_close(store);
	run_sql("DROP TABLE forced; PRAGMA user_version = 3");
	store = open_store();
	expect_size(store, STORE_BLOCK, 10);
	cr_assert_eq(store_load_forced(store, &forced, NULL), 0);
	cr_expect_eq(ruleset_size(forced), 0);
	ruleset_free(forced);
	store_close(store);
}

/* ---- without a file, and snapshots ---- */

static struct store_snapshot *snapshot_new(struct store *store)
{
	struct store_snapshot *snapshot = NULL;
	struct error err;

	cr_assert_eq(store_snapshot_new(store, STORE_BLOCK, &snapshot, &err), 0, "%s", err.text);
	return snapshot;
}

static void snapshot_write(struct store_snapshot *snapshot, const struct ruleset *rules)
{
	struct error err;

	cr_assert_eq(store_snapshot_write(snapshot, rules, &err), 0, "%s", err.text);
}

static void snapshot_commit(struct store *store, struct store_snapshot *snapshot)
{
	struct error err;

	cr_assert_eq(store_snapshot_commit(store, snapshot, &err), 0, "%s", err.text);
	store_snapshot_drop(snapshot);
}

/* Of all that is there. */
static void take_snapshot(struct store *store)
{
	struct store_snapshot *snapshot = snapshot_new(store);
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, STORE_BLOCK);

	snapshot_write(snapshot, set);
	snapshot_commit(store, snapshot);
}

Test(store_bulk, makes_no_file_for_a_batch_and_no_row_for_each_of_it)
{
	struct store *store = open_store();

	batch_hosts(store, &put_change, 0, 1000);
	batch_hosts(store, &remove_change, 5, 10);
	cr_expect_eq(count_files(), 0);
	cr_expect_eq(count_rows("bulk"), 2);
	cr_expect_eq(count_rows("block"), 0);
	store = reopen(store);
	expect_size(store, STORE_BLOCK, 990);
	expect_comment(store, "10.0.0.4", "bulk");
	fold_all(store);
	cr_expect_eq(count_rows("block"), 990);
	expect_size(store, STORE_BLOCK, 990);
	store_close(store);
}

Test(store_bulk, is_void_with_a_batch_that_is_rolled_back)
{
	struct store *store = open_store();
	_cleanup_free_ struct prefix *prefixes = hosts(0, 100);

	begin(store);
	cr_assert_eq(store_batch(store, &put_change, prefixes, 100, NULL), 0);
	store_rollback(store);
	expect_size(store, STORE_BLOCK, 0);
	store_close(store);
}

Test(store_bulk, gives_way_to_a_snapshot_with_all_that_is_known_of_each_rule)
{
	struct store *store = open_store();
	u64 end = boot_ns() + HOUR_NS;

	put_one(store, "10.9.9.9", 0, "old");
	change_hosts(store, &put_change, 0, 2000);
	for (unsigned i = 0; i < 20; i++)
		batch_hosts(store, &put_change, i * 1000, 500);
	put_one(store, "10.0.0.1", end, "mine");
	remove_one(store, "10.9.9.9");
	take_snapshot(store);
	cr_expect_eq(count_rows("bulk"), 1);
	cr_expect_eq(count_files(), 1);
	for (int round = 0; round < 3; round++) {
		_cleanup_(ruleset_freep) struct ruleset *set = load(store, STORE_BLOCK);

		cr_expect_eq(ruleset_size(set), 11000);
		cr_expect_null(find(set, "10.9.9.9"));
		cr_assert(find(set, "10.0.0.1"));
		cr_expect_eq(find(set, "10.0.0.1")->expires_ns, end);
		expect_comment(store, "10.0.0.1", "mine");
		expect_comment(store, "10.0.0.2", "bulk");
		cr_expect_eq(find(set, "10.0.0.2")->created_s, CREATED_S);
		if (round == 1)
			fold_all(store);
		store = reopen(store);
	}
	cr_expect_eq(count_files(), 0);
	cr_expect_eq(count_rows("bulk"), 0);
	cr_expect_eq(count_rows("block"), 11000);
	store_close(store);
}

/* What is folded of it already is as good as what is not. */
Test(store_bulk, folds_a_snapshot_bit_by_bit)
{
	struct store *store = open_store();

	for (unsigned i = 0; i < 3; i++)
		put_one(store, i ? i == 1 ? "10.0.0.7" : "11.0.0.1" : "9.0.0.1", 0, "row");
	change_hosts(store, &put_change, 0, 5000);
	batch_hosts(store, &remove_change, 100, 100);
	remove_one(store, "9.0.0.1");
	take_snapshot(store);
	do {
		store = reopen(store);
		expect_size(store, STORE_BLOCK, 4901);
		expect_comment(store, "11.0.0.1", "row");
	} while (fold(store));
	cr_expect_eq(count_rows("block"), 4901);
	store_close(store);
}

Test(store_bulk, outlives_a_snapshot_that_was_begun_before_it)
{
	struct store *store = open_store();
	struct store_snapshot *snapshot;
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;

	batch_hosts(store, &put_change, 0, 1000);
	put_one(store, "10.0.0.3", 0, "before");
	snapshot = snapshot_new(store);
	set = load(store, STORE_BLOCK);
	put_one(store, "10.0.0.5", 0, "meanwhile");
	remove_one(store, "10.0.0.6");
	batch_hosts(store, &remove_change, 10, 100);
	snapshot_write(snapshot, set);
	snapshot_commit(store, snapshot);
	for (int round = 0; round < 2; round++) {
		expect_size(store, STORE_BLOCK, 899);
		expect_comment(store, "10.0.0.3", "before");
		expect_comment(store, "10.0.0.5", "meanwhile");
		fold_all(store);
		store = reopen(store);
	}
	store_close(store);
}

Test(store_bulk, is_not_brought_back_by_a_snapshot_that_a_clear_overtook)
{
	struct store *store = open_store();
	struct store_snapshot *snapshot;
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct error err;

	batch_hosts(store, &put_change, 0, 1000);
	snapshot = snapshot_new(store);
	set = load(store, STORE_BLOCK);
	clear(store, STORE_BLOCK);
	snapshot_write(snapshot, set);
	cr_expect_eq(store_snapshot_commit(store, snapshot, &err), -ECANCELED);
	store_snapshot_drop(snapshot);
	cr_expect_eq(count_files(), 0);
	expect_size(store, STORE_BLOCK, 0);
	store = reopen(store);
	expect_size(store, STORE_BLOCK, 0);
	store_close(store);
}

Test(store_bulk, stays_where_a_snapshot_of_it_is_not_committed)
{
	struct store *store = open_store();
	struct store_snapshot *snapshot;

	batch_hosts(store, &put_change, 0, 1000);
	snapshot = snapshot_new(store);
	store_snapshot_drop(snapshot);
	expect_size(store, STORE_BLOCK, 1000);
	fold_all(store);
	cr_expect_eq(count_rows("bulk"), 0);
	expect_size(store, STORE_BLOCK, 1000);
	store_close(store);
}

static bool other_boot;
void __real_boot_id_read(char id[static 40]);
void __wrap_boot_id_read(char id[static 40]);

void __wrap_boot_id_read(char id[static 40])
{
	__real_boot_id_read(id);
	if (other_boot)
		id[0] = '!';
}

Test(store_bulk, carries_ends_in_a_snapshot_over_to_another_boot)
{
	struct store_bulk_change change = put_change;
	struct store *store;
	u64 end = boot_ns() + HOUR_NS;
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct rule rule = {
		.prefix = host(1), .expires_ns = 7 * HOUR_NS + end, .created_s = wall_s()};
	struct store_snapshot *snapshot;

	other_boot = true;
	store = open_store();
	change.created_s = wall_s();
	change.expires_ns = end;
	change_hosts(store, &change, 0, 1500);
	snapshot = snapshot_new(store);
	set = load(store, STORE_BLOCK);
	cr_assert_eq(ruleset_put(set, &rule), 0);
	snapshot_write(snapshot, set);
	snapshot_commit(store, snapshot);
	store_close(store);
	other_boot = false;
	store = open_store();
	for (int round = 0; round < 2; round++) {
		_cleanup_(ruleset_freep) struct ruleset *now = load(store, STORE_BLOCK);

		cr_assert_eq(ruleset_size(now), 1500);
		cr_expect_leq(find(now, "10.0.0.9")->expires_ns, end + 2 * NS_PER_S);
		cr_expect_geq(find(now, "10.0.0.9")->expires_ns, end - 2 * NS_PER_S);
		cr_expect_leq(find(now, "10.0.0.1")->expires_ns, end + 7 * HOUR_NS + 2 * NS_PER_S);
		cr_expect_geq(find(now, "10.0.0.1")->expires_ns, end + 7 * HOUR_NS - 2 * NS_PER_S);
		fold_all(store);
	}
	store_close(store);
}

/* ---- against a model ---- */

#define MODEL_HOSTS 4000

struct model_rule {
	bool is_there;
	s64 created_s;
	unsigned comment;
};

struct model {
	struct model_rule rules[STORE_TABLES][MODEL_HOSTS];
	struct random random;
	unsigned changes;
};

static void model_put(struct model *model, enum store_table table, unsigned i, s64 created_s,
		      unsigned comment)
{
	struct model_rule *rule = &model->rules[table][i];

	*rule = (struct model_rule){true, rule->is_there ? rule->created_s : created_s, comment};
}

static void random_bulk(struct model *model, struct store *store, enum store_table table)
{
	_cleanup_free_ struct prefix *prefixes = calloc(MODEL_HOSTS, sizeof(*prefixes));
	unsigned percent = (unsigned)random_below(&model->random, 101), number = ++model->changes;
	char comment[16];
	const struct store_bulk_change change = {
		.table = table,
		.removes = random_below(&model->random, 3) == 0,
		.created_s = CREATED_S + number,
		.expires_ns = number % 2 ? boot_ns() + HOUR_NS : 0,
		.comment = comment,
	};
	struct store_bulk *bulk;
	size_t n = 0;

	snprintf(comment, sizeof(comment), "%u", number);
	bulk = bulk_new(store, &change);
	for (unsigned i = 0; i < MODEL_HOSTS; i++) {
		if (random_below(&model->random, 100) >= percent)
			continue;
		prefixes[n++] = host(i);
		if (change.removes)
			model->rules[table][i].is_there = false;
		else
			model_put(model, table, i, change.created_s, number);
	}
	cr_assert_eq(store_bulk_write(bulk, prefixes, n, NULL), 0);
	bulk_commit(store, bulk);
	store_bulk_drop(bulk);
}

static void random_batch(struct model *model, struct store *store, enum store_table table)
{
	unsigned number = ++model->changes,
		 from = (unsigned)random_below(&model->random, MODEL_HOSTS);
	struct prefix prefixes[300];
	char comment[16];
	const struct store_bulk_change change = {
		.table = table,
		.removes = random_below(&model->random, 3) == 0,
		.created_s = CREATED_S + number,
		.expires_ns = number % 2 ? boot_ns() + HOUR_NS : 0,
		.comment = comment,
	};
	size_t n = 0;

	snprintf(comment, sizeof(comment), "%u", number);
	for (unsigned i = from; i < MODEL_HOSTS && n < ARRAY_SIZE(prefixes); i += 1 + number % 5) {
		prefixes[n++] = host(i);
		if (change.removes)
			model->rules[table][i].is_there = false;
		else
			model_put(model, table, i, change.created_s, number);
	}
	begin(store);
	cr_assert_eq(store_batch(store, &change, prefixes, n, NULL), 0);
	commit(store);
}

/* A batch of single changes, as the daemon makes them; or one that is rolled back. */
static void random_singles(struct model *model, struct store *store, enum store_table table)
{
	static struct model before;
	bool keeps = random_below(&model->random, 4) != 0;

	before = *model;
	begin(store);
	for (u64 n = random_below(&model->random, 50); n; n--) {
		unsigned i = (unsigned)random_below(&model->random, MODEL_HOSTS);
		struct prefix prefix = host(i);
		char text[PREFIX_TEXT_MAX], comment[16];

		prefix_format(&prefix, text);
		if (random_below(&model->random, 2)) {
			model->rules[table][i].is_there = false;
			cr_assert_eq(store_remove(store, table, &prefix, NULL), 0);
			continue;
		}
		snprintf(comment, sizeof(comment), "%u", ++model->changes);
		model->rules[table][i] = (struct model_rule){true, CREATED_S, model->changes};
		put(store, table, text, 0, comment);
	}
	if (keeps) {
		commit(store);
		return;
	}
	store_rollback(store);
	before.random = model->random;
	*model = before;
}

/* Small changes are made while a snapshot is; some of them are not committed in the end. */
static void random_snapshot(struct model *model, struct store *store, enum store_table table)
{
	_cleanup_(store_snapshot_dropp) struct store_snapshot *snapshot = NULL;
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, table);
	struct error err;

	cr_assert_eq(store_snapshot_new(store, table, &snapshot, &err), 0, "%s", err.text);
	for (u64 n = random_below(&model->random, 4); n; n--) {
		if (random_below(&model->random, 2))
			random_batch(model, store, table);
		else
			random_singles(model, store, table);
		fold(store);
	}
	cr_assert_eq(store_snapshot_write(snapshot, set, &err), 0, "%s", err.text);
	if (random_below(&model->random, 5))
		cr_assert_eq(store_snapshot_commit(store, snapshot, &err), 0, "%s", err.text);
}

static void compare_model(struct model *model, struct store *store, enum store_table table)
{
	_cleanup_(ruleset_freep) struct ruleset *set = load(store, table);
	char comment[16];
	size_t n = 0;

	for (unsigned i = 0; i < MODEL_HOSTS; i++) {
		const struct model_rule *expected = &model->rules[table][i];
		struct prefix prefix = host(i);
		const struct rule *rule = ruleset_find(set, &prefix);

		random_holds(&model->random, (rule != NULL) == expected->is_there);
		n += expected->is_there;
		if (!rule)
			continue;
		snprintf(comment, sizeof(comment), "%u", expected->comment);
		random_holds(&model->random, !strcmp(comment_text(rule->comment), comment));
		random_holds(&model->random, rule->created_s == expected->created_s);
	}
	random_holds(&model->random, ruleset_size(set) == n);
}

static struct store *random_step(struct model *model, struct store *store)
{
	enum store_table table = random_below(&model->random, 4) ? STORE_BLOCK : STORE_ALLOW;
	u64 kind = random_below(&model->random, 100);

	if (kind < 15) {
		random_bulk(model, store, table);
	} else if (kind < 45) {
		random_singles(model, store, table);
	} else if (kind < 48) {
		clear(store, table);
		memset(model->rules[table], 0, sizeof(model->rules[table]));
	} else if (kind < 52) {
		fold_all(store);
	} else if (kind < 58) {
		return reopen(store);
	} else if (kind < 70) {
		random_batch(model, store, table);
	} else if (kind < 74) {
		random_snapshot(model, store, table);
	} else {
		fold(store);
	}
	return store;
}

Test(store_bulk, agrees_with_a_model, .timeout = 120)
{
	static struct model model;
	struct store *store = open_store();

	model.random = random_start();
	for (int i = 0; i < 500; i++) {
		store = random_step(&model, store);
		if (i % 5 == 0) {
			compare_model(&model, store, STORE_BLOCK);
			compare_model(&model, store, STORE_ALLOW);
		}
	}
	fold_all(store);
	compare_model(&model, store, STORE_BLOCK);
	compare_model(&model, store, STORE_ALLOW);
	random_holds(&model.random, count_rows("block WHERE expires_boot_ns = 1") == 0);
	random_holds(&model.random, count_files() == 0);
	store_close(store);
}
