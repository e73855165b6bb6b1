// SPDX-License-Identifier: GPL-2.0-or-later
#include "caller.h"

#include <string.h>
#include <systemd/sd-login.h>

/* Of a name, which only a resolver could tell, nothing is known. */
static bool ask_logind(pid_t pid, struct prefix *ret)
{
	_cleanup_free_ char *session = NULL, *host = NULL;

	/* 0 would be this process. */
	return pid > 0 && sd_pid_get_session(pid, &session) >= 0 &&
	       sd_session_get_remote_host(session, &host) >= 0 && host &&
	       !address_parse_loose(host, strlen(host), ret);
}

size_t caller_sessions(const struct request *request, struct prefix ret[static GUARD_SESSIONS_MAX])
{
	const char *told = request_text(request->object, "ssh_client");
	size_t n = 0;

	if (told && !address_parse(told, strlen(told), &ret[n], NULL))
		n++;
	if (ask_logind(request->peer.pid, &ret[n]) && (!n || !prefix_equal(&ret[0], &ret[n])))
		n++;
	return n;
}
