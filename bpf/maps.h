/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The maps of both programs. The daemon sets the sizes that follow the content (max_entries of
 * lines and entries) before it makes them, pins them, and hands the same maps to every interface's
 * programs. bpf/abi.h describes their content.
 */
#ifndef FWD_MAPS_H
#define FWD_MAPS_H

#include "abi.h"

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>

#define FWD_ARRAY(name, element)                   \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1);            \
		__type(key, __u32);                \
		__type(value, struct element);     \
	} name SEC(".maps")

FWD_ARRAY(control, fwd_control);
FWD_ARRAY(lines_0, fwd_line);
FWD_ARRAY(entries4_0, fwd_entry);
FWD_ARRAY(entries6_0, fwd_entry6);
FWD_ARRAY(lines_1, fwd_line);
FWD_ARRAY(entries4_1, fwd_entry);
FWD_ARRAY(entries6_1, fwd_entry6);

struct fwd_port_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FWD_PORT_TABLE_LINES);
	/* Sizes, not types: clang leaves types out that only an inner map names. */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct fwd_port_line));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, FWD_TABLES);
	__type(key, __u32);
	__array(values, struct fwd_port_table);
} redirect_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FWD_MAX_REDIRECTS);
	__type(key, __u32);
	__type(value, struct fwd_redirect);
} redirects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FWD_MAX_REDIRECTS);
	__type(key, __u32);
	__type(value, struct fwd_counter);
} redirect_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FWD_MAX_INTERFACES *FWD_HOOKS);
	__type(key, __u32);
	__type(value, struct fwd_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FWD_MAX_INTERFACES);
	__type(key, __u32);
	__type(value, struct fwd_interface);
} interfaces SEC(".maps");

/* Constants of one interface; the daemon sets them before it loads the interface's programs. */
const volatile __u32 fwd_slot;	/* its place in `counters` and `redirect_tables` */
const volatile bool fwd_has_l2; /* packets begin with an Ethernet header */

static __always_inline void fwd_count(enum fwd_hook hook, enum fwd_verdict verdict, __u64 bytes)
{
	__u32 index = fwd_slot * FWD_HOOKS + hook;
	struct fwd_counters *counts = bpf_map_lookup_elem(&counters, &index);

	if (!counts)
		return;
	counts->by_verdict[verdict].packets++;
	counts->by_verdict[verdict].bytes += bytes;
}

/* The view that packets see; NULL cannot be. */
static __always_inline const struct fwd_view *fwd_current_view(void)
{
	__u32 zero = 0;
	const struct fwd_control *policy = bpf_map_lookup_elem(&control, &zero);

	return policy ? &policy->views[*(const volatile __u32 *)&policy->view % FWD_VIEWS] : NULL;
}

#endif
