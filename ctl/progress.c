// SPDX-License-Identifier: GPL-2.0-or-later
#include "progress.h"

#include "number.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The offset of the descriptor, which the daemon shares, stays where it is. */
static size_t count_lines(int fd)
{
	static char chunk[64 << 10];
	char last = '\n';
	off_t at = 0;
	size_t n = 0;
	ssize_t size;

	while ((size = pread(fd, chunk, sizeof(chunk), at)) > 0) {
		for (ssize_t i = 0; i < size; i++)
			n += chunk[i] == '\n';
		last = chunk[size - 1];
		at += size;
	}
	return n + (last != '\n');
}

/* What fits on one line: one that wraps could not be erased. */
static int columns(void)
{
	struct winsize window;

	return !ioctl(STDERR_FILENO, TIOCGWINSZ, &window) && window.ws_col ? window.ws_col - 1 : 79;
}

void progress_show(void *data, int waited_s)
{
	struct progress *progress = data;
	char lines[NUMBER_TEXT_MAX], text[160];
	int width;

	if (!progress->n_lines)
		progress->n_lines = count_lines(progress->list_fd);
	number_format((s64)progress->n_lines, lines);
	snprintf(text, sizeof(text), "%s: %s line%s sent, waiting for the daemon: %d s",
		 progress->command, lines, progress->n_lines == 1 ? "" : "s", waited_s);
	width = columns();
	if (width > (int)strlen(text))
		width = (int)strlen(text);
	progress_erase(progress);
	fprintf(stderr, "%.*s", width, text);
	fflush(stderr);
	progress->width = width;
}

void progress_erase(struct progress *progress)
{
	if (progress->width)
		fprintf(stderr, "\r%*s\r", progress->width, "");
	progress->width = 0;
}
