/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `fwctl doctor`: what this host can do for fwd, and what stands in the way. It examines the host
 * itself, so it works where no daemon starts; of a daemon that answers it takes what `status`
 * tells.
 *
 * Nothing is disturbed: programs are loaded and let go, and attached only in a network namespace
 * that a child process makes and leaves.
 */
#pragma once

#include "error.h"

#include <jansson.h>

/*
 * The findings, as an answer of the daemon would be; the caller owns it. "problems" is how many of
 * them are some.
 *
 *   {"ok": true, "problems": 1, "notes": 0, "findings": [
 *     {"id": "bpffs", "subject": null, "state": "problem", "text": "...", "remedy": "..."}]}
 */
int doctor_examine(const char *socket_path, json_t **ret, struct error *err);
