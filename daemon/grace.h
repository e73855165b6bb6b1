/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Grace periods: the time until no packet's program still holds what it found before. A thread
 * waits for them, so that nobody else has to: who unhooked something takes a ticket, goes on, and
 * uses it again once the ticket's period is over. Any number of tickets share one period. From any
 * thread, but for opening and closing.
 */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "types.h"

/*
 * Makes what is needed and starts the thread; another time it changes nothing. The kernel holds an
 * update of a map of maps until all programs that run have ended (maybe_wait_bpf_programs() in
 * kernel/bpf/syscall.c), on every kernel and configuration, which membarrier(2) does not (it
 * refuses under nohz_full).
 *
 * The thread does not survive a fork(2): the child opens again before it asks for anything, and the
 * tickets of the parent hold there, too.
 */
int grace_open(struct error *err);

/*
 * Waits for the period that runs, if one does. Tickets that are not over then are not until it is
 * opened again; nobody may be waiting for one.
 */
void grace_close(void);

/*
 * For a period that begins after the call, typically over within some 10 ms. Costs no more than a
 * lock. Tickets rise and are never 0: 0 can stand for none, and is over.
 */
u64 grace_ticket(void);

bool grace_over(u64 ticket);
void grace_wait_for(u64 ticket);

/* Every program that runs now has ended when this returns. */
void grace_wait(void);
