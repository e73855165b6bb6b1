/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration: a TOML file, read into one typed value that is complete (defaults filled in)
 * and valid (ranges, duplicates, conflicts), or into a list of all its errors with their positions.
 */
#pragma once

#include "cleanup.h"
#include "error.h"
#include "errors.h"
#include "prefix.h"
#include "redirect.h"

#define CONFIG_DEFAULT_FILE "/etc/fwd/fwd.toml"

/* The largest configuration file; longer lists belong in feeds. */
#define CONFIG_MAX_BYTES (16u << 20)

enum on_stop {
	ON_STOP_KEEP,
	ON_STOP_DETACH,
};

enum xdp_mode_wanted {
	XDP_WANT_AUTO,
	XDP_WANT_NATIVE,
	XDP_WANT_GENERIC,
};

struct config_interface {
	char *name; /* a name or a glob(7), matched with fnmatch(3) */
	enum xdp_mode_wanted xdp_mode;
};

struct config_feed {
	char *name; /* 1 to ORIGIN_NAME_MAX bytes of a-z A-Z 0-9 . _ -, not "config" or "runtime" */
	char *file; /* absolute; NULL: its entries come from `fwctl feed replace` alone */
};

#define CONFIG_INTERFACES_MAX  64
#define CONFIG_PATTERN_MAX     64 /* bytes of an interface's glob */
#define CONFIG_FEEDS_MAX       64
#define CONFIG_MAX_ENTRIES_MAX 16000000 /* of blacklist.max_entries; its least is 1 */
#define CONFIG_ALLOW_MAX       65536	/* entries of the allowlist, from all origins */

struct config {
	struct {
		char *socket, *group, *state_dir, *pin_dir;
		char *read_group; /* NULL: none */
		enum on_stop on_stop;
		int log_level; /* LOG_ERR to LOG_DEBUG, syslog.h */
	} daemon;

	struct config_interface *interfaces;
	size_t n_interfaces;

	struct {
		u32 max_entries;	  /* of both families together */
		bool in, out;		  /* the directions; at least one */
		struct prefix *addresses; /* sorted, no duplicates */
		size_t n_addresses;
		struct config_feed *feeds;
		size_t n_feeds;
	} blacklist;

	struct prefix *allow; /* sorted, no duplicates */
	size_t n_allow;
	bool allow_system; /* and what the daemon itself puts on it (policy.h) */

	struct redirect *redirects; /* sorted by redirect_compare(), none overlaps another */
	size_t n_redirects;

	char *text; /* what all of this was read from */
	size_t text_size;
};

/*
 * Reads `file`. 0 and a configuration, or -EINVAL (or what open and read say) and at least one
 * error. The files of the feeds are not read here.
 */
int config_load(const char *file, struct config **ret, struct config_errors *errors);

/* The same from memory, for tests and fuzzing. */
int config_parse(const char *text, size_t size, struct config **ret, struct config_errors *errors);

/*
 * Of a file that config_load() refuses: the keys of [daemon] that have no error; the rest is as in
 * an empty file, which one that cannot be read is taken for. 0 or -ENOMEM.
 */
int config_salvage(const char *file, struct config **ret, struct error *err);

void config_free(struct config *config);
DEFINE_CLEANUP(struct config *, config_free);

/* log levels by name: "err", "warning", "notice", "info", "debug". */
int log_level_parse(const char *text, int *ret, struct error *err);
