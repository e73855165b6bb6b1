// SPDX-License-Identifier: GPL-2.0-or-later
#include "ticks.h"

#include "abi.h"
#include "cleanup.h"
#include "clock.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <string.h>

/* Between two looks at the kernel's count the clock tells it well enough. */
#define SAMPLE_NS (NS_PER_S / 10)

/* Ticks in one of last_hit. */
#define UNIT (1 << FWD_HIT_SHIFT)

static int program_fd = -1;
static struct {
	u64 boot_ns;
	u64 ticks;
} sample;

#define LOAD_OF_CONTEXT(reg, field)                                                        \
	{                                                                                  \
		.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (reg), .src_reg = BPF_REG_6, \
		.off = offsetof(struct xdp_md, field)                                      \
	}

int ticks_open(struct error *err)
{
	/* Into the packet: a program returns 32 bits, which are 49 days of ticks. */
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_6, .src_reg = BPF_REG_1},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_jiffies64},
		LOAD_OF_CONTEXT(BPF_REG_2, data),
		LOAD_OF_CONTEXT(BPF_REG_3, data_end),
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_4, .src_reg = BPF_REG_2},
		/* NOLINTNEXTLINE(misc-redundant-expression): both are 0 */
		{.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = BPF_REG_4, .imm = sizeof(u64)},
		{.code = BPF_JMP | BPF_JGT | BPF_X,
		 .dst_reg = BPF_REG_4,
		 .src_reg = BPF_REG_3,
		 .off = 1},
		{.code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = BPF_REG_2, .src_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};

	if (program_fd >= 0)
		return 0;
	program_fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "fwd_ticks", "GPL", insns, ARRAY_SIZE(insns),
				   NULL);
	if (program_fd < 0)
		return error_set(err, -errno,
				 "cannot load a program that reads the kernel's ticks: %s",
				 error_name(errno));
	return 0;
}

void ticks_close(void)
{
	closep(&program_fd);
	program_fd = -1;
	sample.boot_ns = 0;
}

/* A coarse clock moves once a tick, and says so (clock_getres(2)). */
static s64 tick_ns(void)
{
	struct timespec ts;

	clock_getres(CLOCK_MONOTONIC_COARSE, &ts);
	return (s64)ts.tv_sec * (s64)NS_PER_S + ts.tv_nsec;
}

static void take_sample(u64 now_ns)
{
	u8 packet[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .data_out = packet, .data_size_out = sizeof(packet), .repeat = 1);

	if (bpf_prog_test_run_opts(program_fd, &opts) < 0)
		return;
	sample.boot_ns = now_ns;
	memcpy(&sample.ticks, packet, sizeof(sample.ticks));
}

/* From a hit to the sample; a hit is taken to be in the middle of its unit. */
static s64 ticks_between(u32 last_hit)
{
	u32 units = (u32)(sample.ticks >> FWD_HIT_SHIFT) - last_hit;

	return (s64)(s32)units * UNIT + (s64)(sample.ticks % UNIT) - UNIT / 2;
}

s64 ticks_to_wall_s(u32 last_hit)
{
	s64 now_ns = (s64)boot_ns(), hit_ns;

	if (!sample.boot_ns || (u64)now_ns - sample.boot_ns > SAMPLE_NS)
		take_sample((u64)now_ns);
	hit_ns = (s64)sample.boot_ns - ticks_between(last_hit) * tick_ns();
	return boot_to_wall_s((u64)(hit_ns < 0 ? 0 : hit_ns < now_ns ? hit_ns : now_ns));
}
