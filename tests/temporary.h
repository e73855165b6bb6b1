/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A directory for one test, and files in it. */
#pragma once

#include <criterion/criterion.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char temporary[] = "/tmp/fwd-test-XXXXXX";

static inline void temporary_make(void)
{
	cr_assert(mkdtemp(temporary));
}

static inline int temporary_remove_one(const char *path, const struct stat *st, int type,
				       struct FTW *ftw)
{
	return remove(path);
}

static inline void temporary_remove(void)
{
	nftw(temporary, temporary_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* The path of a file in it, valid until the next call. */
static inline const char *temporary_path(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", temporary, name);
	return path;
}

static inline void temporary_write(const char *name, const char *text, size_t size)
{
	FILE *file = fopen(temporary_path(name), "w");

	cr_assert(file);
	cr_assert_eq(fwrite(text, 1, size, file), size);
	cr_assert_eq(fclose(file), 0);
}
