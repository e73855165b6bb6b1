/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Owners on the declaration: a variable marked so is released when it goes out of scope, unless a
 * take moved it out first.
 *
 *   _cleanup_close_ int fd = open(...);
 *   ...
 *   return take_fd(&fd);
 *
 * DEFINE_CLEANUP(type, function) makes `function##p`, for `_cleanup_(functionp)`. Destructors take
 * NULL.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

#define DEFINE_CLEANUP(type, function)          \
	static inline void function##p(type *p) \
	{                                       \
		if (*p)                         \
			function(*p);           \
	}                                       \
	struct cleanup_needs_a_semicolon

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

DEFINE_CLEANUP(FILE *, fclose);

#define _cleanup_free_	 _cleanup_(freep)
#define _cleanup_close_	 _cleanup_(closep)
#define _cleanup_fclose_ _cleanup_(fclosep)

#define take_pointer(p)                         \
	({                                      \
		__typeof__(*(p)) taken_ = *(p); \
		*(p) = NULL;                    \
		taken_;                         \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}
