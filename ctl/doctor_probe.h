/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trying things out in the kernel, so that nothing of it stays or is seen by anybody. */
#pragma once

#include "types.h"

#include <bpf/bpf.h>

/* Loads the smallest program of a type, XDP or TC; it lets packets pass. -errno. */
int probe_load(enum bpf_prog_type type, u32 flags, int *ret_fd);

/*
 * Runs `attempt` in a child process, in a network namespace of its own that has nothing but `lo`,
 * down, of index 1. 0 or -errno of the attempt in *ret_result; -errno: it could not be tried.
 */
int probe_in_namespace(int (*attempt)(int arg), int arg, int *ret_result);

/* For probe_in_namespace(): the XDP program `fd` on lo, generically; the clsact qdisc on it. */
int probe_attach_xdp(int fd);
int probe_add_clsact(int unused);

/*
 * Replaces a function of a program by another program (freplace), as libxdp's dispatcher has to. 0,
 * or -errno and the step that failed, in words.
 */
int probe_replace_function(const char **ret_step);
