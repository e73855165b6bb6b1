/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads tables of TOML into structures, as tables of keys describe them: which keys there are, what
 * type each has, and which function puts its value where. What all keys have in common is checked
 * here: unknown keys, wrong types, missing keys, control characters.
 *
 * A reading function returns 0, -EINVAL after it added an error, or -ENOMEM. Reading goes on after
 * -EINVAL, to find all errors.
 */
#pragma once

#include "toml.h"

/* "blacklist.feed[63].name" and the longest that may come. */
#define SCHEMA_PATH_MAX 128

struct schema_reader {
	struct config_errors *errors;
	char path[SCHEMA_PATH_MAX]; /* of the value at hand */
};

struct schema_key;

typedef int schema_read_fn(struct schema_reader *reader, const struct schema_key *key,
			   const struct toml_node *value, void *field);

struct schema_key {
	const char *name;    /* NULL ends the table */
	const char *accepts; /* in words, for errors */
	unsigned types;	     /* of TOML, as SCHEMA_* below */
	bool required;
	schema_read_fn *read;
	size_t offset; /* of the field in the structure that the table fills in */
	union {
		const struct schema_key *keys; /* of schema_read_table() */
		const char *const *names;      /* of schema_read_choice(): ends in NULL */
		int (*parse)(const char *text, u8 *ret,
			     struct error *err); /* of schema_read_u8() */
	};
};

#define SCHEMA_STRING  (1u << TOML_STRING)
#define SCHEMA_INTEGER (1u << TOML_INTEGER)
#define SCHEMA_BOOLEAN (1u << TOML_BOOLEAN)
#define SCHEMA_ARRAY   (1u << TOML_ARRAY)
#define SCHEMA_TABLE   (1u << TOML_TABLE)

/* Adds "PATH: message" at the value's place, or the key's; returns -EINVAL. */
int schema_fail(struct schema_reader *reader, struct toml_position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same of a key that is in the table, at its value. */
int schema_fail_key(struct schema_reader *reader, const struct toml_node *table, const char *key,
		    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Goes on with a key or an element below the path; schema_leave() with what it returned goes back.
 */
size_t schema_enter_key(struct schema_reader *reader, const char *key);
size_t schema_enter_element(struct schema_reader *reader, size_t index);
void schema_leave(struct schema_reader *reader, size_t size);

/* Keeps the worse of two results: -ENOMEM, which stops the reading, before -EINVAL. */
int schema_worse(int a, int b);

/* Refuses an element that is not a string, or one with control characters. */
int schema_check_string(struct schema_reader *reader, const char *accepts,
			const struct toml_node *value);

/* A table with the keys `key->keys`. */
schema_read_fn schema_read_table;

/* A string out of `key->names`; the field is an enum (of int's size) with the name's index. */
schema_read_fn schema_read_choice;

/* A string that `key->parse` takes; the field is a u8. */
schema_read_fn schema_read_u8;

/* true or false; the field is a bool. */
schema_read_fn schema_read_bool;

/*
 * [[key]]: each table of the array into the next of `size` bytes at `rows`, which has room for all
 * of them.
 */
int schema_read_rows(struct schema_reader *reader, const struct schema_key *key,
		     const struct toml_node *array, void *rows, size_t size);
