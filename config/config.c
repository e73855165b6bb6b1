// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "schema.h"
#include "values.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

static schema_read_fn read_interfaces, read_feeds, read_addresses, read_allow, read_redirects;

static const char *const on_stop_names[] = {
	[ON_STOP_KEEP] = "keep", [ON_STOP_DETACH] = "detach", NULL};
static const char *const xdp_mode_names[] = {
	[XDP_WANT_AUTO] = "auto",
	[XDP_WANT_NATIVE] = "native",
	[XDP_WANT_GENERIC] = "generic",
	NULL,
};
static const char *const log_level_names[] = {
	[LOG_ERR] = "err",   [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
	[LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

/*
 * What the file may hold: the name, what it accepts in words and by type, whether it is required,
 * and which reader puts it where.
 */
#define FIELD(structure, field) .offset = offsetof(struct structure, field)

/* clang-format off */
static const struct schema_key daemon_keys[] = {
	{"socket", "an absolute path in quotes", SCHEMA_STRING, false,
	 read_socket_path, FIELD(config, daemon.socket)},
	{"group", "a group's name in quotes", SCHEMA_STRING, false,
	 read_group, FIELD(config, daemon.group)},
	{"read_group", "a group's name in quotes", SCHEMA_STRING, false,
	 read_group, FIELD(config, daemon.read_group)},
	{"state_dir", "an absolute path in quotes", SCHEMA_STRING, false,
	 read_path, FIELD(config, daemon.state_dir)},
	{"pin_dir", "an absolute path in quotes", SCHEMA_STRING, false,
	 read_path, FIELD(config, daemon.pin_dir)},
	{"on_stop", "\"keep\" or \"detach\"", SCHEMA_STRING, false,
	 schema_read_choice, FIELD(config, daemon.on_stop), .names = on_stop_names},
	{"log_level", "\"err\", \"warning\", \"notice\", \"info\" or \"debug\"", SCHEMA_STRING, false,
	 read_log_level, FIELD(config, daemon.log_level)},
	{0},
};

static const struct schema_key interface_keys[] = {
	{"name", "an interface's name or a pattern such as \"veth*\"", SCHEMA_STRING, true,
	 read_interface_pattern, FIELD(config_interface, name)},
	{"xdp_mode", "\"auto\", \"native\" or \"generic\"", SCHEMA_STRING, false,
	 schema_read_choice, FIELD(config_interface, xdp_mode), .names = xdp_mode_names},
	{0},
};

static const struct schema_key feed_keys[] = {
	{"name", "a name in quotes", SCHEMA_STRING, true,
	 read_feed_name, FIELD(config_feed, name)},
	{"file", "an absolute path in quotes", SCHEMA_STRING, false,
	 read_path, FIELD(config_feed, file)},
	{0},
};

static const struct schema_key blacklist_keys[] = {
	{"max_entries", "an integer from 1 to 16000000", SCHEMA_INTEGER, false,
	 read_max_entries, FIELD(config, blacklist.max_entries)},
	{"direction", "an array of \"in\", \"out\" or both", SCHEMA_ARRAY, false,
	 .read = read_directions},
	{"addresses", "an array of addresses and prefixes in quotes", SCHEMA_ARRAY, false,
	 .read = read_addresses},
	{"feed", "[[blacklist.feed]], in double brackets", SCHEMA_ARRAY, false,
	 read_feeds, .keys = feed_keys},
	{0},
};

static const struct schema_key allowlist_keys[] = {
	{"addresses", "an array of addresses and prefixes in quotes", SCHEMA_ARRAY, false,
	 .read = read_allow},
	{"system", "true or false", SCHEMA_BOOLEAN, false,
	 schema_read_bool, FIELD(config, allow_system)},
	{0},
};

static const struct schema_key redirect_keys[] = {
	{"interface", "an interface's name in quotes", SCHEMA_STRING, false,
	 read_interface_name, FIELD(redirect, interface)},
	{"direction", "\"in\" or \"out\"", SCHEMA_STRING, false,
	 schema_read_u8, FIELD(redirect, direction), .parse = direction_parse},
	{"protocol", "\"tcp\" or \"udp\"", SCHEMA_STRING, true,
	 schema_read_u8, FIELD(redirect, protocol), .parse = protocol_parse},
	{"port", "a port from 1 to 65535, or a range such as \"8000-8099\"",
	 SCHEMA_INTEGER | SCHEMA_STRING, true,
	 .read = read_ports},
	{"target", "an interface's name in quotes", SCHEMA_STRING, true,
	 read_interface_name, FIELD(redirect, target)},
	{"mode", "\"auto\", \"l2\", \"neigh\" or \"ingress\"", SCHEMA_STRING, false,
	 schema_read_u8, FIELD(redirect, mode), .parse = redirect_mode_parse},
	{0},
};

static const struct schema_key file_keys[] = {
	{"daemon", "[daemon], in single brackets", SCHEMA_TABLE, false,
	 schema_read_table, .keys = daemon_keys},
	{"interface", "[[interface]], in double brackets", SCHEMA_ARRAY, false,
	 read_interfaces, .keys = interface_keys},
	{"blacklist", "[blacklist], in single brackets", SCHEMA_TABLE, false,
	 schema_read_table, .keys = blacklist_keys},
	{"allowlist", "[allowlist], in single brackets", SCHEMA_TABLE, false,
	 schema_read_table, .keys = allowlist_keys},
	{"redirect", "[[redirect]], in double brackets", SCHEMA_ARRAY, false,
	 read_redirects, .keys = redirect_keys},
	{0},
};
/* clang-format on */

int log_level_parse(const char *text, int *ret, struct error *err)
{
	for (int level = LOG_ERR; level <= LOG_DEBUG; level++) {
		if (!strcmp(text, log_level_names[level])) {
			*ret = level;
			return 0;
		}
	}
	return error_set(err, -EINVAL,
			 "\"%.80s\" is not a log level; expected \"err\", \"warning\", \"notice\", "
			 "\"info\" or \"debug\"",
			 text);
}

/* Room for each table of the array, zeroed; one more, so that it is never of size 0. */
static int make_rows(struct schema_reader *reader, const struct toml_node *array, size_t max,
		     size_t size, void **ret)
{
	const struct toml_node *row = array->children.first;

	if (array->children.n > max) {
		for (size_t i = 0; i < max; i++)
			row = row->next;
		return schema_fail(reader, row->at, "%u of them; at most %zu", array->children.n,
				   max);
	}
	*ret = calloc(array->children.n + 1, size);
	return *ret ? 0 : -ENOMEM;
}

/* Tables that have a name: interfaces and feeds. */
#define NAMED_MAX 64
_Static_assert(CONFIG_INTERFACES_MAX <= NAMED_MAX && CONFIG_FEEDS_MAX <= NAMED_MAX, "room for all");

/* A name that two tables of the array have; the reading of each has checked its type. */
static int refuse_same_names(struct schema_reader *reader, const struct toml_node *array)
{
	const struct toml_node *names[NAMED_MAX];
	const struct toml_node *row = array->children.first;
	char quoted[QUOTED_MAX];
	int r = 0;

	for (size_t i = 0; row; row = row->next, i++) {
		const struct toml_node *name =
			row->type == TOML_TABLE ? toml_get(row, "name") : NULL;
		size_t first = 0, outer;

		names[i] = name && name->type == TOML_STRING ? name : NULL;
		if (!names[i])
			continue;
		while (!names[first] || names[first]->string.size != name->string.size ||
		       memcmp(names[first]->string.text, name->string.text, name->string.size) != 0)
			first++;
		if (first == i)
			continue;
		outer = schema_enter_element(reader, i);
		r = schema_fail_key(reader, row, "name", "%s is there already, at line %d",
				    text_quote(name->string.text, name->string.size, quoted),
				    names[first]->at.line);
		schema_leave(reader, outer);
	}
	return r;
}

static int read_interfaces(struct schema_reader *reader, const struct schema_key *key,
			   const struct toml_node *array, void *field)
{
	struct config *config = field;
	void *rows = NULL;
	int r;

	r = make_rows(reader, array, CONFIG_INTERFACES_MAX, sizeof(*config->interfaces), &rows);
	if (r < 0)
		return r;
	config->interfaces = rows;
	config->n_interfaces = array->children.n;
	r = schema_read_rows(reader, key, array, rows, sizeof(*config->interfaces));
	return schema_worse(r, refuse_same_names(reader, array));
}

static int read_feeds(struct schema_reader *reader, const struct schema_key *key,
		      const struct toml_node *array, void *field)
{
	struct config *config = field;
	void *rows = NULL;
	int r;

	r = make_rows(reader, array, CONFIG_FEEDS_MAX, sizeof(*config->blacklist.feeds), &rows);
	if (r < 0)
		return r;
	config->blacklist.feeds = rows;
	config->blacklist.n_feeds = array->children.n;
	r = schema_read_rows(reader, key, array, rows, sizeof(*config->blacklist.feeds));
	return schema_worse(r, refuse_same_names(reader, array));
}

static int read_addresses(struct schema_reader *reader, const struct schema_key *key,
			  const struct toml_node *array, void *field)
{
	struct config *config = field;

	return read_prefixes(reader, array, &config->blacklist.addresses,
			     &config->blacklist.n_addresses);
}

static int read_allow(struct schema_reader *reader, const struct schema_key *key,
		      const struct toml_node *array, void *field)
{
	struct config *config = field;

	if (array->children.n > CONFIG_ALLOW_MAX)
		return schema_fail(reader, array->at, "%u entries; at most %u", array->children.n,
				   CONFIG_ALLOW_MAX);
	return read_prefixes(reader, array, &config->allow, &config->n_allow);
}

/* The name stands for an interface that the file configures; true where errors leave that open. */
static bool is_configured(const struct config *config, const struct toml_node *root,
			  const char *name)
{
	if (!config->interfaces)
		return toml_get(root, "interface");
	for (size_t i = 0; i < config->n_interfaces; i++) {
		const char *pattern = config->interfaces[i].name;

		if (!pattern || !fnmatch(pattern, name, 0))
			return true;
	}
	return false;
}

static bool is_complete(const struct redirect *redirect)
{
	return redirect->protocol && redirect->port_first && *redirect->target;
}

/* What is wrong with the redirect at `index` beside the interfaces and the redirects before it. */
static int check_redirect(struct schema_reader *reader, const struct config *config,
			  const struct toml_node *rows[], size_t index)
{
	const struct redirect *redirect = &config->redirects[index];
	const char *interface = redirect->interface;
	char ports[REDIRECT_PORTS_TEXT_MAX];
	int r = 0;

	if (*interface && !is_configured(config, rows[index]->parent->parent, interface))
		r = schema_fail_key(reader, rows[index], "interface",
				    "no [[interface]] has the name \"%s\" or a pattern of it",
				    interface);
	if (*interface && !strcmp(interface, redirect->target))
		r = schema_fail_key(reader, rows[index], "target",
				    "\"%s\" is the interface that the packets come from",
				    interface);
	for (size_t i = 0; i < index && is_complete(redirect); i++) {
		if (!is_complete(&config->redirects[i]) ||
		    !redirect_overlaps(&config->redirects[i], redirect))
			continue;
		redirect_ports_format(&config->redirects[i], ports);
		return schema_fail_key(reader, rows[index], "port",
				       "overlaps %s of the [[redirect]] at line %d", ports,
				       rows[i]->at.line);
	}
	return r;
}

/* Interfaces may stand below redirects in the file, so this comes after all else. */
static int check_redirects(struct schema_reader *reader, const struct config *config,
			   const struct toml_node *array)
{
	const struct toml_node *rows[REDIRECTS_MAX];
	const struct toml_node *row = array->children.first;
	size_t outer = schema_enter_key(reader, array->key), inner;
	int r = 0;

	for (size_t i = 0; i < config->n_redirects; i++, row = row->next) {
		rows[i] = row;
		inner = schema_enter_element(reader, i);
		r = schema_worse(r, check_redirect(reader, config, rows, i));
		schema_leave(reader, inner);
	}
	schema_leave(reader, outer);
	return r;
}

static int read_redirects(struct schema_reader *reader, const struct schema_key *key,
			  const struct toml_node *array, void *field)
{
	struct config *config = field;
	void *rows = NULL;
	int r;

	r = make_rows(reader, array, REDIRECTS_MAX, sizeof(*config->redirects), &rows);
	if (r < 0)
		return r;
	config->redirects = rows;
	config->n_redirects = array->children.n;
	return schema_read_rows(reader, key, array, rows, sizeof(*config->redirects));
}

static int check_size(struct schema_reader *reader, const struct config *config,
		      const struct toml_node *root)
{
	size_t outer = schema_enter_key(reader, "blacklist");
	int r = 0;

	if (config->blacklist.n_addresses > config->blacklist.max_entries)
		r = schema_fail_key(reader, toml_get(root, "blacklist"), "addresses",
				    "%zu entries, more than max_entries = %u",
				    config->blacklist.n_addresses, config->blacklist.max_entries);
	schema_leave(reader, outer);
	return r;
}

static int compare_redirects(const void *a, const void *b)
{
	return redirect_compare(a, b);
}

static int read_file_table(const struct toml_node *root, struct config *config,
			   struct config_errors *errors)
{
	const struct schema_key file = {.keys = file_keys};
	struct schema_reader reader = {.errors = errors};
	const struct toml_node *redirects;
	int r;

	r = schema_read_table(&reader, &file, root, config);
	if (r == -ENOMEM)
		return r;
	redirects = toml_get(root, "redirect");
	if (config->n_redirects)
		r = schema_worse(r, check_redirects(&reader, config, redirects));
	r = schema_worse(r, check_size(&reader, config, root));
	if (config->n_redirects)
		qsort(config->redirects, config->n_redirects, sizeof(*config->redirects),
		      compare_redirects);
	return r;
}

static int config_new(struct config **ret)
{
	_cleanup_(config_freep) struct config *config = calloc(1, sizeof(*config));

	if (!config)
		return -ENOMEM;
	config->daemon.socket = strdup("/run/fwd/fwd.sock");
	config->daemon.group = strdup("fwd");
	config->daemon.state_dir = strdup("/var/lib/fwd");
	config->daemon.pin_dir = strdup("/sys/fs/bpf/fwd");
	if (!config->daemon.socket || !config->daemon.group || !config->daemon.state_dir ||
	    !config->daemon.pin_dir)
		return -ENOMEM;
	config->daemon.on_stop = ON_STOP_KEEP;
	config->daemon.log_level = LOG_INFO;
	config->blacklist.max_entries = 1000000;
	config->blacklist.in = true;
	config->allow_system = true;
	*ret = take_pointer(&config);
	return 0;
}

static int keep_text(struct config *config, const char *text, size_t size)
{
	config->text = malloc(size + 1);
	if (!config->text)
		return -ENOMEM;
	if (text)
		memcpy(config->text, text, size);
	config->text_size = size;
	return 0;
}

static int parse(const char *text, size_t size, struct config **ret, struct config_errors *errors)
{
	_cleanup_(config_freep) struct config *config = NULL;
	_cleanup_(toml_freep) struct toml *toml = NULL;
	int r;

	if (size > CONFIG_MAX_BYTES) {
		config_errors_add(errors, 0, 0,
				  "too large: more than %u bytes; longer lists belong "
				  "in feeds",
				  CONFIG_MAX_BYTES);
		return -EFBIG;
	}
	r = toml_parse(text, size, &toml, errors);
	if (!r)
		r = config_new(&config);
	if (!r)
		r = read_file_table(toml_root(toml), config, errors);
	if (!r)
		r = keep_text(config, text, size);
	if (r < 0)
		return r;
	*ret = take_pointer(&config);
	return 0;
}

int config_parse(const char *text, size_t size, struct config **ret, struct config_errors *errors)
{
	int r = parse(text, size, ret, errors);

	if (r == -ENOMEM)
		config_errors_add(errors, 0, 0, "out of memory");
	config_errors_finish(errors);
	return r;
}

/* Up to one byte more than a configuration may have, so that too large a file shows. */
static int read_file(const char *file, char **ret, size_t *ret_size, struct error *err)
{
	/* O_NONBLOCK: a FIFO in the place of the file must not hang the daemon. */
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	_cleanup_fclose_ FILE *stream = fd < 0 ? NULL : fdopen(fd, "r");
	_cleanup_free_ char *text = NULL;
	struct stat st;

	if (!stream || fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot open: %s", error_name(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "cannot read: it is %s, not a regular file",
				 S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
	text = malloc(CONFIG_MAX_BYTES + 1);
	if (!text)
		return error_no_memory(err);
	*ret_size = fread(text, 1, CONFIG_MAX_BYTES + 1, stream);
	if (ferror(stream))
		return error_set(err, -errno, "cannot read: %s", error_name(errno));
	*ret = take_pointer(&text);
	return 0;
}

int config_load(const char *file, struct config **ret, struct config_errors *errors)
{
	_cleanup_free_ char *text = NULL;
	struct error err;
	size_t size = 0;
	int r;

	r = read_file(file, &text, &size, &err);
	if (r < 0) {
		config_errors_add(errors, 0, 0, "%s", err.text);
		return r;
	}
	return config_parse(text, size, ret, errors);
}

/* A wrong key is as good as none, and so is a table that is something else. */
static int salvage(const char *text, size_t size, struct config *config,
		   struct config_errors *errors)
{
	const struct schema_key daemon = {.keys = daemon_keys};
	struct schema_reader reader = {.errors = errors};
	_cleanup_(toml_freep) struct toml *toml = NULL;
	const struct toml_node *table;
	int r = toml_salvage(text, size, &toml, errors);

	if (r < 0)
		return r;
	table = toml_get(toml_root(toml), "daemon");
	if (table && table->type == TOML_TABLE)
		r = schema_read_table(&reader, &daemon, table, config);
	return r == -ENOMEM ? r : 0;
}

int config_salvage(const char *file, struct config **ret, struct error *err)
{
	_cleanup_(config_freep) struct config *config = NULL;
	struct config_errors errors = {0};
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int r = config_new(&config);

	if (!r && !read_file(file, &text, &size, NULL))
		r = salvage(text, size, config, &errors);
	config_errors_clear(&errors);
	if (r < 0)
		return error_no_memory(err);
	*ret = take_pointer(&config);
	return 0;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	free(config->daemon.socket);
	free(config->daemon.group);
	free(config->daemon.read_group);
	free(config->daemon.state_dir);
	free(config->daemon.pin_dir);
	for (size_t i = 0; i < config->n_interfaces; i++)
		free(config->interfaces[i].name);
	free(config->interfaces);
	free(config->blacklist.addresses);
	for (size_t i = 0; i < config->blacklist.n_feeds; i++) {
		free(config->blacklist.feeds[i].name);
		free(config->blacklist.feeds[i].file);
	}
	free(config->blacklist.feeds);
	free(config->allow);
	free(config->redirects);
	free(config->text);
	free(config);
}
