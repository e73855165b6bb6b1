/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Help on standard output, all of it out of the command table. */
#pragma once

#include "command.h"

/* Of invocation->command, of the commands of invocation->group, or of all. */
void help_print(const struct invocation *invocation);
