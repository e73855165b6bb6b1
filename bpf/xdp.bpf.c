// SPDX-License-Identifier: GPL-2.0-or-later
/* The XDP program: drops packets from blocked sources. Parse, decide, count, return. */
#include "lookup.h"
#include "parse.h"

#include <xdp/xdp_helpers.h>

/* Before other programs on the interface, which see what it passes. */
struct {
	__uint(priority, 10);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(fwd_xdp);

/* The kernel gives packets in several buffers (5.18 on); the first holds the headers. */
const volatile bool fwd_has_frags;

/* Of a packet in several buffers: drivers fill a page, or half of one, before they take another. */
#define FIRST_BUFFER_MIN 1024

static __always_inline __u64 packet_bytes(struct xdp_md *ctx)
{
	__u64 bytes = ctx->data_end - ctx->data;

	/* There is no second buffer where the first is far from full. */
	return fwd_has_frags && bytes >= FIRST_BUFFER_MIN ? bpf_xdp_get_buff_len(ctx) : bytes;
}

static __always_inline enum fwd_verdict decide(struct xdp_md *ctx, __u64 bytes)
{
	struct fwd_span span = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	const struct fwd_view *view = fwd_current_view(); /* V2 */
	const struct ipv6hdr *ip6;
	const struct iphdr *ip4;
	enum fwd_parsed parsed;
	__be16 protocol;
	__u32 tags;

	if (fwd_has_l2)
		parsed = fwd_parse_ethernet(&span, &protocol, &tags);
	else
		parsed = fwd_parse_version(&span, &protocol);
	if (parsed != FWD_PARSED_OK)
		return FWD_MALFORMED;
	if (!view)
		return FWD_PASS;

	if (protocol == bpf_htons(ETH_P_IP)) {
		ip4 = fwd_parse_ipv4(&span);
		if (!ip4)
			return FWD_MALFORMED;
		if (!(view->flags & FWD_BLOCK_IN))
			return FWD_PASS;
		return fwd_blacklist_ipv4(view, ip4->saddr, bytes);
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		ip6 = fwd_parse_ipv6(&span);
		if (!ip6)
			return FWD_MALFORMED;
		if (!(view->flags & FWD_BLOCK_IN))
			return FWD_PASS;
		return fwd_blacklist_ipv6(view, ip6->saddr.in6_u.u6_addr32, bytes);
	}
	return FWD_NOT_IP;
}

SEC("xdp")
int fwd_xdp(struct xdp_md *ctx)
{
	__u64 bytes = packet_bytes(ctx);
	enum fwd_verdict verdict = decide(ctx, bytes);

	fwd_count(FWD_HOOK_XDP, verdict, bytes);
	return verdict == FWD_DROP ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
