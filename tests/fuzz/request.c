// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The request decoder: what it takes is a command of the table, and is taken again when it is
 * written out; what it refuses it gives a reason for, and leaves the outputs alone.
 */
#include "cleanup.h"
#include "command.h"
#include "text.h"

#include <errno.h>
#include <string.h>

static void require(bool fact)
{
	if (!fact)
		abort();
}

static void check_again(const json_t *request, const struct command *command)
{
	_cleanup_free_ char *line = json_dumps(request, JSON_COMPACT);
	const struct command *again = NULL;
	json_t *second = NULL;

	require(line);
	require(!request_decode(line, strlen(line), &second, &again, NULL));
	require(again == command && json_equal(request, second));
	json_decref(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *line = malloc(size + !size); /* exactly: no NUL behind it */
	const struct command *command = NULL;
	json_t *request = NULL;
	struct error err = {""};
	int r;

	require(line);
	if (size)
		memcpy(line, data, size);
	r = request_decode(line, size, &request, &command, &err);
	if (r < 0) {
		require(r == -EINVAL || r == -EBADMSG || r == -ENOMEM);
		require(*err.text && text_is_printable(err.text));
		require(!request && !command);
		return 0;
	}
	require(command && command_index(command) < COMMAND_COUNT);
	require(!strcmp(request_text(request, "command"), command->name));
	check_again(request, command);
	json_decref(request);
	return 0;
}
