// SPDX-License-Identifier: GPL-2.0-or-later
/* Where a caller is logged in from, with a logind that the tests make up. */
#include "caller.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <systemd/sd-login.h>

#define PID 4711

/* What logind knows of PID: nothing, or a session and where it is from, if from anywhere. */
static bool has_session;
static const char *remote_host;

int __wrap_sd_pid_get_session(pid_t pid, char **ret);
int __wrap_sd_session_get_remote_host(const char *session, char **ret);

int __wrap_sd_pid_get_session(pid_t pid, char **ret)
{
	cr_assert_eq(pid, PID, "asked for another process, %d", pid);
	if (!has_session)
		return -ENODATA;
	*ret = strdup("c7");
	return 0;
}

int __wrap_sd_session_get_remote_host(const char *session, char **ret)
{
	cr_assert_str_eq(session, "c7");
	if (!remote_host)
		return -ENODATA;
	*ret = strdup(remote_host);
	return 0;
}

/* The addresses, with a blank behind each. */
static void expect_sessions(const char *told, pid_t pid, const char *expected)
{
	struct request request = {.peer = {.pid = pid}, .object = json_object()};
	struct prefix sessions[GUARD_SESSIONS_MAX];
	char all[256] = "";
	size_t n;

	if (told)
		json_object_set_new(request.object, "ssh_client", json_string(told));
	n = caller_sessions(&request, sessions);
	cr_assert_leq(n, GUARD_SESSIONS_MAX);
	for (size_t i = 0; i < n; i++) {
		prefix_format(&sessions[i], all + strlen(all));
		strcat(all, " ");
	}
	cr_expect_str_eq(all, expected);
	json_decref(request.object);
}

Test(caller, is_logged_in_from_where_the_request_says)
{
	expect_sessions(NULL, PID, "");
	expect_sessions("192.0.2.7", PID, "192.0.2.7 ");
}

Test(caller, is_logged_in_from_where_logind_knows)
{
	has_session = true;
	expect_sessions(NULL, PID, "");
	remote_host = "2001:db8::7";
	expect_sessions(NULL, PID, "2001:db8::7 ");
	expect_sessions("192.0.2.7", PID, "192.0.2.7 2001:db8::7 ");
	remote_host = "::ffff:192.0.2.7";
	expect_sessions(NULL, PID, "192.0.2.7 ");
	expect_sessions("192.0.2.7", PID, "192.0.2.7 ");
	remote_host = "fe80::7%eth0";
	expect_sessions(NULL, PID, "fe80::7 ");
}

Test(caller, is_not_looked_up_by_name)
{
	has_session = true;
	remote_host = "host.example";
	expect_sessions(NULL, PID, "");
}

/* It is 0 where the caller is in a process namespace that the daemon does not see. */
Test(caller, of_whom_the_kernel_tells_no_process_is_not_looked_up)
{
	has_session = true;
	remote_host = "192.0.2.7";
	expect_sessions(NULL, 0, "");
}
