// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "commands_internal.h"
#include "ticks.h"

#include <errno.h>
#include <string.h>

/* Rows of a listing in one line: some 100 KiB, far below REPLY_MAX_BYTES. */
#define ROWS_AT_ONCE 400
/* Rules that a turn looks at for them: others wait for it, and few may be of the origin. */
#define LOOKED_AT_ONCE 16384

static const char *const verdict_names[] = {
	[FWD_PASS] = "pass",	       [FWD_DROP] = "drop",	      [FWD_ALLOW] = "allow",
	[FWD_NOT_IP] = "not_ip",       [FWD_MALFORMED] = "malformed", [FWD_REDIRECT] = "redirect",
	[FWD_NO_TARGET] = "no_target",
};
_Static_assert(ARRAY_SIZE(verdict_names) == FWD_VERDICTS, "a name for each verdict");

static const char *const hook_names[] = {
	[FWD_HOOK_XDP] = "xdp",
	[FWD_HOOK_TC_IN] = "tc_in",
	[FWD_HOOK_TC_OUT] = "tc_out",
};
_Static_assert(ARRAY_SIZE(hook_names) == FWD_HOOKS, "a name for each hook");

/* ---- rows of lists ---- */

static void set_counters(json_t *row, const struct prefix_state *state)
{
	set_int(row, "packets", (json_int_t)state->packets);
	set_int(row, "bytes", (json_int_t)state->bytes);
	json_object_set_new(row, "last_hit_s",
			    state->last_hit ? json_integer(ticks_to_wall_s(state->last_hit))
					    : json_null());
}

static json_t *make_row(const struct daemon *daemon, enum prefix_table table,
			const struct rule *rule, const char *origin)
{
	struct prefix_state state = {0};
	s64 age_s = wall_s() - rule->created_s;
	char prefix[PREFIX_TEXT_MAX];
	json_t *row = json_object();

	if (!row)
		return NULL;
	prefix_format(&rule->prefix, prefix);
	set_text(row, "prefix", prefix);
	set_text(row, "origin", origin);
	set_text(row, "comment", comment_text(rule->comment));
	set_int(row, "created_s", rule->created_s);
	set_int(row, "age_s", age_s > 0 ? age_s : 0);
	if (rule->expires_ns) {
		s64 left_ns = (s64)rule->expires_ns - (s64)boot_ns();

		set_int(row, "left_s", left_ns > 0 ? (left_ns + NS_PER_S - 1) / (s64)NS_PER_S : 0);
	} else {
		set_text(row, "left_s", NULL);
	}
	rules_read_entry(daemon->rules, table, &rule->prefix, &state);
	set_counters(row, &state);
	return row;
}

static const char *origin_name(const struct policy *policy, enum prefix_table table, size_t set)
{
	/* The sets of the allowlist are those of the first two origins, and what is spared. */
	return table == TABLE_ALLOW && set == ALLOW_SYSTEM ? "system" : policy->origins[set].name;
}

/* ---- listings ---- */

/*
 * Where a listing has come to. It goes on behind the last prefix, whatever has changed since; so a
 * rule that stays is shown exactly once.
 */
struct listing {
	enum prefix_table table;
	bool within; /* only `scope` and what it covers */
	struct prefix scope;
	char origin[ORIGIN_NAME_MAX + 1]; /* empty: all */
	bool started;
	struct prefix last;
};

/* Whether the walk goes on behind this rule. */
static bool is_behind(const struct listing *listing, const struct prefix *prefix)
{
	return listing->within && !prefix_contains(&listing->scope, prefix);
}

static json_t *fill_rows(const struct daemon *daemon, struct listing *listing, bool *ret_more)
{
	const struct policy *policy = rules_policy(daemon->rules);
	struct policy_sets sets = rules_sets(daemon->rules, listing->table);
	const bool resumed = listing->started;
	const struct prefix shown = listing->last;
	const struct prefix *from = resumed ? &shown : listing->within ? &listing->scope : NULL;
	json_t *rows = json_array();
	struct policy_walk walk;
	const struct rule *rule;
	bool more = false;
	size_t set, looked = 0;

	policy_walk_start(&walk, &sets, from);
	while (rows && (rule = policy_walk_next(&walk, &set))) {
		const char *origin = origin_name(policy, listing->table, set);

		if (resumed && prefix_equal(&rule->prefix, &shown))
			continue;
		if (is_behind(listing, &rule->prefix))
			break;
		/* A line ends between prefixes, not between the origins of one. */
		if ((json_array_size(rows) >= ROWS_AT_ONCE || ++looked > LOOKED_AT_ONCE) &&
		    !prefix_equal(&rule->prefix, &listing->last)) {
			more = true;
			break;
		}
		listing->last = rule->prefix;
		listing->started = true;
		if (listing->origin[0] && strcmp(listing->origin, origin) != 0)
			continue;
		json_array_append_new(rows, make_row(daemon, listing->table, rule, origin));
	}
	*ret_more = more;
	return rows;
}

json_t *commands_next(void *data, struct listing *listing, bool *ret_more)
{
	json_t *rows = fill_rows(data, listing, ret_more);
	json_t *line = json_pack("{s:b, s:o}", "ok", 1, "entries", rows);

	if (line && *ret_more)
		set_bool(line, "more", true);
	return line;
}

void commands_end(struct listing *listing)
{
	free(listing);
}

static int find_origin(const struct call *call, const char *name, struct error *err)
{
	const struct policy *policy = rules_policy(call->daemon->rules);

	for (size_t i = 0; i < policy->n_origins; i++)
		if (!strcmp(policy->origins[i].name, name))
			return 0;
	return error_set(err, -ENOENT,
			 "there is no origin \"%s\"; expected \"config\", \"runtime\" or a feed's "
			 "name",
			 name);
}

/* The first line is made like the others, so that it can be the only one. */
int run_list(struct call *call, struct error *err)
{
	const char *prefix = request_text(call->request, "prefix");
	const char *origin = request_text(call->request, "origin");
	struct listing *listing;
	bool more;
	int r = origin ? find_origin(call, origin, err) : 0;

	if (r < 0)
		return r;
	listing = calloc(1, sizeof(*listing));
	if (!listing)
		return error_no_memory(err);
	listing->table = call_table(call);
	snprintf(listing->origin, sizeof(listing->origin), "%s", origin ? origin : "");
	if (prefix) {
		listing->within = true;
		prefix_parse(prefix, strlen(prefix), &listing->scope, NULL);
	}
	json_object_set_new(call->reply, "entries", fill_rows(call->daemon, listing, &more));
	if (more) {
		set_bool(call->reply, "more", true);
		call->listing = listing;
	} else {
		free(listing);
	}
	return 0;
}

/* ---- test ---- */

/* The row of the origin that keeps the prefix blocked the longest. */
static json_t *deciding_row(const struct daemon *daemon, const struct prefix *prefix)
{
	const struct policy *policy = rules_policy(daemon->rules);
	const struct rule *best = NULL;
	size_t best_origin = 0;

	for (size_t i = 0; i < policy->n_origins; i++) {
		const struct rule *rule = ruleset_find(policy->origins[i].rules, prefix);

		if (!rule ||
		    (best && latest_end(best->expires_ns, rule->expires_ns) == best->expires_ns))
			continue;
		best = rule;
		best_origin = i;
	}
	return best ? make_row(daemon, TABLE_BLOCK, best, policy->origins[best_origin].name)
		    : json_null();
}

int run_test(struct call *call, struct error *err)
{
	const char *text = request_text(call->request, "address");
	char allowed[PREFIX_TEXT_MAX];
	struct rules_match match;
	struct prefix address;
	int r = address_parse(text, strlen(text), &address, err);

	if (r < 0)
		return r;
	rules_test(call->daemon->rules, &address, &match);
	set_text(call->reply, "verdict", match.blocked && !match.allowed ? "drop" : "pass");
	json_object_set_new(call->reply, "entry",
			    match.blocked ? deciding_row(call->daemon, &match.blocked_by)
					  : json_null());
	if (match.blocked && match.allowed)
		prefix_format(&match.allowed_by, allowed);
	set_text(call->reply, "allowed_by", match.blocked && match.allowed ? allowed : NULL);
	return 0;
}

/* ---- feeds ---- */

static const struct origin *feed_origin(const struct daemon *daemon, size_t feed)
{
	return &rules_policy(daemon->rules)->origins[ORIGIN_FEEDS + feed];
}

/* The hits of all prefixes that the feed has, and the last of them. */
static void sum_hits(const struct daemon *daemon, const struct ruleset *set,
		     struct prefix_state *ret)
{
	struct ruleset_cursor cursor = ruleset_seek(set, NULL);
	struct prefix_state state;

	*ret = (struct prefix_state){0};
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor)) {
		if (!rules_read_entry(daemon->rules, TABLE_BLOCK, &rule->prefix, &state))
			continue;
		ret->packets += state.packets;
		ret->bytes += state.bytes;
		/* They wrap around. */
		if (state.last_hit && (!ret->last_hit || (s32)(state.last_hit - ret->last_hit) > 0))
			ret->last_hit = state.last_hit;
	}
}

static json_t *feed_row(const struct daemon *daemon, size_t feed)
{
	const struct origin *origin = feed_origin(daemon, feed);
	struct prefix_state hits;
	json_t *row = json_object();

	if (!row)
		return NULL;
	sum_hits(daemon, origin->rules, &hits);
	set_text(row, "name", origin->name);
	set_text(row, "file", rules_config(daemon->rules)->blacklist.feeds[feed].file);
	set_int(row, "entries", (json_int_t)ruleset_size(origin->rules));
	set_counters(row, &hits);
	set_int(row, "loaded_s", origin->loaded_s);
	set_bool(row, "replaced", origin->replaced);
	return row;
}

int run_feed_list(struct call *call, struct error *err)
{
	const struct config *config = rules_config(call->daemon->rules);
	json_t *rows = json_array();

	if (!rows)
		return error_no_memory(err);
	for (size_t i = 0; i < config->blacklist.n_feeds; i++)
		json_array_append_new(rows, feed_row(call->daemon, i));
	json_object_set_new(call->reply, "feeds", rows);
	return 0;
}

/* ---- redirects ---- */

static json_t *redirect_row(const struct daemon *daemon, const struct redirect *redirect,
			    bool from_config)
{
	struct redirect_map *map = datapath_redirects(rules_datapath(daemon->rules));
	struct redirect_state state = {0};
	char ports[REDIRECT_PORTS_TEXT_MAX];
	json_t *row = json_object();

	if (!row)
		return NULL;
	redirect_map_read(map, redirect, &state);
	redirect_ports_format(redirect, ports);
	set_text(row, "ports", ports);
	set_text(row, "interface", redirect->interface[0] ? redirect->interface : NULL);
	set_text(row, "direction", direction_names[redirect->direction]);
	set_text(row, "target", redirect->target);
	set_text(row, "mode", redirect_mode_names[redirect->mode]);
	set_text(row, "effective_mode", state.has_target ? redirect_mode_names[state.mode] : NULL);
	set_text(row, "origin", from_config ? "config" : "runtime");
	set_int(row, "packets", (json_int_t)state.packets);
	set_int(row, "bytes", (json_int_t)state.bytes);
	return row;
}

static int compare_redirects(const void *a, const void *b)
{
	const struct redirect *const *x = a, *const *y = b;

	return redirect_compare(*x, *y);
}

int run_redirect_list(struct call *call, struct error *err)
{
	const struct policy *policy = rules_policy(call->daemon->rules);
	_cleanup_free_ const struct redirect **order =
		calloc(policy->n_redirects + 1, sizeof(*order));
	json_t *rows = json_array();

	if (!order || !rows) {
		json_decref(rows);
		return error_no_memory(err);
	}
	for (size_t i = 0; i < policy->n_redirects; i++)
		order[i] = &policy->redirects[i];
	qsort(order, policy->n_redirects, sizeof(*order), compare_redirects);
	for (size_t i = 0; i < policy->n_redirects; i++)
		json_array_append_new(
			rows,
			redirect_row(call->daemon, order[i],
				     order[i] < policy->redirects + policy->n_config_redirects));
	json_object_set_new(call->reply, "redirects", rows);
	return 0;
}

/* ---- status and stats ---- */

static json_t *interface_rows(const struct daemon *daemon)
{
	struct interface_status status;
	json_t *rows = json_array();
	u32 slot = 0;

	while (interfaces_next(daemon->interfaces, &slot, &status)) {
		json_t *row = json_object();

		set_text(row, "name", status.name);
		set_int(row, "ifindex", status.ifindex);
		set_text(row, "xdp", !status.xdp ? NULL : status.native ? "native" : "generic");
		set_bool(row, "dispatcher", status.dispatcher);
		set_bool(row, "tc_in", status.tc_in);
		set_bool(row, "tc_out", status.tc_out);
		set_text(row, "error", status.error);
		json_array_append_new(rows, row);
	}
	return rows;
}

static json_t *waiting_rows(const struct daemon *daemon)
{
	const struct config *config = rules_config(daemon->rules);
	json_t *rows = json_array();

	for (size_t i = 0; i < config->n_interfaces; i++)
		if (!interfaces_matches(daemon->interfaces, config->interfaces[i].name))
			json_array_append_new(rows, json_string(config->interfaces[i].name));
	return rows;
}

static json_t *direction_rows(u32 flags)
{
	json_t *rows = json_array();

	if (flags & FWD_BLOCK_IN)
		json_array_append_new(rows, json_string("in"));
	if (flags & FWD_BLOCK_OUT)
		json_array_append_new(rows, json_string("out"));
	return rows;
}

static void describe_sizes(const struct daemon *daemon, json_t *reply)
{
	const struct policy *policy = rules_policy(daemon->rules);
	const struct prefix_map *map = rules_map(daemon->rules);
	json_t *block = json_object(), *allow = json_object(), *redirects = json_object();
	size_t spared = ruleset_size(policy->allow[ALLOW_SYSTEM]);
	json_t *maps = json_object();

	set_int(block, "entries", prefix_map_size(map, TABLE_BLOCK));
	set_int(block, "max_entries", policy->max_entries);
	set_int(block, "runtime", (json_int_t)ruleset_size(policy->origins[ORIGIN_RUNTIME].rules));
	json_object_set_new(block, "directions", direction_rows(policy->flags));
	json_object_set_new(reply, "blacklist", block);
	set_int(allow, "entries", (json_int_t)(prefix_map_size(map, TABLE_ALLOW) - spared));
	set_int(allow, "max_entries", CONFIG_ALLOW_MAX);
	set_int(allow, "spared", (json_int_t)spared);
	json_object_set_new(reply, "allowlist", allow);
	set_int(redirects, "entries", (json_int_t)policy->n_redirects);
	set_int(redirects, "max_entries", REDIRECTS_MAX);
	json_object_set_new(reply, "redirects", redirects);
	set_int(maps, "bytes", (json_int_t)datapath_bytes(rules_datapath(daemon->rules)));
	set_int(maps, "capacity", prefix_map_capacity(map));
	json_object_set_new(reply, "maps", maps);
}

static json_t *confirm_row(const struct daemon *daemon)
{
	s64 left_s = 0;
	const char *what = confirm_waits(daemon->confirm, &left_s);

	return what ? json_pack("{s:s, s:I}", "command", what, "left_s", (json_int_t)left_s)
		    : json_null();
}

int run_status(struct call *call, struct error *err)
{
	const struct daemon *daemon = call->daemon;
	const struct config *config = rules_config(daemon->rules);
	json_t *reply = call->reply;
	struct error why;

	set_text(reply, "version", FWD_VERSION);
	set_int(reply, "pid", getpid());
	set_int(reply, "started_s", daemon->started_s);
	set_int(reply, "uptime_s", (json_int_t)((boot_ns() - daemon->started_ns) / NS_PER_S));
	set_text(reply, "config", daemon->config_file);
	set_int(reply, "config_loaded_s", daemon->config_loaded_s);
	set_bool(reply, "config_unconfirmed", daemon->config_unconfirmed);
	json_object_set_new(reply, "confirm", confirm_row(daemon));
	set_text(reply, "pin_dir", config->daemon.pin_dir);
	set_text(reply, "on_stop", config->daemon.on_stop == ON_STOP_KEEP ? "keep" : "detach");
	set_bool(reply, "adopted", rules_adopted(daemon->rules));
	set_text(reply, "damage", store_damage(daemon->store));
	set_text(reply, "refuses_changes", store_refuses(daemon->store, &why) ? why.text : NULL);
	describe_sizes(daemon, reply);
	set_int(reply, "clients", (json_int_t)control_clients(daemon->control));
	json_object_set_new(reply, "interfaces", interface_rows(daemon));
	json_object_set_new(reply, "waiting", waiting_rows(daemon));
	return 0;
}

static json_t *hook_row(const struct daemon *daemon, u32 slot, enum fwd_hook hook)
{
	struct fwd_counters counters = {0};
	json_t *verdicts = json_object();

	datapath_counters(rules_datapath(daemon->rules), slot, hook, &counters);
	for (size_t v = 0; v < FWD_VERDICTS; v++)
		json_object_set_new(verdicts, verdict_names[v],
				    json_pack("{s:I, s:I}", "packets",
					      (json_int_t)counters.by_verdict[v].packets, "bytes",
					      (json_int_t)counters.by_verdict[v].bytes));
	return json_pack("{s:s, s:o}", "hook", hook_names[hook], "verdicts", verdicts);
}

int run_stats(struct call *call, struct error *err)
{
	struct interface_status status;
	json_t *rows = json_array();
	u32 slot = 0;

	while (interfaces_next(call->daemon->interfaces, &slot, &status)) {
		json_t *hooks = json_array();

		for (u32 hook = 0; hook < FWD_HOOKS; hook++)
			json_array_append_new(hooks, hook_row(call->daemon, status.slot, hook));
		json_array_append_new(rows,
				      json_pack("{s:s, s:o}", "name", status.name, "hooks", hooks));
	}
	json_object_set_new(call->reply, "interfaces", rows);
	return 0;
}
