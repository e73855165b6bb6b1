/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Capabilities, capabilities(7). They are a thread's own, and a thread inherits them from the one
 * that makes it: so what is given up is given up before there are threads.
 */
#pragma once

#include "error.h"
#include "types.h"

#define CAPABILITY(cap) (1ull << (cap))

/* Whether the calling thread has it in effect. */
bool capability_is_held(int cap);

/*
 * Gives up all but CAPABILITY(...) | ..., for good: also by execve(2), whatever the file
 * (no_new_privs). Those that the thread does not have, it does not get. Without CAP_SETPCAP the
 * bounding set stays as it is.
 */
int capabilities_keep(u64 keep, struct error *err);

/* The same for all that the daemon does once its socket is there and its broker runs. */
int capabilities_keep_for_service(struct error *err);
