/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which interfaces have which programs: brings what is attached to what the configuration and the
 * redirects ask for, as interfaces come, change and go.
 *
 * A hook has a program only where a rule needs it: XDP where sources are blocked, TC in a direction
 * that has a redirect, or outward where destinations are blocked. So nothing is paid for that is
 * not used.
 *
 *   I1  Calls may be repeated: what is right already is left alone.
 *   I2  A program of ours is replaced in one step, never taken off and put on. The exception is
 *       XDP on top of an interface (its bridge, bond or VLAN), below which the kernel changes
 *       nothing meanwhile.
 *   I3  Failures are kept for status and logged once, until they change.
 *   I4  What somebody takes off is put back, and what fails is tried again, by itself and with
 *       pauses that grow: nobody keeps us busy.
 */
#pragma once

#include "config.h"
#include "datapath.h"
#include "links.h"
#include "strays.h"
#include "tc.h"

struct interfaces;

/* What is asked for. Borrowed: it must stay until the next interfaces_want(). */
struct interfaces_wanted {
	const struct config_interface *patterns;
	size_t n_patterns;
	u32 flags; /* FWD_BLOCK_IN, FWD_BLOCK_OUT */
	const struct redirect *redirects;
	size_t n_redirects;
};

/* All stay the caller's. */
int interfaces_open(struct links *links, struct tc *tc, struct interfaces **ret, struct error *err);
void interfaces_close(struct interfaces *ifs);
DEFINE_CLEANUP(struct interfaces *, interfaces_close);

/*
 * The maps that programs are to use from now on; interfaces_settle() moves them over. `owner` is as
 * datapath_read_owner() fills it in, and tells our programs from others.
 */
void interfaces_use(struct interfaces *ifs, struct datapath *dp,
		    const struct datapath_owner *owner);

void interfaces_want(struct interfaces *ifs, const struct interfaces_wanted *wanted);

/*
 * Attaches what is asked for and missing, and stops at the first failure; then what this call
 * attached is off again. Failures that were known before do not count. For changes that are refused
 * when they cannot take effect.
 */
int interfaces_prepare(struct interfaces *ifs, struct error *err);

/*
 * Has every program that is attached use the maps of interfaces_use(), as the kernel tells now;
 * stops at the first failure, with some on the new maps and some on the old.
 */
int interfaces_move(struct interfaces *ifs, struct error *err);

/*
 * What interfaces_move() will load, to be loaded ahead. A dispatcher's programs are not among it:
 * libxdp loads them. 0 or -ENOMEM.
 */
int interfaces_list_programs(const struct interfaces *ifs, struct program_set *ret);

/*
 * Brings everything to what is asked for: attaches, takes off, tells the redirects their targets.
 * Failures are logged and kept.
 */
void interfaces_settle(struct interfaces *ifs);

/* When interfaces_settle() is due without anything happening, on CLOCK_MONOTONIC; 0: never. */
u64 interfaces_due_ns(const struct interfaces *ifs);

/* True if the interface has a slot. */
bool interfaces_has(const struct interfaces *ifs, int ifindex);

/* Somebody has moved the interface to another namespace: interfaces_settle() will not find it. */
void interfaces_note_move(struct interfaces *ifs, int ifindex);

/* Takes off all programs of ours, on every interface, asked for or not. */
void interfaces_detach_all(struct interfaces *ifs);

/*
 * The same for interfaces that have no slot: what is left of a daemon whose table of slots is lost.
 * Call it once all interfaces that are asked for have theirs.
 */
void interfaces_detach_strays(struct interfaces *ifs);

/* datapath_stage(), with the interfaces that have a slot as the scopes of redirects. */
int interfaces_stage(struct interfaces *ifs, const struct datapath_change *change,
		     struct error *err);

/* Tells the redirects what their targets are now. */
void interfaces_set_targets(struct interfaces *ifs);

/*
 * Adds what the kernel has otherwise than what is asked for: slots, programs, redirects and their
 * targets. `tables`: as `found` of redirect_map_verify(). *ret_n_interfaces: those that were looked
 * at. 0 or a failure to look.
 */
int interfaces_verify(struct interfaces *ifs, const struct redirect_tables *tables,
		      struct differences *ret, size_t *ret_n_interfaces, struct error *err);

/* interfaces_settle(), without believing anything that was seen before. */
int interfaces_mend(struct interfaces *ifs, struct error *err);

/* Adds those of what strays_find() found that are on interfaces without a slot. */
void interfaces_verify_strays(struct interfaces *ifs, const struct strays *strays,
			      struct differences *ret);

/* Valid until the next interfaces_use(). */
const struct datapath_owner *interfaces_owner(const struct interfaces *ifs);

/* For status. Strings are valid until the next change. */
struct interface_status {
	const char *name;
	int ifindex;
	u32 slot;
	bool xdp, native, dispatcher, tc_in, tc_out;
	const char *error; /* NULL: none */
};

/* The next one from `*slot` on, which moves behind it; false at the end. */
bool interfaces_next(const struct interfaces *ifs, u32 *slot, struct interface_status *ret);

/* True if the configuration names an interface of that name, there or not. */
bool interfaces_is_wanted(const struct interfaces *ifs, const char *name);

/* -EINVAL: the mode cannot work between these two, as they are now. */
int interfaces_check_redirect(struct interfaces *ifs, const struct redirect *redirect,
			      struct error *err);

/* True if some interface matches the pattern now. */
bool interfaces_matches(struct interfaces *ifs, const char *pattern);
