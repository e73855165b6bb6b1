/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command table: each command of fwctl once, with its arguments, its help and the privilege it
 * needs. Four things come out of it:
 *
 *   - fwctl's reading of the command line       command_from_argv()
 *   - fwctl's help                              commands[], in the table's order (ctl/help.c)
 *   - the request on the wire                   {"command": "redirect add", FIELD: TEXT, ...}
 *   - the daemon's check of a request           command_from_request()
 *
 * On the wire an argument is the text a user typed (a repeated one: an array of such; a flag:
 * true), so both ends check it with the same function. The daemon's handlers are a table with the
 * same indices (daemon/commands.c), and so are fwctl's printers (ctl/print.c).
 */
#pragma once

#include "error.h"
#include "types.h"

#include <jansson.h>

enum command_id {
	COMMAND_ADD,
	COMMAND_DEL,
	COMMAND_LIST,
	COMMAND_TEST,
	COMMAND_FLUSH,
	COMMAND_ALLOW_ADD,
	COMMAND_ALLOW_DEL,
	COMMAND_ALLOW_LIST,
	COMMAND_FEED_LIST,
	COMMAND_FEED_REPLACE,
	COMMAND_FEED_RELOAD,
	COMMAND_REDIRECT_ADD,
	COMMAND_REDIRECT_DEL,
	COMMAND_REDIRECT_LIST,
	COMMAND_STATUS,
	COMMAND_STATS,
	COMMAND_VERIFY,
	COMMAND_RELOAD,
	COMMAND_CONFIRM,
	COMMAND_DOCTOR,
	COMMAND_COUNT,
};

/* What a caller must have to run it; each includes those above it. */
enum privilege {
	PRIVILEGE_LOOK,
	PRIVILEGE_CHANGE,
};

/* How an argument's text is checked. */
enum arg_type {
	ARG_PREFIX,    /* ADDR[/LEN], common/prefix.h */
	ARG_ADDRESS,   /* ADDR */
	ARG_DURATION,  /* common/duration.h */
	ARG_CONFIRM,   /* the same, up to CONFIRM_MAX_S */
	ARG_TEXT,      /* up to COMMENT_MAX bytes of UTF-8 without control characters */
	ARG_NAME,      /* an origin's name */
	ARG_FEED,      /* a feed's name */
	ARG_PORTS,     /* PROTO/PORT[-PORT], common/redirect.h */
	ARG_INTERFACE, /* an interface's name */
	ARG_DIRECTION, /* in, out */
	ARG_MODE,      /* auto, l2, neigh, ingress */
	ARG_LIST,      /* a file of addresses; on the wire `true`, and the file as a descriptor */
	ARG_FLAG,      /* an option without a value; on the wire `true`, or left out */
};

struct command_arg {
	const char *field;  /* its name in the request; NULL ends the table */
	const char *option; /* "--ttl"; NULL: positional */
	const char *meta;   /* what help calls its value; NULL: it has none */
	enum arg_type type;
	bool required;
	bool repeated; /* an array on the wire; positional only, and last */
	bool unasked;  /* fwctl sends it by itself: not on the command line, nor in help */
	enum privilege privilege; /* that giving it needs, where that is more than the command's */
	const char *help;
};

#define COMMAND_ARGS_MAX 8

struct command {
	const char *name;  /* "redirect add": the words of the command line */
	const char *group; /* the heading it stands under in fwctl's help */
	const char *summary;
	const char *example; /* a command line, for help */
	enum privilege privilege;
	bool local; /* fwctl does it itself; on the wire there is no such command */
	struct command_arg args[COMMAND_ARGS_MAX + 1];
};

extern const struct command commands[COMMAND_COUNT];

#define COMMENT_MAX	128  /* bytes of a comment */
#define ORIGIN_NAME_MAX 32   /* bytes of an origin's name, "config", "runtime" or a feed's */
#define PREFIXES_MAX	1000 /* addresses in the command itself; longer lists go by file */
#define CONFIRM_MAX_S	3600 /* the longest that a change waits for confirmation; its least is 1 */

/* fwctl's own options; good before the command and anywhere behind it, up to "--". */
struct tool_option {
	const char *name; /* NULL ends the table */
	const char *meta; /* what help calls its value; NULL: none */
	const char *help;
};

extern const struct tool_option tool_options[];

/* A command line, read. */
struct invocation {
	const struct command *command;
	json_t *request;	 /* owned by the caller; NULL where help or version is set */
	const char *list_path;	 /* ARG_LIST: a path, "-" for standard input; else NULL */
	const char *socket_path; /* -s; else NULL */
	bool json, version;
	bool help;	   /* of `command`, or of all where it is NULL */
	const char *group; /* of all whose first word this is: "redirect"; else NULL */
};

/*
 * Reads the words behind "fwctl". -EINVAL with a sentence for people on bad usage; then
 * ret->command is set where the words name one.
 */
int command_from_argv(int argc, char *const argv[], struct invocation *ret, struct error *err);

/*
 * Checks a request: a known command, every required field, no unknown field, each text good. A
 * command that takes prefixes or a list must have one of the two.
 */
int command_from_request(const json_t *request, const struct command **ret, struct error *err);

/*
 * The same from a line of `size` bytes, without its newline. The caller owns *ret_request, which is
 * set on success only.
 */
int request_decode(const char *line, size_t size, json_t **ret_request,
		   const struct command **ret_command, struct error *err);

/* What a caller must be for a checked request: by the command, and by the arguments it has. */
enum privilege request_privilege(const struct command *command, const json_t *request);

/* The argument of that field; NULL: the command has none. */
const struct command_arg *command_find_field(const struct command *command, const char *field);

/* The position in commands[]. */
enum command_id command_index(const struct command *command);

/* "fwctl add {ADDR[/LEN]... | -f FILE | -} [--ttl TIME]" in allocated memory; NULL: no memory. */
char *command_usage(const struct command *command);

/* Accessors of a checked request: NULL where the field was left out. */
const char *request_text(const json_t *request, const char *field);
bool request_flag(const json_t *request, const char *field);
