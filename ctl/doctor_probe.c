// SPDX-License-Identifier: GPL-2.0-or-later
#include "doctor_probe.h"

#include "cleanup.h"
#include "netlink.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#define LO_IFINDEX 1 /* the first of every namespace */

#define RETURN_VALUE(value)                                                          \
	{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = (value)}, \
	{                                                                            \
		.code = BPF_JMP | BPF_EXIT                                           \
	}

int probe_load(enum bpf_prog_type type, u32 flags, int *ret_fd)
{
	const struct bpf_insn insns[] = {
		RETURN_VALUE(type == BPF_PROG_TYPE_XDP ? XDP_PASS : TC_ACT_UNSPEC),
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = flags);
	int fd = bpf_prog_load(type, "fwd_probe", "GPL", insns, ARRAY_SIZE(insns), &opts);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* ---- in a namespace ---- */

struct outcome {
	int entered, result;
};

int probe_in_namespace(int (*attempt)(int arg), int arg, int *ret_result)
{
	struct outcome outcome = {.entered = -EIO};
	_cleanup_close_ int from = -1, to = -1;
	int ends[2];
	pid_t child;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	from = ends[0];
	to = ends[1];
	child = fork();
	if (child < 0)
		return -errno;
	if (!child) {
		outcome.entered = unshare(CLONE_NEWNET) < 0 ? -errno : 0;
		outcome.result = outcome.entered ? 0 : attempt(arg);
		_exit(write(to, &outcome, sizeof(outcome)) != sizeof(outcome));
	}
	close(take_fd(&to));
	if (read(from, &outcome, sizeof(outcome)) != sizeof(outcome))
		outcome.entered = -EIO;
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	if (!outcome.entered)
		*ret_result = outcome.result;
	return outcome.entered;
}

int probe_attach_xdp(int fd)
{
	return bpf_xdp_attach(LO_IFINDEX, fd, XDP_FLAGS_SKB_MODE, NULL) < 0 ? -errno : 0;
}

int probe_add_clsact(int unused)
{
	char buffer[NETLINK_BUFFER_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *msg;
	void *header;

	msg = netlink_begin(buffer, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct tcmsg),
			    &header);
	*(struct tcmsg *)header = (struct tcmsg){
		.tcm_ifindex = LO_IFINDEX,
		.tcm_parent = TC_H_CLSACT,
		.tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0),
	};
	mnl_attr_put_strz(msg, TCA_KIND, "clsact");
	return netlink_ask(NETLINK_ROUTE, msg, NULL, NULL);
}

/* ---- freplace ---- */

DEFINE_CLEANUP(struct btf *, btf__free);

/* Types of a program "int fwd_probe(void)" with a function "int fwd_part(void)". */
struct functions {
	u32 btf_fd;
	u32 whole, part; /* type ids */
};

static int make_types(struct functions *ret, struct btf **ret_btf)
{
	_cleanup_(btf__freep) struct btf *btf = btf__new_empty();
	int number, proto, whole, part, r;

	if (!btf)
		return -errno;
	number = btf__add_int(btf, "int", sizeof(int), BTF_INT_SIGNED);
	proto = btf__add_func_proto(btf, number);
	whole = btf__add_func(btf, "fwd_probe", BTF_FUNC_GLOBAL, proto);
	part = btf__add_func(btf, "fwd_part", BTF_FUNC_GLOBAL, proto);
	if (number < 0 || proto < 0 || whole < 0 || part < 0)
		return -ENOMEM;
	r = btf__load_into_kernel(btf);
	if (r < 0)
		return r;
	*ret = (struct functions){(u32)btf__fd(btf), (u32)whole, (u32)part};
	*ret_btf = take_pointer(&btf);
	return 0;
}

static int load_whole(const struct functions *functions)
{
	static const struct bpf_insn insns[] = {
		{.code = BPF_JMP | BPF_CALL, .src_reg = BPF_PSEUDO_CALL, .imm = 1},
		{.code = BPF_JMP | BPF_EXIT},
		RETURN_VALUE(XDP_PASS),
	};
	const struct bpf_func_info info[] = {
		{.insn_off = 0, .type_id = functions->whole},
		{.insn_off = 2, .type_id = functions->part},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_btf_fd = functions->btf_fd, .func_info = info,
		    .func_info_cnt = ARRAY_SIZE(info), .func_info_rec_size = sizeof(info[0]));

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "fwd_probe", "GPL", insns, ARRAY_SIZE(insns),
			     &opts);
}

static int load_part(const struct functions *functions, int whole_fd)
{
	static const struct bpf_insn insns[] = {RETURN_VALUE(XDP_PASS)};
	const struct bpf_func_info info[] = {{.insn_off = 0, .type_id = functions->part}};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_btf_fd = functions->btf_fd, .func_info = info,
		    .func_info_cnt = ARRAY_SIZE(info), .func_info_rec_size = sizeof(info[0]),
		    .attach_prog_fd = (u32)whole_fd, .attach_btf_id = functions->part);

	return bpf_prog_load(BPF_PROG_TYPE_EXT, "fwd_part", "GPL", insns, ARRAY_SIZE(insns), &opts);
}

int probe_replace_function(const char **ret_step)
{
	_cleanup_close_ int whole = -1, part = -1, link = -1;
	_cleanup_(btf__freep) struct btf *btf = NULL;
	struct functions functions = {0};
	int r = make_types(&functions, &btf);

	*ret_step = "loading the types of functions (BTF)";
	if (r < 0)
		return r;
	*ret_step = "loading a program with functions";
	whole = load_whole(&functions);
	if (whole < 0)
		return -errno;
	*ret_step = "loading a program that replaces a function";
	part = load_part(&functions, whole);
	if (part < 0)
		return -errno;
	*ret_step = "putting it in the function's place";
	link = bpf_raw_tracepoint_open(NULL, part);
	return link < 0 ? -errno : 0;
}
