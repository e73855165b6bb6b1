// SPDX-License-Identifier: GPL-2.0-or-later
#include "toml.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

/* The tree in one line: {key=value,...}, [value,...], strings in quotes with '?' for control
 * characters. */
static void dump(const struct toml_node *node, FILE *out);

static void dump_text(const char *text, size_t size, FILE *out)
{
	for (size_t i = 0; i < size; i++)
		fputc((unsigned char)text[i] < ' ' ? '?' : text[i], out);
}

static void dump_children(const struct toml_node *node, char open, char close, FILE *out)
{
	fputc(open, out);
	for (const struct toml_node *child = node->children.first; child; child = child->next) {
		if (child->key) {
			dump_text(child->key, child->key_size, out);
			fputc('=', out);
		}
		dump(child, out);
		if (child->next)
			fputc(',', out);
	}
	fputc(close, out);
}

static void dump(const struct toml_node *node, FILE *out)
{
	const struct toml_datetime *d = &node->datetime;

	switch ((enum toml_type)node->type) {
	case TOML_STRING:
		fputc('"', out);
		dump_text(node->string.text, node->string.size, out);
		fputc('"', out);
		break;
	case TOML_INTEGER:
		fprintf(out, "%lld", (long long)node->integer);
		break;
	case TOML_FLOAT:
		fprintf(out, "%g", isnan(node->number) ? NAN : node->number);
		break;
	case TOML_BOOLEAN:
		fputs(node->boolean ? "true" : "false", out);
		break;
	case TOML_OFFSET_DATETIME:
	case TOML_LOCAL_DATETIME:
	case TOML_LOCAL_DATE:
	case TOML_LOCAL_TIME:
		fprintf(out, "%u-%u-%u/%u:%u:%u.%u/%d", d->year, d->month, d->day, d->hour,
			d->minute, d->second, d->nanosecond, d->offset_min);
		break;
	case TOML_ARRAY:
		dump_children(node, '[', ']', out);
		break;
	case TOML_TABLE:
		dump_children(node, '{', '}', out);
		break;
	case TOML_TYPE_COUNT:
		break;
	}
}

static void expect_tree(const char *text, const char *expected)
{
	struct config_errors errors = {0};
	struct toml *toml = NULL;
	char *dumped = NULL;
	size_t size;
	FILE *out;
	int r;

	r = toml_parse(text, strlen(text), &toml, &errors);
	cr_expect_eq(r, 0, "<%s>: %s", text, errors.n ? errors.items[0].message : "");
	if (!r) {
		out = open_memstream(&dumped, &size);
		dump(toml_root(toml), out);
		fclose(out);
		cr_expect_str_eq(dumped, expected, "<%s>: got %s, expected %s", text, dumped,
				 expected);
		free(dumped);
	}
	config_errors_clear(&errors);
	toml_free(toml);
}

/* The first error is at this place and has these words. */
static void expect_error(const char *text, size_t size, int line, int column, const char *words)
{
	struct config_errors errors = {0};
	struct toml *toml = NULL;
	int r = toml_parse(text, size, &toml, &errors);
	const struct config_error *first = errors.items;

	cr_expect_eq(r, -EINVAL, "<%s>: accepted", text);
	cr_expect_null(toml);
	if (errors.n) {
		cr_expect(first->line == line && first->column == column,
			  "<%s>: %d:%d: %s; expected at %d:%d", text, first->line, first->column,
			  first->message, line, column);
		cr_expect(strstr(first->message, words), "<%s>: \"%s\" has no \"%s\"", text,
			  first->message, words);
	}
	config_errors_clear(&errors);
}

struct good {
	const char *text, *tree;
};

static void expect_all_good(const struct good *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		expect_tree(rows[i].text, rows[i].tree);
}

struct bad {
	const char *text;
	int line, column;
	const char *words;
};

static void expect_all_bad(const struct bad *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		expect_error(rows[i].text, strlen(rows[i].text), rows[i].line, rows[i].column,
			     rows[i].words);
}

Test(toml, reads_keys)
{
	static const struct good rows[] = {
		{"", "{}"},
		{"\r\n\t# comment \xc3\xa9\n", "{}"},
		{"a=1", "{a=1}"},
		{"a-b_C9 = 1 # c\r\nb=2", "{a-b_C9=1,b=2}"},
		{"1234 = 1", "{1234=1}"},
		{"'a.b' = 1\n\"c\\td\" = 2", "{a.b=1,c?d=2}"},
		{"'' = 1", "{=1}"},
		{"a . b.\"c d\" = 1\na.e = 2", "{a={b={c d=1},e=2}}"},
		{"3.14 = 1", "{3={14=1}}"},
		{"\xef\xbb\xbf"
		 "a=1",
		 "{a=1}"},
	};

	expect_all_good(rows, ARRAY_SIZE(rows));
}

Test(toml, refuses_bad_keys)
{
	static const struct bad rows[] = {
		{"= 1", 1, 1, "expected a key, found \"=\""},
		{"a", 1, 2, "expected '=' after the key, found the end of the file"},
		{"a b = 1", 1, 3, "expected '=' after the key, found \"b\""},
		{"a. = 1", 1, 4, "expected a key"},
		{"\xc3\xa9 = 1", 1, 1, "needs quotes"},
		{"\"\"\"a\"\"\" = 1", 1, 1, "multi-line"},
		{"a = 1\na = 2", 2, 1, "\"a\" is set already, at line 1"},
		{"a = 1\n'a' = 2", 2, 1, "\"a\" is set already, at line 1"},
		{"a.b = 1\na.b = 2", 2, 3, "\"b\" is set already, at line 1"},
		{"a = 1\na.b = 2", 2, 1, "\"a\" is an integer already, at line 1"},
		{"a = 1 b = 2", 1, 7, "expected the end of the line, found \"b\""},
		{"a = \n1", 1, 5, "expected a value, found the end of the line"},
	};

	expect_all_bad(rows, ARRAY_SIZE(rows));
}

Test(toml, reads_tables)
{
	static const struct good rows[] = {
		{"[a]\nb=1\n[c]\nd=2", "{a={b=1},c={d=2}}"},
		{"[a.b.c]\nx=1\n[a]\ny=2", "{a={b={c={x=1}},y=2}}"},
		{"[ a . 'b' ]", "{a={b={}}}"},
		{"[[a]]\nx=1\n[[a]]\nx=2", "{a=[{x=1},{x=2}]}"},
		{"[[a]]\n[[a.b]]\nx=1\n[a.c]\n[[a]]\n[[a.b]]\n[[a.b]]",
		 "{a=[{b=[{x=1}],c={}},{b=[{},{}]}]}"},
		{"[t]\na.b=1\n[t.a.c]\nd=2", "{t={a={b=1,c={d=2}}}}"},
		{"a={b.c=1, b.d=[{}]}", "{a={b={c=1,d=[{}]}}}"},
		{"a={ }", "{a={}}"},
	};

	expect_all_good(rows, ARRAY_SIZE(rows));
}

Test(toml, refuses_tables_defined_twice)
{
	static const struct bad rows[] = {
		{"[a]\n[a]", 2, 2, "\"a\" is a table already, at line 1"},
		{"[a.b]\n[a]\n[a]", 3, 2, "\"a\" is a table already, at line 2"},
		{"[a]\nb.c=1\n[a.b]", 3, 4, "\"b\" is a table already, at line 2"},
		{"[a.b]\n[a]\nb.c=1", 3, 1, "cannot be extended by a dotted key"},
		{"a={}\n[a.b]", 2, 2, "and complete"},
		{"a={}\na.b=1", 2, 1, "cannot be extended"},
		{"a=[{}]\n[[a]]", 2, 3, "\"a\" is an array already, at line 1"},
		{"a=[{}]\n[a.b]", 2, 2, "and complete"},
		{"[[a]]\n[a]", 2, 2, "one more element takes [[ ]]"},
		{"[a]\n[[a]]", 2, 3, "\"a\" is a table already, at line 1"},
		{"[a.b]\n[[a]]", 2, 3, "\"a\" is a table already"},
		{"a=1\n[a.b]", 2, 2,
		 "\"a\" is an integer already, at line 1, and cannot have tables"},
		{"[a", 1, 3, "expected ']' after the table's name"},
		{"[[a]", 1, 5, "expected ']]' after the table's name"},
		{"[]", 1, 2, "expected a key"},
		{"[ [a]]", 1, 3, "expected a key"},
		{"[a] b=1", 1, 5, "expected the end of the line"},
		{"a={\nb=1}", 1, 4, "expected a key, found the end of the line"},
		{"a={b=1,}", 1, 8, "expected a key, found \"}\""},
		{"a={b=1\n}", 1, 7, "must stand on one line"},
		{"a={b=1,b=2}", 1, 8, "\"b\" is set already"},
	};

	expect_all_bad(rows, ARRAY_SIZE(rows));
}

Test(toml, reads_arrays)
{
	static const struct good rows[] = {
		{"a=[]", "{a=[]}"},
		{"a=[1,2]", "{a=[1,2]}"},
		{"a=[ # one\r\n 1, # two\n\n\t[\"x\"],\n]", "{a=[1,[\"x\"]]}"},
	};

	expect_all_good(rows, ARRAY_SIZE(rows));
}

Test(toml, refuses_bad_arrays)
{
	static const struct bad rows[] = {
		{"a=[1 2]", 1, 6,
		 "expected ',' or ']' in the array that starts at line 1, found \"2\""},
		{"a=[\n1,\n", 3, 1, "found the end of the file"},
		{"a=[,]", 1, 4, "expected a value, found \",\""},
		{"a=[1,,2]", 1, 6, "expected a value"},
	};

	expect_all_bad(rows, ARRAY_SIZE(rows));
}

Test(toml, reads_strings)
{
	static const struct good rows[] = {
		{"a=\"x \\\" \\\\ \\u00e9 \\U0001F600\"",
		 "{a=\"x \" \\ \xc3\xa9 \xf0\x9f\x98\x80\"}"},
		{"a=\"\\b\\t\\n\\f\\r\\u0000\"", "{a=\"??????\"}"},
		{"a='C:\\n'", "{a=\"C:\\n\"}"},
		{"a=''", "{a=\"\"}"},
		{"a=\"\"\"\nx\ny\"\"\"", "{a=\"x?y\"}"},
		{"a=\"\"\"\r\nx\"\"\"", "{a=\"x\"}"},
		{"a=\"\"\"x\\  \r\n\n\t y\"\"\"", "{a=\"xy\"}"},
		{"a=\"\"\"x\\\n  \"\"\"", "{a=\"x\"}"},
		{"a=\"\"\"\"\"x\"\"\"\"\"", "{a=\"\"\"x\"\"\"}"},
		{"a='''\n'x'\\'''", "{a=\"'x'\\\"}"},
		{"a=\"\"\"\"\"\"", "{a=\"\"}"},
		{"a=\"\"\"\\\"\"\"\"", "{a=\"\"\"}"},
	};

	expect_all_good(rows, ARRAY_SIZE(rows));
}

Test(toml, refuses_bad_strings)
{
	static const struct bad rows[] = {
		{"a = \"x\nb=1", 1, 5, "the string is not closed: expected \" before"},
		{"a = \"x\\", 1, 5, "not closed"},
		{"a = \"x\\\"", 1, 5, "not closed"},
		{"a = 'x", 1, 5, "expected ' before"},
		{"a = \"\"\"x\"\"", 1, 5, "three times \""},
		{"a = \"\"\"x\\\"\"\"", 1, 5, "three times \""},
		{"a = '''x''", 1, 5, "three times '"},
		{"a = \"\\x41\"", 1, 6, "\"\\x\" is not an escape"},
		{"a = \"\\u12\"", 1, 6, "\\u takes 4 hexadecimal digits"},
		{"a = \"\\U0000004\"", 1, 6, "\\U takes 8 hexadecimal digits"},
		{"a = \"\\ud800\"", 1, 6, "\\ud800 is not a character"},
		{"a = \"\\U00110000\"", 1, 6, "\\U00110000 is not a character"},
		{"a = \"\"\"\nx\\ y\"\"\"", 2, 2, "is not an escape"},
		{"a = \"x\"y", 1, 8, "expected the end of the line"},
		{"a = 'x''", 1, 8, "expected the end of the line"},
	};

	expect_all_bad(rows, ARRAY_SIZE(rows));
}

Test(toml, reads_numbers)
{
	static const struct good rows[] = {
		{"a=[0,+0,-0,+99,-17,1_000]", "{a=[0,0,0,99,-17,1000]}"},
		{"a=[0xDEAD_beef,0o755,0b1101,0x00]", "{a=[3735928559,493,13,0]}"},
		{"a=[9223372036854775807,-9223372036854775808]",
		 "{a=[9223372036854775807,-9223372036854775808]}"},
		{"a=0x7fffffffffffffff", "{a=9223372036854775807}"},
		{"a=[1.0,-0.01,5e+2,1e06,6.5E-3,1_0.0_1]", "{a=[1,-0.01,500,1e+06,0.0065,10.01]}"},
		{"a=[inf,+inf,-inf,nan]", "{a=[inf,inf,-inf,nan]}"},
		{"a=[true,false]", "{a=[true,false]}"},
	};

	expect_all_good(rows, ARRAY_SIZE(rows));
}

Test(toml, refuses_bad_numbers)
{
	static const char *const words[] = {"01",   "+01",  "0_1",  "1_",  "_1",    "1__0",  "0x",
					    "0x_1", "-0x1", "+0x1", "0xg", "0o8",   "0b2",   "0X1",
					    "1.",   ".1",   "1e",   "1e+", "1.e2",  "1._0",  "1_.0",
					    "--1",  "+",    "-",    "Inf", "NaN",   "+nana", "True",
					    "yes",  "on",   "1,",   "1:",  "truee", "tru",   "t"};
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		snprintf(text, sizeof(text), "a=%s\n", words[i]);
		expect_error(text, strlen(text), 1, !strcmp(words[i], "1,") ? 4 : 3, "");
	}
	expect_error("a=9223372036854775808", 21, 1, 3, "does not fit in 64 bits");
	expect_error("a=-9223372036854775809", 22, 1, 3, "does not fit in 64 bits");
	expect_error("a=0x8000000000000000", 20, 1, 3, "does not fit in 64 bits");
}

Test(toml, reads_dates_and_times)
{
	static const struct good rows[] = {
		{"a=1979-05-27T07:32:00Z", "{a=1979-5-27/7:32:0.0/0}"},
		{"a=1979-05-27 00:32:00.999999-07:30", "{a=1979-5-27/0:32:0.999999000/-450}"},
		{"a=1979-05-27t07:32:60z", "{a=1979-5-27/7:32:60.0/0}"},
		{"a=1979-05-27T07:32:00.0000000019", "{a=1979-5-27/7:32:0.1/0}"},
		{"a=2024-02-29", "{a=2024-2-29/0:0:0.0/0}"},
		{"a=2000-02-29 # x", "{a=2000-2-29/0:0:0.0/0}"},
		{"a=23:59:59.5", "{a=0-0-0/23:59:59.500000000/0}"},
	};

	expect_all_good(rows, ARRAY_SIZE(rows));
}

Test(toml, refuses_bad_dates_and_times)
{
	static const char *const words[] = {"2023-02-29",
					    "1900-02-29",
					    "2024-00-01",
					    "2024-13-01",
					    "2024-01-00",
					    "2024-04-31",
					    "2024-1-01",
					    "2024-01-01T",
					    "2024-01-01T24:00:00",
					    "2024-01-01T00:60:00",
					    "2024-01-01T00:00:61",
					    "2024-01-01T00:00",
					    "00:00",
					    "00:00:00.",
					    "00:00:00Z",
					    "2024-01-01T00:00:00+24:00",
					    "2024-01-01Z",
					    "2024-01-01T00:00:00+00:60",
					    "2024-01-01T00:00:00+0000"};
	char text[64];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		snprintf(text, sizeof(text), "a=%s\n", words[i]);
		expect_error(text, strlen(text), 1, 3, "is not a date or time");
	}
}

Test(toml, refuses_bytes_that_are_not_text)
{
	static const struct bad rows[] = {
		{"a=1\nb=\"\x80\"", 2, 4, "not UTF-8 (byte 0x80)"},
		{"# \xc0\xaf", 1, 3, "not UTF-8"},
		{"# \xed\xa0\x80", 1, 3, "not UTF-8"},
		{"# \xf4\x90\x80\x80", 1, 3, "not UTF-8"},
		{"# \xe2\x82", 1, 3, "not UTF-8"},
		{"a='\x01'", 1, 4, "a control character (byte 0x01)"},
		{"# \x7f", 1, 3, "a control character (byte 0x7f)"},
		{"a=1\rb=2", 1, 4, "a carriage return without a line feed"},
	};

	expect_all_bad(rows, ARRAY_SIZE(rows));
	expect_error("a=1\n\0b", 6, 2, 1, "binary data");
}

Test(toml, knows_the_place_of_keys_and_values)
{
	static const char text[] = "\xef\xbb\xbf"
				   "k = 'v'\n"
				   "[a.b]\n"
				   "  \xc2\xa0\n";
	static const char good[] = "\xef\xbb\xbf"
				   "k = 'v'\n"
				   "  [a.b]\n"
				   "'\xc3\xa9' = [ \"\"\"\n\n\"\"\", 2 ]\n"
				   "[[c]]\n";
	struct config_errors errors = {0};
	const struct toml_node *root, *node;
	struct toml *toml;

	expect_error(text, sizeof(text) - 1, 3, 3, "expected a key");
	cr_assert_eq(toml_parse(good, sizeof(good) - 1, &toml, &errors), 0);
	root = toml_root(toml);
	node = toml_get(root, "k");
	cr_expect(node->key_at.line == 1 && node->key_at.column == 1);
	cr_expect(node->at.line == 1 && node->at.column == 5);
	node = toml_get(toml_get(root, "a"), "b");
	cr_expect(node->key_at.line == 2 && node->key_at.column == 6);
	cr_expect(node->at.line == 2 && node->at.column == 3);
	node = node->children.first;
	cr_expect(node->key_at.line == 3 && node->at.line == 3 && node->at.column == 8);
	node = node->children.last;
	cr_expect(node->at.line == 5 && node->at.column == 6, "%d:%d", node->at.line,
		  node->at.column);
	node = toml_get(root, "c");
	cr_expect(node->at.line == 6 && node->at.column == 1 && node->key_at.column == 3);
	cr_expect_null(toml_get(root, "K"));
	toml_free(toml);
}

Test(toml, goes_on_after_an_error)
{
	static const char text[] = "a = x\n"
				   "b = [\n"
				   "  1 2,\n"
				   "  3,\n"
				   "  [4],\n"
				   "]\n"
				   "c = 1\n"
				   "[d\n"
				   "c = 2\n"
				   "[e]\n"
				   "a = \"x\n"
				   "f = 3\n";
	static const int lines[] = {1, 3, 8, 11};
	struct config_errors errors = {0};
	struct toml *toml;

	cr_assert_eq(toml_parse(text, sizeof(text) - 1, &toml, &errors), -EINVAL);
	for (size_t i = 0; i < errors.n; i++)
		cr_expect(i < ARRAY_SIZE(lines) && errors.items[i].line == lines[i], "%d:%d: %s",
			  errors.items[i].line, errors.items[i].column, errors.items[i].message);
	cr_expect_eq(errors.n, ARRAY_SIZE(lines));
	config_errors_clear(&errors);
}

/* `n` times `piece`, between `before` and `after`. */
static char *repeat(const char *before, const char *piece, size_t n, const char *after)
{
	size_t size = strlen(piece);
	char *text = malloc(strlen(before) + n * size + strlen(after) + 1);
	char *out = stpcpy(text, before);

	for (size_t i = 0; i < n; i++)
		out = mempcpy(out, piece, size);
	stpcpy(out, after);
	return text;
}

static int parse_only(const char *text)
{
	struct config_errors errors = {0};
	struct toml *toml = NULL;
	int r = toml_parse(text, strlen(text), &toml, &errors);

	toml_free(toml);
	config_errors_clear(&errors);
	return r;
}

/* The piece nests one level; the first level is the key. */
static void expect_depth(const char *before, const char *piece, const char *after)
{
	for (size_t n = TOML_DEPTH_MAX; n <= TOML_DEPTH_MAX + 1; n++) {
		char *text = repeat(before, piece, n - 1, after);

		cr_expect_eq(parse_only(text), n > TOML_DEPTH_MAX ? -EINVAL : 0, "%zu of %s", n,
			     piece);
		free(text);
	}
}

Test(toml, bounds_the_depth)
{
	char *nested = repeat("a=", "[", TOML_DEPTH_MAX - 1, ""), *text;

	expect_depth("[", "a.", "b]");
	expect_depth("", "a.", "b=1");
	text = repeat(nested, "]", TOML_DEPTH_MAX - 1, "");
	cr_expect_eq(parse_only(text), 0);
	free(text);
	free(nested);
	nested = repeat("a=", "[", TOML_DEPTH_MAX, "1");
	text = repeat(nested, "]", TOML_DEPTH_MAX, "");
	expect_error(text, strlen(text), 1, TOML_DEPTH_MAX + 3, "nested too deep");
	free(text);
	free(nested);
	text = repeat("a=", "[", 1000000, "");
	cr_expect_eq(parse_only(text), -EINVAL);
	free(text);
	text = repeat("a=", "{a=", 1000000, "");
	cr_expect_eq(parse_only(text), -EINVAL);
	free(text);
}

Test(toml, survives_an_array_of_tables_at_the_deepest_level)
{
	char *header = repeat("[[", "a.", TOML_DEPTH_MAX - 1, "b]]\n");
	char *text = repeat(header, "[a", 1, "");
	char *twice = repeat(text, ".a", TOML_DEPTH_MAX - 2, ".b.c]\n");

	cr_expect_eq(parse_only(twice), -EINVAL);
	free(twice);
	free(text);
	free(header);
}

Test(toml, bounds_the_number_of_values)
{
	char *text = repeat("a=[", "1,", TOML_VALUES_MAX - 1, "]");

	cr_expect_eq(parse_only(text), 0);
	free(text);
	text = repeat("a=[", "1,", TOML_VALUES_MAX, "]");
	cr_expect_eq(parse_only(text), -EINVAL);
	free(text);
}

/* A hundred thousand of each; with a quadratic parser this takes minutes. */
Test(toml, takes_large_files_in_little_time, .timeout = 30)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (int i = 0; i < 100000; i++)
		fprintf(out, "key%d = %d\n", i, i);
	for (int i = 0; i < 100000; i++)
		fprintf(out, "dotted.a%d.b = %d\n", i, i);
	for (int i = 0; i < 100000; i++)
		fprintf(out, "[table.t%d]\n", i);
	for (int i = 0; i < 100000; i++)
		fprintf(out, "[[array]]\nx = 1\n[array.sub]\n");
	fprintf(out, "[last]\nv = [\n");
	for (int i = 0; i < 100000; i++)
		fprintf(out, "\"10.0.0.1\", # %d\n", i);
	fprintf(out, "]\n");
	fclose(out);
	cr_expect_eq(parse_only(text), 0);
	free(text);
	text = repeat("", "a=[\"x\n[b\nc='''\n", 100000, "");
	cr_expect_eq(parse_only(text), -EINVAL);
	free(text);
	text = repeat("", "a='''\n", 99999, "");
	cr_expect_eq(parse_only(text), -EINVAL);
	free(text);
}

Test(errors, keeps_the_first_hundred_by_place)
{
	struct config_errors errors = {0};

	for (int i = CONFIG_ERRORS_MAX; i > 0; i--)
		config_errors_add(&errors, i, 1, "e");
	config_errors_finish(&errors);
	cr_expect_eq(errors.n, CONFIG_ERRORS_MAX);
	cr_expect_eq(errors.items[0].line, 1);
	cr_expect_eq(errors.items[CONFIG_ERRORS_MAX - 1].line, CONFIG_ERRORS_MAX);
	config_errors_clear(&errors);

	for (int i = CONFIG_ERRORS_MAX + 2; i > 0; i--)
		config_errors_add(&errors, i, 1, "e");
	config_errors_add(&errors, CONFIG_ERRORS_MAX + 3, 1, "e");
	config_errors_finish(&errors);
	cr_assert_eq(errors.n, CONFIG_ERRORS_MAX + 1);
	for (int i = 0; i < CONFIG_ERRORS_MAX; i++)
		cr_expect_eq(errors.items[i].line, i + 1);
	cr_expect_eq(errors.items[CONFIG_ERRORS_MAX].line, 0);
	cr_expect_str_eq(errors.items[CONFIG_ERRORS_MAX].message, "3 more errors");
	config_errors_clear(&errors);
}

Test(errors, quotes_long_text_at_a_character)
{
	char quoted[QUOTED_MAX],
		text[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\xc3\xa9\xc3\xa9";
	size_t size = strlen(text);

	text_quote("a\0b", 3, quoted);
	cr_expect_str_eq(quoted, "\"a?b\"");
	for (size_t n = size - 10; n <= size; n++) {
		text_quote(text, n, quoted);
		cr_expect_lt(strlen(quoted), QUOTED_MAX);
		cr_expect(n != size || !strcmp(quoted + strlen(quoted) - 5, "x...\""), "%s",
			  quoted);
	}
}

Test(errors, tells_file_and_place)
{
	struct config_error placed = {3, 14, (char *)"wrong"},
			    whole = {0, 0, (char *)"cannot open"};
	char *text = config_error_text("/etc/fwd/fwd.toml", &placed);

	cr_expect_str_eq(text, "/etc/fwd/fwd.toml:3:14: wrong");
	free(text);
	text = config_error_text("x.toml", &whole);
	cr_expect_str_eq(text, "x.toml: cannot open");
	free(text);
}
