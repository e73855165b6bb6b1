// SPDX-License-Identifier: GPL-2.0-or-later
/* fwd: what starts and stops, in order. fwd(8) describes it. */
#include "address_list.h"
#include "daemon.h"
#include "detach_all.h"
#include "log.h"
#include "store.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: fwd [-c FILE] [--check | --detach-all] [--log-level LEVEL] [--version] [--help]\n"
	"\n"
	"Drops packets from blocked sources (XDP) and redirects packets by destination port (TC).\n"
	"\n"
	"  -c, --config FILE    the configuration; default " CONFIG_DEFAULT_FILE "\n"
	"      --check          print every error of the configuration and exit with 0 or 1\n"
	"      --detach-all     take everything of fwd out of the kernel, and exit: the emergency "
	"exit\n"
	"      --log-level LEVEL  err, warning, notice, info or debug; over the configuration's\n"
	"      --version        print the version\n"
	"      --help           print this\n"
	"\n"
	"SIGHUP reads the configuration again, SIGTERM stops. fwctl(8) changes rules meanwhile.\n";

struct options {
	const char *config_file;
	const char *log_level;
	bool check, detach_all;
};

enum {
	OPTION_CHECK = 256,
	OPTION_DETACH_ALL,
	OPTION_LOG_LEVEL,
	OPTION_VERSION,
	OPTION_HELP,
};

/* Returns the exit status where the options are all there is to do, else -1. */
static int read_options(int argc, char *argv[], struct options *ret)
{
	static const struct option known[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, OPTION_CHECK},
		{"detach-all", no_argument, NULL, OPTION_DETACH_ALL},
		{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
		{"version", no_argument, NULL, OPTION_VERSION},
		{"help", no_argument, NULL, OPTION_HELP},
		{0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "c:h", known, NULL)) >= 0) {
		switch (option) {
		case 'c':
			ret->config_file = optarg;
			break;
		case OPTION_CHECK:
			ret->check = true;
			break;
		case OPTION_DETACH_ALL:
			ret->detach_all = true;
			break;
		case OPTION_LOG_LEVEL:
			ret->log_level = optarg;
			break;
		case OPTION_VERSION:
			puts("fwd " FWD_VERSION);
			return 0;
		case OPTION_HELP:
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("see fwd --help\n", stderr);
			return 2;
		}
	}
	if (optind < argc)
		fprintf(stderr, "fwd: unexpected \"%s\"; see fwd --help\n", argv[optind]);
	else if (ret->check && ret->detach_all)
		fputs("fwd: --check and --detach-all exclude each other\n", stderr);
	else
		return -1;
	return 2;
}

static void print_errors(const char *file, const struct config_errors *errors)
{
	for (size_t i = 0; i < errors->n; i++) {
		_cleanup_free_ char *text = config_error_text(file, &errors->items[i]);

		fprintf(stderr, "%s\n", text ? text : "out of memory");
	}
}

/* The files of the feeds, which a start needs as much as the configuration. */
static int check_feeds(const struct config *config)
{
	int status = EXIT_SUCCESS;

	for (size_t i = 0; i < config->blacklist.n_feeds; i++) {
		const struct config_feed *feed = &config->blacklist.feeds[i];
		struct address_list list;
		struct error err;

		if (!feed->file)
			continue;
		if (address_list_load(feed->file, &list, &err) < 0) {
			fprintf(stderr, "feed \"%s\": %s\n", feed->name, err.text);
			status = EXIT_FAILURE;
		} else {
			free(list.prefixes);
		}
	}
	return status;
}

static int set_log_level(const struct options *options, const struct config *config)
{
	int level = config->daemon.log_level;
	struct error err;

	if (options->log_level && log_level_parse(options->log_level, &level, &err) < 0) {
		fprintf(stderr, "fwd: --log-level: %s\n", err.text);
		return -EINVAL;
	}
	log_set_level(level);
	return 0;
}

/* Where nobody confirmed the file's configuration, the one before it takes its place. */
static int take_confirmed(struct config **config, bool *ret_taken)
{
	struct config_errors errors = {0};
	struct config *confirmed;
	char path[STORE_FILE_MAX];

	/* With a path that is too long there is no store either, which tells. */
	if (store_unconfirmed_path((*config)->daemon.state_dir, path, NULL) < 0 ||
	    (access(path, F_OK) < 0 && errno == ENOENT))
		return 0;
	if (config_load(path, &confirmed, &errors) < 0) {
		print_errors(path, &errors);
		config_errors_clear(&errors);
		return -EINVAL;
	}
	config_free(*config);
	*config = confirmed;
	*ret_taken = true;
	return 0;
}

static int run(const struct options *options, struct config *config, bool unconfirmed)
{
	struct daemon daemon = {
		.config_file = options->config_file,
		.log_level_fixed = options->log_level,
		.config_unconfirmed = unconfirmed,
		.pin_dir_lock = -1,
	};
	struct error err;
	int r;

	log_adopt_libraries();
	if (unconfirmed)
		log_warning("the configuration in %s was not confirmed: the one before it is in "
			    "force; fwctl reload takes the file",
			    options->config_file);
	r = daemon_start(&daemon, config, &err);
	if (!r)
		r = daemon_run(&daemon, &err);
	if (r < 0)
		log_error("%s", err.text);
	daemon_stop(&daemon);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
	struct options options = {.config_file = CONFIG_DEFAULT_FILE};
	struct config_errors errors = {0};
	struct config *config = NULL;
	bool unconfirmed = false;
	int status = read_options(argc, argv, &options);

	if (status >= 0)
		return status;
	if (options.detach_all)
		return detach_all(options.config_file) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (config_load(options.config_file, &config, &errors) < 0) {
		print_errors(options.config_file, &errors);
		config_errors_clear(&errors);
		return EXIT_FAILURE;
	}
	if (!options.check && take_confirmed(&config, &unconfirmed) < 0)
		status = EXIT_FAILURE;
	else if (set_log_level(&options, config) < 0)
		status = 2;
	else if (options.check)
		status = check_feeds(config);
	else
		return run(&options, config, unconfirmed);
	config_free(config);
	return status;
}
