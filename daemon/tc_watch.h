/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What others do to our place in tc: the kernel's notifications (RTNLGRP_TC), less what cannot
 * concern us. A host may change its filters often; all that it costs us is to read the messages.
 */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "types.h"

struct tc_watch;

/* `own_port`, of tc_port(), makes the changes that we look away from. */
int tc_watch_open(u32 own_port, struct tc_watch **ret, struct error *err);
void tc_watch_close(struct tc_watch *watch);
DEFINE_CLEANUP(struct tc_watch *, tc_watch_close);

/* Whether an interface is one of those that we have programs for. */
typedef bool (*tc_watch_filter)(void *data, int ifindex);

/*
 * To poll for reading; then call tc_watch_process(), which never blocks and takes a bounded number
 * of messages. *ret_changed: somebody changed clsact or a filter of our priority on an interface
 * that `is_watched` says yes to, or messages were lost.
 */
int tc_watch_fd(const struct tc_watch *watch);
int tc_watch_process(struct tc_watch *watch, tc_watch_filter is_watched, void *data,
		     bool *ret_changed, struct error *err);
