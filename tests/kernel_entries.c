// SPDX-License-Identifier: GPL-2.0-or-later
#include "kernel_entries.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <endian.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>

void kernel_entries_open(const struct prefix_map *map, enum family family,
			 struct kernel_entries *ret)
{
	bool ipv6 = family == FAMILY_IPV6;
	int fd = prefix_map_fd(map, ipv6 ? PART_ENTRIES6 : PART_ENTRIES4);
	struct bpf_map_info info = {0};
	u32 size = sizeof(info);

	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
	ret->n = info.max_entries;
	ret->size_bytes = ipv6 ? sizeof(struct fwd_entry6) : sizeof(struct fwd_entry);
	ret->memory =
		mmap(NULL, ret->n * ret->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(ret->memory, MAP_FAILED);
}

void kernel_entries_close(struct kernel_entries *entries)
{
	munmap(entries->memory, entries->n * entries->size_bytes);
}

struct fwd_entry *kernel_entries_at(const struct kernel_entries *entries, size_t i)
{
	return (struct fwd_entry *)(entries->memory + i * entries->size_bytes);
}

static bool is_of(const struct fwd_entry *entry, enum prefix_table table,
		  const struct prefix *prefix)
{
	u32 flags = FWD_ENTRY_USED | (table == TABLE_ALLOW ? FWD_ENTRY_ALLOW : 0);
	const struct fwd_entry6 *entry6 = (const struct fwd_entry6 *)entry;
	u64 addr[2] = {htobe64((u64)entry->addr << 32)};

	if (prefix->family == FAMILY_IPV6) {
		addr[0] = htobe64(entry6->addr[0]);
		addr[1] = htobe64(entry6->addr[1]);
	}
	return (FWD_ABOUT_FLAGS(entry->about) & (FWD_ENTRY_USED | FWD_ENTRY_ALLOW)) == flags &&
	       FWD_ABOUT_LEN(entry->about) == prefix->len &&
	       !memcmp(addr, prefix->addr, sizeof(addr));
}

struct fwd_entry *kernel_entries_find(const struct kernel_entries *entries, enum prefix_table table,
				      const struct prefix *prefix)
{
	for (size_t i = 1; i < entries->n; i++)
		if (is_of(kernel_entries_at(entries, i), table, prefix))
			return kernel_entries_at(entries, i);
	return NULL;
}
