/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text of others on its way to a terminal or a log. Printable is valid UTF-8 (RFC 3629) without
 * control characters (C0, DEL, C1), line separators, and marks that turn the direction of writing.
 */
#pragma once

#include "types.h"

/* The size of the UTF-8 character at the start of `size` bytes, or 0. Does not look behind a NUL.
 */
size_t text_decode(const char *text, size_t size, u32 *ret);

bool text_is_printable(const char *text);

/* Puts a '?' in the place of each character, or byte that belongs to none, that is not. */
void text_make_printable(char *text);
