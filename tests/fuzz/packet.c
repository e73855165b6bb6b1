// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The packet parser, in the order in which the two programs use it, on a buffer that ends where the
 * packet does. The first byte of the input tells the device, the second where a copy is cut: what
 * is parsed of a part is parsed of the whole in the same way.
 */
#include "cleanup.h"
#include "parse.h"
#include "types.h"

#include <string.h>

static void require(bool fact)
{
	if (!fact)
		abort();
}

/* What both programs find out of a packet. */
struct result {
	enum fwd_parsed network, transport; /* for XDP, and behind that for TC */
	__be16 protocol;
	u8 source[16], dest[16];
	struct fwd_transport ports;
};

static void check_span(const struct fwd_span *span, const u8 *begin)
{
	require((const u8 *)span->at >= begin && span->at <= span->end);
}

static enum fwd_parsed parse_ip(struct fwd_span *span, struct result *result)
{
	const struct iphdr *ip4;
	const struct ipv6hdr *ip6;

	if (result->protocol == bpf_htons(ETH_P_IP)) {
		ip4 = fwd_parse_ipv4(span);
		if (!ip4)
			return FWD_PARSED_SHORT;
		memcpy(result->source, &ip4->saddr, 4);
		memcpy(result->dest, &ip4->daddr, 4);
		result->transport = fwd_parse_transport4(span, ip4, &result->ports);
		return FWD_PARSED_OK;
	}
	if (result->protocol == bpf_htons(ETH_P_IPV6)) {
		ip6 = fwd_parse_ipv6(span);
		if (!ip6)
			return FWD_PARSED_SHORT;
		memcpy(result->source, &ip6->saddr, 16);
		memcpy(result->dest, &ip6->daddr, 16);
		result->transport = fwd_parse_transport6(span, ip6, &result->ports);
		return FWD_PARSED_OK;
	}
	return FWD_PARSED_NOT_IP;
}

static void check_transport(const struct result *result)
{
	u8 protocol = result->ports.protocol;

	if (result->network != FWD_PARSED_OK || result->transport != FWD_PARSED_OK)
		return;
	require(!result->ports.port || protocol == IPPROTO_TCP || protocol == IPPROTO_UDP);
	require(result->protocol == bpf_htons(ETH_P_IP) || !fwd_is_extension(protocol));
}

static void parse(const u8 *data, size_t size, bool has_l2, struct result *ret)
{
	/* As the kernel does, so that headers behind Ethernet's 14 bytes are aligned. */
	const size_t pad = has_l2 ? 2 : 0;
	_cleanup_free_ u8 *buffer = malloc(pad + size + !size);
	struct fwd_span span = {buffer + pad, buffer + pad + size};
	__u32 tags = 0;

	require(buffer);
	if (size)
		memcpy(buffer + pad, data, size);
	memset(ret, 0, sizeof(*ret));
	ret->network = has_l2 ? fwd_parse_ethernet(&span, &ret->protocol, &tags)
			      : fwd_parse_version(&span, &ret->protocol);
	check_span(&span, buffer + pad);
	require(tags <= FWD_MAX_VLAN_TAGS);
	if (ret->network == FWD_PARSED_OK)
		ret->network = parse_ip(&span, ret);
	if (ret->network == FWD_PARSED_OK && ret->transport == FWD_PARSED_OK)
		check_span(&span, buffer + pad);
	check_transport(ret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct result whole, part;
	bool has_l2;
	size_t cut;

	if (size < 2)
		return 0;
	has_l2 = data[0] & 1;
	cut = data[1];
	data += 2;
	size -= 2;
	parse(data, size, has_l2, &whole);
	if (cut >= size)
		return 0;
	parse(data, cut, has_l2, &part);
	if (part.network == FWD_PARSED_SHORT)
		return 0;
	require(part.network == whole.network && part.protocol == whole.protocol);
	require(!memcmp(part.source, whole.source, sizeof(part.source)));
	require(!memcmp(part.dest, whole.dest, sizeof(part.dest)));
	if (part.network == FWD_PARSED_OK && part.transport == FWD_PARSED_OK)
		require(whole.transport == FWD_PARSED_OK &&
			part.ports.protocol == whole.ports.protocol &&
			part.ports.port == whole.ports.port);
	return 0;
}
