// SPDX-License-Identifier: GPL-2.0-or-later
#include "doctor.h"

#include "cleanup.h"
#include "doctor_internal.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* In the order in which they are told; the first ones find out what later ones need. */
static const struct check {
	const char *id; /* stable, as docs/fwctl.8 has it */
	doctor_check_fn *host;
	doctor_link_check_fn *link; /* for each interface */
} checks[] = {
	{"daemon", doctor_check_daemon, NULL},
	{"socket", doctor_check_socket, NULL},
	{"capabilities", doctor_check_capabilities, NULL},
	{"kernel", doctor_check_kernel, NULL},
	{"bpffs", doctor_check_bpffs, NULL},
	{"load-xdp", doctor_check_load_xdp, NULL},
	{"load-tc", doctor_check_load_tc, NULL},
	{"attach-xdp", doctor_check_attach, NULL},
	{"clsact", doctor_check_clsact, NULL},
	{"frags", doctor_check_frags, NULL},
	{"dispatcher", doctor_check_dispatcher, NULL},
	{"btf", doctor_check_btf, NULL},
	{"jit", doctor_check_jit, NULL},
	{"unprivileged-bpf", doctor_check_unprivileged, NULL},
	{"memlock", doctor_check_memlock, NULL},
	{"firewall", doctor_check_firewalls, NULL},
	{"conntrack", doctor_check_conntrack, NULL},
	{"waiting", doctor_check_waiting, NULL},
	{"interfaces", doctor_check_interfaces, NULL},
	{"attached", NULL, doctor_check_attached},
	{"native-xdp", NULL, doctor_check_native},
	{"mtu", NULL, doctor_check_mtu},
	{"xdp-program", NULL, doctor_check_program},
	{"master", NULL, doctor_check_master},
};

static const char *const state_names[] = {
	[FINDING_OK] = "ok",
	[FINDING_NOTE] = "note",
	[FINDING_PROBLEM] = "problem",
};

/* ---- the report ---- */

/* Interfaces and programs have the names that anybody gave them. */
static json_t *printable(const char *text)
{
	struct error copy;

	if (!text)
		return json_null();
	error_set(&copy, 0, "%s", text);
	return json_string(copy.text);
}

void doctor_report(struct doctor *d, enum finding_state state, const char *remedy,
		   const char *format, ...)
{
	char text[ERROR_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_array_append_new(d->findings,
			      json_pack("{s:s, s:o, s:s, s:o, s:o}", "id", d->id, "subject",
					printable(d->subject), "state", state_names[state], "text",
					printable(text), "remedy", printable(remedy)));
	d->notes += state == FINDING_NOTE;
	d->problems += state == FINDING_PROBLEM;
}

void doctor_not_known(struct doctor *d)
{
	doctor_note(d, "run it as root", "not known: it takes root's privileges");
}

int doctor_read_file(const char *path, size_t size, char *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, ret + used, size - 1 - used);
		if (n < 0)
			return -errno;
		used += (size_t)n;
	} while (n && used < size - 1);
	while (used && ret[used - 1] == '\n')
		used--;
	ret[used] = '\0';
	return 0;
}

int doctor_read_number(const char *path, u64 *ret)
{
	char text[32], *end;
	int r = doctor_read_file(path, sizeof(text), text);
	unsigned long long number;

	if (r < 0)
		return r;
	number = strtoull(text, &end, 10);
	if (end == text || *end)
		return -EINVAL;
	*ret = number;
	return 0;
}

/* ---- the whole ---- */

/* Those that the daemon has; all but the loopback, where none answers. */
static bool is_examined(const struct doctor *d, const struct link_facts *link)
{
	return d->status ? doctor_daemon_has(d, link->name) : strcmp(link->name, "lo") != 0;
}

static void check_links(struct doctor *d)
{
	for (size_t i = 0; i < d->links.n; i++) {
		const struct link_facts *link = &d->links.items[i];

		if (!is_examined(d, link))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(checks); k++) {
			d->id = checks[k].id;
			d->subject = link->name;
			if (checks[k].link)
				checks[k].link(d, link);
		}
	}
}

static int say_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

int doctor_examine(const char *socket_path, json_t **ret, struct error *err)
{
	struct doctor d = {.socket_path = socket_path, .findings = json_array()};
	json_t *answer;

	libbpf_set_print(say_nothing);
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		d.id = checks[i].id;
		d.subject = NULL;
		if (checks[i].host)
			checks[i].host(&d);
	}
	check_links(&d);
	answer = json_pack("{s:b, s:i, s:i, s:o}", "ok", 1, "problems", (int)d.problems, "notes",
			   (int)d.notes, "findings", d.findings);
	json_decref(d.status);
	free(d.links.items);
	if (!answer)
		return error_no_memory(err);
	*ret = answer;
	return 0;
}
