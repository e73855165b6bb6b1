// SPDX-License-Identifier: GPL-2.0-or-later
#include "ticks.h"

#include "abi.h"
#include "cleanup.h"
#include "clock.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>

/* Between two looks at the kernel's count the clock tells it well enough. */
#define SAMPLE_NS (NS_PER_S / 10)

static int program_fd = -1;
static struct {
	u64 boot_ns;
	u32 ticks; /* as in last_hit */
} sample;

int ticks_open(struct error *err)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_jiffies64},
		{.code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = BPF_REG_0, .imm = FWD_HIT_SHIFT},
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

/* Of one unit of last_hit. A coarse clock moves once a tick, and says so (clock_getres(2)). */
static u64 unit_ns(void)
{
	struct timespec ts;

	clock_getres(CLOCK_MONOTONIC_COARSE, &ts);
	return ((u64)ts.tv_sec * NS_PER_S + (u64)ts.tv_nsec) << FWD_HIT_SHIFT;
}

static void take_sample(u64 now_ns)
{
	u8 packet[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = 1);

	if (bpf_prog_test_run_opts(program_fd, &opts) < 0)
		return;
	sample.boot_ns = now_ns;
	sample.ticks = opts.retval;
}

s64 ticks_to_wall_s(u32 last_hit)
{
	u64 now_ns = boot_ns(), ago_ns;

	if (!sample.boot_ns || now_ns - sample.boot_ns > SAMPLE_NS)
		take_sample(now_ns);
	/* A hit since the sample counts as one of that moment. */
	ago_ns = (s32)(sample.ticks - last_hit) > 0 ? (sample.ticks - last_hit) * unit_ns() : 0;
	return boot_to_wall_s(now_ns - (ago_ns < now_ns ? ago_ns : now_ns));
}
