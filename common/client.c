// SPDX-License-Identifier: GPL-2.0-or-later
#include "client.h"

#include "address_list.h"
#include "protocol.h"
#include "types.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

struct client {
	int fd;
	int wait_s;
	size_t start;		    /* where in `buffer` the next line begins */
	size_t scanned;		    /* up to here there is no newline */
	size_t end;		    /* of what was received */
	client_waiting_fn *waiting; /* NULL: nobody asked */
	void *waiting_data;
	char buffer[REPLY_MAX_BYTES];
};

int client_connect(const char *socket_path, struct client **ret, struct error *err)
{
	_cleanup_(client_closep) struct client *client = NULL;
	struct timeval send_wait = {.tv_sec = CLIENT_WAIT_S};
	struct timeval receive_wait = {.tv_sec = 1}; /* again and again, see receive() */
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (!*socket_path)
		return error_set(err, -EINVAL, "the socket's path is empty");
	if (strlen(socket_path) >= sizeof(addr.sun_path))
		return error_set(err, -EINVAL, "socket path \"%s\" is longer than %zu bytes",
				 socket_path, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
	client = malloc(sizeof(*client));
	if (!client)
		return error_no_memory(err);
	client->start = client->scanned = client->end = 0;
	client->waiting = NULL;
	client->wait_s = CLIENT_WAIT_S;
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0)
		return error_set(err, -errno, "cannot make a socket: %s", error_name(errno));
	setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &receive_wait, sizeof(receive_wait));
	setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &send_wait, sizeof(send_wait));
	if (connect(client->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int r = -errno;

		if (r == -EACCES || r == -EPERM)
			return error_set(err, -EACCES,
					 "not permitted to connect to %s: be root or a member of "
					 "the socket's groups",
					 socket_path);
		return error_set(err, -ECONNREFUSED,
				 "no daemon answers at %s (%s): is fwd running? "
				 "systemctl status fwd",
				 socket_path, error_name(r));
	}
	*ret = take_pointer(&client);
	return 0;
}

/* The descriptor goes with the first byte of the request. */
static ssize_t send_some(int fd, const char *data, size_t size, int pass_fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (pass_fd >= 0) {
		struct cmsghdr *header;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		header = CMSG_FIRSTHDR(&msg);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &pass_fd, sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

int client_send(struct client *client, const json_t *request, int list_fd, struct error *err)
{
	_cleanup_free_ char *line = json_dumps(request, JSON_COMPACT);
	size_t size, sent = 0;

	if (!line)
		return error_no_memory(err);
	size = strlen(line);
	line[size++] = '\n'; /* in the place of the NUL */
	if (size > REQUEST_MAX_BYTES)
		return error_set(err, -EINVAL,
				 "the request is longer than %u bytes; put the addresses into a "
				 "file and use -f FILE",
				 REQUEST_MAX_BYTES);
	while (sent < size) {
		ssize_t n = send_some(client->fd, line + sent, size - sent, list_fd);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return 0; /* refused before it was read: the answer says why */
		if (n < 0 && errno == EAGAIN)
			return error_set(err, -ETIMEDOUT,
					 "the daemon has not taken the request for %d s",
					 CLIENT_WAIT_S);
		if (n < 0)
			return error_set(err, -errno, "cannot send the request: %s",
					 error_name(errno));
		sent += (size_t)n;
		list_fd = -1;
	}
	return 0;
}

static json_t *take_line(struct client *client, size_t size, struct error *err)
{
	json_error_t why;
	json_t *reply =
		json_loadb(client->buffer + client->start, size, JSON_REJECT_DUPLICATES, &why);

	client->start += size + 1;
	client->scanned = client->start;
	if (!json_is_object(reply)) {
		error_set(err, -EPROTO, "the answer is not a JSON object: %s",
			  reply ? "another kind of value" : why.text);
		json_decref(reply);
		return NULL;
	}
	return reply;
}

void client_on_wait(struct client *client, client_waiting_fn *waiting, void *data)
{
	client->waiting = waiting;
	client->waiting_data = data;
}

pid_t client_peer(const struct client *client)
{
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);

	getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	return peer.pid;
}

void client_set_wait(struct client *client, int wait_s)
{
	client->wait_s = wait_s;
}

/* As recv(2) does; -1 with EAGAIN once the wait is over. */
static ssize_t receive(const struct client *client, char *buffer, size_t size)
{
	int waited_s = 0;

	for (;;) {
		ssize_t n = recv(client->fd, buffer, size, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n >= 0 || errno != EAGAIN || ++waited_s >= client->wait_s)
			return n;
		if (client->waiting)
			client->waiting(client->waiting_data, waited_s);
	}
}

/* Receives what there is behind the part of a line that the buffer holds. */
static int fill(struct client *client, struct error *err)
{
	ssize_t n;

	if (client->end - client->start == sizeof(client->buffer))
		return error_set(err, -EPROTO, "the answer has a line over %zu bytes",
				 sizeof(client->buffer));
	if (client->start) {
		client->end -= client->start;
		client->scanned -= client->start;
		memmove(client->buffer, client->buffer + client->start, client->end);
		client->start = 0;
	}
	n = receive(client, client->buffer + client->end, sizeof(client->buffer) - client->end);
	if (n < 0 && errno == EAGAIN)
		return error_set(err, -ETIMEDOUT, "the daemon has not answered for %d s",
				 client->wait_s);
	if (n < 0)
		return error_set(err, -ECONNRESET, "the connection to the daemon broke: %s",
				 error_name(errno));
	if (!n)
		return error_set(err, -ECONNRESET,
				 "the daemon closed the connection before its answer was whole");
	client->end += (size_t)n;
	return 0;
}

int client_receive(struct client *client, json_t **ret, struct error *err)
{
	for (;;) {
		char *newline = memchr(client->buffer + client->scanned, '\n',
				       client->end - client->scanned);
		json_t *reply;
		int r;

		if (newline) {
			char *line = client->buffer + client->start;

			reply = take_line(client, (size_t)(newline - line), err);
			if (!reply)
				return -EPROTO;
			*ret = reply;
			return 0;
		}
		client->scanned = client->end;
		r = fill(client, err);
		if (r < 0)
			return r;
	}
}

void client_close(struct client *client)
{
	if (!client)
		return;
	if (client->fd >= 0)
		close(client->fd);
	free(client);
}

static int too_large(const char *name, struct error *err)
{
	return error_set(err, -EFBIG, "%s is too large: the largest list is %u bytes", name,
			 ADDRESS_LIST_MAX_BYTES);
}

static int copy_bounded(int from, int to, const char *name, struct error *err)
{
	static char chunk[64 << 10];
	u64 total = 0;

	for (;;) {
		ssize_t n = read(from, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, "cannot read %s: %s", name,
					 error_name(errno));
		if (!n)
			return 0;
		total += (u64)n;
		if (total > ADDRESS_LIST_MAX_BYTES)
			return too_large(name, err);
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(to, chunk + done, (size_t)(n - done));

			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0)
				return error_set(err, -errno, "cannot copy %s: %s", name,
						 error_name(errno));
			done += w;
		}
	}
}

int client_list_file(const char *path, int *ret_fd, struct error *err)
{
	bool standard_input = !strcmp(path, "-");
	const char *name = standard_input ? "standard input" : path;
	_cleanup_close_ int opened = -1;
	_cleanup_close_ int copy = -1;
	struct stat st;
	int r;

	if (!standard_input) {
		opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (opened < 0)
			return error_set(err, -errno, "cannot open %s: %s", path,
					 error_name(errno));
		if (fstat(opened, &st) < 0)
			return error_set(err, -errno, "cannot read %s: %s", path,
					 error_name(errno));
		if (S_ISDIR(st.st_mode))
			return error_set(err, -EISDIR, "cannot read %s: it is a directory", path);
		if (S_ISREG(st.st_mode) && st.st_size > ADDRESS_LIST_MAX_BYTES)
			return too_large(name, err); /* before copying most of it */
	}
	copy = memfd_create("fwctl-list", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (copy < 0)
		return error_set(err, -errno, "cannot make a memory file: %s", error_name(errno));
	r = copy_bounded(standard_input ? STDIN_FILENO : opened, copy, name, err);
	if (r < 0)
		return r;
	if (lseek(copy, 0, SEEK_SET) < 0 ||
	    fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return error_set(err, -errno, "cannot seal the copy of %s: %s", name,
				 error_name(errno));
	*ret_fd = take_fd(&copy);
	return 0;
}
