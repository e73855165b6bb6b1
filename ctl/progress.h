/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line on the terminal for people who wait for a list to take effect. It appears after a second
 * and is gone when the answer is there.
 */
#pragma once

#include "types.h"

/* Starts as {.command, .list_fd}. */
struct progress {
	const char *command;
	int list_fd;	/* of which the lines are counted once it is worth it */
	size_t n_lines; /* 0: not counted yet */
	int width;	/* of what stands on the terminal */
};

/* Shows, or brings up to date, the line; a client_waiting_fn whose `data` is a struct progress. */
void progress_show(void *data, int waited_s);

/* Leaves no trace of it. */
void progress_erase(struct progress *progress);
