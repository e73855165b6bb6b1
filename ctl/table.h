/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Columns of text on standard output. Rows are gathered cell by cell and printed by
 * table_flush(), which may be called again and again: a list of a million rows is printed piece by
 * piece as it arrives. The widths are those of the widest cells so far, so each piece lines up in
 * itself, and with the pieces before unless it has a wider cell.
 */
#pragma once

#include "types.h"

#define TABLE_COLUMNS_MAX 8

struct column {
	const char *title; /* NULL: there are no more columns */
	bool right;	   /* numbers: flush with the right edge */
	size_t width;	   /* the least one */
};

/* Starts as {.columns = ...}; released with table_clear(). */
struct table {
	const struct column *columns;
	size_t widths[TABLE_COLUMNS_MAX];
	char *text; /* cells, a NUL behind each */
	size_t used, room, cells;
	bool begun;  /* the header was printed */
	bool failed; /* out of memory */
};

/* The next cell, from left to right and top to bottom. Not printable characters become '?'. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the rows gathered since the last call, below a header the first time. -ENOMEM. */
int table_flush(struct table *table);

void table_clear(struct table *table);
