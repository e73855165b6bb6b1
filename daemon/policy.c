// SPDX-License-Identifier: GPL-2.0-or-later
#include "policy.h"

#include "address_list.h"
#include "clock.h"
#include "log.h"
#include "store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- making one ---- */

/* Duplicates, as lists have them, count once. */
int policy_rules_from(struct prefix *prefixes, size_t n, const struct ruleset *old,
		      struct ruleset **ret, struct error *err)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	_cleanup_free_ struct rule *rules = calloc(n + 1, sizeof(*rules));
	s64 now_s = wall_s();

	if (!set || !rules)
		return error_no_memory(err);
	prefix_sort(prefixes, n);
	for (size_t i = 0; i < n; i++)
		rules[i] = (struct rule){.prefix = prefixes[i], .created_s = now_s};
	if (ruleset_put_sorted(set, rules, n) < 0 || (old && ruleset_keep_created(set, old) < 0))
		return error_no_memory(err);
	*ret = take_pointer(&set);
	return 0;
}

int policy_read_feed(const struct config_feed *feed, const struct ruleset *old,
		     struct ruleset **ret, struct error *err)
{
	struct address_list list;
	int r = address_list_load(feed->file, &list, err);

	if (!r) {
		r = policy_rules_from(list.prefixes, list.n, old, ret, err);
		free(list.prefixes);
	}
	if (r < 0)
		error_prepend(err, "feed \"%s\": ", feed->name);
	return r;
}

/* The list that was given at run time; -ENOENT: there is none. */
static int load_replaced(const char *dir, struct origin *origin, struct error *err)
{
	struct address_list list;
	int r = store_feed_load(dir, origin->name, &list, &origin->loaded_s, err);

	if (r < 0)
		return r;
	r = policy_rules_from(list.prefixes, list.n, NULL, &origin->rules, err);
	free(list.prefixes);
	origin->replaced = !r;
	return r;
}

static int load_feed(const struct config_feed *feed, const char *dir, bool files_first,
		     struct origin *origin, struct error *err)
{
	int r = -ENOENT;

	snprintf(origin->name, sizeof(origin->name), "%s", feed->name);
	if (!files_first || !feed->file)
		r = load_replaced(dir, origin, err);
	/* A start has nothing else to fall back on; a reload has the policy that is in force. */
	if (r < 0 && r != -ENOENT && r != -ENOMEM && !files_first) {
		log_error("cannot use the list that feed \"%s\" was given: %s; it has %s instead: "
			  "give it a list anew with fwctl feed replace, or move that file away",
			  feed->name, err->text,
			  feed->file ? "what its own file has" : "no entries");
		r = -ENOENT;
	}
	if (r != -ENOENT)
		return r;
	origin->loaded_s = wall_s();
	if (feed->file)
		return policy_read_feed(feed, NULL, &origin->rules, err);
	origin->rules = ruleset_new();
	return origin->rules ? 0 : error_no_memory(err);
}

static int load_origins(const struct config *config, bool files_first, struct policy *policy,
			struct error *err)
{
	int r;

	policy->origins = calloc(ORIGIN_FEEDS + config->blacklist.n_feeds, sizeof(struct origin));
	if (!policy->origins)
		return error_no_memory(err);
	policy->n_origins = ORIGIN_FEEDS + config->blacklist.n_feeds;
	strcpy(policy->origins[ORIGIN_CONFIG].name, "config");
	strcpy(policy->origins[ORIGIN_RUNTIME].name, "runtime");
	policy->origins[ORIGIN_RUNTIME].rules = ruleset_new();
	policy->allow[ORIGIN_RUNTIME] = ruleset_new();
	policy->allow[ALLOW_SYSTEM] = ruleset_new();
	policy->forced = ruleset_new();
	if (!policy->origins[ORIGIN_RUNTIME].rules || !policy->allow[ORIGIN_RUNTIME] ||
	    !policy->allow[ALLOW_SYSTEM] || !policy->forced)
		return error_no_memory(err);
	r = policy_rules_from(config->blacklist.addresses, config->blacklist.n_addresses, NULL,
			      &policy->origins[ORIGIN_CONFIG].rules, err);
	if (!r)
		r = policy_rules_from(config->allow, config->n_allow, NULL,
				      &policy->allow[ORIGIN_CONFIG], err);
	for (size_t i = 0; !r && i < config->blacklist.n_feeds; i++)
		r = load_feed(&config->blacklist.feeds[i], config->daemon.state_dir, files_first,
			      &policy->origins[ORIGIN_FEEDS + i], err);
	return r;
}

int policy_from_config(const struct config *config, bool files_first, struct policy **ret,
		       struct error *err)
{
	_cleanup_(policy_freep) struct policy *policy = calloc(1, sizeof(*policy));
	int r;

	if (!policy)
		return error_no_memory(err);
	r = load_origins(config, files_first, policy, err);
	if (r < 0)
		return r;
	policy->redirects = calloc(config->n_redirects + 1, sizeof(*policy->redirects));
	if (!policy->redirects)
		return error_no_memory(err);
	if (config->n_redirects)
		memcpy(policy->redirects, config->redirects,
		       config->n_redirects * sizeof(*policy->redirects));
	policy->n_redirects = policy->n_config_redirects = config->n_redirects;
	policy->spares = config->allow_system;
	policy->max_entries = config->blacklist.max_entries;
	policy->flags = (config->blacklist.in ? FWD_BLOCK_IN : 0) |
			(config->blacklist.out ? FWD_BLOCK_OUT : 0);
	*ret = take_pointer(&policy);
	return 0;
}

void policy_free(struct policy *policy)
{
	if (!policy)
		return;
	for (size_t i = 0; i < policy->n_origins; i++)
		ruleset_free(policy->origins[i].rules);
	free(policy->origins);
	for (size_t i = 0; i < ALLOW_SETS; i++)
		ruleset_free(policy->allow[i]);
	ruleset_free(policy->forced);
	free(policy->redirects);
	free(policy);
}

int policy_set_runtime_redirects(struct policy *policy, const struct redirect *redirects, size_t n,
				 struct error *err)
{
	size_t first = policy->n_config_redirects;
	struct redirect *all = calloc(first + n + 1, sizeof(*all));

	if (!all)
		return error_no_memory(err);
	memcpy(all, policy->redirects, first * sizeof(*all));
	if (n)
		memcpy(all + first, redirects, n * sizeof(*all));
	free(policy->redirects);
	policy->redirects = all;
	policy->n_redirects = first + n;
	return 0;
}

static int clone_origins(const struct policy *policy, struct policy *clone)
{
	clone->origins = calloc(policy->n_origins, sizeof(*clone->origins));
	if (!clone->origins)
		return -ENOMEM;
	for (size_t i = 0; i < policy->n_origins; i++) {
		struct origin *origin = &clone->origins[clone->n_origins++];

		*origin = policy->origins[i];
		origin->rules = ruleset_clone(policy->origins[i].rules);
		if (!origin->rules)
			return -ENOMEM;
	}
	for (size_t i = 0; i < ALLOW_SETS; i++) {
		clone->allow[i] = ruleset_clone(policy->allow[i]);
		if (!clone->allow[i])
			return -ENOMEM;
	}
	clone->forced = ruleset_clone(policy->forced);
	return clone->forced ? 0 : -ENOMEM;
}

int policy_clone(const struct policy *policy, struct policy **ret)
{
	_cleanup_(policy_freep) struct policy *clone = calloc(1, sizeof(*clone));

	if (!clone || clone_origins(policy, clone) < 0)
		return -ENOMEM;
	clone->redirects = calloc(policy->n_redirects + 1, sizeof(*clone->redirects));
	if (!clone->redirects)
		return -ENOMEM;
	memcpy(clone->redirects, policy->redirects,
	       policy->n_redirects * sizeof(*clone->redirects));
	clone->n_redirects = policy->n_redirects;
	clone->n_config_redirects = policy->n_config_redirects;
	clone->spares = policy->spares;
	clone->max_entries = policy->max_entries;
	clone->flags = policy->flags;
	*ret = take_pointer(&clone);
	return 0;
}

int policy_take_runtime(struct policy *to, const struct policy *from, struct error *err)
{
	_cleanup_(ruleset_freep) struct ruleset *block =
		ruleset_clone(from->origins[ORIGIN_RUNTIME].rules);
	_cleanup_(ruleset_freep) struct ruleset *allow = ruleset_clone(from->allow[ORIGIN_RUNTIME]);
	_cleanup_(ruleset_freep) struct ruleset *forced = ruleset_clone(from->forced);
	int r;

	if (!block || !allow || !forced)
		return error_no_memory(err);
	r = policy_set_runtime_redirects(to, from->redirects + from->n_config_redirects,
					 from->n_redirects - from->n_config_redirects, err);
	if (r < 0)
		return r;
	ruleset_free(to->origins[ORIGIN_RUNTIME].rules);
	to->origins[ORIGIN_RUNTIME].rules = take_pointer(&block);
	ruleset_free(to->allow[ORIGIN_RUNTIME]);
	to->allow[ORIGIN_RUNTIME] = take_pointer(&allow);
	ruleset_free(to->forced);
	to->forced = take_pointer(&forced);
	return 0;
}

static int keep_created(struct origin *origin, const struct policy *old)
{
	int r = 0;

	for (size_t i = 0; !r && i < old->n_origins; i++)
		if (i != ORIGIN_RUNTIME && !strcmp(old->origins[i].name, origin->name))
			r = ruleset_keep_created(origin->rules, old->origins[i].rules);
	return r;
}

int policy_keep_created(struct policy *policy, const struct policy *old, struct error *err)
{
	int r = ruleset_keep_created(policy->allow[ORIGIN_CONFIG], old->allow[ORIGIN_CONFIG]);

	for (size_t i = 0; !r && i < policy->n_origins; i++)
		if (i != ORIGIN_RUNTIME)
			r = keep_created(&policy->origins[i], old);
	return r < 0 ? error_no_memory(err) : 0;
}

int policy_check_redirects(const struct policy *policy, struct error *err)
{
	char ports[REDIRECT_PORTS_TEXT_MAX], other_ports[REDIRECT_PORTS_TEXT_MAX];

	if (policy->n_redirects > REDIRECTS_MAX)
		return error_set(err, -ENOSPC, "full: %zu redirects, more than %d",
				 policy->n_redirects, REDIRECTS_MAX);
	for (size_t i = policy->n_config_redirects; i < policy->n_redirects; i++) {
		for (size_t j = 0; j < policy->n_config_redirects; j++) {
			const struct redirect *runtime = &policy->redirects[i];
			const struct redirect *other = &policy->redirects[j];

			if (!redirect_overlaps(runtime, other))
				continue;
			redirect_ports_format(other, ports);
			redirect_ports_format(runtime, other_ports);
			return error_set(err, -EEXIST,
					 "the redirect of %s to \"%s\" overlaps that of %s to "
					 "\"%s\", which fwctl added: delete one of them",
					 ports, other->target, other_ports, runtime->target);
		}
	}
	return 0;
}

/* ---- reading ---- */

struct policy_sets policy_sets_of(const struct policy *policy, enum prefix_table table)
{
	struct policy_sets sets = {.n = policy->n_origins};

	if (table == TABLE_ALLOW)
		return (struct policy_sets){
			.sets = {policy->allow[ORIGIN_CONFIG], policy->allow[ORIGIN_RUNTIME],
				 policy->allow[ALLOW_SYSTEM]},
			.n = ALLOW_SETS,
		};
	for (size_t i = 0; i < sets.n; i++)
		sets.sets[i] = policy->origins[i].rules;
	return sets;
}

u64 latest_end(u64 a, u64 b)
{
	if (!a || !b)
		return 0;
	return a > b ? a : b;
}

bool policy_effective(const struct policy_sets *sets, const struct prefix *prefix,
		      struct effective *ret)
{
	bool found = false;

	for (size_t i = 0; i < sets->n; i++) {
		const struct rule *rule = ruleset_find(sets->sets[i], prefix);

		if (!rule)
			continue;
		ret->expires_ns =
			found ? latest_end(ret->expires_ns, rule->expires_ns) : rule->expires_ns;
		found = true;
	}
	if (found)
		ret->prefix = *prefix;
	return found;
}

bool policy_find_cover(const struct policy_sets *sets, const struct prefix *address,
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

void policy_walk_start(struct policy_walk *walk, const struct policy_sets *sets,
		       const struct prefix *from)
{
	walk->n = sets->n;
	for (size_t i = 0; i < sets->n; i++)
		walk->cursors[i] = ruleset_seek(sets->sets[i], from);
}

const struct rule *policy_walk_next(struct policy_walk *walk, size_t *ret_set)
{
	const struct rule *first = NULL;
	size_t set = 0;

	for (size_t i = 0; i < walk->n; i++) {
		const struct rule *rule = ruleset_at(&walk->cursors[i]);

		if (rule && (!first || prefix_compare(&rule->prefix, &first->prefix) < 0)) {
			first = rule;
			set = i;
		}
	}
	if (first) {
		ruleset_next(&walk->cursors[set]);
		*ret_set = set;
	}
	return first;
}

bool policy_walk_next_effective(struct policy_walk *walk, struct effective *ret)
{
	const struct rule *first = NULL;

	for (size_t i = 0; i < walk->n; i++) {
		const struct rule *rule = ruleset_at(&walk->cursors[i]);

		if (rule && (!first || prefix_compare(&rule->prefix, &first->prefix) < 0))
			first = rule;
	}
	if (!first)
		return false;
	ret->prefix = first->prefix;
	ret->expires_ns = first->expires_ns;
	for (size_t i = 0; i < walk->n; i++) {
		const struct rule *rule = ruleset_at(&walk->cursors[i]);

		if (!rule || !prefix_equal(&rule->prefix, &ret->prefix))
			continue;
		ret->expires_ns = latest_end(ret->expires_ns, rule->expires_ns);
		ruleset_next(&walk->cursors[i]);
	}
	return true;
}

/* ---- what packets are to see ---- */

static size_t fill_items(const struct policy_sets *sets, enum prefix_table table,
			 struct prefix_item *items)
{
	struct policy_walk walk;
	struct effective next;
	size_t n = 0;

	policy_walk_start(&walk, sets, NULL);
	while (policy_walk_next_effective(&walk, &next))
		items[n++] = (struct prefix_item){
			.prefix = next.prefix, .table = table, .expires_ns = next.expires_ns};
	return n;
}

int policy_items(const struct policy *policy, struct prefix_item **ret, size_t *ret_n,
		 size_t *ret_n_block, struct error *err)
{
	struct policy_sets block = policy_sets_of(policy, TABLE_BLOCK);
	struct policy_sets allow = policy_sets_of(policy, TABLE_ALLOW);
	struct prefix_item *items;
	size_t n = 0;

	for (size_t i = 0; i < block.n; i++)
		n += ruleset_size(block.sets[i]);
	for (size_t i = 0; i < allow.n; i++)
		n += ruleset_size(allow.sets[i]);
	items = calloc(n + 1, sizeof(*items));
	if (!items)
		return error_no_memory(err);
	*ret_n_block = fill_items(&block, TABLE_BLOCK, items);
	*ret_n = *ret_n_block + fill_items(&allow, TABLE_ALLOW, items + *ret_n_block);
	*ret = items;
	return 0;
}

static int compare_items(const struct prefix_item *a, const struct prefix_item *b)
{
	if (a->table != b->table)
		return a->table < b->table ? -1 : 1;
	return prefix_compare(&a->prefix, &b->prefix);
}

int policy_diff(const struct prefix_item *from, size_t n_from, const struct prefix_item *to,
		size_t n_to, struct prefix_change_list *ret)
{
	size_t i = 0, j = 0;
	int r = 0;

	while (!r && (i < n_from || j < n_to)) {
		int order = i == n_from ? 1 : j == n_to ? -1 : compare_items(&from[i], &to[j]);

		if (order < 0)
			r = prefix_change_add(ret, PREFIX_REMOVE, &from[i]);
		else if (order > 0)
			r = prefix_change_add(ret, PREFIX_INSERT, &to[j]);
		else if (from[i].expires_ns != to[j].expires_ns)
			r = prefix_change_add(ret, PREFIX_RETIME, &to[j]);
		i += order <= 0;
		j += order >= 0;
	}
	return r;
}
