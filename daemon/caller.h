/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a client of the control socket is logged in from. */
#pragma once

#include "control.h"
#include "guard.h"

/*
 * The addresses of the other end of the caller's SSH session: what the request says of it, which is
 * the caller's own concern, and what logind knows of the caller's session. Returns how many there
 * are. Reads some small files of /proc and /run, which never block.
 */
size_t caller_sessions(const struct request *request, struct prefix ret[static GUARD_SESSIONS_MAX]);
