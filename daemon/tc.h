/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The clsact qdisc and our filters on it, by netlink messages (libmnl). A filter of ours is known
 * by its priority, its handle and its program; no other filter or qdisc is touched.
 */
#pragma once

#include "abi.h"
#include "cleanup.h"
#include "error.h"
#include "types.h"

/* Before filters that were added without a priority, which the kernel gives 49152 and less. */
#define TC_PRIORITY 10
/* "fwd" */
#define TC_HANDLE 0x667764

struct tc;

int tc_open(struct tc **ret, struct error *err);
void tc_close(struct tc *tc);
DEFINE_CLEANUP(struct tc *, tc_close);

/* The netlink port that our changes come from. */
u32 tc_port(const struct tc *tc);

/* Adds clsact where there is none; *ret_added tells. */
int tc_add_clsact(struct tc *tc, int ifindex, bool *ret_added, struct error *err);

/* Removes clsact unless somebody's filter is on it; *ret_gone tells. */
int tc_remove_clsact(struct tc *tc, int ifindex, bool *ret_gone, struct error *err);

/* The program of the filter at our place in a direction; 0: there is no filter. */
int tc_get_filter(struct tc *tc, int ifindex, enum fwd_hook hook, u32 *ret_program_id,
		  struct error *err);

/* Adds the filter, or swaps its program, in one step of the kernel. */
int tc_set_filter(struct tc *tc, int ifindex, enum fwd_hook hook, int program_fd,
		  struct error *err);

/* Success, too, where there is none. */
int tc_remove_filter(struct tc *tc, int ifindex, enum fwd_hook hook, struct error *err);
