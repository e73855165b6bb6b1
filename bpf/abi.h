/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the programs in the kernel and the daemon share: the layout of every pinned map. It stands
 * here once, with fixed widths and explicit padding; that of the tries and their entries in trie.h.
 * Any change to them that an older program or daemon would misread raises FWD_ABI_VERSION; a daemon
 * that finds pins of another version builds new maps beside them and switches over.
 *
 * Views. Packets see the policy by the view that fwd_control.view names: where each trie begins, in
 * which bank of maps, the directions, and which port tables. A change of many rules is prepared
 * aside, described in another view, and takes effect by one store to fwd_control.view: over both
 * families, the blacklist, the allowlist and the redirects.
 *
 * Banks. The maps of the tries exist twice. Small changes are made in the bank in use; a large one,
 * or one that needs more room, fills new maps in the other bank.
 *
 *   V1  Only the daemon writes `view`, and only after all that the new view needs is in the maps.
 *   V2  A packet reads `view` once and uses that one to its verdict.
 *   V3  A view that packets may hold stays as it is, but for one root, in one store, for a change
 *       of one entry. It is written again only after a grace period.
 *   V4  The maps of a bank that packets may hold are never replaced.
 *   V5  An entry or a redirect that packets may hold is reused only after a grace period.
 *
 * Times are nanoseconds of CLOCK_BOOTTIME, which goes on over a suspend.
 */
#ifndef FWD_ABI_H
#define FWD_ABI_H

#include <linux/types.h>

#include "trie.h"

/* Tests build a daemon of another version, with another layout. */
#ifndef FWD_ABI_VERSION
#define FWD_ABI_VERSION 3
#endif

/* A change waits for a grace period only if this many were made within one. */
#ifndef FWD_VIEWS
#define FWD_VIEWS 8
#endif

#define FWD_BANKS 2

/* Sets of port tables: one in use, one to be staged. */
#define FWD_TABLE_SETS 2

/* Interfaces that can have programs at once. Each has a slot, baked into its programs. */
#define FWD_MAX_INTERFACES 256

/* Redirects that packets can see, staged ones included; number 0 stands for none. */
#define FWD_MAX_REDIRECTS 2048

/* Names of the maps, which are the names of their pins; those of a bank end in its number. */
#define FWD_MAP_CONTROL		  "control"
#define FWD_MAP_LINES		  "lines_"
#define FWD_MAP_ENTRIES4	  "entries4_"
#define FWD_MAP_ENTRIES6	  "entries6_"
#define FWD_MAP_REDIRECT_TABLES	  "redirect_tables"
#define FWD_MAP_REDIRECTS	  "redirects"
#define FWD_MAP_REDIRECT_COUNTERS "redirect_counts"
#define FWD_MAP_COUNTERS	  "counters"
#define FWD_MAP_INTERFACES	  "interfaces"

enum fwd_hook {
	FWD_HOOK_XDP,
	FWD_HOOK_TC_IN,
	FWD_HOOK_TC_OUT,
	FWD_HOOKS,
};

enum fwd_verdict {
	FWD_PASS,
	FWD_DROP,      /* the address is blocked */
	FWD_ALLOW,     /* it is, but the allowlist has it: passes */
	FWD_NOT_IP,    /* passes */
	FWD_MALFORMED, /* shorter than its headers announce: passes */
	FWD_REDIRECT,
	FWD_NO_TARGET, /* redirected to what does not exist or cannot take it: dropped */
	FWD_VERDICTS,
};

struct fwd_counter {
	__u64 packets;
	__u64 bytes; /* as the hook sees them: with the link-layer header */
};

/* Map "counters", per CPU, at slot * FWD_HOOKS + hook. */
struct fwd_counters {
	struct fwd_counter by_verdict[FWD_VERDICTS];
};

#define FWD_BLOCK_IN  (1u << 0) /* drop packets from blocked sources */
#define FWD_BLOCK_OUT (1u << 1) /* drop packets to blocked addresses */

enum fwd_trie {
	FWD_BLOCK4,
	FWD_BLOCK6,
	FWD_ALLOW4,
	FWD_ALLOW6,
	FWD_TRIES,
};

struct fwd_view {
	__u8 bank;
	__u8 tables; /* the set of port tables */
	__u8 flags;
	__u8 reserved;
	__u32 root[FWD_TRIES]; /* cells, see trie.h */
};

/* Map "control", one element, written through mmap. Its first two fields stay for ever. */
struct fwd_control {
	__u32 abi_version;
	__u32 complete; /* 1: the maps beside it hold a whole policy */
	__u32 view;	/* below FWD_VIEWS */
	__u32 changing; /* 1: the daemon is at work behind the view; the programs do not look */
	struct fwd_view views[FWD_VIEWS];
	__u64 change; /* the durable rules' last change that is in the maps; for the daemon alone */
};

_Static_assert(sizeof(struct fwd_view) == 20, "layout of a view");
_Static_assert(sizeof(struct fwd_control) == 24 + FWD_VIEWS * sizeof(struct fwd_view),
	       "layout of control");

enum fwd_redirect_mode {
	FWD_MODE_L2,
	FWD_MODE_NEIGH,
	FWD_MODE_INGRESS,
};

/* What to do with a packet. The first eight bytes are read and written as one. */
struct fwd_target {
	__u32 ifindex; /* 0: the target does not exist */
	__u8 mode;     /* enum fwd_redirect_mode */
	__u8 has_l2;   /* frames to it carry an Ethernet header */
	__u8 reserved[2];
};

/*
 * Map "redirects", written through mmap. Packets are counted in "redirect_counts", per CPU. Behind
 * `mac` stands the rule itself, by which a restarted daemon knows it again; the programs do not
 * look at it.
 */
struct fwd_redirect {
	struct fwd_target target;
	__u8 mac[6]; /* of the target */
	__u8 used;
	__u8 mode_wanted; /* enum redirect_mode */
	char interface[16];
	char target_name[16];
	__u16 port_first;
	__u16 port_last;
	__u8 protocol;	/* IPPROTO_TCP or IPPROTO_UDP */
	__u8 direction; /* enum direction */
	__u8 reserved[10];
};

_Static_assert(sizeof(struct fwd_target) == 8, "one load");
_Static_assert(sizeof(struct fwd_redirect) == 64, "layout of redirects");

/* Map "interfaces", written through mmap, at slot; the programs do not look at it. */
struct fwd_interface {
	__u32 ifindex; /* 0: the slot is free */
	__u32 flags;
	char name[16];
};

/* The daemon added the clsact qdisc, so it takes it away again. */
#define FWD_INTERFACE_CLSACT (1u << 0)

_Static_assert(sizeof(struct fwd_interface) == 24, "layout of interfaces");

/*
 * The port tables of map "redirect_tables": for an interface and a direction, the redirect of each
 * destination port of each protocol, in lines of 128 ports.
 */
enum fwd_protocol {
	FWD_TCP,
	FWD_UDP,
	FWD_PROTOCOLS,
};

#define FWD_PORT_LINE  128
#define FWD_PORT_LINES (65536 / FWD_PORT_LINE)

struct fwd_port_line {
	__u16 redirect[FWD_PORT_LINE]; /* number in "redirects"; 0: none */
};

/* Position in "redirect_tables"; `hook` is FWD_HOOK_TC_IN or FWD_HOOK_TC_OUT. */
#define FWD_TABLE_INDEX(set, slot, hook) \
	(((set)*FWD_MAX_INTERFACES + (slot)) * 2 + ((hook)-FWD_HOOK_TC_IN))
#define FWD_TABLES (FWD_TABLE_SETS * FWD_MAX_INTERFACES * 2)

/* Position of a port's line in a table. */
#define FWD_LINE_INDEX(protocol, port) ((protocol)*FWD_PORT_LINES + (port) / FWD_PORT_LINE)
#define FWD_PORT_TABLE_LINES	       (FWD_PROTOCOLS * FWD_PORT_LINES)

#endif
