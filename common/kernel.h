/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Versions of the kernel, as numbers that compare. */
#pragma once

#include "types.h"

#define KERNEL_VERSION_OF(major, minor) ((u32)(major) << 16 | (minor))

/* The oldest one that has all that the programs use (bpf_redirect_neigh() and others). */
#define KERNEL_OLDEST	   KERNEL_VERSION_OF(5, 10)
#define KERNEL_OLDEST_TEXT "5.10"

/* Of a release as uname(2) has it: "6.1.0-25-amd64". -EINVAL. */
int kernel_version_parse(const char *release, u32 *ret);
