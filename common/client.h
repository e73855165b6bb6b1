/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client side of the control socket: blocking, one request at a time. */
#pragma once

#include "cleanup.h"
#include "error.h"

#include <jansson.h>
#include <sys/types.h>

struct client;

/*
 * -ECONNREFUSED: no daemon answers at the socket (none there, or nobody behind it); -EACCES: the
 * socket's permissions keep the caller out; -EINVAL: no path of a socket. The caller closes it with
 * client_close().
 */
int client_connect(const char *socket_path, struct client **ret, struct error *err);

/*
 * `list_fd`: a sealed memory file to pass along (see client_list_file()), or -1. Not consumed. 0
 * also where the daemon hung up: then it may have said why, and client_receive() tells. -ETIMEDOUT:
 * it did not take the request for CLIENT_WAIT_S.
 */
int client_send(struct client *client, const json_t *request, int list_fd, struct error *err);

/*
 * The next answer's line; the caller owns it. -EPROTO: not an answer; -ECONNRESET: gone;
 * -ETIMEDOUT: nothing came for CLIENT_WAIT_S.
 */
int client_receive(struct client *client, json_t **ret, struct error *err);

/* The process that listens at the socket; 0: it cannot be seen from this process's namespace. */
pid_t client_peer(const struct client *client);

/* Has client_receive() wait for so long instead of CLIENT_WAIT_S, to within a second. */
void client_set_wait(struct client *client, int wait_s);

/*
 * Has `waiting` called about once a second while client_receive() waits; `waited_s` is for how long
 * it has.
 */
typedef void client_waiting_fn(void *data, int waited_s);
void client_on_wait(struct client *client, client_waiting_fn *waiting, void *data);

void client_close(struct client *client);
DEFINE_CLEANUP(struct client *, client_close);

/*
 * Copies a file ("-": standard input) of at most ADDRESS_LIST_MAX_BYTES into a memory file that is
 * sealed against change, as the daemon asks for: it can neither block nor change under the reader.
 */
int client_list_file(const char *path, int *ret_fd, struct error *err);
