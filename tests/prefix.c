// SPDX-License-Identifier: GPL-2.0-or-later
#include "prefix.h"

#include "cleanup.h"
#include "random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int parse(const char *text, struct prefix *ret, struct error *err)
{
	return prefix_parse(text, strlen(text), ret, err);
}

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;
	struct error err;

	cr_assert_eq(parse(text, &prefix, &err), 0, "%s: %s", text, err.text);
	return prefix;
}

/* The text is refused, says why, and leaves the output as it was. */
static void refused(const char *text, const char *why)
{
	struct prefix prefix, before;
	struct error err;

	memset(&prefix, 0xa5, sizeof(prefix));
	before = prefix;
	cr_expect_eq(parse(text, &prefix, &err), -EINVAL, "%s was accepted", text);
	cr_expect(strstr(err.text, why), "%s: \"%s\" does not say \"%s\"", text, err.text, why);
	cr_expect(prefix_equal(&prefix, &before), "%s: the output was touched", text);
}

static void becomes(const char *text, const char *canonical)
{
	struct prefix prefix = prefix_of(text);
	char formatted[PREFIX_TEXT_MAX];

	prefix_format(&prefix, formatted);
	cr_expect_str_eq(formatted, canonical);
}

Test(prefix, formats_as_rfc_5952_says)
{
	becomes("192.0.2.1", "192.0.2.1");
	becomes("192.0.2.1/32", "192.0.2.1");
	becomes("192.0.2.0/24", "192.0.2.0/24");
	becomes("0.0.0.0/0", "0.0.0.0/0");
	becomes("255.255.255.255", "255.255.255.255");
	becomes("2001:DB8:0:0:0:0:0:1", "2001:db8::1");
	becomes("2001:0db8::/32", "2001:db8::/32");
	becomes("::/0", "::/0");
	becomes("::", "::");
	becomes("2001:db8:0:0:1:0:0:1/128", "2001:db8::1:0:0:1");
	becomes("64:ff9b::192.0.2.33", "64:ff9b::c000:221");
	becomes("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127");
}

Test(prefix, the_longest_text_fits_its_bound)
{
	struct prefix prefix = {.family = FAMILY_IPV6, .len = 127};
	char text[PREFIX_TEXT_MAX];

	memset(prefix.addr, 0xff, sizeof(prefix.addr));
	prefix.addr[15] = 0xfe;
	prefix_format(&prefix, text);
	cr_expect_eq(strlen(text), PREFIX_TEXT_MAX - 1);
}

Test(prefix, every_length_of_both_families_survives_a_round_trip)
{
	static const u8 families[] = {FAMILY_IPV4, FAMILY_IPV6};
	u32 random = 1;

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		u8 bits = family_bits(families[f]);

		for (unsigned round = 0; round < 20 * (bits + 1u); round++) {
			struct prefix prefix = {.family = families[f]};
			char text[PREFIX_TEXT_MAX];
			struct prefix back;

			for (unsigned i = 0; i < bits / 8u; i++) {
				random = random * 1664525 + 1013904223;
				prefix.addr[i] = (u8)(random >> 24);
			}
			prefix_truncate(&prefix, (u8)(round % (bits + 1u)));
			prefix_format(&prefix, text);
			back = prefix_of(text);
			cr_assert(prefix_equal(&prefix, &back), "%s", text);
		}
	}
}

Test(prefix, every_single_host_bit_is_refused)
{
	for (unsigned len = 0; len < 128; len++) {
		for (unsigned bit = len; bit < 128; bit++) {
			struct prefix prefix = {.family = FAMILY_IPV6, .len = 128};
			char text[PREFIX_TEXT_MAX + 4];

			prefix.addr[0] = len ? 0x80 : 0;
			prefix.addr[bit / 8] |= (u8)(0x80 >> bit % 8);
			prefix_format(&prefix, text);
			sprintf(text + strlen(text), "/%u", len);
			refused(text, "host bits are set; did you mean ");
		}
	}
	refused("10.0.0.5/24", "10.0.0.5/24: host bits are set; did you mean 10.0.0.0/24?");
	refused("255.255.255.255/31", "did you mean 255.255.255.254/31?");
	refused("2001:db8::1/32", "did you mean 2001:db8::/32?");
}

Test(prefix, refuses_a_length_out_of_range)
{
	prefix_of("0.0.0.0/32");
	refused("0.0.0.0/33", "IPv4 takes /0 to /32");
	refused("0.0.0.0/256", "IPv4 takes /0 to /32");
	refused("0.0.0.0/4294967296", "IPv4 takes /0 to /32");
	prefix_of("::/128");
	refused("::/129", "IPv6 takes /0 to /128");
	refused("::/-1", "IPv6 takes /0 to /128");
}

Test(prefix, refuses_a_length_that_is_no_plain_number)
{
	static const char *const bad[] = {"/",	  "/08", "/ 8", "/+8", "/8 ",
					  "/8/8", "/x",	 "/8x", "/0x8"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[32];

		sprintf(text, "10.0.0.0%s", bad[i]);
		refused(text, "bad prefix length");
	}
}

Test(prefix, refuses_octal)
{
	refused("010.0.0.1", "leading zero");
	refused("10.0.0.01", "leading zero");
	refused("10.00.0.1", "leading zero");
	refused("10.0.0.08/32", "leading zero");
	refused("::010.0.0.1", "is not an IPv4 or IPv6 address");
	prefix_of("10.0.0.0");
}

Test(prefix, refuses_what_is_not_an_address)
{
	static const char *const bad[] = {
		"10",	       "10.0",	     "10.0.0",	  "10.0.0.0.0",	   "10.0.0.256",
		"10.0.0.1000", "10.0.0.-1",  "10..0.1",	  ".10.0.0.1",	   "10.0.0.1.",
		"0x0a.0.0.1",  "167772161",  "1e1.0.0.1", "localhost",	   ":",
		":::",	       "1::2::3",    "12345::",	  "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
		"g::",	       "[::1]",	     "::1 ",	  " ::1",	   "10.0.0.1 ",
		" 10.0.0.1",   "10.0.0.1\n", "10.0.0.1x", "10.0.0.1:80",   "10.0.0.1-10.0.0.9",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(bad[i], "is not an IPv4 or IPv6 address or prefix, such as 192.0.2.0/24");
}

Test(prefix, refuses_the_empty_string)
{
	refused("", "\"\" is empty; expected an IPv4 or IPv6 address or prefix");
	refused("/24", "\"/24\" has no address in front of the slash");
}

Test(prefix, refuses_mapped_addresses)
{
	refused("::ffff:192.0.2.1", "IPv4-mapped");
	refused("::ffff:0:0/96", "IPv4-mapped");
	refused("::FFFF:c000:201", "IPv4-mapped");
	prefix_of("::fffe:c000:201");
	prefix_of("::/64");
}

Test(prefix, refuses_zones)
{
	refused("fe80::1%eth0", "zone index");
	refused("fe80::%1/64", "zone index");
}

Test(prefix, reads_no_further_than_its_size)
{
	struct prefix prefix;

	cr_expect_eq(prefix_parse("10.0.0.1/32garbage", 11, &prefix, NULL), 0);
	cr_expect_eq(prefix.len, 32);
	cr_expect_eq(prefix_parse("10.0.0.1\0", 9, &prefix, NULL), -EINVAL);
	cr_expect_eq(prefix_parse("::1\0", 4, &prefix, NULL), -EINVAL);
}

Test(prefix, quotes_80_bytes_of_a_bad_text_at_most)
{
	char text[200];

	memset(text, 'x', sizeof(text));
	text[80] = '\0';
	refused(text, "xx\" is not");
	text[80] = 'x';
	text[81] = '\0';
	refused(text, "xx...\" is not");
	refused("\x1b[31m\xff", "\"?[31m?\"");
}

Test(address, is_one_without_a_length)
{
	struct prefix prefix;
	struct error err;

	cr_expect_eq(address_parse("10.0.0.1", 8, &prefix, &err), 0);
	cr_expect_eq(prefix.len, 32);
	cr_expect_eq(address_parse("10.0.0.1/32", 11, &prefix, &err), -EINVAL);
	cr_expect_str_eq(err.text,
			 "\"10.0.0.1/32\" is a prefix; expected one address, without \"/LEN\"");
	cr_expect_eq(address_parse("", 0, &prefix, &err), -EINVAL);
}

Test(prefix, order_is_ipv4_first_then_address_then_the_shorter)
{
	static const char *const order[] = {
		"0.0.0.0/0", "0.0.0.0",	      "10.0.0.0/8",   "10.0.0.0/24",
		"10.0.0.0",  "10.0.0.1",      "192.0.2.0/24", "::/0",
		"::",	     "2001:db8::/32", "2001:db8::",   "2001:db8::1",
	};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(order); j++) {
			struct prefix a = prefix_of(order[i]), b = prefix_of(order[j]);
			int sign = (i > j) - (i < j), r = prefix_compare(&a, &b);

			cr_expect_eq((r > 0) - (r < 0), sign, "%s, %s", order[i], order[j]);
		}
	}
}

Test(prefix, contains_what_it_covers_and_nothing_of_the_other_family)
{
	static const struct {
		const char *outer, *inner;
		bool contains;
	} rows[] = {
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "10.0.0.0/8", true},
		{"10.0.0.0/8", "11.0.0.0", false},
		{"10.0.0.0/8", "8.0.0.0/7", false},
		{"10.0.0.0/9", "10.128.0.0", false},
		{"0.0.0.0/0", "255.255.255.255", true},
		{"0.0.0.0/0", "::", false},
		{"::/0", "0.0.0.0", false},
		{"::/0", "ffff::", true},
		{"2001:db8::/33", "2001:db8:8000::", false},
		{"2001:db8::/33", "2001:db8::1", true},
		{"2001:db8::1", "2001:db8::1", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct prefix outer = prefix_of(rows[i].outer), inner = prefix_of(rows[i].inner);

		cr_expect_eq(prefix_contains(&outer, &inner), rows[i].contains, "%s, %s",
			     rows[i].outer, rows[i].inner);
	}
}

/* ---- the quick look ---- */

/* Text of a random prefix, or of nearly one: characters changed, put in or taken out. */
static size_t random_text(struct random *random, char text[static 128])
{
	static const char characters[] = "0123456789abcdefABCDEF.:/ %-+gx\t\n#";
	struct prefix p = {.family = random_below(random, 2) ? FAMILY_IPV4 : FAMILY_IPV6};
	size_t n;

	for (size_t i = 0; i < family_bits(p.family) / 8u; i++)
		p.addr[i] = random_below(random, 3) ? 0 : (u8)random_next(random);
	p.len = family_bits(p.family);
	if (random_below(random, 2))
		prefix_truncate(&p, (u8)random_below(random, p.len + 1u));
	prefix_format(&p, text);
	n = strlen(text);
	if (!random_below(random, 3)) /* host bits, or a length of more than there is */
		n += (size_t)sprintf(text + n, "/%u", (unsigned)random_below(random, 150));
	for (u64 edits = random_below(random, 3); edits; edits--) {
		size_t at = random_below(random, n + 1);
		char c = characters[random_below(random, sizeof(characters) - 1)];

		switch (random_below(random, 3)) {
		case 0:
			text[at] = c;
			n += at == n;
			break;
		case 1:
			memmove(text + at + 1, text + at, n - at);
			text[at] = c;
			n++;
			break;
		default:
			n -= at < n;
			memmove(text + at, text + at + 1, n - (at < n ? at : n));
		}
	}
	return n;
}

/* IPv6 that ends in IPv4 notation is left to the strict parser. */
static bool is_plain(const char *text, size_t size)
{
	return !memchr(text, ':', size) || !memchr(text, '.', size);
}

Test(prefix, quick_look_reads_what_the_strict_parser_reads)
{
	struct random random = random_start();
	size_t good = 0, bad = 0;

	for (int i = 0; i < 400000; i++) {
		char text[128];
		size_t size = random_text(&random, text), n;
		struct prefix quick, strict;
		bool accepted;

		n = prefix_scan(text, size, &quick);
		random_holds(&random, n <= size);
		random_holds(&random, !n || (!prefix_parse(text, n, &strict, NULL) &&
					     prefix_equal(&quick, &strict)));
		accepted = !prefix_parse(text, size, &strict, NULL);
		if (is_plain(text, size))
			random_holds(&random, accepted == (n && n == size));
		good += accepted;
		bad += !accepted;
	}
	cr_expect(good > 50000 && bad > 50000, "%zu good, %zu bad", good, bad);
}

Test(prefix, quick_look_reads_every_form_of_ipv6)
{
	char text[64];

	/* Groups in front of "::" and behind it, and none of it. */
	for (int front = 0; front <= 8; front++) {
		for (int back = -1; back <= 8; back++) {
			struct prefix quick, strict;
			size_t n = 0;

			for (int i = 0; i < front; i++)
				n += (size_t)sprintf(text + n, "%s%x", i ? ":" : "", i + 1);
			n += (size_t)sprintf(text + n, "%s", back < 0 ? "" : "::");
			for (int i = 0; i < back; i++)
				n += (size_t)sprintf(text + n, "%s%x", i ? ":" : "", i + 0xa0);
			if (prefix_parse(text, n, &strict, NULL) < 0) {
				cr_expect(!n || prefix_scan(text, n, &quick) != n, "%s", text);
				continue;
			}
			cr_expect_eq(prefix_scan(text, n, &quick), n, "%s", text);
			cr_expect(prefix_equal(&quick, &strict), "%s", text);
		}
	}
}

Test(prefix, quick_look_touches_nothing_where_it_takes_nothing)
{
	static const char *const texts[] = {
		"",	   "x",	   "10.0.0.1/8", "10.0.0.1/33", "10.0.0.1/",
		"1::2::3", "1:2:", "1:2",	 "::ffff:a00:1"};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct prefix prefix, before;

		memset(&prefix, 0xa5, sizeof(prefix));
		before = prefix;
		cr_expect_eq(prefix_scan(texts[i], strlen(texts[i]), &prefix), 0, "%s", texts[i]);
		cr_expect(prefix_equal(&prefix, &before), "%s", texts[i]);
	}
}

/* ---- order ---- */

static int by_prefix_compare(const void *a, const void *b)
{
	return prefix_compare(a, b);
}

/* `spread`: how many values a byte has; the fewer, the more have a beginning in common. */
static void fill_at_random(struct random *random, struct prefix *prefixes, size_t n,
			   unsigned spread)
{
	for (size_t i = 0; i < n; i++) {
		struct prefix *p = &prefixes[i];

		*p = (struct prefix){.family = random_below(random, 3) ? FAMILY_IPV4 : FAMILY_IPV6};
		for (size_t j = 0; j < family_bits(p->family) / 8u; j++)
			p->addr[j] = (u8)random_below(random, spread);
		prefix_truncate(p, (u8)random_below(random, family_bits(p->family) + 1u));
	}
}

Test(prefix, sorts_as_the_order_says)
{
	static const size_t sizes[] = {0, 1, 2, 31, 32, 33, 1000, 50000};
	static const unsigned spreads[] = {1, 2, 5, 256};
	struct random random = random_start();

	for (size_t i = 0; i < ARRAY_SIZE(sizes) * ARRAY_SIZE(spreads); i++) {
		size_t n = sizes[i / ARRAY_SIZE(spreads)], kept, expected = 0;
		_cleanup_free_ struct prefix *ours = calloc(n + 1, sizeof(*ours));
		_cleanup_free_ struct prefix *theirs = calloc(n + 1, sizeof(*theirs));

		fill_at_random(&random, ours, n, spreads[i % ARRAY_SIZE(spreads)]);
		memcpy(theirs, ours, n * sizeof(*ours));
		qsort(theirs, n, sizeof(*theirs), by_prefix_compare);
		prefix_sort(ours, n);
		random_holds(&random, !memcmp(ours, theirs, n * sizeof(*ours)));
		kept = prefix_sort_unique(ours, n);
		for (size_t j = 0; j < n; j++)
			if (!expected || !prefix_equal(&theirs[expected - 1], &theirs[j]))
				theirs[expected++] = theirs[j];
		random_holds(&random, kept == expected);
		random_holds(&random, !memcmp(ours, theirs, kept * sizeof(*ours)));
	}
	prefix_sort(NULL, 0);
	cr_expect_eq(prefix_sort_unique(NULL, 0), 0);
}

/* ---- as other programs write them ---- */

Test(prefix, reads_addresses_that_other_programs_write)
{
	static const struct {
		const char *text, *address;
	} cases[] = {
		{"192.0.2.7", "192.0.2.7"},	  {"2001:DB8::1", "2001:db8::1"},
		{"fe80::1%eth0", "fe80::1"},	  {"::ffff:192.0.2.7", "192.0.2.7"},
		{"::ffff:c000:207", "192.0.2.7"}, {"fe80::1%", "fe80::1"},
	};
	struct prefix prefix;
	char text[PREFIX_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_assert_eq(address_parse_loose(cases[i].text, strlen(cases[i].text), &prefix), 0,
			     "%s", cases[i].text);
		prefix_format(&prefix, text);
		cr_expect_str_eq(text, cases[i].address);
	}
	cr_expect_eq(address_parse_loose("", 0, &prefix), -EINVAL);
	cr_expect_eq(address_parse_loose("host.example", 12, &prefix), -EINVAL);
	cr_expect_eq(address_parse_loose("%eth0", 5, &prefix), -EINVAL);
}

Test(prefix, finds_prefixes_in_order)
{
	struct prefix prefixes[3], absent;

	prefix_parse("10.0.0.0/8", 10, &prefixes[0], NULL);
	prefix_parse("10.0.0.0/9", 10, &prefixes[1], NULL);
	prefix_parse("2001:db8::1", 11, &prefixes[2], NULL);
	prefix_parse("10.0.0.0/10", 11, &absent, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		cr_expect(prefix_search(prefixes, ARRAY_SIZE(prefixes), &prefixes[i]));
	cr_expect_not(prefix_search(prefixes, ARRAY_SIZE(prefixes), &absent));
	cr_expect_not(prefix_search(NULL, 0, &absent));
}
