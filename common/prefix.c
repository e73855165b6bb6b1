// SPDX-License-Identifier: GPL-2.0-or-later
#include "prefix.h"

#include <arpa/inet.h>
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

static bool parse_ipv4(const char *text, size_t size, u8 addr[static 4])
{
	size_t at = 0;

	for (int i = 0; i < 4; i++) {
		unsigned octet;
		size_t n;

		if (i && (at >= size || text[at++] != '.'))
			return false;
		n = parse_decimal(text + at, size - at, 255, &octet);
		if (!n)
			return false;
		addr[i] = (u8)octet;
		at += n;
	}
	return at == size;
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
	static const u8 mapped[12] = {[10] = 0xff, [11] = 0xff};

	memset(p, 0, sizeof(*p));
	if (parse_ipv4(text, size, p->addr))
		p->family = FAMILY_IPV4;
	else if (parse_ipv6(text, size, p->addr))
		p->family = FAMILY_IPV6;
	else
		return refuse(err, text, whole, why_not_address(text, size, whole));
	p->len = family_bits(p->family);
	if (p->family == FAMILY_IPV6 && !memcmp(p->addr, mapped, sizeof(mapped)))
		return refuse(err, text, whole,
			      "is an IPv4-mapped IPv6 address; write the IPv4 address instead");
	return 0;
}

int prefix_parse(const char *text, size_t size, struct prefix *ret, struct error *err)
{
	const char *slash = size ? memchr(text, '/', size) : NULL;
	size_t addr_size = slash ? (size_t)(slash - text) : size;
	char fixed[PREFIX_TEXT_MAX];
	struct prefix p, network;
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
		network = p;
		prefix_truncate(&network, (u8)len);
		if (memcmp(network.addr, p.addr, sizeof(p.addr)) != 0) {
			prefix_format(&network, fixed);
			return error_set(err, -EINVAL, "%.*s: host bits are set; did you mean %s?",
					 (int)size, text, fixed);
		}
		p = network;
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

int prefix_compare(const struct prefix *a, const struct prefix *b)
{
	int order;

	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	order = memcmp(a->addr, b->addr, sizeof(a->addr));
	if (order)
		return order;
	return (int)a->len - (int)b->len;
}

static int compare_for_sort(const void *a, const void *b)
{
	return prefix_compare(a, b);
}

void prefix_sort(struct prefix *prefixes, size_t n)
{
	if (n) /* qsort() may not be given NULL */
		qsort(prefixes, n, sizeof(*prefixes), compare_for_sort);
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
