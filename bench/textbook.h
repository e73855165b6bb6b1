/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A blacklist the textbook way, the map left open: Ethernet, IPv4 or IPv6, the source looked up,
 * the hit counted in the entry, the verdict.
 */
#ifndef FWD_BENCH_TEXTBOOK_H
#define FWD_BENCH_TEXTBOOK_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The packet's IP header, if all of it is there. */
static __always_inline const struct iphdr *ipv4_header(const struct xdp_md *ctx)
{
	const struct ethhdr *eth = (void *)(long)ctx->data;
	const struct iphdr *ip = (const void *)(eth + 1);

	if ((const void *)(ip + 1) > (void *)(long)ctx->data_end)
		return NULL;
	return eth->h_proto == bpf_htons(ETH_P_IP) ? ip : NULL;
}

static __always_inline const struct ipv6hdr *ipv6_header(const struct xdp_md *ctx)
{
	const struct ethhdr *eth = (void *)(long)ctx->data;
	const struct ipv6hdr *ip = (const void *)(eth + 1);

	if ((const void *)(ip + 1) > (void *)(long)ctx->data_end)
		return NULL;
	return eth->h_proto == bpf_htons(ETH_P_IPV6) ? ip : NULL;
}

/* `hits`: the entry's counter, or NULL where no entry matches. */
static __always_inline int verdict(__u64 *hits)
{
	if (!hits)
		return XDP_PASS;
	__sync_fetch_and_add(hits, 1);
	return XDP_DROP;
}

#endif
