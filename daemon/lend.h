/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that libxdp looks programs up by. libxdp 1.3 makes a copy of each and loses the first
 * one: the program stays then, with all the memory of the bank that it uses, for as long as the
 * daemon runs. So libxdp is lent such descriptors, with numbers that nothing else has, and what it
 * leaves of them is closed. Where it closes them itself that is no matter.
 *
 * The library's calls come here as they come to the broker (broker.h), whose functions lend, too;
 * lend.c defines bpf_obj_get().
 */
#pragma once

/*
 * From the one to the other what this thread opens by an id or a pin is lent: nothing that is to
 * stay may be opened so. Not within itself, and by one thread at a time.
 */
void lend_begin(void);
void lend_end(void);

/* For what opens: the descriptor to return in the place of `fd`, which may be negative. */
int lend(int fd);
