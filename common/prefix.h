/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses and prefixes of both families: one value type, strict text in, canonical text out.
 *
 * Accepted: "192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8::/32". Refused, each with a
 * sentence that names the text: trailing text, an empty string, a length out of range, host bits
 * set, IPv4 numbers with leading zeros (octal to some parsers), zone indices ("%eth0"), and
 * IPv4-mapped IPv6 addresses (write the IPv4 address).
 */
#pragma once

#include "error.h"
#include "types.h"

enum family {
	FAMILY_IPV4 = 4,
	FAMILY_IPV6 = 6,
};

/*
 * A prefix; a host is one of full length. `addr` is in network byte order and zero below the
 * prefix; IPv4 uses the first four bytes and leaves the rest zero. So equal prefixes are equal
 * bytes, and memcmp() over the whole is an equality test.
 */
struct prefix {
	u8 family; /* enum family */
	u8 len;	   /* bits, 0 to 32 or 128 */
	u8 addr[16];
};

_Static_assert(sizeof(struct prefix) == 18, "no padding, so that memcmp() compares prefixes");

/* The longest text and its NUL: 39 characters of IPv6 and "/128". */
#define PREFIX_TEXT_MAX 44

/* Text of `size` bytes, no NUL needed. */
int prefix_parse(const char *text, size_t size, struct prefix *ret, struct error *err);

/*
 * A quick look for long lists: the prefix at the start of the text, in plain notation. Returns the
 * number of characters read, and the caller looks at what follows; 0: not plain or not good, which
 * prefix_parse() tells. What both take, they read alike.
 */
size_t prefix_scan(const char *text, size_t size, struct prefix *ret);

/* prefix_parse(), and a "/LEN" is refused: for commands that take one address. */
int address_parse(const char *text, size_t size, struct prefix *ret, struct error *err);

/*
 * An address as other programs write it: a zone ("%eth0") is left off, and an IPv4-mapped address
 * is the IPv4 address. 0 or -EINVAL.
 */
int address_parse_loose(const char *text, size_t size, struct prefix *ret);

/* RFC 5952 text; a host has no "/LEN". */
void prefix_format(const struct prefix *prefix, char text[static PREFIX_TEXT_MAX]);

/* The number of bits in an address of the family: 32 or 128. */
u8 family_bits(u8 family);

/* Order of lists: IPv4 first, then by address, then the shorter prefix (the covering one) first. */
int prefix_compare(const struct prefix *a, const struct prefix *b);

/*
 * Puts `n` of them into that order; none (and no memory) will do. In place, and in linear time: a
 * million at random takes some 50 ms.
 */
void prefix_sort(struct prefix *prefixes, size_t n);

/* The same, each once; returns how many are left. */
size_t prefix_sort_unique(struct prefix *prefixes, size_t n);

/* Whether it is among `n` prefixes that are in that order. */
bool prefix_search(const struct prefix *prefixes, size_t n, const struct prefix *wanted);

bool prefix_equal(const struct prefix *a, const struct prefix *b);

/* True if every address of `inner` is in `outer`. */
bool prefix_contains(const struct prefix *outer, const struct prefix *inner);

/* Clears the bits below `len`. */
void prefix_truncate(struct prefix *prefix, u8 len);
