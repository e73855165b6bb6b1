/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the commands share: commands.c dispatches, and has those that change something
 * or take their time; commands_read.c has those that only read; commands_verify.c has the answer of
 * one.
 */
#pragma once

#include "commands.h"

/* A request on its way through a handler. */
struct call {
	struct daemon *daemon;
	enum command_id id;
	struct request *in;
	const json_t *request;	 /* its object */
	json_t *reply;		 /* to fill in */
	struct listing *listing; /* set by the handlers of lists */
	s64 confirm_s;		 /* it goes back after this, unless it is confirmed; 0: never */
};

static inline void set_int(json_t *object, const char *field, json_int_t value)
{
	json_object_set_new(object, field, json_integer(value));
}

static inline void set_bool(json_t *object, const char *field, bool value)
{
	json_object_set_new(object, field, json_boolean(value));
}

/* NULL text is null. */
static inline void set_text(json_t *object, const char *field, const char *text)
{
	json_object_set_new(object, field, text ? json_string(text) : json_null());
}

/* The table that the command is about. */
static inline enum prefix_table call_table(const struct call *call)
{
	switch (call->id) {
	case COMMAND_ALLOW_ADD:
	case COMMAND_ALLOW_DEL:
	case COMMAND_ALLOW_LIST:
		return TABLE_ALLOW;
	default:
		return TABLE_BLOCK;
	}
}

/* The commands that only read: they fill in the reply. */
int run_list(struct call *call, struct error *err);
int run_test(struct call *call, struct error *err);
int run_feed_list(struct call *call, struct error *err);
int run_redirect_list(struct call *call, struct error *err);
int run_status(struct call *call, struct error *err);
int run_stats(struct call *call, struct error *err);

/* The answer to `verify`, into the reply. */
void describe_verified(const struct rules_verified *verified, json_t *reply);
