// SPDX-License-Identifier: GPL-2.0-or-later
#include "kernel.h"

#include <errno.h>
#include <stdio.h>

int kernel_version_parse(const char *release, u32 *ret)
{
	unsigned major, minor;

	if (sscanf(release, "%4u.%4u", &major, &minor) != 2)
		return -EINVAL;
	*ret = KERNEL_VERSION_OF(major, minor);
	return 0;
}
