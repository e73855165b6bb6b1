// SPDX-License-Identifier: GPL-2.0-or-later
/* Strings in all four forms. Each is decoded in one pass, after a first one has found its end. */
#include "toml_parser.h"

#include <string.h>

struct form {
	char quote;
	bool basic;	/* has escapes */
	bool multiline; /* three quotes on each side */
};

/* The closing quotes' first, or NULL. */
static const char *find_close_line(const struct form *form, const char *p, const char *end)
{
	for (; p < end && *p != '\n'; p++) {
		if (*p == form->quote)
			return p;
		if (form->basic && *p == '\\' && end - p > 1 && p[1] != '\n')
			p++;
	}
	return NULL;
}

/* The same; one or two quotes in front of the closing three belong to the string. */
static const char *find_close_multiline(const struct form *form, const char *p, const char *end)
{
	const char close[] = {form->quote, form->quote, form->quote};

	for (; p < end; p++) {
		if ((size_t)(end - p) < sizeof(close))
			return NULL;
		if (form->basic && *p == '\\') {
			p++;
			continue;
		}
		if (memcmp(p, close, sizeof(close)) != 0)
			continue;
		for (int extra = 0; extra < 2 && end - p > 3 && p[3] == form->quote; extra++)
			p++;
		return p;
	}
	return NULL;
}

static size_t encode_utf8(u32 c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *found = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c) : NULL;

	return found ? (int)(found - digits) : -1;
}

/* \uXXXX and \UXXXXXXXX, from the backslash on. */
static int unicode_escape(struct toml_parser *p, const char *close, char **out)
{
	size_t n_digits = p->p[1] == 'u' ? 4 : 8;
	struct toml_position at = toml_here(p);
	u32 c = 0;

	for (size_t i = 2; i < 2 + n_digits; i++) {
		int digit = p->p + i < close ? hex_digit(p->p[i]) : -1;

		if (digit < 0)
			return toml_fail(p, at, "\\%c takes %zu hexadecimal digits", p->p[1],
					 n_digits);
		c = c << 4 | (u32)digit;
	}
	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return toml_fail(p, at, "\\%c%.*s is not a character of Unicode", p->p[1],
				 (int)n_digits, p->p + 2);
	p->p += 2 + n_digits;
	*out += encode_utf8(c, *out);
	return 0;
}

/* A backslash at the end of a line: all white space up to the next text goes. */
static bool skip_continuation(struct toml_parser *p, const char *close)
{
	const char *q = p->p + 1;

	while (q < close && (*q == ' ' || *q == '\t'))
		q++;
	if (q < close && *q == '\r')
		q++;
	if (q == close || *q != '\n')
		return false;
	p->p = q;
	while (p->p < close && strchr(" \t\r\n", *p->p))
		toml_advance(p);
	return true;
}

static int escape(struct toml_parser *p, const struct form *form, const char *close, char **out)
{
	static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
	char c = p->p[1], quoted[QUOTED_MAX];
	const char *name = strchr(names, c);

	if (c == 'u' || c == 'U')
		return unicode_escape(p, close, out);
	if (form->multiline && skip_continuation(p, close))
		return 0;
	if (!name)
		return toml_fail(
			p, toml_here(p),
			"%s is not an escape; expected \\b \\t \\n \\f \\r \\\" \\\\ "
			"\\uXXXX or \\UXXXXXXXX (a string in single quotes has no escapes)",
			text_quote(p->p, (unsigned char)c < 0x80 ? 2 : 1, quoted));
	*(*out)++ = values[name - names];
	p->p += 2;
	return 0;
}

static int decode(struct toml_parser *p, const struct form *form, const char *close, char **out)
{
	int r;

	while (p->p < close) {
		if (form->basic && *p->p == '\\') {
			r = escape(p, form, close, out);
			if (r < 0)
				return r;
			continue;
		}
		*(*out)++ = *p->p;
		toml_advance(p);
	}
	return 0;
}

int toml_parse_string(struct toml_parser *p, bool multiline_allowed, const char **ret_text,
		      u32 *ret_size)
{
	struct form form = {.quote = *p->p, .basic = *p->p == '"'};
	struct toml_position at = toml_here(p);
	const char *close;
	char *text, *out;
	int r;

	form.multiline = p->end - p->p >= 3 && p->p[1] == form.quote && p->p[2] == form.quote;
	if (form.multiline && !multiline_allowed)
		return toml_fail(p, at, "a key cannot be a multi-line string");
	p->p += form.multiline ? 3 : 1;
	close = (form.multiline ? find_close_multiline : find_close_line)(&form, p->p, p->end);
	if (!close)
		return toml_fail(p, at, "the string is not closed: expected %s%c%s",
				 form.multiline ? "three times " : "", form.quote,
				 form.multiline ? "" : " before the end of the line");
	/* What an escape stands for is never longer than the escape. */
	text = out = arena_alloc(&p->toml->arena, (size_t)(close - p->p) + 1);
	if (!text)
		return -ENOMEM;
	if (form.multiline && p->p < close && *p->p == '\r')
		p->p++;
	if (form.multiline && p->p < close && *p->p == '\n')
		toml_advance(p);
	r = decode(p, &form, close, &out);
	if (r < 0)
		return r;
	p->p = close + (form.multiline ? 3 : 1);
	*ret_text = text;
	*ret_size = (u32)(out - text);
	return 0;
}
