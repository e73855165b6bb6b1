/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waiting until no packet's program still holds what it found before. */
#pragma once

#include "cleanup.h"
#include "error.h"

/*
 * Makes what grace_wait() needs, once. The kernel holds an update of a map of maps until all
 * programs that run have ended (maybe_wait_bpf_programs() in kernel/bpf/syscall.c), on every kernel
 * and configuration, which membarrier(2) does not (it refuses under nohz_full).
 */
int grace_open(struct error *err);

void grace_close(void);

/* Every program that runs now has ended when this returns; typically some 10 ms. */
void grace_wait(void);
