// SPDX-License-Identifier: GPL-2.0-or-later
#include "errors.h"

#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_before(int line, int column, const struct config_error *error)
{
	return line != error->line ? line < error->line : column < error->column;
}

/* Makes room at the error's place. False: it comes after all that are kept, or memory is out. */
static bool make_room(struct config_errors *errors, int line, int column, size_t *ret)
{
	size_t at = errors->n;

	if (!errors->items) {
		/* One more for the note of config_errors_finish(). */
		errors->items = calloc(CONFIG_ERRORS_MAX + 1, sizeof(*errors->items));
		if (!errors->items)
			return false;
	}
	while (at && is_before(line, column, &errors->items[at - 1]))
		at--;
	if (at == CONFIG_ERRORS_MAX)
		return false;
	if (errors->n == CONFIG_ERRORS_MAX) {
		free(errors->items[--errors->n].message);
		errors->n_more++;
	}
	memmove(&errors->items[at + 1], &errors->items[at],
		(errors->n - at) * sizeof(*errors->items));
	errors->n++;
	*ret = at;
	return true;
}

void config_errors_add(struct config_errors *errors, int line, int column, const char *format, ...)
{
	char *message;
	va_list args;
	size_t at;
	int n;

	va_start(args, format);
	n = vasprintf(&message, format, args);
	va_end(args);
	if (n < 0) {
		errors->n_more++;
		return;
	}
	text_make_printable(message);
	if (!make_room(errors, line, column, &at)) {
		errors->n_more++;
		free(message);
		return;
	}
	errors->items[at] = (struct config_error){line, column, message};
}

void config_errors_finish(struct config_errors *errors)
{
	char *message;

	if (!errors->n_more || !errors->items ||
	    asprintf(&message, "%zu more %s", errors->n_more,
		     errors->n_more == 1 ? "error" : "errors") < 0)
		return;
	errors->items[errors->n++] = (struct config_error){0, 0, message};
	errors->n_more = 0;
}

void config_errors_clear(struct config_errors *errors)
{
	for (size_t i = 0; i < errors->n; i++)
		free(errors->items[i].message);
	free(errors->items);
	*errors = (struct config_errors){0};
}

char *config_error_text(const char *file, const struct config_error *error)
{
	char *text;
	int n;

	if (error->line)
		n = asprintf(&text, "%s:%d:%d: %s", file, error->line, error->column,
			     error->message);
	else
		n = asprintf(&text, "%s: %s", file, error->message);
	return n < 0 ? NULL : text;
}

const char *text_quote(const char *text, size_t size, char ret_quoted[static QUOTED_MAX])
{
	size_t room = QUOTED_MAX - sizeof("\"...\""), n = size < room ? size : room;
	char *out = ret_quoted;

	/* Not within a character of UTF-8. */
	while (n < size && n && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	*out++ = '"';
	for (size_t i = 0; i < n; i++)
		*out++ = text[i] ? text[i] : '?';
	strcpy(out, n < size ? "...\"" : "\"");
	return ret_quoted;
}
