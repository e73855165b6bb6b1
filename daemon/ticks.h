/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When an entry was last hit. The programs note it in ticks of the kernel (bpf_jiffies64()), which
 * cost them one load, where a clock would cost three times as much as the rest of a look-up. Ticks
 * stand still in a suspend, so that what was hit before one seems later than it was by that time.
 */
#pragma once

#include "error.h"
#include "types.h"

/* Loads the program that tells the tick it is, once. */
int ticks_open(struct error *err);
void ticks_close(void);

/*
 * Seconds of CLOCK_REALTIME of a fwd_entry's last_hit, which is not 0: true to a second, as a unit
 * of it is 0.64 s at most.
 */
s64 ticks_to_wall_s(u32 last_hit);
