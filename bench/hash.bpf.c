// SPDX-License-Identifier: GPL-2.0-or-later
/* A blacklist of hosts in a hash, the textbook way. */
#include "textbook.h"

#include <linux/in6.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __be32);
	__type(value, __u64);
} blocked4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct in6_addr);
	__type(value, __u64);
} blocked6 SEC(".maps");

SEC("xdp")
int blacklist(struct xdp_md *ctx)
{
	const struct iphdr *ip4 = ipv4_header(ctx);
	const struct ipv6hdr *ip6;
	struct in6_addr key6;
	__be32 key4;

	if (ip4) {
		key4 = ip4->saddr;
		return verdict(bpf_map_lookup_elem(&blocked4, &key4));
	}
	ip6 = ipv6_header(ctx);
	if (ip6) {
		key6 = ip6->saddr;
		return verdict(bpf_map_lookup_elem(&blocked6, &key6));
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
