// SPDX-License-Identifier: GPL-2.0-or-later
#include "command.h"

#include "cleanup.h"
#include "protocol.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX 1100

/* Splits `line` at blanks; words of several words come in `last`. */
static int read_line(const char *line, const char *last, struct invocation *ret, struct error *err)
{
	char copy[256], *words[WORDS_MAX];
	int n = 0, r;

	strcpy(copy, line);
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		words[n++] = word;
	if (last)
		words[n++] = (char *)last;
	err->text[0] = '\0';
	r = command_from_argv(n, words, ret, err);
	ret->list_path = ret->list_path ? strdup(ret->list_path) : NULL; /* points into `copy` */
	ret->socket_path = ret->socket_path ? strdup(ret->socket_path) : NULL;
	ret->group = ret->group ? strdup(ret->group) : NULL;
	return r;
}

static void drop(struct invocation *in)
{
	json_decref(in->request);
	free((char *)in->list_path);
	free((char *)in->socket_path);
	free((char *)in->group);
}

static void requests(const char *line, const char *last, const char *json)
{
	json_auto_t *expected = json_loads(json, 0, NULL);
	const struct command *command;
	struct invocation in;
	struct error err;

	cr_assert(expected, "%s", json);
	cr_expect_eq(read_line(line, last, &in, &err), 0, "%s: %s", line, err.text);
	cr_expect(json_equal(in.request, expected), "%s", line);
	cr_expect_eq(command_from_request(in.request, &command, &err), 0, "%s: %s", line, err.text);
	cr_expect_eq(command, in.command);
	drop(&in);
}

static void refused(const char *line, const char *last, const char *why)
{
	struct invocation in;
	struct error err;

	cr_expect_eq(read_line(line, last, &in, &err), -EINVAL, "%s was accepted", line);
	cr_expect(strstr(err.text, why), "%s: %s", line, err.text);
	cr_expect_null(in.request);
	drop(&in);
}

Test(command, table_is_whole)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		bool optional = false;

		cr_expect(commands[i].name && commands[i].summary && commands[i].group &&
			  commands[i].example);
		cr_expect_eq(command_index(&commands[i]), i);
		for (const struct command_arg *arg = commands[i].args; arg->field; arg++) {
			cr_expect(arg->help, "%s %s", commands[i].name, arg->field);
			/* What has no value has no name for it, and is an option that may be left
			 * out. */
			cr_expect_eq(!arg->meta, arg->type == ARG_FLAG || arg->unasked, "%s",
				     arg->field);
			cr_expect(arg->meta || (!arg->option == arg->unasked && !arg->required &&
						!arg->repeated));
			cr_expect(!arg->repeated || !arg->option, "%s", arg->field);
			cr_expect(arg->option || !arg->required || !optional, "%s", arg->field);
			optional |= !arg->option && !arg->required;
		}
	}
}

Test(command, options_of_commands_are_none_of_the_tool)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		for (const struct command_arg *arg = commands[i].args; arg->field; arg++)
			for (const struct tool_option *option = tool_options; option->name;
			     option++)
				cr_expect(!arg->option || strcmp(arg->option, option->name) != 0);
}

Test(command, line_becomes_a_request_that_the_daemon_takes)
{
	requests("add 10.0.0.5 2001:db8::/32 --ttl 1h30m --comment", "two words",
		 "{\"command\": \"add\", \"prefixes\": [\"10.0.0.5\", \"2001:db8::/32\"], "
		 "\"ttl\": \"1h30m\", \"comment\": \"two words\"}");
	requests("add --ttl=5m --comment= 10.0.0.5", NULL,
		 "{\"command\": \"add\", \"prefixes\": [\"10.0.0.5\"], \"ttl\": \"5m\", "
		 "\"comment\": \"\"}");
	requests("add 10.0.0.5 --comment", "--json",
		 "{\"command\": \"add\", \"prefixes\": [\"10.0.0.5\"], \"comment\": \"--json\"}");
	requests("add 10.0.0.5 --ttl 61s --confirm 1m", NULL,
		 "{\"command\": \"add\", \"prefixes\": [\"10.0.0.5\"], \"ttl\": \"61s\", "
		 "\"confirm\": \"1m\"}");
	requests("reload", NULL, "{\"command\": \"reload\"}");
	requests("reload --confirm 60s", NULL, "{\"command\": \"reload\", \"confirm\": \"60s\"}");
	requests("confirm", NULL, "{\"command\": \"confirm\"}");
	requests("add 10.0.0.5 --force", NULL,
		 "{\"command\": \"add\", \"prefixes\": [\"10.0.0.5\"], \"force\": true}");
	requests("del -- 10.0.0.5", NULL, "{\"command\": \"del\", \"prefixes\": [\"10.0.0.5\"]}");
	requests("list", NULL, "{\"command\": \"list\"}");
	requests(
		"list 10.0.0.0/8 --origin my-feed_1.a", NULL,
		"{\"command\": \"list\", \"prefix\": \"10.0.0.0/8\", \"origin\": \"my-feed_1.a\"}");
	requests("test ::1", NULL, "{\"command\": \"test\", \"address\": \"::1\"}");
	requests("flush", NULL, "{\"command\": \"flush\"}");
	requests("allow add ::/0", NULL, "{\"command\": \"allow add\", \"prefixes\": [\"::/0\"]}");
	requests("feed list", NULL, "{\"command\": \"feed list\"}");
	requests("feed replace drop -f drop.txt", NULL,
		 "{\"command\": \"feed replace\", \"name\": \"drop\", \"list\": true}");
	requests("feed reload", NULL, "{\"command\": \"feed reload\"}");
	requests("feed reload drop", NULL, "{\"command\": \"feed reload\", \"name\": \"drop\"}");
	requests(
		"redirect del --on eth0 udp/1-2", NULL,
		"{\"command\": \"redirect del\", \"interface\": \"eth0\", \"ports\": \"udp/1-2\"}");
	requests("redirect add tcp/80 tun0 --mode l2 --direction out", NULL,
		 "{\"command\": \"redirect add\", \"ports\": \"tcp/80\", \"target\": \"tun0\", "
		 "\"mode\": \"l2\", \"direction\": \"out\"}");
}

Test(command, list_comes_from_a_file_or_standard_input)
{
	static const char *const lines[] = {
		"add -f drop.txt", "add -fdrop.txt", "allow del -f drop.txt",
		"feed replace drop -f drop.txt", "feed replace -f drop.txt drop"};
	struct invocation in;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		cr_expect_eq(read_line(lines[i], NULL, &in, &err), 0, "%s", err.text);
		cr_expect_str_eq(in.list_path, "drop.txt");
		cr_expect(json_is_true(json_object_get(in.request, "list")));
		drop(&in);
	}
	cr_expect_eq(read_line("del -", NULL, &in, &err), 0);
	cr_expect_str_eq(in.list_path, "-");
	drop(&in);
	cr_expect_eq(read_line("feed replace drop -", NULL, &in, &err), 0);
	cr_expect_str_eq(in.list_path, "-");
	drop(&in);
	refused("add -f", NULL, "-f needs a value: FILE");
	refused("add -f a -f b", NULL, "-f is given twice");
	refused("add - -", NULL, "-f is given twice");
	refused("add -f a 10.0.0.1", NULL, "addresses and a list together");
	refused("test -", NULL, "\"-\" is not an IPv4 or IPv6 address");
	refused("list -f x", NULL, "list has no option \"-f\"");
}

Test(command, options_of_the_tool_are_good_on_both_sides)
{
	static const char *const lines[] = {"-s x --json list", "--json list -s x",
					    "list -sx --json", "-sx list --json"};
	struct invocation in;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		cr_expect_eq(read_line(lines[i], NULL, &in, &err), 0, "%s", err.text);
		cr_expect(in.json, "%s", lines[i]);
		cr_expect_str_eq(in.socket_path, "x");
		drop(&in);
	}
	refused("list -s", NULL, "-s needs a value: SOCKET");
	refused("-s x list -s y", NULL, "-s is given twice");
	refused("list -- --json", NULL, "\"--json\" is not an IPv4 or IPv6");
	refused("--jso list", NULL, "fwctl has no option \"--jso\"");
	refused("list --json=1", NULL, "list has no option \"--json=1\"");
}

Test(command, help_knows_commands_and_groups)
{
	static const struct {
		const char *line, *command, *group;
	} rows[] = {
		{"help", NULL, NULL},
		{"--help", NULL, NULL},
		{"-h", NULL, NULL},
		{"help redirect", NULL, "redirect"},
		{"--help allow", NULL, "allow"},
		{"redirect --help", NULL, "redirect"},
		{"redirect -h", NULL, "redirect"},
		{"help redirect add", "redirect add", NULL},
		{"redirect add --help", "redirect add", NULL},
		{"add 10.0.0.1 -h", "add", NULL},
		{"--json help add", "add", NULL},
	};
	struct invocation in;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		cr_expect_eq(read_line(rows[i].line, NULL, &in, &err), 0, "%s", err.text);
		cr_expect(in.help && !in.request, "%s", rows[i].line);
		cr_expect_eq(!in.command, !rows[i].command, "%s", rows[i].line);
		cr_expect(!in.command || !strcmp(in.command->name, rows[i].command));
		cr_expect_eq(!in.group, !rows[i].group, "%s", rows[i].line);
		cr_expect(!in.group || !strcmp(in.group, rows[i].group));
		drop(&in);
	}
	cr_expect_eq(read_line("--version", NULL, &in, &err), 0);
	cr_expect(in.version);
	refused("help frob", NULL, "unknown command \"frob\"");
	refused("help redirect frob", NULL, "redirect has no \"frob\"; it takes add, del, list");
}

Test(command, is_named_whole)
{
	refused("", NULL, "no command given");
	refused("ad 10.0.0.1", NULL, "unknown command \"ad\"");
	refused("adds 10.0.0.1", NULL, "unknown command \"adds\"");
	refused("redirect", NULL, "redirect takes one of: add, del, list");
	refused("redirect ad", NULL, "redirect has no \"ad\"; it takes add, del, list");
	refused("", "", "unknown command \"\"");
	refused("", "redirect add", "unknown command \"redirect add\"");
}

Test(command, arguments_are_checked)
{
	refused("add", NULL, "no address given; expected ADDR[/LEN] or -f FILE");
	refused("add 10.0.0.300", NULL, "\"10.0.0.300\" is not");
	refused("add", "", "\"\" is empty");
	refused("add 10.0.0.1 --ttl 1y", NULL, "--ttl: \"1y\" is not a time");
	refused("add 10.0.0.1 --ttl 1s --ttl 2s", NULL, "--ttl is given twice");
	refused("add 10.0.0.1 --ttl", NULL, "--ttl needs a value: TIME");
	refused("add 10.0.0.1 --tt 1s", NULL, "add has no option \"--tt\"");
	refused("add 10.0.0.1 --ttls 1s", NULL, "add has no option \"--ttls\"");
	refused("add 10.0.0.1 --comment", "\x1b[31m", "control characters");
	refused("add 10.0.0.1 --comment", "\xc2\x9b", "control characters");
	refused("add 10.0.0.1 --comment", "\xff", "not UTF-8");
	refused("list 10.0.0.1 10.0.0.2", NULL, "list: unexpected \"10.0.0.2\"");
	refused("list --origin", "a b", "is not an origin");
	refused("list --origin=", NULL, "is not an origin");
	refused("feed replace", NULL, "feed replace: NAME is missing");
	refused("feed replace -f x", NULL, "feed replace: NAME is missing");
	refused("feed replace drop", NULL, "feed replace: no list given; expected -f FILE or -");
	refused("feed replace drop 10.0.0.1", NULL, "feed replace: unexpected \"10.0.0.1\"");
	refused("feed replace drop 10.0.0.1 -f x", NULL, "feed replace: unexpected \"10.0.0.1\"");
	refused("feed replace a/b -", NULL, "\"a/b\" is not a feed's name: 1 to 32 of A-Z");
	refused("feed replace runtime -", NULL, "\"runtime\" is an origin, but not a feed");
	refused("feed reload config", NULL, "\"config\" is an origin, but not a feed");
	refused("feed reload a b", NULL, "feed reload: unexpected \"b\"");
	refused("feed", NULL, "feed takes one of: list, replace, reload");
	refused("test", NULL, "test: ADDR is missing");
	refused("test 10.0.0.0/8", NULL, "is a prefix; expected one address");
	refused("flush all", NULL, "flush: unexpected \"all\"");
	refused("redirect add tcp/80", NULL, "redirect add: TARGET is missing");
	refused("redirect add tcp/80 a/b", NULL, "is not an interface name");
	refused("redirect add tcp/80 tun0 --mode fast", NULL, "--mode: \"fast\" is not a mode");
	refused("redirect del tcp/80 --direction up", NULL, "\"up\" is not a direction");
}

Test(command, confirmation_waits_from_1_second_to_1_hour)
{
	requests("reload --confirm 1", NULL, "{\"command\": \"reload\", \"confirm\": \"1\"}");
	requests("reload --confirm 3600", NULL, "{\"command\": \"reload\", \"confirm\": \"3600\"}");
	refused("reload --confirm 0", NULL, "--confirm: ");
	refused("reload --confirm 3601", NULL,
		"--confirm: \"3601\" is too long to wait for a confirmation; expected 1s to 1h");
	refused("reload --confirm", NULL, "--confirm needs a value: TIME");
	refused("confirm 10.0.0.1", NULL, "confirm: unexpected \"10.0.0.1\"");
	refused("del 10.0.0.1 --confirm 1m", NULL, "del has no option \"--confirm\"");
}

Test(command, what_ends_before_it_would_go_back_needs_no_confirmation)
{
	refused("add 10.0.0.1 --ttl 60 --confirm 1m", NULL,
		"--ttl 60 is over by the end of --confirm 1m, so that there is nothing to confirm");
	refused("add 10.0.0.1 --confirm 1m --ttl 1s", NULL, "nothing to confirm");
	requests("add 10.0.0.1 --confirm 1m --ttl 61", NULL,
		 "{\"command\": \"add\", \"prefixes\": [\"10.0.0.1\"], \"ttl\": \"61\", "
		 "\"confirm\": \"1m\"}");
}

/* A text of n bytes. */
static const char *bytes(size_t n)
{
	static char text[REQUEST_MAX_BYTES];

	memset(text, 'x', n);
	text[n] = '\0';
	return text;
}

Test(command, comment_has_128_bytes_at_most)
{
	struct invocation in;
	struct error err;

	cr_expect_eq(read_line("add ::1 --comment", bytes(COMMENT_MAX), &in, &err), 0);
	drop(&in);
	refused("add ::1 --comment", bytes(COMMENT_MAX + 1),
		"a comment of 129 bytes; the longest is 128");
}

Test(command, origin_has_32_bytes_at_most)
{
	struct invocation in;
	struct error err;

	cr_expect_eq(read_line("list --origin", bytes(ORIGIN_NAME_MAX), &in, &err), 0);
	drop(&in);
	refused("list --origin", bytes(ORIGIN_NAME_MAX + 1), "is not an origin");
	cr_expect_eq(read_line("feed reload", bytes(ORIGIN_NAME_MAX), &in, &err), 0);
	drop(&in);
	refused("feed reload", bytes(ORIGIN_NAME_MAX + 1), "is not a feed's name");
}

Test(command, interface_has_15_bytes_at_most)
{
	struct invocation in;
	struct error err;

	cr_expect_eq(read_line("redirect add tcp/1", bytes(15), &in, &err), 0);
	drop(&in);
	refused("redirect add tcp/1", bytes(16), "1 to 15 bytes");
}

Test(command, line_has_1000_addresses_at_most_and_they_fit_a_request)
{
	char longest[] = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
	     *words[WORDS_MAX] = {(char *)"add", (char *)"--comment", (char *)bytes(COMMENT_MAX)};
	_cleanup_free_ char *line = NULL;
	struct invocation in;
	struct error err;

	for (size_t i = 3; i < 3 + PREFIXES_MAX + 1; i++)
		words[i] = longest;
	cr_assert_eq(command_from_argv(3 + PREFIXES_MAX, words, &in, &err), 0, "%s", err.text);
	line = json_dumps(in.request, 0);
	cr_expect_lt(strlen(line) + 1, REQUEST_MAX_BYTES);
	json_decref(in.request);
	cr_expect_eq(command_from_argv(3 + PREFIXES_MAX + 1, words, &in, &err), -EINVAL);
	cr_expect(strstr(err.text, "more than 1000 addresses on the command line"));
}

static void request_refused(const char *json, const char *why)
{
	json_auto_t *request = json_loads(json, JSON_DECODE_ANY, NULL);
	const struct command *command = NULL;
	struct error err = {""};

	cr_assert(request, "%s", json);
	cr_expect_eq(command_from_request(request, &command, &err), -EINVAL, "%s", json);
	cr_expect(strstr(err.text, why), "%s: %s", json, err.text);
	cr_expect_null(command);
}

Test(command, request_is_checked_as_the_line_is)
{
	request_refused("[]", "not a JSON object");
	request_refused("7", "not a JSON object");
	request_refused("{}", "no \"command\"");
	request_refused("{\"command\": 1}", "no \"command\"");
	request_refused("{\"command\": \"frob\"}", "unknown command \"frob\"");
	request_refused("{\"command\": \"redirect\"}", "unknown command");
	request_refused("{\"command\": \"flush\", \"force\": true}",
			"flush has no field \"force\"");
	request_refused("{\"command\": \"test\"}", "test: ADDR is missing");
	request_refused("{\"command\": \"test\", \"address\": null}",
			"\"address\" is not a string");
	request_refused("{\"command\": \"test\", \"address\": [\"::1\"]}",
			"\"address\" is not a string");
	request_refused("{\"command\": \"test\", \"address\": \"::1/128\"}", "is a prefix");
	request_refused("{\"command\": \"add\"}", "no address given");
	request_refused("{\"command\": \"add\", \"prefixes\": \"::1\"}",
			"is not an array of 1 to 1000");
	request_refused("{\"command\": \"add\", \"prefixes\": []}", "is not an array of 1 to 1000");
	request_refused("{\"command\": \"add\", \"prefixes\": [\"::1\", 1]}",
			"\"prefixes\"[1] is not");
	request_refused("{\"command\": \"add\", \"prefixes\": [\"::1\", \"x\"]}", "\"x\" is not");
	request_refused("{\"command\": \"add\", \"list\": false}", "\"list\" is not true");
	request_refused("{\"command\": \"add\", \"list\": \"drop.txt\"}", "\"list\" is not true");
	request_refused("{\"command\": \"add\", \"list\": true, \"prefixes\": [\"::1\"]}",
			"addresses and a list together");
	request_refused("{\"command\": \"feed replace\", \"name\": \"drop\"}", "no list given");
	request_refused("{\"command\": \"feed replace\", \"list\": true}", "NAME is missing");
	request_refused("{\"command\": \"feed replace\", \"name\": \"drop\", "
			"\"prefixes\": [\"::1\"]}",
			"feed replace has no field \"prefixes\"");
	request_refused("{\"command\": \"feed reload\", \"name\": null}",
			"\"name\" is not a string");
	request_refused("{\"command\": \"add\", \"list\": true, \"ttl\": 60}",
			"\"ttl\" is not a string");
	request_refused("{\"command\": \"add\", \"list\": true, \"comment\": \"\\u009b\"}",
			"control characters");
}

Test(command, request_has_1000_prefixes_at_most)
{
	json_auto_t *request = json_pack("{s:s, s:[]}", "command", "add", "prefixes");
	json_t *prefixes = json_object_get(request, "prefixes");
	const struct command *command;
	struct error err;

	for (int i = 0; i < PREFIXES_MAX; i++)
		json_array_append_new(prefixes, json_string("::1"));
	cr_expect_eq(command_from_request(request, &command, &err), 0);
	json_array_append_new(prefixes, json_string("::1"));
	cr_expect_eq(command_from_request(request, &command, &err), -EINVAL);
}

Test(command, a_local_command_is_none_on_the_wire)
{
	json_auto_t *request = json_pack("{s:s}", "command", "doctor");
	const struct command *command;
	struct invocation in;
	struct error err;

	cr_assert_eq(read_line("doctor", NULL, &in, &err), 0);
	cr_expect(in.command->local);
	drop(&in);
	cr_expect_eq(command_from_request(request, &command, &err), -EINVAL);
	cr_expect_str_eq(err.text, "unknown command \"doctor\"");
}

Test(command, error_of_a_request_is_utf8_wherever_it_was_cut)
{
	/* 79 bytes and a character of two: the 80 that an error quotes end in its middle. */
	json_auto_t *request = json_pack("{s:s+}", "command", bytes(79), "\xc3\xa9");
	const struct command *command;
	struct error err;
	json_auto_t *text = NULL;

	cr_expect_eq(command_from_request(request, &command, &err), -EINVAL);
	text = json_string(err.text);
	cr_expect(text);
}

Test(command, what_fwctl_sends_by_itself_cannot_be_typed)
{
	static const char request[] = "{\"command\": \"add\", \"prefixes\": [\"10.0.0.5\"], "
				      "\"ssh_client\": \"%s\"}";
	const struct command *command;
	char line[128];
	json_t *object;
	struct error err;

	cr_expect(command_find_field(&commands[COMMAND_ADD], "ssh_client"));
	cr_expect(command_find_field(&commands[COMMAND_ALLOW_DEL], "ssh_client"));
	cr_expect_null(command_find_field(&commands[COMMAND_DEL], "ssh_client"));
	refused("add 10.0.0.5 --ssh_client 192.0.2.7", NULL, "no option");
	snprintf(line, sizeof(line), request, "192.0.2.7");
	cr_assert_eq(request_decode(line, strlen(line), &object, &command, &err), 0, "%s",
		     err.text);
	json_decref(object);
	snprintf(line, sizeof(line), request, "192.0.2.0/24");
	cr_expect_eq(request_decode(line, strlen(line), &object, &command, &err), -EINVAL);
}

Test(command, usage_names_every_argument)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		_cleanup_free_ char *usage = command_usage(&commands[i]);

		cr_expect(strstr(usage, commands[i].name));
		for (const struct command_arg *arg = commands[i].args; arg->field; arg++)
			cr_expect(arg->unasked ||
					  strstr(usage, arg->option ? arg->option : arg->meta),
				  "%s", usage);
	}
	_cleanup_free_ char *add = command_usage(&commands[COMMAND_ADD]);
	_cleanup_free_ char *list = command_usage(&commands[COMMAND_LIST]);
	_cleanup_free_ char *replace = command_usage(&commands[COMMAND_FEED_REPLACE]);

	cr_expect_str_eq(add,
			 "fwctl add {ADDR[/LEN]... | -f FILE | -} [--ttl TIME] [--comment TEXT] "
			 "[--confirm TIME] [--force]");
	cr_expect_str_eq(list, "fwctl list [ADDR[/LEN]] [--origin NAME]");
	cr_expect_str_eq(replace, "fwctl feed replace NAME {-f FILE | -}");
}

static enum privilege privilege_of(const char *text)
{
	json_auto_t *request = json_loads(text, 0, NULL);
	const struct command *command = NULL;
	struct error err;

	cr_assert_eq(command_from_request(request, &command, &err), 0, "%s", err.text);
	return request_privilege(command, request);
}

Test(command, privilege_is_the_commands_or_that_of_an_argument_it_has)
{
	cr_expect_eq(privilege_of("{\"command\": \"verify\"}"), PRIVILEGE_LOOK);
	cr_expect_eq(privilege_of("{\"command\": \"verify\", \"repair\": true}"), PRIVILEGE_CHANGE);
	cr_expect_eq(privilege_of("{\"command\": \"list\", \"origin\": \"drop\"}"), PRIVILEGE_LOOK);
	cr_expect_eq(privilege_of("{\"command\": \"flush\"}"), PRIVILEGE_CHANGE);
}

Test(command, error_codes_are_those_of_the_protocol)
{
	cr_expect_str_eq(error_code_name(-EINVAL), "invalid");
	cr_expect_str_eq(error_code_name(-EHOSTUNREACH), "lockout");
	cr_expect_str_eq(error_code_name(-ENOENT), "not-found");
	cr_expect_str_eq(error_code_name(-ENOSPC), "full");
	cr_expect_str_eq(error_code_name(-EEXIST), "conflict");
	cr_expect_str_eq(error_code_name(-EPERM), "not-permitted");
	cr_expect_str_eq(error_code_name(-EACCES), "not-permitted");
	cr_expect_str_eq(error_code_name(-EBUSY), "busy");
	cr_expect_str_eq(error_code_name(-EIO), "failed");
}
