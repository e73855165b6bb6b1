// SPDX-License-Identifier: GPL-2.0-or-later
/* An interface: what XDP can do on it, and what is there already. */
#include "doctor_internal.h"

#include "doctor_facts.h"
#include "doctor_program.h"
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OUR_PROGRAM	"fwd_xdp"
#define DISPATCHER_NAME "xdp_dispatcher" /* libxdp's */

static const char *driver_of(const struct link_facts *link)
{
	return *link->driver ? link->driver : *link->kind ? link->kind : "not known";
}

void doctor_check_native(struct doctor *d, const struct link_facts *link)
{
	switch (facts_native(link)) {
	case ANSWER_YES:
		doctor_ok(d, "native XDP (driver %s)", driver_of(link));
		break;
	case ANSWER_NO:
		doctor_note(d,
			    "nothing to do: xdp_mode \"auto\" takes it; for speed, configure the "
			    "hardware interface below, if its driver has native XDP",
			    "generic XDP only, which is slower (driver %s)", driver_of(link));
		break;
	case ANSWER_UNKNOWN:
		doctor_note(d, "nothing to do: fwctl status tells once fwd has tried",
			    "not known whether its driver (%s) has native XDP: the kernel tells "
			    "since 6.3",
			    driver_of(link));
		break;
	}
}

void doctor_check_mtu(struct doctor *d, const struct link_facts *link)
{
	u32 page = (u32)sysconf(_SC_PAGESIZE);
	char remedy[128];

	if (facts_native(link) == ANSWER_NO) /* generic XDP takes any */
		return;
	snprintf(remedy, sizeof(remedy),
		 "ip link set dev %s mtu %u, if speed matters; xdp_mode \"auto\" falls back to "
		 "generic XDP",
		 link->name, facts_mtu_of_one_buffer(page));
	switch (facts_mtu_fits(link, page, d->kernel >= KERNEL_WITH_FRAGS)) {
	case ANSWER_YES:
		doctor_ok(d, "native XDP takes packets of MTU %u", link->mtu);
		break;
	case ANSWER_NO:
		doctor_note(d, remedy,
			    "MTU %u is over the %u bytes or so that native XDP takes here, in one "
			    "buffer: most drivers refuse it then",
			    link->mtu, facts_mtu_of_one_buffer(page));
		break;
	case ANSWER_UNKNOWN:
		doctor_note(d, remedy,
			    "not known whether native XDP takes packets of MTU %u, in several "
			    "buffers: the kernel tells since 6.3",
			    link->mtu);
		break;
	}
}

/* ---- the program that is there ---- */

/* "held by processes 12, 13; pinned at PATH" */
static void describe_owner(const struct program_facts *program, size_t size, char *ret)
{
	size_t used = 0;

	*ret = '\0';
	for (unsigned i = 0; i < program->n_holders; i++)
		used += (size_t)snprintf(ret + used, size - used, "%s%d",
					 i ? ", " : ", held by process ", program->holders[i]);
	if (*program->pin)
		snprintf(ret + used, size - used, ", pinned at %s", program->pin);
	else if (!program->n_holders)
		snprintf(ret, size, ", held by nobody else");
}

static void report_foreign(struct doctor *d, const struct link_facts *link,
			   struct program_facts *program)
{
	char owner[PATH_MAX + 128], loaded[32], remedy[160];
	time_t loaded_s = (time_t)program->loaded_s;
	struct tm tm;

	program_find_owner(program);
	describe_owner(program, sizeof(owner), owner);
	strftime(loaded, sizeof(loaded), "%F %T", localtime_r(&loaded_s, &tm));
	snprintf(remedy, sizeof(remedy),
		 "ip link set dev %s %s off, if it is not needed; or load it by xdp-loader, which "
		 "shares the interface",
		 link->name, link->generic ? "xdpgeneric" : "xdp");
	doctor_report(d, doctor_daemon_has(d, link->name) ? FINDING_PROBLEM : FINDING_NOTE, remedy,
		      "the XDP program \"%s\" (id %u, loaded %s%s) holds it and shares it with "
		      "nobody: fwd cannot block there",
		      program->name, program->id, loaded, owner);
}

void doctor_check_program(struct doctor *d, const struct link_facts *link)
{
	struct program_facts program;
	char names[256];

	if (!link->program_id) {
		doctor_ok(d, "it has no XDP program");
		return;
	}
	if (!d->privileged) {
		doctor_note(
			d, "run it as root",
			"it has an XDP program, id %u; whose it is takes root's privileges to tell",
			link->program_id);
		return;
	}
	if (program_read(link->program_id, &program) < 0) {
		doctor_note(d, "run it again", "its XDP program went while it was looked at");
		return;
	}
	if (!strcmp(program.name, OUR_PROGRAM)) {
		doctor_ok(d, "fwd's program is alone on it, %s",
			  link->generic ? "generic" : "native");
	} else if (!strcmp(program.name, DISPATCHER_NAME)) {
		program_list_components(link->ifindex, program.id, sizeof(names), names);
		doctor_ok(d, "libxdp's dispatcher shares it: %s",
			  *names ? names : "its programs are not known");
	} else {
		report_foreign(d, link, &program);
	}
}

void doctor_check_master(struct doctor *d, const struct link_facts *link)
{
	const struct link_facts *master = link_list_find(&d->links, link->master);

	if (!link->master)
		return;
	if (!master || !*master->kind)
		doctor_note(d, "nothing to do", "it is a port of the interface with index %d",
			    link->master);
	else if (!strcmp(master->kind, "bond"))
		doctor_note(d,
			    "configure either the bond or its ports: a bond with an XDP program "
			    "takes no port that has one",
			    "it is a port of the bond %s", master->name);
	else
		doctor_note(d,
			    "nothing to do; to filter what is for this host only, configure its "
			    "master",
			    "it is a port of the %s %s: fwd sees what passes through, too",
			    master->kind, master->name);
}
