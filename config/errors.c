// SPDX-License-Identifier: GPL-2.0-or-later
#include "errors.h"

#include "cleanup.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_before(int line, int column, const struct config_error *error)
{
	return line != error->line ? line < error->line : column < error->column;
}

static bool is_kept(const struct config_errors *errors, int line, int column)
{
	return errors->n < CONFIG_ERRORS_MAX ||
	       is_before(line, column, &errors->items[errors->n - 1]);
}

/* Into its place, behind others of the same; the last goes where there are too many. */
static void insert(struct config_errors *errors, const struct config_error *error)
{
	size_t at = errors->n;

	if (errors->n == CONFIG_ERRORS_MAX) {
		free(errors->items[--errors->n].message);
		errors->n_more++;
		at--;
	}
	while (at && is_before(error->line, error->column, &errors->items[at - 1]))
		at--;
	memmove(&errors->items[at + 1], &errors->items[at],
		(errors->n - at) * sizeof(*errors->items));
	errors->items[at] = *error;
	errors->n++;
}

void config_errors_add_in(struct config_errors *errors, int line, int column, const char *context,
			  const char *format, va_list args)
{
	_cleanup_free_ char *text = NULL;
	struct config_error error = {line, column, NULL};

	/* One more than are kept, for the note of config_errors_finish(). */
	if (!errors->items)
		errors->items = calloc(CONFIG_ERRORS_MAX + 1, sizeof(*errors->items));
	/* Before it costs anything: a hostile file has millions of errors. */
	if (!errors->items || !is_kept(errors, line, column)) {
		errors->n_more++;
		return;
	}
	if (vasprintf(&text, format, args) < 0 ||
	    asprintf(&error.message, "%s%s%s", context, *context ? ": " : "", text) < 0) {
		errors->n_more++;
		return;
	}
	text_make_printable(error.message);
	insert(errors, &error);
}

void config_errors_add(struct config_errors *errors, int line, int column, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	config_errors_add_in(errors, line, column, "", format, args);
	va_end(args);
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
	stpcpy(out, n < size ? "...\"" : "\"");
	return ret_quoted;
}
