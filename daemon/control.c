// SPDX-License-Identifier: GPL-2.0-or-later
#include "control.h"

#include "clock.h"
#include "log.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* What is read from a connection a turn. */
#define READ_BYTES 16384
/* Descriptors in one message; more than one is one too many, and is closed. */
#define FDS_MAX 16
/* Groups of a peer; NGROUPS_MAX in linux/limits.h. */
#define GROUPS_MAX 65536

#define US_PER_S 1000000ull

_Static_assert(REQUEST_MAX_BYTES == 65536, "an error's text names it");

DEFINE_CLEANUP(acl_t, acl_free);

struct asker {
	struct control *control;
	struct connection *connection; /* NULL: the client has gone */
	struct asker *next, **link;    /* among the abandoned ones */
};

struct connection {
	struct control *control;
	struct connection *next, **link;
	struct peer peer;
	int fd;
	int list_fd; /* came with what was read last */
	sd_event_source *io, *deadline;

	char *in; /* REQUEST_MAX_BYTES */
	size_t in_used;
	char *out;
	size_t out_size, out_sent;
	struct listing *listing;
	struct asker *asker;
	bool awaiting; /* an answer that comes later */
	bool closing;  /* once `out` is sent */
	bool ended;    /* the peer sends no more */
};

struct control {
	sd_event *event;
	struct control_handler handler;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	gid_t change_group, look_group; /* 0: none */
	char *look_name;
	int fd;
	int spare_fd; /* given up to refuse a connection when there are no descriptors left */
	ino_t inode;
	sd_event_source *accept;
	struct connection *connections;
	size_t n;
	size_t out_bytes;	 /* of all connections */
	struct asker *abandoned; /* their connections have gone; answers are still to come */
	size_t n_abandoned;
};

json_t *control_error(int code, const char *message)
{
	return json_pack("{s:b, s:{s:s, s:s}}", "ok", 0, "error", "code", error_code_name(code),
			 "message", message);
}

/* ---- connections ---- */

/* The change goes on. */
static void abandon(struct asker *asker)
{
	struct control *control = asker->control;

	asker->connection = NULL;
	asker->next = control->abandoned;
	asker->link = &control->abandoned;
	if (asker->next)
		asker->next->link = &asker->next;
	control->abandoned = asker;
	control->n_abandoned++;
}

static void abandoned_free(struct asker *asker)
{
	*asker->link = asker->next;
	if (asker->next)
		asker->next->link = asker->link;
	asker->control->n_abandoned--;
	free(asker);
}

static void drop_out(struct connection *c)
{
	c->control->out_bytes -= c->out_size;
	free(c->out);
	c->out = NULL;
	c->out_size = c->out_sent = 0;
}

static void connection_free(struct connection *c)
{
	if (c->link) {
		*c->link = c->next;
		if (c->next)
			c->next->link = c->link;
		c->control->n--;
	}
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->deadline);
	if (c->listing)
		c->control->handler.end(c->listing);
	if (c->awaiting)
		abandon(c->asker);
	else
		free(c->asker);
	closep(&c->list_fd);
	closep(&c->fd);
	free(c->in);
	drop_out(c);
	free(c);
}

static int refuse(struct connection *c, int code, const char *message);

static int queue(struct connection *c, json_t *object)
{
	char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
	size_t size;

	json_decref(object);
	if (!line)
		return -ENOMEM;
	size = strlen(line) + 1;
	if (size > REPLY_MAX_BYTES) {
		free(line);
		return -EMSGSIZE;
	}
	if (size > REPLY_LONG_BYTES && c->control->out_bytes + size > REPLIES_MAX_BYTES) {
		free(line);
		return refuse(c, -EBUSY,
			      "too many long answers wait for others to read them; try again");
	}
	line[size - 1] = '\n'; /* in the place of the NUL */
	drop_out(c);
	c->out = line;
	c->out_size = size;
	c->control->out_bytes += size;
	return 0;
}

/* Answers with an error and closes. */
static int refuse(struct connection *c, int code, const char *message)
{
	c->closing = true;
	return queue(c, control_error(code, message));
}

/* Whether the peer may; where not, the answer says so. */
static bool is_permitted(const struct connection *c, const struct request *request,
			 struct answer *answer)
{
	const char *name = request->command->name;
	struct error err;

	if (c->peer.privilege >= request_privilege(request->command, request->object))
		return true;
	log_warning("refused \"%s\" to uid %u (pid %d): members of \"%s\" may only look", name,
		    c->peer.uid, c->peer.pid, c->control->look_name);
	error_set(&err, -EPERM,
		  "not permitted: \"%s\" changes rules; members of \"%s\" may only look", name,
		  c->control->look_name);
	answer->object = control_error(-EPERM, err.text);
	return false;
}

static int handle_line(struct connection *c, const char *line, size_t size)
{
	const struct control_handler *handler = &c->control->handler;
	struct request request = {.peer = c->peer, .list_fd = -1, .asker = c->asker};
	struct answer answer = {0};
	struct error err;
	int r = request_decode(line, size, &request.object, &request.command, &err);

	if (r == -EBADMSG)
		return refuse(c, r, err.text);
	if (r < 0)
		return queue(c, control_error(r, err.text));
	/* Others leave it: the kernel joins bytes to those behind them that have a descriptor. */
	if (json_is_true(json_object_get(request.object, "list")))
		request.list_fd = take_fd(&c->list_fd);
	if (is_permitted(c, &request, &answer)) /* C3 */
		handler->run(handler->data, &request, &answer);
	json_decref(request.object);
	closep(&request.list_fd);
	if (answer.later) {
		c->awaiting = true;
		/* It waits for us, not we for it. */
		return sd_event_source_set_enabled(c->deadline, SD_EVENT_OFF);
	}
	c->listing = answer.listing;
	return queue(c, answer.object);
}

/* True if a whole line is there. */
static char *find_line(const struct connection *c)
{
	return memchr(c->in, '\n', c->in_used);
}

/* One step: the next line of a listing, or the next request (C1). */
static int take_turn(struct connection *c)
{
	char *newline;
	bool more = false;
	int r;

	if (c->listing) {
		json_t *line =
			c->control->handler.next(c->control->handler.data, c->listing, &more);

		if (!more) {
			c->control->handler.end(c->listing);
			c->listing = NULL;
		}
		return queue(c, line);
	}
	newline = find_line(c);
	if (newline) {
		size_t size = (size_t)(newline - c->in);

		r = handle_line(c, c->in, size);
		c->in_used -= size + 1;
		memmove(c->in, newline + 1, c->in_used);
		if (!c->in_used) {
			closep(&c->list_fd); /* no request wanted it */
			c->list_fd = -1;
		}
		return r;
	}
	if (c->in_used == REQUEST_MAX_BYTES)
		return refuse(c, -EINVAL, "the request is longer than 65536 bytes");
	if (c->ended && c->in_used) {
		c->in_used = 0;
		return refuse(c, -EINVAL, "the request ends without a newline");
	}
	return c->ended ? -ECONNRESET : 0;
}

static int receive(struct connection *c)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	size_t room = REQUEST_MAX_BYTES - c->in_used;
	struct iovec iov = {.iov_base = c->in + c->in_used,
			    .iov_len = room < READ_BYTES ? room : READ_BYTES};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	bool too_many = false;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&msg); header;
	     header = CMSG_NXTHDR(&msg, header)) {
		size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
			if (c->list_fd < 0) {
				c->list_fd = fd;
			} else {
				close(fd);
				too_many = true;
			}
		}
	}
	if (!n)
		c->ended = true;
	c->in_used += (size_t)n;
	return too_many ? refuse(c, -EINVAL, "more descriptors came than requests for them") : 0;
}

static int flush(struct connection *c, bool *ret_progress)
{
	while (c->out_sent < c->out_size) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_sent += (size_t)n;
		*ret_progress = true;
	}
	drop_out(c);
	return 0;
}

static int set_deadline(struct connection *c, u64 s)
{
	/* Not sd_event_now(): that is of before the handler, which may have taken long. */
	u64 now_us = clock_ns(CLOCK_MONOTONIC) / 1000;
	int r = sd_event_source_set_time(c->deadline, now_us + s * US_PER_S);

	return r < 0 ? r : sd_event_source_set_enabled(c->deadline, SD_EVENT_ONESHOT);
}

static void update_events(struct connection *c)
{
	bool work = c->listing || find_line(c) || c->ended || c->in_used == REQUEST_MAX_BYTES;
	u32 events = 0;

	/*
	 * Not reading while there is work, or an answer to come or to be taken, bounds what a peer
	 * can queue (C2). A hang-up the kernel tells without being asked.
	 */
	if (c->out || (work && !c->awaiting))
		events = EPOLLOUT;
	else if (!c->awaiting && !c->closing)
		events = EPOLLIN;
	sd_event_source_set_io_events(c->io, events);
}

static int on_io(sd_event_source *source, int fd, u32 revents, void *data)
{
	struct connection *c = data;
	bool progress = false, gone;
	int r = 0;

	if (revents & EPOLLIN)
		r = receive(c);
	if (!r && !c->out && !c->awaiting)
		r = take_turn(c); /* C4 */
	if (!r && c->out)
		r = flush(c, &progress);
	gone = revents & (EPOLLHUP | EPOLLERR) && (c->awaiting || !c->in_used);
	if (r < 0 || gone || (c->closing && !c->out)) {
		connection_free(c);
		return 0;
	}
	if (progress && (c->out || c->listing))
		set_deadline(c, REPLY_TIMEOUT_S);
	else if (progress)
		set_deadline(c, REQUEST_TIMEOUT_S);
	update_events(c);
	return 0;
}

static int on_deadline(sd_event_source *source, u64 us, void *data)
{
	struct connection *c = data;
	struct pollfd poll_fd = {.fd = c->fd, .events = POLLIN};

	/* It was us who took long, if what is awaited is there: the timer only came first. */
	if (!c->out && poll(&poll_fd, 1, 0) > 0 && poll_fd.revents & POLLIN &&
	    clock_ns(CLOCK_MONOTONIC) / 1000 > us + US_PER_S)
		return set_deadline(c, 1);
	connection_free(c);
	return 0;
}

void control_answer(struct asker *asker, json_t *object)
{
	struct connection *c = asker->connection;
	int r;

	if (!c) {
		json_decref(object);
		abandoned_free(asker);
		return;
	}
	c->awaiting = false;
	r = queue(c, object);
	if (!r)
		r = set_deadline(c, REPLY_TIMEOUT_S);
	/* The event loop has ended: control_close() sends it. */
	if (r < 0 && r != -ESTALE) {
		connection_free(c);
		return;
	}
	update_events(c);
}

static int add_connection(struct control *control, int fd, const struct peer *peer)
{
	struct connection *c = calloc(1, sizeof(*c));
	u64 now_us;
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct connection){.control = control, .fd = fd, .list_fd = -1, .peer = *peer};
	c->in = malloc(REQUEST_MAX_BYTES);
	c->asker = calloc(1, sizeof(*c->asker));
	if (c->asker)
		*c->asker = (struct asker){.control = control, .connection = c};
	r = c->in && c->asker ? sd_event_add_io(control->event, &c->io, fd, EPOLLIN, on_io, c)
			      : -ENOMEM;
	if (r >= 0) {
		sd_event_now(control->event, CLOCK_MONOTONIC, &now_us);
		r = sd_event_add_time(control->event, &c->deadline, CLOCK_MONOTONIC,
				      now_us + REQUEST_TIMEOUT_S * US_PER_S, 0, on_deadline, c);
	}
	if (r < 0) {
		c->fd = -1; /* the caller's */
		connection_free(c);
		return r;
	}
	c->next = control->connections;
	c->link = &control->connections;
	if (c->next)
		c->next->link = &c->next;
	control->connections = c;
	control->n++;
	return 0;
}

/* ---- who may ---- */

static bool in_group(int fd, gid_t primary, gid_t group)
{
	_cleanup_free_ gid_t *groups = NULL;
	socklen_t size = 256 * sizeof(*groups);
	int r;

	if (!group || primary == group)
		return group;
	groups = malloc(size);
	if (!groups)
		return false;
	r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size);
	if (r < 0 && errno == ERANGE && size <= GROUPS_MAX * sizeof(*groups)) {
		gid_t *more = realloc(groups, size);

		if (!more)
			return false;
		groups = more;
		r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size);
	}
	for (size_t i = 0; !r && i < size / sizeof(*groups); i++)
		if (groups[i] == group)
			return true;
	return false;
}

static bool may_connect(const struct control *control, int fd, struct peer *ret)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0) {
		log_warning("refused a connection: who made it is not to be seen: %s",
			    error_name(errno));
		return false;
	}
	*ret = (struct peer){.uid = cred.uid, .pid = cred.pid, .privilege = PRIVILEGE_CHANGE};
	if (cred.uid == 0 || in_group(fd, cred.gid, control->change_group))
		return true;
	ret->privilege = PRIVILEGE_LOOK;
	if (in_group(fd, cred.gid, control->look_group))
		return true;
	log_warning("refused uid %u (pid %d): not root, and not in the socket's groups", cred.uid,
		    cred.pid);
	return false;
}

/* One line without waiting: a peer that does not read it misses it. */
static void send_refusal(int fd, int code, const char *message)
{
	json_t *object = control_error(code, message);
	_cleanup_free_ char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;

	json_decref(object);
	if (!line)
		return;
	line[strlen(line)] = '\n';
	send(fd, line, strcspn(line, "\n") + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* No descriptors left: without this the listening socket would stay ready for ever. */
static void refuse_with_spare(struct control *control)
{
	int fd;

	closep(&control->spare_fd);
	fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		send_refusal(fd, -EBUSY, "too many open files; try again");
		close(fd);
	}
	control->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int on_accept(sd_event_source *source, int listen_fd, u32 revents, void *data)
{
	struct control *control = data;
	_cleanup_close_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct peer peer;

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			refuse_with_spare(control);
		return 0;
	}
	if (control->n + control->n_abandoned >= CLIENTS_MAX) { /* C5 */
		send_refusal(fd, -EBUSY, "too many connections; try again");
		return 0;
	}
	if (!may_connect(control, fd, &peer)) {
		send_refusal(fd, -EACCES,
			     "not permitted: be root or a member of the socket's groups");
		return 0;
	}
	if (add_connection(control, fd, &peer) >= 0)
		take_fd(&fd);
	return 0;
}

/* ---- listening ---- */

/* -EADDRINUSE if somebody answers; a socket that nobody serves is removed. */
static int clear_path(const struct sockaddr_un *addr, struct error *err)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0
				       : error_set(err, -errno, "cannot see %s: %s", addr->sun_path,
						   error_name(errno));
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, "%s is there and is not a socket", addr->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, -errno, "cannot make a socket: %s", error_name(errno));
	if (!connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || errno == EAGAIN)
		return error_set(err, -EADDRINUSE,
				 "another fwd serves %s; stop it, or give this one a socket of its "
				 "own",
				 addr->sun_path);
	if (errno != ECONNREFUSED && errno != ENOENT)
		return error_set(err, -EADDRINUSE, "%s is a socket of another kind (%s)",
				 addr->sun_path, error_name(errno));
	if (unlink(addr->sun_path) < 0 && errno != ENOENT)
		return error_set(err, -errno, "cannot remove the old socket %s: %s", addr->sun_path,
				 error_name(errno));
	return 0;
}

static void make_parent(const char *path)
{
	char parent[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", path);
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = '\0';
		mkdir(parent, 0755); /* bind() says if it did not help */
	}
}

/* Owner and mode, and an entry for a second group, which a mode has no place for. */
static int set_access(const struct control *control, struct error *err)
{
	const char *path = control->path, *group = control->change_group ? "rw" : "-";
	_cleanup_(acl_freep) acl_t acl = NULL;
	char text[64];

	if (chown(path, 0, control->change_group) < 0)
		return error_set(err, -errno, "cannot give the socket %s to its group: %s", path,
				 error_name(errno));
	if (!control->look_group) {
		if (chmod(path, control->change_group ? 0660 : 0600) < 0)
			return error_set(err, -errno, "cannot set the mode of the socket %s: %s",
					 path, error_name(errno));
		return 0;
	}
	snprintf(text, sizeof(text), "u::rw,g::%s,g:%u:rw,m::rw,o::-", group, control->look_group);
	acl = acl_from_text(text);
	if (!acl || acl_set_file(path, ACL_TYPE_ACCESS, acl) < 0)
		return error_set(
			err, -errno,
			"cannot let \"%s\" use the socket %s: %s; put the socket on a file "
			"system with access control lists, or leave out daemon.read_group",
			control->look_name, path, error_name(errno));
	return 0;
}

static int listen_at(struct control *control, const char *path, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t old_mask;
	struct stat st;
	int r;

	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path) >=
	    sizeof(addr.sun_path))
		return error_set(err, -ENAMETOOLONG, "socket path \"%s\" is longer than %zu bytes",
				 path, sizeof(addr.sun_path) - 1);
	make_parent(path);
	r = clear_path(&addr, err);
	if (r < 0)
		return r;
	control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->fd < 0)
		return error_set(err, -errno, "cannot make a socket: %s", error_name(errno));
	/* Nobody gets in before owner and mode are right. */
	old_mask = umask(0777);
	r = bind(control->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(old_mask);
	if (r < 0)
		return error_set(err, r, "cannot make the socket %s: %s", path, error_name(r));
	if (stat(path, &st) < 0)
		return error_set(err, -errno, "cannot see the socket %s: %s", path,
				 error_name(errno));
	/* From here on control_close() removes it. */
	memcpy(control->path, addr.sun_path, sizeof(control->path));
	control->inode = st.st_ino;
	r = set_access(control, err);
	if (r < 0)
		return r;
	if (listen(control->fd, CLIENTS_MAX) < 0)
		return error_set(err, -errno, "cannot listen at %s: %s", path, error_name(errno));
	return 0;
}

int control_open(sd_event *event, const char *path, const struct control_groups *groups,
		 const struct control_handler *handler, struct control **ret, struct error *err)
{
	_cleanup_(control_closep) struct control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return error_no_memory(err);
	control->fd = -1;
	control->event = sd_event_ref(event);
	control->handler = *handler;
	control->change_group = groups->change;
	control->look_group = groups->look;
	control->look_name = groups->look ? strdup(groups->look_name) : NULL;
	if (groups->look && !control->look_name)
		return error_no_memory(err);
	control->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	r = listen_at(control, path, err);
	if (r < 0)
		return r;
	r = sd_event_add_io(event, &control->accept, control->fd, EPOLLIN, on_accept, control);
	if (r < 0)
		return error_set(err, r, "cannot watch the socket: %s", error_name(r));
	*ret = take_pointer(&control);
	return 0;
}

void control_close(struct control *control)
{
	struct stat st;
	bool progress = false;

	if (!control)
		return;
	while (control->connections) {
		flush(control->connections, &progress);
		connection_free(control->connections);
	}
	while (control->abandoned)
		abandoned_free(control->abandoned);
	sd_event_source_disable_unref(control->accept);
	sd_event_unref(control->event);
	/* Only our own: another daemon may have taken the path. */
	if (control->path[0] && !lstat(control->path, &st) && st.st_ino == control->inode)
		unlink(control->path);
	closep(&control->fd);
	closep(&control->spare_fd);
	free(control->look_name);
	free(control);
}

size_t control_clients(const struct control *control)
{
	return control->n;
}
