// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The packet parser in user space, on buffers that end where the packet does, so that
 * AddressSanitizer sees every byte too many. packets.c has the same parser in the kernel.
 */
#include "parse.h"

#include "packet_layers.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct parsed {
	enum fwd_parsed network, transport;
	struct fwd_transport ports;
	__u32 tags;
	size_t left; /* bytes behind the last header that was passed over */
};

static enum fwd_parsed parse_ip(struct fwd_span *span, __be16 protocol, struct parsed *ret)
{
	if (protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = fwd_parse_ipv4(span);

		if (!ip)
			return FWD_PARSED_SHORT;
		ret->transport = fwd_parse_transport4(span, ip, &ret->ports);
		return FWD_PARSED_OK;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = fwd_parse_ipv6(span);

		if (!ip)
			return FWD_PARSED_SHORT;
		ret->transport = fwd_parse_transport6(span, ip, &ret->ports);
		return FWD_PARSED_OK;
	}
	return FWD_PARSED_NOT_IP;
}

/* Two bytes in front of Ethernet align what is behind it, as in the kernel. */
static struct parsed parse(const struct packet *packet)
{
	u8 *buffer = malloc(packet->size + 2);
	struct fwd_span span = {buffer + 2, buffer + 2 + packet->size};
	struct parsed parsed = {0};
	__be16 protocol = 0;

	memcpy(buffer + 2, packet->bytes, packet->size);
	parsed.network = fwd_parse_ethernet(&span, &protocol, &parsed.tags);
	if (parsed.network == FWD_PARSED_OK)
		parsed.network = parse_ip(&span, protocol, &parsed);
	parsed.left = (size_t)((const u8 *)span.end - (const u8 *)span.at);
	free(buffer);
	return parsed;
}

static struct parsed parse_layers(const struct layer *layers)
{
	struct packet packet;

	packet_build(layers, &packet);
	return parse(&packet);
}

#define ANY4 IP4("192.0.2.1", "192.0.2.2")
#define ANY6 IP6("2001:db8::1", "2001:db8::2")

static void expect_port(const struct layer *layers, u8 protocol, u16 port)
{
	struct parsed parsed = parse_layers(layers);

	cr_expect_eq(parsed.network, FWD_PARSED_OK);
	cr_expect_eq(parsed.transport, FWD_PARSED_OK);
	cr_expect_eq(parsed.ports.protocol, protocol);
	cr_expect_eq(bpf_ntohs(parsed.ports.port), port);
}

Test(parse, finds_ports_behind_tags_options_and_extension_headers)
{
	const struct layer plain[LAYERS_MAX] = {ETHERNET, ANY4, TCP(80)};
	const struct layer tagged[LAYERS_MAX] = {ETHERNET, SERVICE_TAG(5), TAG(7),
						 ANY4,	   OPTIONS(10),	   UDP(53)};
	const struct layer chain[LAYERS_MAX] = {ETHERNET,     ANY6,	HOP_BY_HOP,
						DEST_OPTIONS, ROUTING,	FRAGMENT(0, 1),
						AH,	      MOBILITY, TCP(65535)};
	const struct layer icmp[LAYERS_MAX] = {ETHERNET, ANY6, ICMP6};

	expect_port(plain, IPPROTO_TCP, 80);
	expect_port(tagged, IPPROTO_UDP, 53);
	expect_port(chain, IPPROTO_TCP, 65535);
	expect_port(icmp, IPPROTO_ICMPV6, 0);
	cr_expect_eq(parse_layers(plain).tags, 0);
	cr_expect_eq(parse_layers(tagged).tags, 2);
}

static void chain_of(size_t n, struct layer *layers)
{
	layers[0] = (struct layer)ETHERNET;
	layers[1] = (struct layer)ANY6;
	for (size_t i = 0; i < n; i++)
		layers[2 + i] = (struct layer)DEST_OPTIONS;
	layers[2 + n] = (struct layer)TCP(80);
}

Test(parse, passes_over_8_extension_headers_and_not_9)
{
	for (size_t n = 0; n <= FWD_MAX_EXTENSION_HEADERS + 1; n++) {
		struct layer layers[LAYERS_MAX] = {{0}};

		chain_of(n, layers);
		if (n <= FWD_MAX_EXTENSION_HEADERS)
			expect_port(layers, IPPROTO_TCP, 80);
		else
			expect_port(layers, IPPROTO_RAW, 0);
	}
}

Test(parse, knows_the_size_of_each_extension_header)
{
	cr_expect_eq(fwd_extension_size(IPPROTO_HOPOPTS, 0), 8);
	cr_expect_eq(fwd_extension_size(IPPROTO_HOPOPTS, 255), 2048);
	cr_expect_eq(fwd_extension_size(IPPROTO_ROUTING, 2), 24);
	cr_expect_eq(fwd_extension_size(IPPROTO_FRAGMENT, 255), 8, "the byte is reserved there");
	cr_expect_eq(fwd_extension_size(IPPROTO_AH, 4), 24);
	cr_expect_eq(fwd_extension_size(IPPROTO_AH, 255), 1028);
}

Test(parse, tells_a_device_without_a_link_layer_by_the_version)
{
	u8 first;
	struct fwd_span span = {&first, &first + 1}, empty = {&first, &first};
	__be16 protocol = 1;

	first = 0x45;
	cr_expect_eq(fwd_parse_version(&span, &protocol), FWD_PARSED_OK);
	cr_expect_eq(protocol, bpf_htons(ETH_P_IP));
	first = 0x60;
	cr_expect_eq(fwd_parse_version(&span, &protocol), FWD_PARSED_OK);
	cr_expect_eq(protocol, bpf_htons(ETH_P_IPV6));
	first = 0x50;
	cr_expect_eq(fwd_parse_version(&span, &protocol), FWD_PARSED_OK);
	cr_expect_eq(protocol, 0);
	cr_expect_eq(fwd_parse_version(&empty, &protocol), FWD_PARSED_SHORT);
}

/* At every length from nothing on. */
static void expect_short_below(const struct layer *layers, size_t network, size_t ports)
{
	struct packet packet;
	size_t whole;

	packet_build(layers, &packet);
	whole = packet.size;
	for (packet.size = 0; packet.size <= whole; packet.size++) {
		struct parsed parsed = parse(&packet);

		cr_expect_eq(parsed.network == FWD_PARSED_SHORT, packet.size < network,
			     "%zu of %zu bytes", packet.size, whole);
		if (packet.size >= network)
			cr_expect_eq(parsed.transport == FWD_PARSED_SHORT, packet.size < ports,
				     "%zu of %zu bytes", packet.size, whole);
	}
}

Test(parse, says_where_a_packet_is_too_short)
{
	const struct layer ip4[LAYERS_MAX] = {ETHERNET, SERVICE_TAG(5), TAG(7), ANY4, OPTIONS(10),
					      AH,	UDP(53)};
	const struct layer ip6[LAYERS_MAX] = {ETHERNET,	      ANY6, HOP_BY_HOP, ROUTING,
					      FRAGMENT(0, 1), AH,   TCP(80)};

	expect_short_below(ip4, packet_network_end(ip4), packet_ports_end(ip4));
	expect_short_below(ip6, packet_network_end(ip6), packet_ports_end(ip6));
	cr_expect_eq(packet_network_end(ip4), 14 + 8 + 60);
	cr_expect_eq(packet_ports_end(ip4), 14 + 8 + 60 + 24 + 4);
	cr_expect_eq(packet_network_end(ip6), 14 + 40);
	cr_expect_eq(packet_ports_end(ip6), 14 + 40 + 8 + 24 + 8 + 24 + 4);
}

Test(parse, gives_a_later_fragment_no_port)
{
	const struct layer ip4[LAYERS_MAX] = {ETHERNET, ANY4, SET_FRAGMENT(1, 1), UDP(53)};
	const struct layer ip6[LAYERS_MAX] = {ETHERNET, ANY6, FRAGMENT(1, 0), UDP(53)};

	expect_port(ip4, IPPROTO_RAW, 0);
	expect_port(ip6, IPPROTO_RAW, 0);
}
