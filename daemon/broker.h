/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opens BPF objects by their ids. To share an interface, and to find again what an earlier daemon
 * attached, programs, maps and type information are looked up by id; every kernel so far wants
 * CAP_SYS_ADMIN for that (kernel/bpf/syscall.c), which is as good as root. So a process of its own
 * keeps this capability, and the daemon gives it up.
 *
 *   B1  The broker has one capability, one descriptor (the daemon's socket), and five system calls,
 *       of which bpf(2) with three commands only.
 *   B2  It is forked before there are threads, and before capabilities are given up.
 *   B3  It takes no signal but SIGKILL, since a stop of the service sends SIGTERM to it too; it
 * ends with the daemon.
 *
 * Callers need not know: broker.c defines bpf_prog_get_fd_by_id() and its like. The dynamic linker
 * prefers them to libbpf's, for libxdp's calls and libbpf's own as well. Without a broker they ask
 * the kernel themselves.
 */
#pragma once

#include "error.h"
#include "types.h"

#include <sys/types.h>

/* Starts the broker; once, and not beside other threads (B2). Needs CAP_SYS_ADMIN. */
int broker_open(struct error *err);

/* Ends it. Without one: nothing. */
void broker_close(void);

/* Its socket, to watch for a hang-up: it has died, and cannot be started again. -1: there is none.
 */
int broker_fd(void);

/* A request as it goes over the socket; the answer is 0 and a descriptor, or a negative errno. */
struct broker_request {
	u32 command; /* BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID or BPF_BTF_GET_FD_BY_ID */
	u32 id;
	u32 open_flags;
};
