// SPDX-License-Identifier: GPL-2.0-or-later
#include "schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* No known key is longer, so no longer one is a typing error of it. */
#define SIMILAR_MAX 24

int schema_fail(struct schema_reader *reader, struct toml_position at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	config_errors_add_in(reader->errors, at.line, at.column, reader->path, format, args);
	va_end(args);
	return -EINVAL;
}

int schema_fail_key(struct schema_reader *reader, const struct toml_node *table, const char *key,
		    const char *format, ...)
{
	struct toml_position at = toml_get(table, key)->at;
	size_t outer = schema_enter_key(reader, key);
	va_list args;

	va_start(args, format);
	config_errors_add_in(reader->errors, at.line, at.column, reader->path, format, args);
	va_end(args);
	schema_leave(reader, outer);
	return -EINVAL;
}

size_t schema_enter_key(struct schema_reader *reader, const char *key)
{
	size_t size = strlen(reader->path);

	snprintf(reader->path + size, sizeof(reader->path) - size, "%s%s", size ? "." : "", key);
	return size;
}

size_t schema_enter_element(struct schema_reader *reader, size_t index)
{
	size_t size = strlen(reader->path);

	snprintf(reader->path + size, sizeof(reader->path) - size, "[%zu]", index);
	return size;
}

void schema_leave(struct schema_reader *reader, size_t size)
{
	reader->path[size] = '\0';
}

int schema_worse(int a, int b)
{
	if (a == -ENOMEM || b == -ENOMEM)
		return -ENOMEM;
	return a < 0 ? a : b;
}

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

/*
 * The number of characters to add, drop, change or swap with the next one to make `b` of `a`
 * (optimal string alignment distance).
 */
static size_t edit_distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
	size_t d[SIMILAR_MAX + 1][SIMILAR_MAX + 1];

	for (size_t i = 0; i <= a_size; i++)
		d[i][0] = i;
	for (size_t k = 0; k <= b_size; k++)
		d[0][k] = k;
	for (size_t i = 1; i <= a_size; i++) {
		for (size_t k = 1; k <= b_size; k++) {
			bool differs = tolower((unsigned char)a[i - 1]) != b[k - 1];

			d[i][k] = min(min(d[i - 1][k], d[i][k - 1]) + 1, d[i - 1][k - 1] + differs);
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
				d[i][k] = min(d[i][k], d[i - 2][k - 2] + 1);
		}
	}
	return d[a_size][b_size];
}

/* The known key that was meant, or NULL: one character in three may be wrong. */
static const char *most_similar(const struct schema_key *keys, const char *name, size_t size)
{
	const char *best = NULL;
	size_t best_distance = SIZE_MAX;

	if (size > SIMILAR_MAX)
		return NULL;
	for (; keys->name; keys++) {
		size_t known_size = strlen(keys->name), limit = (known_size + 2) / 3, distance;

		if (size > known_size + limit || known_size > size + limit)
			continue;
		distance = edit_distance(name, size, keys->name, known_size);
		if (distance <= limit && distance < best_distance) {
			best = keys->name;
			best_distance = distance;
		}
	}
	return best;
}

static int fail_unknown(struct schema_reader *reader, const struct schema_key *keys,
			const struct toml_node *value)
{
	const char *similar = most_similar(keys, value->key, value->key_size);
	char quoted[QUOTED_MAX], known[256] = "";
	bool has_header = value->origin == TOML_BY_HEADER || value->origin == TOML_BY_PARENT;
	const char *what = has_header ? "table" : "key";

	text_quote(value->key, value->key_size, quoted);
	if (similar)
		return schema_fail(reader, value->key_at, "unknown %s %s; did you mean \"%s\"?",
				   what, quoted, similar);
	for (size_t n = 0; keys->name; keys++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, "%s\"%s\"",
				      !n	     ? ""
				      : keys[1].name ? ", "
						     : " and ",
				      keys->name);
	return schema_fail(reader, value->key_at, "unknown %s %s; known here are %s", what, quoted,
			   known);
}

static int fail_type(struct schema_reader *reader, const struct schema_key *key,
		     const struct toml_node *value)
{
	return schema_fail(reader, value->at, "expected %s, found %s", key->accepts,
			   toml_type_name(value->type));
}

int schema_check_string(struct schema_reader *reader, const char *accepts,
			const struct toml_node *value)
{
	char quoted[QUOTED_MAX];

	if (value->type != TOML_STRING)
		return schema_fail(reader, value->at, "expected %s, found %s", accepts,
				   toml_type_name(value->type));
	for (size_t i = 0; i < value->string.size; i++)
		if (iscntrl((unsigned char)value->string.text[i]))
			return schema_fail(
				reader, value->at, "%s has a control character; expected %s",
				text_quote(value->string.text, value->string.size, quoted),
				accepts);
	return 0;
}

static const struct schema_key *find_key(const struct schema_key *keys,
					 const struct toml_node *value)
{
	for (; keys->name; keys++)
		if (strlen(keys->name) == value->key_size &&
		    !memcmp(keys->name, value->key, value->key_size))
			return keys;
	return NULL;
}

static int read_value(struct schema_reader *reader, const struct schema_key *key,
		      const struct toml_node *value, void *structure)
{
	size_t outer = schema_enter_key(reader, key->name);
	int r = 0;

	if (!(key->types & 1u << value->type))
		r = fail_type(reader, key, value);
	else if (value->type == TOML_STRING)
		r = schema_check_string(reader, key->accepts, value);
	if (!r)
		r = key->read(reader, key, value, (char *)structure + key->offset);
	schema_leave(reader, outer);
	return r;
}

static int read_keys(struct schema_reader *reader, const struct schema_key *keys,
		     const struct toml_node *table, void *structure)
{
	int r = 0;

	for (const struct toml_node *value = table->children.first; value; value = value->next) {
		const struct schema_key *key = find_key(keys, value);

		if (key)
			r = schema_worse(r, read_value(reader, key, value, structure));
		else
			r = schema_worse(r, fail_unknown(reader, keys, value));
		if (r == -ENOMEM)
			return r;
	}
	for (; keys->name; keys++)
		if (keys->required && !toml_get(table, keys->name))
			r = schema_worse(r, schema_fail(reader, table->at, "\"%s\" is missing: %s",
							keys->name, keys->accepts));
	return r;
}

int schema_read_table(struct schema_reader *reader, const struct schema_key *key,
		      const struct toml_node *value, void *field)
{
	return read_keys(reader, key->keys, value, field);
}

int schema_read_rows(struct schema_reader *reader, const struct schema_key *key,
		     const struct toml_node *array, void *rows, size_t size)
{
	const struct toml_node *row = array->children.first;
	int r = 0, row_r;

	for (size_t i = 0; row && r != -ENOMEM; row = row->next, i++) {
		size_t outer = schema_enter_element(reader, i);

		if (row->type == TOML_TABLE)
			row_r = read_keys(reader, key->keys, row, (char *)rows + i * size);
		else
			row_r = fail_type(reader, key, row);
		r = schema_worse(r, row_r);
		schema_leave(reader, outer);
	}
	return r;
}

int schema_read_choice(struct schema_reader *reader, const struct schema_key *key,
		       const struct toml_node *value, void *field)
{
	char quoted[QUOTED_MAX];

	for (unsigned i = 0; key->names[i]; i++) {
		if (!strcmp(key->names[i], value->string.text)) {
			*(unsigned *)field = i;
			return 0;
		}
	}
	return schema_fail(reader, value->at, "%s is none of the choices; expected %s",
			   text_quote(value->string.text, value->string.size, quoted),
			   key->accepts);
}

int schema_read_u8(struct schema_reader *reader, const struct schema_key *key,
		   const struct toml_node *value, void *field)
{
	struct error err;

	if (key->parse(value->string.text, field, &err) < 0)
		return schema_fail(reader, value->at, "%s", err.text);
	return 0;
}

int schema_read_bool(struct schema_reader *reader, const struct schema_key *key,
		     const struct toml_node *value, void *field)
{
	*(bool *)field = value->boolean;
	return 0;
}
