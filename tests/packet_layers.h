/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets as a list of layers, from the outside in:
 *
 *   {ETHERNET, TAG(7), IP4("10.0.0.1", "10.0.0.2"), OPTIONS(3), TCP(8080)}
 *
 * Each header announces the layer behind it, and lengths are right, unless a SET_ layer behind the
 * header says otherwise.
 */
#pragma once

#include "types.h"

#define PACKET_MAX 2048
#define LAYERS_MAX 16

struct packet {
	u8 bytes[PACKET_MAX];
	size_t size;
};

enum layer_kind {
	LAYER_END,

	LAYER_ETHERNET,
	LAYER_TAG, /* a: VLAN; type: 802.1Q or 802.1ad */
	LAYER_IP4,
	LAYER_OPTIONS, /* of IPv4; a: words of 4 bytes */
	LAYER_IP6,
	LAYER_EXTENSION, /* of IPv6; type: protocol, a: units behind the first one */
	LAYER_PORTS,	 /* type: protocol, a: destination port */
	LAYER_PROTOCOL,	 /* another one above IP, 8 bytes; type: protocol */
	LAYER_ETHERTYPE, /* another one above Ethernet, 46 bytes; type: Ethernet type */

	/* They change the header in front. */
	LAYER_SET_ETHERTYPE,
	LAYER_SET_VERSION,
	LAYER_SET_IHL,
	LAYER_SET_FRAGMENT,	  /* of IPv4; a: flags and offset in 8 bytes, as in the header */
	LAYER_SET_EXTENSION_SIZE, /* a: the length that it announces */
};

struct layer {
	u8 kind; /* enum layer_kind */
	u16 type;
	u32 a;
	const char *from, *to;
};

/* clang-format off */
#define ETHERNET	    {.kind = LAYER_ETHERNET}
#define TAG(vlan)	    {.kind = LAYER_TAG, .type = 0x8100, .a = (vlan)}
#define SERVICE_TAG(vlan)   {.kind = LAYER_TAG, .type = 0x88a8, .a = (vlan)}
#define IP4(source, dest)   {.kind = LAYER_IP4, .from = (source), .to = (dest)}
#define OPTIONS(words)	    {.kind = LAYER_OPTIONS, .a = (words)}
#define IP6(source, dest)   {.kind = LAYER_IP6, .from = (source), .to = (dest)}
#define EXTENSION(protocol, units) {.kind = LAYER_EXTENSION, .type = (protocol), .a = (units)}
#define HOP_BY_HOP	    EXTENSION(0, 0)
#define ROUTING		    EXTENSION(43, 2)
#define DEST_OPTIONS	    EXTENSION(60, 1)
#define MOBILITY	    EXTENSION(135, 0)
#define AH		    EXTENSION(51, 4) /* 12 bytes and a digest of 12 */
#define FRAGMENT(offset, more) {.kind = LAYER_EXTENSION, .type = 44, .a = (offset) << 3 | (more)}
#define TCP(dest)	    {.kind = LAYER_PORTS, .type = 6, .a = (dest)}
#define UDP(dest)	    {.kind = LAYER_PORTS, .type = 17, .a = (dest)}
#define PROTOCOL(protocol)  {.kind = LAYER_PROTOCOL, .type = (protocol)}
#define ICMP4		    PROTOCOL(1)
#define ICMP6		    PROTOCOL(58)
#define ESP		    PROTOCOL(50)
#define ETHERTYPE(number)   {.kind = LAYER_ETHERTYPE, .type = (number)}
#define SET_ETHERTYPE(number) {.kind = LAYER_SET_ETHERTYPE, .type = (number)}
#define SET_VERSION(number) {.kind = LAYER_SET_VERSION, .a = (number)}
#define SET_IHL(words)	    {.kind = LAYER_SET_IHL, .a = (words)}
#define SET_FRAGMENT(offset, more) {.kind = LAYER_SET_FRAGMENT, .a = (offset) | (more) << 13}
#define SET_EXTENSION_SIZE(units) {.kind = LAYER_SET_EXTENSION_SIZE, .a = (units)}
/* clang-format on */

/* Ends with the first LAYER_END or after LAYERS_MAX. */
void packet_build(const struct layer *layers, struct packet *ret);

/* Bytes up to the end of the last network header: Ethernet, tags, IP and IPv4's options. */
size_t packet_network_end(const struct layer *layers);

/* Bytes up to the end of the ports, or of the last extension header where there are none. */
size_t packet_ports_end(const struct layer *layers);
