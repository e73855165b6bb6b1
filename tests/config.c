// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

/* All the errors, each on a line as `fwd --check` prints it. */
static char *errors_text(const char *file, const struct config_errors *errors)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (size_t i = 0; i < errors->n; i++) {
		char *line = config_error_text(file, &errors->items[i]);

		fprintf(out, "%s\n", line);
		free(line);
	}
	fclose(out);
	return text;
}

/* The configuration; fails the test where there are errors. */
static struct config *parse(const char *text)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	int r = config_parse(text, strlen(text), &config, &errors);
	char *lines = errors_text("test", &errors);

	cr_assert_eq(r, 0, "%s", lines);
	cr_expect_eq(errors.n, 0);
	free(lines);
	config_errors_clear(&errors);
	return config;
}

static void expect_errors(const char *text, const char *expected)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	int r = config_parse(text, strlen(text), &config, &errors);
	char *lines = errors_text("f", &errors);

	cr_expect_eq(r, -EINVAL);
	cr_expect_null(config);
	cr_expect_str_eq(lines, expected, "got: %s", lines);
	free(lines);
	config_errors_clear(&errors);
}

static char *read_text(const char *path)
{
	FILE *file = fopen(path, "re");
	size_t size, room = 1 << 20;
	char *text = malloc(room);

	cr_assert(file, "%s: %s", path, strerror(errno));
	size = fread(text, 1, room - 1, file);
	text[size] = '\0';
	fclose(file);
	return text;
}

static void expect_defaults(const struct config *config)
{
	cr_expect_str_eq(config->daemon.socket, "/run/fwd/fwd.sock");
	cr_expect_str_eq(config->daemon.group, "fwd");
	cr_expect_null(config->daemon.read_group);
	cr_expect_str_eq(config->daemon.state_dir, "/var/lib/fwd");
	cr_expect_str_eq(config->daemon.pin_dir, "/sys/fs/bpf/fwd");
	cr_expect_eq(config->daemon.on_stop, ON_STOP_KEEP);
	cr_expect_eq(config->daemon.log_level, LOG_INFO);
	cr_expect_eq(config->blacklist.max_entries, 1000000);
	cr_expect(config->blacklist.in && !config->blacklist.out);
	cr_expect(config->allow_system);
}

Test(config, an_empty_file_has_the_defaults)
{
	struct config *config = parse("");

	expect_defaults(config);
	cr_expect_eq(config->n_interfaces, 0);
	cr_expect_eq(config->blacklist.n_addresses, 0);
	cr_expect_eq(config->blacklist.n_feeds, 0);
	cr_expect_eq(config->n_allow, 0);
	cr_expect_eq(config->n_redirects, 0);
	config_free(config);
	config_free(NULL);
}

/* Sorted: that of every interface first. */
static void expect_redirects(const struct redirect redirect[static 2])
{
	cr_expect_str_eq(redirect[0].interface, "");
	cr_expect_eq(redirect[0].direction, DIRECTION_IN);
	cr_expect_eq(redirect[0].protocol, IPPROTO_UDP);
	cr_expect(redirect[0].port_first == 8000 && redirect[0].port_last == 8099);
	cr_expect_str_eq(redirect[0].target, "tun0");
	cr_expect_eq(redirect[0].mode, REDIRECT_AUTO);
	cr_expect_str_eq(redirect[1].interface, "veth1");
	cr_expect_eq(redirect[1].direction, DIRECTION_OUT);
	cr_expect_eq(redirect[1].protocol, IPPROTO_TCP);
	cr_expect(redirect[1].port_first == 80 && redirect[1].port_last == 80);
	cr_expect_eq(redirect[1].mode, REDIRECT_INGRESS);
}

Test(config, reads_every_setting)
{
	struct config *config = parse("daemon.socket = '/s'\n"
				      "daemon.group = 'wheel'\n"
				      "daemon.read_group = 'staff'\n"
				      "daemon.state_dir = '/d'\n"
				      "daemon.pin_dir = '/p'\n"
				      "daemon.on_stop = 'detach'\n"
				      "daemon.log_level = 'debug'\n"
				      "[[interface]]\n"
				      "name = 'eth0'\n"
				      "xdp_mode = 'native'\n"
				      "[[interface]]\n"
				      "name = 'veth*'\n"
				      "xdp_mode = 'generic'\n"
				      "[blacklist]\n"
				      "max_entries = 7\n"
				      "direction = ['out', 'in']\n"
				      "addresses = ['2001:db8::/32', '192.0.2.0/24', '10.0.0.1']\n"
				      "[[blacklist.feed]]\n"
				      "name = 'drop'\n"
				      "file = '/f'\n"
				      "[[blacklist.feed]]\n"
				      "name = 'pushed'\n"
				      "[allowlist]\n"
				      "addresses = ['203.0.113.7']\n"
				      "[[redirect]]\n"
				      "interface = 'veth1'\n"
				      "direction = 'out'\n"
				      "protocol = 'tcp'\n"
				      "port = 80\n"
				      "target = 'tun1'\n"
				      "mode = 'ingress'\n"
				      "[[redirect]]\n"
				      "protocol = 'udp'\n"
				      "port = '8000-8099'\n"
				      "target = 'tun0'\n");
	char text[PREFIX_TEXT_MAX];

	cr_expect_str_eq(config->daemon.socket, "/s");
	cr_expect_str_eq(config->daemon.group, "wheel");
	cr_expect_str_eq(config->daemon.read_group, "staff");
	cr_expect_str_eq(config->daemon.state_dir, "/d");
	cr_expect_str_eq(config->daemon.pin_dir, "/p");
	cr_expect_eq(config->daemon.on_stop, ON_STOP_DETACH);
	cr_expect_eq(config->daemon.log_level, LOG_DEBUG);

	cr_assert_eq(config->n_interfaces, 2);
	cr_expect_str_eq(config->interfaces[0].name, "eth0");
	cr_expect_eq(config->interfaces[0].xdp_mode, XDP_WANT_NATIVE);
	cr_expect_str_eq(config->interfaces[1].name, "veth*");
	cr_expect_eq(config->interfaces[1].xdp_mode, XDP_WANT_GENERIC);

	cr_expect_eq(config->blacklist.max_entries, 7);
	cr_expect(config->blacklist.in && config->blacklist.out);
	cr_assert_eq(config->blacklist.n_addresses, 3);
	prefix_format(&config->blacklist.addresses[0], text);
	cr_expect_str_eq(text, "10.0.0.1");
	prefix_format(&config->blacklist.addresses[2], text);
	cr_expect_str_eq(text, "2001:db8::/32");
	cr_assert_eq(config->blacklist.n_feeds, 2);
	cr_expect_str_eq(config->blacklist.feeds[0].name, "drop");
	cr_expect_str_eq(config->blacklist.feeds[0].file, "/f");
	cr_expect_str_eq(config->blacklist.feeds[1].name, "pushed");
	cr_expect_null(config->blacklist.feeds[1].file);
	cr_expect_eq(config->n_allow, 1);

	cr_assert_eq(config->n_redirects, 2);
	expect_redirects(config->redirects);
	config_free(config);
}

Test(config, takes_each_log_level)
{
	static const char *const names[] = {"err", "warning", "notice", "info", "debug"};
	int level = -1;

	for (int i = 0; i < (int)ARRAY_SIZE(names); i++) {
		cr_expect_eq(log_level_parse(names[i], &level, NULL), 0);
		cr_expect_eq(level, LOG_ERR + i);
	}
	cr_expect_eq(log_level_parse("error", &level, NULL), -EINVAL);
	cr_expect_eq(log_level_parse("", &level, NULL), -EINVAL);
	cr_expect_eq(level, LOG_DEBUG);
}

static bool ends_in(const char *name, const char *end)
{
	return strlen(name) > strlen(end) && !strcmp(name + strlen(name) - strlen(end), end);
}

/* NAME.toml has exactly the errors in NAME.expected. */
static void check_pair(const char *name)
{
	char path[512], expected_path[512], *text, *expected, *lines;
	struct config_errors errors = {0};
	struct config *config = NULL;

	snprintf(path, sizeof(path), "%s/%s", FWD_GOLDEN_DIR, name);
	snprintf(expected_path, sizeof(expected_path), "%.*s.expected",
		 (int)(strlen(path) - strlen(".toml")), path);
	text = read_text(path);
	expected = read_text(expected_path);
	cr_expect_eq(config_load(path, &config, &errors), -EINVAL, "%s: accepted", name);
	lines = errors_text(name, &errors);
	cr_expect_str_eq(lines, expected, "%s: got\n%s\nexpected\n%s", name, lines, expected);
	free(lines);
	free(expected);
	free(text);
	config_errors_clear(&errors);
	config_free(config);
}

Test(config, golden_pairs)
{
	DIR *directory = opendir(FWD_GOLDEN_DIR);
	int n = 0;

	cr_assert(directory, "%s: %s", FWD_GOLDEN_DIR, strerror(errno));
	for (struct dirent *entry; (entry = readdir(directory));) {
		if (!ends_in(entry->d_name, ".toml"))
			continue;
		check_pair(entry->d_name);
		n++;
	}
	closedir(directory);
	cr_expect_geq(n, 25, "only %d pairs", n);
}

Test(config, the_shipped_example_attaches_nothing)
{
	struct config_errors errors = {0};
	struct config *config = NULL;

	cr_assert_eq(config_load(FWD_EXAMPLE, &config, &errors), 0);
	expect_defaults(config);
	cr_expect_eq(config->n_interfaces, 0);
	cr_expect_eq(config->n_redirects, 0);
	cr_expect_eq(config->blacklist.n_feeds, 0);
	config_free(config);
}

/* Takes the '#' from each line that is a setting as the example defines it. */
static int uncomment(char *text)
{
	char *out = text;
	int n = 0;

	for (char *p = text; *p;) {
		char *end = strchrnul(p, '\n');
		size_t size = (size_t)(end - p) + (*end == '\n');

		if (*p == '#' && !strchr(" #\n", p[1])) {
			p++;
			size--;
			n++;
		}
		out = (char *)memmove(out, p, size) + size;
		p += size;
	}
	*out = '\0';
	return n;
}

Test(config, the_shipped_example_uncommented_is_valid)
{
	char *text = read_text(FWD_EXAMPLE);
	struct config *config;

	cr_expect_gt(uncomment(text), 30);
	config = parse(text);
	expect_defaults(config);
	cr_expect_eq(config->n_interfaces, 2);
	cr_expect_eq(config->blacklist.n_addresses, 3);
	cr_expect_eq(config->blacklist.n_feeds, 2);
	cr_expect_eq(config->n_allow, 2);
	cr_expect_eq(config->n_redirects, 2);
	config_free(config);
	free(text);
}

Test(config, the_manual_pages_example_is_valid)
{
	char *page = read_text(FWD_MANUAL_PAGE), *start = strstr(page, "\n.Bd -literal"), *end;
	struct config *config;

	cr_assert(start);
	start = strchr(start + 1, '\n');
	end = strstr(start, "\n.Ed");
	cr_assert(end);
	*end = '\0';
	config = parse(start);
	cr_expect_eq(config->n_interfaces, 1);
	cr_expect_eq(config->n_redirects, 1);
	config_free(config);
	free(page);
}

/* The pattern with the value in the place of '@'. */
static char *fill(const char *pattern, const char *value)
{
	const char *place = strchr(pattern, '@');
	char *text;

	cr_assert_geq(
		asprintf(&text, "%.*s%s%s", (int)(place - pattern), pattern, value, place + 1), 0);
	return text;
}

static void expect_one_error(const char *text, const char *words)
{
	struct config_errors errors = {0};
	struct config *config = NULL;

	cr_expect_eq(config_parse(text, strlen(text), &config, &errors), -EINVAL);
	cr_assert_eq(errors.n, 1);
	cr_expect(strstr(errors.items[0].message, words), "%s", errors.items[0].message);
	config_errors_clear(&errors);
}

/* The last good value and the first bad one, in the place of '@'. */
static void expect_bound(const char *pattern, const char *good, const char *bad, const char *words)
{
	char *text = fill(pattern, good);

	config_free(parse(text));
	free(text);
	text = fill(pattern, bad);
	expect_one_error(text, words);
	free(text);
}

Test(config, bounds_max_entries)
{
	static const char pattern[] = "blacklist.max_entries = @";

	cr_assert_eq(CONFIG_MAX_ENTRIES_MAX, 16000000);
	expect_bound(pattern, "1", "0", "0 is out of range");
	expect_bound(pattern, "16000000", "16000001", "16000001 is out of range");
	expect_bound("[blacklist]\naddresses = ['10.0.0.1', '10.0.0.2']\nmax_entries = @", "2", "1",
		     "2 entries, more than max_entries = 1");
}

Test(config, bounds_ports)
{
	static const char pattern[] = "[[redirect]]\nprotocol='tcp'\ntarget='t'\nport=@";

	expect_bound(pattern, "1", "0", "is not a port");
	expect_bound(pattern, "65535", "65536", "is not a port");
}

/* A text of `max` bytes is good, one more is not. */
static void expect_length(const char *pattern, char first, size_t max, const char *words)
{
	char good[8192], bad[8192];

	memset(good, 'x', max);
	good[0] = first;
	good[max] = '\0';
	stpcpy(stpcpy(bad, good), "x");
	expect_bound(pattern, good, bad, words);
}

Test(config, bounds_texts)
{
	expect_length("daemon.socket = '@'", '/', 107, "too long: 108 bytes, at most 107");
	expect_length("daemon.pin_dir = '@'", '/', 4095, "too long: 4096 bytes, at most 4095");
	expect_length("daemon.group = '@'", 'g', 31, "is not a group's name");
	expect_length("[[interface]]\nname = '@'", 'e', 15, "is not an interface name");
	expect_length("[[interface]]\nname = '@'", '*', CONFIG_PATTERN_MAX, "is not a pattern");
	expect_length("[[blacklist.feed]]\nfile = '/f'\nname = '@'", 'f', 32,
		      "is not a feed's name");
	expect_length("[[redirect]]\nprotocol='tcp'\nport=1\ntarget = '@'", 't', 15,
		      "is not an interface name");
}

/* `max` times the pattern with a running number is good, once more has one error. */
static void expect_count(const char *before, const char *pattern, size_t max, const char *after)
{
	for (size_t n = max; n <= max + 1; n++) {
		char *text = NULL, *piece, number[24];
		size_t size;
		FILE *out = open_memstream(&text, &size);

		fputs(before, out);
		for (size_t i = 0; i < n; i++) {
			snprintf(number, sizeof(number), "%zu", 1000 + i);
			piece = fill(pattern, number);
			fputs(piece, out);
			free(piece);
		}
		fputs(after, out);
		fclose(out);
		if (n == max)
			config_free(parse(text));
		else
			expect_one_error(text, "at most");
		free(text);
	}
}

Test(config, bounds_tables_and_lists)
{
	expect_count("", "[[interface]]\nname='e@'\n", CONFIG_INTERFACES_MAX, "");
	expect_count("", "[[blacklist.feed]]\nname='f@'\nfile='/f'\n", CONFIG_FEEDS_MAX, "");
	expect_count("", "[[redirect]]\nprotocol='tcp'\ntarget='t'\nport=@\n", REDIRECTS_MAX, "");
}

Test(config, bounds_the_allowlist)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fputs("allowlist.addresses=[", out);
	for (unsigned i = 0; i < CONFIG_ALLOW_MAX; i++)
		fprintf(out, "'10.0.%u.%u',", i >> 8, i & 255);
	fflush(out);
	fputc(']', out);
	fflush(out);
	config_free(parse(text));
	fseek(out, -1, SEEK_CUR);
	fputs("'10.1.0.0']", out);
	fclose(out);
	expect_one_error(text, "65537 entries; at most 65536");
	free(text);
}

static void expect_load_error(const char *path, int code, const char *words)
{
	struct config_errors errors = {0};
	struct config *config = NULL;

	cr_expect_eq(config_load(path, &config, &errors), code, "%s", path);
	cr_expect_null(config);
	cr_assert_eq(errors.n, 1);
	cr_expect(strstr(errors.items[0].message, words), "%s: %s", path, errors.items[0].message);
	config_errors_clear(&errors);
}

static char scratch[] = "/tmp/fwd-config-XXXXXX";

static void make_scratch(void)
{
	cr_assert(mkdtemp(scratch));
	cr_assert_eq(chdir(scratch), 0);
}

static void remove_scratch(void)
{
	unlink("file");
	rmdir(scratch);
}

/* In a directory of their own. */
#define IN_SCRATCH .init = make_scratch, .fini = remove_scratch, .timeout = 20

Test(config, load_refuses_what_is_no_file, IN_SCRATCH)
{
	expect_load_error("missing", -ENOENT, "cannot open: No such file or directory");
	expect_load_error(".", -EINVAL, "it is a directory, not a regular file");
	expect_load_error("/dev/zero", -EINVAL, "it is a device or pipe, not a regular file");
	cr_assert_eq(mkfifo("file", 0600), 0);
	expect_load_error("file", -EINVAL, "it is a device or pipe, not a regular file");
}

static void write_file(const char *text, size_t size)
{
	int fd = open("file", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	cr_assert_eq(write(fd, text, size), (ssize_t)size);
	close(fd);
}

Test(config, load_refuses_what_is_no_text, IN_SCRATCH)
{
	write_file("\x7f"
		   "ELF\0\0",
		   6);
	expect_load_error("file", -EINVAL, "a control character");
	write_file("a\0", 2);
	expect_load_error("file", -EINVAL, "binary data");
	cr_assert_eq(truncate("file", 0), 0);
	cr_assert_eq(truncate("file", 1 << 30), 0);
	expect_load_error("file", -EFBIG, "too large");
}

Test(config, load_refuses_what_may_not_be_read, IN_SCRATCH)
{
	write_file("", 0);
	cr_assert_eq(chmod("file", 0), 0);
	cr_assert_eq(chmod(".", 0711), 0);
	/* Root reads everything. */
	if (!geteuid())
		cr_assert_eq(seteuid(65534), 0);
	expect_load_error("file", -EACCES, "cannot open: Permission denied");
	if (!getuid())
		cr_assert_eq(seteuid(0), 0);
}

Test(config, load_takes_a_file_of_the_largest_size, IN_SCRATCH)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	char *text = malloc(CONFIG_MAX_BYTES + 1);

	memset(text, '\n', CONFIG_MAX_BYTES + 1);
	write_file(text, CONFIG_MAX_BYTES);
	cr_expect_eq(config_load("file", &config, &errors), 0);
	config_free(config);
	write_file(text, CONFIG_MAX_BYTES + 1);
	expect_load_error("file", -EFBIG, "too large: more than 16777216 bytes");
	free(text);
}

/* What is left of [daemon], as "PIN_DIR STATE_DIR". */
static void expect_salvaged(const char *text, const char *expected)
{
	struct config *config = NULL;
	char found[256];

	write_file(text, strlen(text));
	cr_assert_eq(config_salvage("file", &config, NULL), 0);
	snprintf(found, sizeof(found), "%s %s", config->daemon.pin_dir, config->daemon.state_dir);
	cr_expect_str_eq(found, expected, "%s", text);
	cr_expect_eq(config->n_interfaces, 0);
	config_free(config);
}

Test(config, salvages_what_is_good_of_the_daemons_table, IN_SCRATCH)
{
	expect_salvaged("", "/sys/fs/bpf/fwd /var/lib/fwd");
	expect_salvaged("[daemon]\npin_dir = '/p'\nstate_dir = 7\nsocket = 's'\nx = 1\n",
			"/p /var/lib/fwd");
	expect_salvaged("[daemon]\nstate_dir = \"/open\npin_dir = '/p'\n", "/p /var/lib/fwd");
	expect_salvaged("[daemon]\npin_dir = '/p\n", "/sys/fs/bpf/fwd /var/lib/fwd");
	expect_salvaged("[daemon]\npin_dir = [['/p'\ngroup = 'g'\nstate_dir = '/s'\n",
			"/sys/fs/bpf/fwd /s");
	expect_salvaged("[blacklist\n[daemon]\npin_dir = '/p'\n[[interface]]\nname = 'eth0'\n",
			"/p /var/lib/fwd");
	expect_salvaged("daemon = 7\n", "/sys/fs/bpf/fwd /var/lib/fwd");
	expect_salvaged("[daemon]\npin_dir = '/p'\n\xff\n", "/sys/fs/bpf/fwd /var/lib/fwd");
}

Test(config, salvages_defaults_of_a_file_that_is_not_there, IN_SCRATCH)
{
	struct config *config = NULL;

	cr_assert_eq(config_salvage("none", &config, NULL), 0);
	cr_expect_str_eq(config->daemon.pin_dir, "/sys/fs/bpf/fwd");
	config_free(config);
}

Test(config, lists_all_errors_in_order)
{
	expect_errors(
		"[[redirect]]\n"
		"port = 0\n"
		"[daemon]\n"
		"sokcet = '/s'\n"
		"group = 1\n"
		"[[interface]]\n"
		"xdp_mode = 'fast'\n",
		"f:1:1: redirect[0]: \"protocol\" is missing: \"tcp\" or \"udp\"\n"
		"f:1:1: redirect[0]: \"target\" is missing: an interface's name in quotes\n"
		"f:2:8: redirect[0].port: \"0\" is not a port (1 to 65535) or a range such as "
		"8000-8099\n"
		"f:4:1: daemon: unknown key \"sokcet\"; did you mean \"socket\"?\n"
		"f:5:9: daemon.group: expected a group's name in quotes, found an integer\n"
		"f:6:1: interface[0]: \"name\" is missing: an interface's name or a pattern "
		"such as \"veth*\"\n"
		"f:7:12: interface[0].xdp_mode: \"fast\" is none of the choices; expected "
		"\"auto\", \"native\" or \"generic\"\n");
}

Test(config, says_how_many_errors_are_not_shown)
{
	struct config_errors errors = {0};
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (int i = 0; i < CONFIG_ERRORS_MAX + 1; i++)
		fprintf(out, "unknown%d = 1\n", i);
	fclose(out);
	cr_expect_eq(config_parse(text, size, &(struct config *){0}, &errors), -EINVAL);
	cr_assert_eq(errors.n, CONFIG_ERRORS_MAX + 1);
	cr_expect_str_eq(errors.items[CONFIG_ERRORS_MAX].message, "1 more error");
	config_errors_clear(&errors);
	free(text);
}

/* All of these are found without comparing each with each. */
Test(config, takes_a_large_list_in_little_time, .timeout = 30)
{
	struct config *config;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fputs("blacklist.addresses = [\n", out);
	for (unsigned i = 0; i < 300000; i++)
		fprintf(out, "\t\"10.%u.%u.%u\",\n", i >> 16, i >> 8 & 255, i & 255);
	fputs("]\n", out);
	fclose(out);
	config = parse(text);
	cr_expect_eq(config->blacklist.n_addresses, 300000);
	config_free(config);
	free(text);
}
