// SPDX-License-Identifier: GPL-2.0-or-later
/* The kernel: its version, and what it does when it is asked to. */
#include "doctor_internal.h"

#include "cleanup.h"
#include "doctor_facts.h"
#include "doctor_probe.h"
#include "kernel.h"

#include <errno.h>
#include <sys/utsname.h>

#define REFUSED_REMEDY                                                                           \
	"in a container: give it CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN of the host; else look " \
	"at the kernel's configuration (CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_ACT) and its lockdown"

void doctor_check_kernel(struct doctor *d)
{
	struct utsname name;

	if (uname(&name) < 0 || kernel_version_parse(name.release, &d->kernel) < 0)
		doctor_note(d, "look at uname -r: " KERNEL_OLDEST_TEXT " or later is needed",
			    "the kernel's version cannot be told");
	else if (d->kernel < KERNEL_OLDEST)
		doctor_problem(d,
			       "boot a kernel of " KERNEL_OLDEST_TEXT " or later, as Debian 11 "
			       "and later have",
			       "%s is too old", name.release);
	else
		doctor_ok(d, "%s; " KERNEL_OLDEST_TEXT " or later is needed", name.release);
}

static void check_load(struct doctor *d, enum bpf_prog_type type, const char *what)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (!d->privileged) {
		doctor_not_known(d);
		return;
	}
	r = probe_load(type, 0, &fd);
	if (r < 0)
		doctor_problem(d, REFUSED_REMEDY, "the kernel does not load %s programs: %s", what,
			       error_name(r));
	else
		doctor_ok(d, "the kernel loads %s programs", what);
}

void doctor_check_load_xdp(struct doctor *d)
{
	check_load(d, BPF_PROG_TYPE_XDP, "XDP");
}

void doctor_check_load_tc(struct doctor *d)
{
	check_load(d, BPF_PROG_TYPE_SCHED_CLS, "TC");
}

/* The outcome of what was tried in a namespace. */
static void report_attempt(struct doctor *d, int tried, int result, const char *what)
{
	if (tried < 0)
		doctor_note(d, "nothing to do: fwd tries it on the interfaces themselves",
			    "not known: no network namespace to try it in: %s", error_name(tried));
	else if (result < 0)
		doctor_problem(d, REFUSED_REMEDY, "the kernel refuses %s: %s", what,
			       error_name(result));
	else
		doctor_ok(d, "the kernel takes %s", what);
}

void doctor_check_attach(struct doctor *d)
{
	_cleanup_close_ int fd = -1;
	int result = 0, tried;

	if (!d->privileged) {
		doctor_not_known(d);
		return;
	}
	if (probe_load(BPF_PROG_TYPE_XDP, 0, &fd) < 0) /* which was told */
		return;
	tried = probe_in_namespace(probe_attach_xdp, fd, &result);
	report_attempt(d, tried, result, "an XDP program on an interface");
}

void doctor_check_clsact(struct doctor *d)
{
	int result = 0, tried;

	if (!d->privileged) {
		doctor_not_known(d);
		return;
	}
	tried = probe_in_namespace(probe_add_clsact, 0, &result);
	report_attempt(d, tried, result, "the qdisc clsact, where TC programs are");
}

void doctor_check_frags(struct doctor *d)
{
	_cleanup_close_ int fd = -1;

	if (!d->privileged)
		doctor_not_known(d);
	else if (probe_load(BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, &fd) < 0)
		doctor_note(d, "for native XDP with a large MTU: a kernel of 5.18 or later",
			    "XDP programs take no packets in several buffers");
	else
		doctor_ok(d, "XDP programs take packets in several buffers, of a large MTU");
}

void doctor_check_dispatcher(struct doctor *d)
{
	const char *step;
	int r;

	if (!d->privileged) {
		doctor_not_known(d);
		return;
	}
	r = probe_replace_function(&step);
	if (r < 0)
		doctor_note(d,
			    "nothing to do, unless another XDP program is to share an interface "
			    "with fwd: then let BPF_PROG_TYPE_EXT through the sandbox, or boot a "
			    "kernel that has it",
			    "single program: an interface has fwd's or another one's XDP program, "
			    "since the kernel cannot run libxdp's dispatcher: %s: %s",
			    step, error_name(r));
	else
		doctor_ok(d, "other XDP programs can share an interface, by libxdp's dispatcher");
}

void doctor_check_btf(struct doctor *d)
{
	if (!access("/sys/kernel/btf/vmlinux", R_OK))
		doctor_ok(d, "the kernel tells its types");
	else
		doctor_note(d,
			    "nothing to do: fwd does without; for tools such as bpftrace, a kernel "
			    "with CONFIG_DEBUG_INFO_BTF",
			    "the kernel does not tell its types (/sys/kernel/btf/vmlinux)");
}

/* Whether a program was compiled; -errno: not known. */
static int is_compiled(void)
{
	_cleanup_close_ int fd = -1;
	struct bpf_prog_info info = {0};
	u32 size = sizeof(info);
	int r = probe_load(BPF_PROG_TYPE_XDP, 0, &fd);

	if (r < 0)
		return r;
	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	return info.jited_prog_len > 0;
}

void doctor_check_jit(struct doctor *d)
{
	int compiled = d->privileged ? is_compiled() : -EPERM;
	u64 enabled;

	/* It is a setting of the host, which containers do not see. */
	if (compiled < 0 && doctor_read_number("/proc/sys/net/core/bpf_jit_enable", &enabled) >= 0)
		compiled = enabled > 0;
	if (compiled < 0)
		doctor_not_known(d);
	else if (compiled)
		doctor_ok(d, "programs are compiled");
	else
		doctor_note(d,
			    "sysctl -w net.core.bpf_jit_enable=1; then, since what is loaded stays "
			    "as it is: systemctl stop fwd; fwd --detach-all; systemctl start fwd",
			    "programs are interpreted, which is several times slower");
}

void doctor_check_unprivileged(struct doctor *d)
{
	u64 disabled;

	if (doctor_read_number("/proc/sys/kernel/unprivileged_bpf_disabled", &disabled) < 0)
		doctor_note(d, "mount /proc, or boot a kernel with CONFIG_BPF_SYSCALL",
			    "not known: /proc has no kernel.unprivileged_bpf_disabled");
	else if (disabled)
		doctor_ok(d, "only privileged users load BPF programs");
	else
		doctor_note(d,
			    "sysctl -w kernel.unprivileged_bpf_disabled=2; fwd does not need it "
			    "otherwise",
			    "every user may load BPF programs, which helps attacks on the kernel");
}
