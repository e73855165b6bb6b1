/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the user of fwctl is logged in from by SSH. */
#pragma once

#include "prefix.h"

/*
 * From the environment, which sshd(8) has set; where sudo(8) or su(1) have cleaned it, from that of
 * the nearest ancestor that has it and may be looked at. False: there is none.
 */
bool ssh_client_find(struct prefix *ret);
