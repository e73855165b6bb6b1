// SPDX-License-Identifier: GPL-2.0-or-later
/* The daemon: whether it answers, who may speak to it, what it says is wrong. */
#include "doctor_internal.h"

#include "client.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>

/* Whatever else it does, a daemon answers `status` far sooner. */
#define ANSWER_WAIT_S 3

#define DEFAULT_GROUP "fwd"

#define START_REMEDY "systemctl start fwd; if it does not start, journalctl -u fwd tells why"

static int ask_status(const char *socket_path, pid_t *ret_pid, json_t **ret, struct error *err)
{
	_cleanup_(client_closep) struct client *client = NULL;
	json_auto_t *request = json_pack("{s:s}", "command", "status"), *answer = NULL;
	const char *why;
	int r = client_connect(socket_path, &client, err);

	if (r < 0)
		return r;
	client_set_wait(client, ANSWER_WAIT_S);
	r = client_send(client, request, -1, err);
	if (!r)
		r = client_receive(client, &answer, err);
	if (r < 0)
		return r;
	if (!json_is_true(json_object_get(answer, "ok"))) {
		why = json_string_value(
			json_object_get(json_object_get(answer, "error"), "message"));
		return error_set(err, -EREMOTEIO, "%s", why ? why : "it did not say why");
	}
	*ret_pid = client_peer(client);
	*ret = json_incref(answer);
	return 0;
}

static void report_daemon(struct doctor *d)
{
	const char *version = json_string_value(json_object_get(d->status, "version"));

	if (!version || strcmp(version, FWD_VERSION) != 0)
		doctor_note(d, "systemctl restart fwd; meanwhile the rules stay in force",
			    "fwd %s runs, process %d, but fwctl is " FWD_VERSION,
			    version ? version : "(no version)", d->daemon_pid);
	else
		doctor_ok(d, "fwd %s runs, process %d", version, d->daemon_pid);
}

void doctor_check_daemon(struct doctor *d)
{
	struct error err;
	int r = ask_status(d->socket_path, &d->daemon_pid, &d->status, &err);

	switch (r) {
	case 0:
		report_daemon(d);
		break;
	case -ECONNREFUSED:
		doctor_note(d, START_REMEDY, "none answers at %s", d->socket_path);
		break;
	case -EACCES:
		doctor_note(d, "run it as root or as a member of the socket's group", "%s",
			    err.text);
		break;
	case -EREMOTEIO:
		doctor_note(d, "fwctl status tells more", "it refuses: %s", err.text);
		break;
	case -EINVAL:
		doctor_problem(d, "name the socket that the configuration has: fwctl -s SOCKET",
			       "%s", err.text);
		break;
	default:
		doctor_problem(d, "systemctl restart fwd; meanwhile the rules stay in force",
			       "it hangs or is none: %s", err.text);
	}
}

void doctor_check_socket(struct doctor *d)
{
	const struct group *group;
	struct stat st;

	if (!stat(d->socket_path, &st)) {
		group = getgrgid(st.st_gid);
		if (!st.st_gid || !(st.st_mode & S_IWGRP))
			doctor_ok(d, "only root may use %s", d->socket_path);
		else if (group)
			doctor_ok(d, "root and the group %s may use %s", group->gr_name,
				  d->socket_path);
		else
			doctor_ok(d, "root and the group %u may use %s", st.st_gid, d->socket_path);
	} else if (getgrnam(DEFAULT_GROUP)) {
		doctor_ok(d, "there is the group " DEFAULT_GROUP " for those who may use it");
	} else {
		doctor_note(
			d, "groupadd --system " DEFAULT_GROUP ", or set group in the configuration",
			"there is no group " DEFAULT_GROUP ": only root may use it");
	}
}

void doctor_check_waiting(struct doctor *d)
{
	const json_t *name;
	size_t i;

	json_array_foreach (json_object_get(d->status, "waiting"), i, name) {
		d->subject = json_string_value(name);
		doctor_note(d,
			    "nothing to do if it is to appear later; else mend its name in the "
			    "configuration",
			    "no interface has this name now; it is attached when one appears");
	}
}

static const json_t *find_interface(const struct doctor *d, const char *name)
{
	const json_t *interface;
	size_t i;

	json_array_foreach (json_object_get(d->status, "interfaces"), i, interface) {
		const char *its_name = json_string_value(json_object_get(interface, "name"));

		if (its_name && !strcmp(its_name, name))
			return interface;
	}
	return NULL;
}

static bool has_name(const struct link_list *links, const char *name)
{
	for (size_t i = 0; i < links->n; i++)
		if (!strcmp(links->items[i].name, name))
			return true;
	return false;
}

void doctor_check_interfaces(struct doctor *d)
{
	const json_t *interface;
	struct error err;
	size_t i;

	if (link_list_read(&d->links, &err) < 0) {
		doctor_problem(d, "in a sandbox: let AF_NETLINK through", "%s", err.text);
		return;
	}
	json_array_foreach (json_object_get(d->status, "interfaces"), i, interface) {
		d->subject = json_string_value(json_object_get(interface, "name"));
		if (d->subject && !has_name(&d->links, d->subject))
			doctor_note(d, "nsenter --target PID --net fwctl doctor, with fwd's PID",
				    "fwd has it, but in another network namespace than this one");
	}
}

bool doctor_daemon_has(const struct doctor *d, const char *name)
{
	return find_interface(d, name);
}

void doctor_check_attached(struct doctor *d, const struct link_facts *link)
{
	const json_t *interface = find_interface(d, link->name);
	const char *error, *xdp;

	if (!interface)
		return;
	error = json_string_value(json_object_get(interface, "error"));
	xdp = json_string_value(json_object_get(interface, "xdp"));
	if (error)
		doctor_problem(d, "see the findings of this interface, then fwctl reload", "%s",
			       error);
	else
		doctor_ok(d, "fwd has attached what the rules need: %s XDP%s%s", xdp ? xdp : "no",
			  json_is_true(json_object_get(interface, "tc_in")) ? ", TC in" : "",
			  json_is_true(json_object_get(interface, "tc_out")) ? ", TC out" : "");
}
