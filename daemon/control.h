/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: connections, lines, credentials and bounds (common/protocol.h). What a
 * request means is the handler's.
 *
 *   C1  One request of a connection is handled a turn of the event loop, so that no client holds up
 *       another one.
 *   C2  A connection's memory is bounded: a request's line, and the answer not yet taken; and so is
 *       that of all their answers. Short answers, which are most, are bounded by the connections.
 *   C3  A peer that the kernel does not vouch for is answered with an error and closed. A request
 *       above the peer's privilege is answered with an error before the handler sees it. Both are
 *       logged.
 *   C4  Answers come in the order of requests: behind one that comes later the others wait.
 *   C5  A request that is being worked on takes the place of a connection until it is answered,
 *       though its client has gone: so there are at most CLIENTS_MAX of them.
 */
#pragma once

#include "cleanup.h"
#include "command.h"
#include "error.h"

#include <systemd/sd-event.h>

struct control;

/* The rest of a long answer, a line at a time. */
struct listing;

/* Where an answer goes that comes later. */
struct asker;

/* Who asks, from the kernel. */
struct peer {
	uid_t uid;
	pid_t pid;
	enum privilege privilege;
};

/* The control's, for as long as run() takes. */
struct request {
	struct peer peer;
	const struct command *command;
	json_t *object; /* checked; kept longer with json_incref() */
	int list_fd;	/* came with it, or -1; the handler's where it takes it with take_fd() */
	struct asker *asker;
};

struct answer {
	json_t *object;		 /* the line to send; the connection's from now on */
	struct listing *listing; /* NULL: that is all */
	bool later;		 /* neither of them: control_answer() will bring the line */
};

struct control_handler {
	void (*run)(void *data, struct request *request, struct answer *ret);
	/* The next line; *ret_more false: it was the last. NULL: out of memory. */
	json_t *(*next)(void *data, struct listing *listing, bool *ret_more);
	void (*end)(struct listing *listing);
	void *data;
};

/* Who may use the socket beside root; a gid of 0 is no group. */
struct control_groups {
	gid_t change; /* everything: the group of the socket's file */
	gid_t look;   /* PRIVILEGE_LOOK: by an entry in the file's access control list */
	const char *look_name;
};

/*
 * Listens at `path`, mode 0660, for root and `groups`. A socket that nobody serves is replaced; one
 * that somebody does is -EADDRINUSE.
 */
int control_open(sd_event *event, const char *path, const struct control_groups *groups,
		 const struct control_handler *handler, struct control **ret, struct error *err);

/*
 * Closes all connections and removes the socket. Of answers that are not sent yet it sends what can
 * be without waiting; also behind the event loop's end. Askers that wait are gone, too.
 */
void control_close(struct control *control);
DEFINE_CLEANUP(struct control *, control_close);

/*
 * The answer that was to come later: exactly once for each `later`, from the event loop's thread,
 * after run() has returned and before control_close(). Consumes both, the asker and the object. If
 * the client has gone, the answer is dropped. NULL, out of memory, closes the connection.
 */
void control_answer(struct asker *asker, json_t *object);

/* Connections that there are. */
size_t control_clients(const struct control *control);

/* {"ok": false, "error": {...}}; NULL when out of memory. */
json_t *control_error(int code, const char *message);
