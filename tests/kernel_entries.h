/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The entries of a bank as they stand in the kernel's maps, whatever the daemon believes of them;
 * those of staged changes are among them.
 */
#pragma once

#include "prefix_map.h"

struct kernel_entries {
	u8 *memory;
	size_t n, size_bytes;
};

void kernel_entries_open(const struct prefix_map *map, enum family family,
			 struct kernel_entries *ret);
void kernel_entries_close(struct kernel_entries *entries);

/* Below `n`; the first one stands for none. */
struct fwd_entry *kernel_entries_at(const struct kernel_entries *entries, size_t i);

/* NULL: there is none of exactly this prefix. */
struct fwd_entry *kernel_entries_find(const struct kernel_entries *entries, enum prefix_table table,
				      const struct prefix *prefix);
