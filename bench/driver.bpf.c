// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Drives a program under test: each run writes the next of the drawn source addresses into the
 * packet and goes on in that program; or sends the packet, for BPF_PROG_TEST_RUN's live frames.
 *
 * One CPU runs it at a time, so the cursor needs no atomics.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#define SOURCES (1 << 20) /* bench/fwdbench/packets.py has the same */

struct source {
	__u8 addr[16]; /* in network order; an IPv4 address takes the first 4 bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SOURCES);
	__type(key, __u32);
	__type(value, struct source);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tested SEC(".maps");

const volatile bool ipv6;
__u32 cursor;

static __always_inline const struct source *next_source(void)
{
	__u32 index = cursor++ & (SOURCES - 1);

	return bpf_map_lookup_elem(&sources, &index);
}

/* The checksum of a header without options (RFC 1071). */
static __always_inline __u16 header_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (unsigned int i = 0; i < sizeof(*ip) / sizeof(*words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline bool write_source4(struct xdp_md *ctx, const struct source *source,
					  bool with_checksum)
{
	struct iphdr *ip = (void *)(long)ctx->data + ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return false;
	__builtin_memcpy(&ip->saddr, source->addr, sizeof(ip->saddr));
	if (with_checksum) {
		ip->check = 0;
		ip->check = header_checksum(ip);
	}
	return true;
}

static __always_inline bool write_source6(struct xdp_md *ctx, const struct source *source)
{
	struct ipv6hdr *ip = (void *)(long)ctx->data + ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return false;
	__builtin_memcpy(&ip->saddr, source->addr, sizeof(ip->saddr));
	return true;
}

/* The tested program returns in its place; XDP_ABORTED means that there is none. */
SEC("xdp")
int run_tested(struct xdp_md *ctx)
{
	const struct source *source = next_source();

	if (!source)
		return XDP_ABORTED;
	if (!(ipv6 ? write_source6(ctx, source) : write_source4(ctx, source, false)))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &tested, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int send(struct xdp_md *ctx)
{
	const struct source *source = next_source();

	return source && write_source4(ctx, source, true) ? XDP_TX : XDP_ABORTED;
}

SEC("xdp")
int bare_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int bare_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
