// SPDX-License-Identifier: GPL-2.0-or-later
#include "redirect.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static struct redirect redirect_of(const char *interface, enum direction direction,
				   const char *ports)
{
	struct redirect redirect = {.direction = (u8)direction};
	struct error err;

	strcpy(redirect.interface, interface);
	cr_assert_eq(redirect_ports_parse(ports, &redirect, &err), 0, "%s: %s", ports, err.text);
	return redirect;
}

static void ports_refused(const char *text, const char *why)
{
	struct redirect redirect, before;
	struct error err;

	memset(&redirect, 0xa5, sizeof(redirect));
	before = redirect;
	cr_expect_eq(redirect_ports_parse(text, &redirect, &err), -EINVAL, "%s", text);
	cr_expect(strstr(err.text, why), "%s: %s", text, err.text);
	cr_expect_eq(memcmp(&redirect, &before, sizeof(before)), 0, "%s: touched", text);
}

Test(redirect, ports_survive_a_round_trip)
{
	static const char *const texts[] = {"tcp/1", "udp/65535", "tcp/8000-8099", "udp/1-65535",
					    "tcp/10000-65535"};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct redirect redirect = redirect_of("", DIRECTION_IN, texts[i]);
		char text[REDIRECT_PORTS_TEXT_MAX];

		redirect_ports_format(&redirect, text);
		cr_expect_str_eq(text, texts[i]);
	}
}

Test(redirect, a_range_of_one_port_is_that_port)
{
	struct redirect redirect = redirect_of("", DIRECTION_IN, "udp/53-53");
	char text[REDIRECT_PORTS_TEXT_MAX];

	redirect_ports_format(&redirect, text);
	cr_expect_str_eq(text, "udp/53");
	cr_expect_eq(redirect.protocol, IPPROTO_UDP);
}

Test(redirect, refuses_bad_ports)
{
	static const char *const bad[] = {
		"tcp/0",  "tcp/65536", "tcp/",	  "tcp/080",	 "tcp/-1",
		"tcp/1-", "tcp/-",     "tcp/1-0", "tcp/1-65536", "tcp/1 ",
		"tcp/ 1", "tcp/1-2-3", "tcp/1,2", "tcp/http",	 "tcp/99999999999999999999"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ports_refused(bad[i], "is not a port (1 to 65535) or a range such as 8000-8099");
	ports_refused("tcp/9-8", "ends before it starts; did you mean 8-9?");
	ports_refused("8080", "is not PROTO/PORT[-PORT]");
	ports_refused("", "is not PROTO/PORT[-PORT]");
	ports_refused("protocol/80", "is not PROTO/PORT[-PORT]");
	ports_refused("/80", "expected \"tcp\" or \"udp\"");
	ports_refused("sctp/80", "expected \"tcp\" or \"udp\"");
	ports_refused("TCP/80", "expected \"tcp\" or \"udp\"");
}

Test(redirect, interface_names_are_those_of_the_kernel)
{
	static const char *const bad[] = {"",	    ".",     "..",     "a/b",
					  "eth0:1", "eth 0", "eth\t0", "eth0\n"};
	struct error err;

	cr_expect_eq(interface_name_check("e", &err), 0);
	cr_expect_eq(interface_name_check("...", &err), 0);
	cr_expect_eq(interface_name_check("123456789012345", &err), 0);
	cr_expect_eq(interface_name_check("1234567890123456", &err), -EINVAL);
	cr_expect(strstr(err.text, "1 to 15 bytes"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_expect_eq(interface_name_check(bad[i], &err), -EINVAL, "%s", bad[i]);
}

Test(redirect, names_are_read_whole)
{
	struct error err;
	u8 value;

	for (u8 i = 0; i < DIRECTION_COUNT; i++) {
		cr_expect_eq(direction_parse(direction_names[i], &value, &err), 0);
		cr_expect_eq(value, i);
	}
	for (u8 i = 0; i < REDIRECT_MODE_COUNT; i++) {
		cr_expect_eq(redirect_mode_parse(redirect_mode_names[i], &value, &err), 0);
		cr_expect_eq(value, i);
	}
	cr_expect_eq(direction_parse("i", &value, &err), -EINVAL);
	cr_expect_eq(direction_parse("out ", &value, &err), -EINVAL);
	cr_expect_eq(direction_parse("", &value, &err), -EINVAL);
	cr_expect_eq(redirect_mode_parse("L2", &value, &err), -EINVAL);
	cr_expect(strstr(err.text, "\"L2\" is not a mode"));
	cr_expect_eq(protocol_parse("tcp6", &value, &err), -EINVAL);
}

Test(redirect, overlaps_where_a_packet_could_match_both)
{
	static const struct {
		const char *sentence, *interface_a, *ports_a, *interface_b, *ports_b;
		enum direction direction_b;
		bool overlap, same;
	} rows[] = {
		{"the same", "eth0", "tcp/80", "eth0", "tcp/80", DIRECTION_IN, true, true},
		{"last is first", "eth0", "tcp/80-90", "eth0", "tcp/90-99", DIRECTION_IN, true,
		 false},
		{"neighbours", "eth0", "tcp/80-89", "eth0", "tcp/90-99", DIRECTION_IN, false,
		 false},
		{"inside", "eth0", "tcp/80-90", "eth0", "tcp/85", DIRECTION_IN, true, false},
		{"same first", "eth0", "tcp/80-90", "eth0", "tcp/80", DIRECTION_IN, true, false},
		{"protocols", "eth0", "tcp/80", "eth0", "udp/80", DIRECTION_IN, false, false},
		{"directions", "eth0", "tcp/80", "eth0", "tcp/80", DIRECTION_OUT, false, false},
		{"interfaces", "eth0", "tcp/80", "eth1", "tcp/80", DIRECTION_IN, false, false},
		{"one and every", "eth0", "tcp/80", "", "tcp/80", DIRECTION_IN, false, false},
		{"every", "", "tcp/80", "", "tcp/80", DIRECTION_IN, true, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct redirect a = redirect_of(rows[i].interface_a, DIRECTION_IN, rows[i].ports_a);
		struct redirect b =
			redirect_of(rows[i].interface_b, rows[i].direction_b, rows[i].ports_b);

		cr_expect_eq(redirect_overlaps(&a, &b), rows[i].overlap, "%s", rows[i].sentence);
		cr_expect_eq(redirect_overlaps(&b, &a), rows[i].overlap, "%s", rows[i].sentence);
		cr_expect_eq(redirect_same_match(&a, &b), rows[i].same, "%s", rows[i].sentence);
	}
}

Test(redirect, order_is_interface_direction_protocol_port)
{
	struct redirect order[] = {
		redirect_of("", DIRECTION_OUT, "udp/9"),
		redirect_of("eth0", DIRECTION_IN, "tcp/9"),
		redirect_of("eth0", DIRECTION_IN, "tcp/80"),
		redirect_of("eth0", DIRECTION_IN, "udp/1"),
		redirect_of("eth0", DIRECTION_OUT, "tcp/1"),
		redirect_of("eth1", DIRECTION_IN, "tcp/1"),
	};

	for (size_t i = 0; i + 1 < ARRAY_SIZE(order); i++) {
		cr_expect_lt(redirect_compare(&order[i], &order[i + 1]), 0, "row %zu", i);
		cr_expect_gt(redirect_compare(&order[i + 1], &order[i]), 0, "row %zu", i);
		cr_expect_eq(redirect_compare(&order[i], &order[i]), 0, "row %zu", i);
	}
}
