// SPDX-License-Identifier: GPL-2.0-or-later
#include "lend.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/*
 * The numbers: the upper quarter of as many descriptors as the daemon has use for (FILES_WANTED),
 * or of those that it may have. libxdp asks for some two hundred at most, in ten tries to attach
 * among ten programs.
 */
#define NUMBERS_MAX 8192
#define LENT_MAX    (NUMBERS_MAX / 4)

static _Thread_local struct {
	bool on;
	int first;
	bool given[LENT_MAX];
} lent;

void lend_begin(void)
{
	struct rlimit limit;

	lent.on = !getrlimit(RLIMIT_NOFILE, &limit);
	lent.first = (limit.rlim_cur < NUMBERS_MAX ? (int)limit.rlim_cur : NUMBERS_MAX) / 4 * 3;
}

void lend_end(void)
{
	for (int i = 0; i < LENT_MAX; i++)
		if (lent.given[i])
			close(lent.first + i);
	memset(lent.given, 0, sizeof(lent.given));
	lent.on = false;
}

int lend(int fd)
{
	int saved = errno, high;

	if (!lent.on || fd < 0)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, lent.first);
	if (high >= lent.first + LENT_MAX)
		close(high);
	/* Without a number it is lost where the library loses it. */
	if (high >= 0 && high < lent.first + LENT_MAX) {
		close(fd);
		lent.given[high - lent.first] = true;
		fd = high;
	}
	errno = saved;
	return fd;
}

int bpf_obj_get(const char *path)
{
	return lend(bpf_obj_get_opts(path, NULL));
}
