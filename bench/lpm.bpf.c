// SPDX-License-Identifier: GPL-2.0-or-later
/* A blacklist of prefixes in the kernel's LPM tries, the textbook way. */
#include "textbook.h"

#include <linux/in6.h>

struct key4 {
	__u32 prefixlen;
	__be32 addr;
};

struct key6 {
	__u32 prefixlen;
	struct in6_addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct key4);
	__type(value, __u64);
} blocked4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct key6);
	__type(value, __u64);
} blocked6 SEC(".maps");

SEC("xdp")
int blacklist(struct xdp_md *ctx)
{
	const struct iphdr *ip4 = ipv4_header(ctx);
	struct key4 key4 = {.prefixlen = 32};
	struct key6 key6 = {.prefixlen = 128};
	const struct ipv6hdr *ip6;

	if (ip4) {
		key4.addr = ip4->saddr;
		return verdict(bpf_map_lookup_elem(&blocked4, &key4));
	}
	ip6 = ipv6_header(ctx);
	if (ip6) {
		key6.addr = ip6->saddr;
		return verdict(bpf_map_lookup_elem(&blocked6, &key6));
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
