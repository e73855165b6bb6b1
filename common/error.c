// SPDX-License-Identifier: GPL-2.0-or-later
#include "error.h"

#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list args;

	if (err) {
		va_start(args, format);
		vsnprintf(err->text, sizeof(err->text), format, args);
		va_end(args);
		text_make_printable(err->text);
	}
	return code;
}

void error_prepend(struct error *err, const char *format, ...)
{
	char old[ERROR_TEXT_MAX];
	va_list args;
	int used;

	if (!err)
		return;
	memcpy(old, err->text, sizeof(old));
	va_start(args, format);
	used = vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	if (used >= 0 && (size_t)used < sizeof(err->text))
		snprintf(err->text + used, sizeof(err->text) - (size_t)used, "%s", old);
	text_make_printable(err->text);
}

const char *error_name(int code)
{
	static _Thread_local char text[128];

	return strerror_r(abs(code), text, sizeof(text));
}

int error_no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}
