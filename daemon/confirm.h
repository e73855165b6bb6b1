/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes that go back by themselves unless they are confirmed in time, so that who locks himself
 * out needs only to wait.
 *
 * An add: prefixes without a runtime rule get one that ends when the time is over, so the kernel
 * takes it back, whatever becomes of the daemon. Rules that are there stay as they are. The
 * confirmation makes the add as it was asked for.
 *
 * A reload: the configuration before it and its policy stay in memory, and its text in the state
 * directory (rules.h): that is what the daemon goes back to, and what a start takes.
 *
 *   W1  At most one change waits.
 *   W2  Its time is on CLOCK_BOOTTIME. It counts from when a reload has taken effect, and from when
 *       an add is begun, as its --ttl does.
 *   W3  While a part of it is under way - taking effect, being confirmed, going back - nothing else
 *       is done with it.
 *   W4  Going back from a reload is tried until it is done.
 */
#pragma once

#include "rules.h"

#include <systemd/sd-event.h>

struct confirm;

/* Told when the rules are those of the configuration before an unconfirmed reload. */
struct confirm_watcher {
	void (*went_back)(void *data);
	void *data;
};

/* `event` and `rules` stay the caller's, and outlive it, but for rules_close(), which comes first.
 */
int confirm_open(sd_event *event, struct rules *rules, const struct confirm_watcher *watcher,
		 struct confirm **ret, struct error *err);
void confirm_close(struct confirm *confirm);
DEFINE_CLEANUP(struct confirm *, confirm_close);

/*
 * Makes a RULES_ADD or RULES_RELOAD one that waits for confirmation for `time_s`. The request stays
 * the caller's, who submits it and calls confirm_begun() when that has ended. -EBUSY: another one
 * waits; then there is no confirm_begun().
 */
int confirm_begin(struct confirm *confirm, struct rules_request *request, s64 time_s,
		  struct error *err);
void confirm_begun(struct confirm *confirm, const struct rules_end *end);

/*
 * As rules_submit(): -EINPROGRESS, and later->done() is called. *ret_what is what is confirmed,
 * "add" or "reload", then, too. -ENOENT: nothing waits. -EBUSY: W3. After any other error it goes
 * on waiting.
 */
int confirm_accept(struct confirm *confirm, const struct rules_later *later, const char **ret_what,
		   struct error *err);

/* -EBUSY: a reload waits, so that there cannot be another one. */
int confirm_check_reload(const struct confirm *confirm, struct error *err);

/* "add" or "reload", and for how long it still waits; NULL: nothing does. */
const char *confirm_waits(const struct confirm *confirm, s64 *ret_left_s);
