// SPDX-License-Identifier: GPL-2.0-or-later
#include "toml.h"

#include "toml_parser.h"

#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const type_names[] = {
	[TOML_STRING] = "a string",
	[TOML_INTEGER] = "an integer",
	[TOML_FLOAT] = "a float",
	[TOML_BOOLEAN] = "a boolean",
	[TOML_OFFSET_DATETIME] = "a date and time",
	[TOML_LOCAL_DATETIME] = "a date and time",
	[TOML_LOCAL_DATE] = "a date",
	[TOML_LOCAL_TIME] = "a time",
	[TOML_ARRAY] = "an array",
	[TOML_TABLE] = "a table",
};
_Static_assert(ARRAY_SIZE(type_names) == TOML_TYPE_COUNT, "a name for each type");

const char *toml_type_name(enum toml_type type)
{
	return type_names[type];
}

struct toml_position toml_here(const struct toml_parser *p)
{
	return (struct toml_position){p->line, (int)(p->p - p->line_start) + 1};
}

int toml_fail(struct toml_parser *p, struct toml_position at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	config_errors_add_in(p->errors, at.line, at.column, "", format, args);
	va_end(args);
	return -EINVAL;
}

const char *toml_found(const struct toml_parser *p, char quoted[static QUOTED_MAX])
{
	size_t size = 1;

	if (p->p == p->end)
		return "the end of the file";
	if (*p->p == '\n' || *p->p == '\r')
		return "the end of the line";
	if (*p->p == '"')
		return "'\"'";
	while (p->p + size < p->end && ((unsigned char)p->p[size] & 0xc0) == 0x80)
		size++;
	return text_quote(p->p, size, quoted);
}

void toml_advance(struct toml_parser *p)
{
	if (*p->p++ == '\n') {
		p->line++;
		p->line_start = p->p;
	}
}

bool toml_at(const struct toml_parser *p, char c)
{
	return p->p < p->end && *p->p == c;
}

bool toml_at_line_end(const struct toml_parser *p)
{
	return p->p == p->end || *p->p == '\n' || *p->p == '\r' || *p->p == '#';
}

bool toml_accept(struct toml_parser *p, char c)
{
	if (!toml_at(p, c))
		return false;
	toml_advance(p);
	return true;
}

void toml_skip_blanks(struct toml_parser *p)
{
	while (toml_at(p, ' ') || toml_at(p, '\t'))
		p->p++;
}

void toml_skip_comment(struct toml_parser *p)
{
	if (toml_at(p, '#'))
		while (p->p < p->end && *p->p != '\n' && *p->p != '\r')
			p->p++;
}

/* Order of the index: by table, then by key. */
static int compare_keys(const void *a, const void *b)
{
	const struct toml_node *x = a, *y = b;

	if (x->parent != y->parent)
		return (uintptr_t)x->parent < (uintptr_t)y->parent ? -1 : 1;
	if (x->key_size != y->key_size)
		return x->key_size < y->key_size ? -1 : 1;
	return memcmp(x->key, y->key, x->key_size);
}

static struct toml_node *find(struct toml_parser *p, const struct toml_node *table,
			      const struct toml_key *key)
{
	struct toml_node probe = {.parent = table, .key = key->text, .key_size = key->size};
	struct toml_node **found = tfind(&probe, &p->index, compare_keys);

	return found ? *found : NULL;
}

int toml_add(struct toml_parser *p, struct toml_node *parent, const struct toml_key *key,
	     struct toml_node **ret)
{
	struct toml_position at = key ? key->at : toml_here(p);
	struct toml_node *node;

	if (parent->depth == TOML_DEPTH_MAX) {
		toml_fail(p, at, "nested too deep: at most %d levels", TOML_DEPTH_MAX);
		return -EINVAL;
	}
	if (p->n_values == TOML_VALUES_MAX) {
		toml_fail(p, at, "too many values: at most %u", TOML_VALUES_MAX);
		return -EINVAL;
	}
	node = arena_alloc(&p->toml->arena, sizeof(*node));
	if (!node)
		return -ENOMEM;
	*node = (struct toml_node){.parent = parent, .at = at, .type = TOML_TABLE};
	node->depth = (u8)(parent->depth + 1);
	if (key) {
		node->key = key->text;
		node->key_size = key->size;
		node->key_at = key->at;
		if (!tsearch(node, &p->index, compare_keys))
			return -ENOMEM;
	}
	if (parent->children.last)
		parent->children.last->next = node;
	else
		parent->children.first = node;
	parent->children.last = node;
	parent->children.n++;
	p->n_values++;
	*ret = node;
	return 0;
}

static bool is_bare(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static bool is_ascii(const struct toml_parser *p)
{
	return p->p == p->end || (unsigned char)*p->p < 0x80;
}

/* One part of a key, and the blanks behind it. */
static int parse_key_part(struct toml_parser *p, struct toml_key *ret)
{
	char quoted[QUOTED_MAX], *copy;
	const char *start = p->p;
	int r = 0;

	ret->at = toml_here(p);
	if (toml_at(p, '"') || toml_at(p, '\'')) {
		r = toml_parse_string(p, false, &ret->text, &ret->size);
	} else {
		while (p->p < p->end && is_bare(*p->p))
			p->p++;
		if (p->p == start)
			return toml_fail(p, ret->at, "expected a key, found %s%s",
					 toml_found(p, quoted),
					 is_ascii(p) ? ""
						     : "; outside of A-Z a-z 0-9 _ - a key needs "
						       "quotes");
		ret->size = (u32)(p->p - start);
		copy = arena_alloc(&p->toml->arena, ret->size + 1);
		if (!copy)
			return -ENOMEM;
		ret->text = memcpy(copy, start, ret->size);
	}
	toml_skip_blanks(p);
	return r;
}

static int fail_taken(struct toml_parser *p, const struct toml_key *key,
		      const struct toml_node *old, const char *why)
{
	char quoted[QUOTED_MAX];

	return toml_fail(p, key->at, "%s is %s already, at line %d%s",
			 text_quote(key->text, key->size, quoted), toml_type_name(old->type),
			 old->key_at.line, why);
}

/* Into a table on the way of a dotted key, made here if it is not there. */
static int enter_dotted(struct toml_parser *p, const struct toml_key *key, struct toml_node **table)
{
	struct toml_node *node = find(p, *table, key);
	int r;

	if (!node) {
		r = toml_add(p, *table, key, &node);
		if (r < 0)
			return r;
		node->origin = TOML_BY_DOT;
	} else if (node->type != TOML_TABLE) {
		return fail_taken(p, key, node, ", and cannot have keys");
	} else if (node->origin != TOML_BY_DOT) {
		return fail_taken(p, key, node, ", and cannot be extended by a dotted key");
	}
	*table = node;
	return 0;
}

int toml_parse_assignment(struct toml_parser *p, struct toml_node *table)
{
	const struct toml_node *old;
	char quoted[QUOTED_MAX];
	struct toml_node *node;
	struct toml_key key;
	int r;

	for (;;) {
		r = parse_key_part(p, &key);
		if (r < 0)
			return r;
		if (!toml_accept(p, '.'))
			break;
		toml_skip_blanks(p);
		r = enter_dotted(p, &key, &table);
		if (r < 0)
			return r;
	}
	if (!toml_accept(p, '='))
		return toml_fail(p, toml_here(p), "expected '=' after the key, found %s",
				 toml_found(p, quoted));
	toml_skip_blanks(p);
	old = find(p, table, &key);
	if (old)
		return toml_fail(p, key.at, "%s is set already, at line %d",
				 text_quote(key.text, key.size, quoted), old->key_at.line);
	r = toml_add(p, table, &key, &node);
	if (r < 0)
		return r;
	return toml_parse_value(p, node);
}

/* Into a table on the way of a header: of an array of tables, its last one. */
static int enter_parent(struct toml_parser *p, const struct toml_key *key, struct toml_node **table)
{
	struct toml_node *node = find(p, *table, key);
	int r;

	if (!node) {
		r = toml_add(p, *table, key, &node);
		if (r < 0)
			return r;
		node->origin = TOML_BY_PARENT;
	} else if (node->type != TOML_TABLE && node->type != TOML_ARRAY) {
		return fail_taken(p, key, node, ", and cannot have tables");
	} else if (node->origin == TOML_BY_VALUE) {
		return fail_taken(p, key, node, ", and complete");
	}
	*table = node->type == TOML_ARRAY ? node->children.last : node;
	return 0;
}

/* [table] */
static int define_table(struct toml_parser *p, struct toml_node *parent, const struct toml_key *key,
			struct toml_position at)
{
	struct toml_node *node = find(p, parent, key);
	int r;

	if (!node) {
		r = toml_add(p, parent, key, &node);
		if (r < 0)
			return r;
	} else if (node->type == TOML_ARRAY && node->origin == TOML_BY_HEADER) {
		return fail_taken(p, key, node, "; one more element takes [[ ]]");
	} else if (node->type != TOML_TABLE || node->origin != TOML_BY_PARENT) {
		return fail_taken(p, key, node, "");
	}
	node->key_at = key->at;
	node->at = at;
	node->origin = TOML_BY_HEADER;
	p->section = node;
	return 0;
}

/* [[table]] */
static int append_table(struct toml_parser *p, struct toml_node *parent, const struct toml_key *key,
			struct toml_position at)
{
	struct toml_node *array = find(p, parent, key), *node;
	int r;

	if (!array) {
		r = toml_add(p, parent, key, &array);
		if (r < 0)
			return r;
		array->type = TOML_ARRAY;
		array->at = at;
	} else if (array->type != TOML_ARRAY || array->origin != TOML_BY_HEADER) {
		return fail_taken(p, key, array, "");
	}
	r = toml_add(p, array, NULL, &node);
	if (r < 0)
		return r;
	/* Not before it has an element: enter_parent() relies on that. */
	array->origin = TOML_BY_HEADER;
	node->at = at;
	node->origin = TOML_BY_HEADER;
	p->section = node;
	return 0;
}

static int parse_header(struct toml_parser *p)
{
	struct toml_node *table = p->toml->root;
	struct toml_position at = toml_here(p);
	char quoted[QUOTED_MAX];
	struct toml_key key;
	bool is_array;
	int r;

	toml_accept(p, '[');
	is_array = toml_accept(p, '[');
	for (;;) {
		toml_skip_blanks(p);
		r = parse_key_part(p, &key);
		if (r < 0)
			return r;
		if (!toml_accept(p, '.'))
			break;
		r = enter_parent(p, &key, &table);
		if (r < 0)
			return r;
	}
	if (!toml_accept(p, ']') || (is_array && !toml_accept(p, ']')))
		return toml_fail(p, toml_here(p), "expected %s after the table's name, found %s",
				 is_array ? "']]'" : "']'", toml_found(p, quoted));
	return (is_array ? append_table : define_table)(p, table, &key, at);
}

/* A table of its own, so that the keys below a bad header are checked and go nowhere. */
static int start_nameless_section(struct toml_parser *p)
{
	p->section = arena_alloc(&p->toml->arena, sizeof(*p->section));
	if (!p->section)
		return -ENOMEM;
	*p->section = (struct toml_node){.type = TOML_TABLE, .origin = TOML_BY_HEADER};
	return 0;
}

/* One line, or more where the value goes on. */
static int parse_statement(struct toml_parser *p)
{
	char quoted[QUOTED_MAX];
	int r = 0;

	toml_skip_blanks(p);
	if (toml_at(p, '[')) {
		r = parse_header(p);
		if (r == -EINVAL && start_nameless_section(p) < 0)
			return -ENOMEM;
	} else if (!toml_at_line_end(p)) {
		r = toml_parse_assignment(p, p->section);
	}
	if (r < 0)
		return r;
	toml_skip_blanks(p);
	if (!toml_at_line_end(p))
		return toml_fail(p, toml_here(p), "expected the end of the line, found %s",
				 toml_found(p, quoted));
	toml_skip_comment(p);
	toml_accept(p, '\r');
	toml_accept(p, '\n');
	return 0;
}

/* "key =" or "[header]" in bare keys: not what the middle of an array or a string looks like. */
static bool looks_like_statement(const struct toml_parser *p)
{
	const char *q = p->p, *end = p->end;
	bool header;

	while (q < end && (*q == ' ' || *q == '\t'))
		q++;
	header = q < end && *q == '[';
	while (q < end && *q == '[')
		q++;
	if (q == end || !is_bare(*q) || (header && *q >= '0' && *q <= '9'))
		return false;
	while (q < end && (is_bare(*q) || *q == '.'))
		q++;
	while (q < end && (*q == ' ' || *q == '\t'))
		q++;
	return q < end && *q == (header ? ']' : '=');
}

/* After an error: on to a line that is no part of the same mistake. */
static void resume(struct toml_parser *p)
{
	do {
		while (p->p < p->end && *p->p != '\n')
			p->p++;
		toml_accept(p, '\n');
	} while (p->p < p->end && !looks_like_statement(p));
}

static int parse_statements(struct toml_parser *p)
{
	int r, result = 0;

	while (p->p < p->end) {
		r = parse_statement(p);
		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			result = r;
			resume(p);
		}
	}
	return result;
}

static void keep(void *node)
{
}

static int parse(struct toml_parser *p)
{
	static const char byte_order_mark[] = {'\xef', '\xbb', '\xbf'};
	struct toml_parser start;
	int r;

	r = start_nameless_section(p);
	if (r < 0)
		return r;
	p->toml->root = p->section;
	p->toml->root->at = (struct toml_position){1, 1};
	if ((size_t)(p->end - p->p) >= sizeof(byte_order_mark) &&
	    !memcmp(p->p, byte_order_mark, sizeof(byte_order_mark)))
		p->line_start = p->p += sizeof(byte_order_mark);
	start = *p;
	r = toml_check_text(p);
	if (r < 0)
		return r;
	*p = start;
	r = parse_statements(p);
	tdestroy(p->index, keep);
	return r;
}

static int parse_text(const char *text, size_t size, bool salvage, struct toml **ret,
		      struct config_errors *errors)
{
	_cleanup_(toml_freep) struct toml *toml = calloc(1, sizeof(*toml));
	struct toml_parser p = {
		.p = text,
		.end = text + size,
		.line_start = text,
		.line = 1,
		.toml = toml,
		.errors = errors,
	};
	int r;

	if (!toml)
		return -ENOMEM;
	r = parse(&p);
	if (r < 0 && (r == -ENOMEM || !salvage))
		return r;
	*ret = take_pointer(&toml);
	return 0;
}

int toml_parse(const char *text, size_t size, struct toml **ret, struct config_errors *errors)
{
	return parse_text(text, size, false, ret, errors);
}

int toml_salvage(const char *text, size_t size, struct toml **ret, struct config_errors *errors)
{
	return parse_text(text, size, true, ret, errors);
}

void toml_free(struct toml *toml)
{
	if (!toml)
		return;
	arena_clear(&toml->arena);
	free(toml);
}

const struct toml_node *toml_root(const struct toml *toml)
{
	return toml->root;
}

const struct toml_node *toml_get(const struct toml_node *table, const char *key)
{
	size_t size = strlen(key);

	for (const struct toml_node *node = table->children.first; node; node = node->next)
		if (node->key_size == size && !memcmp(node->key, key, size))
			return node;
	return NULL;
}
