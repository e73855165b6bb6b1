// SPDX-License-Identifier: GPL-2.0-or-later
#include "text.h"

#include <string.h>

#define CHARACTER_MAX 4 /* bytes */

/* The bytes of the character that starts with this one; 0: none does. */
static size_t sequence_size(u8 first)
{
	if (first < 0x80)
		return 1;
	if (first >> 5 == 0x6)
		return 2;
	if (first >> 4 == 0xe)
		return 3;
	return first >> 3 == 0x1e ? 4 : 0;
}

size_t text_decode(const char *text, size_t size, u32 *ret)
{
	static const u32 least[] = {0, 0, 0x80, 0x800, 0x10000}; /* shorter forms are refused */
	const u8 *p = (const u8 *)text;
	size_t n = size ? sequence_size(*p) : 0;
	u32 c;

	if (!n || n > size)
		return 0;
	c = n == 1 ? *p : *p & (0x7fu >> n);

	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return n;
}

static bool is_printable(u32 c)
{
	if (c < ' ' || (c >= 0x7f && c <= 0x9f))
		return false;
	/* Unicode's Bidi_Control, and the line and paragraph separators (PropList.txt). */
	return c != 0x61c && c != 0x200e && c != 0x200f && !(c >= 0x2028 && c <= 0x202e) &&
	       !(c >= 0x2066 && c <= 0x2069);
}

bool text_is_printable(const char *text)
{
	while (*text) {
		u32 c;
		size_t n = text_decode(text, CHARACTER_MAX, &c);

		if (!n || !is_printable(c))
			return false;
		text += n;
	}
	return true;
}

void text_make_printable(char *text)
{
	char *out = text;

	while (*text) {
		u32 c;
		size_t n = text_decode(text, CHARACTER_MAX, &c);

		if (n && is_printable(c)) {
			memmove(out, text, n);
			out += n;
		} else {
			*out++ = '?';
		}
		text += n ? n : 1;
	}
	*out = '\0';
}
