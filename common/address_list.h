/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lists of addresses as files hold them: an address or prefix a line, blank lines, and comments
 * that start with '#' or ';' at the start of a line or after white space. Lines may end in CR LF.
 */
#pragma once

#include "error.h"
#include "prefix.h"

/* The largest list; 16 million lines of IPv4 addresses fit, or 6 million of the longest prefix. */
#define ADDRESS_LIST_MAX_BYTES (256u << 20)

/* The most entries, duplicates and all: short lines must not become gigabytes of prefixes. */
#define ADDRESS_LIST_MAX_ENTRIES 16000000u

struct address_list {
	struct prefix *prefixes; /* in the order of the file, duplicates and all */
	size_t n;
};

/*
 * Parses `size` bytes, all or nothing; the error names the line: `line 17: "10.0.0.300" is not
 * ...`. Binary data (a NUL byte) is refused. The caller frees `prefixes` with free().
 */
int address_list_parse(const char *text, size_t size, struct address_list *ret, struct error *err);

/*
 * Reads and parses a regular file of at most ADDRESS_LIST_MAX_BYTES; the error names the file, and
 * the line where one is at fault: `drop.txt:17: ...`.
 */
int address_list_load(const char *path, struct address_list *ret, struct error *err);

/* The same of an open file; `name` is for errors, NULL: they say "line 17: ...". */
int address_list_read(int fd, const char *name, struct address_list *ret, struct error *err);
