// SPDX-License-Identifier: GPL-2.0-or-later
/* fwctl: a command line in, a request to the daemon, its answer as a table or JSON out. */
#include "client.h"
#include "command.h"
#include "doctor.h"
#include "help.h"
#include "print.h"
#include "progress.h"
#include "protocol.h"
#include "ssh_client.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* fwctl(8) tells them; scripts rely on the numbers. */
enum exit_status {
	STATUS_DONE = 0,
	STATUS_FAILED = 1, /* also: answer_is_negative() */
	STATUS_USAGE = 2,  /* nothing was sent */
	STATUS_NO_DAEMON = 3,
	STATUS_NOT_PERMITTED = 4,
};

/* "code" of errors that are found here, as docs/protocol.md has those of the daemon. */
static const char *const status_codes[] = {
	[STATUS_FAILED] = ERROR_CODE_FAILED,
	[STATUS_USAGE] = "usage",
	[STATUS_NO_DAEMON] = "no-daemon",
	[STATUS_NOT_PERMITTED] = ERROR_CODE_NOT_PERMITTED,
};

static enum exit_status status_of(int r)
{
	switch (r) {
	case -EINVAL:
		return STATUS_USAGE;
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -ETIMEDOUT:
		return STATUS_NO_DAEMON;
	case -EACCES:
		return STATUS_NOT_PERMITTED;
	default:
		return STATUS_FAILED;
	}
}

/* A failure on this side of the socket. */
static enum exit_status fail(struct output *output, enum exit_status status,
			     const struct error *err)
{
	json_auto_t *error =
		json_pack("{s:s, s:s}", "code", status_codes[status], "message", err->text);

	output_error(output, error);
	fflush(stdout);
	fprintf(stderr, "fwctl: %s\n", err->text);
	return status;
}

/* The daemon knows the lines of a list, and not its name: "line 17: " becomes "drop.txt:17: ". */
static void name_the_list(const char *path, const char *message, struct error *text)
{
	const char *number = message + strlen("line ");
	size_t digits;

	error_set(text, 0, "%s", message);
	if (!path || strncmp(message, "line ", strlen("line ")) != 0)
		return;
	digits = strspn(number, "0123456789");
	if (digits && !strncmp(number + digits, ": ", 2))
		error_set(text, 0, "%s:%s", strcmp(path, "-") ? path : "standard input", number);
}

/* A failure that the daemon reports. */
static enum exit_status refused(const struct invocation *in, struct output *output,
				const json_t *error)
{
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	const json_t *item;
	struct error text;
	size_t i;

	if (!code || !message) {
		error_set(&text, 0, "the daemon refused it and did not say why");
		return fail(output, STATUS_FAILED, &text);
	}
	output_error(output, error);
	fflush(stdout);
	name_the_list(in->list_path, message, &text);
	fprintf(stderr, "fwctl: %s\n", text.text);
	json_array_foreach (json_object_get(error, "errors"), i, item) {
		error_set(&text, 0, "%s", json_is_string(item) ? json_string_value(item) : "?");
		fprintf(stderr, "%s\n", text.text);
	}
	return strcmp(code, ERROR_CODE_NOT_PERMITTED) ? STATUS_FAILED : STATUS_NOT_PERMITTED;
}

/* Prints the answer, which may come in pieces, as it arrives. */
static enum exit_status receive(struct client *client, const struct invocation *in,
				struct output *output, struct progress *progress)
{
	for (;;) {
		json_auto_t *answer = NULL;
		struct error err;
		bool last;
		int r = client_receive(client, &answer, &err);

		progress_erase(progress);
		if (!r && !json_is_boolean(json_object_get(answer, "ok")))
			r = error_set(&err, -EPROTO, "the answer has no \"ok\", true or false");
		if (r < 0)
			return fail(output, status_of(r), &err);
		if (json_is_false(json_object_get(answer, "ok")))
			return refused(in, output, json_object_get(answer, "error"));
		last = !json_is_true(json_object_get(answer, "more"));
		r = output_answer(output, answer, last, &err);
		if (r < 0)
			return fail(output, status_of(r), &err);
		if (fflush(stdout))
			return STATUS_FAILED; /* close_output() tells */
		if (last)
			return answer_is_negative(output->command, answer) ? STATUS_FAILED
									   : STATUS_DONE;
	}
}

/* What the daemon is to know without being told on the command line. */
static void add_unasked(const struct invocation *in)
{
	char text[PREFIX_TEXT_MAX];
	struct prefix address;

	if (!command_find_field(in->command, "ssh_client") || !ssh_client_find(&address))
		return;
	prefix_format(&address, text);
	json_object_set_new(in->request, "ssh_client", json_string(text));
}

static enum exit_status run(const struct invocation *in, struct output *output)
{
	const char *socket_path = in->socket_path ? in->socket_path : SOCKET_DEFAULT_PATH;
	_cleanup_(client_closep) struct client *client = NULL;
	_cleanup_close_ int list_fd = -1;
	struct progress progress;
	struct error err;
	int r;

	add_unasked(in);
	/* Before the daemon waits for the request: standard input may take its time. */
	if (in->list_path) {
		r = client_list_file(in->list_path, &list_fd, &err);
		if (r < 0)
			return fail(output, r == -ENOMEM ? STATUS_FAILED : STATUS_USAGE, &err);
	}
	r = client_connect(socket_path, &client, &err);
	if (!r)
		r = client_send(client, in->request, list_fd, &err);
	if (r < 0)
		return fail(output, status_of(r), &err);
	progress = (struct progress){.command = in->command->name, .list_fd = list_fd};
	if (in->list_path && !in->json && isatty(STDERR_FILENO))
		client_on_wait(client, progress_show, &progress);
	return receive(client, in, output, &progress);
}

/* A command that needs no daemon; there is one. */
static enum exit_status run_here(const struct invocation *in, struct output *output)
{
	json_auto_t *answer = NULL;
	struct error err;
	int r = doctor_examine(in->socket_path ? in->socket_path : SOCKET_DEFAULT_PATH, &answer,
			       &err);

	if (!r)
		r = output_answer(output, answer, true, &err);
	if (r < 0)
		return fail(output, STATUS_FAILED, &err);
	return answer_is_negative(output->command, answer) ? STATUS_FAILED : STATUS_DONE;
}

/* Bad usage is found before the options are all read; a program that asked for JSON gets it. */
static bool asks_for_json(int argc, char *const argv[])
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (!strcmp(argv[i], "--json"))
			return true;
	return false;
}

/*
 * Standard descriptors that the caller closed are opened for what they are not used for, so that no
 * socket gets their number, and reading or writing them is an error.
 */
static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
			_exit(STATUS_FAILED);
}

/* The last word on success: all of the output was written. */
static enum exit_status close_output(enum exit_status status)
{
	bool failed = ferror(stdout);

	errno = 0;
	if (!fclose(stdout) && !failed)
		return status;
	fprintf(stderr, "fwctl: cannot write standard output%s%s\n", errno ? ": " : "",
		errno ? error_name(errno) : "");
	return status ? status : STATUS_FAILED;
}

int main(int argc, char *argv[])
{
	struct output output = {0};
	enum exit_status status = STATUS_DONE;
	struct invocation in;
	struct error err;
	int r;

	signal(SIGPIPE, SIG_DFL); /* `fwctl list | head` ends quietly, whoever started it */
	fill_standard_descriptors();
	r = command_from_argv(argc - 1, argv + 1, &in, &err);
	if (r < 0) {
		output.json = asks_for_json(argc, argv);
		status = fail(&output, r == -EINVAL ? STATUS_USAGE : STATUS_FAILED, &err);
	} else if (in.version) {
		puts("fwctl " FWD_VERSION);
	} else if (in.help) {
		help_print(&in);
	} else {
		output.command = command_index(in.command);
		output.request = in.request;
		output.json = in.json;
		status = in.command->local ? run_here(&in, &output) : run(&in, &output);
	}
	output_clear(&output);
	json_decref(in.request);
	return close_output(status);
}
