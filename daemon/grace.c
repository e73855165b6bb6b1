// SPDX-License-Identifier: GPL-2.0-or-later
#include "grace.h"

#include "types.h"

#include <bpf/bpf.h>
#include <errno.h>

static int outer_fd = -1;
static int inner_fd = -1;

int grace_open(struct error *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);

	if (outer_fd >= 0)
		return 0;
	inner_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "fwd_grace_inner", sizeof(u32), sizeof(u32),
				  1, NULL);
	if (inner_fd < 0)
		return error_set(err, -errno, "cannot make a map: %s", error_name(errno));
	opts.inner_map_fd = (u32)inner_fd;
	outer_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "fwd_grace", sizeof(u32), sizeof(u32),
				  1, &opts);
	if (outer_fd < 0)
		return error_set(err, -errno, "cannot make a map of maps: %s", error_name(errno));
	return 0;
}

void grace_wait(void)
{
	u32 zero = 0;

	bpf_map_update_elem(outer_fd, &zero, &inner_fd, BPF_ANY);
}

void grace_close(void)
{
	closep(&outer_fd);
	closep(&inner_fd);
	outer_fd = inner_fd = -1;
}
