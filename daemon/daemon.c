// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon.h"

#include "broker.h"
#include "capabilities.h"
#include "clock.h"
#include "commands.h"
#include "grace.h"
#include "log.h"
#include "preflight.h"
#include "ticks.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

/* Connections, and per interface some maps and programs, each a descriptor. */
#define FILES_WANTED 8192

#define NS_PER_US 1000

/* One that runs and one that waits; signals beyond that ask for nothing new. */
#define RELOADS_AT_ONCE 2

/* Between two steps of folding, a few milliseconds each, and after one that failed. */
#define FOLD_PAUSE_US 20000
#define FOLD_AGAIN_US 10000000

/* Between two looks for what others have changed in tc, however often they do. */
#define TC_PAUSE_NS	  (NS_PER_S / 10)
#define TIMER_ACCURACY_US 10000

/* After the network interfaces could not be asked for. */
#define LINKS_AGAIN_US 500000

/* ---- events ---- */

/* What others did in tc is looked at right away, unless that has just been done. */
static void arm_settle(struct daemon *daemon)
{
	u64 due_ns = interfaces_due_ns(daemon->interfaces);
	u64 tc_ns = daemon->settled_ns + TC_PAUSE_NS;

	if (daemon->tc_changed && (!due_ns || tc_ns < due_ns))
		due_ns = tc_ns;
	sd_event_source_set_time(daemon->settle_timer, due_ns / NS_PER_US + 1);
	sd_event_source_set_enabled(daemon->settle_timer, due_ns ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static void settle(struct daemon *daemon)
{
	interfaces_settle(daemon->interfaces);
	daemon->settled_ns = clock_ns(CLOCK_MONOTONIC);
	daemon->tc_changed = false;
	arm_settle(daemon);
}

static int on_settle(sd_event_source *source, void *data)
{
	settle(data);
	return 0;
}

static int on_settle_due(sd_event_source *source, u64 us, void *data)
{
	settle(data);
	return 0;
}

/* Many changes come together; they are looked at once. */
static int follow_links(struct daemon *daemon)
{
	struct error err;
	bool failed = links_process(daemon->links, &err) < 0;

	if (failed && !daemon->links_failed)
		log_warning("%s; trying again", err.text);
	else if (!failed && daemon->links_failed)
		log_notice("the network interfaces are known again");
	daemon->links_failed = failed;
	/* What cannot be read would wake us up all the while. */
	sd_event_source_set_enabled(daemon->links_source, failed ? SD_EVENT_OFF : SD_EVENT_ON);
	sd_event_source_set_time_relative(daemon->links_timer, LINKS_AGAIN_US);
	sd_event_source_set_enabled(daemon->links_timer, failed ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	return sd_event_source_set_enabled(daemon->settle_source, SD_EVENT_ONESHOT);
}

static int on_links(sd_event_source *source, int fd, u32 revents, void *data)
{
	return follow_links(data);
}

static int on_links_due(sd_event_source *source, u64 us, void *data)
{
	return follow_links(data);
}

static void on_move(void *data, int ifindex)
{
	struct daemon *daemon = data;

	interfaces_note_move(daemon->interfaces, ifindex);
}

static bool is_watched(void *data, int ifindex)
{
	struct daemon *daemon = data;

	return interfaces_has(daemon->interfaces, ifindex);
}

static int on_tc(sd_event_source *source, int fd, u32 revents, void *data)
{
	struct daemon *daemon = data;
	bool changed = false;
	struct error err;

	if (tc_watch_process(daemon->tc_watch, is_watched, daemon, &changed, &err) < 0) {
		log_warning("%s; filters that others take off are put back late", err.text);
		return sd_event_source_set_enabled(source, SD_EVENT_OFF);
	}
	if (changed) {
		daemon->tc_changed = true;
		arm_settle(daemon);
	}
	return 0;
}

/* The guard goes by this host's addresses and gateways. */
static int on_locals(sd_event_source *source, int fd, u32 revents, void *data)
{
	struct daemon *daemon = data;
	struct local_list list;
	bool changed = false;
	struct error err;
	int r = locals_process(daemon->locals, &changed, &err);

	if (r < 0)
		log_warning("%s", err.text);
	if (!changed)
		return 0;
	r = locals_list(daemon->locals, &list);
	r = r < 0 ? error_no_memory(&err) : rules_set_locals(daemon->rules, &list, &err);
	if (r < 0)
		log_warning("cannot follow this host's addresses and gateways, which may be "
			    "blocked: %s",
			    err.text);
	return 0;
}

static void arm_expiry(struct daemon *daemon, u64 next_ns)
{
	sd_event_source_set_time(daemon->expiry_source, next_ns / NS_PER_US + 1);
	sd_event_source_set_enabled(daemon->expiry_source,
				    next_ns ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int on_expiry(sd_event_source *source, u64 us, void *data)
{
	struct daemon *daemon = data;

	arm_expiry(daemon, rules_expire(daemon->rules));
	return 0;
}

/*
 * Large changes become rows of the database when nothing else is to be done. A database that could
 * not be written to may be again.
 */
static int on_fold(sd_event_source *source, u64 us, void *data)
{
	struct daemon *daemon = data;
	struct error err;
	bool more = false;

	if (store_refuses(daemon->store, &err)) {
		sd_event_source_set_time_relative(source, FOLD_AGAIN_US);
		return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	if (store_fold(daemon->store, &more, &err) < 0) {
		if (!daemon->fold_failed)
			log_warning("%s; trying again", err.text);
		daemon->fold_failed = true;
		sd_event_source_set_time_relative(source, FOLD_AGAIN_US);
		return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	daemon->fold_failed = false;
	if (!more)
		return 0;
	sd_event_source_set_time_relative(source, FOLD_PAUSE_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void daemon_rules_changed(struct daemon *daemon)
{
	arm_expiry(daemon, rules_expire(daemon->rules));
	arm_settle(daemon);
	sd_event_source_set_time_relative(daemon->fold_source, FOLD_PAUSE_US);
	sd_event_source_set_enabled(daemon->fold_source, SD_EVENT_ONESHOT);
}

/*
 * It had the privilege that we have given up, so only a new start brings another one; the kernel
 * filters meanwhile.
 */
static int on_broker_lost(sd_event_source *source, int fd, u32 revents, void *data)
{
	struct daemon *daemon = data;

	daemon->broker_lost = true;
	return sd_event_exit(daemon->event, 0);
}

/* ---- reload ---- */

json_t *daemon_config_errors(const char *file, const struct config_errors *errors)
{
	json_t *texts = errors ? json_array() : NULL;

	for (size_t i = 0; texts && i < errors->n; i++) {
		_cleanup_free_ char *text = config_error_text(file, &errors->items[i]);

		json_array_append_new(texts, text ? json_string(text) : json_null());
	}
	return texts;
}

static void use_log_level(const struct daemon *daemon)
{
	if (!daemon->log_level_fixed)
		log_set_level(rules_config(daemon->rules)->daemon.log_level);
}

/* systemd's protocol for a service that reloads; sd_notify(3). */
void daemon_reloading(struct daemon *daemon)
{
	u64 now_us = clock_ns(CLOCK_MONOTONIC) / NS_PER_US;

	daemon->reloads++;
	sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)now_us);
}

void daemon_reloaded(struct daemon *daemon, const struct rules_end *end)
{
	daemon->reloads--;
	/* Of a stop systemd has been told. */
	if (end->r != -ECANCELED)
		sd_notify(false, "READY=1");
	if (end->r < 0) {
		log_error("reload failed, the old configuration stays in force: %s", end->err.text);
		return;
	}
	use_log_level(daemon);
	daemon->previous_loaded_s = daemon->config_loaded_s;
	daemon->config_loaded_s = wall_s();
	daemon->config_unconfirmed = false;
	log_notice("reloaded %s: %zu entries more are blocked, %zu fewer", daemon->config_file,
		   end->count.added, end->count.removed);
}

static void on_went_back(void *data)
{
	struct daemon *daemon = data;

	use_log_level(daemon);
	daemon->config_loaded_s = daemon->previous_loaded_s;
	daemon->config_unconfirmed = true;
	daemon_rules_changed(daemon);
}

static void on_sighup_done(void *data, const struct rules_end *end)
{
	struct daemon *daemon = data;
	json_t *errors = daemon_config_errors(daemon->config_file, end->errors);
	const json_t *text;
	size_t i;

	daemon_reloaded(daemon, end);
	json_array_foreach (errors, i, text)
		log_error("%s", json_string_value(text));
	json_decref(errors);
	if (!end->r)
		daemon_rules_changed(daemon);
}

static int on_sighup(sd_event_source *source, const struct signalfd_siginfo *info, void *data)
{
	struct daemon *daemon = data;
	const struct rules_later later = {on_sighup_done, daemon};
	struct rules_request request = {
		.kind = RULES_RELOAD,
		.list_fd = -1,
		.config_file = daemon->config_file,
	};
	struct rules_end end = {0};

	if (confirm_check_reload(daemon->confirm, &end.err) < 0) {
		log_error("SIGHUP: nothing is reloaded: %s", end.err.text);
		return 0;
	}
	/* One that has not begun reads the file as it is now. */
	if (daemon->reloads >= RELOADS_AT_ONCE) {
		log_notice("another reload waits already");
		return 0;
	}
	daemon_reloading(daemon);
	end.r = rules_submit(daemon->rules, &request, &later, &end.count, &end.err);
	if (end.r != -EINPROGRESS)
		on_sighup_done(daemon, &end);
	return 0;
}

/* ---- start ---- */

static void raise_limits(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit limit;

	/* For good: kernels before 5.11 count maps as locked memory. */
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= FILES_WANTED)
		return;
	limit.rlim_cur = limit.rlim_max < FILES_WANTED ? limit.rlim_max : FILES_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_event_loop(struct daemon *daemon, struct error *err)
{
	sigset_t signals;
	int r;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_default(&daemon->event);
	if (r >= 0)
		r = sd_event_add_signal(daemon->event, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(daemon->event, NULL, SIGINT, NULL, NULL);
	if (r >= 0)
		r = sd_event_set_watchdog(daemon->event, true);
	return r < 0 ? error_set(err, r, "cannot make the event loop: %s", error_name(r)) : 0;
}

/* Watched from the moment that the rules are there to answer for. */
static int add_sources(struct daemon *daemon, struct error *err)
{
	int r = sd_event_add_defer(daemon->event, &daemon->settle_source, on_settle, daemon);

	if (r >= 0)
		r = sd_event_add_io(daemon->event, &daemon->links_source, links_fd(daemon->links),
				    EPOLLIN, on_links, daemon);
	if (r >= 0)
		r = sd_event_add_time(daemon->event, &daemon->links_timer, CLOCK_MONOTONIC, 0,
				      TIMER_ACCURACY_US, on_links_due, daemon);
	if (r >= 0)
		r = sd_event_source_set_enabled(daemon->links_timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_io(daemon->event, &daemon->tc_source,
				    tc_watch_fd(daemon->tc_watch), EPOLLIN, on_tc, daemon);
	if (r >= 0)
		r = sd_event_add_time(daemon->event, &daemon->settle_timer, CLOCK_MONOTONIC, 0,
				      TIMER_ACCURACY_US, on_settle_due, daemon);
	if (r >= 0)
		r = sd_event_add_io(daemon->event, &daemon->locals_source,
				    locals_fd(daemon->locals), EPOLLIN, on_locals, daemon);
	if (r >= 0)
		r = sd_event_add_time(daemon->event, &daemon->expiry_source, CLOCK_BOOTTIME, 0, 0,
				      on_expiry, daemon);
	if (r >= 0)
		r = sd_event_add_time_relative(daemon->event, &daemon->fold_source, CLOCK_MONOTONIC,
					       FOLD_PAUSE_US, 0, on_fold, daemon);
	if (r >= 0)
		r = sd_event_source_set_priority(daemon->fold_source, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0)
		r = sd_event_add_signal(daemon->event, NULL, SIGHUP, on_sighup, daemon);
	/* A hang-up is told without being asked for. */
	if (r >= 0 && broker_fd() >= 0)
		r = sd_event_add_io(daemon->event, NULL, broker_fd(), 0, on_broker_lost, daemon);
	return r < 0 ? error_set(err, r, "cannot watch events: %s", error_name(r)) : 0;
}

/* 0, with a warning, where there is no group of the name. */
static gid_t find_group(const char *key, const char *name, const char *so)
{
	const struct group *group = getgrnam(name);

	if (!group)
		log_warning(
			"there is no group \"%s\": %s; make the group (groupadd --system %s) and "
			"restart, or set daemon.%s",
			name, so, name, key);
	return group ? group->gr_gid : 0;
}

static int open_control(struct daemon *daemon, const struct config *config, struct error *err)
{
	const char *group = config->daemon.group, *read_group = config->daemon.read_group;
	struct control_groups groups = {.look_name = read_group};
	const struct control_handler handler = {
		.run = commands_run,
		.next = commands_next,
		.end = commands_end,
		.data = daemon,
	};

	groups.change = find_group("group", group, "only root may change rules");
	if (read_group)
		groups.look = find_group("read_group", read_group, "nobody more may look");
	return control_open(daemon->event, config->daemon.socket, &groups, &handler,
			    &daemon->control, err);
}

static int open_rules(struct daemon *daemon, struct config *config, struct error *err)
{
	struct local_list locals;
	int r;

	if (locals_list(daemon->locals, &locals) < 0)
		return error_no_memory(err);
	r = rules_open(config, daemon->store, daemon->interfaces, daemon->worker, &locals,
		       &daemon->rules, err);
	free(locals.items);
	return r;
}

/* In a container there may be none. Then it goes as far as it gets. */
static int open_broker(struct error *err)
{
	if (capability_is_held(CAP_SYS_ADMIN))
		return broker_open(err);
	log_warning("without CAP_SYS_ADMIN at the start no BPF program can be looked up: what is "
		    "attached to an interface, also by an earlier fwd, stays and cannot be told or "
		    "replaced; no interface is shared, and changes of many rules fail");
	return 0;
}

int daemon_start(struct daemon *daemon, struct config *config, struct error *err)
{
	const struct confirm_watcher watcher = {on_went_back, daemon};
	_cleanup_(config_freep) struct config *owned = config;
	int r;

	daemon->started_s = daemon->config_loaded_s = wall_s();
	daemon->started_ns = boot_ns();
	raise_limits();
	r = preflight_check(config->daemon.pin_dir, err);
	if (!r)
		r = open_broker(err);
	if (!r)
		r = open_event_loop(daemon, err);
	/* Before anything changes: it tells whether another fwd is at work. */
	if (!r)
		r = open_control(daemon, config, err);
	/* Before threads, which have what the first one has. */
	if (!r)
		r = capabilities_keep_for_service(err);
	if (!r)
		r = store_open(config->daemon.state_dir, &daemon->store, err);
	if (!r)
		r = datapath_lock(config->daemon.pin_dir, &daemon->pin_dir_lock, err);
	if (!r)
		r = grace_open(err);
	if (!r)
		r = ticks_open(err);
	if (!r)
		r = worker_open(daemon->event, &daemon->worker, err);
	if (!r)
		r = links_open(&daemon->links, err);
	if (!r)
		r = locals_open(&daemon->locals, err);
	if (!r)
		r = tc_open(&daemon->tc, err);
	if (!r)
		r = tc_watch_open(tc_port(daemon->tc), &daemon->tc_watch, err);
	if (!r)
		r = interfaces_open(daemon->links, daemon->tc, &daemon->interfaces, err);
	if (!r)
		r = open_rules(daemon, config, err);
	if (r < 0)
		return r;
	take_pointer(&owned);
	links_on_move(daemon->links, on_move, daemon);
	r = confirm_open(daemon->event, daemon->rules, &watcher, &daemon->confirm, err);
	return r < 0 ? r : add_sources(daemon, err);
}

int daemon_run(struct daemon *daemon, struct error *err)
{
	const struct policy *policy = rules_policy(daemon->rules);
	int r;

	log_notice("fwd %s: ready, %u entries blocked, %zu redirects%s", FWD_VERSION,
		   prefix_map_size(rules_map(daemon->rules), TABLE_BLOCK), policy->n_redirects,
		   rules_adopted(daemon->rules) ? ", pins adopted" : "");
	sd_notify(false, "READY=1");
	r = sd_event_loop(daemon->event);
	sd_notify(false, "STOPPING=1");
	if (daemon->broker_lost)
		return error_set(err, -ECHILD,
				 "the broker of BPF objects has died; fwd ends, to be started "
				 "again, and the kernel goes on filtering");
	return r < 0 ? error_set(err, r, "the event loop failed: %s", error_name(r)) : 0;
}

static void detach(struct daemon *daemon)
{
	_cleanup_free_ char *pin_dir = strdup(rules_config(daemon->rules)->daemon.pin_dir);
	struct error err;

	interfaces_detach_all(daemon->interfaces);
	if (!pin_dir || datapath_remove_pins(pin_dir, &err) < 0)
		log_error("%s", pin_dir ? err.text : "out of memory");
	log_notice("detached: packets are no longer filtered");
}

void daemon_stop(struct daemon *daemon)
{
	if (daemon->rules)
		rules_stop(daemon->rules);
	/* What it is at work on is not made; rules_close() tells who waits for it. */
	worker_close(daemon->worker);
	if (daemon->rules && !daemon->broker_lost &&
	    rules_config(daemon->rules)->daemon.on_stop == ON_STOP_DETACH)
		detach(daemon);
	else if (daemon->rules)
		log_notice("stopped; the kernel goes on filtering");
	sd_event_source_disable_unref(daemon->links_source);
	sd_event_source_disable_unref(daemon->links_timer);
	sd_event_source_disable_unref(daemon->locals_source);
	sd_event_source_disable_unref(daemon->settle_source);
	sd_event_source_disable_unref(daemon->tc_source);
	sd_event_source_disable_unref(daemon->settle_timer);
	sd_event_source_disable_unref(daemon->expiry_source);
	sd_event_source_disable_unref(daemon->fold_source);
	rules_close(daemon->rules);
	confirm_close(daemon->confirm);
	control_close(daemon->control);
	interfaces_close(daemon->interfaces);
	tc_watch_close(daemon->tc_watch);
	tc_close(daemon->tc);
	locals_close(daemon->locals);
	links_close(daemon->links);
	closep(&daemon->pin_dir_lock);
	store_close(daemon->store);
	ticks_close();
	grace_close();
	broker_close();
	sd_event_unref(daemon->event);
}
