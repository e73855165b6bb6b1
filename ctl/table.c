// SPDX-License-Identifier: GPL-2.0-or-later
#include "table.h"

#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t column_count(const struct table *table)
{
	size_t n = 0;

	while (table->columns[n].title)
		n++;
	return n;
}

/* Characters, not bytes, of printable text. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((u8)*text >> 6) != 2;
	return n;
}

static bool make_room(struct table *table, size_t size)
{
	size_t room = table->room ? table->room : 4096;
	char *text;

	while (room - table->used < size)
		room *= 2;
	if (room == table->room)
		return true;
	text = realloc(table->text, room);
	if (!text)
		return false;
	table->text = text;
	table->room = room;
	return true;
}

void table_cell(struct table *table, const char *format, ...)
{
	va_list args, again;
	int size;

	va_start(args, format);
	va_copy(again, args);
	size = vsnprintf(NULL, 0, format, args);
	if (size < 0 || !make_room(table, (size_t)size + 1)) {
		table->failed = true;
	} else {
		char *cell = table->text + table->used;

		vsnprintf(cell, (size_t)size + 1, format, again);
		text_make_printable(cell);
		table->used += strlen(cell) + 1;
		table->cells++;
	}
	va_end(again);
	va_end(args);
}

static void widen(struct table *table, size_t column, const char *text)
{
	size_t width = width_of(text);

	if (table->widths[column] < width)
		table->widths[column] = width;
}

static void measure(struct table *table, size_t n)
{
	const char *cell = table->text;

	for (size_t i = 0; i < n && !table->begun; i++) {
		table->widths[i] = table->columns[i].width;
		widen(table, i, table->columns[i].title);
	}
	for (size_t i = 0, column = 0; i < table->cells; i++) {
		widen(table, column, cell);
		column = column + 1 == n ? 0 : column + 1;
		cell += strlen(cell) + 1;
	}
}

/* The last column is not padded, so that no line ends in blanks. */
static void print_cell(const struct table *table, size_t column, const char *text)
{
	bool last = !table->columns[column + 1].title;
	int pad = (int)(table->widths[column] - width_of(text));

	if (table->columns[column].right)
		printf("%*s%s%s", pad, "", text, last ? "\n" : "  ");
	else
		printf("%s%*s%s", text, last ? 0 : pad, "", last ? "\n" : "  ");
}

int table_flush(struct table *table)
{
	size_t n = column_count(table);
	const char *cell = table->text;

	if (table->failed)
		return -ENOMEM;
	measure(table, n);
	for (size_t i = 0; i < n && !table->begun; i++)
		print_cell(table, i, table->columns[i].title);
	table->begun = true;
	for (size_t i = 0, column = 0; i < table->cells; i++) {
		print_cell(table, column, cell);
		column = column + 1 == n ? 0 : column + 1;
		cell += strlen(cell) + 1;
	}
	table->used = table->cells = 0;
	return 0;
}

void table_clear(struct table *table)
{
	free(table->text);
	table->text = NULL;
}
