// SPDX-License-Identifier: GPL-2.0-or-later
#include "private_bpffs.h"

#include "error.h"
#include "grace.h"
#include "log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void enter_private_bpffs(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct error err;

	if (geteuid() != 0)
		cr_skip_test("needs root: it loads BPF programs");
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0)
		cr_skip_test("needs namespaces: %s", strerror(errno));
	log_adopt_libraries();
	/* Before 5.11 maps count against it. */
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	cr_assert_eq(mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%s", strerror(errno));
	cr_assert_eq(mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL), 0, "%s", strerror(errno));
	cr_assert_eq(mkdir(PIN_DIR, 0700), 0, "%s", strerror(errno));
	cr_assert_eq(grace_open(&err), 0, "%s", err.text);
}
