/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What keeps people from cutting off this host, or themselves from it. Guarded are the address of
 * the caller's SSH session, the default gateways and this host's own addresses.
 *
 *   G1  A change that somebody asks for, and that would block one of them, is refused unless it is
 *       forced. What the allowlist has is no danger.
 *   G2  Where nobody is there to refuse (a start, a reload, a feed, an address that appears), a
 *       gateway or own address that is blocked is spared: the daemon itself puts it on the
 *       allowlist, in the same switch as what blocks it, for as long as both are there.
 *   G3  What is meant is not spared: an address that the configuration itself names, and what a
 *       rule blocks that was forced when it was added (policy.h).
 */
#pragma once

#include "locals.h"
#include "policy.h"

/* From the command's request, and from logind. */
#define GUARD_SESSIONS_MAX 2

struct guarded {
	const struct local_list *locals;
	struct prefix sessions[GUARD_SESSIONS_MAX]; /* where the caller is logged in from by SSH */
	size_t n_sessions;
};

/*
 * -EHOSTUNREACH: one of the prefixes would block what is guarded. A runtime rule that is there
 * already is no danger: it was looked at when it came.
 */
int guard_check_add(const struct policy *policy, const struct guarded *guarded,
		    const struct prefix *prefixes, size_t n, struct error *err);

/*
 * The same of taking prefixes, in order, off the allowlist. What would be spared is not blocked.
 */
int guard_check_disallow(const struct policy *policy, const struct guarded *guarded,
			 const struct prefix *prefixes, size_t n, struct error *err);

/* Remembers the prefixes among these that are forced, since they cover a local. 0 or -ENOMEM. */
int guard_force(struct policy *policy, const struct local_list *locals,
		const struct prefix *prefixes, size_t n);

/*
 * Has `spared` hold the local if the policy is to spare it, and not otherwise; what the policy
 * spares now does not matter. 0 or -ENOMEM, as with all of these.
 */
int guard_spare(const struct policy *policy, const struct local *local, struct ruleset *spared);

/* The same of all locals within a prefix. */
int guard_spare_within(const struct policy *policy, const struct local_list *locals,
		       const struct prefix *prefix, struct ruleset *spared);

/* The same of the locals that came or went between two lists. */
int guard_spare_changed(const struct policy *policy, const struct local_list *old,
			const struct local_list *new, struct ruleset *spared);

/* All that the policy is to spare; `old` was spared before, and stays as old as it is. */
int guard_spare_all(struct policy *policy, const struct local_list *locals,
		    const struct ruleset *old);

/* Tells the log of what is spared from now on, and of what no longer is. */
void guard_log_spared(const struct ruleset *old, const struct ruleset *new);
