/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TOML 1.0 (https://toml.io/en/v1.0.0), read strictly into a tree in which every key and value
 * knows its line and column.
 *
 * The time is O(n log n) whatever the file holds: one search tree finds the keys of all tables.
 */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "errors.h"
#include "types.h"

/* Bounds: how deep tables and arrays may nest, and how many keys, values and elements there may be.
 */
#define TOML_DEPTH_MAX	64
#define TOML_VALUES_MAX (2u << 20)

enum toml_type {
	TOML_STRING,
	TOML_INTEGER,
	TOML_FLOAT,
	TOML_BOOLEAN,
	TOML_OFFSET_DATETIME,
	TOML_LOCAL_DATETIME,
	TOML_LOCAL_DATE,
	TOML_LOCAL_TIME,
	TOML_ARRAY,
	TOML_TABLE,
	TOML_TYPE_COUNT,
};

/* Both count from 1, the column in bytes. */
struct toml_position {
	int line, column;
};

/* Date and time as written; which fields have a meaning follows from the type. */
struct toml_datetime {
	u32 nanosecond;	    /* further digits are cut off */
	int16_t offset_min; /* east of UTC */
	u16 year;
	u8 month, day, hour, minute, second;
};

/* How a table came to be, which decides what may still be added to it. */
enum toml_origin {
	TOML_BY_VALUE,	/* an inline table or a static array: complete */
	TOML_BY_HEADER, /* [table], or an array made by [[table]] */
	TOML_BY_PARENT, /* the super-table of a header, which its own header may still define */
	TOML_BY_DOT,	/* a dotted key, which others of the same section may extend */
};

struct toml_node {
	struct toml_node *next; /* in the same table or array, in the file's order */
	const struct toml_node *parent;
	const char *key; /* ends in NUL, and may have others inside; NULL in an array */
	u32 key_size;
	struct toml_position key_at;
	struct toml_position at; /* of the value; of the '[' of a header */
	u8 type;		 /* enum toml_type */
	u8 origin;		 /* enum toml_origin of a table or array */
	u8 depth;
	union {
		struct {
			const char *text; /* UTF-8; ends in NUL, and may have others inside */
			u32 size;
		} string;
		int64_t integer;
		double number;
		bool boolean;
		struct toml_datetime datetime;
		struct {
			struct toml_node *first, *last;
			u32 n;
		} children; /* of a table or array */
	};
};

struct toml;

/*
 * Parses at most INT_MAX bytes. 0 and a tree, which the caller frees with toml_free() and which
 * does not refer to `text`; -EINVAL and at least one error; or -ENOMEM. After an error it goes on
 * with the next line that looks like a key or a header.
 */
int toml_parse(const char *text, size_t size, struct toml **ret, struct config_errors *errors);

/*
 * The same of a text with errors: 0 and a tree of what it goes on with. A value with an error is an
 * empty table. -ENOMEM.
 */
int toml_salvage(const char *text, size_t size, struct toml **ret, struct config_errors *errors);

void toml_free(struct toml *toml);
DEFINE_CLEANUP(struct toml *, toml_free);

const struct toml_node *toml_root(const struct toml *toml);

/* The value of a key, or NULL. Looks at one key after the other. */
const struct toml_node *toml_get(const struct toml_node *table, const char *key);

/* "an integer", for errors. */
const char *toml_type_name(enum toml_type type);

/* A boolean, number, date or time; sets the type and the value of `ret`. */
int toml_scalar_parse(const char *text, size_t size, struct toml_node *ret, struct error *err);
