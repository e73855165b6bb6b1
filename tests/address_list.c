// SPDX-License-Identifier: GPL-2.0-or-later
#include "address_list.h"

#include "cleanup.h"
#include "random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Parses, and compares with the canonical texts, a space between them. */
static void yields(const char *text, const char *expected)
{
	struct address_list list;
	char all[512] = "";
	struct error err;

	cr_assert_eq(address_list_parse(text, strlen(text), &list, &err), 0, "%s", err.text);
	for (size_t i = 0; i < list.n; i++) {
		char one[PREFIX_TEXT_MAX];

		prefix_format(&list.prefixes[i], one);
		sprintf(all + strlen(all), "%s%s", i ? " " : "", one);
	}
	cr_expect_str_eq(all, expected);
	free(list.prefixes);
}

static void refused(const char *text, size_t size, const char *expected)
{
	struct address_list list = {.n = 77};
	struct error err;

	cr_expect_eq(address_list_parse(text, size, &list, &err), -EINVAL);
	cr_expect_str_eq(err.text, expected);
	cr_expect(list.n == 77 && !list.prefixes, "the output was touched");
}

Test(address_list, skips_blanks_and_comments)
{
	yields("", "");
	yields("\n\n", "");
	yields("# nothing\n; nothing\n   \t\n", "");
	yields("10.0.0.1\n", "10.0.0.1");
	yields("10.0.0.1", "10.0.0.1");
	yields(" 10.0.0.0/8 \t# Spamhaus\n\t2001:db8::/32 ; SBL1\n", "10.0.0.0/8 2001:db8::/32");
	yields("10.0.0.1\r\n\r\n10.0.0.2\r\n", "10.0.0.1 10.0.0.2");
	yields("10.0.0.1 #", "10.0.0.1");
}

Test(address_list, keeps_order_and_duplicates)
{
	yields("10.0.0.2\n10.0.0.1\n10.0.0.2/32\n", "10.0.0.2 10.0.0.1 10.0.0.2");
}

Test(address_list, a_comment_stands_behind_white_space)
{
	refused("10.0.0.1#x", 10,
		"line 1: \"10.0.0.1#x\" is not an IPv4 or IPv6 address or prefix, such as "
		"192.0.2.0/24 or 2001:db8::/32");
}

Test(address_list, names_the_line_of_an_error)
{
	refused("10.0.0.1\n\n# x\n10.0.0.5/24\nworse\n", 36,
		"line 4: 10.0.0.5/24: host bits are set; did you mean 10.0.0.0/24?");
}

Test(address_list, refuses_binary_data)
{
	refused("10.0.0.1\n10.0.0.2\0\n", 19, "line 2: binary data, not a list of addresses");
	refused("\0", 1, "line 1: binary data, not a list of addresses");
	refused("#\0\n", 3, "line 1: binary data, not a list of addresses");
}

static int file_of(const char *text)
{
	int fd = memfd_create("list", MFD_CLOEXEC);

	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	return fd;
}

Test(address_list, names_the_file_and_the_line)
{
	_cleanup_close_ int fd = file_of("10.0.0.1\n10.0.0.300\n");
	struct address_list list;
	struct error err;

	cr_expect_eq(address_list_read(fd, "drop.txt", &list, &err), -EINVAL);
	cr_expect(!strncmp(err.text, "drop.txt:2: \"10.0.0.300\" is not", 31), "%s", err.text);
}

Test(address_list, refuses_what_is_not_a_regular_file)
{
	char directory[] = "/tmp/address_list-XXXXXX", fifo[64];
	struct address_list list;
	struct error err;

	cr_expect_eq(address_list_load("/nonexistent", &list, &err), -ENOENT);
	cr_expect_eq(address_list_load("/", &list, &err), -EINVAL);
	cr_expect_str_eq(err.text, "cannot read /: it is a directory, not a regular file");
	cr_expect_eq(address_list_load("/dev/zero", &list, &err), -EINVAL);
	cr_assert(mkdtemp(directory));
	snprintf(fifo, sizeof(fifo), "%s/fifo", directory);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	cr_expect_eq(address_list_load(fifo, &list, &err), -EINVAL);
	unlink(fifo);
	rmdir(directory);
}

Test(address_list, a_file_of_the_largest_size_is_read_and_one_byte_more_is_not)
{
	_cleanup_close_ int fd = memfd_create("list", MFD_CLOEXEC);
	struct address_list list;
	struct error err;

	/* A hole reads as NUL bytes, so the file within the bound is refused for them. */
	cr_assert_eq(ftruncate(fd, ADDRESS_LIST_MAX_BYTES + 1L), 0);
	cr_expect_eq(address_list_read(fd, "x", &list, &err), -EFBIG);
	cr_expect_str_eq(err.text,
			 "x is too large: 268435457 bytes, the largest list is 268435456");
	cr_assert_eq(ftruncate(fd, ADDRESS_LIST_MAX_BYTES), 0);
	cr_expect_eq(address_list_read(fd, "x", &list, &err), -EINVAL);
	cr_expect_str_eq(err.text, "x:1: binary data, not a list of addresses");
}

Test(address_list, takes_as_many_entries_as_its_bound_and_not_one_more)
{
	size_t size = 3 * (ADDRESS_LIST_MAX_ENTRIES + 1UL);
	_cleanup_free_ char *text = malloc(size);
	struct address_list list;
	struct error err;

	for (size_t i = 0; i < size; i += 3)
		memcpy(text + i, "::\n", 3);
	cr_assert_eq(address_list_parse(text, size - 3, &list, &err), 0);
	cr_expect_eq(list.n, ADDRESS_LIST_MAX_ENTRIES);
	free(list.prefixes);
	cr_expect_eq(address_list_parse(text, size, &list, &err), -EFBIG);
	cr_expect_str_eq(err.text,
			 "line 16000001: more than 16000000 addresses, the most a list may have");
}

/* ---- the quick look at lines, against the strict parser ---- */

/* The list by its definition, line after line; the line that is bad, or 0. */
static size_t read_strictly(const char *text, size_t size, struct prefix *prefixes, size_t *ret_n,
			    struct error *err)
{
	const char *end = text + size;
	size_t line = 0;

	for (*ret_n = 0; text < end; line++) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		const char *next = stop ? stop + 1 : end;

		stop = stop ? stop : end;
		if (memchr(text, '\0', (size_t)(stop - text))) {
			error_set(err, 0, "binary data, not a list of addresses");
			return line + 1;
		}
		while (text < stop && strchr(" \t\r", *text))
			text++;
		for (const char *p = text; p < stop; p++)
			if (strchr("#;", *p) && (p == text || strchr(" \t\r", p[-1])))
				stop = p;
		while (stop > text && strchr(" \t\r", stop[-1]))
			stop--;
		if (stop > text &&
		    prefix_parse(text, (size_t)(stop - text), &prefixes[(*ret_n)++], err) < 0)
			return line + 1;
		text = next;
	}
	return 0;
}

static size_t random_list(struct random *random, char text[static 4096])
{
	static const char *const parts[] = {
		"10.0.0.1",
		"192.0.2.0/24",
		"2001:db8::1",
		"2001:db8::/32",
		"::ffff:1.2.3.4",
		"255.255.255.255/32",
		"0.0.0.0/0",
		"64:ff9b::1.2.3.4",
		"10.0.0.5/24",
		"1:2:3:4:5:6:7:8/128",
		"1.2.3.4.5",
		"300.1.1.1",
		" # a comment",
		"; another",
		"#\xff",
		"\r",
		" ",
		"\t",
		"10.0.0.1#x",
		"::/0 ;",
	};
	size_t n = 0;

	for (u64 lines = random_below(random, 12); lines; lines--) {
		/* Good in front, so that many lists get far. */
		for (u64 i = 1 + random_below(random, 2); i; i--) {
			size_t part = random_below(random, i == 1 ? 8 : 1 + ARRAY_SIZE(parts));

			if (part < ARRAY_SIZE(parts) && part != 4)
				n += (size_t)sprintf(text + n, "%s", parts[part]);
			if (random_below(random, 2))
				n += (size_t)sprintf(text + n, "%s",
						     parts[12 + random_below(random, 6)]);
		}
		if (!random_below(random, 40))
			text[n++] = '\0';
		n += (size_t)sprintf(text + n, "%s", random_below(random, 4) ? "\n" : "\r\n");
	}
	return n - (n && !random_below(random, 4)); /* a last line without an end */
}

Test(address_list, is_read_quickly_as_it_is_read_strictly)
{
	struct random random = random_start();
	size_t good = 0, bad = 0;

	for (int i = 0; i < 100000; i++) {
		char text[4096], expected[ERROR_TEXT_MAX + 32];
		size_t size = random_list(&random, text), line, n;
		struct address_list list = {0};
		struct prefix prefixes[64];
		struct error strict, quick;
		int r = address_list_parse(text, size, &list, &quick);

		line = read_strictly(text, size, prefixes, &n, &strict);
		random_holds(&random, (r < 0) == (line > 0));
		if (line) {
			snprintf(expected, sizeof(expected), "line %zu: %s", line, strict.text);
			random_holds(&random, !strcmp(quick.text, expected));
		} else {
			random_holds(&random, list.n == n);
			random_holds(&random,
				     !n || !memcmp(list.prefixes, prefixes, n * sizeof(*prefixes)));
		}
		good += !line;
		bad += line > 0;
		free(list.prefixes);
	}
	cr_expect(good > 5000 && bad > 5000, "%zu good, %zu bad", good, bad);
}
