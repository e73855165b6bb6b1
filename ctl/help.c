// SPDX-License-Identifier: GPL-2.0-or-later
#include "help.h"

#include "cleanup.h"

#include <stdio.h>
#include <string.h>

#define HELP_WIDTH 80

/* What stays on one line: a word, or all of "[--ttl TIME]" and "{A | B}". */
static size_t word_size(const char *text)
{
	const char *close = NULL;

	if (*text == '[')
		close = strchr(text, ']');
	else if (*text == '{')
		close = strchr(text, '}');
	return close ? (size_t)(close + 1 - text) : strcspn(text, " ");
}

/* Prints words behind `column` characters that are there, wrapped, later lines indented so far. */
static void print_wrapped(const char *text, size_t column, size_t indent)
{
	bool first = true;

	for (const char *word = text; *word;) {
		size_t n = word_size(word);

		if (!first && column + 1 + n > HELP_WIDTH) {
			printf("\n%*s", (int)indent, "");
			column = indent;
			first = true;
		}
		printf("%s%.*s", first ? "" : " ", (int)n, word);
		column += n + !first;
		first = false;
		word += n + strspn(word + n, " ");
	}
	putchar('\n');
}

/* "  LABEL   text", the texts of several calls below each other. */
static void print_item(const char *label, size_t label_width, const char *text)
{
	size_t indent = label_width + 4;

	if (strlen(label) > label_width)
		printf("  %s\n%*s", label, (int)indent, "");
	else
		printf("  %-*s  ", (int)label_width, label);
	print_wrapped(text, indent, indent);
}

static bool in_group(const struct command *command, const char *group)
{
	size_t n = group ? strlen(group) : 0;

	return !group || (!strncmp(command->name, group, n) && command->name[n] == ' ');
}

static void print_commands(const char *group)
{
	const char *heading = "";

	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		const struct command *command = &commands[i];

		if (!in_group(command, group))
			continue;
		if (strcmp(heading, command->group) != 0)
			printf("\n%s:\n", command->group);
		heading = command->group;
		print_item(command->name, strlen("redirect list"), command->summary);
	}
}

static void print_tool_options(void)
{
	puts("\nOptions, before or behind the command:");
	for (const struct tool_option *option = tool_options; option->name; option++) {
		char label[32];

		snprintf(label, sizeof(label), "%s%s%s", option->name, option->meta ? " " : "",
			 option->meta ? option->meta : "");
		print_item(label, strlen("redirect list"), option->help);
	}
}

static void print_overview(const char *group)
{
	printf("Usage: fwctl [-s SOCKET] [--json] %s%sCOMMAND ...\n", group ? group : "",
	       group ? " " : "");
	print_commands(group);
	print_tool_options();
	puts("\nExit status: 0 done, 1 refused or failed, 2 bad command line, 3 no daemon,\n"
	     "4 not permitted. \"fwctl help COMMAND\" tells more of one.");
}

static void print_command(const struct command *command)
{
	_cleanup_free_ char *usage = command_usage(command);

	fputs("Usage: ", stdout);
	print_wrapped(usage ? usage : command->name, strlen("Usage: "), strlen("Usage: fwctl "));
	putchar('\n');
	print_wrapped(command->summary, 0, 0);
	if (command->args[0].field)
		putchar('\n');
	for (const struct command_arg *arg = command->args; arg->field; arg++) {
		char label[64];

		if (arg->unasked)
			continue;
		snprintf(label, sizeof(label), "%s%s%s%s", arg->option ? arg->option : "",
			 arg->option && arg->meta ? " " : "", arg->meta ? arg->meta : "",
			 arg->repeated ? "..." : "");
		print_item(label, strlen("PROTO/PORT[-PORT]"), arg->help);
	}
	printf("\nExample:\n  %s\n", command->example);
}

void help_print(const struct invocation *invocation)
{
	if (invocation->command)
		print_command(invocation->command);
	else
		print_overview(invocation->group);
}
