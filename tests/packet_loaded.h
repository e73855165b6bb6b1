/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The programs, loaded as the daemon loads them, on maps of their own; packets go through them by
 * BPF_PROG_TEST_RUN, without an interface.
 */
#pragma once

#include "datapath.h"
#include "packet_layers.h"

/* Where the programs believe to be. */
enum loaded_slot {
	SLOT_ETHERNET, /* "eth0" */
	SLOT_BARE,     /* "tun0": packets begin with the IP header */
	SLOTS,
};

struct loaded {
	struct datapath *dp;
	struct bpf_object *xdp[SLOTS];
	int fds[SLOTS][FWD_HOOKS];
};

/* In namespaces of its own, with nothing blocked yet, FWD_BLOCK_IN and FWD_BLOCK_OUT. */
void loaded_open(struct loaded *loaded);
void loaded_close(struct loaded *loaded);

/* "192.0.2.0/24" */
struct prefix prefix_of(const char *text);
struct prefix_item item_of(enum prefix_table table, const char *prefix, u64 expires_ns);
/* Of the blacklist. */
struct prefix_change insertion(const char *prefix, u64 expires_ns);
struct prefix_change removal(const char *prefix);

/* Stages and commits. */
void loaded_change(struct loaded *loaded, const struct datapath_change *change);
void loaded_block(struct loaded *loaded, const char *prefix, u64 expires_ns);
void loaded_allow(struct loaded *loaded, const char *prefix, u64 expires_ns);
void loaded_retime(struct loaded *loaded, const char *prefix, u64 expires_ns);
void loaded_unblock(struct loaded *loaded, const char *prefix);
void loaded_disallow(struct loaded *loaded, const char *prefix);
void loaded_set_flags(struct loaded *loaded, u32 flags);

/* Puts items, in order, in the place of all that is there, in the other bank of maps. */
void loaded_replace(struct loaded *loaded, const struct prefix_item *items, size_t n);

/* A copy of the prefix's entry in the kernel's map; false: there is none. */
bool loaded_find(const struct loaded *loaded, enum prefix_table table, const char *text,
		 struct fwd_entry *ret);

/* On both slots. */
void loaded_set_redirects(struct loaded *loaded, const struct redirect *redirects, size_t n);

/* What a program made of a packet. */
struct outcome {
	u32 action;
	struct packet out;
};

/*
 * False: the kernel does not run a test on a packet this short. Otherwise exactly the counter of
 * `verdict`, of this slot and hook, rose, by one packet and its bytes. `what` is for messages.
 */
bool loaded_run(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
		const struct packet *packet, enum fwd_verdict verdict, const char *what,
		struct outcome *ret);

/* A row of a table of packets. */
struct packet_case {
	const char *sentence;
	struct layer layers[LAYERS_MAX];
	enum fwd_verdict verdict;
	const char *entry; /* the one that counts it; NULL: none does */
	u32 size;	   /* cut there; 0: whole */
};

/* Runs a row: verdict, action, counters and entries. */
void loaded_check(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
		  const struct packet_case *row);

/*
 * Runs the row at each length: MALFORMED while it is shorter than `needed`, then as the row says.
 */
void loaded_check_lengths(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
			  const struct packet_case *row, size_t needed);
