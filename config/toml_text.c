// SPDX-License-Identifier: GPL-2.0-or-later
/* Which bytes a file may hold at all: UTF-8, and of the control characters tab and line ends. */
#include "toml_parser.h"

#include "text.h"

#include <string.h>

/* Bytes of the character at hand, or 0 and what is wrong with it. */
static size_t check_character(const struct toml_parser *p, const char **ret_wrong)
{
	unsigned char c = (unsigned char)*p->p;
	size_t size;
	u32 code;

	if (c >= 0x80) {
		size = text_decode(p->p, (size_t)(p->end - p->p), &code);
		if (!size)
			*ret_wrong = "not UTF-8";
		return size;
	}
	if (c == '\r' && p->end - p->p > 1 && p->p[1] == '\n')
		return 1;
	if ((c >= ' ' && c != 0x7f) || c == '\t' || c == '\n')
		return 1;
	*ret_wrong = c == '\r' ? "a carriage return without a line feed" : "a control character";
	return 0;
}

int toml_check_text(struct toml_parser *p)
{
	const char *newline, *wrong;
	int r = 0;

	while (p->p < p->end) {
		size_t size = check_character(p, &wrong);

		if (size == 1) {
			toml_advance(p);
		} else if (size) {
			p->p += size;
		} else if (!*p->p) {
			return toml_fail(p, toml_here(p), "binary data (a NUL byte), not TOML");
		} else {
			r = toml_fail(p, toml_here(p), "%s (byte 0x%02x); TOML is UTF-8 text",
				      wrong, (unsigned char)*p->p);
			newline = memchr(p->p, '\n', (size_t)(p->end - p->p));
			p->p = newline ? newline : p->end;
		}
	}
	return r;
}
