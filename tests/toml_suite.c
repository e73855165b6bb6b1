// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Holds the parser to the official suite (https://github.com/toml-lang/toml-test): each file that
 * its list for TOML 1.0 names is refused, or accepted with the value of the JSON beside it.
 *
 * The suite's `tests` directory is $FWD_TOML_TEST or what CMake was given; without it, exit status
 * 77 tells ctest that the test was skipped.
 */
#include "toml.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define EXIT_SKIPPED 77

static const char *const json_types[] = {
	[TOML_STRING] = "string",
	[TOML_INTEGER] = "integer",
	[TOML_FLOAT] = "float",
	[TOML_BOOLEAN] = "bool",
	[TOML_OFFSET_DATETIME] = "datetime",
	[TOML_LOCAL_DATETIME] = "datetime-local",
	[TOML_LOCAL_DATE] = "date-local",
	[TOML_LOCAL_TIME] = "time-local",
	[TOML_ARRAY] = NULL,
	[TOML_TABLE] = NULL,
};
_Static_assert(ARRAY_SIZE(json_types) == TOML_TYPE_COUNT, "a JSON name for each type");

/* Date and time as RFC 3339 has them, the fraction without zeros at its end. */
static void format_datetime(const struct toml_node *node, char *text, size_t size)
{
	const struct toml_datetime *d = &node->datetime;
	bool has_date = node->type != TOML_LOCAL_TIME, has_time = node->type != TOML_LOCAL_DATE;
	char fraction[16] = "";
	int offset = abs(d->offset_min), n = 0;

	if (has_date)
		n += snprintf(text + n, size - (size_t)n, "%04u-%02u-%02u%s", d->year, d->month,
			      d->day, has_time ? "T" : "");
	if (d->nanosecond) {
		snprintf(fraction, sizeof(fraction), ".%09u", d->nanosecond);
		while (fraction[strlen(fraction) - 1] == '0')
			fraction[strlen(fraction) - 1] = '\0';
	}
	if (has_time)
		n += snprintf(text + n, size - (size_t)n, "%02u:%02u:%02u%s", d->hour, d->minute,
			      d->second, fraction);
	if (node->type == TOML_OFFSET_DATETIME && !d->offset_min)
		snprintf(text + n, size - (size_t)n, "Z");
	else if (node->type == TOML_OFFSET_DATETIME)
		snprintf(text + n, size - (size_t)n, "%c%02d:%02d", d->offset_min < 0 ? '-' : '+',
			 offset / 60, offset % 60);
}

/* "…56.600Z" is "…56.6Z", "+00:00" is "Z". */
static void normalize_datetime(const char *text, char *out)
{
	const char *dot = strchr(text, '.'), *end;
	size_t keep;

	stpcpy(out, text);
	if (dot) {
		end = dot + 1 + strspn(dot + 1, "0123456789");
		for (keep = (size_t)(end - text); text[keep - 1] == '0';)
			keep--;
		if (text[keep - 1] == '.')
			keep--;
		stpcpy(out + keep, end);
	}
	if (strlen(out) > 6 && !strcmp(out + strlen(out) - 6, "+00:00"))
		stpcpy(out + strlen(out) - 6, "Z");
}

/*
 * jansson takes no NUL in a key, so both sides have U+E000 in its place: here in the JSON's text,
 * where it is "\\u0000", and in what the parser returned.
 */
static void replace_nul_escapes(char *json)
{
	for (char *p = json; (p = strchr(p, '\\')) && p[1]; p += 2)
		if (!strncmp(p, "\\u0000", 6))
			p[2] = 'e';
}

static char *replace_nul(const char *text, size_t size, size_t *ret_size)
{
	char *copy = calloc(3, size + 1), *out = copy;

	if (!copy)
		abort();
	for (size_t i = 0; i < size; i++)
		out = text[i] ? mempcpy(out, &text[i], 1) : mempcpy(out, "\xee\x80\x80", 3);
	*ret_size = (size_t)(out - copy);
	return copy;
}

static bool same_string(const struct toml_node *node, const json_t *json)
{
	size_t size;
	_cleanup_free_ char *text = replace_nul(node->string.text, node->string.size, &size);

	return json_string_length(json) == size && !memcmp(json_string_value(json), text, size);
}

static const json_t *get(const json_t *object, const struct toml_node *node)
{
	size_t size;
	_cleanup_free_ char *key = replace_nul(node->key, node->key_size, &size);

	return json_object_getn(object, key, size);
}

static bool same_scalar(const struct toml_node *node, const json_t *expected)
{
	const char *type = json_string_value(json_object_get(expected, "type"));
	const json_t *json = json_object_get(expected, "value");
	const char *value = json_string_value(json);
	char ours[64], theirs[64];
	double number;

	if (json_object_size(expected) != 2 || !type || !value ||
	    strcmp(type, json_types[node->type]) != 0)
		return false;
	switch ((enum toml_type)node->type) {
	case TOML_STRING:
		return same_string(node, json);
	case TOML_INTEGER:
		return strtoll(value, NULL, 10) == node->integer;
	case TOML_FLOAT:
		number = strtod(value, NULL);
		return isnan(number) ? isnan(node->number) : number == node->number;
	case TOML_BOOLEAN:
		return !strcmp(value, node->boolean ? "true" : "false");
	case TOML_OFFSET_DATETIME:
	case TOML_LOCAL_DATETIME:
	case TOML_LOCAL_DATE:
	case TOML_LOCAL_TIME:
		format_datetime(node, ours, sizeof(ours));
		normalize_datetime(value, theirs);
		return !strcmp(ours, theirs);
	case TOML_ARRAY:
	case TOML_TABLE:
	case TOML_TYPE_COUNT:
		break;
	}
	return false;
}

/* Reports where the two differ first. */
static bool same(const struct toml_node *node, const json_t *expected)
{
	bool container = node->type == TOML_ARRAY || node->type == TOML_TABLE, equal;
	size_t i = 0;

	if (node->type == TOML_TABLE)
		equal = json_is_object(expected) && json_object_size(expected) == node->children.n;
	else if (node->type == TOML_ARRAY)
		equal = json_is_array(expected) && json_array_size(expected) == node->children.n;
	else
		equal = json_is_object(expected) && same_scalar(node, expected);
	if (!equal)
		printf("  line %d, column %d: %s differs\n", node->at.line, node->at.column,
		       toml_type_name(node->type));
	for (const struct toml_node *child = container ? node->children.first : NULL;
	     equal && child; child = child->next, i++) {
		const json_t *other =
			child->key ? get(expected, child) : json_array_get(expected, i);

		equal = other && same(child, other);
	}
	return equal;
}

/* Ends in a NUL that does not count. */
static char *read_file(const char *path, size_t *ret_size)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	size_t room = 1 << 20;
	char *text = file ? calloc(1, room + 1) : NULL;

	if (text)
		*ret_size = fread(text, 1, room, file);
	return text;
}

static bool check_valid(const char *path, const struct toml_node *root)
{
	_cleanup_free_ char *json_path = NULL, *text = NULL;
	json_error_t problem = {.text = "no such file"};
	json_t *expected;
	size_t size;
	bool equal;

	if (asprintf(&json_path, "%.*s.json", (int)(strlen(path) - strlen(".toml")), path) < 0)
		return false;
	text = read_file(json_path, &size);
	if (text)
		replace_nul_escapes(text);
	expected = text ? json_loadb(text, size, 0, &problem) : NULL;
	if (!expected) {
		printf("  cannot read %s: %s\n", json_path, problem.text);
		return false;
	}
	equal = same(root, expected);
	json_decref(expected);
	return equal;
}

static bool check_file(const char *directory, const char *name)
{
	_cleanup_free_ char *path = NULL, *text = NULL;
	_cleanup_(toml_freep) struct toml *toml = NULL;
	bool valid = !strncmp(name, "valid/", strlen("valid/")), good;
	struct config_errors errors = {0};
	size_t size;
	int r;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return false;
	text = read_file(path, &size);
	if (!text) {
		printf("%s: %s\n", name, strerror(errno));
		return false;
	}
	r = toml_parse(text, size, &toml, &errors);
	if (valid)
		good = !r && check_valid(path, toml_root(toml));
	else
		good = r == -EINVAL && errors.n > 0 && errors.items[0].line > 0;
	if (!good)
		printf("%s: %s\n", name,
		       r       ? (errors.n ? errors.items[0].message : strerror(-r))
		       : valid ? "another value"
			       : "accepted");
	if (!valid && getenv("VERBOSE") && errors.n)
		printf("%s:%d:%d: %s\n", name, errors.items[0].line, errors.items[0].column,
		       errors.items[0].message);
	config_errors_clear(&errors);
	return good;
}

int main(void)
{
	const char *given = getenv("FWD_TOML_TEST"), *directory = given ? given : FWD_TOML_TEST;
	_cleanup_free_ char *list_path = NULL, *line = NULL;
	_cleanup_fclose_ FILE *list = NULL;
	size_t room = 0, n = 0, bad = 0;

	if (asprintf(&list_path, "%s/files-toml-1.0.0", directory) < 0)
		return EXIT_FAILURE;
	list = fopen(list_path, "re");
	if (!list) {
		printf("skipped: no official TOML suite, %s: %s\n", list_path, strerror(errno));
		return EXIT_SKIPPED;
	}
	while (getline(&line, &room, list) > 0) {
		line[strcspn(line, "\r\n")] = '\0';
		if (strlen(line) < 5 || strcmp(line + strlen(line) - 5, ".toml") != 0)
			continue;
		n++;
		bad += !check_file(directory, line);
	}
	printf("%zu files, %zu not as they should be\n", n, bad);
	return bad || !n ? EXIT_FAILURE : EXIT_SUCCESS;
}
