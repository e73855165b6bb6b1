// SPDX-License-Identifier: GPL-2.0-or-later
/* Values: arrays and inline tables, and which of the other readers takes what. */
#include "toml_parser.h"

#include <string.h>

/* White space, line ends and comments, as arrays may have between elements. */
static void skip_lines(struct toml_parser *p)
{
	for (;;) {
		toml_skip_blanks(p);
		toml_skip_comment(p);
		if (!toml_at(p, '\r') && !toml_at(p, '\n'))
			return;
		toml_advance(p);
	}
}

static int parse_array(struct toml_parser *p, struct toml_node *array)
{
	struct toml_node *element;
	char quoted[QUOTED_MAX];
	int r;

	array->type = TOML_ARRAY;
	p->p++;
	do {
		skip_lines(p);
		if (toml_accept(p, ']'))
			return 0;
		if (p->p == p->end)
			break;
		r = toml_add(p, array, NULL, &element);
		if (!r)
			r = toml_parse_value(p, element);
		if (r < 0)
			return r;
		skip_lines(p);
		if (toml_accept(p, ']'))
			return 0;
	} while (toml_accept(p, ','));
	return toml_fail(p, toml_here(p),
			 "expected ',' or ']' in the array that starts at line %d, found %s",
			 array->at.line, toml_found(p, quoted));
}

static int parse_inline_table(struct toml_parser *p, struct toml_node *table)
{
	char quoted[QUOTED_MAX];
	int r;

	table->type = TOML_TABLE;
	p->p++;
	toml_skip_blanks(p);
	if (toml_accept(p, '}'))
		return 0;
	for (;;) {
		toml_skip_blanks(p);
		r = toml_parse_assignment(p, table);
		if (r < 0)
			return r;
		toml_skip_blanks(p);
		if (toml_accept(p, '}'))
			return 0;
		if (!toml_accept(p, ','))
			return toml_fail(p, toml_here(p),
					 "expected ',' or '}' in the inline table, found %s%s",
					 toml_found(p, quoted),
					 toml_at_line_end(p) ? " (it must stand on one line)" : "");
	}
}

static bool ends_word(char c)
{
	return c && strchr(" \t\r\n,]}#", c);
}

static size_t word_size(const struct toml_parser *p, size_t from)
{
	size_t left = (size_t)(p->end - p->p);

	while (from < left && !ends_word(p->p[from]))
		from++;
	return from;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A date and a time may have a space between them: "1979-05-27 07:32:00". */
static bool time_follows(const struct toml_parser *p, size_t size)
{
	return size == 10 && p->p[4] == '-' && p->p[7] == '-' && p->end - p->p > 11 &&
	       p->p[10] == ' ' && is_digit(p->p[11]);
}

static int parse_scalar(struct toml_parser *p, struct toml_node *node)
{
	size_t size = word_size(p, 0);
	char quoted[QUOTED_MAX];
	struct error err;
	int r;

	if (!size)
		return toml_fail(p, toml_here(p), "expected a value, found %s",
				 toml_found(p, quoted));
	if (time_follows(p, size))
		size = word_size(p, size + 1);
	r = toml_scalar_parse(p->p, size, node, &err);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return toml_fail(p, toml_here(p), "%s", err.text);
	p->p += size;
	return 0;
}

int toml_parse_value(struct toml_parser *p, struct toml_node *node)
{
	int r;

	node->at = toml_here(p);
	node->origin = TOML_BY_VALUE;
	switch (p->p < p->end ? *p->p : '\0') {
	case '"':
	case '\'':
		r = toml_parse_string(p, true, &node->string.text, &node->string.size);
		if (!r)
			node->type = TOML_STRING;
		return r;
	case '[':
		return parse_array(p, node);
	case '{':
		return parse_inline_table(p, node);
	default:
		return parse_scalar(p, node);
	}
}
