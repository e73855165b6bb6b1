/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The programs of one interface at the three hooks: putting them on, keeping them, taking them off.
 * What is there is asked from the kernel each time; what is kept here only saves work.
 */
#pragma once

#include "links.h"
#include "tc.h"
#include "xdp.h"

struct attachment {
	struct xdp_state xdp;
	u32 program_id[FWD_HOOKS]; /* ours, as last seen; 0: none */
	u32 foreign_id[FWD_HOOKS]; /* TC: of somebody's filter at our place; 0: none */
	bool checked[FWD_HOOKS];   /* it is this build's, on these maps and of this slot */
};

/* Where: all of it the caller's. */
struct attachment_site {
	struct datapath *dp;
	const struct datapath_owner *owner;
	struct tc *tc;
	struct link_info link;
	u32 slot;
	enum xdp_mode_wanted xdp_mode;
};

/* Asks the kernel what is at the hook. */
int attachment_find(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		    struct error *err);

/* True if what attachment_find() saw of ours can stay as it is. */
bool attachment_is_right(struct attachment *at, const struct attachment_site *site,
			 enum fwd_hook hook);

/*
 * Has our program at the hook, where attachment_find() has just looked; nothing is done where it is
 * there already and right. *ret_added: there was none of ours before. On failure what was there
 * before is there again, if the kernel lets it. -EEXIST: as xdp_attach() has it.
 */
int attachment_ensure(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		      bool *ret_added, struct error *err);

/*
 * Adds what is not as it should be at the hook: where a program is `needed`, that of this build, on
 * these maps and pinned; where none is, none of ours. `trouble`, or NULL, is what is known of the
 * reason.
 */
void attachment_verify(const struct attachment *at, const struct attachment_site *site,
		       enum fwd_hook hook, bool needed, const char *trouble,
		       struct differences *ret);

/* Takes our program off, and no other. */
int attachment_drop(struct attachment *at, const struct attachment_site *site, enum fwd_hook hook,
		    struct error *err);

/* "XDP", "TC in", "TC out", for messages. */
extern const char *const attachment_hook_names[FWD_HOOKS];
