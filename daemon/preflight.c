// SPDX-License-Identifier: GPL-2.0-or-later
#include "preflight.h"

#include "capabilities.h"
#include "kernel.h"
#include "types.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

int preflight_check_privileges(struct error *err)
{
	if (!capability_is_held(CAP_NET_ADMIN) ||
	    !(capability_is_held(CAP_BPF) || capability_is_held(CAP_SYS_ADMIN)))
		return error_set(
			err, -EPERM,
			"not privileged: run it as root, or with CAP_NET_ADMIN, CAP_BPF and "
			"CAP_PERFMON");
	return 0;
}

static int check_kernel(struct error *err)
{
	struct utsname name;
	u32 version;

	if (uname(&name) < 0 || kernel_version_parse(name.release, &version) < 0)
		return error_set(err, -ENOSYS, "cannot tell the kernel's version");
	if (version < KERNEL_OLDEST)
		return error_set(err, -ENOSYS, "kernel %s is too old: fwd needs %s or later",
				 name.release, KERNEL_OLDEST_TEXT);
	return 0;
}

/* The pin directory need not be there yet; then its nearest parent tells. */
int preflight_check_bpffs(const char *pin_dir, struct error *err)
{
	char path[PATH_MAX];
	struct statfs fs;

	snprintf(path, sizeof(path), "%s", pin_dir);
	while (statfs(path, &fs) < 0) {
		char *slash = strrchr(path, '/');

		if (errno != ENOENT || !slash)
			return error_set(err, -errno, "cannot see pin_dir \"%s\": %s", pin_dir,
					 error_name(errno));
		slash[slash == path] = '\0';
	}
	if ((u64)fs.f_type != BPF_FS_MAGIC)
		return error_set(
			err, -ENODEV,
			"pin_dir \"%s\" is not on a BPF file system: mount one first, mount "
			"-t bpf bpf /sys/fs/bpf",
			pin_dir);
	return 0;
}

int preflight_check(const char *pin_dir, struct error *err)
{
	int r = check_kernel(err);

	if (!r)
		r = preflight_check_privileges(err);
	if (!r)
		r = preflight_check_bpffs(pin_dir, err);
	return r;
}
