// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Large changes of the rules: made in the worker thread, while small ones go on.
 *
 *   L1  begin(): the event loop takes a snapshot of the policy.
 *   L2  work(): the worker makes the next policy of it, the difference for packets or, where that
 *       is large, a new bank of maps, and writes what is to be durable into files aside.
 *   L3  change_finish(): the event loop puts in what small changes did meanwhile, makes it
 *       durable, and has packets see it by one store. What fails before that leaves everything as
 *       it was. Where they did much and there is a new bank, the worker puts it in first, and what
 *       they did then in a further round: the event loop is to stop for little.
 *   L4  One change is made at a time. A small change that was made meanwhile comes before it.
 */
#include "address_list.h"
#include "clock.h"
#include "grace.h"
#include "log.h"
#include "rules_change.h"
#include "rules_verify.h"

#include <errno.h>
#include <string.h>

static void clear_result(struct change *change)
{
	policy_free(change->before);
	free(change->locals.items);
	policy_free(change->after);
	config_free(change->config);
	config_errors_clear(&change->errors);
	free(change->list.items);
	prefix_map_close(change->prefixes);
	program_set_clear(&change->programs);
	store_bulk_drop(change->bulk);
	store_snapshot_drop(change->snapshot);
	for (size_t i = 0; i < change->n_feeds; i++)
		store_feed_drop(change->feeds[i]);
	store_unconfirmed_drop(change->unconfirmed);
	rules_in_force_clear(&change->replaced);
	free(change->noted.items);
	free(change->round.items);
	free(change->guarded.items);
	policy_free(change->now);
	*change = (struct change){
		.next = change->next,
		.rules = change->rules,
		.request = change->request,
		.later = change->later,
		.rebuild = change->rebuild,
		.verification = change->verification,
	};
}

static void change_free(struct change *change)
{
	clear_result(change);
	verification_free(change->verification);
	rules_request_clear(&change->request);
	free(change);
}

/* ---- the worker: the next policy ---- */

static int read_list(struct rules_request *request, struct error *err)
{
	struct address_list list;
	int r = 0;

	if (request->list_fd >= 0) {
		r = address_list_read(request->list_fd, NULL, &list, err);
		if (r < 0)
			return r;
		closep(&request->list_fd);
		request->list_fd = -1;
		request->prefixes = list.prefixes;
		request->n = list.n;
	}
	request->n = prefix_sort_unique(request->prefixes, request->n);
	return r;
}

/* The rule of the prefix in a set that is walked in the same order. */
static const struct rule *seek_rule(struct ruleset_cursor *cursor, const struct prefix *prefix)
{
	const struct rule *rule;

	while ((rule = ruleset_at(cursor)) && prefix_compare(&rule->prefix, prefix) < 0)
		ruleset_next(cursor);
	return rule && prefix_equal(&rule->prefix, prefix) ? rule : NULL;
}

static int add(struct change *change, struct error *err)
{
	struct rules_request *request = &change->request;
	struct ruleset *runtime = rules_runtime(change->after, request->table);
	struct ruleset_cursor cursor = ruleset_seek(runtime, NULL);
	_cleanup_free_ struct rule *puts = calloc(request->n + 1, sizeof(*puts));
	size_t n = 0;

	if (!puts)
		return error_no_memory(err);
	for (size_t i = 0; i < request->n; i++) {
		const struct rule *old = seek_rule(&cursor, &request->prefixes[i]);

		if (old && request->only_new)
			continue;
		request->prefixes[n] = request->prefixes[i];
		puts[n++] = (struct rule){
			.prefix = request->prefixes[i],
			.created_s = old ? old->created_s : change->created_s,
			.expires_ns = change->expires_ns,
			.comment = request->comment,
		};
		change->end.count.updated += old != NULL;
		change->end.count.added += old == NULL;
	}
	request->n = n;
	change->end.count.expires_ns = change->expires_ns;
	if (ruleset_put_sorted(runtime, puts, n) < 0)
		return error_no_memory(err);
	if (request->force && request->table == TABLE_BLOCK &&
	    guard_force(change->after, &change->locals, request->prefixes, request->n) < 0)
		return error_no_memory(err);
	return 0;
}

static int remove_runtime(struct change *change, struct error *err)
{
	const struct rules_request *request = &change->request;
	struct ruleset *runtime = rules_runtime(change->after, request->table);
	struct ruleset_cursor cursor = ruleset_seek(runtime, NULL);

	for (size_t i = 0; i < request->n; i++)
		if (!seek_rule(&cursor, &request->prefixes[i]))
			return rules_refuse_removal(change->after, request->table,
						    &request->prefixes[i], err);
	change->end.count.removed = request->n;
	if (ruleset_remove_sorted(runtime, request->prefixes, request->n) < 0 ||
	    (request->table == TABLE_BLOCK &&
	     ruleset_remove_sorted(change->after->forced, request->prefixes, request->n) < 0))
		return error_no_memory(err);
	return 0;
}

static int empty(struct ruleset **set)
{
	struct ruleset *none = ruleset_new();

	if (!none)
		return -ENOMEM;
	ruleset_free(*set);
	*set = none;
	return 0;
}

static int flush(struct change *change, struct error *err)
{
	struct ruleset **runtime = &change->after->origins[ORIGIN_RUNTIME].rules;

	change->end.count.removed = ruleset_size(*runtime);
	if (empty(runtime) < 0 || empty(&change->after->forced) < 0)
		return error_no_memory(err);
	return 0;
}

/* How many rules are in `a` and not in `b`. */
static size_t count_only(const struct ruleset *a, const struct ruleset *b)
{
	struct ruleset_cursor at = ruleset_seek(a, NULL), other = ruleset_seek(b, NULL);
	size_t n = 0;

	for (const struct rule *rule; (rule = ruleset_at(&at)); ruleset_next(&at))
		n += !seek_rule(&other, &rule->prefix);
	return n;
}

/* Puts rules, which it takes over, in the place of a feed's. */
static void set_feed(struct change *change, struct origin *origin, struct ruleset *rules,
		     bool replaced)
{
	struct rules_count *count = &change->end.count;

	count->entries += ruleset_size(rules);
	count->added += count_only(rules, origin->rules);
	count->removed += count_only(origin->rules, rules);
	ruleset_free(origin->rules);
	origin->rules = rules;
	origin->replaced = replaced;
	origin->loaded_s = wall_s();
}

static int no_such_feed(const char *name, struct error *err)
{
	return error_set(err, -ENOENT,
			 "there is no feed \"%s\": add a [[blacklist.feed]] of that name to the "
			 "configuration and reload",
			 name);
}

static int replace_feed(struct change *change, struct error *err)
{
	const struct config *config = change->rules->config;
	const char *name = change->request.feed;
	struct ruleset *rules;
	int r;

	for (size_t i = 0; i < config->blacklist.n_feeds; i++) {
		struct origin *origin = &change->after->origins[ORIGIN_FEEDS + i];

		if (strcmp(origin->name, name) != 0)
			continue;
		r = policy_rules_from(change->request.prefixes, change->request.n, origin->rules,
				      &rules, err);
		if (!r)
			set_feed(change, origin, rules, true);
		return r;
	}
	return no_such_feed(name, err);
}

/* `feed` by its name, or all that have a file. */
static int reload_feeds(struct change *change, struct error *err)
{
	const struct config *config = change->rules->config;
	const char *name = change->request.feed;
	bool found = !*name;

	for (size_t i = 0; i < config->blacklist.n_feeds; i++) {
		const struct config_feed *feed = &config->blacklist.feeds[i];
		struct origin *origin = &change->after->origins[ORIGIN_FEEDS + i];
		struct ruleset *rules;
		int r;

		if (*name ? strcmp(feed->name, name) != 0 : !feed->file)
			continue;
		found = true;
		if (!feed->file)
			return error_set(err, -EINVAL,
					 "the feed \"%s\" has no file to read: give it a list with "
					 "fwctl feed replace",
					 name);
		r = policy_read_feed(feed, origin->rules, &rules, err);
		if (r < 0)
			return r;
		set_feed(change, origin, rules, false);
	}
	return found ? 0 : no_such_feed(name, err);
}

static int check_fixed(const struct config *old, const struct config *new, struct error *err)
{
	const struct {
		const char *name, *old, *new;
	} fixed[] = {
		{"socket", old->daemon.socket, new->daemon.socket},
		{"group", old->daemon.group, new->daemon.group},
		{"read_group", old->daemon.read_group ?: "", new->daemon.read_group ?: ""},
		{"state_dir", old->daemon.state_dir, new->daemon.state_dir},
		{"pin_dir", old->daemon.pin_dir, new->daemon.pin_dir},
	};

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (strcmp(fixed[i].old, fixed[i].new) != 0)
			return error_set(
				err, -EINVAL,
				"daemon.%s cannot change from \"%s\" to \"%s\" in a reload: "
				"restart fwd",
				fixed[i].name, fixed[i].old, fixed[i].new);
	return 0;
}

/* The whole policy anew, but for what is from run time. */
static int reload(struct change *change, struct error *err)
{
	const char *file = change->request.config_file;
	struct policy *next = NULL;
	int r;

	if (config_load(file, &change->config, &change->errors) < 0)
		return error_set(err, -EINVAL, "%s has %zu error%s; nothing was changed", file,
				 change->errors.n, change->errors.n == 1 ? "" : "s");
	r = check_fixed(change->rules->config, change->config, err);
	if (!r)
		r = policy_from_config(change->config, true, &next, err);
	if (!r)
		r = policy_take_runtime(next, change->before, err);
	if (!r)
		r = policy_keep_created(next, change->before, err);
	policy_free(change->after);
	change->after = next;
	return r;
}

/* A list that a feed was given since the reload stays: its giver was told that it is durable. */
static int keep_given_lists(struct policy *policy, const struct policy *now)
{
	for (size_t i = ORIGIN_FEEDS; i < policy->n_origins; i++) {
		struct origin *origin = &policy->origins[i];

		for (size_t j = ORIGIN_FEEDS; j < now->n_origins; j++) {
			const struct origin *given = &now->origins[j];
			struct ruleset *rules;

			if (!given->replaced || strcmp(given->name, origin->name) != 0)
				continue;
			rules = ruleset_clone(given->rules);
			if (!rules)
				return -ENOMEM;
			ruleset_free(origin->rules);
			origin->rules = rules;
			origin->replaced = true;
			origin->loaded_s = given->loaded_s;
		}
	}
	return 0;
}

/* From memory: the files may have changed since. */
static int restore(struct change *change, struct error *err)
{
	struct policy *next = NULL;
	int r;

	if (policy_clone(change->request.restore->policy, &next) < 0)
		return error_no_memory(err);
	policy_free(change->after);
	change->after = next;
	r = policy_take_runtime(next, change->before, err);
	if (!r && keep_given_lists(next, change->before) < 0)
		r = error_no_memory(err);
	return r;
}

static int change_policy(struct change *change, struct error *err)
{
	switch (change->request.kind) {
	case RULES_ADD:
		return add(change, err);
	case RULES_REMOVE:
		return remove_runtime(change, err);
	case RULES_FLUSH:
		return flush(change, err);
	case RULES_FEED_REPLACE:
		return replace_feed(change, err);
	case RULES_FEED_RELOAD:
		return reload_feeds(change, err);
	case RULES_RELOAD:
		return reload(change, err);
	case RULES_RESTORE:
		return restore(change, err);
	case RULES_RESIZE:
	case RULES_SNAPSHOT:
	case RULES_VERIFY:
	case RULES_RELEASE:
		return 0;
	}
	return -EINVAL;
}

static int make_policy(struct change *change, struct error *err)
{
	const struct policy *before = change->before;
	int r = rules_guard_request(before, &change->request, &change->locals, err);

	if (r < 0)
		return r;
	if (policy_clone(before, &change->after) < 0)
		return error_no_memory(err);
	r = change_policy(change, err);
	if (r < 0)
		return r;
	r = guard_spare_all(change->after, &change->locals, before->allow[ALLOW_SYSTEM]);
	return r < 0 ? error_no_memory(err) : 0;
}

/* ---- the worker: maps ---- */

static int check_limits(const struct change *change, size_t n_block, size_t n_allow,
			size_t n_block_before, struct error *err)
{
	const struct policy *policy = change->after;
	/* There may be more than the limit, after a restart with a lower one: that must not grow.
	 */
	bool grew = change->request.kind == RULES_RELOAD || n_block > n_block_before;
	int r;

	/* Runtime rules that came since the reload may be too many: as at a start, they stay. */
	if (change->request.kind == RULES_RESTORE)
		return 0;
	r = grew ? rules_check_limit(policy, TABLE_BLOCK, n_block, err) : 0;
	return r ? r : rules_check_limit(policy, TABLE_ALLOW, n_allow, err);
}

/* Another configuration comes to be in force. */
static bool is_reload(const struct change *change)
{
	return change->request.kind == RULES_RELOAD || change->request.kind == RULES_RESTORE;
}

static void count_reload(struct change *change)
{
	struct rules_count *count = &change->end.count;

	*count = (struct rules_count){0};
	for (size_t i = 0; i < change->list.n; i++) {
		if (change->list.items[i].item.table != TABLE_BLOCK)
			continue;
		count->added += change->list.items[i].kind == PREFIX_INSERT;
		count->removed += change->list.items[i].kind == PREFIX_REMOVE;
	}
}

/* What is made since small changes need room, not to give memory back. */
static bool grows(const struct change *change, size_t n)
{
	return change->rebuild && n >= change->capacity / 2;
}

static void load_programs(struct change *change)
{
	datapath_load_ahead(change->rules->dp, change->bank, change->prefixes, &change->programs);
}

static int make_maps(struct change *change, struct error *err)
{
	_cleanup_free_ struct prefix_item *before = NULL, *after = NULL;
	size_t n_before, n_after, n_block_before, n_block;
	int r = policy_items(change->before, &before, &n_before, &n_block_before, err);

	if (!r)
		r = policy_items(change->after, &after, &n_after, &n_block, err);
	if (!r)
		r = check_limits(change, n_block, n_after - n_block, n_block_before, err);
	if (r)
		return r;
	if (policy_diff(before, n_before, after, n_after, &change->list) < 0)
		return error_no_memory(err);
	if (is_reload(change))
		count_reload(change);
	if (!change->rebuild && change->list.n <= RULES_SMALL)
		return 0;
	change->list.n = 0;
	r = grows(change, n_after)
		    ? prefix_map_build_growing(after, n_after, change->bank, &change->prefixes, err)
		    : prefix_map_build(after, n_after, change->bank, &change->prefixes, err);
	if (!r)
		load_programs(change);
	return r;
}

/* ---- the worker: what is to be durable ---- */

static int write_bulk(struct change *change, struct error *err)
{
	const struct rules_request *request = &change->request;

	return change->bulk ? store_bulk_write(change->bulk, request->prefixes, request->n, err)
			    : 0;
}

static int replace_file(struct change *change, struct error *err)
{
	const struct rules_request *request = &change->request;
	int r = store_feed_write(change->rules->config->daemon.state_dir, request->feed,
				 request->prefixes, request->n, &change->feeds[0], err);

	change->n_feeds = !r;
	return r;
}

/*
 * Lists that were given at run time have no meaning once files were read again. `feeds` has room
 * for all.
 */
static int forget_replaced(const char *dir, const struct policy *before, const struct policy *after,
			   struct store_feed *feeds[], size_t *n_feeds, struct error *err)
{
	int r = 0;

	for (size_t i = ORIGIN_FEEDS; !r && i < before->n_origins; i++) {
		bool kept = false;

		for (size_t j = ORIGIN_FEEDS; j < after->n_origins; j++)
			kept |= after->origins[j].replaced &&
				!strcmp(after->origins[j].name, before->origins[i].name);
		if (!before->origins[i].replaced || kept)
			continue;
		r = store_feed_remove(dir, before->origins[i].name, &feeds[*n_feeds], err);
		*n_feeds += !r;
	}
	return r;
}

static int write_files(struct change *change, struct error *err)
{
	const struct rules_request *request = &change->request;
	const struct config *in_force = change->rules->config;
	const char *dir = in_force->daemon.state_dir;

	/* Lists that feeds were given are there to go back to until it is confirmed. */
	if (request->unconfirmed)
		return store_unconfirmed_write(dir, in_force->text, in_force->text_size,
					       &change->unconfirmed, err);
	switch (request->kind) {
	case RULES_ADD:
	case RULES_REMOVE:
		return write_bulk(change, err);
	case RULES_FEED_REPLACE:
		return replace_file(change, err);
	case RULES_FEED_RELOAD:
	case RULES_RELOAD:
	case RULES_RESTORE:
		return forget_replaced(dir, change->before, change->after, change->feeds,
				       &change->n_feeds, err);
	case RULES_FLUSH:
	case RULES_RESIZE:
	case RULES_SNAPSHOT:
	case RULES_VERIFY:
	case RULES_RELEASE:
		return 0;
	}
	return -EINVAL;
}

/* What is verified, unless it is being mended. */
static bool only_looks(const struct change *change)
{
	return change->verification && !change->rebuild;
}

/* In the thread: nothing here is the event loop's, but for the memory of maps when it looks. */
static void work(void *data)
{
	struct change *change = data;
	struct rules_end *end = &change->end;

	if (only_looks(change)) {
		end->r = verification_look(change->verification, change->before, &end->err);
		return;
	}
	end->r = read_list(&change->request, &end->err);
	if (!end->r)
		end->r = make_policy(change, &end->err);
	if (!end->r)
		end->r = make_maps(change, &end->err);
	if (!end->r)
		end->r = write_files(change, &end->err);
}

/* ---- snapshots of what is stored ---- */

/* In the thread. No packet sees anything of it. */
static void write_snapshot(void *data)
{
	struct change *change = data;
	struct rules_end *end = &change->end;

	end->r = store_snapshot_write(
		change->snapshot, rules_runtime(change->before, change->request.table), &end->err);
}

/* After a failure the next one is tried when there are as many changes again. */
static void end_snapshot(struct change *change)
{
	struct rules *rules = change->rules;
	struct rules_end *end = &change->end;
	size_t *least = &rules->stored_least[change->request.table];

	if (!end->r)
		end->r = store_snapshot_commit(rules->store, change->snapshot, &end->err);
	*least = end->r ? *least + STORE_BULKS_MANY : 0;
}

void change_keep_stored(struct rules *rules)
{
	for (unsigned table = 0; table < STORE_TABLES; table++) {
		struct rules_request request = {
			.kind = RULES_SNAPSHOT, .table = (enum prefix_table)table, .list_fd = -1};
		size_t n = 0;

		if (rules->changes ||
		    store_pending(rules->store, (enum store_table)table, &n, NULL) < 0 ||
		    n < STORE_BULKS_MANY + rules->stored_least[table])
			continue;
		change_start(rules, &request, &(struct rules_later){0});
	}
}

/* ---- the event loop: putting it in force ---- */

/* The configuration that is to be in force: its owner. */
static struct config **next_config(struct change *change)
{
	return change->request.kind == RULES_RESTORE ? &change->request.restore->config
						     : &change->config;
}

static int check_redirects(const struct change *change, struct error *err)
{
	int r = policy_check_redirects(change->after, err);

	if (r != -EEXIST || change->request.kind != RULES_RESTORE)
		return r;
	log_warning("%s; meanwhile that of fwctl goes first", err->text);
	return 0;
}

/* Redirects are not part of the snapshot: those of run time are what they are now. */
static int take_redirects(struct change *change, struct error *err)
{
	const struct policy *now = change->rules->policy;
	const struct redirect *runtime = now->redirects + now->n_config_redirects;
	size_t n = now->n_redirects - now->n_config_redirects;
	int r = policy_set_runtime_redirects(change->after, runtime, n, err);

	if (!r && is_reload(change))
		r = check_redirects(change, err);
	return r;
}

static int stage(struct change *change, struct error *err)
{
	const struct policy *after = change->after;
	const struct datapath_change staged = {
		.prefixes = change->list.items,
		.n_prefixes = change->list.n,
		.offered_bank = change->offered,
		.flags = after->flags,
		.redirects_too = is_reload(change),
		.redirects = after->redirects,
		.n_redirects = after->n_redirects,
	};

	return interfaces_stage(change->rules->ifs, &staged, err);
}

static int make_reload_durable(struct change *change, struct error *err)
{
	int r = change->n_feeds ? store_feed_commit(change->feeds, change->n_feeds, err) : 0;

	if (!r && change->unconfirmed)
		r = store_unconfirmed_commit(change->unconfirmed, err);
	else if (!r && change->request.kind == RULES_RELOAD)
		r = store_unconfirmed_remove(change->rules->config->daemon.state_dir, err);
	return r;
}

/* What RULES_ADD without a bulk adds, with comments that are the policy's. */
static struct rule *list_added(const struct change *change)
{
	const struct rules_request *request = &change->request;
	const struct ruleset *runtime = rules_runtime(change->after, request->table);
	struct rule *added = calloc(request->n + 1, sizeof(*added));

	for (size_t i = 0; added && i < request->n; i++)
		added[i] = *ruleset_find(runtime, &request->prefixes[i]);
	return added;
}

static int make_durable(struct change *change, struct error *err)
{
	struct store *store = change->rules->store;
	const struct rules_request *request = &change->request;
	struct edit edit = {.table = request->table};
	const struct ruleset *forced = rules_new_forced(change->rules->policy, change->after);
	_cleanup_free_ struct rule *added = NULL;

	if (is_reload(change))
		return make_reload_durable(change, err);
	if (change->bulk)
		return store_bulk_commit(store, change->bulk, forced, err);
	if (change->n_feeds)
		return store_feed_commit(change->feeds, change->n_feeds, err);
	if (request->kind == RULES_FLUSH) {
		edit.removes_all = true;
	} else if (request->kind == RULES_ADD) {
		added = list_added(change);
		if (!added)
			return error_no_memory(err);
		edit.puts = added;
		edit.n_puts = request->n;
		edit.created_s = change->created_s;
	} else if (request->kind == RULES_REMOVE) {
		edit.removes = request->prefixes;
		edit.n_removes = request->n;
	} else {
		return 0;
	}
	return rules_store_edit(store, &edit, forced, err);
}

static int enforce(struct change *change, struct error *err)
{
	struct rules *rules = change->rules;
	int r = stage(change, err);

	if (r < 0)
		return r;
	r = make_durable(change, err);
	if (r < 0) {
		datapath_abort(rules->dp);
		return r;
	}
	if (is_reload(change))
		interfaces_set_targets(rules->ifs);
	rules_take_effect(rules);
	return 0;
}

/* Attaches and moves programs, which changes nothing of what packets see. */
static int prepare(struct change *change, struct error *err)
{
	struct rules *rules = change->rules;
	int r = 0;

	if (change->prefixes) {
		r = datapath_offer_bank(rules->dp, change->prefixes, err);
		if (r < 0)
			return r;
		change->prefixes = NULL;
		change->offered = true;
		datapath_take_programs(rules->dp, &change->programs);
	}
	if (is_reload(change))
		r = interfaces_prepare(rules->ifs, err);
	/* One interface must not hold up the way back: interfaces_settle() tells of it. */
	if (change->request.kind == RULES_RESTORE)
		r = 0;
	if (!r && change->offered)
		r = interfaces_move(rules->ifs, err);
	datapath_take_programs(rules->dp, NULL);
	return r;
}

static void adopt_policy(struct change *change)
{
	struct rules *rules = change->rules;
	struct rules_in_force old = {.policy = rules->policy};

	guard_log_spared(rules->policy->allow[ALLOW_SYSTEM], change->after->allow[ALLOW_SYSTEM]);
	rules->policy = take_pointer(&change->after);
	if (is_reload(change)) {
		old.config = rules->config;
		rules->config = take_pointer(next_config(change));
	}
	if (change->request.unconfirmed)
		change->replaced = old;
	else
		rules_in_force_clear(&old);
	/* What has no reminder only stays longer than it need: it has no effect. */
	if (change->expires_ns && rules_remember_ends(rules) < 0)
		log_error("out of memory: entries that end are removed later");
}

static void want(struct rules *rules, const struct config *config, const struct policy *policy)
{
	rules_want(rules, config, policy->flags, policy->redirects, policy->n_redirects);
}

static int put_in_force(struct change *change, struct error *err)
{
	struct rules *rules = change->rules;
	int r = take_redirects(change, err);

	if (!r)
		r = change_catch_up(change, err);
	if (r < 0)
		return r;
	if (is_reload(change))
		want(rules, *next_config(change), change->after);
	r = prepare(change, err);
	if (!r)
		r = enforce(change, err);
	if (!r)
		adopt_policy(change);
	/* Of what is in force now, the old one or the new one. */
	want(rules, rules->config, rules->policy);
	rules->hits_to_come = change->offered && !r;
	if (change->offered)
		bank_release_later(rules);
	if (is_reload(change) || r < 0)
		interfaces_settle(rules->ifs);
	return r;
}

/* ---- from one to the next ---- */

static void begin(struct rules *rules);

/* True: it has to be made once more, from what is there now. */
static bool must_repeat(struct change *change)
{
	if (change->request.kind == RULES_SNAPSHOT || change->request.kind == RULES_RELEASE)
		return false;
	/* A difference, or what was caught up with, may not fit; a bank made anew does. */
	if (change->end.r == -E2BIG && !change->rebuild) {
		change->rebuild = true;
		return true;
	}
	return (change->lost_note && change->end.r == -ENOMEM) ||
	       (change->overtaken && change->end.r == -EAGAIN);
}

static bool is_noted(const void *data, enum prefix_table table, const struct prefix *prefix)
{
	const struct change *change = data;

	return change_is_noted(change, table, prefix);
}

/* True: there is more to do for it, from what is there now. */
static bool must_go_on(struct change *change)
{
	struct rules_end *end = &change->end;
	enum verification_step step = VERIFICATION_LOOK;

	if (change->rebuild) {
		verification_built(change->verification, end->r, &end->err);
	} else if (end->r < 0) {
		return false;
	} else {
		change_sort_noted(change);
		end->r = verification_judge(change->verification, change->noted.n, is_noted, change,
					    &step, &end->err);
		if (end->r < 0)
			return false;
	}
	change->rebuild = step == VERIFICATION_BUILD;
	end->verified = verification_result(change->verification);
	return step != VERIFICATION_DONE;
}

/* Of a change that nobody asked for. */
static void log_failure(const struct change *change)
{
	const char *text = change->end.err.text;

	/* What it was to put together has been folded, or cleared. */
	if (change->request.kind == RULES_SNAPSHOT && change->end.r == -ECANCELED)
		log_debug("no snapshot: %s", text);
	else if (change->request.kind == RULES_SNAPSHOT)
		log_error("cannot put stored changes together: %s", text);
	else if (change->request.kind == RULES_RELEASE)
		log_warning("cannot give the memory of maps back that are no longer used: %s; the "
			    "next large change does",
			    text);
	else
		log_error("cannot fit the maps to their content: %s", text);
}

static void tell(struct change *change)
{
	struct rules_end *end = &change->end;

	end->errors = change->errors.n ? &change->errors : NULL;
	end->replaced = change->replaced.config ? &change->replaced : NULL;
	if (change->later.done)
		change->later.done(change->later.data, end);
	else if (end->r < 0)
		log_failure(change);
}

static void conclude(struct change *change)
{
	struct rules *rules = change->rules;
	enum rules_kind kind = change->request.kind;

	/* Still the first, so that what done() submits waits for its turn. */
	tell(change);
	rules->changes = change->next;
	change_free(change);
	begin(rules);
	/* One that failed would only fail again, and giving memory back follows it. */
	if (kind != RULES_RESIZE && kind != RULES_RELEASE)
		change_keep_fitting(rules);
	if (kind != RULES_SNAPSHOT)
		change_keep_stored(rules);
}

static void go_on(struct change *change)
{
	if (must_repeat(change) || (change->verification && must_go_on(change))) {
		clear_result(change);
		begin(change->rules);
	} else {
		conclude(change);
	}
}

/* In the thread. */
static void wait_for_hits(void *data)
{
	grace_wait();
}

static void end_with_hits(void *data)
{
	struct change *change = data;

	bank_take_hits(change->rules);
	go_on(change);
}

static void put_through(struct change *change)
{
	struct rules_end *end = &change->end;

	if (change->request.kind == RULES_SNAPSHOT)
		end_snapshot(change);
	else if (end->r < 0)
		return;
	else if (change->request.kind == RULES_RELEASE)
		end->r = prepare(change, &end->err);
	else if (change->lost_note)
		end->r = error_no_memory(&end->err);
	else if (!only_looks(change))
		end->r = put_in_force(change, &end->err);
}

void change_finish(void *data)
{
	struct change *change = data;
	struct rules *rules = change->rules;

	if (change_start_round(change))
		return;
	put_through(change);
	if (!rules->hits_to_come) {
		go_on(change);
	} else if (worker_run(rules->worker, wait_for_hits, end_with_hits, change) < 0) {
		grace_wait();
		end_with_hits(change);
	}
}

static int make_bulk(struct change *change, struct error *err)
{
	const struct rules_request *request = &change->request;
	const struct store_bulk_change bulk = {
		.table = (enum store_table)request->table,
		.removes = request->kind == RULES_REMOVE,
		.created_s = change->created_s,
		.expires_ns = change->expires_ns,
		.comment = comment_text(request->comment),
	};

	if ((request->kind != RULES_ADD && request->kind != RULES_REMOVE) ||
	    (request->list_fd < 0 && request->n <= RULES_SMALL))
		return 0;
	return store_bulk_new(change->rules->store, &bulk, &change->bulk, err);
}

/* In the thread: a bank that holds nothing. */
static void make_empty_bank(void *data)
{
	struct change *change = data;
	struct rules_end *end = &change->end;

	end->r = prefix_map_build(NULL, 0, change->bank, &change->prefixes, &end->err);
	if (!end->r)
		load_programs(change);
}

/* The worker does nothing with what could not be begun. */
static void give_up(void *data)
{
}

static void (*work_of(const struct change *change))(void *data)
{
	if (change->end.r < 0)
		return give_up;
	if (change->request.kind == RULES_SNAPSHOT)
		return write_snapshot;
	return change->request.kind == RULES_RELEASE ? make_empty_bank : work;
}

/* 0 or -ENOMEM; what else fails, finish() tells. */
static int start_work(struct change *change)
{
	struct rules *rules = change->rules;
	struct rules_end *end = &change->end;

	change->bank = datapath_offered_bank(rules->dp);
	change->capacity = prefix_map_capacity(datapath_prefixes(rules->dp));
	change->created_s = wall_s();
	change->expires_ns = rules_end_of_add(&change->request);
	if (policy_clone(rules->policy, &change->before) < 0 ||
	    local_list_copy(&rules->locals, &change->locals) < 0 ||
	    interfaces_list_programs(rules->ifs, &change->programs) < 0)
		end->r = error_no_memory(&end->err);
	if (!end->r && change->request.kind == RULES_SNAPSHOT)
		end->r = store_snapshot_new(rules->store, (enum store_table)change->request.table,
					    &change->snapshot, &end->err);
	else if (!end->r)
		end->r = make_bulk(change, &end->err);
	return worker_run(rules->worker, work_of(change), change_finish, change);
}

/* The next change, if there is one. */
static void begin(struct rules *rules)
{
	struct change *change = rules->changes;

	if (change && start_work(change) < 0) {
		change->end.r = error_no_memory(&change->end.err);
		change_finish(change);
	}
}

int change_start(struct rules *rules, struct rules_request *request,
		 const struct rules_later *later)
{
	struct change *change = calloc(1, sizeof(*change)), **end = &rules->changes;
	bool verifies = request->kind == RULES_VERIFY;

	if (!change)
		return -ENOMEM;
	*change = (struct change){
		.rules = rules,
		.request = *request,
		.later = *later,
		.rebuild = request->kind == RULES_RESIZE,
		.verification = verifies ? verification_new(rules, request->repair) : NULL,
	};
	if (verifies && !change->verification) {
		free(change);
		return -ENOMEM;
	}
	/* Who waits for the way back may be cut off: it is the next. */
	while (*end && (request->kind != RULES_RESTORE || end == &rules->changes))
		end = &(*end)->next;
	change->next = *end;
	*end = change;
	/* Not begin(): done() is for later. */
	if (rules->changes == change && start_work(change) < 0) {
		rules->changes = NULL;
		clear_result(change);
		verification_free(change->verification);
		free(change);
		return -ENOMEM;
	}
	return 0;
}

void change_keep_fitting(struct rules *rules)
{
	struct rules_request request = {.kind = RULES_RESIZE, .list_fd = -1};

	if (!rules->changes && !prefix_map_fits(rules_map(rules)))
		change_start(rules, &request, &(struct rules_later){0});
}

void rules_stop(struct rules *rules)
{
	struct change *change = rules->changes;

	if (!rules->hits_to_come)
		return;
	grace_wait();
	bank_take_hits(rules);
	/* Most of it is still to be done. */
	if (change->verification)
		return;
	tell(change);
	rules->changes = change->next;
	change_free(change);
}

void change_drop_all(struct rules *rules)
{
	struct rules_end end = {0};

	end.r = error_set(&end.err, -ECANCELED, "fwd is stopping: nothing was changed");
	while (rules->changes) {
		struct change *change = rules->changes;

		rules->changes = change->next;
		if (change->later.done)
			change->later.done(change->later.data, &end);
		change_free(change);
	}
}

/* ---- confirmation ---- */

int rules_confirm(struct rules *rules, const struct rules_in_force *replaced, struct error *err)
{
	const char *dir = rules->config->daemon.state_dir;
	struct store_feed *feeds[CONFIG_FEEDS_MAX];
	struct error why;
	size_t n = 0;
	int r = forget_replaced(dir, replaced->policy, rules->policy, feeds, &n, err);

	if (!r)
		r = store_unconfirmed_remove(dir, err);
	/* From here on it is confirmed. */
	if (!r && n && store_feed_commit(feeds, n, &why) < 0)
		log_warning("%s: after a restart feeds may have lists again that they were given "
			    "before the reload",
			    why.text);
	while (n--)
		store_feed_drop(feeds[n]);
	return r;
}

/* ---- the start ---- */

int change_bank_now(struct rules *rules, const struct prefix_item *items, size_t n,
		    struct error *err)
{
	struct datapath_change staged = {.offered_bank = true, .flags = rules->policy->flags};
	_cleanup_(prefix_map_closep) struct prefix_map *prefixes = NULL;
	int r = prefix_map_build(items, n, datapath_offered_bank(rules->dp), &prefixes, err);

	if (!r)
		r = datapath_offer_bank(rules->dp, prefixes, err);
	if (r < 0)
		return r;
	take_pointer(&prefixes);
	/* What an earlier daemon attached is known once it is settled. */
	interfaces_settle(rules->ifs);
	r = interfaces_move(rules->ifs, err);
	if (!r)
		r = datapath_stage(rules->dp, &staged, err);
	if (r < 0)
		return r;
	rules_take_effect(rules);
	grace_wait();
	bank_take_hits(rules);
	bank_release_later(rules);
	return 0;
}
