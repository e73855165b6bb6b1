// SPDX-License-Identifier: GPL-2.0-or-later
#include "values.h"

#include "command.h"
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define GROUP_MAX 31 /* bytes of a group's name: UT_NAMESIZE less the NUL, as useradd(8) has it */

/* Puts a copy of the string in the place of what is there. */
static int keep_text(const struct toml_node *value, char **field)
{
	char *copy = strdup(value->string.text);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int fail_value(struct schema_reader *reader, const struct toml_node *value, const char *why)
{
	char quoted[QUOTED_MAX];

	return schema_fail(reader, value->at, "%s %s",
			   text_quote(value->string.text, value->string.size, quoted), why);
}

static int read_path_up_to(struct schema_reader *reader, const struct toml_node *value,
			   size_t size_max, char **field)
{
	char quoted[QUOTED_MAX];

	if (*value->string.text != '/')
		return fail_value(reader, value, "is not an absolute path; it has to start with /");
	if (value->string.size > size_max)
		return schema_fail(reader, value->at, "%s is too long: %u bytes, at most %zu",
				   text_quote(value->string.text, value->string.size, quoted),
				   value->string.size, size_max);
	return keep_text(value, field);
}

int read_path(struct schema_reader *reader, const struct schema_key *key,
	      const struct toml_node *value, void *field)
{
	return read_path_up_to(reader, value, PATH_MAX - 1, field);
}

int read_socket_path(struct schema_reader *reader, const struct schema_key *key,
		     const struct toml_node *value, void *field)
{
	struct sockaddr_un address;

	return read_path_up_to(reader, value, sizeof(address.sun_path) - 1, field);
}

int read_group(struct schema_reader *reader, const struct schema_key *key,
	       const struct toml_node *value, void *field)
{
	const char *text = value->string.text;

	if (!*text || value->string.size > GROUP_MAX || strpbrk(text, " :,/"))
		return fail_value(reader, value,
				  "is not a group's name: 1 to 31 bytes without white space, "
				  "':', ',' or '/'");
	return keep_text(value, field);
}

bool is_pattern(const char *name)
{
	return strpbrk(name, "*?[");
}

int read_interface_pattern(struct schema_reader *reader, const struct schema_key *key,
			   const struct toml_node *value, void *field)
{
	const char *text = value->string.text;
	struct error err;

	if (!is_pattern(text) && interface_name_check(text, &err) < 0)
		return schema_fail(reader, value->at, "%s", err.text);
	if (value->string.size > CONFIG_PATTERN_MAX || strpbrk(text, " /:"))
		return fail_value(reader, value,
				  "is not a pattern of interface names: at most 64 bytes without "
				  "'/', ':' or white space");
	return keep_text(value, field);
}

int read_interface_name(struct schema_reader *reader, const struct schema_key *key,
			const struct toml_node *value, void *field)
{
	struct error err;

	if (is_pattern(value->string.text))
		return fail_value(reader, value,
				  "is a pattern; expected the name of one interface");
	if (interface_name_check(value->string.text, &err) < 0)
		return schema_fail(reader, value->at, "%s", err.text);
	memcpy(field, value->string.text, value->string.size + 1);
	return 0;
}

int read_feed_name(struct schema_reader *reader, const struct schema_key *key,
		   const struct toml_node *value, void *field)
{
	const char *text = value->string.text;
	bool good = value->string.size >= 1 && value->string.size <= ORIGIN_NAME_MAX;

	for (const char *p = text; good && *p; p++)
		good = isalnum((unsigned char)*p) || strchr("._-", *p);
	if (!good)
		return fail_value(reader, value,
				  "is not a feed's name: 1 to 32 of A-Z a-z 0-9 . _ -");
	if (!strcmp(text, "config") || !strcmp(text, "runtime"))
		return fail_value(reader, value, "is an origin of its own; choose another name");
	return keep_text(value, field);
}

int read_log_level(struct schema_reader *reader, const struct schema_key *key,
		   const struct toml_node *value, void *field)
{
	struct error err;

	if (log_level_parse(value->string.text, field, &err) < 0)
		return schema_fail(reader, value->at, "%s", err.text);
	return 0;
}

int read_max_entries(struct schema_reader *reader, const struct schema_key *key,
		     const struct toml_node *value, void *field)
{
	if (value->integer < 1 || value->integer > CONFIG_MAX_ENTRIES_MAX)
		return schema_fail(reader, value->at, "%lld is out of range; expected %s",
				   (long long)value->integer, key->accepts);
	*(u32 *)field = (u32)value->integer;
	return 0;
}

/* An integer or a string: 8080, "8080" and "8000-8099". */
int read_ports(struct schema_reader *reader, const struct schema_key *key,
	       const struct toml_node *value, void *field)
{
	struct redirect *redirect = field;
	char number[24];
	const char *text = number;
	struct error err;

	if (value->type == TOML_INTEGER)
		snprintf(number, sizeof(number), "%lld", (long long)value->integer);
	else
		text = value->string.text;
	if (port_range_parse(text, &redirect->port_first, &redirect->port_last, &err) < 0)
		return schema_fail(reader, value->at, "%s", err.text);
	return 0;
}

static int read_direction(struct schema_reader *reader, const struct toml_node *value,
			  bool chosen[static DIRECTION_COUNT])
{
	struct error err;
	u8 direction;
	int r;

	r = schema_check_string(reader, "\"in\" or \"out\"", value);
	if (r < 0)
		return r;
	if (direction_parse(value->string.text, &direction, &err) < 0)
		return schema_fail(reader, value->at, "%s", err.text);
	if (chosen[direction])
		return fail_value(reader, value, "is there already");
	chosen[direction] = true;
	return 0;
}

int read_directions(struct schema_reader *reader, const struct schema_key *key,
		    const struct toml_node *value, void *field)
{
	const struct toml_node *element = value->children.first;
	bool chosen[DIRECTION_COUNT] = {0};
	struct config *config = field;
	int r = 0;

	if (!element)
		return schema_fail(reader, value->at, "empty; expected %s", key->accepts);
	for (size_t i = 0; element; element = element->next, i++) {
		size_t outer = schema_enter_element(reader, i);

		r = schema_worse(r, read_direction(reader, element, chosen));
		schema_leave(reader, outer);
	}
	if (r < 0)
		return r;
	config->blacklist.in = chosen[DIRECTION_IN];
	config->blacklist.out = chosen[DIRECTION_OUT];
	return 0;
}

/* A prefix and where it stands, so that duplicates can be told. */
struct placed_prefix {
	struct prefix prefix;
	u32 index;
	struct toml_position at;
};

static int compare_placed(const void *a, const void *b)
{
	const struct placed_prefix *x = a, *y = b;
	int order = prefix_compare(&x->prefix, &y->prefix);

	return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int refuse_duplicates(struct schema_reader *reader, const struct placed_prefix *sorted,
			     size_t n)
{
	char text[PREFIX_TEXT_MAX];
	size_t first = 0;
	int r = 0;

	for (size_t i = 1; i < n; i++) {
		size_t outer;

		if (!prefix_equal(&sorted[i].prefix, &sorted[first].prefix)) {
			first = i;
			continue;
		}
		prefix_format(&sorted[i].prefix, text);
		outer = schema_enter_element(reader, sorted[i].index);
		r = schema_fail(reader, sorted[i].at, "\"%s\" is there already, at line %d", text,
				sorted[first].at.line);
		schema_leave(reader, outer);
	}
	return r;
}

static int read_placed(struct schema_reader *reader, const struct toml_node *array,
		       struct placed_prefix *placed, size_t *ret_n)
{
	const struct toml_node *value = array->children.first;
	size_t n = 0;
	int r = 0;

	for (u32 i = 0; value; value = value->next, i++) {
		size_t outer = schema_enter_element(reader, i);
		int one = schema_check_string(reader, "an address or prefix in quotes", value);
		struct error err;

		placed[n].index = i;
		placed[n].at = value->at;
		if (!one && prefix_parse(value->string.text, value->string.size, &placed[n].prefix,
					 &err) < 0)
			one = schema_fail(reader, value->at, "%s", err.text);
		if (!one)
			n++;
		r = schema_worse(r, one);
		schema_leave(reader, outer);
	}
	*ret_n = n;
	return r;
}

int read_prefixes(struct schema_reader *reader, const struct toml_node *array, struct prefix **ret,
		  size_t *ret_n)
{
	_cleanup_free_ struct placed_prefix *placed = NULL;
	struct prefix *prefixes;
	size_t n;
	int r;

	/* One more: not of size 0. */
	placed = calloc(array->children.n + 1, sizeof(*placed));
	if (!placed)
		return -ENOMEM;
	r = read_placed(reader, array, placed, &n);
	qsort(placed, n, sizeof(*placed), compare_placed);
	r = schema_worse(r, refuse_duplicates(reader, placed, n));
	if (r < 0)
		return r;
	prefixes = calloc(n + 1, sizeof(*prefixes));
	if (!prefixes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		prefixes[i] = placed[i].prefix;
	*ret = prefixes;
	*ret_n = n;
	return 0;
}
