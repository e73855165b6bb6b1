/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers as people read them. */
#pragma once

#include "types.h"

/* "-9,223,372,036,854,775,808" and its NUL. */
#define NUMBER_TEXT_MAX 27

/* "1,234". Returns `text`. */
const char *number_format(s64 number, char text[static NUMBER_TEXT_MAX]);

/* "512 bytes", "43.1 MiB". Returns `text`. */
const char *size_format(s64 bytes, char text[static NUMBER_TEXT_MAX]);
