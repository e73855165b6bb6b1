// SPDX-License-Identifier: GPL-2.0-or-later
/* The text of a configuration to go back to: old or new, whole, or not there. */
#include "store_parts.h"

#include <errno.h>
#include <sys/stat.h>

TestSuite(store_unconfirmed, .init = temporary_make, .fini = temporary_remove);

static struct store_unconfirmed *text_write(const char *text)
{
	struct store_unconfirmed *unconfirmed = NULL;
	struct error err;

	cr_assert_eq(store_unconfirmed_write(temporary, text, strlen(text), &unconfirmed, &err), 0,
		     "%s", err.text);
	return unconfirmed;
}

static void text_commit(const char *text)
{
	struct store_unconfirmed *unconfirmed = text_write(text);
	struct error err;

	cr_assert_eq(store_unconfirmed_commit(unconfirmed, &err), 0, "%s", err.text);
	store_unconfirmed_drop(unconfirmed);
}

/* `text` NULL: there is none. */
static void expect_text(const char *text)
{
	char path[STORE_FILE_MAX], found[64] = "";
	FILE *file;

	cr_assert_eq(store_unconfirmed_path(temporary, path, NULL), 0);
	file = fopen(path, "re");
	cr_assert_eq(!file, !text);
	if (!file)
		return;
	cr_expect_eq(fread(found, 1, sizeof(found) - 1, file), strlen(text));
	cr_expect_str_eq(found, text);
	fclose(file);
}

Test(store_unconfirmed, is_old_or_new_and_gone_once_it_is_removed)
{
	struct store_unconfirmed *dropped;

	cr_expect_eq(store_unconfirmed_remove(temporary, NULL), 0, "where it never was");
	dropped = text_write("a = 1\n");
	expect_text(NULL);
	store_unconfirmed_drop(dropped);
	text_commit("a = 1\n");
	expect_text("a = 1\n");
	dropped = text_write("longer = 2\n");
	expect_text("a = 1\n");
	store_unconfirmed_drop(dropped);
	expect_text("a = 1\n");
	text_commit("");
	expect_text("");
	cr_expect_eq(store_unconfirmed_remove(temporary, NULL), 0);
	expect_text(NULL);
	cr_expect_eq(store_unconfirmed_remove(temporary, NULL), 0);
}

Test(store_unconfirmed, what_a_death_left_behind_is_written_over)
{
	cr_assert_eq(mkdir(temporary_path("unconfirmed"), 0700), 0);
	temporary_write("unconfirmed/fwd.toml.new", "something longer\n", 17);
	text_commit("a = 1\n");
	expect_text("a = 1\n");
	cr_expect_eq(access(temporary_path("unconfirmed/fwd.toml.new"), F_OK), -1);
}

Test(store_unconfirmed, errors_name_the_path)
{
	struct store_unconfirmed *unconfirmed = NULL;
	char dir[STORE_FILE_MAX], path[STORE_FILE_MAX];
	struct error err;

	temporary_write("unconfirmed", "a file", 6);
	cr_expect_eq(store_unconfirmed_write(temporary, "", 0, &unconfirmed, &err), -ENOTDIR);
	cr_expect(strstr(err.text, "/unconfirmed/fwd.toml.new: "), "%s", err.text);
	cr_expect_eq(store_unconfirmed_remove(temporary, &err), -ENOTDIR);
	memset(dir, 'x', sizeof(dir));
	dir[sizeof(dir) - strlen("/unconfirmed/fwd.toml")] = '\0';
	cr_expect_eq(store_unconfirmed_path(dir, path, &err), -ENAMETOOLONG);
	dir[sizeof(dir) - strlen("/unconfirmed/fwd.toml") - 1] = '\0';
	cr_expect_eq(store_unconfirmed_path(dir, path, &err), 0, "%s", err.text);
	cr_expect_null(unconfirmed);
}
