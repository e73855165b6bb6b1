// SPDX-License-Identifier: GPL-2.0-or-later
/* The database of runtime rules: what it keeps, and what it refuses to open. */
#include "store_parts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(store, .init = temporary_make, .fini = temporary_remove);

/* ---- what it keeps ---- */

Test(store, keeps_what_was_committed)
{
	struct store *store = open_store();
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	u64 end = boot_ns() + HOUR_NS;
	const struct rule *rule;

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.0/24", 0, NULL);
	put(store, STORE_BLOCK, "2001:db8::/32", end, "why");
	put(store, STORE_BLOCK, "0.0.0.0/0", 0, NULL);
	put(store, STORE_ALLOW, "203.0.113.7", 0, "me");
	commit(store);
	store_close(store);

	store = open_store();
	set = load(store, STORE_BLOCK);
	cr_expect_eq(ruleset_size(set), 3);
	rule = find(set, "2001:db8::/32");
	cr_assert(rule);
	cr_expect_eq(rule->created_s, 1764000000);
	cr_expect_eq(rule->expires_ns, end);
	cr_expect_str_eq(comment_text(rule->comment), "why");
	rule = find(set, "192.0.2.0/24");
	cr_assert(rule);
	cr_expect_eq(rule->expires_ns, 0);
	cr_expect_null(rule->comment);
	expect_size(store, STORE_ALLOW, 1);
	store_close(store);
}

Test(store, keeps_comments_byte_for_byte)
{
	static const char *const comments[] = {"", "süß", "日本語 \xf0\x9f\x94\xa5", "it's \"so\"",
					       "'; DROP TABLE block; --"};
	struct store *store = open_store();
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;
	char prefix[32];

	begin(store);
	for (size_t i = 0; i < ARRAY_SIZE(comments); i++) {
		snprintf(prefix, sizeof(prefix), "192.0.2.%zu", i);
		put(store, STORE_BLOCK, prefix, 0, comments[i]);
	}
	commit(store);
	store_close(store);
	store = open_store();
	set = load(store, STORE_BLOCK);
	for (size_t i = 0; i < ARRAY_SIZE(comments); i++) {
		snprintf(prefix, sizeof(prefix), "192.0.2.%zu", i);
		cr_assert(find(set, prefix) && find(set, prefix)->comment);
		cr_expect_str_eq(comment_text(find(set, prefix)->comment), comments[i]);
	}
	store_close(store);
}

Test(store, forgets_what_was_rolled_back)
{
	struct store *store = open_store();

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.1", 0, NULL);
	commit(store);
	begin(store);
	put(store, STORE_BLOCK, "192.0.2.2", 0, NULL);
	cr_assert_eq(store_clear(store, STORE_ALLOW, NULL), 0);
	store_rollback(store);
	store_rollback(store); /* nothing left to do */
	expect_size(store, STORE_BLOCK, 1);
	begin(store);
	put(store, STORE_BLOCK, "192.0.2.3", 0, NULL);
	store_close(store); /* as a death would */
	store = open_store();
	expect_size(store, STORE_BLOCK, 1);
	store_close(store);
}

Test(store, replaces_removes_and_clears)
{
	const struct prefix gone = prefix_of("192.0.2.1");
	struct store *store = open_store();
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.1", 0, "first");
	put(store, STORE_BLOCK, "192.0.2.1", 0, "second");
	put(store, STORE_BLOCK, "192.0.2.0/31", 0, "not it");
	put(store, STORE_ALLOW, "192.0.2.1", 0, "not it");
	commit(store);
	set = load(store, STORE_BLOCK);
	cr_expect_eq(ruleset_size(set), 2);
	cr_expect_str_eq(comment_text(find(set, "192.0.2.1")->comment), "second");
	begin(store);
	cr_expect_eq(store_remove(store, STORE_BLOCK, &gone, NULL), 0);
	cr_expect_eq(store_remove(store, STORE_BLOCK, &gone, NULL), 0, "it is not there");
	commit(store);
	expect_size(store, STORE_BLOCK, 1);
	expect_size(store, STORE_ALLOW, 1);
	begin(store);
	cr_expect_eq(store_clear(store, STORE_BLOCK, NULL), 0);
	commit(store);
	expect_size(store, STORE_BLOCK, 0);
	expect_size(store, STORE_ALLOW, 1);
	store_close(store);
}

Test(store, survives_a_kill_behind_the_commit)
{
	pid_t pid = fork();
	struct store *store;
	int status;

	if (!pid) {
		store = open_store();
		begin(store);
		put(store, STORE_BLOCK, "192.0.2.1", 0, NULL);
		commit(store);
		begin(store);
		put(store, STORE_BLOCK, "192.0.2.2", 0, NULL);
		kill(getpid(), SIGKILL);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	store = open_store();
	expect_size(store, STORE_BLOCK, 1);
	store_close(store);
}

Test(store, keeps_redirects)
{
	const struct redirect both = {.protocol = IPPROTO_TCP,
				      .port_first = 1,
				      .port_last = 65535,
				      .target = "fifteen_bytes_x",
				      .mode = REDIRECT_INGRESS};
	struct redirect one = both, *loaded = NULL;
	struct store *store = open_store();
	size_t n;

	strcpy(one.interface, "eth0");
	one.direction = DIRECTION_OUT;
	begin(store);
	cr_assert_eq(store_put_redirect(store, &both, NULL), 0);
	cr_assert_eq(store_put_redirect(store, &one, NULL), 0);
	strcpy(one.target, "other");
	cr_assert_eq(store_put_redirect(store, &one, NULL), 0, "it replaces the other");
	commit(store);
	store_close(store);
	store = open_store();
	cr_assert_eq(store_load_redirects(store, &loaded, &n, NULL), 0);
	cr_assert(loaded && n == 2);
	cr_expect(redirect_same_match(&loaded[0], &both) && redirect_same_match(&loaded[1], &one));
	cr_expect_str_eq(loaded[0].target, "fifteen_bytes_x");
	cr_expect_str_eq(loaded[1].target, "other");
	cr_expect_eq(loaded[0].mode, REDIRECT_INGRESS);
	free(loaded);
	begin(store);
	cr_assert_eq(store_remove_redirect(store, &both, NULL), 0);
	commit(store);
	cr_assert_eq(store_load_redirects(store, &loaded, &n, NULL), 0);
	cr_assert_eq(n, 1);
	cr_expect_str_eq(loaded[0].target, "other");
	free(loaded);
	store_close(store);
}

/* ---- ends ---- */

Test(store, leaves_out_what_has_ended)
{
	struct store *store = open_store();
	_cleanup_(ruleset_freep) struct ruleset *set = NULL;

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.1", 0, NULL);
	put(store, STORE_BLOCK, "192.0.2.2", boot_ns() - 1, NULL);
	put(store, STORE_BLOCK, "192.0.2.3", boot_ns() + HOUR_NS, NULL);
	commit(store);
	set = load(store, STORE_BLOCK);
	cr_expect_eq(ruleset_size(set), 2);
	cr_expect_null(find(set, "192.0.2.2"));
	store_close(store);
}

static void expect_end_near(const struct ruleset *set, const char *prefix, u64 ns)
{
	const struct rule *rule = find(set, prefix);

	cr_assert(rule, "%s", prefix);
	cr_expect_leq(rule->expires_ns, ns + 2 * NS_PER_S, "%s ends too late", prefix);
	cr_expect_geq(rule->expires_ns, ns - 2 * NS_PER_S, "%s ends too early", prefix);
}

/* Another boot, on whose clock the old ends mean something else. */
Test(store, carries_ends_over_to_another_boot_by_the_wall_clock)
{
	struct store *store = open_store();
	struct ruleset *set;
	u64 end = boot_ns() + HOUR_NS;

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.1", 0, NULL);
	put(store, STORE_BLOCK, "192.0.2.2", end, NULL);
	put(store, STORE_BLOCK, "192.0.2.3", end, NULL);
	put(store, STORE_ALLOW, "192.0.2.4", end, NULL);
	commit(store);
	store_close(store);
	run_sql("UPDATE meta SET value = 'another' WHERE key = 'boot_id';"
		"UPDATE block SET expires_boot_ns = 7 WHERE expires_boot_ns <> 0;"
		"UPDATE allow SET expires_boot_ns = 9000000000000000000;"
		"UPDATE block SET expires_s = 1764000000 WHERE prefix = "
		"x'04c000020300000000000000000000000020'");
	store = open_store();
	set = load(store, STORE_BLOCK);
	cr_expect_eq(ruleset_size(set), 2);
	cr_expect_eq(find(set, "192.0.2.1")->expires_ns, 0, "for good is for good");
	expect_end_near(set, "192.0.2.2", end);
	cr_expect_null(find(set, "192.0.2.3"), "it ended while the machine was off");
	ruleset_free(set);
	set = load(store, STORE_ALLOW);
	expect_end_near(set, "192.0.2.4", end);
	ruleset_free(set);
	store_close(store);
	store = open_store(); /* once a boot only */
	set = load(store, STORE_BLOCK);
	expect_end_near(set, "192.0.2.2", end);
	ruleset_free(set);
	store_close(store);
}

Test(store, keeps_ends_within_a_boot_whatever_the_wall_clock_says)
{
	struct store *store = open_store();
	struct ruleset *set;
	u64 end = boot_ns() + HOUR_NS;

	begin(store);
	put(store, STORE_BLOCK, "192.0.2.2", end, NULL);
	commit(store);
	store_close(store);
	run_sql("UPDATE block SET expires_s = 5");
	store = open_store();
	set = load(store, STORE_BLOCK);
	cr_assert(find(set, "192.0.2.2"));
	cr_expect_eq(find(set, "192.0.2.2")->expires_ns, end);
	ruleset_free(set);
	store_close(store);
}

/* ---- what it refuses ---- */

Test(store, refuses_a_second_daemon)
{
	struct store *store = open_store();

	expect_refusal(-EBUSY, "another fwd uses the state directory");
	store_close(store);
	store = open_store();
	store_close(store);
}

static void read_file(char *bytes, size_t size)
{
	FILE *file = fopen(temporary_path("rules.db"), "r");

	cr_assert(file);
	cr_assert_eq(fread(bytes, 1, size, file), size);
	fclose(file);
}

Test(store, reports_rows_that_are_no_prefixes)
{
	static const char *const keys[] = {
		"x'05c000020300000000000000000000000020'", /* no family */
		"x'04c000020300000000000000000000000021'", /* a length out of range */
		"x'04c000020300000000000000000000000018'", /* host bits */
		"x'04c00002030000000000000000000000ff20'", /* bytes behind IPv4 */
		"x'04'",
		"'text'",
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		struct store *store = open_store();
		struct ruleset *set = NULL;
		struct error err = {""};
		char sql[256];

		snprintf(sql, sizeof(sql),
			 "DELETE FROM block; INSERT INTO block VALUES (%s, 0, 0, 0, NULL, 0)",
			 keys[i]);
		run_sql(sql);
		cr_expect_eq(store_load(store, STORE_BLOCK, &set, &err), -EUCLEAN, "%s", keys[i]);
		cr_expect_null(set);
		store_close(store);
	}
}

Test(store, reports_rows_that_are_no_redirects)
{
	static const char *const rows[] = {
		"'eth0', 2, 6, 80, 80, 'tun0', 0", /* direction */
		"'eth0', 0, 1, 80, 80, 'tun0', 0", /* protocol */
		"'eth0', 0, 6, 0, 80, 'tun0', 0",  /* ports */
		"'eth0', 0, 6, 80, 79, 'tun0', 0",	    "'eth0', 0, 6, 80, 65536, 'tun0', 0",
		"'eth0', 0, 6, 80, 80, 'tun0', 4", /* mode */
		"'eth0', 0, 6, 80, 80, 'tun0', -1",	    "'eth0', 0, 6, 80, 80, '', 0",
		"'sixteen_bytes_xx', 0, 6, 80, 80, 'a', 0", "'a/b', 0, 6, 80, 80, 'tun0', 0",
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct store *store = open_store();
		struct redirect *redirects = NULL;
		struct error err = {""};
		char sql[256];
		size_t n;

		snprintf(sql, sizeof(sql), "DELETE FROM redirect; INSERT INTO redirect VALUES (%s)",
			 rows[i]);
		run_sql(sql);
		cr_expect_eq(store_load_redirects(store, &redirects, &n, &err), -EUCLEAN, "%s",
			     rows[i]);
		cr_expect(strstr(err.text, "no redirect"), "%s", err.text);
		cr_expect_null(redirects);
		store_close(store);
	}
}

Test(store, refuses_another_programs_database_and_leaves_it_as_it_is)
{
	char before[4096], after[sizeof(before)];

	run_sql("PRAGMA application_id = 4711; CREATE TABLE recipes (name TEXT)");
	read_file(before, sizeof(before));
	expect_refusal(-EINVAL, "was written by another program");
	read_file(after, sizeof(after));
	cr_expect_eq(memcmp(before, after, sizeof(after)), 0, "it was written to");
}

Test(store, refuses_a_newer_version)
{
	store_close(open_store());
	run_sql("PRAGMA user_version = 5");
	expect_refusal(-EINVAL, "was written by a newer fwd");
	run_sql("PRAGMA user_version = 4");
	store_close(open_store());
}

Test(store, refuses_a_place_that_cannot_be)
{
	struct store *store = NULL;
	struct error err;
	char path[400];

	cr_expect_eq(store_open("/nonexistent/fwd", &store, &err), -ENOENT);
	temporary_write("file", "", 0);
	cr_expect_lt(store_open(temporary_path("file"), &store, &err), 0);
	cr_expect(strstr(err.text, "state directory"), "%s", err.text);
	snprintf(path, sizeof(path), "%s/%0300d", temporary, 0);
	cr_expect_eq(store_open(path, &store, &err), -ENAMETOOLONG);
	cr_expect_null(store);
}

Test(store, refuses_a_directory_in_the_place_of_the_file)
{
	cr_assert_eq(mkdir(temporary_path("rules.db"), 0700), 0);
	expect_refusal(-EIO, "cannot open");
}

/* ---- what is forced ---- */

static void expect_forced(struct store *store, const char *expected)
{
	_cleanup_(ruleset_freep) struct ruleset *forced = NULL;
	const struct prefix prefix = prefix_of(expected);

	cr_assert_eq(store_load_forced(store, &forced, NULL), 0);
	cr_expect_eq(ruleset_size(forced), 1);
	cr_expect(ruleset_find(forced, &prefix), "%s is not forced", expected);
}

static void set_forced(struct store *store, const char *text)
{
	_cleanup_(ruleset_freep) struct ruleset *forced = ruleset_new();
	const struct rule rule = {.prefix = prefix_of(text)};
	struct error err;

	cr_assert_eq(ruleset_put(forced, &rule), 0);
	cr_assert_eq(store_set_forced(store, forced, &err), 0, "%s", err.text);
}

Test(store, keeps_what_is_forced)
{
	struct store *store = open_store();

	begin(store);
	set_forced(store, "192.0.2.0/24");
	commit(store);
	begin(store);
	set_forced(store, "2001:db8::/32");
	store_rollback(store);
	expect_forced(store, "192.0.2.0/24");
	begin(store);
	set_forced(store, "2001:db8::/32");
	commit(store);
	store_close(store);
	store = open_store();
	expect_forced(store, "2001:db8::/32");
	store_close(store);
}
