// SPDX-License-Identifier: GPL-2.0-or-later
/* The host around fwd: file system, privileges, limits, and what else looks at packets. */
#include "doctor_internal.h"

#include "cleanup.h"
#include "doctor_facts.h"
#include "kernel.h"
#include "netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#define BPFFS "/sys/fs/bpf"

#define PROC_TEXT_MAX 4096

void doctor_check_bpffs(struct doctor *d)
{
	const char *pin_dir = json_string_value(json_object_get(d->status, "pin_dir"));
	struct statfs fs;

	if (!statfs(BPFFS, &fs) && (u64)fs.f_type == BPF_FS_MAGIC)
		doctor_ok(d, "there is a BPF file system at " BPFFS);
	else if (pin_dir && strncmp(pin_dir, BPFFS "/", strlen(BPFFS "/")) != 0)
		doctor_ok(d, "there is none at " BPFFS ", but fwd uses %s", pin_dir);
	else
		doctor_problem(d, "mount -t bpf bpf " BPFFS "; at boot systemd does it",
			       "there is no BPF file system at " BPFFS ", where fwd pins its maps");
}

/* ---- privileges ---- */

/* Of a process; 0: our own. */
static int read_process_file(pid_t pid, const char *file, char ret[static PROC_TEXT_MAX])
{
	char path[64];

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	else
		snprintf(path, sizeof(path), "/proc/self/%s", file);
	return doctor_read_file(path, PROC_TEXT_MAX, ret);
}

static int read_capabilities(pid_t pid, u64 *ret)
{
	char text[PROC_TEXT_MAX];
	int r = read_process_file(pid, "status", text);

	return r < 0 ? r : facts_effective_capabilities(text, ret);
}

static void check_callers_capabilities(struct doctor *d)
{
	char missing[CAPABILITIES_TEXT_MAX];
	u64 set = 0;

	d->subject = "fwctl";
	if (read_capabilities(0, &set) < 0) {
		doctor_note(d, "mount /proc", "its capabilities cannot be read from /proc");
		return;
	}
	facts_missing_capabilities(set, missing);
	d->privileged = !*missing;
	if (*missing)
		doctor_note(d, "run it as root", "without %s not everything can be looked at",
			    missing);
	else
		doctor_ok(d, "may look at everything");
}

static void check_daemons_capabilities(struct doctor *d)
{
	char missing[CAPABILITIES_TEXT_MAX];
	pid_t pid = d->daemon_pid;
	u64 set = 0;

	d->subject = "fwd";
	if (!pid)
		return;
	if (read_capabilities(pid, &set) < 0) {
		doctor_not_known(d);
		return;
	}
	facts_missing_capabilities(set, missing);
	if (*missing)
		doctor_problem(d,
			       "look at CapabilityBoundingSet= in: systemctl cat fwd; then restart "
			       "it",
			       "it runs without %s", missing);
	else
		doctor_ok(d, "it has the capabilities that it needs");
}

void doctor_check_capabilities(struct doctor *d)
{
	check_callers_capabilities(d);
	check_daemons_capabilities(d);
}

/* ---- locked memory ---- */

#define MEMLOCK_REMEDY "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited before fwd starts"

void doctor_check_memlock(struct doctor *d)
{
	pid_t pid = d->daemon_pid;
	char limits[PROC_TEXT_MAX];

	if (d->kernel >= KERNEL_WITHOUT_MEMLOCK) {
		doctor_ok(d, "this kernel has no limit of locked memory for maps");
		return;
	}
	if (read_process_file(pid, "limits", limits) < 0)
		doctor_not_known(d);
	else if (facts_locks_without_limit(limits))
		doctor_ok(d, "memory for maps is not limited");
	else if (pid)
		doctor_problem(d, MEMLOCK_REMEDY,
			       "fwd may not lock as much memory as its maps take");
	else
		doctor_note(d, MEMLOCK_REMEDY,
			    "this kernel counts maps as locked memory, which is limited here");
}

/* ---- other firewalls ---- */

#define NAMES_MAX 256

/* "inet filter, ip nat", as many as there is room for. */
struct names {
	char text[NAMES_MAX];
	unsigned n_more; /* that there was no room for */
};

static void add_name(struct names *names, const char *family, const char *name)
{
	size_t used = strlen(names->text);

	if (used + strlen(family) + strlen(name) + sizeof(",  ") > sizeof(names->text))
		names->n_more++;
	else
		snprintf(names->text + used, sizeof(names->text) - used, "%s%s%s%s",
			 used ? ", " : "", family, *family ? " " : "", name);
}

static const char *family_name(u8 family)
{
	switch (family) {
	case NFPROTO_INET:
		return "inet";
	case NFPROTO_IPV4:
		return "ip";
	case NFPROTO_IPV6:
		return "ip6";
	case NFPROTO_ARP:
		return "arp";
	case NFPROTO_BRIDGE:
		return "bridge";
	case NFPROTO_NETDEV:
		return "netdev";
	default:
		return "?";
	}
}

static int see_table(const struct nlmsghdr *msg, void *data)
{
	const struct nfgenmsg *header = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr;

	mnl_attr_for_each (attr, msg, sizeof(*header))
		if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME)
			add_name(data, family_name(header->nfgen_family), mnl_attr_get_str(attr));
	return MNL_CB_OK;
}

/* To ask a kernel without nf_tables would have it load the module. */
static bool has_nf_tables(void)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/kallsyms", "re");
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (strstr(line, " nft_do_chain"))
			return true;
	return false;
}

static int read_nft_tables(struct names *names)
{
	char buffer[NETLINK_BUFFER_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *msg;
	void *header;

	if (!has_nf_tables())
		return 0;
	msg = netlink_begin(buffer, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, NLM_F_DUMP,
			    sizeof(struct nfgenmsg), &header);
	((struct nfgenmsg *)header)->version = NFNETLINK_V0;
	return netlink_ask(NETLINK_NETFILTER, msg, see_table, names);
}

/* The older iptables have files in /proc with the tables that are loaded. */
static int read_old_tables(const char *path, const char *family, struct names *names)
{
	char text[NAMES_MAX], *rest = text, *name;
	int r = doctor_read_file(path, sizeof(text), text);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	while ((name = strsep(&rest, "\n")))
		if (*name)
			add_name(names, family, name);
	return 0;
}

static void report_firewall(struct doctor *d, const char *subject, int r, const struct names *names)
{
	d->subject = subject;
	if (r == -EPERM || r == -EACCES)
		doctor_not_known(d);
	else if (r < 0)
		doctor_note(d, "look at its own tool: nft list ruleset, iptables-save",
			    "its tables cannot be read: %s", error_name(r));
	else if (!*names->text)
		doctor_ok(d, "no tables");
	else
		doctor_note(d,
			    "nothing to do; but what fwd drops, or redirects as it comes in, is "
			    "neither seen nor counted there, and no rule there lets it in",
			    "it has tables (%s%s): it sees packets that come in behind fwd, and "
			    "those that go out before fwd",
			    names->text, names->n_more ? ", and more" : "");
}

void doctor_check_firewalls(struct doctor *d)
{
	struct names nft = {0}, old = {0};
	int r = read_nft_tables(&nft);

	report_firewall(d, "nftables", r, &nft);
	r = read_old_tables("/proc/net/ip_tables_names", "ip", &old);
	if (!r)
		r = read_old_tables("/proc/net/ip6_tables_names", "ip6", &old);
	report_firewall(d, "iptables-legacy", r, &old);
}

/* ---- connection tracking ---- */

void doctor_check_conntrack(struct doctor *d)
{
	u64 count = 0, max = 0;

	if (doctor_read_number("/proc/sys/net/netfilter/nf_conntrack_count", &count) < 0 || !count)
		doctor_ok(d, "no connections are tracked");
	else if (doctor_read_number("/proc/sys/net/netfilter/nf_conntrack_max", &max) >= 0 && max &&
		 facts_is_full(count, max))
		doctor_problem(
			d,
			"sysctl -w net.netfilter.nf_conntrack_max=NUMBER, and block where "
			"they come from: what fwd drops is not tracked",
			"full or nearly, and then new connections fail: %llu of %llu are tracked",
			(unsigned long long)count, (unsigned long long)max);
	else
		doctor_note(d,
			    "nothing to do; but connections of which fwd redirects one direction "
			    "only may look invalid to it",
			    "it is in use, with %llu of %llu connections; it stands behind fwd, so "
			    "what fwd drops is not in it",
			    (unsigned long long)count, (unsigned long long)max);
}
