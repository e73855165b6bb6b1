// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reading a configuration when memory runs out at each allocation in turn: it fails whole, and
 * LeakSanitizer finds nothing left. The linker's --wrap puts these functions before the real ones.
 */
#include "config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <search.h>
#include <string.h>

static long allocations_left = -1; /* below 0: without end */

static bool runs_out(void)
{
	if (allocations_left < 0)
		return false;
	if (!allocations_left)
		return true;
	allocations_left--;
	return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
char *__real_strdup(const char *text);
void *__real_tsearch(const void *key, void **root, int (*compare)(const void *, const void *));

void *__wrap_malloc(size_t size)
{
	return runs_out() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return runs_out() ? NULL : __real_calloc(n, size);
}

char *__wrap_strdup(const char *text)
{
	return runs_out() ? NULL : __real_strdup(text);
}

void *__wrap_tsearch(const void *key, void **root, int (*compare)(const void *, const void *))
{
	return runs_out() ? NULL : __real_tsearch(key, root, compare);
}

static const char valid[] = "daemon.socket = '/s'\n"
			    "daemon.group = 'g'\n"
			    "[[interface]]\n"
			    "name = 'e'\n"
			    "[blacklist]\n"
			    "addresses = ['10.0.0.1', \"\"\"10.0.0.2\"\"\"]\n"
			    "[[blacklist.feed]]\n"
			    "name = 'drop'\n"
			    "file = '/f'\n"
			    "[allowlist]\n"
			    "addresses = ['10.0.0.3']\n"
			    "[[redirect]]\n"
			    "protocol = 'tcp'\n"
			    "port = 1\n"
			    "target = 't'\n";

static const char invalid[] = "a = 1.5\n"
			      "b = [1\n"
			      "[a\n";

static const char wrong[] = "daemon.socket = 's'\n"
			    "a = 1.5\n"
			    "[[interface]]\n"
			    "[[redirect]]\n";

static int parse_with(const char *text, long allocations, struct config_errors *errors)
{
	struct config *config = NULL;
	int r;

	allocations_left = allocations;
	r = config_parse(text, strlen(text), &config, errors);
	allocations_left = -1;
	cr_expect_eq(!r, config != NULL);
	config_free(config);
	return r;
}

/* The number of allocations after which the result is `expected`; until then it is -ENOMEM. */
static long count_until(const char *text, int expected)
{
	for (long n = 0; n < 1000; n++) {
		struct config_errors errors = {0};
		int r = parse_with(text, n, &errors);

		config_errors_clear(&errors);
		if (r == expected)
			return n;
		cr_expect_eq(r, -ENOMEM, "after %ld allocations: %d", n, r);
	}
	return -1;
}

Test(config_memory, a_valid_file_fails_whole)
{
	cr_expect_gt(count_until(valid, 0), 30);
}

Test(config_memory, an_invalid_file_fails_either_way)
{
	cr_expect_gt(count_until(invalid, -EINVAL), 3);
	cr_expect_gt(count_until(wrong, -EINVAL), 5);
}
