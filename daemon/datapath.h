/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's side of an instance: the pinned maps, the switch from view to view and from bank to
 * bank, and the programs of each interface.
 *
 * Pins, below the pin directory:
 *
 *   current/MAP               the maps, by the names in bpf/abi.h; those of a bank with its number
 *   current/xdp_SLOT          the programs of an interface, by its slot
 *   current/tc_in_SLOT
 *   current/tc_out_SLOT
 *   next/                     the same, while a new set of maps is being made
 *
 *   old/                      the maps that `current` has taken the place of, for a moment
 *
 *   D1  `current` is complete or not there. `next` is renamed to it once it is complete and the
 *       interfaces' programs use it.
 *   D2  A program is ours if it uses a control map that is pinned below the directory: that holds
 *       from the moment it is loaded, whatever version made it.
 */
#pragma once

#include "cleanup.h"
#include "differences.h"
#include "error.h"
#include "prefix_map.h"
#include "redirect_map.h"

#include <bpf/libbpf.h>

struct datapath;

/*
 * Makes the pin directory where it is not there, and locks it against a second daemon (-EBUSY) for
 * as long as *ret_fd is open.
 */
int datapath_lock(const char *pin_dir, int *ret_fd, struct error *err);

/*
 * Opens the pinned maps. *ret stays NULL, with 0, where there are none of this ABI version, or they
 * are damaged: then make others with datapath_create().
 */
int datapath_adopt(const char *pin_dir, struct datapath **ret, struct error *err);

/*
 * False: an earlier daemon died in a change. What packets see is whole, what is behind it may not
 * be: make a new bank of the policy, and put it in use.
 */
bool datapath_is_whole(const struct datapath *dp);

/*
 * Makes new maps, pinned in `next`, for what `prefixes` holds, made for bank 0. That is the
 * datapath's from now on, if this succeeds.
 */
int datapath_create(const char *pin_dir, struct prefix_map *prefixes, u32 flags,
		    struct datapath **ret, struct error *err);

/* Says that the maps hold a whole policy and all programs use them: `next` becomes `current`. */
int datapath_promote(struct datapath *dp, struct error *err);

/* Lets go of the descriptors; pins and attached programs stay. */
void datapath_close(struct datapath *dp);
DEFINE_CLEANUP(struct datapath *, datapath_close);

/* Removes all pins of an instance, whichever daemon made them, and none of others. */
int datapath_remove_pins(const char *pin_dir, struct error *err);

/* The control maps of an instance, of any version (D2); 0 where there is none. */
#define DATAPATH_SETS 3
struct datapath_owner {
	u32 control_ids[DATAPATH_SETS];
	bool by_looks; /* also what has the names of our programs and of their control map */
};

/* `by_looks` is false. */
void datapath_read_owner(const char *pin_dir, struct datapath_owner *ret);

/*
 * Whether the pinned table of slots says that the daemon added the interface's clsact: 1 or 0;
 * -ENOENT: there is no table of this version.
 */
int datapath_added_clsact(const char *pin_dir, int ifindex);

/*
 * *ret: the program is the instance's. One that is gone, and 0, is nobody's. A failure says nothing
 * of whose it is: it could not be asked.
 */
int datapath_owner_has(const struct datapath_owner *owner, u32 program_id, bool *ret,
		       struct error *err);

/* True if it is a program of the hook and uses just these maps. */
bool datapath_has_program(const struct datapath *dp, enum fwd_hook hook, u32 program_id);

/* The prefixes that packets see. */
struct prefix_map *datapath_prefixes(const struct datapath *dp);
struct redirect_map *datapath_redirects(struct datapath *dp);

/*
 * Puts maps, made for the bank that is not in use, in the place of that bank's; they are the
 * datapath's from now on, if this succeeds. Programs have to be moved (interfaces_move()) before a
 * change with `offered_bank` makes packets see them.
 */
int datapath_offer_bank(struct datapath *dp, struct prefix_map *prefixes, struct error *err);
struct prefix_map *datapath_offered(const struct datapath *dp);
unsigned datapath_offered_bank(const struct datapath *dp); /* its number */

/* Until it succeeds, after a bank that was offered in vain: pins what there is in its place. */
int datapath_keep_pins(struct datapath *dp, struct error *err);

/* ---- changes of the policy ---- */

/* All of it takes effect at once, or nothing does. */
struct datapath_change {
	const struct prefix_change *prefixes;
	size_t n_prefixes;
	bool offered_bank; /* the prefixes are changes to the offered bank, which is used then */
	u32 flags;	   /* FWD_BLOCK_IN, FWD_BLOCK_OUT */

	/* False: they stay as they are, and the rest is not read. */
	bool redirects_too;
	const struct redirect *redirects;
	size_t n_redirects;
	const struct redirect_scope *scopes;
	size_t n_scopes;
};

/* As prefix_map_stage(). Then either commit or abort; neither can fail. */
int datapath_stage(struct datapath *dp, const struct datapath_change *change, struct error *err);
void datapath_commit(struct datapath *dp);
void datapath_abort(struct datapath *dp);

u32 datapath_flags(const struct datapath *dp);

/*
 * The number of the last change of the durable rules that the maps hold (store_change()). It tells
 * a later daemon whether its database has all changes that were in force.
 */
void datapath_set_change(struct datapath *dp, u64 change);
u64 datapath_change_number(const struct datapath *dp);

/* ---- verifying ---- */

/* Where packets begin now, and the maps that they look through. For any thread. */
void datapath_read_roots(const struct datapath *dp, u32 ret[FWD_TRIES]);

/* The set of port tables that packets see. */
unsigned datapath_table_set(const struct datapath *dp);

/* Adds what is not as it should be of the view, and of the pins of the maps. */
void datapath_verify(const struct datapath *dp, u32 flags, struct differences *ret);

/*
 * Pins all maps again where they are not pinned, and puts right what is beside the view. The view
 * itself is put right by the next change that makes another one.
 */
int datapath_mend(struct datapath *dp, struct error *err);

/* ---- interfaces ---- */

/* The table of slots; the daemon may write to it. */
struct fwd_interface *datapath_interfaces(struct datapath *dp);

/* The kernel has XDP programs for packets in several buffers (5.18). */
bool datapath_has_frags(void);

/* The XDP program of a slot, opened with its constants and maps, not loaded: for libxdp. */
int datapath_open_xdp(struct datapath *dp, u32 slot, bool has_l2, struct bpf_object **ret,
		      struct error *err);

/*
 * Loads a slot's XDP program, or its TC program for one direction (FWD_HOOK_TC_IN or _OUT); or
 * takes one that was loaded ahead. `frags`: it takes packets in several buffers. The caller closes
 * it.
 */
int datapath_load_xdp(struct datapath *dp, u32 slot, bool has_l2, bool frags, int *ret_fd,
		      struct error *err);
int datapath_load_tc(struct datapath *dp, u32 slot, enum fwd_hook hook, bool has_l2, int *ret_fd,
		     struct error *err);

/*
 * Programs for maps that are still to be offered. The kernel takes some ten milliseconds to verify
 * each: so a worker loads them, and the event loop only attaches them. Begin with zeros.
 */
struct program_kind {
	u32 slot;
	u8 hook; /* enum fwd_hook */
	bool has_l2, frags;
};

struct program_set {
	struct loaded_program {
		struct program_kind kind;
		int fd; /* -1: not loaded */
	} * items;
	size_t n;
};

void program_set_clear(struct program_set *set);

/*
 * From any thread, while no bank is offered and none is put in use. What cannot be loaded is left
 * to datapath_load_xdp() and _tc(), which tell why.
 */
void datapath_load_ahead(const struct datapath *dp, unsigned bank, const struct prefix_map *offered,
			 struct program_set *set);

/* Takes over what was loaded for the maps that are offered now. NULL: lets go of what is left. */
void datapath_take_programs(struct datapath *dp, struct program_set *set);

/* Pins, and takes away, the program of a slot and hook. A pin that is there is replaced. */
int datapath_pin_program(struct datapath *dp, u32 slot, enum fwd_hook hook, int fd,
			 struct error *err);
void datapath_unpin_program(struct datapath *dp, u32 slot, enum fwd_hook hook);

/* The identifier of an open program; 0: it is none. */
u32 datapath_program_id(int fd);

/* The identifier of the program that is pinned for a slot and hook; 0: none. */
u32 datapath_pinned_program(const struct datapath *dp, u32 slot, enum fwd_hook hook);

/* True if the program has the instructions that this build loads for the hook. */
bool datapath_is_current_code(struct datapath *dp, enum fwd_hook hook, u32 program_id);

/* Counters of a slot and hook, over all CPUs. */
int datapath_counters(struct datapath *dp, u32 slot, enum fwd_hook hook, struct fwd_counters *ret);
void datapath_clear_counters(struct datapath *dp, u32 slot);

/* Memory of all maps. */
size_t datapath_bytes(const struct datapath *dp);
