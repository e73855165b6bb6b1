/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parser's state, and what its files call of each other: toml.c has statements, keys and
 * tables, toml_value.c values, toml_string.c strings, toml_text.c the check of the bytes.
 *
 * Functions stop at the first error and return -EINVAL after adding it, or -ENOMEM; toml_parse()
 * goes on with another line.
 *
 * Invariant: toml_check_text() has passed the text, so it is UTF-8 without control characters, and
 * '\r' stands before '\n' only.
 */
#pragma once

#include "arena.h"
#include "toml.h"

#include <errno.h>

struct toml {
	struct arena arena; /* holds all else */
	struct toml_node *root;
};

struct toml_parser {
	const char *p, *end;
	const char *line_start;
	int line;
	struct toml *toml;
	struct config_errors *errors;
	void *index;		   /* tsearch(3) tree of the keys of all tables */
	struct toml_node *section; /* the table that keys go to */
	size_t n_values;
};

struct toml_key {
	const char *text;
	u32 size;
	struct toml_position at;
};

struct toml_position toml_here(const struct toml_parser *p);

/* Adds an error and returns -EINVAL. */
int toml_fail(struct toml_parser *p, struct toml_position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The next character in words, for errors: "the end of the line", "\"x\"". */
const char *toml_found(const struct toml_parser *p, char quoted[static QUOTED_MAX]);

/* One byte on, counting lines. */
void toml_advance(struct toml_parser *p);

bool toml_at(const struct toml_parser *p, char c);
bool toml_at_line_end(const struct toml_parser *p); /* or a comment, or the end of the file */
bool toml_accept(struct toml_parser *p, char c);
void toml_skip_blanks(struct toml_parser *p);
void toml_skip_comment(struct toml_parser *p);

/* Makes an empty table, or an element of an array where `key` is NULL, and appends it to `parent`.
 */
int toml_add(struct toml_parser *p, struct toml_node *parent, const struct toml_key *key,
	     struct toml_node **ret);

/* KEY = VALUE, where KEY may be dotted. */
int toml_parse_assignment(struct toml_parser *p, struct toml_node *table);

/* Fills in the type and the value of a node that toml_add() made. */
int toml_parse_value(struct toml_parser *p, struct toml_node *node);

/* From the opening quote on. */
int toml_parse_string(struct toml_parser *p, bool multiline_allowed, const char **ret_text,
		      u32 *ret_size);

/* Adds an error for each line with a byte that has no place in TOML; stops at binary data. */
int toml_check_text(struct toml_parser *p);
