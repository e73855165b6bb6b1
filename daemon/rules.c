// SPDX-License-Identifier: GPL-2.0-or-later
#include "rules.h"

#include "clock.h"
#include "expiry.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Rules that end are removed in groups, so that a request never waits long behind them. */
#define EXPIRE_AT_ONCE 4096

struct rules {
	struct config *config; /* owned */
	struct policy *policy; /* owned */
	struct datapath *dp;   /* owned */
	struct store *store;
	struct interfaces *ifs;
	struct expiry expiry;
	bool adopted;
};

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

static struct ruleset *runtime_set(const struct rules *rules, enum store_table table)
{
	return table == STORE_BLOCK ? rules->policy->origins[ORIGIN_RUNTIME].rules
				    : rules->policy->allow[ORIGIN_RUNTIME];
}

struct policy_sets rules_sets(const struct rules *rules, enum store_table table)
{
	return table == STORE_BLOCK ? policy_block_sets(rules->policy)
				    : policy_allow_sets(rules->policy);
}

struct prefix_map *rules_map(const struct rules *rules, enum store_table table)
{
	return table == STORE_BLOCK ? datapath_block(rules->dp) : datapath_allow(rules->dp);
}

static size_t table_limit(const struct policy *policy, enum store_table table)
{
	return table == STORE_BLOCK ? policy->max_entries : CONFIG_ALLOW_MAX;
}

static int check_limit(const struct policy *policy, enum store_table table, size_t n,
		       struct error *err)
{
	size_t limit = table_limit(policy, table);

	if (n <= limit)
		return 0;
	return error_set(err, -ENOSPC, "full: %zu of %zu entries", limit, limit);
}

/* ---- maps ---- */

/* Room for n entries, for as many more in a change that replaces a quarter of them, and to grow. */
static u32 capacity_for(size_t n)
{
	size_t capacity = 1024;

	while (capacity < n + n / 4 + 256)
		capacity *= 2;
	return (u32)capacity;
}

/* Everything of `policy` that differs from what packets of `dp` see. */
struct projection {
	struct prefix_change *block, *allow;
	struct redirect_scope *scopes;
	struct datapath_change change;
};

static void projection_clear(struct projection *p)
{
	free(p->block);
	free(p->allow);
	free(p->scopes);
}

static int projection_make(const struct policy *policy, struct datapath *dp,
			   const struct interfaces *ifs, struct projection *ret, struct error *err)
{
	struct policy_sets block = policy_block_sets(policy), allow = policy_allow_sets(policy);
	struct datapath_change *change = &ret->change;
	int r;

	ret->scopes = calloc(FWD_MAX_INTERFACES, sizeof(*ret->scopes));
	if (!ret->scopes)
		return error_no_memory(err);
	r = policy_diff(&block, datapath_block(dp), &ret->block, &change->n_block, err);
	if (!r)
		r = policy_diff(&allow, datapath_allow(dp), &ret->allow, &change->n_allow, err);
	if (r < 0)
		return r;
	change->block = ret->block;
	change->allow = ret->allow;
	change->flags = policy->flags;
	change->redirects_too = true;
	change->redirects = policy->redirects;
	change->n_redirects = policy->n_redirects;
	change->scopes = ret->scopes;
	change->n_scopes = interfaces_scopes(ifs, ret->scopes);
	return 0;
}

static void want(struct rules *rules, const struct config *config, u32 flags,
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

/* Brings `dp`, which the interfaces use, to the policy in force. */
static int project(struct rules *rules, struct datapath *dp, struct error *err)
{
	struct projection projection = {0};
	int r = projection_make(rules->policy, dp, rules->ifs, &projection, err);

	if (!r)
		r = datapath_stage(dp, &projection.change, err);
	if (!r) {
		interfaces_set_targets(rules->ifs);
		datapath_commit(dp);
	}
	projection_clear(&projection);
	return r;
}

static int make_datapath(struct rules *rules, size_t n_block, size_t n_allow, struct datapath **ret,
			 struct error *err)
{
	struct datapath_sizes sizes = {
		.block = capacity_for(n_block),
		.allow = capacity_for(n_allow),
	};

	return datapath_create(rules->config->daemon.pin_dir, &sizes, ret, err);
}

static void use_datapath(struct rules *rules, struct datapath *dp)
{
	struct datapath_owner owner;

	datapath_read_owner(rules->config->daemon.pin_dir, &owner);
	interfaces_use(rules->ifs, dp, &owner);
}

/*
 * Puts larger maps, with the policy in force, in the place of the ones in use. Each interface goes
 * over from programs on the old maps to programs on the new ones in one step, and both enforce the
 * same.
 */
static int grow(struct rules *rules, size_t n_block, size_t n_allow, struct error *err)
{
	_cleanup_(datapath_closep) struct datapath *dp = NULL;
	int r = make_datapath(rules, n_block, n_allow, &dp, err);

	if (r < 0)
		return r;
	memcpy(datapath_interfaces(dp), datapath_interfaces(rules->dp),
	       FWD_MAX_INTERFACES * sizeof(struct fwd_interface));
	use_datapath(rules, dp);
	r = project(rules, dp, err);
	if (!r)
		r = interfaces_move(rules->ifs, err);
	if (r < 0) {
		/* Back to the old ones, where some have left them. */
		use_datapath(rules, rules->dp);
		interfaces_move(rules->ifs, NULL);
		return r;
	}
	datapath_copy_counters(rules->dp, dp);
	datapath_close(rules->dp);
	rules->dp = take_pointer(&dp);
	r = datapath_promote(rules->dp, err);
	log_info("room for %u blocked entries now", prefix_map_capacity(datapath_block(rules->dp)));
	return r;
}

static size_t count_inserts(const struct prefix_change *changes, size_t n)
{
	size_t inserts = 0;

	for (size_t i = 0; i < n; i++)
		inserts += changes[i].kind == PREFIX_INSERT;
	return inserts;
}

/* datapath_stage(), and once more in larger maps if these are too small. */
static int stage(struct rules *rules, const struct datapath_change *change, struct error *err)
{
	int r = datapath_stage(rules->dp, change, err);

	if (r != -E2BIG)
		return r;
	r = grow(rules,
		 prefix_map_size(datapath_block(rules->dp)) +
			 count_inserts(change->block, change->n_block),
		 prefix_map_size(datapath_allow(rules->dp)) +
			 count_inserts(change->allow, change->n_allow),
		 err);
	return r < 0 ? r : datapath_stage(rules->dp, change, err);
}

/* ---- opening ---- */

static int remember_ends(struct rules *rules)
{
	const struct ruleset *set = runtime_set(rules, STORE_BLOCK);
	struct ruleset_cursor cursor = ruleset_seek(set, NULL);

	if (expiry_reserve(&rules->expiry, ruleset_size(set)) < 0)
		return -ENOMEM;
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		if (rule->expires_ns)
			expiry_push(&rules->expiry, rule->expires_ns, &rule->prefix);
	return 0;
}

static int load_runtime(struct rules *rules, struct error *err)
{
	_cleanup_free_ struct redirect *redirects = NULL;
	struct policy *policy = rules->policy;
	struct ruleset *block = NULL, *allow = NULL;
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
	r = store_load_redirects(rules->store, &redirects, &n, err);
	if (!r)
		r = policy_set_runtime_redirects(policy, redirects, n, err);
	if (!r && remember_ends(rules) < 0)
		r = error_no_memory(err);
	return r;
}

static int open_datapath(struct rules *rules, struct error *err)
{
	struct policy_sets block = policy_block_sets(rules->policy);
	struct policy_sets allow = policy_allow_sets(rules->policy);
	struct datapath *old = NULL;
	int r = datapath_adopt(rules->config->daemon.pin_dir, &rules->dp, err);

	if (r < 0)
		return r;
	if (rules->dp) {
		rules->adopted = true;
		use_datapath(rules, rules->dp);
		r = project(rules, rules->dp, err);
		if (r != -E2BIG)
			return r;
		old = rules->dp;
		rules->dp = NULL;
	}
	/* None to adopt, or too small: made beside what is there, which goes on meanwhile. */
	r = make_datapath(rules, policy_count(&block), policy_count(&allow), &rules->dp, err);
	if (!r && old)
		memcpy(datapath_interfaces(rules->dp), datapath_interfaces(old),
		       FWD_MAX_INTERFACES * sizeof(struct fwd_interface));
	if (!r) {
		use_datapath(rules, rules->dp);
		r = project(rules, rules->dp, err);
	}
	if (!r && old)
		datapath_copy_counters(old, rules->dp);
	datapath_close(old);
	return r;
}

int rules_open(struct config *config, struct store *store, struct interfaces *ifs,
	       struct rules **ret, struct error *err)
{
	_cleanup_(rules_closep) struct rules *rules = calloc(1, sizeof(*rules));
	size_t n;
	int r;

	if (!rules)
		return error_no_memory(err);
	rules->store = store;
	rules->ifs = ifs;
	r = policy_from_config(config, &rules->policy, err);
	if (r < 0)
		return r;
	rules->config = config;
	r = load_runtime(rules, err);
	if (!r) {
		want(rules, config, rules->policy->flags, rules->policy->redirects,
		     rules->policy->n_redirects);
		r = open_datapath(rules, err);
	}
	if (r < 0) {
		rules->config = NULL;
		return r;
	}
	n = prefix_map_size(datapath_block(rules->dp));
	if (n > rules->policy->max_entries)
		log_warning(
			"%zu entries are blocked, more than blacklist.max_entries = %u: all are "
			"kept, and no more are taken",
			n, rules->policy->max_entries);
	if (policy_check_redirects(rules->policy, err) < 0)
		log_warning("%s; meanwhile that of fwctl goes first", err->text);
	interfaces_settle(ifs);
	/* While the maps by which they are known to be ours (D2) are still pinned. */
	interfaces_detach_strays(ifs);
	r = datapath_promote(rules->dp, err);
	if (r < 0) {
		rules->config = NULL;
		return r;
	}
	*ret = take_pointer(&rules);
	return 0;
}

void rules_close(struct rules *rules)
{
	if (!rules)
		return;
	datapath_close(rules->dp);
	policy_free(rules->policy);
	config_free(rules->config);
	expiry_clear(&rules->expiry);
	free(rules);
}

/* ---- changes of runtime prefixes ---- */

/* Rules that come, and prefixes whose rules go; one of the two is empty. */
struct edit {
	enum store_table table;
	const struct rule *puts;
	size_t n_puts;
	const struct prefix *removes;
	size_t n_removes;
	bool removes_all; /* they are all there are: one statement takes them out of the store */
};

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
		.prefix = *prefix,
		.kind = !before.in_force  ? PREFIX_INSERT
			: !after.in_force ? PREFIX_REMOVE
					  : PREFIX_RETIME,
		.expires_ns = after.expires_ns,
	};
	return true;
}

/* All sets of the table but that of run time. */
static struct policy_sets other_sets(const struct rules *rules, enum store_table table)
{
	struct policy_sets all = rules_sets(rules, table), others = {0};
	const struct ruleset *runtime = runtime_set(rules, table);

	for (size_t i = 0; i < all.n; i++)
		if (all.sets[i] != runtime)
			others.sets[others.n++] = all.sets[i];
	return others;
}

static int compute_changes(const struct rules *rules, const struct edit *edit,
			   struct prefix_change **ret, size_t *ret_n, struct error *err)
{
	const struct ruleset *runtime = runtime_set(rules, edit->table);
	struct policy_sets others = other_sets(rules, edit->table);
	size_t n = 0, inserts = 0, size = prefix_map_size(rules_map(rules, edit->table));
	struct prefix_change *changes =
		calloc(edit->n_puts + edit->n_removes + 1, sizeof(*changes));
	int r;

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
	/* There may be more than the limit already, after a restart with a lower one. */
	r = inserts ? check_limit(rules->policy, edit->table, size + inserts, err) : 0;
	if (r < 0) {
		free(changes);
		return r;
	}
	*ret = changes;
	*ret_n = n;
	return 0;
}

static int store_edit(struct store *store, const struct edit *edit, struct error *err)
{
	int r = store_begin(store, err);

	for (size_t i = 0; !r && i < edit->n_puts; i++)
		r = store_put(store, edit->table, &edit->puts[i], err);
	if (!r && edit->removes_all)
		r = store_clear(store, edit->table, err);
	for (size_t i = 0; !r && !edit->removes_all && i < edit->n_removes; i++)
		r = store_remove(store, edit->table, &edit->removes[i], err);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

/* The policy's part, for which memory was reserved: it cannot fail. */
static void adopt_edit(struct rules *rules, const struct edit *edit)
{
	struct ruleset *runtime = runtime_set(rules, edit->table);

	for (size_t i = 0; i < edit->n_puts; i++) {
		const struct rule *rule = &edit->puts[i];

		ruleset_put(runtime, rule);
		if (rule->expires_ns)
			expiry_push(&rules->expiry, rule->expires_ns, &rule->prefix);
	}
	for (size_t i = 0; i < edit->n_removes; i++)
		ruleset_remove(runtime, &edit->removes[i]);
	ruleset_release_reserve(runtime);
}

static int reserve_rules(struct ruleset *runtime, const struct edit *edit)
{
	return edit->n_puts ? ruleset_reserve(runtime, edit->n_puts)
			    : ruleset_reserve_removes(runtime, edit->n_removes);
}

/* Reminders of ends that were put off pile up; once they are most of the heap it is made anew. */
static int reserve_ends(struct rules *rules, const struct edit *edit)
{
	size_t live = ruleset_size(runtime_set(rules, STORE_BLOCK));

	if (rules->expiry.n > 2 * live + edit->n_puts + 1024) {
		rules->expiry.n = 0;
		if (remember_ends(rules) < 0)
			return -ENOMEM;
	}
	return expiry_reserve(&rules->expiry, edit->n_puts);
}

static int apply(struct rules *rules, const struct edit *edit, struct error *err)
{
	_cleanup_free_ struct prefix_change *changes = NULL;
	struct datapath_change change = {.flags = datapath_flags(rules->dp)};
	size_t n = 0;
	int r = compute_changes(rules, edit, &changes, &n, err);

	if (r < 0)
		return r;
	if (reserve_rules(runtime_set(rules, edit->table), edit) < 0 ||
	    reserve_ends(rules, edit) < 0)
		return error_no_memory(err);
	if (edit->table == STORE_BLOCK) {
		change.block = changes;
		change.n_block = n;
	} else {
		change.allow = changes;
		change.n_allow = n;
	}
	r = stage(rules, &change, err);
	if (r < 0)
		return r;
	r = store_edit(rules->store, edit, err);
	if (r < 0) {
		datapath_abort(rules->dp);
		return r;
	}
	datapath_commit(rules->dp);
	adopt_edit(rules, edit);
	return 0;
}

int rules_add(struct rules *rules, enum store_table table, struct prefix *prefixes, size_t n,
	      s64 ttl_s, const char *comment, struct rules_count *ret, struct error *err)
{
	const struct ruleset *runtime = runtime_set(rules, table);
	_cleanup_(comment_unrefp) struct comment *shared = comment ? comment_new(comment) : NULL;
	size_t n_puts = prefix_sort_unique(prefixes, n);
	_cleanup_free_ struct rule *puts = calloc(n_puts + 1, sizeof(*puts));
	struct edit edit = {.table = table, .puts = puts, .n_puts = n_puts};
	u64 expires_ns = ttl_s ? boot_ns() + (u64)ttl_s * NS_PER_S : 0;
	struct rules_count count = {0};
	s64 now_s = wall_s();
	int r;

	if (!puts || (comment && !shared))
		return error_no_memory(err);
	for (size_t i = 0; i < n_puts; i++) {
		const struct rule *old = ruleset_find(runtime, &prefixes[i]);

		puts[i] = (struct rule){
			.prefix = prefixes[i],
			.created_s = old ? old->created_s : now_s,
			.expires_ns = expires_ns,
			.comment = shared,
		};
		count.updated += old != NULL;
		count.added += old == NULL;
	}
	r = apply(rules, &edit, err);
	if (!r)
		*ret = count;
	return r;
}

static int refuse_removal(const struct rules *rules, enum store_table table,
			  const struct prefix *prefix, struct error *err)
{
	struct policy_sets others = other_sets(rules, table);
	char text[PREFIX_TEXT_MAX];

	prefix_format(prefix, text);
	for (size_t i = 0; i < others.n; i++) {
		if (!ruleset_find(others.sets[i], prefix))
			continue;
		/* Set 0 is the configuration's in both tables; behind it come the feeds. */
		if (!i)
			return error_set(err, -ENOENT,
					 "%s comes from the configuration: take it out there and "
					 "reload",
					 text);
		return error_set(err, -ENOENT,
				 "%s comes from the feed \"%s\": take it out there and reload",
				 text, rules->policy->origins[ORIGIN_RUNTIME + i].name);
	}
	return error_set(err, -ENOENT, "%s is not %s", text,
			 table == STORE_BLOCK ? "blocked" : "on the allowlist");
}

int rules_remove(struct rules *rules, enum store_table table, struct prefix *prefixes, size_t n,
		 struct rules_count *ret, struct error *err)
{
	struct edit edit = {
		.table = table,
		.removes = prefixes,
		.n_removes = prefix_sort_unique(prefixes, n),
	};
	int r;

	for (size_t i = 0; i < edit.n_removes; i++)
		if (!ruleset_find(runtime_set(rules, table), &prefixes[i]))
			return refuse_removal(rules, table, &prefixes[i], err);
	r = apply(rules, &edit, err);
	if (!r)
		*ret = (struct rules_count){.removed = edit.n_removes};
	return r;
}

int rules_flush(struct rules *rules, enum store_table table, struct rules_count *ret,
		struct error *err)
{
	const struct ruleset *runtime = runtime_set(rules, table);
	_cleanup_free_ struct prefix *prefixes =
		calloc(ruleset_size(runtime) + 1, sizeof(*prefixes));
	struct edit edit = {.table = table, .removes = prefixes, .removes_all = true};
	struct ruleset_cursor cursor = ruleset_seek(runtime, NULL);
	int r;

	if (!prefixes)
		return error_no_memory(err);
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		prefixes[edit.n_removes++] = rule->prefix;
	r = apply(rules, &edit, err);
	if (!r)
		*ret = (struct rules_count){.removed = edit.n_removes};
	return r;
}

u64 rules_expire(struct rules *rules)
{
	struct prefix *ended = calloc(EXPIRE_AT_ONCE, sizeof(*ended));
	struct ruleset *runtime = runtime_set(rules, STORE_BLOCK);
	const struct expiry_item *first;
	struct rules_count count;
	u64 now = boot_ns();
	struct error err;
	size_t n = 0;

	while (ended && n < EXPIRE_AT_ONCE && (first = expiry_first(&rules->expiry)) &&
	       first->ns <= now) {
		const struct rule *rule = ruleset_find(runtime, &first->prefix);

		if (rule && rule->expires_ns && rule->expires_ns <= now)
			ended[n++] = rule->prefix;
		expiry_pop(&rules->expiry);
	}
	if (n && rules_remove(rules, STORE_BLOCK, ended, n, &count, &err) < 0) {
		/* They do not match any more; they are tried again a little later. */
		log_error("cannot remove entries that have ended: %s; trying again", err.text);
		for (size_t i = 0; i < n && !expiry_reserve(&rules->expiry, 1); i++)
			expiry_push(&rules->expiry, now + 10 * NS_PER_S, &ended[i]);
	}
	free(ended);
	first = expiry_first(&rules->expiry);
	return first ? first->ns : 0;
}

/* ---- redirects ---- */

static int check_redirect(const struct rules *rules, const struct redirect *redirect,
			  struct error *err)
{
	const struct policy *policy = rules->policy;
	char ports[REDIRECT_PORTS_TEXT_MAX], other_ports[REDIRECT_PORTS_TEXT_MAX];

	redirect_ports_format(redirect, ports);
	if (redirect->interface[0] && !interfaces_is_wanted(rules->ifs, redirect->interface))
		return error_set(err, -EINVAL,
				 "\"%s\" is not an interface of the configuration: add an "
				 "[[interface]] for it and reload",
				 redirect->interface);
	if (!strcmp(redirect->interface, redirect->target))
		return error_set(err, -EINVAL, "%s would be redirected from \"%s\" to itself",
				 ports, redirect->target);
	for (size_t i = 0; i < policy->n_redirects; i++) {
		const struct redirect *other = &policy->redirects[i];
		bool from_config = i < policy->n_config_redirects;

		if (!redirect_overlaps(redirect, other) ||
		    (!from_config && redirect_same_match(redirect, other)))
			continue;
		redirect_ports_format(other, other_ports);
		return error_set(err, -EEXIST, "%s %s %s to \"%s\"%s", ports,
				 redirect_same_match(redirect, other) ? "is redirected:"
								      : "overlaps the redirect of",
				 other_ports, other->target,
				 from_config ? ", from the configuration" : "");
	}
	return interfaces_check_redirect(rules->ifs, redirect, err);
}

/* The list with one redirect put in and one taken out, either of them NULL. The caller frees it. */
static struct redirect *edit_redirects(const struct policy *policy, const struct redirect *put,
				       const struct redirect *removed, size_t *ret_n)
{
	struct redirect *list = calloc(policy->n_redirects + 2, sizeof(*list));
	size_t n = 0;

	for (size_t i = 0; list && i < policy->n_redirects; i++)
		if (!removed || i < policy->n_config_redirects ||
		    !redirect_same_match(&policy->redirects[i], removed))
			list[n++] = policy->redirects[i];
	if (list && put)
		list[n++] = *put;
	*ret_n = n;
	return list;
}

static int store_redirect_edit(struct store *store, const struct redirect *put,
			       const struct redirect *removed, struct error *err)
{
	int r = store_begin(store, err);

	if (!r && removed)
		r = store_remove_redirect(store, removed, err);
	if (!r && put)
		r = store_put_redirect(store, put, err);
	if (!r)
		r = store_commit(store, err);
	if (r < 0)
		store_rollback(store);
	return r;
}

/* From staging on; `list` is what is wanted already. */
static int enforce_redirects(struct rules *rules, const struct redirect *list, size_t n,
			     const struct redirect *put, const struct redirect *removed,
			     struct error *err)
{
	_cleanup_free_ struct redirect_scope *scopes = calloc(FWD_MAX_INTERFACES, sizeof(*scopes));
	struct datapath_change change = {
		.flags = rules->policy->flags,
		.redirects_too = true,
		.redirects = list,
		.n_redirects = n,
		.scopes = scopes,
	};
	int r;

	if (!scopes)
		return error_no_memory(err);
	change.n_scopes = interfaces_scopes(rules->ifs, scopes);
	r = datapath_stage(rules->dp, &change, err);
	if (r < 0)
		return r;
	r = store_redirect_edit(rules->store, put, removed, err);
	if (r < 0) {
		datapath_abort(rules->dp);
		return r;
	}
	interfaces_set_targets(rules->ifs);
	datapath_commit(rules->dp);
	return 0;
}

static int change_redirects(struct rules *rules, const struct redirect *put,
			    const struct redirect *removed, struct error *err)
{
	struct policy *policy = rules->policy;
	_cleanup_free_ struct redirect *list = NULL;
	struct redirect *old = policy->redirects;
	size_t n;
	int r;

	list = edit_redirects(policy, put, removed, &n);
	if (!list)
		return error_no_memory(err);
	want(rules, rules->config, policy->flags, list, n);
	r = interfaces_prepare(rules->ifs, err);
	if (!r)
		r = enforce_redirects(rules, list, n, put, removed, err);
	if (r < 0) {
		want(rules, rules->config, policy->flags, old, policy->n_redirects);
	} else {
		policy->redirects = take_pointer(&list);
		policy->n_redirects = n;
		list = old; /* to be freed */
	}
	interfaces_settle(rules->ifs);
	return r;
}

static const struct redirect *find_runtime_redirect(const struct policy *policy,
						    const struct redirect *redirect)
{
	for (size_t i = policy->n_config_redirects; i < policy->n_redirects; i++)
		if (redirect_same_match(&policy->redirects[i], redirect))
			return &policy->redirects[i];
	return NULL;
}

int rules_add_redirect(struct rules *rules, const struct redirect *redirect,
		       struct rules_count *ret, struct error *err)
{
	const struct redirect *old = find_runtime_redirect(rules->policy, redirect);
	bool updated = old != NULL;
	int r = check_redirect(rules, redirect, err);

	if (r < 0)
		return r;
	if (!old && rules->policy->n_redirects >= REDIRECTS_MAX)
		return error_set(err, -ENOSPC, "full: %d of %d redirects", REDIRECTS_MAX,
				 REDIRECTS_MAX);
	r = change_redirects(rules, redirect, old, err);
	if (!r)
		*ret = (struct rules_count){.added = !updated, .updated = updated};
	return r;
}

int rules_remove_redirect(struct rules *rules, const struct redirect *redirect,
			  struct rules_count *ret, struct error *err)
{
	const struct policy *policy = rules->policy;
	const struct redirect *old = find_runtime_redirect(policy, redirect);
	char ports[REDIRECT_PORTS_TEXT_MAX];
	struct redirect removed;
	int r;

	redirect_ports_format(redirect, ports);
	for (size_t i = 0; !old && i < policy->n_config_redirects; i++)
		if (redirect_same_match(&policy->redirects[i], redirect))
			return error_set(err, -ENOENT,
					 "the redirect of %s comes from the configuration: take it "
					 "out there and reload",
					 ports);
	if (!old)
		return error_set(err, -ENOENT, "there is no redirect of %s %s on %s", ports,
				 direction_names[redirect->direction],
				 redirect->interface[0] ? redirect->interface : "every interface");
	removed = *old;
	r = change_redirects(rules, NULL, &removed, err);
	if (!r)
		*ret = (struct rules_count){.removed = 1};
	return r;
}

/* ---- reload ---- */

static void count_changes(const struct projection *projection, struct rules_count *ret)
{
	*ret = (struct rules_count){0};
	for (size_t i = 0; i < projection->change.n_block; i++) {
		ret->added += projection->block[i].kind == PREFIX_INSERT;
		ret->removed += projection->block[i].kind == PREFIX_REMOVE;
	}
}

static int check_limits(const struct policy *policy, struct error *err)
{
	struct policy_sets block = policy_block_sets(policy), allow = policy_allow_sets(policy);
	int r = check_limit(policy, STORE_BLOCK, policy_count(&block), err);

	if (!r)
		r = check_limit(policy, STORE_ALLOW, policy_count(&allow), err);
	if (!r)
		r = policy_check_redirects(policy, err);
	return r;
}

/* Has packets see `policy`, whose interfaces are wanted and prepared already. */
static int switch_policy(struct rules *rules, const struct policy *policy, struct rules_count *ret,
			 struct error *err)
{
	struct projection projection = {0};
	int r = projection_make(policy, rules->dp, rules->ifs, &projection, err);

	if (!r)
		r = stage(rules, &projection.change, err);
	if (!r) {
		interfaces_set_targets(rules->ifs);
		datapath_commit(rules->dp);
		count_changes(&projection, ret);
	}
	projection_clear(&projection);
	return r;
}

int rules_reload(struct rules *rules, struct config *config, struct rules_count *ret,
		 struct error *err)
{
	_cleanup_(policy_freep) struct policy *next = NULL;
	struct policy *old = rules->policy;
	struct config *old_config = rules->config;
	int r = policy_from_config(config, &next, err);

	if (!r)
		r = policy_take_runtime(next, old, err);
	if (!r)
		r = policy_keep_created(next, old, err);
	if (r < 0)
		return r;
	want(rules, config, next->flags, next->redirects, next->n_redirects);
	r = check_limits(next, err);
	if (!r)
		r = interfaces_prepare(rules->ifs, err);
	if (!r)
		r = switch_policy(rules, next, ret, err);
	if (r < 0) {
		want(rules, old_config, old->flags, old->redirects, old->n_redirects);
		interfaces_settle(rules->ifs);
		return r;
	}
	rules->policy = take_pointer(&next);
	rules->config = config;
	interfaces_settle(rules->ifs);
	policy_free(old);
	config_free(old_config);
	return 0;
}

/* ---- reading ---- */

/* The most specific prefix of the sets that covers the address and has not ended. */
static bool find_cover(const struct policy_sets *sets, const struct prefix *address,
		       struct prefix *ret)
{
	u64 now = boot_ns();

	for (int len = address->len; len >= 0; len--) {
		struct prefix prefix = *address;
		struct effective found;

		prefix_truncate(&prefix, (u8)len);
		if (policy_effective(sets, &prefix, &found) &&
		    (!found.expires_ns || found.expires_ns > now)) {
			*ret = prefix;
			return true;
		}
	}
	return false;
}

void rules_test(const struct rules *rules, const struct prefix *address, struct rules_match *ret)
{
	struct policy_sets block = policy_block_sets(rules->policy);
	struct policy_sets allow = policy_allow_sets(rules->policy);

	ret->blocked = find_cover(&block, address, &ret->blocked_by);
	ret->allowed = find_cover(&allow, address, &ret->allowed_by);
}
