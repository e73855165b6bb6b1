// SPDX-License-Identifier: GPL-2.0-or-later
#include "text.h"

#include "error.h"
#include "types.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void becomes(const char *text, const char *expected)
{
	char copy[64];

	strcpy(copy, text);
	text_make_printable(copy);
	cr_expect_str_eq(copy, expected);
	cr_expect(text_is_printable(copy));
	cr_expect_eq(text_is_printable(text), !strcmp(text, expected), "%s", expected);
}

Test(text, leaves_writing_of_all_kinds_alone)
{
	becomes("", "");
	becomes("plain ~!", "plain ~!");
	becomes("Grüße, 東京 \xf0\x9f\x94\xa5", "Grüße, 東京 \xf0\x9f\x94\xa5");
	becomes("\xc2\xa0", "\xc2\xa0");		 /* U+00A0, one past C1 */
	becomes("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"); /* U+10FFFF */
}

Test(text, replaces_control_characters)
{
	becomes("\x1b[31m", "?[31m");
	becomes("a\nb\tc\rd\x7f", "a?b?c?d?");
	becomes("\xc2\x80\xc2\x9b\xc2\x9f", "???"); /* C1 */
}

Test(text, replaces_what_turns_or_breaks_a_line)
{
	becomes("\u202eexe.txt\u202c", "?exe.txt?");
	becomes("\u2066\u2069\u200e\u200f\u061c", "?????");
	becomes("\u2028\u2029", "??");
	becomes("\u200d\u2027\u202f\u2065\u206a", "\u200d\u2027\u202f\u2065\u206a");
}

Test(text, replaces_each_byte_that_is_not_utf8)
{
	becomes("\xff\xfe", "??");
	becomes("\x80", "?");
	becomes("\xc3", "?");
	becomes("\xc3(", "?(");
	becomes("\xe6\x9d", "??");	     /* cut */
	becomes("\xc0\xaf", "??");	     /* overlong '/' */
	becomes("\xe0\x80\xaf", "???");	     /* overlong */
	becomes("\xed\xa0\x80", "???");	     /* a surrogate */
	becomes("\xf4\x90\x80\x80", "????"); /* U+110000 */
	becomes("\xf8\x88\x80\x80\x80", "?????");
}

Test(error, is_printable_whatever_it_quotes)
{
	struct error err;

	cr_expect_eq(error_set(&err, -EINVAL, "\"%.3s\"", "\xe6\x9d\xb1"), -EINVAL);
	cr_expect_str_eq(err.text, "\"\xe6\x9d\xb1\"");
	error_set(&err, 0, "\"%.2s\"", "\xe6\x9d\xb1");
	cr_expect_str_eq(err.text, "\"??\"");
	error_prepend(&err, "%s: ", "\x1b");
	cr_expect_str_eq(err.text, "?: \"??\"");
}

Test(error, a_text_too_long_loses_its_end)
{
	char text[ERROR_TEXT_MAX + 1];
	struct error err;

	memset(text, 'x', sizeof(text));
	text[ERROR_TEXT_MAX] = '\0';
	error_set(&err, 0, "%s", text);
	cr_expect_eq(strlen(err.text), ERROR_TEXT_MAX - 1);
	error_prepend(&err, "file:%d: ", 17);
	cr_expect_eq(strlen(err.text), ERROR_TEXT_MAX - 1);
	cr_expect(!strncmp(err.text, "file:17: xxx", 12));
	error_prepend(&err, "%s", text);
	cr_expect_eq(strlen(err.text), ERROR_TEXT_MAX - 1);
}

Test(error, may_be_left_out)
{
	cr_expect_eq(error_set(NULL, -EIO, "x"), -EIO);
	cr_expect_eq(error_no_memory(NULL), -ENOMEM);
	error_prepend(NULL, "x");
}
