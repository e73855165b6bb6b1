/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread that does what would hold up the event loop: jobs, one at a time, in the order in which
 * they came. All functions are for the event loop's thread.
 */
#pragma once

#include "cleanup.h"
#include "error.h"

#include <stdbool.h>
#include <systemd/sd-event.h>

struct worker;

int worker_open(sd_event *event, struct worker **ret, struct error *err);

/*
 * Waits for the job that runs. Jobs that have not begun are dropped, and no done() is called any
 * more: what `data` of such jobs points to is left to their owners.
 */
void worker_close(struct worker *worker);
DEFINE_CLEANUP(struct worker *, worker_close);

/*
 * Has `work` run in the thread, and then `done` from the event loop, one a turn. What the caller
 * wrote before is seen by `work`, and what that wrote by `done`. 0, or -ENOMEM: neither is called.
 */
int worker_run(struct worker *worker, void (*work)(void *data), void (*done)(void *data),
	       void *data) __attribute__((warn_unused_result));

/* The event loop that it was opened with. */
sd_event *worker_event(const struct worker *worker);

/* A job waits or runs, or its done() is still to be called; within the last one's it is false. */
bool worker_busy(const struct worker *worker);
