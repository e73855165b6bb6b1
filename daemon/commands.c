// SPDX-License-Identifier: GPL-2.0-or-later
#include "commands.h"

#include "address_list.h"
#include "caller.h"
#include "commands_internal.h"
#include "duration.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* A list that is read while others wait: some thousand lines, far below a millisecond. */
#define SHORT_LIST_BYTES (64u << 10)

/* ---- prefixes of a request ---- */

/* As client_list_file() seals it: reading cannot block, and what is read cannot change. */
static int check_sealed(int fd, struct error *err)
{
	const int needed = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK;
	int seals;

	if (fd < 0)
		return error_set(err, -EINVAL, "\"list\" came without a descriptor");
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & needed) != needed)
		return error_set(
			err, -EINVAL,
			"the list's descriptor is not a memory file sealed against writing, "
			"growing and shrinking");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_set(err, -errno, "cannot read the list: %s", error_name(errno));
	return 0;
}

/* Short lists are read at once, so that they are changed at once, too. */
static int read_list(struct call *call, struct rules_request *ret, struct error *err)
{
	struct address_list list;
	struct stat st;
	int r = check_sealed(call->in->list_fd, err);

	if (r < 0)
		return r;
	if (!fstat(call->in->list_fd, &st) && st.st_size > SHORT_LIST_BYTES) {
		ret->list_fd = take_fd(&call->in->list_fd);
		return 0;
	}
	r = address_list_read(call->in->list_fd, NULL, &list, err);
	if (r < 0)
		return r;
	ret->prefixes = list.prefixes;
	ret->n = list.n;
	return 0;
}

static int read_prefixes(struct call *call, struct rules_request *ret, struct error *err)
{
	const json_t *texts = json_object_get(call->request, "prefixes");
	int r = 0;

	if (!texts)
		return read_list(call, ret, err);
	ret->prefixes = calloc(json_array_size(texts) + 1, sizeof(*ret->prefixes));
	if (!ret->prefixes)
		return error_no_memory(err);
	for (; !r && ret->n < json_array_size(texts); ret->n++) {
		const char *text = json_string_value(json_array_get(texts, ret->n));

		r = prefix_parse(text, strlen(text), &ret->prefixes[ret->n], err);
	}
	return r;
}

/* ---- changes of rules ---- */

/* What has changed, for the answer to the command. */
static void describe_change(enum command_id id, const struct rules_count *count, json_t *reply)
{
	switch (id) {
	case COMMAND_ADD:
	case COMMAND_ALLOW_ADD:
	case COMMAND_REDIRECT_ADD:
		set_int(reply, "added", (json_int_t)count->added);
		set_int(reply, "updated", (json_int_t)count->updated);
		break;
	case COMMAND_FEED_REPLACE:
	case COMMAND_FEED_RELOAD:
		set_int(reply, "entries", (json_int_t)count->entries);
		/* fall through */
	case COMMAND_RELOAD:
		set_int(reply, "added", (json_int_t)count->added);
		set_int(reply, "removed", (json_int_t)count->removed);
		break;
	case COMMAND_CONFIRM:
		break;
	default:
		set_int(reply, "deleted", (json_int_t)count->removed);
	}
}

/* The same of one that waits for confirmation. */
static void describe_confirm(s64 confirm_s, json_t *reply)
{
	if (confirm_s)
		set_int(reply, "confirm_s", confirm_s);
}

/* Who waits for the end of a large change. */
struct waiter {
	struct daemon *daemon;
	const struct command *command;
	struct peer peer;
	struct asker *asker;
	s64 confirm_s; /* as in the call */
	bool changes;  /* something, which is to be told */
};

static void log_change(const struct command *command, const struct peer *peer)
{
	log_info("%s by uid %u (pid %d)", command->name, peer->uid, peer->pid);
}

/* Who would have cut this host off is worth a look. */
static void log_refusal(const struct command *command, const struct peer *peer, int r,
			const struct error *err)
{
	if (r == -EHOSTUNREACH)
		log_warning("%s by uid %u (pid %d) is refused: %s", command->name, peer->uid,
			    peer->pid, err->text);
}

/* The answer to a failure; what explains it goes into the error. */
static json_t *failed(int code, const char *message, json_t *errors)
{
	json_t *answer = control_error(code, message);

	if (answer && errors)
		json_object_set_new(json_object_get(answer, "error"), "errors", errors);
	return answer;
}

static void answer_later(void *data, const struct rules_end *end)
{
	struct waiter *waiter = data;
	enum command_id id = command_index(waiter->command);
	json_t *answer = NULL;
	int r = end->r;

	if (id == COMMAND_RELOAD) {
		daemon_reloaded(waiter->daemon, end);
		/* A file that is not there is not "not-found", nor are its permissions the
		 * caller's. */
		if (r < 0 && r != -ENOSPC && r != -EEXIST && r != -EINVAL)
			r = -EIO;
	}
	if (waiter->confirm_s)
		confirm_begun(waiter->daemon->confirm, end);
	log_refusal(waiter->command, &waiter->peer, r, &end->err);
	if (r < 0) {
		answer = failed(r, end->err.text,
				daemon_config_errors(waiter->daemon->config_file, end->errors));
	} else {
		answer = json_pack("{s:b}", "ok", 1);
		if (end->verified)
			describe_verified(end->verified, answer);
		else
			describe_change(id, &end->count, answer);
		describe_confirm(waiter->confirm_s, answer);
		/* A reload is confirmed at once. */
		if (id == COMMAND_CONFIRM)
			set_text(answer, "confirmed", "add");
		if (waiter->changes)
			log_change(waiter->command, &waiter->peer);
	}
	/* One that failed may have left something to be tried again; at a stop nothing is. */
	if (end->r != -ECANCELED)
		daemon_rules_changed(waiter->daemon);
	control_answer(waiter->asker, answer);
	free(waiter);
}

static struct waiter *new_waiter(const struct call *call)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter));

	if (waiter)
		*waiter = (struct waiter){
			.daemon = call->daemon,
			.command = call->in->command,
			.peer = call->in->peer,
			.asker = call->in->asker,
			.confirm_s = call->confirm_s,
			.changes = request_privilege(call->in->command, call->request) ==
				   PRIVILEGE_CHANGE,
		};
	return waiter;
}

/* With what it takes for the change to go back by itself, if it is to. */
static int submit_rules(struct call *call, struct rules_request *request,
			const struct rules_later *later, struct rules_end *end)
{
	struct confirm *confirm = call->daemon->confirm;
	int r = call->confirm_s ? confirm_begin(confirm, request, call->confirm_s, &end->err) : 0;

	if (r < 0) {
		rules_request_clear(request);
		return r;
	}
	end->r = rules_submit(call->daemon->rules, request, later, &end->count, &end->err);
	if (call->confirm_s && end->r != -EINPROGRESS)
		confirm_begun(confirm, end);
	return end->r;
}

/* Takes the request over. */
static int submit(struct call *call, struct rules_request *request, struct error *err)
{
	struct waiter *waiter = new_waiter(call);
	const struct rules_later later = {answer_later, waiter};
	struct rules_end end = {0};
	int r;

	if (!waiter) {
		rules_request_clear(request);
		return error_no_memory(err);
	}
	r = submit_rules(call, request, &later, &end);
	if (r != -EINPROGRESS)
		free(waiter);
	if (r < 0)
		*err = end.err;
	if (!r) {
		describe_change(call->id, &end.count, call->reply);
		describe_confirm(call->confirm_s, call->reply);
	}
	return r;
}

/* Reads the prefixes, and submits. */
static int submit_prefixes(struct call *call, struct rules_request *request, struct error *err)
{
	int r = read_prefixes(call, request, err);

	if (r < 0) {
		rules_request_clear(request);
		return r;
	}
	return submit(call, request, err);
}

static int read_confirm(struct call *call, struct error *err)
{
	const char *confirm = request_text(call->request, "confirm");

	return confirm ? duration_parse(confirm, &call->confirm_s, err) : 0;
}

/* What the guard is to know of the request. */
static void read_guard(const struct call *call, struct rules_request *ret)
{
	ret->force = request_flag(call->request, "force");
	if (!ret->force && command_find_field(call->in->command, "ssh_client"))
		ret->n_sessions = caller_sessions(call->in, ret->sessions);
}

static int run_add(struct call *call, struct error *err)
{
	struct rules_request request = {
		.kind = RULES_ADD, .table = call_table(call), .list_fd = -1};
	const char *ttl = request_text(call->request, "ttl");
	const char *comment = request_text(call->request, "comment");
	int r = ttl ? duration_parse(ttl, &request.ttl_s, err) : 0;

	if (!r)
		r = read_confirm(call, err);
	if (r < 0)
		return r;
	if (comment) {
		request.comment = comment_new(comment);
		if (!request.comment)
			return error_no_memory(err);
	}
	read_guard(call, &request);
	return submit_prefixes(call, &request, err);
}

static int run_del(struct call *call, struct error *err)
{
	struct rules_request request = {
		.kind = RULES_REMOVE, .table = call_table(call), .list_fd = -1};

	read_guard(call, &request);
	return submit_prefixes(call, &request, err);
}

static int run_flush(struct call *call, struct error *err)
{
	struct rules_request request = {.kind = RULES_FLUSH, .list_fd = -1};

	return submit(call, &request, err);
}

/* ---- feeds ---- */

/* The feed that the request names, or none. */
static void set_feed(const struct call *call, struct rules_request *request)
{
	const char *name = request_text(call->request, "name");

	snprintf(request->feed, sizeof(request->feed), "%s", name ? name : "");
}

static int run_feed_replace(struct call *call, struct error *err)
{
	struct rules_request request = {.kind = RULES_FEED_REPLACE, .list_fd = -1};

	set_feed(call, &request);
	return submit_prefixes(call, &request, err);
}

static int run_feed_reload(struct call *call, struct error *err)
{
	struct rules_request request = {.kind = RULES_FEED_RELOAD, .list_fd = -1};

	set_feed(call, &request);
	return submit(call, &request, err);
}

/* ---- redirects ---- */

/* What the table has checked already. */
static void read_redirect(const json_t *request, struct redirect *ret)
{
	const char *interface = request_text(request, "interface");
	const char *direction = request_text(request, "direction");
	const char *target = request_text(request, "target");
	const char *mode = request_text(request, "mode");

	*ret = (struct redirect){.direction = DIRECTION_IN, .mode = REDIRECT_AUTO};
	redirect_ports_parse(request_text(request, "ports"), ret, NULL);
	snprintf(ret->interface, sizeof(ret->interface), "%s", interface ? interface : "");
	snprintf(ret->target, sizeof(ret->target), "%s", target ? target : "");
	if (direction)
		direction_parse(direction, &ret->direction, NULL);
	if (mode)
		redirect_mode_parse(mode, &ret->mode, NULL);
}

static int run_redirect_add(struct call *call, struct error *err)
{
	struct redirect redirect;
	struct rules_count count = {0};
	int r;

	read_redirect(call->request, &redirect);
	r = rules_add_redirect(call->daemon->rules, &redirect, &count, err);
	if (!r)
		describe_change(call->id, &count, call->reply);
	return r;
}

static int run_redirect_del(struct call *call, struct error *err)
{
	struct redirect redirect;
	struct rules_count count = {0};
	int r;

	read_redirect(call->request, &redirect);
	r = rules_remove_redirect(call->daemon->rules, &redirect, &count, err);
	if (!r)
		describe_change(call->id, &count, call->reply);
	return r;
}

/* ---- verify, reload ---- */

static int run_verify(struct call *call, struct error *err)
{
	struct rules_request request = {
		.kind = RULES_VERIFY,
		.list_fd = -1,
		.repair = request_flag(call->request, "repair"),
	};

	return submit(call, &request, err);
}

static int run_reload(struct call *call, struct error *err)
{
	struct rules_request request = {
		.kind = RULES_RELOAD,
		.list_fd = -1,
		.config_file = call->daemon->config_file,
	};
	int r = confirm_check_reload(call->daemon->confirm, err);

	if (!r)
		r = read_confirm(call, err);
	if (!r)
		r = submit(call, &request, err);
	/* It ends later, and daemon_reloaded() follows. */
	if (r == -EINPROGRESS)
		daemon_reloading(call->daemon);
	return r;
}

static int run_confirm(struct call *call, struct error *err)
{
	struct waiter *waiter = new_waiter(call);
	const struct rules_later later = {answer_later, waiter};
	const char *what = NULL;
	int r;

	if (!waiter)
		return error_no_memory(err);
	r = confirm_accept(call->daemon->confirm, &later, &what, err);
	if (r != -EINPROGRESS)
		free(waiter);
	if (!r)
		set_text(call->reply, "confirmed", what);
	return r;
}

/* ---- dispatch ---- */

/* 0, an error, or -EINPROGRESS: submit() has seen to it that the answer comes later. */
typedef int (*handler)(struct call *call, struct error *err);

static const handler handlers[] = {
	[COMMAND_ADD] = run_add,
	[COMMAND_DEL] = run_del,
	[COMMAND_LIST] = run_list,
	[COMMAND_TEST] = run_test,
	[COMMAND_FLUSH] = run_flush,
	[COMMAND_ALLOW_ADD] = run_add,
	[COMMAND_ALLOW_DEL] = run_del,
	[COMMAND_ALLOW_LIST] = run_list,
	[COMMAND_FEED_LIST] = run_feed_list,
	[COMMAND_FEED_REPLACE] = run_feed_replace,
	[COMMAND_FEED_RELOAD] = run_feed_reload,
	[COMMAND_REDIRECT_ADD] = run_redirect_add,
	[COMMAND_REDIRECT_DEL] = run_redirect_del,
	[COMMAND_REDIRECT_LIST] = run_redirect_list,
	[COMMAND_STATUS] = run_status,
	[COMMAND_STATS] = run_stats,
	[COMMAND_VERIFY] = run_verify,
	[COMMAND_RELOAD] = run_reload,
	[COMMAND_CONFIRM] = run_confirm,
	[COMMAND_DOCTOR] = NULL, /* local: it is no request */
};
_Static_assert(ARRAY_SIZE(handlers) == COMMAND_COUNT, "a handler for each command");

void commands_run(void *data, struct request *request, struct answer *ret)
{
	const struct command *command = request->command;
	struct call call = {
		.daemon = data,
		.id = command_index(command),
		.in = request,
		.request = request->object,
		.reply = json_pack("{s:b}", "ok", 1),
	};
	struct error err = {""};
	int r = handlers[call.id](&call, &err);

	log_refusal(command, &request->peer, r, &err);
	if (r < 0) {
		json_decref(call.reply);
		ret->later = r == -EINPROGRESS;
		ret->object = ret->later ? NULL : failed(r, err.text, NULL);
		return;
	}
	if (request_privilege(command, request->object) == PRIVILEGE_CHANGE) {
		log_change(command, &request->peer);
		daemon_rules_changed(call.daemon);
	}
	ret->object = call.reply;
	ret->listing = call.listing;
}
