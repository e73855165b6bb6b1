/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's log: lines on standard error, with a journal priority in front ("<3>") where they go
 * to the journal, and "fwd: " where they go to a terminal or file. From any thread.
 */
#pragma once

#include <syslog.h>

/* Lines of a lower urgency than `level` (LOG_ERR to LOG_DEBUG) are left out. LOG_INFO at first. */
void log_set_level(int level);

void log_line(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)	 log_line(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 log_line(LOG_DEBUG, __VA_ARGS__)

/* Sends the messages of libbpf and libxdp here, at debug level: our own errors say it once. */
void log_adopt_libraries(void);
