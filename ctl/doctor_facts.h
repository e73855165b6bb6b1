/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What follows from facts that were read, without looking at the host again. */
#pragma once

#include "doctor_links.h"
#include "types.h"

enum answer {
	ANSWER_NO,
	ANSWER_YES,
	ANSWER_UNKNOWN,
};

/* Since when the kernel has programs for packets in several buffers, and does not lock memory. */
#define KERNEL_WITH_FRAGS      KERNEL_VERSION_OF(5, 18)
#define KERNEL_WITHOUT_MEMLOCK KERNEL_VERSION_OF(5, 11)
#define KERNEL_TELLS_FEATURES  KERNEL_VERSION_OF(6, 3)

/* Whether the driver runs XDP natively. Where the kernel does not tell, by the driver's name. */
enum answer facts_native(const struct link_facts *link);

/*
 * The largest MTU that native XDP takes in one buffer of a page: less the headroom
 * (XDP_PACKET_HEADROOM), struct skb_shared_info, which is 320 bytes, and an Ethernet header.
 * Drivers differ by a few bytes.
 */
u32 facts_mtu_of_one_buffer(u32 page_size);

/* Whether native XDP takes packets of the interface's MTU; `frags`: the kernel has them. */
enum answer facts_mtu_fits(const struct link_facts *link, u32 page_size, bool frags);

#define CAPABILITIES_TEXT_MAX 64

/*
 * The names of those that fwd needs and the set lacks, "CAP_BPF, CAP_PERFMON"; empty: none.
 * CAP_SYS_ADMIN stands for both of these.
 */
void facts_missing_capabilities(u64 set, char ret[static CAPABILITIES_TEXT_MAX]);

/* "CapEff:" of proc_pid_status(5). -EINVAL. */
int facts_effective_capabilities(const char *status, u64 *ret);

/* The program that a descriptor is of, or holds, by its proc_pid_fdinfo(5); 0: none. */
u32 facts_program_of(const char *fdinfo);

/* Whether a table of connections is so full that the next flood fills it. */
#define FULL_PERCENT 95
bool facts_is_full(u64 count, u64 max);

/* Whether proc_pid_limits(5) says that the process may lock as much memory as it likes. */
bool facts_locks_without_limit(const char *limits);
