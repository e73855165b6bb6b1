/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All that is wrong with a file, each with its place. Whoever sees an error adds it and goes on, so
 * that a user mends a file in one round.
 */
#pragma once

#include "types.h"

#include <stdarg.h>

/* Line and column count from 1, the column in bytes; 0: the file as a whole. */
struct config_error {
	int line, column;
	char *message;
};

struct config_errors {
	struct config_error *items; /* by position */
	size_t n;
	size_t n_more; /* that were not kept */
};

/* More are not kept; the last then says how many more there are. */
#define CONFIG_ERRORS_MAX 100

/* The room that text_quote() needs. */
#define QUOTED_MAX 96

/*
 * Adds one in its place; of too many, those that come first in the file are kept. What is not
 * printable in the message (text.h) becomes '?'.
 */
void config_errors_add(struct config_errors *errors, int line, int column, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* The same with "CONTEXT: " in front, unless that is empty. */
void config_errors_add_in(struct config_errors *errors, int line, int column, const char *context,
			  const char *format, va_list args) __attribute__((format(printf, 5, 0)));

/* Once all are added: says at the end how many were not kept. */
void config_errors_finish(struct config_errors *errors);

void config_errors_clear(struct config_errors *errors);

/* "FILE:LINE:COLUMN: message" into allocated memory; NULL when out of memory. */
char *config_error_text(const char *file, const struct config_error *error);

/* Text of a file in quotes, for an error: cut where it is long, and without NUL. */
const char *text_quote(const char *text, size_t size, char ret_quoted[static QUOTED_MAX]);
