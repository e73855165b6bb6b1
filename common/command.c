// SPDX-License-Identifier: GPL-2.0-or-later
#include "command.h"

#include "duration.h"
#include "prefix.h"
#include "protocol.h"
#include "redirect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIXES_OR_LIST                                                                           \
	{.field = "prefixes", .meta = "ADDR[/LEN]", .type = ARG_PREFIX, .repeated = true,          \
	 .help = "an IPv4 or IPv6 address or prefix"},                                             \
	{                                                                                          \
		.field = "list", .option = "-f", .meta = "FILE", .type = ARG_LIST,                 \
		.help = "take the addresses from FILE, one a line (\"-\": standard input); all "   \
			"or nothing"                                                               \
	}

#define ONE_PREFIX                                                                                 \
	{                                                                                          \
		.field = "prefix", .meta = "ADDR[/LEN]", .type = ARG_PREFIX,                       \
		.help = "only this entry and what it covers"                                       \
	}

#define PORTS                                                                                      \
	{                                                                                          \
		.field = "ports", .meta = "PROTO/PORT[-PORT]", .type = ARG_PORTS, .required = true, \
		.help = "destination ports: tcp/8080, udp/8000-8099"                               \
	}

#define ON_INTERFACE                                                                               \
	{                                                                                          \
		.field = "interface", .option = "--on", .meta = "IFACE", .type = ARG_INTERFACE,    \
		.help = "only there; left out: every configured interface"                         \
	}

#define DIRECTION                                                                                  \
	{                                                                                          \
		.field = "direction", .option = "--direction", .meta = "in|out",                   \
		.type = ARG_DIRECTION,                                                             \
		.help = "packets that come in (the default) or go out there"                       \
	}

const struct command commands[] = {
	[COMMAND_ADD] = {
		.name = "add",
		.summary = "block sources",
		.privilege = PRIVILEGE_CHANGE,
		.args = {
			PREFIXES_OR_LIST,
			{.field = "ttl", .option = "--ttl", .meta = "TIME", .type = ARG_DURATION,
			 .help = "unblock after this time, such as 90s, 1h30m or 7d"},
			{.field = "comment", .option = "--comment", .meta = "TEXT", .type = ARG_TEXT,
			 .help = "shown by list"},
		},
	},
	[COMMAND_DEL] = {
		.name = "del",
		.summary = "unblock sources",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PREFIXES_OR_LIST},
	},
	[COMMAND_LIST] = {
		.name = "list",
		.summary = "show blocked entries: hits, age, time left, origin, comment",
		.privilege = PRIVILEGE_LOOK,
		.args = {
			ONE_PREFIX,
			{.field = "origin", .option = "--origin", .meta = "NAME", .type = ARG_NAME,
			 .help = "only entries from \"config\", \"runtime\" or the feed of this name"},
		},
	},
	[COMMAND_TEST] = {
		.name = "test",
		.summary = "would this source be dropped, and by which entry? exit 0: passes, 1: dropped",
		.privilege = PRIVILEGE_LOOK,
		.args = {{.field = "address", .meta = "ADDR", .type = ARG_ADDRESS, .required = true,
			  .help = "an IPv4 or IPv6 address"}},
	},
	[COMMAND_FLUSH] = {
		.name = "flush",
		.summary = "remove all runtime entries; those of the configuration stay",
		.privilege = PRIVILEGE_CHANGE,
	},
	[COMMAND_ALLOW_ADD] = {
		.name = "allow add",
		.summary = "never block these sources, whatever else matches",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PREFIXES_OR_LIST},
	},
	[COMMAND_ALLOW_DEL] = {
		.name = "allow del",
		.summary = "take sources off the allowlist",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PREFIXES_OR_LIST},
	},
	[COMMAND_ALLOW_LIST] = {
		.name = "allow list",
		.summary = "show the allowlist",
		.privilege = PRIVILEGE_LOOK,
		.args = {ONE_PREFIX},
	},
	[COMMAND_REDIRECT_ADD] = {
		.name = "redirect add",
		.summary = "send packets to these ports to another interface",
		.privilege = PRIVILEGE_CHANGE,
		.args = {
			PORTS,
			{.field = "target", .meta = "TARGET", .type = ARG_INTERFACE, .required = true,
			 .help = "the interface that gets the packets"},
			ON_INTERFACE,
			DIRECTION,
			{.field = "mode", .option = "--mode", .meta = "MODE", .type = ARG_MODE,
			 .help = "auto (the default), l2 (the frame as it is), neigh (look up the "
				 "next hop's address), ingress (as if received there)"},
		},
	},
	[COMMAND_REDIRECT_DEL] = {
		.name = "redirect del",
		.summary = "stop redirecting these ports",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PORTS, ON_INTERFACE, DIRECTION},
	},
	[COMMAND_REDIRECT_LIST] = {
		.name = "redirect list",
		.summary = "show redirects and what they have moved",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_STATUS] = {
		.name = "status",
		.summary = "version, uptime, interfaces with the mode they really got, sizes",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_STATS] = {
		.name = "stats",
		.summary = "packets and bytes by interface and verdict",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_RELOAD] = {
		.name = "reload",
		.summary = "read the configuration again; an error leaves everything as it was",
		.privilege = PRIVILEGE_CHANGE,
	},
};
_Static_assert(ARRAY_SIZE(commands) == COMMAND_COUNT, "a row for each command");

enum command_id command_index(const struct command *command)
{
	return (enum command_id)(command - commands);
}

const char *request_text(const json_t *request, const char *field)
{
	return json_string_value(json_object_get(request, field));
}

/* ---- checking one argument ---- */

static int check_comment(const char *text, struct error *err)
{
	size_t n = strlen(text);

	if (n > COMMENT_MAX)
		return error_set(err, -EINVAL, "a comment of %zu bytes; the longest is %d", n,
				 COMMENT_MAX);
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return error_set(err, -EINVAL, "a comment with a control character");
	return 0;
}

static int check_origin(const char *text, struct error *err)
{
	if (!*text || strlen(text) > ORIGIN_NAME_MAX)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not an origin; expected \"config\", \"runtime\" or a "
				 "feed's name",
				 text);
	return 0;
}

static int check_text(enum arg_type type, const char *text, struct error *err)
{
	struct redirect redirect;
	struct prefix prefix;
	s64 duration_s;
	u8 value;

	switch (type) {
	case ARG_PREFIX:
		return prefix_parse(text, strlen(text), &prefix, err);
	case ARG_ADDRESS:
		return address_parse(text, strlen(text), &prefix, err);
	case ARG_DURATION:
		return duration_parse(text, &duration_s, err);
	case ARG_TEXT:
		return check_comment(text, err);
	case ARG_NAME:
		return check_origin(text, err);
	case ARG_PORTS:
		return redirect_ports_parse(text, &redirect, err);
	case ARG_INTERFACE:
		return interface_name_check(text, err);
	case ARG_DIRECTION:
		return direction_parse(text, &value, err);
	case ARG_MODE:
		return redirect_mode_parse(text, &value, err);
	case ARG_LIST:
		return 0;
	}
	return -EINVAL;
}

/* Rules that hold between arguments, for both ends. */
static int check_whole(const struct command *command, const json_t *request, struct error *err)
{
	bool takes_list = false;

	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		if (arg->required && !json_object_get(request, arg->field))
			return error_set(err, -EINVAL, "%s: %s is missing", command->name, arg->meta);
		takes_list |= arg->type == ARG_LIST;
	}
	if (!takes_list)
		return 0;
	if (json_object_get(request, "prefixes") && json_object_get(request, "list"))
		return error_set(err, -EINVAL,
				 "%s: addresses and a list together; give one of the two",
				 command->name);
	if (!json_object_get(request, "prefixes") && !json_object_get(request, "list"))
		return error_set(err, -EINVAL, "%s: no address given; expected ADDR[/LEN] or -f FILE",
				 command->name);
	return 0;
}

/* ---- the command line ---- */

/* The command that the first words name; *ret_words is how many words its name has. */
static const struct command *find_by_words(int argc, char *const argv[], int *ret_words)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		const char *space = strchr(commands[i].name, ' ');
		size_t first = space ? (size_t)(space - commands[i].name) : strlen(commands[i].name);

		if (strlen(argv[0]) != first || strncmp(argv[0], commands[i].name, first) != 0)
			continue;
		if (!space) {
			*ret_words = 1;
			return &commands[i];
		}
		if (argc > 1 && !strcmp(argv[1], space + 1)) {
			*ret_words = 2;
			return &commands[i];
		}
	}
	return NULL;
}

static int unknown_command(int argc, char *const argv[], struct error *err)
{
	char verbs[128] = "";
	size_t used = 0;

	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		size_t n = strlen(argv[0]);

		if (!strncmp(commands[i].name, argv[0], n) && commands[i].name[n] == ' ')
			used += (size_t)snprintf(verbs + used, sizeof(verbs) - used, "%s%s",
						 used ? ", " : "", commands[i].name + n + 1);
	}
	if (used && argc > 1)
		return error_set(err, -EINVAL, "%s has no \"%.80s\"; it takes %s", argv[0], argv[1],
				 verbs);
	if (used)
		return error_set(err, -EINVAL, "%s takes one of: %s", argv[0], verbs);
	return error_set(err, -EINVAL, "unknown command \"%.80s\"; see fwctl --help", argv[0]);
}

static int put(json_t *request, const struct command_arg *arg, const char *value,
	       struct error *err)
{
	json_t *text;
	int r = check_text(arg->type, value, err);

	if (r < 0) {
		if (arg->option)
			error_prepend(err, "%s: ", arg->option);
		return r;
	}
	text = arg->type == ARG_LIST ? json_true() : json_string(value);
	if (!text)
		return error_set(err, -EINVAL, "an argument that is not UTF-8");
	if (arg->repeated) {
		json_t *array = json_object_get(request, arg->field);

		if (!array) {
			array = json_array();
			json_object_set_new(request, arg->field, array);
		}
		if (json_array_size(array) >= PREFIXES_MAX) {
			json_decref(text);
			return error_set(err, -EINVAL,
					 "more than %d addresses on the command line; put them into "
					 "a file and use -f FILE",
					 PREFIXES_MAX);
		}
		return json_array_append_new(array, text) ? error_no_memory(err) : 0;
	}
	if (json_object_get(request, arg->field)) {
		json_decref(text);
		return error_set(err, -EINVAL, "%s is given twice", arg->option ? arg->option : arg->meta);
	}
	return json_object_set_new(request, arg->field, text) ? error_no_memory(err) : 0;
}

/* The option that `word` names, as "--ttl" or "--ttl=VALUE"; *ret_value is VALUE or NULL. */
static const struct command_arg *find_option(const struct command *command, const char *word,
					     const char **ret_value)
{
	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		size_t n = arg->option ? strlen(arg->option) : 0;

		if (!n || strncmp(word, arg->option, n) != 0)
			continue;
		if (!word[n] || (word[n] == '=' && word[1] == '-')) {
			*ret_value = word[n] ? word + n + 1 : NULL;
			return arg;
		}
	}
	return NULL;
}

/* The positional argument that comes next: one not filled yet, or a repeated one. */
static const struct command_arg *next_positional(const struct command *command,
						 const json_t *request)
{
	for (const struct command_arg *arg = command->args; arg->field; arg++)
		if (!arg->option && (arg->repeated || !json_object_get(request, arg->field)))
			return arg;
	return NULL;
}

static const struct command_arg *list_arg(const struct command *command)
{
	for (const struct command_arg *arg = command->args; arg->field; arg++)
		if (arg->type == ARG_LIST)
			return arg;
	return NULL;
}

static int read_words(int argc, char *const argv[], struct invocation *in, struct error *err)
{
	bool options = true;

	for (int i = 0; i < argc; i++) {
		const struct command_arg *arg;
		const char *word = argv[i], *value = word;
		int r;

		if (options && !strcmp(word, "--")) {
			options = false;
			continue;
		}
		if (options && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
			in->help = true;
			return 0;
		}
		if (options && !strcmp(word, "-") && list_arg(in->command)) {
			arg = list_arg(in->command);
		} else if (options && word[0] == '-' && word[1]) {
			arg = find_option(in->command, word, &value);
			if (!arg)
				return error_set(err, -EINVAL,
						 "%s has no option \"%.80s\"; see fwctl %s --help",
						 in->command->name, word, in->command->name);
			if (!value && i + 1 == argc)
				return error_set(err, -EINVAL, "%s needs a value: %s", arg->option,
						 arg->meta);
			if (!value)
				value = argv[++i];
		} else {
			arg = next_positional(in->command, in->request);
			if (!arg)
				return error_set(err, -EINVAL,
						 "%s: unexpected \"%.80s\"; see fwctl %s --help",
						 in->command->name, word, in->command->name);
		}
		r = put(in->request, arg, value, err);
		if (r < 0)
			return r;
		if (arg->type == ARG_LIST)
			in->list_path = value;
	}
	return check_whole(in->command, in->request, err);
}

int command_from_argv(int argc, char *const argv[], struct invocation *ret, struct error *err)
{
	int words = 0, r;

	*ret = (struct invocation){0};
	if (argc < 1)
		return error_set(err, -EINVAL, "no command given; see fwctl --help");
	ret->command = find_by_words(argc, argv, &words);
	if (!ret->command)
		return unknown_command(argc, argv, err);
	ret->request = json_object();
	if (!ret->request ||
	    json_object_set_new(ret->request, "command", json_string(ret->command->name)))
		r = error_no_memory(err);
	else
		r = read_words(argc - words, argv + words, ret, err);
	if (r < 0) {
		json_decref(ret->request);
		ret->request = NULL;
	}
	return r;
}

char *command_usage(const struct command *command)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "fwctl %s", command->name);
	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		if (arg->type == ARG_LIST)
			fputs(" | -f FILE | -", out);
		else if (arg->option)
			fprintf(out, " [%s %s]", arg->option, arg->meta);
		else
			fprintf(out, arg->required || arg->repeated ? " %s%s" : " [%s%s]", arg->meta,
				arg->repeated ? "..." : "");
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- the request ---- */

static const struct command *find_by_name(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

static int check_field(const struct command_arg *arg, const json_t *value, struct error *err)
{
	const json_t *item;
	size_t i;
	int r;

	if (arg->type == ARG_LIST)
		return json_is_true(value) ? 0
					   : error_set(err, -EINVAL, "\"%s\" is not true", arg->field);
	if (!arg->repeated)
		return json_is_string(value)
			       ? check_text(arg->type, json_string_value(value), err)
			       : error_set(err, -EINVAL, "\"%s\" is not a string", arg->field);
	if (!json_is_array(value) || !json_array_size(value) ||
	    json_array_size(value) > PREFIXES_MAX)
		return error_set(err, -EINVAL, "\"%s\" is not an array of 1 to %d strings", arg->field,
				 PREFIXES_MAX);
	for (i = 0; i < json_array_size(value); i++) {
		item = json_array_get(value, i);
		if (!json_is_string(item))
			return error_set(err, -EINVAL, "\"%s\"[%zu] is not a string", arg->field, i);
		r = check_text(arg->type, json_string_value(item), err);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct command_arg *find_field(const struct command *command, const char *field)
{
	for (const struct command_arg *arg = command->args; arg->field; arg++)
		if (!strcmp(field, arg->field))
			return arg;
	return NULL;
}

int command_from_request(const json_t *request, const struct command **ret, struct error *err)
{
	const struct command *command;
	const char *name, *field;
	json_t *value;
	void *at;
	int r;

	if (!json_is_object(request))
		return error_set(err, -EINVAL, "the request is not a JSON object");
	name = request_text(request, "command");
	if (!name)
		return error_set(err, -EINVAL, "the request has no \"command\"");
	command = find_by_name(name);
	if (!command)
		return error_set(err, -EINVAL, "unknown command \"%.80s\"", name);
	for (at = json_object_iter((json_t *)request); at;
	     at = json_object_iter_next((json_t *)request, at)) {
		const struct command_arg *arg;

		field = json_object_iter_key(at);
		value = json_object_iter_value(at);
		if (!strcmp(field, "command"))
			continue;
		arg = find_field(command, field);
		if (!arg)
			return error_set(err, -EINVAL, "%s has no field \"%.80s\"", command->name, field);
		r = check_field(arg, value, err);
		if (r < 0)
			return r;
	}
	r = check_whole(command, request, err);
	if (r < 0)
		return r;
	*ret = command;
	return 0;
}

const char *error_code_name(int code)
{
	switch (code) {
	case -EINVAL:
		return ERROR_CODE_INVALID;
	case -ENOENT:
		return ERROR_CODE_NOT_FOUND;
	case -ENOSPC:
		return ERROR_CODE_FULL;
	case -EEXIST:
		return ERROR_CODE_CONFLICT;
	case -EPERM:
	case -EACCES:
		return ERROR_CODE_NOT_PERMITTED;
	case -EBUSY:
		return ERROR_CODE_BUSY;
	default:
		return ERROR_CODE_FAILED;
	}
}
