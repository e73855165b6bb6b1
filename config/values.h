/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Readers of single values of the configuration; schema.h says how they are called. */
#pragma once

#include "prefix.h"
#include "schema.h"

/* char *: an absolute path; of the socket, one that fits into sun_path. */
schema_read_fn read_path, read_socket_path;

/* char * */
schema_read_fn read_group, read_interface_pattern, read_feed_name;

/* char[IFNAMSIZ]: the name of one interface. */
schema_read_fn read_interface_name;

schema_read_fn read_log_level;	 /* int */
schema_read_fn read_max_entries; /* u32 */

/* The whole structure: port_first and port_last of a struct redirect; in and out of a struct
 * config. */
schema_read_fn read_ports, read_directions;

/* An array of addresses and prefixes, sorted; the caller frees it. */
int read_prefixes(struct schema_reader *reader, const struct toml_node *array, struct prefix **ret,
		  size_t *ret_n);

/* Whether an interface's name is a glob(7). */
bool is_pattern(const char *name);
