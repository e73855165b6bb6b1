/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one shape of a failure: a negative errno as the return value, and a sentence for a person.
 *
 * A function that can fail for a reason worth telling takes a `struct error *` last (before its
 * ret_ outputs), fills it in once, where the failure is seen, and does not log. Callers put context
 * in front with error_prepend(). main() and the control socket print it, once.
 *
 * A sentence names what was tried, the value in quotes and the accepted form. It has no capital at
 * the start and no full stop at the end, since context goes in front. It is printable (text.h)
 * whatever it quotes: what is not becomes '?'.
 */
#pragma once

#define ERROR_TEXT_MAX 1024

struct error {
	char text[ERROR_TEXT_MAX];
};

/* Fills in the text and returns `code`, a negative errno. `err` may be NULL. */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT" in front of the text that is there. A text too long loses its end. */
void error_prepend(struct error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* strerror() into thread-local memory; takes positive or negative errno. */
const char *error_name(int code);

/* error_set() with -ENOMEM and the one text for it. */
int error_no_memory(struct error *err);
