// SPDX-License-Identifier: GPL-2.0-or-later
/* Lists of feeds that were replaced at run time: old or new, whole, whatever happens. */
#include "store_parts.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(store_feed, .init = temporary_make, .fini = temporary_remove);

static struct store_feed *feed_write(const char *name, size_t n, const char *const texts[])
{
	struct prefix prefixes[8];
	struct store_feed *feed = NULL;
	struct error err;

	for (size_t i = 0; i < n; i++)
		prefixes[i] = prefix_of(texts[i]);
	cr_assert_eq(store_feed_write(temporary, name, prefixes, n, &feed, &err), 0, "%s",
		     err.text);
	return feed;
}

static struct store_feed *feed_remove(const char *name)
{
	struct store_feed *feed = NULL;
	struct error err;

	cr_assert_eq(store_feed_remove(temporary, name, &feed, &err), 0, "%s", err.text);
	return feed;
}

static void feed_commit(struct store_feed *feed)
{
	struct error err;

	cr_assert_eq(store_feed_commit(&feed, 1, &err), 0, "%s", err.text);
	store_feed_drop(feed);
}

static void replace(const char *name, const char *text)
{
	feed_commit(feed_write(name, 1, &text));
}

/* `text` NULL: there is none. */
static void expect_list(const char *name, const char *text)
{
	struct address_list list = {0};
	struct prefix expected;
	struct error err = {""};
	s64 replaced_s = 0;
	int r = store_feed_load(temporary, name, &list, &replaced_s, &err);

	if (!text) {
		cr_expect_eq(r, -ENOENT, "%s: %d: %s", name, r, err.text);
		return;
	}
	expected = prefix_of(text);
	cr_assert_eq(r, 0, "%s: %s", name, err.text);
	cr_assert_eq(list.n, 1);
	cr_expect(prefix_equal(&list.prefixes[0], &expected), "%s", name);
	free(list.prefixes);
}

static size_t count_files(void)
{
	DIR *files = opendir(temporary_path("feeds"));
	size_t n = 0;

	for (struct dirent *entry; files && (entry = readdir(files));)
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	if (files)
		closedir(files);
	return n;
}

Test(store_feed, gives_back_what_was_committed)
{
	static const char *const texts[] = {"2001:db8::/32", "0.0.0.0/0", "192.0.2.1",
					    "::", "2001:db8::ffff:0:1"};
	struct address_list list;
	struct prefix expected;
	s64 replaced_s = 0;

	feed_commit(feed_write("drop", ARRAY_SIZE(texts), texts));
	cr_assert_eq(store_feed_load(temporary, "drop", &list, &replaced_s, NULL), 0);
	cr_assert_eq(list.n, ARRAY_SIZE(texts));
	for (size_t i = 0; i < list.n; i++) {
		expected = prefix_of(texts[i]);
		cr_expect(prefix_equal(&list.prefixes[i], &expected), "%s", texts[i]);
	}
	cr_expect(replaced_s >= wall_s() - 60 && replaced_s <= wall_s());
	free(list.prefixes);
}

Test(store_feed, keeps_an_empty_list_apart_from_none)
{
	struct address_list list;
	s64 replaced_s;

	expect_list("drop", NULL);
	feed_commit(feed_write("drop", 0, NULL));
	cr_assert_eq(store_feed_load(temporary, "drop", &list, &replaced_s, NULL), 0);
	cr_expect_eq(list.n, 0);
	free(list.prefixes);
	feed_commit(feed_remove("drop"));
	expect_list("drop", NULL);
}

Test(store_feed, removes_what_is_not_there)
{
	struct error err;

	feed_commit(feed_remove("drop"));
	cr_expect_eq(store_feed_commit(NULL, 0, &err), 0);
	replace("other", "192.0.2.1");
	feed_commit(feed_remove("drop"));
	expect_list("other", "192.0.2.1");
}

Test(store_feed, changes_nothing_without_a_commit)
{
	static const char *const text = "192.0.2.2";

	replace("a", "192.0.2.1");
	store_feed_drop(feed_write("a", 1, &text));
	store_feed_drop(feed_write("b", 1, &text));
	store_feed_drop(feed_remove("a"));
	store_feed_drop(NULL);
	expect_list("a", "192.0.2.1");
	expect_list("b", NULL);
	cr_expect_eq(count_files(), 1);
}

Test(store_feed, replaces_and_removes_several_at_once)
{
	static const char *const texts[] = {"192.0.2.1", "192.0.2.2"};
	struct store_feed *feeds[3];

	replace("a", "10.0.0.1");
	replace("b", "10.0.0.1");
	replace("d", "10.0.0.1");
	feeds[0] = feed_write("a", 1, &texts[0]);
	feeds[1] = feed_remove("b");
	feeds[2] = feed_write("c", 1, &texts[1]);
	expect_list("a", "10.0.0.1");
	cr_assert_eq(store_feed_commit(feeds, ARRAY_SIZE(feeds), NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(feeds); i++)
		store_feed_drop(feeds[i]);
	expect_list("a", "192.0.2.1");
	expect_list("b", NULL);
	expect_list("c", "192.0.2.2");
	expect_list("d", "10.0.0.1");
	cr_expect_eq(count_files(), 3);
}

Test(store_feed, takes_every_name_that_a_feed_may_have)
{
	static const char *const names[] = {".",
					    "..",
					    "...",
					    "-",
					    "a",
					    "a.list",
					    "a.new",
					    ".list",
					    ".new",
					    "A_-.9",
					    "12345678901234567890123456789012"};
	char text[PREFIX_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(text, sizeof(text), "192.0.2.%zu", i);
		replace(names[i], text);
	}
	store_close(open_store());
	cr_expect_eq(count_files(), ARRAY_SIZE(names));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(text, sizeof(text), "192.0.2.%zu", i);
		expect_list(names[i], text);
		feed_commit(feed_remove(names[i]));
		expect_list(names[i], NULL);
	}
	cr_expect_eq(count_files(), 0);
}

Test(store_feed, refuses_names_that_lead_elsewhere)
{
	static const char *const names[] = {"", "a/b", "/", "../rules.db",
					    "123456789012345678901234567890123"};
	struct store_feed *feed = NULL;
	struct address_list list;
	s64 replaced_s;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *name = names[i];

		cr_expect_eq(store_feed_write(temporary, name, NULL, 0, &feed, NULL), -EINVAL);
		cr_expect_eq(store_feed_remove(temporary, name, &feed, NULL), -EINVAL);
		cr_expect_eq(store_feed_load(temporary, name, &list, &replaced_s, NULL), -EINVAL);
	}
	cr_expect_null(feed);
	cr_expect_eq(count_files(), 0);
}

Test(store_feed, names_the_file_and_line_that_is_at_fault)
{
	struct address_list list;
	struct error err;
	s64 replaced_s;

	replace("drop", "192.0.2.1");
	temporary_write("feeds/drop.list", "192.0.2.1\n192.0.2.300\n", 22);
	cr_expect_eq(store_feed_load(temporary, "drop", &list, &replaced_s, &err), -EINVAL);
	cr_expect(strstr(err.text, "feeds/drop.list:2: "), "%s", err.text);
	cr_assert_eq(unlink(temporary_path("feeds/drop.list")), 0);
	cr_assert_eq(mkdir(temporary_path("feeds/drop.list"), 0700), 0);
	cr_expect_eq(store_feed_load(temporary, "drop", &list, &replaced_s, &err), -EINVAL);
	cr_expect(strstr(err.text, "a directory"), "%s", err.text);
}

/* Old until the commit, new from then on; what is left of the former goes at the next start. */
Test(store_feed, is_old_or_new_after_a_death)
{
	static const char *const text = "192.0.2.2";
	struct store_feed *feed;
	int status;
	pid_t pid;

	replace("a", "192.0.2.1");
	for (int commits = 0; commits < 2; commits++) {
		pid = fork();
		if (!pid) {
			feed = feed_write("a", 1, &text);
			if (commits)
				cr_assert_eq(store_feed_commit(&feed, 1, NULL), 0);
			kill(getpid(), SIGKILL);
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		cr_expect_eq(count_files(), commits ? 1 : 2);
		store_close(open_store());
		cr_expect_eq(count_files(), 1);
		expect_list("a", commits ? "192.0.2.2" : "192.0.2.1");
	}
}

Test(store_feed, keeps_the_old_list_when_the_disk_is_full)
{
	_cleanup_free_ struct prefix *prefixes = calloc(20000, sizeof(*prefixes));
	struct store_feed *feed = NULL;
	struct error err;

	if (geteuid() != 0)
		cr_skip_test("needs root: it mounts a small file system");
	if (unshare(CLONE_NEWNS) < 0)
		cr_skip_test("needs a mount namespace: %s", strerror(errno));
	cr_assert_eq(mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%s", strerror(errno));
	cr_assert_eq(mount("tmpfs", temporary, "tmpfs", 0, "size=64k"), 0, "%s", strerror(errno));
	for (size_t i = 0; i < 20000; i++)
		prefixes[i] = prefix_of("2001:db8::/32");
	replace("a", "192.0.2.1");
	cr_expect_eq(store_feed_write(temporary, "a", prefixes, 20000, &feed, &err), -EDQUOT, "%s",
		     err.text);
	cr_expect(strstr(err.text, "disk is full"), "%s", err.text);
	cr_expect_null(feed);
	cr_expect_eq(count_files(), 1);
	expect_list("a", "192.0.2.1");
}

/* One that could be written and not be read again would be lost at the next start. */
Test(store_feed, refuses_a_list_that_could_not_be_read_again)
{
	size_t n = (size_t)ADDRESS_LIST_MAX_ENTRIES + 1;
	struct prefix *prefixes = calloc(n, sizeof(*prefixes));
	struct store_feed *feed = NULL;
	struct error err;

	cr_assert(prefixes);
	for (size_t i = 0; i < n; i++)
		prefixes[i].family = FAMILY_IPV4;
	cr_expect_eq(store_feed_write(temporary, "a", prefixes, n, &feed, &err), -EFBIG, "%s",
		     err.text);
	cr_expect_eq(count_files(), 0);
	cr_expect_null(feed);
	free(prefixes);
}
