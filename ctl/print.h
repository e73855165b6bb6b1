/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers on standard output, for people or, with --json, as one JSON value. What the daemon sent
 * is never trusted to be fit for a terminal: tables and sentences are made printable, JSON is
 * ASCII.
 */
#pragma once

#include "command.h"
#include "table.h"

/* The output of one command; starts as {.command, .request, .json}, released with output_clear().
 */
struct output {
	enum command_id command;
	const json_t *request;
	bool json;
	bool begun; /* the array of a JSON value was opened */
	struct table table;
};

/*
 * Prints a good answer; `last` is false if more of it follow. -EPROTO: it is not an answer to this
 * command. What was printed before is closed by output_error().
 */
int output_answer(struct output *output, json_t *answer, bool last, struct error *err);

/* With --json: prints {"error": ...}, or closes a value that was begun with it. */
void output_error(struct output *output, const json_t *error);

/*
 * Whether a good answer is the one that fwctl exits with 1 for: that of `test`, that the source is
 * dropped, that of `verify`, that something differs, and that of `doctor`, that there are problems.
 */
bool answer_is_negative(enum command_id command, const json_t *answer);

void output_clear(struct output *output);
