/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the checks of `fwctl doctor` share. */
#pragma once

#include "doctor_links.h"
#include "types.h"

#include <jansson.h>
#include <sys/types.h>

enum finding_state {
	FINDING_OK,
	FINDING_NOTE,	 /* good to know, or fwd does without */
	FINDING_PROBLEM, /* fwd does not work, or not as it is asked to */
};

struct doctor {
	const char *socket_path;
	u32 kernel;		/* KERNEL_VERSION_OF(); 0: not known */
	bool privileged;	/* may load programs and attach them */
	pid_t daemon_pid;	/* 0: none answers, or it cannot be seen */
	json_t *status;		/* what the daemon says of itself; NULL: none answers */
	struct link_list links; /* all of this namespace */

	/* The report. */
	json_t *findings;
	unsigned notes, problems;
	const char *id;	     /* of the check at work */
	const char *subject; /* the interface or program that it looks at; NULL: the host */
};

/* One finding of the check at work; `remedy` is NULL for what is well, and only then. */
void doctor_report(struct doctor *d, enum finding_state state, const char *remedy,
		   const char *format, ...) __attribute__((format(printf, 4, 5)));

#define doctor_ok(d, ...)	       doctor_report(d, FINDING_OK, NULL, __VA_ARGS__)
#define doctor_note(d, remedy, ...)    doctor_report(d, FINDING_NOTE, remedy, __VA_ARGS__)
#define doctor_problem(d, remedy, ...) doctor_report(d, FINDING_PROBLEM, remedy, __VA_ARGS__)

/* What cannot be seen without privileges. */
void doctor_not_known(struct doctor *d);

/* True if the daemon that answers has the interface. */
bool doctor_daemon_has(const struct doctor *d, const char *name);

/* Reads a small file whole, without its last newline; -errno. */
int doctor_read_file(const char *path, size_t size, char *ret);
int doctor_read_number(const char *path, u64 *ret);

/* ---- the checks ---- */

typedef void doctor_check_fn(struct doctor *d);
typedef void doctor_link_check_fn(struct doctor *d, const struct link_facts *link);

doctor_check_fn doctor_check_kernel, doctor_check_load_xdp, doctor_check_load_tc,
	doctor_check_attach, doctor_check_clsact, doctor_check_frags, doctor_check_dispatcher,
	doctor_check_btf, doctor_check_jit, doctor_check_unprivileged;
doctor_check_fn doctor_check_bpffs, doctor_check_memlock, doctor_check_capabilities,
	doctor_check_firewalls, doctor_check_conntrack;
doctor_check_fn doctor_check_daemon, doctor_check_socket, doctor_check_waiting,
	doctor_check_interfaces;
doctor_link_check_fn doctor_check_attached, doctor_check_native, doctor_check_mtu,
	doctor_check_program, doctor_check_master;
