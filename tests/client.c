// SPDX-License-Identifier: GPL-2.0-or-later
#include "client.h"

#include "address_list.h"
#include "protocol.h"
#include "types.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* A daemon in a child process: accepts one client, reads a line, sends `answer` in pieces, closes.
 */
struct daemon {
	char directory[32], path[64];
	pid_t pid;
};

static _Noreturn void serve(int listener, const char *answer, size_t size, size_t piece)
{
	int fd = accept(listener, NULL, NULL);
	char c = 0;

	while (c != '\n' && read(fd, &c, 1) == 1)
		;
	while (size) {
		ssize_t n = send(fd, answer, size < piece ? size : piece, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		answer += n;
		size -= (size_t)n;
		if (size)
			usleep(2000); /* or the pieces would arrive as one */
	}
	_exit(0);
}

static struct daemon start_piecewise(const char *answer, size_t size, size_t piece)
{
	struct daemon d = {.directory = "/tmp/client-XXXXXX"};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert(mkdtemp(d.directory));
	snprintf(d.path, sizeof(d.path), "%s/sock", d.directory);
	strcpy(addr.sun_path, d.path);
	cr_assert_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	d.pid = fork();
	if (!d.pid)
		serve(listener, answer, size, piece);
	close(listener);
	return d;
}

static struct daemon start(const char *answer, size_t size)
{
	return start_piecewise(answer, size, size);
}

static void stop(struct daemon *d)
{
	waitpid(d->pid, NULL, 0);
	unlink(d->path);
	rmdir(d->directory);
}

static struct client *ask(const struct daemon *d)
{
	json_auto_t *request = json_pack("{s:s}", "command", "status");
	struct client *client;
	struct error err;

	cr_assert_eq(client_connect(d->path, &client, &err), 0, "%s", err.text);
	cr_assert_eq(client_send(client, request, -1, &err), 0, "%s", err.text);
	return client;
}

Test(client, takes_answers_line_by_line)
{
	static const char answers[] = "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n{\"a\": 4";
	struct daemon d = start(answers, sizeof(answers) - 1);
	_cleanup_(client_closep) struct client *client = ask(&d);
	struct error err;
	json_t *untouched = NULL;

	for (int i = 1; i <= 3; i++) {
		json_auto_t *answer = NULL;

		cr_assert_eq(client_receive(client, &answer, &err), 0);
		cr_expect_eq(json_integer_value(json_object_get(answer, "a")), i);
	}
	cr_expect_eq(client_receive(client, &untouched, &err), -ECONNRESET);
	cr_expect_str_eq(err.text, "the daemon closed the connection before its answer was whole");
	cr_expect_null(untouched);
	stop(&d);
}

Test(client, takes_answers_that_arrive_byte_by_byte)
{
	static const char answers[] = "{}\n{\"a\": 2}\n{}\n";
	struct daemon d = start_piecewise(answers, sizeof(answers) - 1, 1);
	_cleanup_(client_closep) struct client *client = ask(&d);
	struct error err;

	for (int i = 1; i <= 3; i++) {
		json_auto_t *answer = NULL;

		cr_assert_eq(client_receive(client, &answer, &err), 0, "%s", err.text);
		cr_expect_eq(json_object_size(answer), i == 2);
	}
	stop(&d);
}

/* A first answer and the start of the second, then the rest of it. */
Test(client, takes_an_answer_whose_end_comes_later)
{
	static const char answers[] = "{\"a\": 1}\n{\"a\": 2}\n";
	struct daemon d = start_piecewise(answers, sizeof(answers) - 1, sizeof(answers) - 3);
	_cleanup_(client_closep) struct client *client = NULL;
	struct error err;

	client = ask(&d);
	for (int i = 1; i <= 2; i++) {
		json_auto_t *answer = NULL;

		cr_assert_eq(client_receive(client, &answer, &err), 0, "%s", err.text);
		cr_expect_eq(json_integer_value(json_object_get(answer, "a")), i);
	}
	stop(&d);
}

/* An answer whose line has `size` bytes, newline and all, behind a short one. */
static int receive_second(size_t size, struct error *err)
{
	static const char first[] = "{\"a\": 1}\n";
	_cleanup_free_ char *text = malloc(size + sizeof(first));
	json_auto_t *one = NULL, *two = NULL;
	_cleanup_(client_closep) struct client *client = NULL;
	struct daemon d;
	int r;

	memset(text, ' ', size + sizeof(first));
	memcpy(text, first, sizeof(first) - 1);
	memcpy(text + sizeof(first) - 1, "{}", 2);
	text[sizeof(first) - 1 + size - 1] = '\n';
	d = start(text, sizeof(first) - 1 + size);
	client = ask(&d);
	cr_assert_eq(client_receive(client, &one, err), 0);
	r = client_receive(client, &two, err);
	client_close(take_pointer(&client));
	stop(&d);
	return r;
}

Test(client, takes_an_answer_of_the_largest_size_and_not_a_byte_more)
{
	struct error err;

	cr_expect_eq(receive_second(REPLY_MAX_BYTES, &err), 0);
	cr_expect_eq(receive_second(REPLY_MAX_BYTES + 1, &err), -EPROTO);
	cr_expect_str_eq(err.text, "the answer has a line over 1048576 bytes");
}

Test(client, sends_a_request_of_the_largest_size_and_not_a_byte_more)
{
	/* {"x":"..."} and a newline */
	size_t room = REQUEST_MAX_BYTES - sizeof("{\"x\":\"\"}\n") + 1;
	_cleanup_free_ char *text = malloc(room + 2);
	struct daemon d = start("{}\n", 3);
	_cleanup_(client_closep) struct client *client = NULL;
	json_auto_t *fits = NULL, *larger = NULL, *answer = NULL;
	struct error err;

	memset(text, 'x', room + 1);
	text[room + 1] = '\0';
	larger = json_pack("{s:s}", "x", text);
	text[room] = '\0';
	fits = json_pack("{s:s}", "x", text);
	cr_assert_eq(client_connect(d.path, &client, &err), 0);
	cr_expect_eq(client_send(client, larger, -1, &err), -EINVAL);
	cr_expect(strstr(err.text, "longer than 65536 bytes"));
	cr_expect_eq(client_send(client, fits, -1, &err), 0);
	cr_expect_eq(client_receive(client, &answer, &err), 0);
	stop(&d);
}

Test(client, tells_no_daemon_from_no_permission)
{
	struct client *client = NULL;
	char path[110];
	struct error err;

	cr_expect_eq(client_connect("/nonexistent/x", &client, &err), -ECONNREFUSED);
	cr_expect(strstr(err.text, "no daemon answers at /nonexistent/x"));
	cr_expect_eq(client_connect("/dev/null", &client, &err), -ECONNREFUSED);
	cr_expect_eq(client_connect("", &client, &err), -EINVAL);
	memset(path, 'x', sizeof(path));
	path[108] = '\0';
	cr_expect_eq(client_connect(path, &client, &err), -EINVAL);
	path[107] = '\0';
	cr_expect_eq(client_connect(path, &client, &err), -ECONNREFUSED);
	cr_expect_null(client);
}

static int list_of(const char *path, off_t size, int *ret_fd, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_eq(ftruncate(fd, size), 0);
	close(fd);
	return client_list_file(path, ret_fd, err);
}

Test(client, copies_a_list_into_a_sealed_file)
{
	char path[] = "/tmp/client_list-XXXXXX";
	_cleanup_close_ int file = mkstemp(path), copy = -1;
	char text[32] = "";
	struct error err;

	cr_assert_eq(write(file, "10.0.0.1\n", 9), 9);
	cr_assert_eq(client_list_file(path, &copy, &err), 0);
	cr_expect_eq(fcntl(copy, F_GET_SEALS),
		     F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	cr_expect_eq(read(copy, text, sizeof(text)), 9);
	cr_expect_str_eq(text, "10.0.0.1\n");
	cr_expect_lt(write(copy, "x", 1), 0);
	unlink(path);
}

Test(client, copies_a_list_of_the_largest_size_and_not_a_byte_more)
{
	char path[] = "/tmp/client_list-XXXXXX";
	_cleanup_close_ int file = mkstemp(path), copy = -1;
	struct error err;

	cr_assert_geq(file, 0);
	cr_expect_eq(list_of(path, ADDRESS_LIST_MAX_BYTES + 1L, &copy, &err), -EFBIG);
	cr_expect_eq(list_of(path, ADDRESS_LIST_MAX_BYTES, &copy, &err), 0);
	unlink(path);
}

Test(client, counts_what_comes_from_a_pipe)
{
	static char chunk[1 << 20];
	_cleanup_close_ int copy = -1;
	int ends[2], status;
	struct error err;
	pid_t pid;

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		close(ends[0]);
		signal(SIGPIPE, SIG_DFL);
		while (write(ends[1], chunk, sizeof(chunk)) > 0)
			;
		_exit(0);
	}
	close(ends[1]);
	dup2(ends[0], STDIN_FILENO);
	close(ends[0]);
	cr_expect_eq(client_list_file("-", &copy, &err), -EFBIG);
	cr_expect_str_eq(err.text,
			 "standard input is too large: the largest list is 268435456 bytes");
	close(STDIN_FILENO);
	waitpid(pid, &status, 0);
}

Test(client, refuses_a_list_that_is_none)
{
	int copy = -1;
	struct error err;

	cr_expect_eq(client_list_file("/nonexistent", &copy, &err), -ENOENT);
	cr_expect_eq(client_list_file("/", &copy, &err), -EISDIR);
	cr_expect_str_eq(err.text, "cannot read /: it is a directory");
	cr_expect_eq(copy, -1);
}
