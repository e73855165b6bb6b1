// SPDX-License-Identifier: GPL-2.0-or-later
/* Values that are one word: booleans, numbers, dates and times. Each reader takes all or nothing.
 */
#include "toml.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <string.h>

struct cursor {
	const char *p, *end;
};

static bool accept(struct cursor *c, char wanted)
{
	if (c->p == c->end || *c->p != wanted)
		return false;
	c->p++;
	return true;
}

static bool accept_either(struct cursor *c, char one, char other)
{
	return accept(c, one) || accept(c, other);
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 16;
}

static bool at_digit(const struct cursor *c, int base)
{
	return c->p < c->end && digit_value(*c->p) < base;
}

/* One digit or more, with single underscores between them. */
static bool skip_digits(struct cursor *c, int base)
{
	do {
		if (!at_digit(c, base))
			return false;
		while (at_digit(c, base))
			c->p++;
	} while (accept(c, '_'));
	return true;
}

static int parse_integer(const char *text, size_t size, struct toml_node *ret)
{
	struct cursor c = {text, text + size};
	bool negative = accept(&c, '-');
	const char *digits;
	int base = 10;
	int64_t value = 0;

	if (!negative && !accept(&c, '+') && c.end - c.p > 2 && c.p[0] == '0') {
		base = c.p[1] == 'x' ? 16 : c.p[1] == 'o' ? 8 : c.p[1] == 'b' ? 2 : 10;
		if (base != 10)
			c.p += 2;
	}
	digits = c.p;
	if (!skip_digits(&c, base) || c.p != c.end)
		return -EINVAL;
	if (base == 10 && *digits == '0' && c.end - digits > 1)
		return -EINVAL;
	/* Downwards, since INT64_MIN has no positive counterpart. */
	for (; digits < c.end; digits++) {
		if (*digits == '_')
			continue;
		if (__builtin_mul_overflow(value, base, &value) ||
		    __builtin_sub_overflow(value, digit_value(*digits), &value))
			return -ERANGE;
	}
	if (!negative && __builtin_sub_overflow(0, value, &value))
		return -ERANGE;
	ret->type = TOML_INTEGER;
	ret->integer = value;
	return 0;
}

static bool is_float(const char *text, size_t size)
{
	struct cursor c = {text, text + size};
	const char *whole;
	bool fraction;

	accept_either(&c, '+', '-');
	whole = c.p;
	if (!skip_digits(&c, 10) || (*whole == '0' && c.p - whole > 1))
		return false;
	fraction = accept(&c, '.');
	if (fraction && !skip_digits(&c, 10))
		return false;
	if (accept_either(&c, 'e', 'E')) {
		accept_either(&c, '+', '-');
		if (!skip_digits(&c, 10))
			return false;
	} else if (!fraction) {
		return false;
	}
	return c.p == c.end;
}

/* "inf" and "nan" with or without a sign. */
static bool parse_special_float(const char *text, size_t size, double *ret)
{
	bool has_sign = size && (*text == '+' || *text == '-');
	const char *word = text + has_sign;
	double value;

	if (size - has_sign != 3)
		return false;
	if (!memcmp(word, "inf", 3))
		value = INFINITY;
	else if (!memcmp(word, "nan", 3))
		value = NAN;
	else
		return false;
	*ret = *text == '-' ? -value : value;
	return true;
}

static int parse_float(const char *text, size_t size, struct toml_node *ret)
{
	_cleanup_free_ char *plain = NULL;
	double value;
	size_t n = 0;

	if (!parse_special_float(text, size, &value)) {
		if (!is_float(text, size))
			return -EINVAL;
		plain = malloc(size + 1);
		if (!plain)
			return -ENOMEM;
		for (size_t i = 0; i < size; i++)
			if (text[i] != '_')
				plain[n++] = text[i];
		plain[n] = '\0';
		value = strtod(plain, NULL);
	}
	ret->type = TOML_FLOAT;
	ret->number = value;
	return 0;
}

/* Exactly `n` digits. */
static bool read_fixed(struct cursor *c, int n, unsigned max, unsigned *ret)
{
	unsigned value = 0;

	for (; n; n--) {
		if (!at_digit(c, 10))
			return false;
		value = value * 10 + (unsigned)digit_value(*c->p++);
	}
	*ret = value;
	return value <= max;
}

static unsigned days_in(unsigned year, unsigned month)
{
	static const u8 days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : days[month - 1];
}

static bool read_date(struct cursor *c, struct toml_datetime *ret)
{
	unsigned year, month, day;

	if (!read_fixed(c, 4, 9999, &year) || !accept(c, '-') || !read_fixed(c, 2, 12, &month) ||
	    !accept(c, '-') || !month || !read_fixed(c, 2, days_in(year, month), &day) || !day)
		return false;
	ret->year = (u16)year;
	ret->month = (u8)month;
	ret->day = (u8)day;
	return true;
}

static bool read_time(struct cursor *c, struct toml_datetime *ret)
{
	unsigned hour, minute, second, scale = 100000000;

	/* RFC 3339, section 5.6: 60 is a leap second. */
	if (!read_fixed(c, 2, 23, &hour) || !accept(c, ':') || !read_fixed(c, 2, 59, &minute) ||
	    !accept(c, ':') || !read_fixed(c, 2, 60, &second))
		return false;
	ret->hour = (u8)hour;
	ret->minute = (u8)minute;
	ret->second = (u8)second;
	if (!accept(c, '.'))
		return true;
	if (!at_digit(c, 10))
		return false;
	for (; at_digit(c, 10); scale /= 10)
		ret->nanosecond += (u32)digit_value(*c->p++) * scale;
	return true;
}

static bool read_offset(struct cursor *c, struct toml_datetime *ret)
{
	bool west = c->p < c->end && *c->p == '-';
	unsigned hour, minute;

	if (accept_either(c, 'Z', 'z'))
		return true;
	if (!accept_either(c, '+', '-') || !read_fixed(c, 2, 23, &hour) || !accept(c, ':') ||
	    !read_fixed(c, 2, 59, &minute))
		return false;
	ret->offset_min = (int16_t)((int)(hour * 60 + minute) * (west ? -1 : 1));
	return true;
}

static int parse_datetime(const char *text, size_t size, struct toml_node *ret)
{
	struct cursor c = {text, text + size};
	struct toml_datetime value = {0};
	enum toml_type type = TOML_LOCAL_TIME;

	if (size > 2 && text[2] != ':') {
		if (!read_date(&c, &value))
			return -EINVAL;
		type = TOML_LOCAL_DATE;
	}
	if (type == TOML_LOCAL_TIME || c.p < c.end) {
		if (type == TOML_LOCAL_DATE) {
			if (!accept_either(&c, 'T', 't') && !accept(&c, ' '))
				return -EINVAL;
			type = TOML_LOCAL_DATETIME;
		}
		if (!read_time(&c, &value))
			return -EINVAL;
	}
	if (type == TOML_LOCAL_DATETIME && c.p < c.end) {
		if (!read_offset(&c, &value))
			return -EINVAL;
		type = TOML_OFFSET_DATETIME;
	}
	if (c.p != c.end)
		return -EINVAL;
	ret->type = (u8)type;
	ret->datetime = value;
	return 0;
}

static int parse_boolean(const char *text, size_t size, struct toml_node *ret)
{
	bool value = size == 4 && !memcmp(text, "true", 4);

	if (!value && (size != 5 || memcmp(text, "false", 5) != 0))
		return -EINVAL;
	ret->type = TOML_BOOLEAN;
	ret->boolean = value;
	return 0;
}

/* "2024-" and "07:" start a date or a time and nothing else. */
static bool looks_like_datetime(const char *text, size_t size)
{
	size_t digits = 0;

	while (digits < size && isdigit((unsigned char)text[digits]))
		digits++;
	return (digits == 4 && digits < size && text[4] == '-') ||
	       (digits == 2 && digits < size && text[2] == ':');
}

static int refuse(const char *text, size_t size, int code, struct error *err)
{
	char quoted[QUOTED_MAX];

	text_quote(text, size, quoted);
	if (code == -ENOMEM)
		return error_no_memory(err);
	if (code == -ERANGE)
		return error_set(err, code, "%s does not fit in 64 bits", quoted);
	if (looks_like_datetime(text, size))
		return error_set(err, code,
				 "%s is not a date or time, such as 2006-01-02, 15:04:05 or "
				 "2006-01-02T15:04:05Z",
				 quoted);
	if (size && (isdigit((unsigned char)*text) || *text == '+' || *text == '-' || *text == '.'))
		return error_set(err, code,
				 "%s is not a number, such as 42, 0x2a or 4.2; text stands in "
				 "quotes",
				 quoted);
	return error_set(err, code,
			 "%s is not a value: a string stands in quotes, a boolean is true or false",
			 quoted);
}

int toml_scalar_parse(const char *text, size_t size, struct toml_node *ret, struct error *err)
{
	int r = parse_boolean(text, size, ret);

	if (r == -EINVAL)
		r = parse_integer(text, size, ret);
	if (r == -EINVAL)
		r = parse_float(text, size, ret);
	if (r == -EINVAL)
		r = parse_datetime(text, size, ret);
	return r < 0 ? refuse(text, size, r, err) : 0;
}
