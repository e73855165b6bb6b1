/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: connections, lines, credentials and bounds (common/protocol.h). What a
 * request means is the handler's.
 *
 *   C1  One request of a connection is handled a turn of the event loop, so that no client holds up
 *       another one.
 *   C2  A connection's memory is bounded: a request's line, and the answers not yet taken.
 *   C3  A peer that the kernel does not vouch for is answered with an error and closed.
 */
#pragma once

#include "cleanup.h"
#include "command.h"
#include "error.h"

#include <systemd/sd-event.h>

struct control;

/* The rest of a long answer, a line at a time. */
struct listing;

struct answer {
	json_t *object;		 /* the line to send; the connection's from now on */
	struct listing *listing; /* NULL: that is all */
};

/* Who asks, from the kernel. */
struct peer {
	uid_t uid;
	pid_t pid;
};

struct control_handler {
	/* `list_fd`: the descriptor that came with the request, or -1; the control's. */
	void (*run)(void *data, const struct peer *peer, const struct command *command,
		    const json_t *request, int list_fd, struct answer *ret);
	/* The next line; *ret_more false: it was the last. NULL: out of memory. */
	json_t *(*next)(void *data, struct listing *listing, bool *ret_more);
	void (*end)(struct listing *listing);
	void *data;
};

/*
 * Listens at `path`, mode 0660, for root and `group`. A socket that nobody serves is replaced; one
 * that somebody does is -EADDRINUSE. A group that does not exist leaves the socket to root alone:
 * *ret_no_group tells.
 */
int control_open(sd_event *event, const char *path, const char *group,
		 const struct control_handler *handler, struct control **ret, bool *ret_no_group,
		 struct error *err);

/* Closes all connections and removes the socket. */
void control_close(struct control *control);
DEFINE_CLEANUP(struct control *, control_close);

size_t control_clients(const struct control *control);

/* {"ok": false, "error": {...}}; NULL when out of memory. */
json_t *control_error(int code, const char *message);
