// SPDX-License-Identifier: GPL-2.0-or-later
#include "packet_layers.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <string.h>

#define TCP_BYTES 20
#define UDP_BYTES 8

/* Behind the two addresses. */
#define ETHERTYPE_AT ((size_t)12)

struct builder {
	struct packet *packet;
	u8 *type; /* 16 bits of Ethernet to say what comes next; NULL: 8 bits of IP do */
	u8 *next; /* those */
	u8 *last; /* the header in front; the packet's beginning where there is none */
};

/* ---- one layer ---- */

static u8 *append(struct builder *b, size_t size)
{
	u8 *at = b->packet->bytes + b->packet->size;

	cr_assert_leq(b->packet->size + size, sizeof(b->packet->bytes));
	b->packet->size += size;
	b->last = at;
	return at;
}

static void store16(u8 *at, u16 value)
{
	at[0] = (u8)(value >> 8);
	at[1] = (u8)value;
}

/* Tells the header in front, if there is one. */
static void announce_type(struct builder *b, u16 type)
{
	if (b->type)
		store16(b->type, type);
	b->type = NULL;
}

static void announce_protocol(struct builder *b, u8 protocol)
{
	if (b->next)
		*b->next = protocol;
	b->next = NULL;
}

static void add_ethernet(struct builder *b)
{
	u8 *eth = append(b, ETH_HLEN);

	memcpy(eth, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02", ETHERTYPE_AT);
	b->type = eth + ETHERTYPE_AT;
}

static void add_tag(struct builder *b, const struct layer *layer)
{
	u8 *tag;

	announce_type(b, layer->type);
	tag = append(b, 4);
	store16(tag, (u16)layer->a);
	b->type = tag + 2;
}

static void add_ip4(struct builder *b, const struct layer *layer)
{
	u8 *ip;

	announce_type(b, ETH_P_IP);
	ip = append(b, 20);
	ip[0] = 0x45;
	ip[8] = 64;
	cr_assert_eq(inet_pton(AF_INET, layer->from, ip + 12), 1, "%s", layer->from);
	cr_assert_eq(inet_pton(AF_INET, layer->to, ip + 16), 1, "%s", layer->to);
	b->next = ip + 9;
}

static void add_options(struct builder *b, const struct layer *layer)
{
	size_t size = (size_t)layer->a * 4;
	u8 *ip = b->last;

	memset(append(b, size), 1 /* no operation */, size);
	ip[0] = (u8)(0x40 | (5 + layer->a));
	b->last = ip;
}

static void add_ip6(struct builder *b, const struct layer *layer)
{
	u8 *ip;

	announce_type(b, ETH_P_IPV6);
	ip = append(b, 40);
	ip[0] = 0x60;
	ip[7] = 64;
	cr_assert_eq(inet_pton(AF_INET6, layer->from, ip + 8), 1, "%s", layer->from);
	cr_assert_eq(inet_pton(AF_INET6, layer->to, ip + 24), 1, "%s", layer->to);
	b->next = ip + 6;
}

/* RFC 8200, section 4, and RFC 4302 for AH. */
static void add_extension(struct builder *b, const struct layer *layer)
{
	u8 protocol = (u8)layer->type;
	size_t size = protocol == IPPROTO_FRAGMENT ? 8
		      : protocol == IPPROTO_AH	   ? (layer->a + 2) * 4
						   : (layer->a + 1) * 8;
	u8 *ext;

	announce_protocol(b, protocol);
	ext = append(b, size);
	if (protocol == IPPROTO_FRAGMENT)
		store16(ext + 2, (u16)layer->a);
	else
		ext[1] = (u8)layer->a;
	b->next = ext;
}

static void add_ports(struct builder *b, const struct layer *layer)
{
	u8 *ports;

	announce_protocol(b, (u8)layer->type);
	ports = append(b, layer->type == IPPROTO_TCP ? TCP_BYTES : UDP_BYTES);
	store16(ports, 40000);
	store16(ports + 2, (u16)layer->a);
}

/* ---- the packet ---- */

static void add(struct builder *b, const struct layer *layer)
{
	switch ((enum layer_kind)layer->kind) {
	case LAYER_END:
		break;
	case LAYER_ETHERNET:
		add_ethernet(b);
		break;
	case LAYER_TAG:
		add_tag(b, layer);
		break;
	case LAYER_IP4:
		add_ip4(b, layer);
		break;
	case LAYER_OPTIONS:
		add_options(b, layer);
		break;
	case LAYER_IP6:
		add_ip6(b, layer);
		break;
	case LAYER_EXTENSION:
		add_extension(b, layer);
		break;
	case LAYER_PORTS:
		add_ports(b, layer);
		break;
	case LAYER_PROTOCOL:
		announce_protocol(b, (u8)layer->type);
		append(b, 8);
		break;
	case LAYER_ETHERTYPE:
		announce_type(b, layer->type);
		append(b, 46);
		break;
	case LAYER_SET_ETHERTYPE:
		store16(b->packet->bytes + ETHERTYPE_AT, layer->type);
		break;
	case LAYER_SET_VERSION:
		b->last[0] = (u8)(layer->a << 4 | (b->last[0] & 0xf));
		break;
	case LAYER_SET_IHL:
		b->last[0] = (u8)(0x40 | layer->a);
		break;
	case LAYER_SET_FRAGMENT:
		store16(b->last + 6, (u16)layer->a);
		break;
	case LAYER_SET_EXTENSION_SIZE:
		b->last[1] = (u8)layer->a;
		break;
	}
}

/* Payload lengths, once all is there. */
static void set_lengths(const struct layer *layers, struct packet *packet)
{
	size_t at = 0;

	for (size_t i = 0; i < LAYERS_MAX && layers[i].kind; i++) {
		if (layers[i].kind == LAYER_IP4)
			store16(packet->bytes + at + 2, (u16)(packet->size - at));
		if (layers[i].kind == LAYER_IP6)
			store16(packet->bytes + at + 4, (u16)(packet->size - at - 40));
		if (layers[i].kind == LAYER_ETHERNET)
			at += ETH_HLEN;
		else if (layers[i].kind == LAYER_TAG)
			at += 4;
	}
}

void packet_build(const struct layer *layers, struct packet *ret)
{
	struct builder b = {.packet = ret, .last = ret->bytes};

	*ret = (struct packet){0};
	for (size_t i = 0; i < LAYERS_MAX && layers[i].kind; i++)
		add(&b, &layers[i]);
	set_lengths(layers, ret);
}

/* Bytes up to the end of the last layer that `counts`. */
static size_t end_of(const struct layer *layers, bool (*counts)(const struct layer *layer))
{
	struct layer part[LAYERS_MAX + 1] = {0};
	struct packet packet;
	size_t end = 0;

	for (size_t i = 0; i < LAYERS_MAX && layers[i].kind; i++) {
		part[i] = layers[i];
		packet_build(part, &packet);
		if (counts(&layers[i]))
			end = packet.size;
	}
	return end;
}

static bool is_network(const struct layer *layer)
{
	return layer->kind <= LAYER_IP6;
}

static bool is_before_ports(const struct layer *layer)
{
	return layer->kind <= LAYER_EXTENSION;
}

size_t packet_network_end(const struct layer *layers)
{
	return end_of(layers, is_network);
}

size_t packet_ports_end(const struct layer *layers)
{
	bool has_ports = false;

	for (size_t i = 0; i < LAYERS_MAX; i++)
		has_ports |= layers[i].kind == LAYER_PORTS;
	return end_of(layers, is_before_ports) + (has_ports ? 4 : 0);
}
