// SPDX-License-Identifier: GPL-2.0-or-later
/* Databases that are damaged: what is kept of them, and what is there instead. */
#include "random.h"
#include "store_parts.h"

#include <errno.h>
#include <glob.h>
#include <netinet/in.h>
#include <sys/stat.h>

TestSuite(store_damage, .init = temporary_make, .fini = temporary_remove);

/* ---- the parts of a test ---- */

#define FILE_MAX (1 << 20)

static u8 bytes[FILE_MAX];

static size_t read_path(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t size;

	cr_assert(file, "%s", path);
	size = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	return size;
}

/* Paths in the directory. The caller frees it. */
static glob_t files_like(const char *pattern)
{
	glob_t found = {0};
	int r = glob(temporary_path(pattern), 0, NULL, &found);

	cr_assert(!r || r == GLOB_NOMATCH);
	return found;
}

static size_t count_like(const char *pattern)
{
	glob_t found = files_like(pattern);
	size_t n = found.gl_pathc;

	globfree(&found);
	return n;
}

static void expect_damage(const struct store *store, const char *why)
{
	cr_assert(store_damage(store));
	cr_expect(strstr(store_damage(store), why), "\"%s\" does not say \"%s\"",
		  store_damage(store), why);
}

/* The damaged database of these bytes is there as it was, and the store says where and why. */
static void expect_aside(const struct store *store, const void *content, size_t size,
			 const char *why)
{
	glob_t found = files_like("rules.db.damaged-*Z");
	bool same = false;

	expect_damage(store, why);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		if (!strstr(store_damage(store), found.gl_pathv[i]))
			continue;
		same = true;
		cr_expect_eq(read_path(found.gl_pathv[i]), size);
		cr_expect_eq(memcmp(bytes, content, size), 0, "it was written to");
	}
	cr_expect(same, "%s", store_damage(store));
	globfree(&found);
}

static struct prefix host(unsigned number)
{
	return (struct prefix){
		.family = FAMILY_IPV4,
		.len = 32,
		.addr = {10, (u8)(number >> 16), (u8)(number >> 8), (u8)number},
	};
}

static const struct rule *find_host(const struct ruleset *set, unsigned number)
{
	const struct prefix prefix = host(number);

	return ruleset_find(set, &prefix);
}

/* A store at rest. */
static struct store *settled_store(void)
{
	struct store *store = open_store();
	struct error err;

	if (!store_recovering(store))
		return store;
	begin(store);
	cr_assert_eq(store_recovered(store, 0, NULL, &err), 0, "%s", err.text);
	return store;
}

static void put_hosts(struct store *store, unsigned from, unsigned n)
{
	char prefix[32];

	begin(store);
	for (unsigned i = from; i < from + n; i++) {
		snprintf(prefix, sizeof(prefix), "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
		put(store, STORE_BLOCK, prefix, 0, "a comment that takes some room");
	}
	commit(store);
}

/* Closed, with its log moved into it: the hosts 0 to n - 1. */
static size_t leave_hosts(unsigned n)
{
	struct store *store = settled_store();

	put_hosts(store, 0, n);
	store_close(store);
	return read_path(temporary_path("rules.db"));
}

static void bulk_hosts(struct store *store, const struct store_bulk_change *change, unsigned from,
		       size_t n)
{
	_cleanup_(store_bulk_dropp) struct store_bulk *bulk = NULL;
	_cleanup_free_ struct prefix *prefixes = calloc(n + 1, sizeof(*prefixes));
	struct error err;

	cr_assert(prefixes);
	for (size_t i = 0; i < n; i++)
		prefixes[i] = host(from + (unsigned)i);
	cr_assert_eq(store_bulk_new(store, change, &bulk, &err), 0, "%s", err.text);
	cr_assert_eq(store_bulk_write(bulk, prefixes, n, &err), 0, "%s", err.text);
	cr_assert_eq(store_bulk_commit(store, bulk, NULL, &err), 0, "%s", err.text);
}

/* The same without a file. */
static void batch_hosts(struct store *store, const struct store_bulk_change *change, unsigned from,
			size_t n)
{
	_cleanup_free_ struct prefix *prefixes = calloc(n, sizeof(*prefixes));
	struct error err;

	cr_assert(prefixes);
	for (size_t i = 0; i < n; i++)
		prefixes[i] = host(from + (unsigned)i);
	begin(store);
	cr_assert_eq(store_batch(store, change, prefixes, n, &err), 0, "%s", err.text);
	commit(store);
}

static const struct store_bulk_change adds = {.created_s = 1764000000, .comment = "bulk"};
static const struct store_bulk_change removes = {.removes = true};

static void flip(const char *path, long at, u8 mask)
{
	FILE *file = fopen(path, "r+");
	int byte;

	cr_assert(file && !fseek(file, at, SEEK_SET));
	byte = fgetc(file);
	fseek(file, at, SEEK_SET);
	fputc(byte ^ mask, file);
	fclose(file);
}

/* It goes on, over a restart, as one that never was damaged. */
static void expect_works(struct store *store)
{
	struct error err;
	size_t n;

	{
		_cleanup_(ruleset_freep) struct ruleset *set = load(store, STORE_BLOCK);

		n = ruleset_size(set) + !find(set, "203.0.113.1");
	}
	cr_expect(store_recovering(store));
	begin(store);
	cr_assert_eq(store_recovered(store, 0, "compared", &err), 0, "%s", err.text);
	cr_expect_not(store_recovering(store));
	expect_damage(store, "; compared");
	begin(store);
	put(store, STORE_BLOCK, "203.0.113.1", 0, NULL);
	commit(store);
	store_close(store);
	store = open_store();
	cr_expect_not(store_recovering(store));
	cr_expect_null(store_damage(store));
	expect_size(store, STORE_BLOCK, n);
	store_close(store);
}

/* ---- the database ---- */

Test(store_damage, a_file_that_is_no_database_is_kept_as_it_is)
{
	struct store *store;
	char garbage[4096];

	for (size_t i = 0; i < sizeof(garbage); i++)
		garbage[i] = (char)(i * 7 + 1);
	temporary_write("rules.db", garbage, sizeof(garbage));
	store = open_store();
	expect_aside(store, garbage, sizeof(garbage), "file is not a database");
	expect_size(store, STORE_BLOCK, 0);
	expect_works(store);
}

Test(store_damage, an_empty_file_is_damaged)
{
	struct store *store;

	leave_hosts(10);
	temporary_write("rules.db", "", 0);
	store = open_store();
	expect_aside(store, "", 0, "the file is empty");
	expect_works(store);
}

Test(store_damage, a_log_without_its_database_is_kept)
{
	struct store *store;

	temporary_write("rules.db-wal", "a log", 5);
	store = open_store();
	expect_damage(store, "the file is missing, its log is there");
	cr_expect_eq(count_like("rules.db.damaged-*Z-wal"), 1);
	expect_works(store);
}

/* The first pages and the last are whole: what is between them is not known. */
Test(store_damage, rows_in_front_of_damage_and_behind_it_are_recovered)
{
	_cleanup_free_ u8 *damaged = malloc(FILE_MAX);
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	size_t size = leave_hosts(5000);
	struct store *store;

	cr_assert(damaged);
	memcpy(damaged, bytes, size);
	memset(damaged + size / 2, 0xa5, 8192);
	temporary_write("rules.db", (char *)damaged, size);
	store = open_store();
	expect_aside(store, damaged, size, "Page ");
	set = load(store, STORE_BLOCK);
	cr_expect_gt(ruleset_size(set), 2000, "%zu", ruleset_size(set));
	cr_expect_lt(ruleset_size(set), 5000);
	for (unsigned i = 0; i < 5000; i += 4999) {
		const struct rule *rule = find_host(set, i);

		cr_assert(rule, "%u", i);
		cr_expect_eq(rule->created_s, 1764000000);
		cr_expect_str_eq(comment_text(rule->comment), "a comment that takes some room");
	}
	expect_works(store);
}

Test(store_damage, a_header_that_is_damaged_alone_costs_no_rule)
{
	struct store *store;

	leave_hosts(100);
	flip(temporary_path("rules.db"), 68, 0x10); /* the application id */
	store = open_store();
	expect_damage(store, "application id");
	expect_size(store, STORE_BLOCK, 100);
	expect_works(store);
}

Test(store_damage, redirects_and_the_allowlist_are_recovered)
{
	const struct redirect redirect = {.protocol = IPPROTO_TCP,
					  .port_first = 80,
					  .port_last = 90,
					  .target = "tun0",
					  .mode = REDIRECT_NEIGH};
	struct redirect *loaded = NULL;
	struct store *store = settled_store();
	size_t n = 0;

	begin(store);
	put(store, STORE_ALLOW, "192.0.2.1", 0, NULL);
	cr_assert_eq(store_put_redirect(store, &redirect, NULL), 0);
	commit(store);
	store_close(store);
	flip(temporary_path("rules.db"), 68, 0x10);
	store = open_store();
	expect_size(store, STORE_ALLOW, 1);
	cr_assert_eq(store_load_redirects(store, &loaded, &n, NULL), 0);
	cr_assert_eq(n, 1);
	cr_expect(redirect_same_match(&loaded[0], &redirect));
	cr_expect_eq(loaded[0].mode, REDIRECT_NEIGH);
	free(loaded);
	expect_works(store);
}

Test(store_damage, rows_that_are_no_rules_are_left_out)
{
	struct store *store;

	leave_hosts(10);
	run_sql("PRAGMA application_id = 1; INSERT INTO block VALUES (x'04', 0, 0, 0, NULL, 0);"
		"INSERT INTO block VALUES ('text', 0, 0, 0, NULL, 0);"
		"INSERT INTO block VALUES (x'04c000020300000000000000000000000021', 0, 0, 0, NULL, "
		"0); INSERT INTO redirect VALUES ('a/b', 0, 6, 80, 80, 'tun0', 0);");
	store = open_store();
	expect_size(store, STORE_BLOCK, 10);
	expect_works(store);
}

Test(store_damage, ends_of_an_earlier_boot_go_by_the_wall_clock)
{
	struct store *store = settled_store();
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	u64 end = boot_ns() + HOUR_NS;

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.1", end, NULL);
	commit(store);
	store_close(store);
	run_sql("PRAGMA application_id = 1; UPDATE meta SET value = 'another' WHERE key = "
		"'boot_id'; UPDATE block SET expires_boot_ns = 9000000000000000000");
	store = open_store();
	set = load(store, STORE_BLOCK);
	cr_assert(find(set, "192.0.2.1"));
	cr_expect_lt(find(set, "192.0.2.1")->expires_ns, end + 2 * NS_PER_S);
	expect_works(store);
}

Test(store_damage, rows_out_of_order_are_damage)
{
	struct ruleset *set = NULL;
	struct store *store;
	struct error err;
	size_t size = leave_hosts(10), at = 0;

	/* 10.0.0.5 becomes 10.0.0.69, in the middle of its page. */
	for (size_t i = 0; i + 18 < size; i++)
		if (!memcmp(bytes + i, "\x04\x0a\0\0\x05", 5))
			at = i + 4;
	cr_assert(at);
	flip(temporary_path("rules.db"), (long)at, 0x40);
	store = open_store();
	if (!store_recovering(store)) {
		cr_assert_eq(store_load(store, STORE_BLOCK, &set, &err), -EUCLEAN, "%s", err.text);
		cr_assert_eq(store_recover(store, err.text, &err), 0, "%s", err.text);
	}
	set = load(store, STORE_BLOCK);
	cr_expect(find(set, "10.0.0.9") && find(set, "10.0.0.0"));
	ruleset_free(set);
	expect_works(store);
}

/* ---- bulk changes ---- */

static const char *bulk_file(void)
{
	glob_t found = files_like("bulk/*");
	static char path[300];

	cr_assert_geq(found.gl_pathc, 1);
	snprintf(path, sizeof(path), "%s", found.gl_pathv[found.gl_pathc - 1]);
	globfree(&found);
	return path;
}

Test(store_damage, a_bulk_file_that_is_cut_off_gives_what_it_has)
{
	struct store *store = settled_store();

	put_hosts(store, 5000, 10);
	bulk_hosts(store, &adds, 0, 2000);
	store_close(store);
	cr_assert_eq(truncate(bulk_file(), 18 * 700 + 5), 0);
	store = open_store();
	expect_damage(store, "has not the size that it had");
	cr_expect_eq(count_like("rules.db.damaged-*Z-bulk/*"), 1, "the file is kept, too");
	expect_size(store, STORE_BLOCK, 710);
	bulk_hosts(store, &adds, 0, 2000);
	expect_size(store, STORE_BLOCK, 2010);
	expect_works(store);
}

Test(store_damage, a_bulk_file_that_was_changed_is_not_believed_behind_the_change)
{
	struct store *store = settled_store();

	bulk_hosts(store, &adds, 0, 2000);
	store_close(store);
	flip(bulk_file(), 18 * 1000, 0x01); /* the family */
	store = open_store();
	expect_damage(store, "wrong checksum");
	expect_size(store, STORE_BLOCK, 1000);
	expect_works(store);
}

Test(store_damage, a_bulk_file_that_is_missing_takes_nothing_else_along)
{
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct store *store = settled_store();

	bulk_hosts(store, &adds, 0, 100);
	bulk_hosts(store, &removes, 0, 10);
	begin(store);
	put(store, STORE_BLOCK, "10.0.0.3", 0, "again");
	commit(store);
	bulk_hosts(store, &adds, 1000, 100);
	store_close(store);
	cr_assert_eq(unlink(bulk_file()), 0);
	store = open_store();
	expect_damage(store, "is missing");
	set = load(store, STORE_BLOCK);
	cr_expect_eq(ruleset_size(set), 91);
	cr_assert(find(set, "10.0.0.3"));
	cr_expect_str_eq(comment_text(find(set, "10.0.0.3")->comment), "again");
	cr_expect_str_eq(comment_text(find(set, "10.0.0.99")->comment), "bulk");
	expect_works(store);
}

Test(store_damage, rows_that_are_no_bulk_changes_are_damage)
{
	static const char *const changes[] = {"tbl = 2",	"tbl = -1", "kind = 4",
					      "folded = n + 1", "n = -1",   "n = 1 << 62"};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		struct store *store = settled_store();
		char sql[128];

		bulk_hosts(store, &adds, 0, 10);
		store_close(store);
		snprintf(sql, sizeof(sql), "UPDATE bulk SET %s", changes[i]);
		run_sql(sql);
		store = open_store();
		cr_expect(store_damage(store) &&
				  strstr(store_damage(store), "a row that is no bulk change"),
			  "%s", changes[i]);
		expect_works(store);
	}
}

Test(store_damage, a_batch_that_was_changed_is_not_believed_behind_the_change)
{
	struct store *store = settled_store();

	batch_hosts(store, &adds, 0, 1000);
	batch_hosts(store, &removes, 100, 10);
	store_close(store);
	run_sql("UPDATE bulk SET keys = CAST(substr(keys, 1, 18 * 500) || zeroblob(18 * 500) AS "
		"BLOB) WHERE n = 1000");
	store = open_store();
	expect_damage(store, "a bulk change with a wrong checksum");
	expect_size(store, STORE_BLOCK, 490);
	expect_works(store);
}

Test(store_damage, a_batch_of_another_size_is_damage)
{
	struct store *store = settled_store();

	batch_hosts(store, &adds, 0, 100);
	store_close(store);
	run_sql("UPDATE bulk SET keys = zeroblob(1799)");
	store = open_store();
	expect_damage(store, "a row that is no bulk change");
	expect_works(store);
}

/* Rows are 10.9.9.8, and 10.9.9.9, which went: the snapshot has taken the place of what says so. */
static void leave_snapshot(void)
{
	_cleanup_(store_snapshot_dropp) struct store_snapshot *snapshot = NULL;
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct store *store = settled_store();
	struct error err;

	begin(store);
	put(store, STORE_BLOCK, "10.9.9.8", 0, "kept");
	put(store, STORE_BLOCK, "10.9.9.9", 0, "gone");
	commit(store);
	batch_hosts(store, &adds, 0, 1000);
	batch_hosts(store, &removes, 9 << 16 | 9 << 8 | 9, 1);
	cr_assert_eq(store_snapshot_new(store, STORE_BLOCK, &snapshot, &err), 0, "%s", err.text);
	set = load(store, STORE_BLOCK);
	cr_assert_eq(store_snapshot_write(snapshot, set, &err), 0, "%s", err.text);
	cr_assert_eq(store_snapshot_commit(store, snapshot, &err), 0, "%s", err.text);
	batch_hosts(store, &removes, 0, 10);
	store_snapshot_drop(take_pointer(&snapshot));
	store_close(store);
}

Test(store_damage, a_snapshot_that_is_whole_is_recovered_with_all_that_it_says)
{
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	struct store *store;

	leave_snapshot();
	flip(temporary_path("rules.db"), 68, 0x10);
	store = open_store();
	set = load(store, STORE_BLOCK);
	cr_expect_eq(ruleset_size(set), 991);
	cr_assert(find(set, "10.9.9.8"));
	cr_expect_null(find(set, "10.9.9.9"));
	cr_expect_str_eq(comment_text(find(set, "10.9.9.8")->comment), "kept");
	cr_expect_str_eq(comment_text(find(set, "10.0.0.99")->comment), "bulk");
	cr_expect_eq(find(set, "10.0.0.99")->created_s, adds.created_s);
	expect_works(store);
}

Test(store_damage, a_snapshot_that_is_cut_off_gives_what_it_has)
{
	static const struct {
		long size;
		size_t rules;
		const char *why;
	} cases[] = {
		{40 + 48 * 500 + 7, 492, "bulk/1 has not the size that it had"},
		{40 + 48 * 1001 + 1, 991, "bulk/1 has a wrong checksum"},
		{39, 2, "bulk/1 has not the size that it had"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(ruleset_freep) struct ruleset *set = NULL;
		struct store *store;

		leave_snapshot();
		cr_assert_eq(truncate(temporary_path("bulk/1"), cases[i].size), 0);
		store = open_store();
		expect_damage(store, cases[i].why);
		set = load(store, STORE_BLOCK);
		cr_expect_eq(ruleset_size(set), cases[i].rules, "%zu", ruleset_size(set));
		cr_expect(find(set, "10.9.9.8"), "of the rows that it took the place of");
		expect_works(store);
		temporary_remove();
		cr_assert_eq(mkdir(temporary, 0700), 0);
	}
}

/* ---- putting one in the place of another ---- */

Test(store_damage, a_new_database_is_no_damage)
{
	struct store *store = open_store();
	struct error err;

	cr_expect(store_recovering(store));
	cr_expect_null(store_damage(store));
	store_close(store);
	store = open_store();
	cr_expect(store_recovering(store), "until somebody has said what there was");
	begin(store);
	cr_assert_eq(store_recovered(store, 0, NULL, &err), 0);
	cr_expect_null(store_damage(store));
	store_close(store);
	store = open_store();
	cr_expect_not(store_recovering(store));
	cr_expect_eq(count_like("*damaged*"), 0);
	store_close(store);
}

Test(store_damage, what_is_lost_with_a_missing_database_is_told)
{
	struct store *store = open_store();
	struct error err;

	begin(store);
	cr_assert_eq(store_recovered(store, 0, "3 are known", &err), 0);
	expect_damage(store, "rules.db was missing; 3 are known");
	store_close(store);
}

Test(store_damage, a_recovery_that_was_cut_off_begins_again)
{
	struct store *store;
	char text[ERROR_TEXT_MAX];

	leave_hosts(100);
	flip(temporary_path("rules.db"), 68, 0x10);
	store = open_store();
	snprintf(text, sizeof(text), "%s", store_damage(store));
	begin(store);
	put(store, STORE_BLOCK, "203.0.113.7", 0, NULL);
	store_close(store); /* as a death would */
	store = open_store();
	cr_expect(store_recovering(store));
	cr_expect_str_eq(store_damage(store), text);
	cr_expect_eq(count_like("rules.db.damaged-*Z"), 1);
	expect_size(store, STORE_BLOCK, 100);
	expect_works(store);
}

static void move(const char *from, const char *to)
{
	char path[300];

	snprintf(path, sizeof(path), "%s", temporary_path(from));
	cr_assert_eq(rename(path, temporary_path(to)), 0, "%s", from);
}

/* After each of the renames that put a new database in the place of a damaged one. */
Test(store_damage, a_new_database_that_is_whole_counts_wherever_a_death_was)
{
	for (int died_after = 0; died_after < 3; died_after++) {
		struct store *store;

		leave_hosts(20);
		move("rules.db", "kept");
		leave_hosts(10);
		move("kept", "rules.db.new");
		temporary_write("rules.db-wal", "a log", 5);
		temporary_write("rules.db.tmp", "half", 4);
		if (died_after > 0)
			move("rules.db", "rules.db.damaged-20260101T000000Z");
		if (died_after > 1)
			move("rules.db-wal", "rules.db.damaged-20260101T000000Z-wal");
		store = settled_store();
		expect_size(store, STORE_BLOCK, 20);
		cr_expect_eq(count_like("rules.db.damaged-*Z"), 1);
		cr_expect_eq(count_like("rules.db.damaged-*Z-wal"), 1);
		cr_expect_eq(count_like("rules.db.new"), 0);
		store_close(store);
		temporary_remove();
		cr_assert_eq(mkdir(temporary, 0700), 0);
	}
}

Test(store_damage, the_last_eight_are_kept)
{
	for (int i = 0; i < 10; i++) {
		temporary_write("rules.db", "no database", 11);
		temporary_write("rules.db-wal", "no log", 6);
		store_close(settled_store());
	}
	cr_expect_eq(count_like("rules.db.damaged-*Z"), 8);
	cr_expect_eq(count_like("rules.db.damaged-*Z-wal"), 8);
}

/* ---- numbers ---- */

Test(store_damage, changes_are_numbered_on)
{
	struct store *store = settled_store();
	struct error err;
	u64 before = store_change(store);

	put_hosts(store, 0, 10);
	cr_expect_eq(store_change(store), before + 1);
	bulk_hosts(store, &adds, 100, 10);
	cr_expect_eq(store_change(store), before + 2);
	for (bool more = true; more;)
		cr_assert_eq(store_fold(store, &more, &err), 0);
	cr_expect_eq(store_change(store), before + 2, "folding changes no rule");
	begin(store);
	put(store, STORE_BLOCK, "192.0.2.1", 0, NULL);
	before = store_change(store);
	store_rollback(store);
	cr_expect_eq(store_change(store), before);
	store_close(store);
	flip(temporary_path("rules.db"), 68, 0x10);
	store = open_store();
	cr_expect_eq(store_change(store), before);
	begin(store);
	cr_assert_eq(store_recovered(store, 1000, "compared", &err), 0);
	cr_expect_eq(store_change(store), 1001);
	store_close(store);
	store = open_store();
	cr_expect_eq(store_change(store), 1001);
	store_close(store);
}

/* ---- anything ---- */

/* Opens it whatever was done to it, and makes the most of it. Returns how many rules there are. */
static size_t survive(void)
{
	struct store *store = open_store();
	struct ruleset *set = NULL;
	struct error err;
	size_t n;
	int r = store_load(store, STORE_BLOCK, &set, &err);

	if (r == -EUCLEAN) {
		cr_assert_eq(store_recover(store, err.text, &err), 0, "%s", err.text);
		set = load(store, STORE_BLOCK);
	}
	n = ruleset_size(set);
	ruleset_free(set);
	put_hosts(store, 70000, 1);
	store_close(store);
	return n;
}

static void start_over(const u8 *content, size_t size)
{
	temporary_remove();
	cr_assert_eq(mkdir(temporary, 0700), 0);
	temporary_write("rules.db", (const char *)content, size);
}

Test(store_damage, a_database_cut_off_anywhere_is_survived)
{
	_cleanup_free_ u8 *whole = malloc(FILE_MAX);
	size_t size = leave_hosts(500);

	cr_assert(whole);
	memcpy(whole, bytes, size);
	for (size_t at = 0; at < size; at += 1500) {
		start_over(whole, at);
		cr_expect_leq(survive(), 500);
	}
}

Test(store_damage, a_flipped_bit_anywhere_is_survived)
{
	_cleanup_free_ u8 *whole = malloc(FILE_MAX);
	size_t size = leave_hosts(500);
	struct random random = random_start();

	cr_assert(whole);
	memcpy(whole, bytes, size);
	for (int i = 0; i < 60; i++) {
		size_t at = random_below(&random, (u32)size);

		if (at >= 60 && at < 64)
			continue; /* a newer version is refused */
		start_over(whole, size);
		flip(temporary_path("rules.db"), (long)at, (u8)(1u << random_below(&random, 8)));
		random_holds(&random, survive() <= 500);
	}
}
