/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the programs in the kernel and the daemon share: the layout of every pinned map. It stands
 * here once, with fixed widths and explicit padding. Any change to it that an older program or
 * daemon would misread raises FWD_ABI_VERSION; a daemon that finds pins of another version builds
 * new maps beside them and switches over.
 *
 * Two views. Every rule can be seen in view 0, in view 1, or in both, and packets see the view that
 * fwd_control.view names. A change of many rules is staged in the other view and takes effect by
 * one store to fwd_control.view: over both families, the blacklist, the allowlist and the
 * redirects.
 *
 *   V1  At rest both views hold the same rules.
 *   V2  Only the daemon writes `view`, and only after all that the new view needs is in the maps.
 *   V3  A packet reads `view` once and uses that one to its verdict.
 *   V4  An entry or a redirect that packets may still hold is reused only after a grace period.
 *
 * Times are nanoseconds of CLOCK_BOOTTIME, which goes on over a suspend.
 */
#ifndef FWD_ABI_H
#define FWD_ABI_H

#include <linux/types.h>

#define FWD_ABI_VERSION 1

#define FWD_VIEWS 2

/* Interfaces that can have programs at once. Each has a slot, baked into its programs. */
#define FWD_MAX_INTERFACES 256

/* Redirects that packets can see, staged ones included; number 0 stands for none. */
#define FWD_MAX_REDIRECTS 2048

/* Names of the maps, which are the names of their pins. */
#define FWD_MAP_CONTROL		  "control"
#define FWD_MAP_BLOCK4		  "block4"
#define FWD_MAP_BLOCK6		  "block6"
#define FWD_MAP_BLOCK_ENTRIES	  "block_entries"
#define FWD_MAP_ALLOW4		  "allow4"
#define FWD_MAP_ALLOW6		  "allow6"
#define FWD_MAP_ALLOW_ENTRIES	  "allow_entries"
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

/* Map "control", one element, written through mmap. Its first two fields stay for ever. */
struct fwd_control {
	__u32 abi_version;
	__u32 complete; /* 1: the maps beside it hold a whole policy */
	__u32 view;	/* 0 or 1 */
	__u32 flags[FWD_VIEWS];
	__u32 reserved;
};

_Static_assert(sizeof(struct fwd_control) == 24, "layout of control");

/*
 * Maps "block_entries" and "allow_entries", written through mmap: a prefix and all that belongs to
 * it. The tries "block4" to "allow6" lead from an address to an entry's index.
 *
 *   E1  An entry is in a trie only while `used` is 1.
 *   E2  `views` is set last when an entry is made and cleared first when it goes.
 *   E3  The prefix of an entry does not change while it is used.
 */
struct fwd_entry {
	__u8 addr[16]; /* network byte order; IPv4 in the first four, the rest zero */
	__u8 family;   /* 4 or 6 */
	__u8 len;
	__u8 views; /* bit V: seen in view V */
	__u8 used;
	__u32 reserved;
	__u64 expires_ns; /* matches before this time only; 0: for good */
	__u64 packets;
	__u64 bytes;
	__u64 last_hit_ns; /* 0: never */
	__u64 reserved2;
};

/* One cache line, so that a hit touches no second one to count. */
_Static_assert(sizeof(struct fwd_entry) == 64, "an entry is a cache line");

/* Keys of the tries; struct bpf_lpm_trie_key with a fixed size. */
struct fwd_key4 {
	__u32 prefixlen;
	__u8 addr[4];
};

struct fwd_key6 {
	__u32 prefixlen;
	__u8 addr[16];
};

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
#define FWD_TABLE_INDEX(view, slot, hook) \
	(((view)*FWD_MAX_INTERFACES + (slot)) * 2 + ((hook)-FWD_HOOK_TC_IN))
#define FWD_TABLES (FWD_VIEWS * FWD_MAX_INTERFACES * 2)

/* Position of a port's line in a table. */
#define FWD_LINE_INDEX(protocol, port) ((protocol)*FWD_PORT_LINES + (port) / FWD_PORT_LINE)
#define FWD_TABLE_LINES		       (FWD_PROTOCOLS * FWD_PORT_LINES)

#endif
