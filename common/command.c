// SPDX-License-Identifier: GPL-2.0-or-later
#include "command.h"

#include "duration.h"
#include "prefix.h"
#include "protocol.h"
#include "redirect.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table, one line a field. */
/* clang-format off */

#define PREFIXES_OR_LIST                                                                           \
	{.field = "prefixes", .meta = "ADDR[/LEN]", .type = ARG_PREFIX, .repeated = true,          \
	 .help = "an IPv4 or IPv6 address or prefix"},                                             \
	{                                                                                          \
		.field = "list", .option = "-f", .meta = "FILE", .type = ARG_LIST,                 \
		.help = "take the addresses from FILE, one a line (\"-\": standard input); all "   \
			"or nothing"                                                               \
	}

/* For what could cut the caller off. */
#define FORCE(words)                                                                               \
	{.field = "force", .option = "--force", .type = ARG_FLAG, .help = words},                  \
	{                                                                                          \
		.field = "ssh_client", .type = ARG_ADDRESS, .unasked = true,                       \
		.help = "where the caller is logged in from by SSH"                                \
	}

#define FEED(is_required, words)                                                                   \
	{                                                                                          \
		.field = "name", .meta = "NAME", .type = ARG_FEED, .required = is_required,        \
		.help = words                                                                      \
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

#define CONFIRM                                                                                    \
	{                                                                                          \
		.field = "confirm", .option = "--confirm", .meta = "TIME", .type = ARG_CONFIRM,    \
		.help = "go back after this time, 1s to 1h, unless fwctl confirm follows"          \
	}

#define GROUP_BLOCK    "Blocked sources"
#define GROUP_ALLOW    "Sources that are never blocked"
#define GROUP_FEED     "Feeds, lists that are replaced as a whole"
#define GROUP_REDIRECT "Redirects by destination port"
#define GROUP_DAEMON   "The daemon"

const struct command commands[] = {
	[COMMAND_ADD] = {
		.name = "add",
		.group = GROUP_BLOCK,
		.summary = "block sources",
		.example = "fwctl add 203.0.113.7 2001:db8::/32 --ttl 1h30m --comment ssh",
		.privilege = PRIVILEGE_CHANGE,
		.args = {
			PREFIXES_OR_LIST,
			{.field = "ttl", .option = "--ttl", .meta = "TIME", .type = ARG_DURATION,
			 .help = "unblock after this time, such as 90s, 1h30m or 7d"},
			{.field = "comment", .option = "--comment", .meta = "TEXT", .type = ARG_TEXT,
			 .help = "shown by list"},
			CONFIRM,
			FORCE("even if it covers the address of your SSH session, a default gateway or "
			      "an address of this host"),
		},
	},
	[COMMAND_DEL] = {
		.name = "del",
		.group = GROUP_BLOCK,
		.summary = "unblock sources",
		.example = "fwctl del 203.0.113.7",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PREFIXES_OR_LIST},
	},
	[COMMAND_LIST] = {
		.name = "list",
		.group = GROUP_BLOCK,
		.summary = "show blocked entries: hits, age, time left, origin, comment",
		.example = "fwctl list 203.0.113.0/24 --origin runtime",
		.privilege = PRIVILEGE_LOOK,
		.args = {
			ONE_PREFIX,
			{.field = "origin", .option = "--origin", .meta = "NAME", .type = ARG_NAME,
			 .help = "only entries from \"config\", \"runtime\" or the feed of this name"},
		},
	},
	[COMMAND_TEST] = {
		.name = "test",
		.group = GROUP_BLOCK,
		.summary = "would this source be dropped? exits with 0: passes, 1: dropped",
		.example = "fwctl test 203.0.113.7 && echo passes",
		.privilege = PRIVILEGE_LOOK,
		.args = {{.field = "address", .meta = "ADDR", .type = ARG_ADDRESS, .required = true,
			  .help = "an IPv4 or IPv6 address"}},
	},
	[COMMAND_FLUSH] = {
		.name = "flush",
		.group = GROUP_BLOCK,
		.summary = "remove all runtime entries; those of the configuration stay",
		.example = "fwctl flush",
		.privilege = PRIVILEGE_CHANGE,
	},
	[COMMAND_ALLOW_ADD] = {
		.name = "allow add",
		.group = GROUP_ALLOW,
		.summary = "never block these sources, whatever else matches",
		.example = "fwctl allow add 198.51.100.0/24",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PREFIXES_OR_LIST},
	},
	[COMMAND_ALLOW_DEL] = {
		.name = "allow del",
		.group = GROUP_ALLOW,
		.summary = "take sources off the allowlist",
		.example = "fwctl allow del 198.51.100.0/24",
		.privilege = PRIVILEGE_CHANGE,
		.args = {
			PREFIXES_OR_LIST,
			FORCE("even if the address of your SSH session, a default gateway or an address "
			      "of this host is blocked then"),
		},
	},
	[COMMAND_ALLOW_LIST] = {
		.name = "allow list",
		.group = GROUP_ALLOW,
		.summary = "show the allowlist",
		.example = "fwctl allow list",
		.privilege = PRIVILEGE_LOOK,
		.args = {ONE_PREFIX},
	},
	[COMMAND_FEED_LIST] = {
		.name = "feed list",
		.group = GROUP_FEED,
		.summary = "show the feeds: entries, hits, where they came from and when",
		.example = "fwctl feed list",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_FEED_REPLACE] = {
		.name = "feed replace",
		.group = GROUP_FEED,
		.summary = "put a list in the place of a feed's entries, until its file is read again",
		.example = "fwctl feed replace drop - <drop.txt",
		.privilege = PRIVILEGE_CHANGE,
		.args = {
			FEED(true, "a feed that the configuration names"),
			{.field = "list", .option = "-f", .meta = "FILE", .type = ARG_LIST,
			 .required = true,
			 .help = "the list, an address or prefix a line (\"-\": standard input); all "
				 "or nothing"},
		},
	},
	[COMMAND_FEED_RELOAD] = {
		.name = "feed reload",
		.group = GROUP_FEED,
		.summary = "read the files of the feeds again, not the configuration",
		.example = "fwctl feed reload drop",
		.privilege = PRIVILEGE_CHANGE,
		.args = {FEED(false, "only this one; left out: every feed that has a file")},
	},
	[COMMAND_REDIRECT_ADD] = {
		.name = "redirect add",
		.group = GROUP_REDIRECT,
		.summary = "send packets to these ports to another interface",
		.example = "fwctl redirect add tcp/8000-8099 tun0 --on eth0 --mode l2",
		.privilege = PRIVILEGE_CHANGE,
		.args = {
			PORTS,
			{.field = "target", .meta = "TARGET", .type = ARG_INTERFACE, .required = true,
			 .help = "the interface that gets the packets"},
			ON_INTERFACE,
			DIRECTION,
			{.field = "mode", .option = "--mode", .meta = "auto|l2|neigh|ingress",
			 .type = ARG_MODE,
			 .help = "auto (the default), l2 (the frame as it is), neigh (look up the "
				 "next hop's address), ingress (as if received there)"},
		},
	},
	[COMMAND_REDIRECT_DEL] = {
		.name = "redirect del",
		.group = GROUP_REDIRECT,
		.summary = "stop redirecting these ports",
		.example = "fwctl redirect del tcp/8000-8099 --on eth0",
		.privilege = PRIVILEGE_CHANGE,
		.args = {PORTS, ON_INTERFACE, DIRECTION},
	},
	[COMMAND_REDIRECT_LIST] = {
		.name = "redirect list",
		.group = GROUP_REDIRECT,
		.summary = "show redirects and what they have moved",
		.example = "fwctl redirect list",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_STATUS] = {
		.name = "status",
		.group = GROUP_DAEMON,
		.summary = "version, uptime, sizes, interfaces with the mode they really got",
		.example = "fwctl status",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_STATS] = {
		.name = "stats",
		.group = GROUP_DAEMON,
		.summary = "packets and bytes by interface and verdict",
		.example = "fwctl --json stats",
		.privilege = PRIVILEGE_LOOK,
	},
	[COMMAND_VERIFY] = {
		.name = "verify",
		.group = GROUP_DAEMON,
		.summary = "is all as the rules say? exits with 0: yes, 1: it tells each difference",
		.example = "fwctl verify --repair",
		.privilege = PRIVILEGE_LOOK,
		.args = {{.field = "repair", .option = "--repair", .type = ARG_FLAG,
			  .privilege = PRIVILEGE_CHANGE,
			  .help = "mend what differs, and verify again"}},
	},
	[COMMAND_RELOAD] = {
		.name = "reload",
		.group = GROUP_DAEMON,
		.summary = "read the configuration again; an error changes nothing",
		.example = "fwctl reload --confirm 60s",
		.privilege = PRIVILEGE_CHANGE,
		.args = {CONFIRM},
	},
	[COMMAND_CONFIRM] = {
		.name = "confirm",
		.group = GROUP_DAEMON,
		.summary = "keep what was changed with --confirm, which goes back otherwise",
		.example = "fwctl confirm",
		.privilege = PRIVILEGE_CHANGE,
	},
	[COMMAND_DOCTOR] = {
		.name = "doctor",
		.group = GROUP_DAEMON,
		.summary = "what this host can do, and what stands in the way; needs no daemon",
		.example = "fwctl doctor",
		.privilege = PRIVILEGE_LOOK,
		.local = true,
	},
};
/* clang-format on */
_Static_assert(ARRAY_SIZE(commands) == COMMAND_COUNT, "a row for each command");

const struct tool_option tool_options[] = {
	{.name = "-s",
	 .meta = "SOCKET",
	 .help = "where the daemon listens; left out: " SOCKET_DEFAULT_PATH},
	{.name = "--json", .help = "print one JSON value, for programs"},
	{.name = "--help", .help = "tell about fwctl, or about the command"},
	{.name = "--version", .help = "tell the version"},
	{0},
};

enum command_id command_index(const struct command *command)
{
	return (enum command_id)(command - commands);
}

const char *request_text(const json_t *request, const char *field)
{
	return json_string_value(json_object_get(request, field));
}

bool request_flag(const json_t *request, const char *field)
{
	return json_is_true(json_object_get(request, field));
}

enum privilege request_privilege(const struct command *command, const json_t *request)
{
	enum privilege most = command->privilege;

	for (const struct command_arg *arg = command->args; arg->field; arg++)
		if (arg->privilege > most && json_object_get(request, arg->field))
			most = arg->privilege;
	return most;
}

/* ---- checking one argument ---- */

static int check_comment(const char *text, struct error *err)
{
	size_t n = strlen(text);

	if (n > COMMENT_MAX)
		return error_set(err, -EINVAL, "a comment of %zu bytes; the longest is %d", n,
				 COMMENT_MAX);
	if (!text_is_printable(text))
		return error_set(err, -EINVAL,
				 "\"%s\" has control characters or is not UTF-8, which a comment "
				 "cannot have",
				 text);
	return 0;
}

static bool is_origin(const char *text)
{
	const char *accepted = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return *text && strlen(text) <= ORIGIN_NAME_MAX && !text[strspn(text, accepted)];
}

static int check_origin(const char *text, struct error *err)
{
	if (!is_origin(text))
		return error_set(
			err, -EINVAL,
			"\"%.80s\" is not an origin; expected \"config\", \"runtime\" or a "
			"feed's name",
			text);
	return 0;
}

static int check_feed(const char *text, struct error *err)
{
	if (!is_origin(text))
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not a feed's name: 1 to %d of A-Z a-z 0-9 . _ -",
				 text, ORIGIN_NAME_MAX);
	if (!strcmp(text, "config") || !strcmp(text, "runtime"))
		return error_set(err, -EINVAL,
				 "\"%s\" is an origin, but not a feed; expected the name of a "
				 "[[blacklist.feed]]",
				 text);
	return 0;
}

static int check_confirm(const char *text, struct error *err)
{
	s64 duration_s;
	int r = duration_parse(text, &duration_s, err);

	if (!r && duration_s > CONFIRM_MAX_S)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is too long to wait for a confirmation; expected 1s to "
				 "1h",
				 text);
	return r;
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
	case ARG_CONFIRM:
		return check_confirm(text, err);
	case ARG_TEXT:
		return check_comment(text, err);
	case ARG_NAME:
		return check_origin(text, err);
	case ARG_FEED:
		return check_feed(text, err);
	case ARG_PORTS:
		return redirect_ports_parse(text, &redirect, err);
	case ARG_INTERFACE:
		return interface_name_check(text, err);
	case ARG_DIRECTION:
		return direction_parse(text, &value, err);
	case ARG_MODE:
		return redirect_mode_parse(text, &value, err);
	case ARG_LIST:
	case ARG_FLAG:
		return 0;
	}
	return -EINVAL;
}

/* What ends by itself before it would go back needs no confirmation. */
static int check_times(const json_t *request, struct error *err)
{
	const char *ttl = request_text(request, "ttl"), *confirm = request_text(request, "confirm");
	s64 ttl_s, confirm_s;
	int r;

	if (!ttl || !confirm)
		return 0;
	r = duration_parse(ttl, &ttl_s, err);
	if (!r)
		r = duration_parse(confirm, &confirm_s, err);
	if (!r && ttl_s <= confirm_s)
		return error_set(err, -EINVAL,
				 "--ttl %s is over by the end of --confirm %s, so that there is "
				 "nothing to confirm; leave one of the two out",
				 ttl, confirm);
	return r;
}

/* Rules that hold between arguments, for both ends. */
static int check_whole(const struct command *command, const json_t *request, struct error *err)
{
	bool prefixes_or_list = false;
	int r = check_times(request, err);

	if (r < 0)
		return r;
	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		if (!arg->required || json_object_get(request, arg->field)) {
			prefixes_or_list |= arg->type == ARG_LIST && !arg->required;
			continue;
		}
		if (arg->type == ARG_LIST)
			return error_set(err, -EINVAL, "%s: no list given; expected -f FILE or -",
					 command->name);
		return error_set(err, -EINVAL, "%s: %s is missing", command->name, arg->meta);
	}
	if (!prefixes_or_list)
		return 0;
	if (json_object_get(request, "prefixes") && json_object_get(request, "list"))
		return error_set(err, -EINVAL,
				 "%s: addresses and a list together; give one of the two",
				 command->name);
	if (!json_object_get(request, "prefixes") && !json_object_get(request, "list"))
		return error_set(err, -EINVAL,
				 "%s: no address given; expected ADDR[/LEN] or -f FILE",
				 command->name);
	return 0;
}

/* ---- the command line ---- */

/* The command that the first words name; *ret_words is how many words its name has. */
static const struct command *find_by_words(int argc, char *const argv[], int *ret_words)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		const char *space = strchr(commands[i].name, ' ');
		size_t first =
			space ? (size_t)(space - commands[i].name) : strlen(commands[i].name);

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
	size_t n = strlen(argv[0]), used = 0;
	char verbs[128] = "";

	for (size_t i = 0; i < COMMAND_COUNT; i++) {
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

/* What is told with the text lies elsewhere, or there is nothing to tell. */
static bool is_true_on_wire(const struct command_arg *arg)
{
	return arg->type == ARG_LIST || arg->type == ARG_FLAG;
}

static int put(json_t *request, const struct command_arg *arg, const char *value, struct error *err)
{
	json_t *text;
	int r = check_text(arg->type, value, err);

	if (r < 0) {
		if (arg->option)
			error_prepend(err, "%s: ", arg->option);
		return r;
	}
	text = is_true_on_wire(arg) ? json_true() : json_string(value);
	if (!text)
		return error_set(err, -EINVAL, "\"%.80s\" is not UTF-8", value);
	if (arg->repeated) {
		json_t *array = json_object_get(request, arg->field);

		if (!array) {
			array = json_array();
			json_object_set_new(request, arg->field, array);
		}
		if (json_array_size(array) >= PREFIXES_MAX) {
			json_decref(text);
			return error_set(
				err, -EINVAL,
				"more than %d addresses on the command line; put them into "
				"a file and use -f FILE",
				PREFIXES_MAX);
		}
		return json_array_append_new(array, text) ? error_no_memory(err) : 0;
	}
	if (json_object_get(request, arg->field)) {
		json_decref(text);
		return error_set(err, -EINVAL, "%s is given twice",
				 arg->option ? arg->option : arg->meta);
	}
	return json_object_set_new(request, arg->field, text) ? error_no_memory(err) : 0;
}

/*
 * The option that `word` names, as "--ttl", "--ttl=VALUE", "-f" or "-fVALUE"; *ret_value is VALUE
 * or NULL.
 */
static const struct command_arg *find_option(const struct command *command, const char *word,
					     const char **ret_value)
{
	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		size_t n = arg->option ? strlen(arg->option) : 0;

		if (!n || strncmp(word, arg->option, n) != 0)
			continue;
		if (word[1] != '-' || !word[n]) {
			*ret_value = word[n] ? word + n : NULL;
			return arg;
		}
		if (word[n] == '=') {
			*ret_value = word + n + 1;
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
		if (!arg->option && !arg->unasked &&
		    (arg->repeated || !json_object_get(request, arg->field)))
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

/* The words not read yet. */
struct words {
	int n;
	char *const *at;
};

static const char *take_word(struct words *words)
{
	words->n--;
	return *words->at++;
}

static const struct tool_option *find_tool_option(const char *word)
{
	if (!strcmp(word, "-h"))
		word = "--help";
	for (const struct tool_option *option = tool_options; option->name; option++) {
		size_t n = strlen(option->name);

		if (!strcmp(word, option->name) ||
		    (option->meta && word[1] != '-' && !strncmp(word, option->name, n)))
			return option;
	}
	return NULL;
}

/* The value of an option: `value` where it came in the same word, else the next word. */
static int take_value(const char *option, const char *meta, struct words *words, const char **value,
		      struct error *err)
{
	if (*value)
		return 0;
	if (!words->n)
		return error_set(err, -EINVAL, "%s needs a value: %s", option, meta);
	*value = take_word(words);
	return 0;
}

/* Takes one of fwctl's own options, whose word was taken. */
static int put_tool_option(const struct tool_option *option, const char *word, struct words *words,
			   struct invocation *in, struct error *err)
{
	if (option->meta) { /* -s is the only one that has a value: "-s SOCKET" or "-sSOCKET" */
		if (in->socket_path)
			return error_set(err, -EINVAL, "%s is given twice", option->name);
		in->socket_path = word[2] ? word + 2 : NULL;
		return take_value(option->name, option->meta, words, &in->socket_path, err);
	}
	in->json |= !strcmp(option->name, "--json");
	in->help |= !strcmp(option->name, "--help");
	in->version |= !strcmp(option->name, "--version");
	return 0;
}

/* Takes what begins with `word`: an option with its value, or a positional argument. */
static int put_word(const char *word, bool options, struct words *words, struct invocation *in,
		    struct error *err)
{
	const struct command *command = in->command;
	const struct command_arg *arg;
	const char *value = word;
	int r;

	if (options && !strcmp(word, "-") && list_arg(command)) {
		arg = list_arg(command);
	} else if (options && word[0] == '-' && word[1]) {
		arg = find_option(command, word, &value);
		if (!arg && find_tool_option(word))
			return put_tool_option(find_tool_option(word), word, words, in, err);
		if (!arg)
			return error_set(err, -EINVAL,
					 "%s has no option \"%.80s\"; see fwctl %s --help",
					 command->name, word, command->name);
		if (arg->type == ARG_FLAG && value)
			return error_set(err, -EINVAL, "%s takes no value", arg->option);
		r = arg->type == ARG_FLAG ? 0
					  : take_value(arg->option, arg->meta, words, &value, err);
		if (r < 0)
			return r;
	} else {
		arg = next_positional(command, in->request);
		if (!arg)
			return error_set(err, -EINVAL,
					 "%s: unexpected \"%.80s\"; see fwctl %s --help",
					 command->name, word, command->name);
	}
	if (arg->type == ARG_LIST)
		in->list_path = value;
	return put(in->request, arg, value, err);
}

static int read_arguments(struct words *words, struct invocation *in, struct error *err)
{
	bool options = true;

	in->request = json_object();
	if (json_object_set_new(in->request, "command", json_string(in->command->name)))
		return error_no_memory(err);
	while (words->n && !in->help && !in->version) {
		const char *word = take_word(words);
		int r;

		if (options && !strcmp(word, "--")) {
			options = false;
			continue;
		}
		r = put_word(word, options, words, in, err);
		if (r < 0)
			return r;
	}
	return in->help || in->version ? 0 : check_whole(in->command, in->request, err);
}

static bool is_group(const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; n && i < COMMAND_COUNT; i++)
		if (!strncmp(commands[i].name, word, n) && commands[i].name[n] == ' ')
			return true;
	return false;
}

/* `help`, or --help in front of the command: of what the words that follow name. */
static int read_help(struct words *words, struct invocation *in, struct error *err)
{
	int n = 0;

	in->help = true;
	if (!words->n)
		return 0;
	in->command = find_by_words(words->n, words->at, &n);
	if (!in->command && is_group(words->at[0]) && words->n == 1) {
		in->group = words->at[0];
		return 0;
	}
	return in->command ? 0 : unknown_command(words->n, words->at, err);
}

static int read_command(struct words *words, struct invocation *in, struct error *err)
{
	int n = 0, r;

	while (words->n && words->at[0][0] == '-' && !in->help && !in->version) {
		const char *word = take_word(words);
		const struct tool_option *option = find_tool_option(word);

		if (!option)
			return error_set(err, -EINVAL,
					 "fwctl has no option \"%.80s\"; see fwctl --help", word);
		r = put_tool_option(option, word, words, in, err);
		if (r < 0)
			return r;
	}
	if (in->version)
		return 0;
	if (words->n && !in->help && !strcmp(words->at[0], "help")) {
		take_word(words);
		in->help = true;
	}
	if (in->help)
		return read_help(words, in, err);
	if (!words->n)
		return error_set(err, -EINVAL, "no command given; see fwctl --help");
	in->command = find_by_words(words->n, words->at, &n);
	if (!in->command && words->n > 1 && is_group(words->at[0]) &&
	    find_tool_option(words->at[1]) == find_tool_option("--help")) {
		in->group = words->at[0];
		in->help = true;
		return 0;
	}
	if (!in->command)
		return unknown_command(words->n, words->at, err);
	words->n -= n;
	words->at += n;
	return read_arguments(words, in, err);
}

int command_from_argv(int argc, char *const argv[], struct invocation *ret, struct error *err)
{
	struct words words = {.n = argc < 0 ? 0 : argc, .at = argv};
	int r;

	*ret = (struct invocation){0};
	r = read_command(&words, ret, err);
	if (r < 0 || ret->help || ret->version) {
		json_decref(ret->request);
		ret->request = NULL;
	}
	return r;
}

char *command_usage(const struct command *command)
{
	bool takes_list = list_arg(command);
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "fwctl %s", command->name);
	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		if (arg->unasked)
			continue;
		if (arg->type == ARG_LIST)
			fprintf(out, " %s%s %s | -}", arg->required ? "{" : "| ", arg->option,
				arg->meta);
		else if (arg->repeated)
			fprintf(out, " %s%s...", takes_list ? "{" : "", arg->meta);
		else if (arg->option && arg->meta)
			fprintf(out, " [%s %s]", arg->option, arg->meta);
		else if (arg->option)
			fprintf(out, " [%s]", arg->option);
		else
			fprintf(out, arg->required ? " %s" : " [%s]", arg->meta);
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
		if (!commands[i].local && !strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

static int check_field(const struct command_arg *arg, const json_t *value, struct error *err)
{
	const json_t *item;
	size_t i;
	int r;

	if (is_true_on_wire(arg))
		return json_is_true(value)
			       ? 0
			       : error_set(err, -EINVAL, "\"%s\" is not true", arg->field);
	if (!arg->repeated)
		return json_is_string(value)
			       ? check_text(arg->type, json_string_value(value), err)
			       : error_set(err, -EINVAL, "\"%s\" is not a string", arg->field);
	if (!json_is_array(value) || !json_array_size(value) ||
	    json_array_size(value) > PREFIXES_MAX)
		return error_set(err, -EINVAL, "\"%s\" is not an array of 1 to %d strings",
				 arg->field, PREFIXES_MAX);
	for (i = 0; i < json_array_size(value); i++) {
		item = json_array_get(value, i);
		if (!json_is_string(item))
			return error_set(err, -EINVAL, "\"%s\"[%zu] is not a string", arg->field,
					 i);
		r = check_text(arg->type, json_string_value(item), err);
		if (r < 0)
			return r;
	}
	return 0;
}

const struct command_arg *command_find_field(const struct command *command, const char *field)
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
		arg = command_find_field(command, field);
		if (!arg)
			return error_set(err, -EINVAL, "%s has no field \"%.80s\"", command->name,
					 field);
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

int request_decode(const char *line, size_t size, json_t **ret_request,
		   const struct command **ret_command, struct error *err)
{
	json_error_t why;
	json_t *request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &why);
	int r;

	if (!request)
		return error_set(err, -EBADMSG, "the request is not JSON: %s (byte %d)", why.text,
				 why.position);
	r = command_from_request(request, ret_command, err);
	if (r < 0) {
		json_decref(request);
		return r;
	}
	*ret_request = request;
	return 0;
}

const char *error_code_name(int code)
{
	switch (code) {
	case -EINVAL:
	case -EBADMSG:
		return ERROR_CODE_INVALID;
	case -ENOENT:
		return ERROR_CODE_NOT_FOUND;
	case -ENOSPC:
		return ERROR_CODE_FULL;
	case -EEXIST:
		return ERROR_CODE_CONFLICT;
	case -EHOSTUNREACH:
		return ERROR_CODE_LOCKOUT;
	case -EPERM:
	case -EACCES:
		return ERROR_CODE_NOT_PERMITTED;
	case -EBUSY:
		return ERROR_CODE_BUSY;
	default:
		return ERROR_CODE_FAILED;
	}
}
