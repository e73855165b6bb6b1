// SPDX-License-Identifier: GPL-2.0-or-later
/* What `fwctl doctor` makes of facts, and versions of the kernel. */
#include "doctor_facts.h"
#include "kernel.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>

#define PAGE 4096

Test(kernel, reads_releases)
{
	u32 version = 0;

	cr_assert_eq(kernel_version_parse("6.1.0-25-amd64", &version), 0);
	cr_expect_eq(version, KERNEL_VERSION_OF(6, 1));
	cr_assert_eq(kernel_version_parse("5.10", &version), 0);
	cr_expect_eq(version, KERNEL_OLDEST);
	cr_expect_lt(KERNEL_VERSION_OF(5, 9), KERNEL_OLDEST);
	cr_expect_lt(KERNEL_VERSION_OF(5, 255), KERNEL_VERSION_OF(6, 0));
	cr_expect_eq(kernel_version_parse("six", &version), -EINVAL);
	cr_expect_eq(kernel_version_parse("6", &version), -EINVAL);
}

Test(facts, native_xdp_is_what_the_kernel_tells)
{
	struct link_facts link = {.features_known = true, .driver = "veth", .kind = "veth"};

	cr_expect_eq(facts_native(&link), ANSWER_NO);
	link.features = XDP_FEATURE_RX_SG;
	cr_expect_eq(facts_native(&link), ANSWER_NO);
	link.features = XDP_FEATURE_BASIC;
	cr_expect_eq(facts_native(&link), ANSWER_YES);
}

Test(facts, native_xdp_goes_by_the_driver_where_the_kernel_tells_nothing)
{
	static const struct {
		const char *driver, *kind;
		enum answer answer;
	} cases[] = {
		{"veth", "veth", ANSWER_YES},	     {"virtio_net", "", ANSWER_YES},
		{"ixgbe", "", ANSWER_YES},	     {"bridge", "bridge", ANSWER_NO},
		{"bonding", "bond", ANSWER_UNKNOWN}, {"r8169", "", ANSWER_UNKNOWN},
		{"", "wireguard", ANSWER_NO},	     {"", "", ANSWER_UNKNOWN},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct link_facts link = {0};

		snprintf(link.driver, sizeof(link.driver), "%s", cases[i].driver);
		snprintf(link.kind, sizeof(link.kind), "%s", cases[i].kind);
		cr_expect_eq(facts_native(&link), cases[i].answer, "%s", cases[i].driver);
	}
}

Test(facts, an_mtu_over_one_buffer_takes_frags_of_kernel_and_driver)
{
	struct link_facts link = {.mtu = facts_mtu_of_one_buffer(PAGE)};

	cr_expect_eq(facts_mtu_fits(&link, PAGE, false), ANSWER_YES);
	link.mtu++;
	cr_expect_eq(facts_mtu_fits(&link, PAGE, false), ANSWER_NO);
	cr_expect_eq(facts_mtu_fits(&link, PAGE, true), ANSWER_UNKNOWN);
	cr_expect_eq(facts_mtu_fits(&link, 16 * PAGE, false), ANSWER_YES);
	link.features_known = true;
	cr_expect_eq(facts_mtu_fits(&link, PAGE, true), ANSWER_NO);
	link.features = XDP_FEATURE_RX_SG;
	cr_expect_eq(facts_mtu_fits(&link, PAGE, true), ANSWER_YES);
	cr_expect_eq(facts_mtu_fits(&link, PAGE, false), ANSWER_NO);
}

static void expect_missing(u64 set, const char *expected)
{
	char missing[CAPABILITIES_TEXT_MAX];

	facts_missing_capabilities(set, missing);
	cr_expect_str_eq(missing, expected);
}

Test(facts, a_table_is_full_before_it_overflows)
{
	cr_expect_not(facts_is_full(94, 100));
	cr_expect(facts_is_full(95, 100));
	cr_expect_not(facts_is_full(0, 10));
	cr_expect(facts_is_full(262144, 262144));
}

#define BIT(number) (1ull << (number))

Test(facts, names_the_capabilities_that_are_missing)
{
	expect_missing(0, "CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON");
	expect_missing(BIT(CAP_NET_ADMIN) | BIT(CAP_BPF), "CAP_PERFMON");
	expect_missing(BIT(CAP_SYS_ADMIN), "CAP_NET_ADMIN");
	expect_missing(BIT(CAP_SYS_ADMIN) | BIT(CAP_NET_ADMIN), "");
	expect_missing(BIT(CAP_NET_ADMIN) | BIT(CAP_BPF) | BIT(CAP_PERFMON), "");
}

Test(facts, reads_the_files_of_proc)
{
	u64 set = 0;

	cr_assert_eq(
		facts_effective_capabilities("Name:\tfwd\nCapPrm:\t1\nCapEff:\t000001ff\n", &set),
		0);
	cr_expect_eq(set, 0x1ff);
	cr_expect_eq(facts_effective_capabilities("Name:\tCapEff: 1\n", &set), -EINVAL);
	cr_expect_eq(facts_effective_capabilities("CapEff:\n", &set), -EINVAL);
	cr_expect_eq(facts_program_of("pos:\t0\nprog_type:\t6\nprog_id:\t77\n"), 77);
	cr_expect_eq(facts_program_of("pos:\t0\nmap_id:\t77\n"), 0);
	cr_expect_eq(facts_program_of(""), 0);
	cr_expect(
		facts_locks_without_limit("Limit  Soft\nMax locked memory  unlimited  unlimited"));
	cr_expect_not(facts_locks_without_limit("Max locked memory  8388608  unlimited  bytes\n"));
	cr_expect_not(facts_locks_without_limit("Max open files  unlimited  unlimited  files\n"));
}
