// SPDX-License-Identifier: GPL-2.0-or-later
/* The manual page has what the command table has. FWD_SOURCE_DIR comes from CMake. */
#include "cleanup.h"
#include "command.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* The text between a command's ".It Ic NAME" and the next one. */
static char *section_of(const char *page, const char *name)
{
	char start[64];
	const char *from, *to;

	snprintf(start, sizeof(start), "\n.It Ic %s", name);
	for (from = strstr(page, start); from; from = strstr(from + 1, start))
		if (from[strlen(start)] == ' ' || from[strlen(start)] == '\n')
			break;
	cr_assert(from, "fwctl(8) does not tell about %s", name);
	to = strstr(from + 1, "\n.It Ic ");
	return strndup(from, to ? (size_t)(to - from) : strlen(from));
}

static char *manual(void)
{
	_cleanup_fclose_ FILE *file = fopen(FWD_SOURCE_DIR "/docs/fwctl.8", "re");
	char *page = calloc(1, 64 << 10);

	cr_assert(file && page);
	cr_assert_gt(fread(page, 1, (64 << 10) - 1, file), 0);
	return page;
}

/* As mdoc(7) writes options: "Fl -ttl". */
static bool has_option(const char *text, const char *option)
{
	char macro[32];
	size_t n = (size_t)snprintf(macro, sizeof(macro), "Fl %s", option + 1);

	for (const char *at = strstr(text, macro); at; at = strstr(at + 1, macro))
		if (at[n] == ' ' || at[n] == '\n')
			return true;
	return false;
}

Test(manual, tells_about_every_command_and_option)
{
	_cleanup_free_ char *page = manual();

	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		_cleanup_free_ char *section = section_of(page, commands[i].name);

		for (const struct command_arg *arg = commands[i].args; arg->field; arg++)
			if (arg->option)
				cr_expect(has_option(section, arg->option), "%s %s",
					  commands[i].name, arg->option);
	}
	for (const struct tool_option *option = tool_options; option->name; option++)
		cr_expect(has_option(page, option->name), "%s", option->name);
}

Test(manual, has_no_option_that_is_none)
{
	_cleanup_free_ char *page = manual();

	for (const char *at = strstr(page, "Fl "); at; at = strstr(at + 1, "Fl ")) {
		char option[32] = "-";
		bool known = false;

		sscanf(at + 3, "%30[^ \n]", option + 1);
		for (const struct tool_option *t = tool_options; t->name; t++)
			known |= !strcmp(t->name, option);
		for (size_t i = 0; i < COMMAND_COUNT; i++)
			for (const struct command_arg *arg = commands[i].args; arg->field; arg++)
				known |= arg->option && !strcmp(arg->option, option);
		cr_expect(known, "%s", option);
	}
}
