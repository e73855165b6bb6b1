// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The TC programs, on clsact: drop packets to blocked addresses on their way out, and redirect by
 * destination port in both directions. Parse, decide, count, act.
 *
 * TC_ACT_UNSPEC passes a packet on to the filters behind this one, which TC_ACT_OK would skip.
 */
#include "lookup.h"
#include "parse.h"

#include <linux/pkt_cls.h>

#define ETHERNET_ADDRS (2 * ETH_ALEN)

struct packet {
	enum fwd_parsed parsed;
	__be16 protocol; /* Ethernet type */
	__u32 tags;	 /* VLAN tags in the data; an outer one may be in the skb besides */
	bool has_addr;	 /* the IP header is whole, whatever comes behind it */
	__be32 addr[4];	 /* destination, IPv4 in the first of them */
	struct fwd_transport transport;
};

static __always_inline enum fwd_parsed parse(struct __sk_buff *skb, struct packet *packet)
{
	struct fwd_span span = {(void *)(long)skb->data, (void *)(long)skb->data_end};
	const struct ipv6hdr *ip6;
	const struct iphdr *ip4;
	enum fwd_parsed parsed = FWD_PARSED_OK;

	packet->tags = 0;
	packet->has_addr = false;
	if (fwd_has_l2)
		parsed = fwd_parse_ethernet(&span, &packet->protocol, &packet->tags);
	else
		packet->protocol = skb->protocol;
	if (parsed != FWD_PARSED_OK)
		return parsed;

	if (packet->protocol == bpf_htons(ETH_P_IP)) {
		ip4 = fwd_parse_ipv4(&span);
		if (!ip4)
			return FWD_PARSED_SHORT;
		__builtin_memcpy(packet->addr, &ip4->daddr, 4);
		packet->has_addr = true;
		return fwd_parse_transport4(&span, ip4, &packet->transport);
	}
	if (packet->protocol == bpf_htons(ETH_P_IPV6)) {
		ip6 = fwd_parse_ipv6(&span);
		if (!ip6)
			return FWD_PARSED_SHORT;
		__builtin_memcpy(packet->addr, &ip6->daddr, 16);
		packet->has_addr = true;
		return fwd_parse_transport6(&span, ip6, &packet->transport);
	}
	return FWD_PARSED_NOT_IP;
}

static __always_inline enum fwd_verdict blacklist_out(const struct fwd_view *view,
						      const struct packet *packet, __u64 bytes)
{
	if (packet->protocol == bpf_htons(ETH_P_IP))
		return fwd_blacklist_ipv4(view, packet->addr[0], bytes);
	return fwd_blacklist_ipv6(view, packet->addr, bytes);
}

/* The redirect of the packet's port, 0 for none. */
static __always_inline __u32 find_redirect(const struct fwd_view *view, const struct packet *packet,
					   enum fwd_hook hook)
{
	__u32 table_index = FWD_TABLE_INDEX(view->tables & 1, fwd_slot, hook);
	__u16 port = bpf_ntohs(packet->transport.port);
	const struct fwd_port_line *line;
	__u32 protocol, line_index;
	void *table;

	if (packet->transport.protocol == IPPROTO_TCP)
		protocol = FWD_TCP;
	else if (packet->transport.protocol == IPPROTO_UDP)
		protocol = FWD_UDP;
	else
		return 0;
	table = bpf_map_lookup_elem(&redirect_tables, &table_index);
	if (!table)
		return 0;
	line_index = FWD_LINE_INDEX(protocol, port);
	line = bpf_map_lookup_elem(table, &line_index);
	return line ? line->redirect[port % FWD_PORT_LINE] : 0;
}

/* Puts an Ethernet header in front of a packet from a device that has none. */
static __always_inline bool push_ethernet(struct __sk_buff *skb, const __u8 *mac, __be16 protocol)
{
	struct ethhdr eth = {.h_proto = protocol};

	if (bpf_skb_change_head(skb, sizeof(eth), 0))
		return false;
	__builtin_memcpy(eth.h_dest, mac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, mac, ETH_ALEN);
	return !bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
}

static __always_inline bool pop_tags(struct __sk_buff *skb, __u32 tags)
{
	tags += skb->vlan_present ? 1 : 0;
#pragma unroll
	for (__u32 i = 0; i < FWD_MAX_VLAN_TAGS + 1; i++)
		if (i < tags && bpf_skb_vlan_pop(skb))
			return false;
	return true;
}

/*
 * Brings the packet into the form that the target's mode needs. Behind this the headers have moved,
 * so it comes last. The mode and the devices decide:
 *
 *   from Ethernet   to Ethernet      l2: nothing; neigh: tags go, the kernel replaces the header;
 *                                    ingress: the target's address, or it would not take the frame
 *   from Ethernet   to no header     tags go; the kernel takes the header off
 *   from no header  to Ethernet      l2: impossible; neigh, ingress: a header is put in front
 *   from no header  to no header     nothing
 */
static __always_inline bool prepare(struct __sk_buff *skb, const struct packet *packet,
				    const struct fwd_target *target, const __u8 *mac)
{
	if (!fwd_has_l2)
		return !target->has_l2 ||
		       (target->mode != FWD_MODE_L2 && push_ethernet(skb, mac, packet->protocol));
	if (!target->has_l2 || target->mode == FWD_MODE_NEIGH)
		return pop_tags(skb, packet->tags);
	if (target->mode == FWD_MODE_INGRESS)
		return !bpf_skb_store_bytes(skb, 0, mac, ETH_ALEN, 0);
	return true;
}

static __always_inline int redirect(struct __sk_buff *skb, const struct packet *packet,
				    enum fwd_hook hook, __u32 index, __u64 bytes)
{
	const struct fwd_redirect *rule = bpf_map_lookup_elem(&redirects, &index);
	struct fwd_counter *count;
	struct fwd_target target;

	if (!rule)
		return TC_ACT_UNSPEC;
	/* One load, so that interface and mode belong together. */
	*(__u64 *)&target = *(const volatile __u64 *)&rule->target;
	if (!target.ifindex || !prepare(skb, packet, &target, rule->mac)) {
		fwd_count(hook, FWD_NO_TARGET, bytes);
		return TC_ACT_SHOT;
	}
	count = bpf_map_lookup_elem(&redirect_counts, &index);
	if (count) {
		count->packets++;
		count->bytes += bytes;
	}
	fwd_count(hook, FWD_REDIRECT, bytes);
	if (target.mode == FWD_MODE_INGRESS)
		return bpf_redirect(target.ifindex, BPF_F_INGRESS);
	/* A device without a header has no neighbours: what reaches it is sent. */
	if (target.mode == FWD_MODE_NEIGH && target.has_l2)
		return bpf_redirect_neigh(target.ifindex, NULL, 0, 0);
	return bpf_redirect(target.ifindex, 0);
}

static __always_inline int finish(enum fwd_hook hook, enum fwd_verdict verdict, __u64 bytes)
{
	fwd_count(hook, verdict, bytes);
	return verdict == FWD_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

static __always_inline int filter(struct __sk_buff *skb, enum fwd_hook hook)
{
	const struct fwd_view *view = fwd_current_view(); /* V2 */
	enum fwd_verdict verdict = FWD_PASS;
	struct packet packet = {};
	__u64 bytes = skb->len;
	enum fwd_parsed parsed;
	__u32 index;

	/* Headers may lie outside the linear part; then they are pulled into it, once. */
	parsed = parse(skb, &packet);
	if (parsed == FWD_PARSED_SHORT && skb->data_end - skb->data < skb->len &&
	    !bpf_skb_pull_data(skb, skb->len))
		parsed = parse(skb, &packet);
	if (parsed == FWD_PARSED_NOT_IP)
		return finish(hook, FWD_NOT_IP, bytes);
	if (!view)
		return finish(hook, FWD_PASS, bytes);

	/* Headers that are cut off behind the address do not hide it. */
	if (hook == FWD_HOOK_TC_OUT && packet.has_addr && view->flags & FWD_BLOCK_OUT)
		verdict = blacklist_out(view, &packet, bytes);
	if (verdict == FWD_DROP)
		return finish(hook, verdict, bytes);
	if (parsed == FWD_PARSED_SHORT)
		return finish(hook, FWD_MALFORMED, bytes);
	index = find_redirect(view, &packet, hook);
	if (index)
		return redirect(skb, &packet, hook, index, bytes);
	return finish(hook, verdict, bytes);
}

SEC("tc")
int fwd_tc_in(struct __sk_buff *skb)
{
	return filter(skb, FWD_HOOK_TC_IN);
}

SEC("tc")
int fwd_tc_out(struct __sk_buff *skb)
{
	return filter(skb, FWD_HOOK_TC_OUT);
}

char _license[] SEC("license") = "GPL";
