// SPDX-License-Identifier: GPL-2.0-or-later
#include "log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xdp/libxdp.h>

static _Atomic int max_priority = LOG_INFO;

void log_set_level(int level)
{
	max_priority = level;
}

/* systemd.exec(5): JOURNAL_STREAM holds device and inode of the journal's end of standard error. */
static bool goes_to_journal(void)
{
	static _Atomic int known = -1;
	const char *stream;
	char own[64] = "";
	struct stat st;

	if (known < 0) {
		stream = getenv("JOURNAL_STREAM");
		if (stream && !fstat(2, &st))
			snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)st.st_dev,
				 (unsigned long long)st.st_ino);
		known = stream && !strcmp(own, stream);
	}
	return known;
}

/* The second argument is a format for the va_list behind it. */
#define PRINTF_OF_LIST __attribute__((format(printf, 2, 0)))

PRINTF_OF_LIST static void write_line(int priority, const char *format, va_list args)
{
	char line[2048];
	int used;

	if (priority > max_priority)
		return;
	used = goes_to_journal() ? snprintf(line, sizeof(line), "<%d>", priority)
				 : snprintf(line, sizeof(line), "fwd: ");
	vsnprintf(line + used, sizeof(line) - (size_t)used, format, args);
	line[strcspn(line, "\n")] = '\0';
	fprintf(stderr, "%s\n", line);
}

void log_line(int priority, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line(priority, format, args);
	va_end(args);
}

PRINTF_OF_LIST static int from_libbpf(enum libbpf_print_level level, const char *format,
				      va_list args)
{
	if (level <= LIBBPF_INFO)
		write_line(LOG_DEBUG, format, args);
	return 0;
}

PRINTF_OF_LIST static int from_libxdp(enum libxdp_print_level level, const char *format,
				      va_list args)
{
	if (level <= LIBXDP_INFO)
		write_line(LOG_DEBUG, format, args);
	return 0;
}

void log_adopt_libraries(void)
{
	libbpf_set_print(from_libbpf);
	libxdp_set_print(from_libxdp);
}
