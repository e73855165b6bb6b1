/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose a program in the kernel is, as far as that can be found out. */
#pragma once

#include "types.h"

#include <limits.h>
#include <linux/bpf.h>

#define PROGRAM_HOLDERS_MAX 4

struct program_facts {
	u32 id;
	char name[BPF_OBJ_NAME_LEN];
	u64 loaded_s;			  /* since 1970 */
	char pin[PATH_MAX];		  /* below /sys/fs/bpf; empty: none */
	int holders[PROGRAM_HOLDERS_MAX]; /* processes that have it open, itself or a link */
	unsigned n_holders;
};

/* Name and time of loading; -errno. */
int program_read(u32 id, struct program_facts *ret);

/* Looks for its pin and its holders, which takes a walk over both file systems. */
void program_find_owner(struct program_facts *program);

/* The programs of libxdp's dispatcher, "fwd_xdp, xdpfilt_alw_all", by their pins; empty: none. */
void program_list_components(int ifindex, u32 dispatcher_id, size_t size, char *ret);
