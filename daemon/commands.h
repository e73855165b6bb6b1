/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each command of the table does (common/command.h); docs/protocol.md has the answers. */
#pragma once

#include "control.h"
#include "daemon.h"

/* The three functions of a control_handler whose data is a struct daemon. */
void commands_run(void *data, struct request *request, struct answer *ret);
json_t *commands_next(void *data, struct listing *listing, bool *ret_more);
void commands_end(struct listing *listing);
