// SPDX-License-Identifier: GPL-2.0-or-later
/* From a tick of the kernel back to the time of day. */
#include "ticks.h"

#include "abi.h"
#include "cleanup.h"
#include "clock.h"
#include "private_bpffs.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <unistd.h>

static void set_up(void)
{
	struct error err;

	enter_private_bpffs();
	cr_assert_eq(ticks_open(&err), 0, "%s", err.text);
}

TestSuite(ticks, .init = set_up, .fini = ticks_close, .timeout = 60);

/* A hit of this moment, as the programs write it down. */
static u32 hit(void)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_jiffies64},
		{.code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = BPF_REG_0, .imm = FWD_HIT_SHIFT},
		{.code = BPF_JMP | BPF_EXIT},
	};
	u8 packet[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = 1);
	_cleanup_close_ int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "hit", "GPL", insns,
					       ARRAY_SIZE(insns), NULL);

	cr_assert_geq(fd, 0);
	cr_assert_eq(bpf_prog_test_run_opts(fd, &opts), 0);
	return opts.retval;
}

static void expect_within(s64 is, s64 expected, s64 apart_s, const char *what)
{
	cr_expect_leq(llabs(is - expected), apart_s, "%s: %lld, not %lld", what, (long long)is,
		      (long long)expected);
}

Test(ticks, a_hit_of_now_is_of_now)
{
	expect_within(ticks_to_wall_s(hit()), wall_s(), 1, "now");
}

/* The kernel's count is asked for again: it would be of the first time otherwise. */
Test(ticks, a_hit_stays_where_it_was)
{
	u32 first = hit();
	s64 then_s = wall_s();

	expect_within(ticks_to_wall_s(first), then_s, 1, "at once");
	sleep(3);
	expect_within(ticks_to_wall_s(first), then_s, 1, "3 seconds later");
	expect_within(ticks_to_wall_s(hit()), then_s + 3, 1, "another one");
}

/* Ticks are counted from shortly below 2^32 on: the difference counts, not which is larger. */
Test(ticks, a_hit_of_an_hour_ago_is_an_hour_old)
{
	struct timespec tick;
	s64 ago_s;
	u64 unit_ms;
	u32 units;

	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	unit_ms = ((u64)tick.tv_nsec << FWD_HIT_SHIFT) / 1000000;
	units = (u32)(3600000 / unit_ms);
	ago_s = wall_s() - (s64)(units * unit_ms / 1000);
	if (boot_ns() / NS_PER_S < 3700)
		cr_skip_test("the machine has not been up for an hour");
	expect_within(ticks_to_wall_s(hit() - units), ago_s, 2, "an hour ago");
}

Test(ticks, a_hit_is_neither_of_the_future_nor_of_before_the_boot)
{
	s64 boot_s = wall_s() - (s64)(boot_ns() / NS_PER_S);
	u32 now = hit();

	expect_within(ticks_to_wall_s(now + 1000), wall_s(), 1, "the future");
	expect_within(ticks_to_wall_s(now - 0x7fffffff), boot_s, 1, "before the boot");
}

Test(ticks, is_opened_once_and_again)
{
	struct error err;

	cr_expect_eq(ticks_open(&err), 0, "%s", err.text);
	ticks_close();
	ticks_close();
	cr_expect_eq(ticks_open(&err), 0, "%s", err.text);
	expect_within(ticks_to_wall_s(hit()), wall_s(), 1, "now");
}
