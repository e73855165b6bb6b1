// SPDX-License-Identifier: GPL-2.0-or-later
#include "prefix.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How much of a bad text an error repeats. */
#define QUOTE_MAX 80

static int refuse(struct error *err, const char *text, size_t size, const char *why)
{
	char quoted[QUOTE_MAX + 4];
	size_t n = 0;

	for (; n < size && n < QUOTE_MAX; n++)
		quoted[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	memcpy(quoted + n, size > QUOTE_MAX ? "..." : "", size > QUOTE_MAX ? 4 : 1);
	return error_set(err, -EINVAL, "\"%s\" %s", quoted, why);
}

u8 family_bits(u8 family)
{
	return family == FAMILY_IPV4 ? 32 : 128;
}

/*
 * A decimal number of at most three digits with no leading zero, up to `max`. Returns the number of
 * characters read; 0: not such a number.
 */
static size_t parse_decimal(const char *text, size_t size, unsigned max, unsigned *ret)
{
	unsigned value = 0;
	size_t n = 0;

	while (n < size && n < 3 && text[n] >= '0' && text[n] <= '9')
		value = value * 10 + (unsigned)(text[n++] - '0');
	if (!n || (n > 1 && text[0] == '0') || value > max)
		return 0;
	*ret = value;
	return n;
}

/* The scans below return the number of characters read; 0: no address starts the text. */

static size_t scan_ipv4(const char *text, size_t size, u8 addr[static 4])
{
	size_t at = 0;

	for (int i = 0; i < 4; i++) {
		unsigned octet;
		size_t n;

		if (i && (at >= size || text[at++] != '.'))
			return 0;
		n = parse_decimal(text + at, size - at, 255, &octet);
		if (!n)
			return 0;
		addr[i] = (u8)octet;
		at += n;
	}
	return at;
}

/* A digit's value, and one more; 0: none. A table, since random digits defeat branches. */
static const u8 hex_digits[256] = {
	['0'] = 1,  ['1'] = 2,	['2'] = 3,  ['3'] = 4,	['4'] = 5,  ['5'] = 6,
	['6'] = 7,  ['7'] = 8,	['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
	['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['A'] = 11, ['B'] = 12,
	['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* Up to four hexadecimal digits into two bytes. */
static size_t scan_group(const char *text, size_t size, u8 group[static 2])
{
	unsigned value = 0;
	size_t n = 0;
	u8 digit;

	while (n < size && n < 4 && (digit = hex_digits[(u8)text[n]])) {
		value = value << 4 | (digit - 1u);
		n++;
	}
	group[0] = (u8)(value >> 8);
	group[1] = (u8)value;
	return n;
}

static bool is_gap(const char *text, size_t at, size_t size)
{
	return at + 1 < size && text[at] == ':' && text[at + 1] == ':';
}

/* Groups and at most one "::"; `addr` is zero before. An IPv4 tail is left to inet_pton(). */
static size_t scan_ipv6(const char *text, size_t size, u8 addr[static 16])
{
	size_t at = 0, filled = 0, gap = 16, n;

	if (is_gap(text, 0, size)) {
		gap = 0;
		at = 2;
	}
	while (filled < 16) {
		n = scan_group(text + at, size - at, addr + filled);
		if (!n && gap != filled)
			return 0; /* behind a single colon, or at the start */
		if (!n)
			break;
		at += n;
		filled += 2;
		if (filled < 16 && gap == 16 && is_gap(text, at, size)) {
			gap = filled;
			at += 2;
		} else if (filled < 16 && at < size && text[at] == ':') {
			at++;
		} else {
			break;
		}
	}
	if ((gap == 16) != (filled == 16))
		return 0; /* too few groups, or nothing left for "::" to stand for */
	if (gap < filled) {
		memmove(addr + 16 - (filled - gap), addr + gap, filled - gap);
		memset(addr + gap, 0, 16 - filled);
	}
	return at;
}

static bool parse_ipv6(const char *text, size_t size, u8 addr[static 16])
{
	char copy[INET6_ADDRSTRLEN];

	if (size >= sizeof(copy) || memchr(text, '\0', size))
		return false;
	memcpy(copy, text, size);
	copy[size] = '\0';
	return inet_pton(AF_INET6, copy, addr) == 1;
}

static bool is_mapped(const struct prefix *p)
{
	static const u8 mapped[12] = {[10] = 0xff, [11] = 0xff};

	return p->family == FAMILY_IPV6 && !memcmp(p->addr, mapped, sizeof(mapped));
}

static bool has_host_bits(const struct prefix *p)
{
	size_t byte = p->len / 8;
	unsigned rest = 0;

	if (p->len % 8)
		rest = p->addr[byte++] & (0xffu >> p->len % 8);
	while (byte < family_bits(p->family) / 8u)
		rest |= p->addr[byte++];
	return rest;
}

size_t prefix_scan(const char *text, size_t size, struct prefix *ret)
{
	struct prefix p = {.family = FAMILY_IPV4};
	size_t at = scan_ipv4(text, size, p.addr), n;
	unsigned len;

	if (!at) {
		p = (struct prefix){.family = FAMILY_IPV6};
		at = scan_ipv6(text, size, p.addr);
	}
	if (!at || is_mapped(&p))
		return 0;
	p.len = family_bits(p.family);
	if (at < size && text[at] == '/') {
		n = parse_decimal(text + at + 1, size - at - 1, p.len, &len);
		if (!n)
			return 0;
		p.len = (u8)len;
		at += 1 + n;
		if (has_host_bits(&p))
			return 0;
	}
	*ret = p;
	return at;
}

static const char *why_not_address(const char *text, size_t size, size_t whole)
{
	bool leading_zero = false;

	if (!size && whole)
		return "has no address in front of the slash";
	if (!size)
		return "is empty; expected an IPv4 or IPv6 address or prefix, such as 192.0.2.0/24 "
		       "or 2001:db8::/32";
	if (memchr(text, '%', size))
		return "has a zone index; a rule takes the plain address";
	for (size_t i = 0; i + 1 < size; i++)
		if (text[i] == '0' && text[i + 1] >= '0' && text[i + 1] <= '9' &&
		    (i == 0 || text[i - 1] == '.'))
			leading_zero = true;
	if (leading_zero && !memchr(text, ':', size))
		return "has an IPv4 number with a leading zero, which some read as octal; write it "
		       "in decimal without leading zeros";
	return "is not an IPv4 or IPv6 address or prefix, such as 192.0.2.0/24 or 2001:db8::/32";
}

static int parse_address_part(const char *text, size_t size, size_t whole, struct prefix *p,
			      struct error *err)
{
	memset(p, 0, sizeof(*p));
	if (size && scan_ipv4(text, size, p->addr) == size)
		p->family = FAMILY_IPV4;
	else if (parse_ipv6(text, size, p->addr))
		p->family = FAMILY_IPV6;
	else
		return refuse(err, text, whole, why_not_address(text, size, whole));
	p->len = family_bits(p->family);
	if (is_mapped(p))
		return refuse(err, text, whole,
			      "is an IPv4-mapped IPv6 address; write the IPv4 address instead");
	return 0;
}

int prefix_parse(const char *text, size_t size, struct prefix *ret, struct error *err)
{
	const char *slash = size ? memchr(text, '/', size) : NULL;
	size_t addr_size = slash ? (size_t)(slash - text) : size;
	char fixed[PREFIX_TEXT_MAX];
	struct prefix p;
	unsigned len;
	int r;

	r = parse_address_part(text, addr_size, size, &p, err);
	if (r < 0)
		return r;
	if (slash) {
		size_t left = size - addr_size - 1;

		if (parse_decimal(slash + 1, left, family_bits(p.family), &len) != left || !left)
			return refuse(err, text, size,
				      p.family == FAMILY_IPV4
					      ? "has a bad prefix length; IPv4 takes /0 to /32"
					      : "has a bad prefix length; IPv6 takes /0 to /128");
		p.len = (u8)len;
		if (has_host_bits(&p)) {
			prefix_truncate(&p, p.len);
			prefix_format(&p, fixed);
			return error_set(err, -EINVAL, "%.*s: host bits are set; did you mean %s?",
					 (int)size, text, fixed);
		}
	}
	*ret = p;
	return 0;
}

int address_parse(const char *text, size_t size, struct prefix *ret, struct error *err)
{
	if (size && memchr(text, '/', size))
		return refuse(err, text, size,
			      "is a prefix; expected one address, without \"/LEN\"");
	return prefix_parse(text, size, ret, err);
}

int address_parse_loose(const char *text, size_t size, struct prefix *ret)
{
	const char *zone = size ? memchr(text, '%', size) : NULL;
	struct prefix p = {0};

	if (zone)
		size = (size_t)(zone - text);
	if (size && scan_ipv4(text, size, p.addr) == size)
		p.family = FAMILY_IPV4;
	else if (parse_ipv6(text, size, p.addr))
		p.family = FAMILY_IPV6;
	else
		return -EINVAL;
	p.len = family_bits(p.family);
	if (is_mapped(&p)) {
		struct prefix inner = {.family = FAMILY_IPV4, .len = family_bits(FAMILY_IPV4)};

		memcpy(inner.addr, p.addr + 12, 4);
		p = inner;
	}
	*ret = p;
	return 0;
}

void prefix_format(const struct prefix *prefix, char text[static PREFIX_TEXT_MAX])
{
	int af = prefix->family == FAMILY_IPV4 ? AF_INET : AF_INET6;
	size_t n;

	inet_ntop(af, prefix->addr, text, PREFIX_TEXT_MAX);
	if (prefix->len == family_bits(prefix->family))
		return;
	n = strlen(text);
	snprintf(text + n, PREFIX_TEXT_MAX - n, "/%u", prefix->len);
}

static u64 load_be64(const u8 *bytes)
{
	u64 value;

	memcpy(&value, bytes, sizeof(value));
	return be64toh(value);
}

int prefix_compare(const struct prefix *a, const struct prefix *b)
{
	u64 x, y;

	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	for (size_t i = 0; i < sizeof(a->addr); i += sizeof(x)) {
		x = load_be64(a->addr + i);
		y = load_be64(b->addr + i);
		if (x != y)
			return x < y ? -1 : 1;
	}
	return (int)a->len - (int)b->len;
}

/* ---- sorting ---- */

/* Fewer are sorted by insertion. */
#define SORT_BY_BYTE_LEAST 32

/* Where the bytes of a prefix stand, in the order in which they decide. */
static size_t sort_offset(size_t position)
{
	if (!position)
		return offsetof(struct prefix, family);
	if (position <= sizeof(((struct prefix *)0)->addr))
		return offsetof(struct prefix, addr) + position - 1;
	return offsetof(struct prefix, len);
}

static u8 byte_at(const struct prefix *p, size_t offset)
{
	return ((const u8 *)p)[offset];
}

static void sort_by_insertion(struct prefix *prefixes, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct prefix moved = prefixes[i];
		size_t to = i;

		for (; to && prefix_compare(&moved, &prefixes[to - 1]) < 0; to--)
			prefixes[to] = prefixes[to - 1];
		prefixes[to] = moved;
	}
}

/* Whether the byte tells some of them from others. */
static bool decides(const struct prefix *prefixes, size_t n, size_t offset)
{
	u8 first = byte_at(prefixes, offset);

	for (size_t i = 1; i < n; i++)
		if (byte_at(&prefixes[i], offset) != first)
			return true;
	return false;
}

/* Puts each into the part of its byte, from `next` of that part up to its `end`. */
static void distribute(struct prefix *prefixes, size_t offset, size_t next[static 256],
		       const size_t end[static 256])
{
	for (unsigned part = 0; part < 256; part++) {
		while (next[part] < end[part]) {
			struct prefix p = prefixes[next[part]];
			u8 byte;

			/* Swapped on until one comes that belongs here. */
			while ((byte = byte_at(&p, offset)) != part) {
				struct prefix displaced = prefixes[next[byte]];

				prefixes[next[byte]++] = p;
				p = displaced;
			}
			prefixes[next[part]++] = p;
		}
	}
}

/*
 * In place, byte by byte, the one that decides first in front: P. M. McIlroy, K. Bostic and M. D.
 * McIlroy, "Engineering Radix Sort", 1993. Recursion is at most as deep as there are bytes.
 */
static void sort_from(struct prefix *prefixes, size_t n, size_t position)
{
	size_t next[256], end[256] = {0}, at = 0, offset;

	if (n < SORT_BY_BYTE_LEAST) {
		sort_by_insertion(prefixes, n);
		return;
	}
	while (position < sizeof(*prefixes) && !decides(prefixes, n, sort_offset(position)))
		position++;
	if (position == sizeof(*prefixes))
		return; /* all the same */
	offset = sort_offset(position);
	for (size_t i = 0; i < n; i++)
		end[byte_at(&prefixes[i], offset)]++;
	for (unsigned part = 0; part < 256; part++) {
		next[part] = at;
		at += end[part];
		end[part] = at;
	}
	distribute(prefixes, offset, next, end);
	at = 0;
	for (unsigned part = 0; part < 256; at = end[part++])
		if (end[part] - at > 1)
			sort_from(prefixes + at, end[part] - at, position + 1);
}

void prefix_sort(struct prefix *prefixes, size_t n)
{
	/* Lists are often in order already. */
	for (size_t i = 1; i < n; i++) {
		if (prefix_compare(&prefixes[i - 1], &prefixes[i]) > 0) {
			sort_from(prefixes, n, 0);
			return;
		}
	}
}

size_t prefix_sort_unique(struct prefix *prefixes, size_t n)
{
	size_t kept = 0;

	prefix_sort(prefixes, n);
	for (size_t i = 0; i < n; i++)
		if (!kept || !prefix_equal(&prefixes[kept - 1], &prefixes[i]))
			prefixes[kept++] = prefixes[i];
	return kept;
}

static int compare_prefixes(const void *a, const void *b)
{
	return prefix_compare(a, b);
}

bool prefix_search(const struct prefix *prefixes, size_t n, const struct prefix *wanted)
{
	return n && bsearch(wanted, prefixes, n, sizeof(*prefixes), compare_prefixes);
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return !memcmp(a, b, sizeof(*a));
}

bool prefix_contains(const struct prefix *outer, const struct prefix *inner)
{
	struct prefix p = *inner;

	if (outer->family != inner->family || outer->len > inner->len)
		return false;
	prefix_truncate(&p, outer->len);
	return prefix_equal(outer, &p);
}

void prefix_truncate(struct prefix *prefix, u8 len)
{
	prefix->len = len;
	for (unsigned byte = 0; byte < sizeof(prefix->addr); byte++) {
		unsigned first = byte * 8;

		if (first >= len)
			prefix->addr[byte] = 0;
		else if (first + 8 > len)
			prefix->addr[byte] &= (u8)(0xff << (first + 8 - len));
	}
}
