// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control socket. The event loop and its clients are one thread here: a client writes, the loop
 * takes turns until it has nothing to do, the client reads. So nothing depends on time, but for the
 * time-outs, which run a hundred times as fast.
 */
#include "control.h"

#include "protocol.h"
#include "temporary.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ---- time-outs in a hundredth of their time ---- */

#define HURRY 100

/* 1 in a test that takes longer than its clients may be silent. */
static u64 hurry = HURRY;

static u64 hurried(sd_event *event, u64 us)
{
	u64 now_us;

	sd_event_now(event, CLOCK_MONOTONIC, &now_us);
	return us > now_us ? now_us + (us - now_us) / hurry : us;
}

int __real_sd_event_add_time(sd_event *event, sd_event_source **ret, clockid_t clock, u64 us,
			     u64 accuracy_us, sd_event_time_handler_t callback, void *data);
int __wrap_sd_event_add_time(sd_event *event, sd_event_source **ret, clockid_t clock, u64 us,
			     u64 accuracy_us, sd_event_time_handler_t callback, void *data);
int __real_sd_event_source_set_time(sd_event_source *source, u64 us);
int __wrap_sd_event_source_set_time(sd_event_source *source, u64 us);

int __wrap_sd_event_add_time(sd_event *event, sd_event_source **ret, clockid_t clock, u64 us,
			     u64 accuracy_us, sd_event_time_handler_t callback, void *data)
{
	return __real_sd_event_add_time(event, ret, clock, hurried(event, us), 1000, callback,
					data);
}

int __wrap_sd_event_source_set_time(sd_event_source *source, u64 us)
{
	return __real_sd_event_source_set_time(source,
					       hurried(sd_event_source_get_event(source), us));
}

/* ---- a handler for tests ---- */

#define LISTING_LINES 200
#define LONG_TEXT     900000 /* bytes; an answer's line may be 1 MiB */

struct listing {
	int line;
};

#define ASKERS_MAX 1100

static struct {
	int requests;
	int listings; /* that are open */
	int next_lines;
	struct asker *askers[ASKERS_MAX]; /* of "reload", in order */
	int n_askers;
	int kept_fd; /* of the last "allow add" */
} handled = {.kept_fd = -1};

static json_t *next_line(void *data, struct listing *listing, bool *ret_more)
{
	listing->line++;
	handled.next_lines++;
	*ret_more = listing->line < LISTING_LINES;
	return json_pack("{s:b, s:i}", "ok", 1, "line", listing->line);
}

static void end_listing(struct listing *listing)
{
	handled.listings--;
	free(listing);
}

static json_t *long_answer(void)
{
	char *text = malloc(LONG_TEXT + 1);
	json_t *object;

	memset(text, 'x', LONG_TEXT);
	text[LONG_TEXT] = '\0';
	object = json_pack("{s:b, s:s}", "ok", 1, "text", text);
	free(text);
	return object;
}

/*
 * "list" has many lines, "stats" a long one, "reload" is answered later, "allow add" keeps the
 * descriptor; others tell their number and the descriptor.
 */
static void run(void *data, struct request *request, struct answer *ret)
{
	handled.requests++;
	switch (command_index(request->command)) {
	case COMMAND_STATS:
		ret->object = long_answer();
		return;
	case COMMAND_RELOAD:
		handled.askers[handled.n_askers++] = request->asker;
		ret->later = true;
		return;
	case COMMAND_LIST:
		ret->listing = calloc(1, sizeof(*ret->listing));
		handled.listings++;
		break;
	case COMMAND_ALLOW_ADD:
		handled.kept_fd = take_fd(&request->list_fd);
		break;
	default:
		break;
	}
	ret->object = json_pack("{s:b, s:s, s:i, s:b, s:i}", "ok", 1, "command",
				request->command->name, "number", handled.requests, "list",
				request->list_fd >= 0, "uid", (int)request->peer.uid);
}

/* ---- the parts of a test ---- */

static sd_event *event;
static struct control *control;

static const struct control_handler handler = {
	.run = run,
	.next = next_line,
	.end = end_listing,
};

static int open_at(const char *path, const char *group, struct control **ret, struct error *err)
{
	const struct control_groups groups = {.change = getgrnam(group)->gr_gid};

	return control_open(event, path, &groups, &handler, ret, err);
}

static void set_up(void)
{
	struct error err;

	if (geteuid() != 0)
		cr_skip_test("needs root: the socket belongs to it");
	signal(SIGPIPE, SIG_IGN);
	temporary_make();
	chmod(temporary, 0755);
	/* From within: others may not be allowed through the folders above. */
	cr_assert_eq(chdir(temporary), 0);
	cr_assert_geq(sd_event_new(&event), 0);
	cr_assert_eq(open_at(temporary_path("sock"), "daemon", &control, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	cr_assert_eq(chdir("/"), 0);
	control_close(control);
	sd_event_unref(event);
	temporary_remove();
}

TestSuite(control, .init = set_up, .fini = tear_down, .timeout = 120);

/* Turns of the loop until it has nothing to do. */
static void settle(void)
{
	while (sd_event_run(event, 0) > 0)
		;
}

static int try_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "sock");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int connect_client(void)
{
	int fd = try_connect();

	cr_assert_geq(fd, 0, "%s", strerror(-fd));
	settle();
	return fd;
}

static void send_bytes(int fd, const void *bytes, size_t size)
{
	const char *at = bytes;

	while (size) {
		ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

		cr_assert(n > 0 || errno == EAGAIN, "%s", strerror(errno));
		at += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
		settle();
	}
}

static void send_text(int fd, const char *text)
{
	send_bytes(fd, text, strlen(text));
}

/* Text with descriptors. */
static void send_with(int fd, const char *text, const int *fds, size_t n)
{
	union {
		char bytes[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} space = {{0}};
	struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space.bytes,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(header), fds, n * sizeof(int));
	cr_assert_eq(sendmsg(fd, &msg, MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* The next line, without waiting for time to pass; NULL: none. The caller owns it. */
static json_t *receive(int fd)
{
	char *line = malloc(REPLY_MAX_BYTES);
	json_t *object = NULL;
	size_t n = 0;

	while (n < REPLY_MAX_BYTES) {
		ssize_t got = recv(fd, line + n, 1, 0);

		if (got < 0 && errno == EAGAIN && sd_event_run(event, 0) > 0)
			continue;
		if (got <= 0 || line[n] == '\n')
			break;
		n++;
	}
	if (n) {
		object = json_loadb(line, n, 0, NULL);
		cr_assert(object, "not JSON: %.*s", (int)n, line);
	}
	free(line);
	return object;
}

static bool is_closed(int fd)
{
	char byte;
	ssize_t n;

	settle();
	n = recv(fd, &byte, 1, MSG_PEEK);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void expect_answer(int fd, const char *command)
{
	json_t *object = receive(fd);

	cr_assert(object, "no answer to %s", command);
	cr_expect(json_is_true(json_object_get(object, "ok")));
	cr_expect_str_eq(json_string_value(json_object_get(object, "command")), command);
	json_decref(object);
}

static void expect_error(int fd, const char *code, const char *message)
{
	json_t *object = receive(fd), *error = json_object_get(object, "error");
	const char *text = json_string_value(json_object_get(error, "message"));

	cr_assert(text, "no error \"%s\"", message);
	cr_expect(json_is_false(json_object_get(object, "ok")));
	cr_expect_str_eq(json_string_value(json_object_get(error, "code")), code);
	cr_expect(strstr(text, message), "\"%s\" does not say \"%s\"", text, message);
	json_decref(object);
}

/* Behind a first client: with it the event loop opens what it keeps. */
static size_t count_descriptors(void)
{
	size_t n = 0;

	close(connect_client());
	settle();
	for (int fd = 0; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

#define STATUS "{\"command\":\"status\"}\n"
#define FLUSH  "{\"command\":\"flush\"}\n"
#define ADD    "{\"command\":\"add\",\"list\":true}\n"
#define LONG   "{\"command\":\"stats\"}\n"
#define LIST   "{\"command\":\"list\"}\n"
#define LATER  "{\"command\":\"reload\"}\n"
#define KEEP   "{\"command\":\"allow add\",\"list\":true}\n"

/* ---- requests ---- */

Test(control, answers_one_request_after_another)
{
	int fd = connect_client();

	send_text(fd, STATUS);
	expect_answer(fd, "status");
	send_text(fd, FLUSH);
	expect_answer(fd, "flush");
	cr_expect_eq(control_clients(control), 1);
	close(fd);
	settle();
	cr_expect_eq(control_clients(control), 0);
}

Test(control, answers_requests_that_do_not_wait_in_their_order)
{
	const size_t size = strlen(STATUS FLUSH);
	char requests[500 * sizeof(STATUS FLUSH)];
	int fd = connect_client();

	for (size_t i = 0; i < 500; i++)
		snprintf(requests + i * size, size + 1, STATUS FLUSH);
	cr_assert_eq(send(fd, requests, 500 * size, 0), (ssize_t)(500 * size));
	for (int i = 1; i <= 1000; i++) {
		json_t *object = receive(fd);

		cr_assert_eq(json_integer_value(json_object_get(object, "number")), i);
		json_decref(object);
	}
	close(fd);
}

Test(control, takes_a_request_byte_by_byte)
{
	int fd = connect_client();

	for (const char *p = STATUS; *p; p++)
		send_bytes(fd, p, 1);
	expect_answer(fd, "status");
	close(fd);
}

/* A request of so many bytes, newline and all. */
static void send_padded(int fd, size_t size)
{
	char *line = malloc(size + 1);

	snprintf(line, size + 1, "%*s", (int)size, STATUS);
	send_bytes(fd, line, size);
	free(line);
}

Test(control, takes_a_request_of_65536_bytes_and_not_of_65537)
{
	int fd = connect_client();

	send_padded(fd, REQUEST_MAX_BYTES);
	expect_answer(fd, "status");
	send_padded(fd, REQUEST_MAX_BYTES);
	expect_answer(fd, "status");
	send_padded(fd, REQUEST_MAX_BYTES + 1);
	expect_error(fd, ERROR_CODE_INVALID, "longer than 65536 bytes");
	cr_expect(is_closed(fd));
	cr_expect_eq(handled.requests, 2);
	close(fd);
}

Test(control, refuses_a_request_that_ends_without_a_newline)
{
	int fd = connect_client();

	send_text(fd, STATUS "{\"command\":\"flush\"}");
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	expect_answer(fd, "status");
	expect_error(fd, ERROR_CODE_INVALID, "ends without a newline");
	cr_expect(is_closed(fd));
	cr_expect_eq(handled.requests, 1, "it was carried out");
	close(fd);
}

Test(control, answers_a_client_that_sends_no_more)
{
	int fd = connect_client();

	send_text(fd, STATUS FLUSH);
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	expect_answer(fd, "status");
	expect_answer(fd, "flush");
	cr_expect(is_closed(fd));
	close(fd);
}

Test(control, closes_behind_what_is_not_JSON)
{
	static const char binary[] = {'\0', '\xff', '\x80', '\x1b', '[', '\n'};
	static const char *const texts[] = {"\n", "status\n", "{\"command\":\"status\"} x\n",
					    "[1,2\n"};
	int fd = connect_client();

	send_bytes(fd, binary, sizeof(binary));
	expect_error(fd, ERROR_CODE_INVALID, "not JSON");
	cr_expect(is_closed(fd));
	close(fd);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		fd = connect_client();
		send_text(fd, texts[i]);
		expect_error(fd, ERROR_CODE_INVALID, "not JSON");
		cr_expect(is_closed(fd), "%s", texts[i]);
		close(fd);
	}
	cr_expect_eq(handled.requests, 0);
}

Test(control, goes_on_behind_a_request_that_makes_no_sense)
{
	static const char *const texts[] = {
		"[]\n",
		"{}\n",
		"{\"command\":\"reboot\"}\n",
		"{\"command\":\"status\",\"verbose\":true}\n",
		"{\"command\":\"add\",\"prefixes\":[\"10.0.0.300\"]}\n",
	};
	int fd = connect_client();

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		send_text(fd, texts[i]);
		expect_error(fd, ERROR_CODE_INVALID, "");
	}
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	cr_expect_eq(handled.requests, 1);
	close(fd);
}

/* ---- lists by descriptor ---- */

Test(control, hands_a_descriptor_to_the_request_that_it_came_with)
{
	_cleanup_close_ int list = memfd_create("list", 0);
	size_t before = count_descriptors();
	int fd = connect_client();
	json_t *object;

	send_with(fd, ADD, &list, 1);
	object = receive(fd);
	cr_expect(json_is_true(json_object_get(object, "list")));
	json_decref(object);
	send_text(fd, ADD);
	object = receive(fd);
	cr_expect(json_is_false(json_object_get(object, "list")), "the one before had it");
	json_decref(object);
	send_with(fd, FLUSH, &list, 1);
	expect_answer(fd, "flush");
	send_text(fd, ADD);
	object = receive(fd);
	cr_expect(json_is_false(json_object_get(object, "list")), "the one before was given it");
	json_decref(object);
	send_with(fd, "{\"command\":\"add\",\"list\":true,\"ttl\":\"x\"}\n", &list, 1);
	expect_error(fd, ERROR_CODE_INVALID, "");
	send_with(fd, ADD, &list, 1);
	object = receive(fd);
	cr_expect(json_is_true(json_object_get(object, "list")));
	json_decref(object);
	close(fd);
	settle();
	cr_expect_eq(count_descriptors(), before, "a descriptor leaked");
}

Test(control, leaves_a_descriptor_to_the_handler_that_takes_it)
{
	_cleanup_close_ int list = memfd_create("list", 0);
	int fd = connect_client();

	send_with(fd, KEEP, &list, 1);
	expect_answer(fd, "allow add");
	close(fd);
	settle();
	cr_expect_eq(close(handled.kept_fd), 0, "it was closed");
}

/* They arrive together: the kernel joins bytes without and with a descriptor. */
Test(control, a_request_before_it_does_not_take_the_descriptor)
{
	_cleanup_close_ int list = memfd_create("list", 0);
	int fd = connect_client();
	json_t *object;

	cr_assert_gt(send(fd, STATUS, strlen(STATUS), 0), 0);
	send_with(fd, ADD, &list, 1);
	send_with(fd, ADD, &list, 1);
	cr_assert_gt(send(fd, FLUSH, strlen(FLUSH), 0), 0);
	expect_answer(fd, "status");
	for (int i = 0; i < 2; i++) {
		object = receive(fd);
		cr_expect(json_is_true(json_object_get(object, "list")));
		json_decref(object);
	}
	expect_answer(fd, "flush");
	close(fd);
}

Test(control, closes_a_client_that_sends_too_many_descriptors)
{
	_cleanup_close_ int list = memfd_create("list", 0);
	const int twice[] = {list, list};
	size_t before = count_descriptors();
	int fd = connect_client();

	send_with(fd, ADD, twice, 2);
	expect_error(fd, ERROR_CODE_INVALID, "more descriptors");
	cr_expect(is_closed(fd));
	close(fd);
	fd = connect_client();
	send_with(fd, "{\"command\":", &list, 1);
	settle();
	send_with(fd, "\"add\",\"list\":true}\n", &list, 1);
	expect_error(fd, ERROR_CODE_INVALID, "more descriptors");
	cr_expect(is_closed(fd));
	close(fd);
	cr_expect_eq(handled.requests, 0);
	cr_expect_eq(count_descriptors(), before, "a descriptor leaked");
}

/* ---- answers that come later ---- */

static void answer_later(int i, const char *command)
{
	control_answer(handled.askers[i],
		       json_pack("{s:b, s:s, s:i}", "ok", 1, "command", command, "number", i));
	settle();
}

static void expect_number(int fd, int number)
{
	json_t *object = receive(fd);

	cr_assert(object, "no answer");
	cr_expect_eq(json_integer_value(json_object_get(object, "number")), number);
	json_decref(object);
}

Test(control, requests_behind_a_later_answer_wait_for_it)
{
	int fd = connect_client();

	send_text(fd, STATUS LATER FLUSH LATER STATUS);
	expect_answer(fd, "status");
	cr_expect_null(receive(fd));
	cr_expect_eq(handled.requests, 2, "the next one was begun");
	answer_later(0, "reload");
	cr_expect_eq(handled.requests, 4);
	expect_answer(fd, "reload");
	expect_answer(fd, "flush");
	cr_expect_null(receive(fd));
	answer_later(1, "reload");
	expect_answer(fd, "reload");
	expect_answer(fd, "status");
	send_text(fd, FLUSH);
	expect_answer(fd, "flush");
	close(fd);
}

Test(control, a_later_answer_delays_no_other_client)
{
	int waiting = connect_client(), fd = connect_client();

	send_text(waiting, LATER);
	for (int i = 0; i < 100; i++) {
		send_text(fd, STATUS);
		expect_answer(fd, "status");
	}
	cr_expect_eq(control_clients(control), 2);
	answer_later(0, "reload");
	expect_answer(waiting, "reload");
	close(waiting);
	close(fd);
}

Test(control, a_later_answer_may_come_in_the_same_turn)
{
	int fd = connect_client();

	cr_assert_gt(send(fd, LATER, strlen(LATER), 0), 0);
	while (!handled.n_askers)
		cr_assert_gt(sd_event_run(event, 0), 0);
	answer_later(0, "reload");
	expect_answer(fd, "reload");
	close(fd);
}

Test(control, takes_little_while_an_answer_is_awaited)
{
	size_t sent = 0;
	int fd = connect_client();
	ssize_t n;

	send_text(fd, LATER);
	while ((n = send(fd, STATUS, strlen(STATUS), 0)) > 0 && sent < (16u << 20)) {
		sent += (size_t)n;
		settle();
	}
	cr_expect_lt(sent, 4u << 20, "it takes whatever comes");
	cr_expect_eq(handled.requests, 1);
	answer_later(0, "reload");
	expect_answer(fd, "reload");
	expect_answer(fd, "status");
	close(fd);
}

Test(control, a_hang_up_before_a_later_answer_leaves_nothing)
{
	size_t before = count_descriptors();
	int fd = connect_client();

	send_text(fd, LATER STATUS);
	close(fd);
	settle();
	cr_expect_eq(control_clients(control), 0);
	cr_expect_eq(count_descriptors(), before);
	cr_expect_eq(handled.requests, 1, "what was behind it was carried out");
	answer_later(0, "reload");
	/* Here it is gone before the loop looks for the first time. */
	fd = connect_client();
	cr_assert_gt(send(fd, LATER, strlen(LATER), 0), 0);
	close(fd);
	settle();
	cr_expect_eq(handled.n_askers, 2);
	cr_expect_eq(control_clients(control), 0);
	control_answer(handled.askers[1], NULL);
	cr_expect_eq(count_descriptors(), before);
}

Test(control, a_client_that_sends_no_more_gets_its_later_answer)
{
	int fd = connect_client();

	send_text(fd, LATER);
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	settle();
	cr_expect_eq(control_clients(control), 1);
	answer_later(0, "reload");
	expect_answer(fd, "reload");
	cr_expect(is_closed(fd));
	close(fd);
}

Test(control, without_memory_for_a_later_answer_closes)
{
	int fd = connect_client();

	send_text(fd, LATER);
	control_answer(handled.askers[0], NULL);
	cr_expect(is_closed(fd));
	cr_expect_eq(control_clients(control), 0);
	close(fd);
}

Test(control, sends_what_was_answered_before_it_closes)
{
	int fd = connect_client(), behind = connect_client();

	send_text(fd, LATER);
	send_text(behind, LATER);
	settle();
	control_answer(handled.askers[0], json_pack("{s:b, s:s}", "ok", 1, "command", "reload"));
	cr_assert_eq(sd_event_exit(event, 0), 0);
	cr_assert_geq(sd_event_loop(event), 0);
	control_answer(handled.askers[1], json_pack("{s:b, s:s}", "ok", 1, "command", "reload"));
	control_close(take_pointer(&control));
	expect_answer(fd, "reload");
	expect_answer(behind, "reload");
	close(fd);
	close(behind);
}

Test(control, closes_with_answers_still_to_come)
{
	int here = connect_client(), gone = connect_client();

	send_text(here, LATER);
	send_text(gone, LATER);
	close(gone);
	settle();
	control_close(take_pointer(&control));
	cr_expect(is_closed(here));
	close(here);
}

Test(control, a_thousand_later_answers_come_in_any_order)
{
	const struct rlimit limit = {4096, 4096};
	int fds[1000];

	hurry = 1;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < 1000; i++) {
		fds[i] = connect_client();
		send_text(fds[i], LATER);
	}
	/* Every third has gone; the last one asked is answered first. */
	for (int i = 0; i < 1000; i += 3)
		close(fds[i]);
	settle();
	cr_expect_eq(control_clients(control), 666);
	for (int i = 999; i >= 0; i--)
		answer_later(i, "reload");
	for (int i = 0; i < 1000; i++) {
		if (i % 3 == 0)
			continue;
		expect_number(fds[i], i);
		close(fds[i]);
	}
	settle();
	cr_expect_eq(control_clients(control), 0);
}

Test(control, who_has_gone_takes_a_place_until_the_answer)
{
	int fd;

	for (int i = 0; i < CLIENTS_MAX; i++) {
		fd = connect_client();
		send_text(fd, LATER);
		close(fd);
		settle();
	}
	cr_expect_eq(handled.n_askers, CLIENTS_MAX);
	cr_expect_eq(control_clients(control), 0);
	fd = connect_client();
	expect_error(fd, ERROR_CODE_BUSY, "too many connections");
	close(fd);
	answer_later(7, "reload");
	fd = connect_client();
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	close(fd);
}

/* ---- several clients ---- */

Test(control, a_client_that_does_not_read_delays_nobody)
{
	int slow = connect_client(), fd = connect_client();
	size_t sent = 0;
	ssize_t n;

	/* It asks for ever; at some point the daemon no longer takes it (C2). */
	while ((n = send(slow, LONG, strlen(LONG), 0)) > 0 && sent < (16u << 20)) {
		sent += (size_t)n;
		settle();
	}
	cr_expect_lt(sent, 4u << 20, "it takes whatever comes");
	cr_expect_leq(handled.requests, 2, "it answers what is not read");
	for (int i = 0; i < 100; i++) {
		send_text(fd, STATUS);
		expect_answer(fd, "status");
	}
	close(slow);
	settle();
	cr_expect_eq(control_clients(control), 1);
	close(fd);
}

/* Connections that each hold an answer which nobody reads. Returns how many there are. */
static size_t fill_with_answers(int *fds, size_t n)
{
	char peeked[64];

	for (size_t i = 0; i < n; i++) {
		fds[i] = connect_client();
		send_text(fds[i], LONG);
		cr_assert_gt(recv(fds[i], peeked, sizeof(peeked), MSG_PEEK), 0);
		if (memmem(peeked, sizeof(peeked), "\"ok\":false", 10))
			return i;
	}
	return n;
}

Test(control, refuses_long_answers_while_others_do_not_read_theirs)
{
	int fds[32], fd, lister;
	size_t n;

	hurry = 1;
	fd = connect_client();
	lister = connect_client();
	n = fill_with_answers(fds, ARRAY_SIZE(fds));
	cr_assert_lt(n, ARRAY_SIZE(fds), "none is refused");
	cr_expect_eq(n, REPLIES_MAX_BYTES / LONG_TEXT, "%zu answers are held", n);
	expect_error(fds[n], ERROR_CODE_BUSY, "too many long answers");
	cr_expect(is_closed(fds[n]));
	for (int i = 0; i < 100; i++) {
		send_text(fd, STATUS);
		expect_answer(fd, "status");
	}
	/* Its lines are short. */
	send_text(lister, LIST);
	expect_answer(lister, "list");
	close(fds[0]);
	settle();
	send_text(fd, LONG);
	json_decref(receive(fd));
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	for (size_t i = 1; i <= n; i++)
		close(fds[i]);
	close(fd);
	close(lister);
}

Test(control, a_long_listing_delays_nobody)
{
	int lister = connect_client(), fd = connect_client();

	cr_assert_gt(send(lister, LIST, strlen(LIST), 0), 0);
	while (!handled.listings)
		cr_assert_gt(sd_event_run(event, 0), 0);
	cr_assert_gt(send(fd, STATUS, strlen(STATUS), 0), 0);
	while (handled.requests < 2)
		cr_assert_gt(sd_event_run(event, 0), 0);
	cr_expect_lt(handled.next_lines, 10, "%d lines came before", handled.next_lines);
	expect_answer(fd, "status");
	expect_answer(lister, "list");
	for (int i = 1; i <= LISTING_LINES; i++) {
		json_t *object = receive(lister);

		cr_assert_eq(json_integer_value(json_object_get(object, "line")), i);
		json_decref(object);
	}
	cr_expect_eq(handled.listings, 0);
	send_text(lister, STATUS);
	expect_answer(lister, "status");
	close(lister);
	close(fd);
}

Test(control, a_client_that_vanishes_leaves_nothing)
{
	size_t before = count_descriptors();
	int fd;

	for (int i = 0; i < 300; i++) {
		fd = connect_client();
		send_text(fd, i % 3 == 0 ? LIST : i % 3 == 1 ? "{\"comm" : LONG);
		close(fd);
	}
	settle();
	cr_expect_eq(control_clients(control), 0);
	cr_expect_eq(handled.listings, 0);
	cr_expect_eq(count_descriptors(), before);
}

Test(control, one_client_more_than_1024_is_told_to_try_again)
{
	const struct rlimit limit = {4096, 4096};
	int fds[CLIENTS_MAX], fd;

	hurry = 1;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < CLIENTS_MAX; i++)
		fds[i] = connect_client();
	send_text(fds[CLIENTS_MAX - 1], STATUS);
	expect_answer(fds[CLIENTS_MAX - 1], "status");
	fd = connect_client();
	expect_error(fd, ERROR_CODE_BUSY, "too many connections");
	cr_expect(is_closed(fd));
	close(fd);
	close(fds[7]);
	settle();
	fds[7] = connect_client();
	send_text(fds[7], STATUS);
	expect_answer(fds[7], "status");
	for (int i = 0; i < CLIENTS_MAX; i++)
		close(fds[i]);
}

Test(control, without_descriptors_a_client_is_told_to_try_again)
{
	struct rlimit limit = {0, 4096};
	int fd = try_connect();

	limit.rlim_cur = (rlim_t)fd + 1;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	expect_error(fd, ERROR_CODE_BUSY, "too many open files");
	close(fd);
	limit.rlim_cur = 4096;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	fd = connect_client();
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	close(fd);
}

/* ---- time-outs ---- */

#define REQUEST_TIMEOUT_MS (REQUEST_TIMEOUT_S * 1000 / HURRY)

static void pass_ms(int ms)
{
	for (; ms > 0; ms -= 10) {
		settle();
		usleep(10000);
	}
	settle();
}

Test(control, closes_a_client_that_says_nothing)
{
	int fd = connect_client();

	pass_ms(REQUEST_TIMEOUT_MS / 2);
	cr_expect_eq(control_clients(control), 1);
	pass_ms(REQUEST_TIMEOUT_MS);
	cr_expect_eq(control_clients(control), 0);
	cr_expect(is_closed(fd));
	close(fd);
}

Test(control, closes_a_client_whose_request_never_ends)
{
	int fd = connect_client();

	for (int i = 0; i < 30 && control_clients(control); i++) {
		send(fd, " ", 1, MSG_NOSIGNAL);
		pass_ms(REQUEST_TIMEOUT_MS / 10);
	}
	cr_expect_eq(control_clients(control), 0);
	close(fd);
}

Test(control, keeps_a_client_that_asks_again_in_time)
{
	int fd = connect_client();

	for (int i = 0; i < 5; i++) {
		pass_ms(REQUEST_TIMEOUT_MS / 2);
		send_text(fd, STATUS);
		expect_answer(fd, "status");
	}
	close(fd);
}

Test(control, closes_a_client_that_does_not_take_its_answer)
{
	int fd = connect_client();

	send_text(fd, LONG);
	pass_ms(REQUEST_TIMEOUT_MS / 2);
	cr_expect_eq(control_clients(control), 1);
	pass_ms(REPLY_TIMEOUT_S * 1000 / HURRY);
	cr_expect_eq(control_clients(control), 0);
	close(fd);
}

Test(control, has_no_time_out_while_an_answer_is_awaited)
{
	int fd = connect_client();

	send_text(fd, LATER LONG);
	pass_ms(2 * REQUEST_TIMEOUT_MS);
	cr_expect_eq(control_clients(control), 1);
	answer_later(0, "reload");
	expect_answer(fd, "reload");
	/* From then on it has one again. */
	pass_ms(2 * REPLY_TIMEOUT_S * 1000 / HURRY);
	cr_expect_eq(control_clients(control), 0);
	close(fd);
}

Test(control, closes_a_client_that_says_nothing_behind_a_later_answer)
{
	int fd = connect_client();

	send_text(fd, LATER);
	answer_later(0, "reload");
	expect_answer(fd, "reload");
	pass_ms(REQUEST_TIMEOUT_MS / 2);
	cr_expect_eq(control_clients(control), 1);
	pass_ms(REQUEST_TIMEOUT_MS);
	cr_expect_eq(control_clients(control), 0);
	close(fd);
}

/* ---- who may ---- */

static int connect_as(uid_t uid, gid_t gid, gid_t supplementary)
{
	int fd;

	cr_assert_eq(setgroups(1, &supplementary), 0);
	cr_assert_eq(setegid(gid), 0);
	cr_assert_eq(seteuid(uid), 0);
	fd = try_connect();
	cr_assert_eq(seteuid(0), 0);
	cr_assert_eq(setegid(0), 0);
	cr_assert_eq(setgroups(0, NULL), 0);
	return fd;
}

static mode_t mode_of_socket(void)
{
	struct stat st;

	cr_assert_eq(stat(temporary_path("sock"), &st), 0);
	return st.st_mode & 07777;
}

Test(control, lets_in_root_and_the_group_and_nobody_else)
{
	gid_t group = getgrnam("daemon")->gr_gid;
	int fd = connect_as(65534, group, 65534);

	cr_expect_eq(mode_of_socket(), 0660);
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	close(fd);
	fd = connect_as(65534, 65534, group);
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	close(fd);
	cr_expect_eq(connect_as(65534, 65534, 65534), -EACCES);
	/* What the kernel says counts, whatever became of the mode (C3). */
	cr_assert_eq(chmod(temporary_path("sock"), 0666), 0);
	fd = connect_as(65534, 65534, 65534);
	settle();
	expect_error(fd, ERROR_CODE_NOT_PERMITTED, "be root or a member");
	cr_expect(is_closed(fd));
	cr_expect_eq(handled.requests, 2);
	close(fd);
}

#define LOOKERS "games" /* a group that Debian always has */

static void open_with_lookers(const char *group)
{
	const struct control_groups groups = {
		.change = group ? getgrnam(group)->gr_gid : 0,
		.look = getgrnam(LOOKERS)->gr_gid,
		.look_name = LOOKERS,
	};
	struct error err;

	control_close(control);
	cr_assert_eq(control_open(event, temporary_path("sock"), &groups, &handler, &control, &err),
		     0, "%s", err.text);
	cr_expect_eq(mode_of_socket(), 0660, "of which the group's part is the list's mask");
}

/* What the daemon would take: a value for each argument that a command must have. */
static json_t *request_of(const struct command *command)
{
	static const char *const values[] = {
		[ARG_PREFIX] = "10.0.0.1", [ARG_ADDRESS] = "10.0.0.1", [ARG_FEED] = "drop",
		[ARG_PORTS] = "tcp/80",	   [ARG_INTERFACE] = "eth0",
	};
	json_t *request = json_pack("{s:s}", "command", command->name);

	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		json_t *value = NULL;

		if (arg->type == ARG_LIST)
			value = json_true();
		else if (arg->required)
			value = json_string(values[arg->type]);
		if (value)
			json_object_set_new(request, arg->field, value);
	}
	return request;
}

/* Whether the handler saw it; where not, the answer has said why. */
static bool is_handled(gid_t group, const struct command *command)
{
	int fd = connect_as(65534, 65534, group), before = handled.requests;
	json_t *request = request_of(command);
	char *text = json_dumps(request, JSON_COMPACT), said[256];
	const struct command *read;
	struct error err;

	cr_assert_eq(command_from_request(request, &read, &err), 0, "%s", err.text);
	send_text(fd, text);
	send_text(fd, "\n");
	if (handled.requests == before) {
		snprintf(said, sizeof(said),
			 "not permitted: \"%s\" changes rules; members of \"" LOOKERS
			 "\" may only look",
			 command->name);
		expect_error(fd, ERROR_CODE_NOT_PERMITTED, said);
	}
	json_decref(request);
	free(text);
	close(fd);
	return handled.requests == before + 1;
}

Test(control, each_command_asks_for_its_privilege)
{
	open_with_lookers("daemon");
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		bool looks = commands[i].privilege == PRIVILEGE_LOOK;

		if (commands[i].local)
			continue;
		cr_expect(is_handled(getgrnam("daemon")->gr_gid, &commands[i]), "%s",
			  commands[i].name);
		cr_expect_eq(is_handled(getgrnam(LOOKERS)->gr_gid, &commands[i]), looks, "%s",
			     commands[i].name);
	}
	cr_expect_eq(connect_as(65534, 65534, 65534), -EACCES);
}

Test(control, who_is_in_both_groups_may_change)
{
	open_with_lookers("daemon");
	int fd = connect_as(65534, getgrnam(LOOKERS)->gr_gid, getgrnam("daemon")->gr_gid);

	send_text(fd, FLUSH);
	expect_answer(fd, "flush");
	close(fd);
}

Test(control, a_refused_request_takes_its_descriptor_with_it)
{
	int null = open("/dev/null", O_RDONLY), fd;
	json_t *answer;

	open_with_lookers("daemon");
	fd = connect_as(65534, 65534, getgrnam(LOOKERS)->gr_gid);
	send_with(fd, ADD STATUS, &null, 1);
	settle();
	expect_error(fd, ERROR_CODE_NOT_PERMITTED, "\"add\"");
	answer = receive(fd);
	cr_expect(json_is_true(json_object_get(answer, "ok")), "the connection goes on");
	cr_expect(json_is_false(json_object_get(answer, "list")));
	json_decref(answer);
	close(null);
	close(fd);
}

Test(control, without_a_group_others_may_still_look)
{
	int fd;

	open_with_lookers(NULL);
	fd = connect_as(65534, 65534, getgrnam(LOOKERS)->gr_gid);
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	close(fd);
	cr_expect_eq(connect_as(65534, 0, 0), -EACCES, "root's group is no group of the socket");
}

Test(control, without_access_control_lists_says_so)
{
	const struct control_groups groups = {.look = 5, .look_name = LOOKERS};
	struct control *other = NULL;
	struct error err;

	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		cr_skip_test("needs a mount namespace: %s", strerror(errno));
	cr_assert_eq(mkdir("ram", 0755), 0);
	cr_assert_eq(mount("ram", "ram", "ramfs", 0, NULL), 0, "%s", strerror(errno));
	cr_expect_eq(control_open(event, "ram/sock", &groups, &handler, &other, &err), -EOPNOTSUPP);
	cr_expect(strstr(err.text, "\"" LOOKERS "\"") && strstr(err.text, "read_group"), "%s",
		  err.text);
	cr_expect_eq(access("ram/sock", F_OK), -1);
	umount("ram");
	rmdir("ram");
}

Test(control, without_a_group_it_lets_in_root_alone)
{
	const struct control_groups nobody = {0};
	struct error err;
	int fd;

	control_close(control);
	cr_assert_eq(control_open(event, temporary_path("sock"), &nobody, &handler, &control, &err),
		     0, "%s", err.text);
	cr_expect_eq(mode_of_socket(), 0600);
	cr_assert_eq(chmod(temporary_path("sock"), 0666), 0);
	fd = connect_as(65534, 0, 0);
	settle();
	expect_error(fd, ERROR_CODE_NOT_PERMITTED, "be root");
	close(fd);
}

/* ---- the socket ---- */

Test(control, does_not_take_a_socket_that_is_served)
{
	struct control *second = NULL;
	struct error err = {""};

	cr_expect_eq(open_at(temporary_path("sock"), "daemon", &second, &err), -EADDRINUSE);
	cr_expect(strstr(err.text, "another fwd serves"), "%s", err.text);
	cr_expect_null(second);
	send_text(connect_client(), STATUS);
	cr_expect_eq(handled.requests, 1);
}

Test(control, replaces_a_socket_that_nobody_serves)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct error err;

	control_close(control);
	cr_expect(access(temporary_path("sock"), F_OK) < 0, "it stays behind");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", temporary_path("sock"));
	cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	cr_assert_eq(open_at(temporary_path("sock"), "daemon", &control, &err), 0, "%s", err.text);
	fd = connect_client();
	send_text(fd, STATUS);
	expect_answer(fd, "status");
	close(fd);
}

Test(control, refuses_a_path_that_is_no_socket)
{
	struct control *second = NULL;
	char path[200];
	struct error err;

	temporary_write("file", "text", 4);
	cr_expect_eq(open_at(temporary_path("file"), "daemon", &second, &err), -EEXIST);
	cr_expect_eq(access(temporary_path("file"), F_OK), 0, "it was removed");
	snprintf(path, sizeof(path), "%s/%0108d", temporary, 0);
	cr_expect_eq(open_at(path, "daemon", &second, &err), -ENAMETOOLONG);
	cr_expect_lt(open_at("/nonexistent/a/sock", "daemon", &second, &err), 0);
	cr_expect_null(second);
}

Test(control, does_not_remove_the_socket_of_another_daemon)
{
	struct control *second = NULL;
	struct error err;

	cr_assert_eq(unlink(temporary_path("sock")), 0);
	cr_assert_eq(open_at(temporary_path("sock"), "daemon", &second, &err), 0, "%s", err.text);
	control_close(take_pointer(&control));
	cr_expect_eq(access(temporary_path("sock"), F_OK), 0);
	control = second;
}
