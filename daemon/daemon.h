/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of a running daemon, and what is done with the whole. */
#pragma once

#include "confirm.h"
#include "control.h"
#include "interfaces.h"
#include "links.h"
#include "locals.h"
#include "rules.h"
#include "store.h"
#include "tc.h"
#include "tc_watch.h"

#include <systemd/sd-event.h>

struct daemon {
	const char *config_file;
	bool log_level_fixed; /* by the command line: a reload does not change it */
	int pin_dir_lock;     /* -1: none */
	sd_event *event;
	struct store *store;
	struct links *links;
	struct locals *locals;
	struct tc *tc;
	struct tc_watch *tc_watch;
	struct interfaces *interfaces;
	struct worker *worker;
	struct rules *rules;
	struct confirm *confirm;
	struct control *control;
	sd_event_source *links_source, *expiry_source, *settle_source, *fold_source;
	sd_event_source *tc_source, *settle_timer, *locals_source, *links_timer;
	bool tc_changed;		/* by others, since the interfaces were last settled */
	u64 settled_ns;			/* CLOCK_MONOTONIC */
	bool fold_failed, links_failed; /* it was logged */
	bool broker_lost;		/* why the event loop has ended */
	unsigned reloads;		/* that run or wait */
	s64 started_s, config_loaded_s;
	s64 previous_loaded_s;	 /* of the configuration before it */
	bool config_unconfirmed; /* the one in force is not the file's, which nobody confirmed */
	u64 started_ns;		 /* CLOCK_BOOTTIME */
};

/*
 * Starts everything, in order; with the return of 0 packets are filtered and requests are taken.
 * `config` becomes the daemon's, on success or failure.
 */
int daemon_start(struct daemon *daemon, struct config *config, struct error *err);

/* Until SIGTERM or SIGINT. */
int daemon_run(struct daemon *daemon, struct error *err);

/* Stops everything, in the opposite order; with on_stop = "detach" packets are no longer filtered.
 */
void daemon_stop(struct daemon *daemon);

/* The texts of all that is wrong with a configuration, NULL for none; the caller owns the array. */
json_t *daemon_config_errors(const char *file, const struct config_errors *errors);

/* Tell systemd and the log of a reload (RULES_RELOAD) that begins, and of one that has ended. */
void daemon_reloading(struct daemon *daemon);
void daemon_reloaded(struct daemon *daemon, const struct rules_end *end);

/* Has the timer for ends of rules look again: after every change of rules. */
void daemon_rules_changed(struct daemon *daemon);
