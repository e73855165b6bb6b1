/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packet headers, from a span of memory: Ethernet, up to two VLAN tags, IPv4 or IPv6, and the
 * destination port of TCP and UDP behind options and extension headers. Compiles for the kernel and
 * for user space, where it is fuzzed.
 *
 * Every load is behind a check against the end of the span. Loops are bounded. Nothing is read
 * twice.
 */
#ifndef FWD_PARSE_H
#define FWD_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define FWD_MAX_VLAN_TAGS 2

/*
 * Extension headers before the port is given up on. RFC 8200, section 4.1, orders seven kinds, one
 * of which may stand twice.
 */
#define FWD_MAX_EXTENSION_HEADERS 8

enum fwd_parsed {
	FWD_PARSED_OK,
	FWD_PARSED_NOT_IP,
	FWD_PARSED_SHORT, /* ends before the headers it announces */
};

/* The part of the packet that is not parsed yet. */
struct fwd_span {
	const void *at;
	const void *end;
};

struct fwd_vlan_tag {
	__be16 tci;
	__be16 protocol;
};

struct fwd_extension {
	__u8 next;
	__u8 len;
	__be16 fragment; /* of a fragment header: offset in the upper 13 bits */
};

/* Both TCP and UDP begin with the ports. */
struct fwd_ports {
	__be16 source;
	__be16 dest;
};

/* True if `size` bytes are there. */
#define fwd_has(span, size) ((span)->at + (size) <= (span)->end)

/*
 * Leaves the span at the network header and sets *protocol to its Ethernet type, and *tags to the
 * number of VLAN tags passed over.
 */
static __always_inline enum fwd_parsed fwd_parse_ethernet(struct fwd_span *span, __be16 *protocol,
							  __u32 *tags)
{
	const struct ethhdr *eth = span->at;
	__be16 type;
	__u32 n = 0;

	if (!fwd_has(span, sizeof(*eth)))
		return FWD_PARSED_SHORT;
	type = eth->h_proto;
	span->at += sizeof(*eth);
#pragma unroll
	for (int i = 0; i < FWD_MAX_VLAN_TAGS; i++) {
		const struct fwd_vlan_tag *tag = span->at;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (!fwd_has(span, sizeof(*tag)))
			return FWD_PARSED_SHORT;
		type = tag->protocol;
		span->at += sizeof(*tag);
		n++;
	}
	*protocol = type;
	*tags = n;
	return FWD_PARSED_OK;
}

/* The same for a device without a link-layer header: the IP version tells the protocol. */
static __always_inline enum fwd_parsed fwd_parse_version(const struct fwd_span *span,
							 __be16 *protocol)
{
	const __u8 *first = span->at;

	if (!fwd_has(span, 1))
		return FWD_PARSED_SHORT;
	if (*first >> 4 == 4)
		*protocol = bpf_htons(ETH_P_IP);
	else if (*first >> 4 == 6)
		*protocol = bpf_htons(ETH_P_IPV6);
	else
		*protocol = 0;
	return FWD_PARSED_OK;
}

/* NULL: too short, or of another version or length than it says. */
static __always_inline const struct iphdr *fwd_parse_ipv4(const struct fwd_span *span)
{
	const struct iphdr *ip = span->at;

	if (!fwd_has(span, sizeof(*ip)))
		return NULL;
	if (ip->version != 4 || ip->ihl < 5)
		return NULL;
	if (ip->ihl > 5 && !fwd_has(span, ip->ihl * 4))
		return NULL;
	return ip;
}

static __always_inline const struct ipv6hdr *fwd_parse_ipv6(const struct fwd_span *span)
{
	const struct ipv6hdr *ip = span->at;

	if (!fwd_has(span, sizeof(*ip)))
		return NULL;
	return ip->version == 6 ? ip : NULL;
}

/* The transport header's protocol; IPPROTO_RAW: there is none in this packet (a later fragment). */
struct fwd_transport {
	__u8 protocol;
	__be16 port; /* destination */
};

static __always_inline bool fwd_is_extension(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
	case IPPROTO_AH:
	case IPPROTO_MH:
		return true;
	default:
		return false;
	}
}

/* Bytes of an extension header: AH counts words of 4 bytes less 2, the others words of 8 less 1. */
static __always_inline __u32 fwd_extension_size(__u8 protocol, __u8 len)
{
	if (protocol == IPPROTO_FRAGMENT)
		return 8;
	if (protocol == IPPROTO_AH)
		return ((__u32)len + 2) * 4;
	return ((__u32)len + 1) * 8;
}

/*
 * Passes over extension headers from `protocol` on; the span begins with the first. A chain longer
 * than FWD_MAX_EXTENSION_HEADERS leaves the transport unknown (IPPROTO_RAW).
 */
static __always_inline enum fwd_parsed fwd_parse_extensions(struct fwd_span *span, __u8 protocol,
							    __u8 *transport)
{
	for (int i = 0; i < FWD_MAX_EXTENSION_HEADERS; i++) {
		const struct fwd_extension *ext = span->at;
		__u32 size;

		if (!fwd_is_extension(protocol))
			break;
		if (!fwd_has(span, 8))
			return FWD_PARSED_SHORT;
		if (protocol == IPPROTO_FRAGMENT && ext->fragment & bpf_htons(0xfff8)) {
			*transport = IPPROTO_RAW;
			return FWD_PARSED_OK;
		}
		size = fwd_extension_size(protocol, ext->len);
		if (!fwd_has(span, size))
			return FWD_PARSED_SHORT;
		protocol = ext->next;
		span->at += size;
	}
	*transport = fwd_is_extension(protocol) ? IPPROTO_RAW : protocol;
	return FWD_PARSED_OK;
}

/* The destination port of TCP and UDP; the span begins with the transport header. */
static __always_inline enum fwd_parsed fwd_parse_ports(const struct fwd_span *span, __u8 protocol,
						       struct fwd_transport *transport)
{
	const struct fwd_ports *ports = span->at;

	transport->protocol = protocol;
	transport->port = 0;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return FWD_PARSED_OK;
	if (!fwd_has(span, sizeof(*ports)))
		return FWD_PARSED_SHORT;
	transport->port = ports->dest;
	return FWD_PARSED_OK;
}

static __always_inline enum fwd_parsed fwd_parse_transport4(struct fwd_span *span,
							    const struct iphdr *ip,
							    struct fwd_transport *transport)
{
	__u8 protocol = ip->protocol;
	enum fwd_parsed parsed;

	if (ip->frag_off & bpf_htons(0x1fff)) {
		*transport = (struct fwd_transport){.protocol = IPPROTO_RAW};
		return FWD_PARSED_OK;
	}
	span->at += ip->ihl * 4;
	/* AH stands between IPv4 and the transport header, too. */
	if (protocol == IPPROTO_AH) {
		parsed = fwd_parse_extensions(span, protocol, &protocol);
		if (parsed != FWD_PARSED_OK)
			return parsed;
	}
	return fwd_parse_ports(span, protocol, transport);
}

static __always_inline enum fwd_parsed fwd_parse_transport6(struct fwd_span *span,
							    const struct ipv6hdr *ip,
							    struct fwd_transport *transport)
{
	__u8 protocol = ip->nexthdr;
	enum fwd_parsed parsed;

	span->at += sizeof(*ip);
	parsed = fwd_parse_extensions(span, protocol, &protocol);
	if (parsed != FWD_PARSED_OK)
		return parsed;
	return fwd_parse_ports(span, protocol, transport);
}

#endif
