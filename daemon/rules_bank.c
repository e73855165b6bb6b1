// SPDX-License-Identifier: GPL-2.0-or-later
/* What is left to do when another bank has come into use. */
#include "clock.h"
#include "grace.h"
#include "log.h"
#include "rules_state.h"

/*
 * Giving memory back replaces programs once more, and the next exchange does it anyway. So it waits
 * until the last exchange is so long ago.
 */
#define RELEASE_AFTER_US 5000000

bool rules_read_entry(const struct rules *rules, enum prefix_table table,
		      const struct prefix *prefix, struct prefix_state *ret)
{
	struct prefix_state old;

	if (!prefix_map_read(rules_map(rules), table, prefix, ret))
		return false;
	if (rules->hits_to_come &&
	    prefix_map_read(datapath_offered(rules->dp), table, prefix, &old)) {
		ret->packets += old.packets;
		ret->bytes += old.bytes;
		if (!ret->last_hit)
			ret->last_hit = old.last_hit;
	}
	return true;
}

void bank_take_hits(struct rules *rules)
{
	prefix_map_add_counters(datapath_offered(rules->dp), datapath_prefixes(rules->dp));
	rules->hits_to_come = false;
}

static int on_release(sd_event_source *source, u64 us, void *data)
{
	struct rules *rules = data;
	struct rules_request request = {.kind = RULES_RELEASE, .list_fd = -1};

	if (!prefix_map_is_large(datapath_offered(rules->dp)))
		return 0;
	/* What is on its way may be an exchange. */
	if (rules->changes || change_start(rules, &request, &(struct rules_later){0}) < 0)
		bank_release_later(rules);
	return 0;
}

void bank_release_later(struct rules *rules)
{
	u64 us = clock_ns(CLOCK_MONOTONIC) / 1000 + RELEASE_AFTER_US;
	int r;

	if (!rules->release) {
		r = sd_event_add_time(worker_event(rules->worker), &rules->release, CLOCK_MONOTONIC,
				      us, 0, on_release, rules);
	} else {
		r = sd_event_source_set_time(rules->release, us);
		if (r >= 0)
			r = sd_event_source_set_enabled(rules->release, SD_EVENT_ONESHOT);
	}
	if (r < 0)
		log_warning("cannot give the memory of maps back that are no longer used: %s; the "
			    "next large change does",
			    error_name(r));
}
