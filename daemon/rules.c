// SPDX-License-Identifier: GPL-2.0-or-later
#include "rules.h"

#include "clock.h"
#include "log.h"
#include "rules_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Rules that end are removed in groups, so that a request never waits long behind them. */
#define EXPIRE_AT_ONCE RULES_SMALL

/* From here on, a row of the database for all of them costs less than a row each. */
#define BATCH_LEAST 64

/* When ended rules that could not be removed are tried again. */
#define EXPIRE_AGAIN_NS (10 * NS_PER_S)

_Static_assert((int)STORE_BLOCK == TABLE_BLOCK && (int)STORE_ALLOW == TABLE_ALLOW,
	       "the store's tables are the tables");

const struct config *rules_config(const struct rules *rules)
{
	return rules->config;
}

const struct policy *rules_policy(const struct rules *rules)
{
	return rules->policy;
}

struct datapath *rules_datapath(const struct rules *rules)
{
	return rules->dp;
}

bool rules_adopted(const struct rules *rules)
{
	return rules->adopted;
}

struct ruleset *rules_runtime(const struct policy *policy, enum prefix_table table)
{
	return table == TABLE_BLOCK ? policy->origins[ORIGIN_RUNTIME].rules
				    : policy->allow[ORIGIN_RUNTIME];
}

struct policy_sets rules_sets(const struct rules *rules, enum prefix_table table)
{
	return policy_sets_of(rules->policy, table);
}

const struct prefix_map *rules_map(const struct rules *rules)
{
	return datapath_prefixes(rules->dp);
}

int rules_check_limit(const struct policy *policy, enum prefix_table table, size_t n,
		      struct error *err)
{
	size_t limit = table == TABLE_BLOCK ? policy->max_entries : CONFIG_ALLOW_MAX;
	size_t spared = table == TABLE_ALLOW ? ruleset_size(policy->allow[ALLOW_SYSTEM]) : 0;

	if (n <= limit + spared)
		return 0;
	return error_set(err, -ENOSPC, "full: %zu of %zu entries", limit, limit);
}

void rules_want(struct rules *rules, const struct config *config, u32 flags,
		const struct redirect *redirects, size_t n_redirects)
{
	struct interfaces_wanted wanted = {
		.patterns = config->interfaces,
		.n_patterns = config->n_interfaces,
		.flags = flags,
		.redirects = redirects,
		.n_redirects = n_redirects,
	};

	interfaces_want(rules->ifs, &wanted);
}

/* ---- opening ---- */

int rules_remember_ends(struct rules *rules)
{
	const struct ruleset *set = rules_runtime(rules->policy, TABLE_BLOCK);
	struct ruleset_cursor cursor = ruleset_seek(set, NULL);
	size_t known = rules->expiry.n, all = ruleset_size(set);

	if (all > known && expiry_reserve(&rules->expiry, all - known) < 0)
		return -ENOMEM;
	rules->expiry.n = 0;
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		if (rule->expires_ns)
			expiry_push(&rules->expiry, rule->expires_ns, &rule->prefix);
	return 0;
}

int rules_load_runtime(struct rules *rules, struct error *err)
{
	_cleanup_free_ struct redirect *redirects = NULL;
	struct policy *policy = rules->policy;
	struct ruleset *block = NULL, *allow = NULL, *forced = NULL;
	size_t n;
	int r = store_load(rules->store, STORE_BLOCK, &block, err);

	if (r < 0)
		return r;
	ruleset_free(policy->origins[ORIGIN_RUNTIME].rules);
	policy->origins[ORIGIN_RUNTIME].rules = block;
	r = store_load(rules->store, STORE_ALLOW, &allow, err);
	if (r < 0)
		return r;
	ruleset_free(policy->allow[ORIGIN_RUNTIME]);
	policy->allow[ORIGIN_RUNTIME] = allow;
	r = store_load_forced(rules->store, &forced, err);
	if (r < 0)
		return r;
	ruleset_free(policy->forced);
	policy->forced = forced;
	r = store_load_redirects(rules->store, &redirects, &n, err);
	if (!r)
		r = policy_set_runtime_redirects(policy, redirects, n, err);
	if (!r && rules_remember_ends(rules) < 0)
		r = error_no_memory(err);
	return r;
}

/* Rows are looked at only now. */
static int load_or_recover(struct rules *rules, struct error *err)
{
	int r = rules_load_runtime(rules, err);

	if (r != -EUCLEAN)
		return r;
	r = store_recover(rules->store, err->text, err);
	return r ? r : rules_load_runtime(rules, err);
}

void rules_take_effect(struct rules *rules)
{
	datapath_commit(rules->dp);
	datapath_set_change(rules->dp, store_change(rules->store));
}

static void use_datapath(struct rules *rules)
{
	struct datapath_owner owner;

	datapath_read_owner(rules->config->daemon.pin_dir, &owner);
	interfaces_use(rules->ifs, rules->dp, &owner);
}

/* Has packets see the redirects, and of the prefixes what `list` says. */
static int project(struct rules *rules, const struct prefix_change_list *list, struct error *err)
{
	const struct datapath_change change = {
		.prefixes = list->items,
		.n_prefixes = list->n,
		.flags = rules->policy->flags,
		.redirects_too = true,
		.redirects = rules->policy->redirects,
		.n_redirects = rules->policy->n_redirects,
	};
	int r = interfaces_stage(rules->ifs, &change, err);

	if (r < 0)
		return r;
	interfaces_set_targets(rules->ifs);
	rules_take_effect(rules);
	return 0;
}

/* Such as what the configuration had when the daemon was stopped. */
static void tell_removals(const struct prefix_change_list *list)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += list->items[i].kind == PREFIX_REMOVE;
	if (n)
		log_notice("%zu entries in the kernel are taken away: no rule has them any more",
			   n);
}

/* Brings what is adopted to the policy. */
static int update(struct rules *rules, const struct prefix_item *items, size_t n, struct error *err)
{
	struct prefix_change_list list = {0};
	int r;

	/* An earlier daemon has stopped before it could give it up. */
	if (prefix_map_is_large(datapath_offered(rules->dp)))
		bank_release_later(rules);
	if (datapath_is_whole(rules->dp)) {
		if (prefix_map_diff(datapath_prefixes(rules->dp), items, n, &list) < 0)
			return error_no_memory(err);
		tell_removals(&list);
		r = list.n <= RULES_SMALL ? project(rules, &list, err) : -E2BIG;
		free(list.items);
		if (r != -E2BIG)
			return r;
	}
	r = change_bank_now(rules, items, n, err);
	return r < 0 ? r : project(rules, &(struct prefix_change_list){0}, err);
}

/* New maps, beside what may be there, which goes on meanwhile. */
static int create(struct rules *rules, const struct prefix_item *items, size_t n, struct error *err)
{
	struct prefix_map *prefixes = NULL;
	int r = prefix_map_build(items, n, 0, &prefixes, err);

	if (r < 0)
		return r;
	r = datapath_create(rules->config->daemon.pin_dir, prefixes, rules->policy->flags,
			    &rules->dp, err);
	if (r < 0) {
		prefix_map_close(prefixes);
		return r;
	}
	use_datapath(rules);
	return project(rules, &(struct prefix_change_list){0}, err);
}

static int open_datapath(struct rules *rules, struct error *err)
{
	_cleanup_free_ struct prefix_item *items = NULL;
	size_t n, n_block;
	int r = policy_items(rules->policy, &items, &n, &n_block, err);

	if (r < 0)
		return r;
	if (!rules->dp)
		return create(rules, items, n, err);
	rules->adopted = true;
	use_datapath(rules);
	return update(rules, items, n, err);
}

/* Those whose rules have ended meanwhile: rules of the same prefix may come anew. */
static int forget_forced(struct rules *rules, struct error *err)
{
	const struct ruleset *runtime = rules_runtime(rules->policy, TABLE_BLOCK);
	const struct edit none = {.table = TABLE_BLOCK};
	_cleanup_(ruleset_freep) struct ruleset *kept = ruleset_new();
	struct ruleset *stored = rules->policy->forced;
	struct ruleset_cursor cursor = ruleset_seek(stored, NULL);

	if (!kept)
		return error_no_memory(err);
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		if (ruleset_find(runtime, &rule->prefix) && ruleset_put(kept, rule) < 0)
			return error_no_memory(err);
	if (ruleset_size(kept) == ruleset_size(stored))
		return 0;
	if (rules_store_edit(rules->store, &none, kept, err) < 0)
		log_warning("cannot forget that rules were forced that have ended: %s", err->text);
	rules->policy->forced = take_pointer(&kept);
	ruleset_free(stored);
	return 0;
}

/* Also of what is there already: nobody was there to refuse it (G2). */
static int spare(struct rules *rules, struct error *err)
{
	_cleanup_(ruleset_freep) struct ruleset *none = ruleset_new();
	int r = none ? forget_forced(rules, err) : error_no_memory(err);

	if (r < 0)
		return r;
	if (guard_spare_all(rules->policy, &rules->locals, none) < 0)
		return error_no_memory(err);
	guard_log_spared(none, rules->policy->allow[ALLOW_SYSTEM]);
	return 0;
}

/* From here on, packets are filtered by the rules. */
static int put_in_force(struct rules *rules, struct error *err)
{
	u32 n;
	int r;

	rules_want(rules, rules->config, rules->policy->flags, rules->policy->redirects,
		   rules->policy->n_redirects);
	r = open_datapath(rules, err);
	if (r < 0)
		return r;
	n = prefix_map_size(rules_map(rules), TABLE_BLOCK);
	if (n > rules->policy->max_entries)
		log_warning("%u entries are blocked, more than blacklist.max_entries = %u: all are "
			    "kept, and no more are taken",
			    n, rules->policy->max_entries);
	if (policy_check_redirects(rules->policy, err) < 0)
		log_warning("%s; meanwhile that of fwctl goes first", err->text);
	interfaces_settle(rules->ifs);
	/* While the maps by which they are known to be ours (D2) are still pinned. */
	interfaces_detach_strays(rules->ifs);
	return datapath_promote(rules->dp, err);
}

int rules_open(struct config *config, struct store *store, struct interfaces *ifs,
	       struct worker *worker, const struct local_list *locals, struct rules **ret,
	       struct error *err)
{
	_cleanup_(rules_closep) struct rules *rules = calloc(1, sizeof(*rules));
	int r;

	if (!rules)
		return error_no_memory(err);
	rules->store = store;
	rules->ifs = ifs;
	rules->worker = worker;
	r = policy_from_config(config, false, &rules->policy, err);
	if (r < 0)
		return r;
	rules->config = config;
	r = load_or_recover(rules, err);
	if (!r && local_list_copy(locals, &rules->locals) < 0)
		r = error_no_memory(err);
	if (!r)
		r = datapath_adopt(config->daemon.pin_dir, &rules->dp, err);
	if (!r)
		r = rules_recover(rules, err);
	if (!r)
		r = spare(rules, err);
	if (!r)
		r = put_in_force(rules, err);
	if (r < 0) {
		rules->config = NULL; /* still the caller's */
		return r;
	}
	*ret = take_pointer(&rules);
	return 0;
}

void rules_close(struct rules *rules)
{
	if (!rules)
		return;
	change_drop_all(rules);
	sd_event_source_disable_unref(rules->release);
	datapath_close(rules->dp);
	policy_free(rules->policy);
	config_free(rules->config);
	expiry_clear(&rules->expiry);
	free(rules->locals.items);
	free(rules);
}

/* ---- small changes ---- */

/* Whether a prefix is in force, and until when. */
struct force {
	bool in_force;
	u64 expires_ns; /* 0: for good */
};

static struct force force_with(struct force others, const struct rule *rule)
{
	if (!rule)
		return others;
	if (!others.in_force)
		return (struct force){true, rule->expires_ns};
	return (struct force){true, latest_end(others.expires_ns, rule->expires_ns)};
}

/* What a runtime rule's coming or going changes for packets; false: nothing. */
static bool compute_change(const struct policy_sets *others, const struct prefix *prefix,
			   const struct rule *old, const struct rule *new,
			   struct prefix_change *ret)
{
	struct force kept = {0}, before, after;
	struct effective other;

	if (policy_effective(others, prefix, &other))
		kept = (struct force){true, other.expires_ns};
	before = force_with(kept, old);
	after = force_with(kept, new);
	if (before.in_force == after.in_force && before.expires_ns == after.expires_ns)
		return false;
	*ret = (struct prefix_change){
		.item = {.prefix = *prefix, .expires_ns = after.expires_ns},
		.kind = !before.in_force  ? PREFIX_INSERT
			: !after.in_force ? PREFIX_REMOVE
					  : PREFIX_RETIME,
	};
	return true;
}

/* All sets of the table but that of run time. */
static struct policy_sets other_sets(const struct policy *policy, enum prefix_table table)
{
	struct policy_sets all = policy_sets_of(policy, table), others = {0};
	const struct ruleset *runtime = rules_runtime(policy, table);

	for (size_t i = 0; i < all.n; i++)
		if (all.sets[i] != runtime)
			others.sets[others.n++] = all.sets[i];
	return others;
}

/* Of an edit that has nothing to do with what is guarded. */
static int compute_changes(const struct rules *rules, const struct edit *edit,
			   struct prefix_change_list *ret, struct error *err)
{
	const struct ruleset *runtime = rules_runtime(rules->policy, edit->table);
	struct policy_sets others = other_sets(rules->policy, edit->table);
	size_t n = 0, inserts = 0, size = prefix_map_size(rules_map(rules), edit->table);
	struct prefix_change *changes =
		calloc(edit->n_puts + edit->n_removes + 1, sizeof(*changes));

	if (!changes)
		return error_no_memory(err);
	for (size_t i = 0; i < edit->n_puts; i++) {
		const struct rule *new = &edit->puts[i];

		if (compute_change(&others, &new->prefix, ruleset_find(runtime, &new->prefix), new,
				   &changes[n]))
			inserts += changes[n++].kind == PREFIX_INSERT;
	}
	for (size_t i = 0; i < edit->n_removes; i++)
		if (compute_change(&others, &edit->removes[i],
				   ruleset_find(runtime, &edit->removes[i]), NULL, &changes[n]))
			n++;
	for (size_t i = 0; i < n; i++)
		changes[i].item.table = edit->table;
	*ret = (struct prefix_change_list){.items = changes, .n = n};
	/* There may be more than the limit already, after a restart with a lower one. */
	return inserts ? rules_check_limit(rules->policy, edit->table, size + inserts, err) : 0;
}

const struct ruleset *rules_new_forced(const struct policy *before, const struct policy *after)
{
	struct ruleset_cursor cursor = ruleset_seek(before->forced, NULL);

	if (ruleset_size(before->forced) != ruleset_size(after->forced))
		return after->forced;
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		if (!ruleset_find(after->forced, &rule->prefix))
			return after->forced;
	return NULL;
}

/* Rules that differ in their prefix only, or their removal. */
static bool is_batch(const struct edit *edit)
{
	const struct rule *puts = edit->puts;

	if (edit->n_puts && !edit->created_s)
		return false;
	for (size_t i = 1; i < edit->n_puts; i++)
		if (puts[i].expires_ns != puts[0].expires_ns || puts[i].comment != puts[0].comment)
			return false;
	return edit->n_puts ? edit->n_puts >= BATCH_LEAST && !edit->n_removes
			    : edit->n_removes >= BATCH_LEAST;
}

static int store_as_batch(struct store *store, const struct edit *edit, struct error *err)
{
	struct store_bulk_change change = {
		.table = (enum store_table)edit->table,
		.removes = edit->n_removes,
		.created_s = edit->created_s,
	};
	_cleanup_free_ struct prefix *prefixes = NULL;

	if (edit->n_removes)
		return store_batch(store, &change, edit->removes, edit->n_removes, err);
	prefixes = calloc(edit->n_puts, sizeof(*prefixes));
	if (!prefixes)
		return error_no_memory(err);
	for (size_t i = 0; i < edit->n_puts; i++)
		prefixes[i] = edit->puts[i].prefix;
	change.expires_ns = edit->puts[0].expires_ns;
	change.comment = comment_text(edit->puts[0].comment);
	return store_batch(store, &change, prefixes, edit->n_puts, err);
}

static int store_one_by_one(struct store *store, const struct edit *edit, struct error *err)
{
	enum store_table table = (enum store_table)edit->table;
	int r = 0;

	for (size_t i = 0; !r && i < edit->n_puts; i++)
		r = store_put(store, table, &edit->puts[i], err);
	if (!r && edit->removes_all)
		r = store_clear(store, table, err);
	for (size_t i = 0; !r && i < edit->n_removes; i++)
		r = store_remove(store, table, &edit->removes[i], err);
	return r;
}

static int store_edit(struct store *store, const struct edit *edit, const struct ruleset *forced,
		      struct error *err)
{
	bool batch = is_batch(edit);
	int r = batch ? store_keep_bound(store, (enum store_table)edit->table, err) : 0;

	if (!r)
		r = edit->n_puts ? store_begin(store, err) : store_begin_removal(store, err);
	if (r < 0)
		return r;
	r = batch ? store_as_batch(store, edit, err) : store_one_by_one(store, edit, err);
	if (!r && forced)
		r = store_set_forced(store, forced, err);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

int rules_store_edit(struct store *store, const struct edit *edit, const struct ruleset *forced,
		     struct error *err)
{
	int r = store_edit(store, edit, forced, err);

	/* A full disk is not to keep anybody blocked. */
	if (r == -EDQUOT && !edit->n_puts && !store_make_room(store))
		r = store_edit(store, edit, forced, err);
	return r;
}

/* The policy's part, for which memory was reserved: it cannot fail. */
static void adopt_edit(struct rules *rules, const struct edit *edit)
{
	struct ruleset *runtime = rules_runtime(rules->policy, edit->table);

	for (size_t i = 0; i < edit->n_puts; i++) {
		const struct rule *rule = &edit->puts[i];

		ruleset_put(runtime, rule);
		if (rule->expires_ns)
			expiry_push(&rules->expiry, rule->expires_ns, &rule->prefix);
		change_note(rules, edit->table, &rule->prefix);
	}
	for (size_t i = 0; i < edit->n_removes; i++) {
		ruleset_remove(runtime, &edit->removes[i]);
		change_note(rules, edit->table, &edit->removes[i]);
	}
	ruleset_release_reserve(runtime);
}

/* Reminders of ends that were put off pile up; once they are most of the heap it is made anew. */
static int reserve_ends(struct rules *rules, const struct edit *edit)
{
	size_t live = ruleset_size(rules_runtime(rules->policy, TABLE_BLOCK));

	if (rules->expiry.n > 2 * live + edit->n_puts + 1024 && rules_remember_ends(rules) < 0)
		return -ENOMEM;
	return expiry_reserve(&rules->expiry, edit->n_puts);
}

static int reserve_rules(struct ruleset *runtime, const struct edit *edit)
{
	return edit->n_puts ? ruleset_reserve(runtime, edit->n_puts)
			    : ruleset_reserve_removes(runtime, edit->n_removes);
}

/* `next`: the policy that it leads to, where the guard has a part in it; or NULL. */
static int enforce(struct rules *rules, const struct edit *edit, const struct policy *next,
		   const struct prefix_change_list *list, struct error *err)
{
	const struct datapath_change change = {
		.prefixes = list->items,
		.n_prefixes = list->n,
		.flags = datapath_flags(rules->dp),
	};
	int r;

	if (reserve_rules(rules_runtime(rules->policy, edit->table), edit) < 0 ||
	    reserve_ends(rules, edit) < 0)
		return error_no_memory(err);
	r = datapath_stage(rules->dp, &change, err);
	if (r < 0)
		return r;
	r = rules_store_edit(rules->store, edit,
			     next ? rules_new_forced(rules->policy, next) : NULL, err);
	if (r < 0) {
		datapath_abort(rules->dp);
		return r;
	}
	rules_take_effect(rules);
	return 0;
}

static int apply(struct rules *rules, const struct edit *edit, struct error *err)
{
	_cleanup_(policy_freep) struct policy *next = NULL;
	struct prefix_change_list list = {0};
	int r;

	if (rules_guard_edit(rules, edit, &next) < 0)
		return error_no_memory(err);
	r = next ? rules_guard_changes(rules, edit, next, &list, err)
		 : compute_changes(rules, edit, &list, err);
	if (!r)
		r = enforce(rules, edit, next, &list, err);
	free(list.items);
	if (r < 0)
		return r;
	adopt_edit(rules, edit);
	if (next)
		rules_guard_adopt(rules, next);
	return 0;
}

u64 rules_end_of_add(const struct rules_request *request)
{
	if (request->expires_ns || !request->ttl_s)
		return request->expires_ns;
	return boot_ns() + (u64)request->ttl_s * NS_PER_S;
}

static int add(struct rules *rules, const struct rules_request *request, struct rules_count *ret,
	       struct error *err)
{
	const struct ruleset *runtime = rules_runtime(rules->policy, request->table);
	_cleanup_free_ struct rule *puts = calloc(request->n + 1, sizeof(*puts));
	struct edit edit = {
		.table = request->table,
		.puts = puts,
		.created_s = wall_s(),
		.force = request->force,
	};
	struct rules_count count = {.expires_ns = rules_end_of_add(request)};
	int r;

	if (!puts)
		return error_no_memory(err);
	for (size_t i = 0; i < request->n; i++) {
		const struct rule *old = ruleset_find(runtime, &request->prefixes[i]);

		if (old && request->only_new)
			continue;
		puts[edit.n_puts++] = (struct rule){
			.prefix = request->prefixes[i],
			.created_s = old ? old->created_s : edit.created_s,
			.expires_ns = count.expires_ns,
			.comment = request->comment,
		};
		count.updated += old != NULL;
		count.added += old == NULL;
	}
	r = apply(rules, &edit, err);
	if (!r)
		*ret = count;
	return r;
}

int rules_refuse_removal(const struct policy *policy, enum prefix_table table,
			 const struct prefix *prefix, struct error *err)
{
	struct policy_sets others = other_sets(policy, table);
	char text[PREFIX_TEXT_MAX];

	prefix_format(prefix, text);
	for (size_t i = 0; i < others.n; i++) {
		if (!ruleset_find(others.sets[i], prefix))
			continue;
		/* Set 0 is the configuration's in both tables; behind it comes what the
		 * daemon spares, or come the feeds. */
		if (i && table == TABLE_ALLOW)
			return error_set(err, -ENOENT,
					 "%s is on the allowlist by fwd itself: take away what "
					 "blocks it, or set allowlist.system = false",
					 text);
		if (!i)
			return error_set(err, -ENOENT,
					 "%s comes from the configuration: take it out there and "
					 "reload",
					 text);
		return error_set(err, -ENOENT,
				 "%s comes from the feed \"%s\": take it out there and reload",
				 text, policy->origins[ORIGIN_RUNTIME + i].name);
	}
	return error_set(err, -ENOENT, "%s is not %s", text,
			 table == TABLE_BLOCK ? "blocked" : "on the allowlist");
}

static int remove_runtime(struct rules *rules, const struct rules_request *request,
			  struct rules_count *ret, struct error *err)
{
	const struct ruleset *runtime = rules_runtime(rules->policy, request->table);
	struct edit edit = {
		.table = request->table,
		.removes = request->prefixes,
		.n_removes = request->n,
	};
	int r;

	for (size_t i = 0; i < request->n; i++)
		if (!ruleset_find(runtime, &request->prefixes[i]))
			return rules_refuse_removal(rules->policy, request->table,
						    &request->prefixes[i], err);
	r = apply(rules, &edit, err);
	if (!r)
		*ret = (struct rules_count){.removed = request->n};
	return r;
}

/* A flush of few is the removal of all of them. */
static int list_runtime(const struct rules *rules, struct rules_request *request)
{
	const struct ruleset *runtime = rules_runtime(rules->policy, TABLE_BLOCK);
	struct ruleset_cursor cursor = ruleset_seek(runtime, NULL);

	request->table = TABLE_BLOCK;
	request->prefixes = calloc(ruleset_size(runtime) + 1, sizeof(*request->prefixes));
	if (!request->prefixes)
		return -ENOMEM;
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		request->prefixes[request->n++] = rule->prefix;
	return 0;
}

/* -E2BIG: it is large, or needs larger maps. */
static int submit_small(struct rules *rules, struct rules_request *request, struct rules_count *ret,
			struct error *err)
{
	int r;

	if (request->list_fd >= 0 || request->n > RULES_SMALL)
		return -E2BIG;
	request->n = prefix_sort_unique(request->prefixes, request->n);
	r = rules_guard_request(rules->policy, request, &rules->locals, err);
	if (r < 0)
		return r;
	switch (request->kind) {
	case RULES_ADD:
		return add(rules, request, ret, err);
	case RULES_REMOVE:
		return remove_runtime(rules, request, ret, err);
	case RULES_FLUSH:
		if (ruleset_size(rules_runtime(rules->policy, TABLE_BLOCK)) > RULES_SMALL)
			return -E2BIG;
		if (list_runtime(rules, request) < 0)
			return error_no_memory(err);
		return remove_runtime(rules, request, ret, err);
	case RULES_FEED_REPLACE:
	case RULES_FEED_RELOAD:
	case RULES_RELOAD:
	case RULES_RESTORE:
	case RULES_RESIZE:
	case RULES_SNAPSHOT:
	case RULES_VERIFY:
	case RULES_RELEASE:
		return -E2BIG;
	}
	return -EINVAL;
}

void rules_request_clear(struct rules_request *request)
{
	free(request->prefixes);
	request->prefixes = NULL;
	closep(&request->list_fd);
	request->list_fd = -1;
	comment_unref(request->comment);
	request->comment = NULL;
}

void rules_in_force_clear(struct rules_in_force *in_force)
{
	config_free(in_force->config);
	policy_free(in_force->policy);
	*in_force = (struct rules_in_force){0};
}

int rules_submit(struct rules *rules, struct rules_request *request,
		 const struct rules_later *later, struct rules_count *ret, struct error *err)
{
	int r = submit_small(rules, request, ret, err);

	if (r == -E2BIG) {
		r = change_start(rules, request, later);
		if (!r)
			return -EINPROGRESS;
		error_no_memory(err);
	}
	rules_request_clear(request);
	change_keep_fitting(rules);
	change_keep_stored(rules);
	return r;
}

/* ---- ends ---- */

static void try_again(struct rules *rules, const struct prefix *ended, size_t n,
		      const struct error *err)
{
	/* They do not match any more. */
	if (!rules->ends_failed)
		log_error("cannot remove entries that have ended: %s; trying again", err->text);
	rules->ends_failed = true;
	for (size_t i = 0; i < n && !expiry_reserve(&rules->expiry, 1); i++)
		expiry_push(&rules->expiry, boot_ns() + EXPIRE_AGAIN_NS, &ended[i]);
}

static int remove_some(struct rules *rules, const struct prefix *ended, size_t n, struct error *err)
{
	struct rules_request request = {
		.kind = RULES_REMOVE,
		.prefixes = calloc(n, sizeof(*ended)),
		.n = n,
		.list_fd = -1,
	};
	struct rules_count count;
	int r;

	if (!request.prefixes)
		return error_no_memory(err);
	memcpy(request.prefixes, ended, n * sizeof(*ended));
	r = submit_small(rules, &request, &count, err);
	rules_request_clear(&request);
	return r;
}

/*
 * Never in the worker: a rule that was made anew meanwhile would go with it (L4). Half of them need
 * half of the room, which is free again a grace period later.
 */
static void remove_ended(struct rules *rules, const struct prefix *ended, size_t n)
{
	size_t at_once = n;
	struct error err;

	for (size_t i = 0; i < n;) {
		size_t some = at_once < n - i ? at_once : n - i;
		int r = remove_some(rules, ended + i, some, &err);

		if (r == -E2BIG && some > 1) {
			at_once = some / 2;
			continue;
		}
		if (r < 0) {
			try_again(rules, ended + i, n - i, &err);
			break;
		}
		rules->ends_failed = false;
		i += some;
	}
	change_keep_fitting(rules);
	change_keep_stored(rules);
}

u64 rules_expire(struct rules *rules)
{
	struct prefix *ended = calloc(EXPIRE_AT_ONCE, sizeof(*ended));
	const struct ruleset *runtime = rules_runtime(rules->policy, TABLE_BLOCK);
	const struct expiry_item *first;
	u64 now = boot_ns();
	size_t n = 0;

	while (ended && n < EXPIRE_AT_ONCE && (first = expiry_first(&rules->expiry)) &&
	       first->ns <= now) {
		const struct rule *rule = ruleset_find(runtime, &first->prefix);

		if (rule && rule->expires_ns && rule->expires_ns <= now)
			ended[n++] = rule->prefix;
		expiry_pop(&rules->expiry);
	}
	if (n)
		remove_ended(rules, ended, prefix_sort_unique(ended, n));
	free(ended);
	first = expiry_first(&rules->expiry);
	return first ? first->ns : 0;
}

/* ---- reading ---- */

void rules_test(const struct rules *rules, const struct prefix *address, struct rules_match *ret)
{
	struct policy_sets block = policy_sets_of(rules->policy, TABLE_BLOCK);
	struct policy_sets allow = policy_sets_of(rules->policy, TABLE_ALLOW);

	ret->blocked = policy_find_cover(&block, address, &ret->blocked_by);
	ret->allowed = policy_find_cover(&allow, address, &ret->allowed_by);
}
