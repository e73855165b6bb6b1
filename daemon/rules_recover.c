// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * At a start over a database that was damaged, is missing, or lacks changes that were in force:
 * what packets see, in adopted maps, says which rules there are. What could be read of the database
 * says since when and why, and is all that is known where there are no maps.
 */
#include "address_list.h"
#include "clock.h"
#include "log.h"
#include "rules_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct recovery {
	struct rules *rules;
	bool unconfirmed; /* the maps may have what a start has just gone back from */
	size_t n_put, n_removed;
};

/* ---- prefixes ---- */

/* What leads from what packets see to the rules. The caller frees ret->items. */
static int compare_with_maps(const struct rules *rules, struct prefix_change_list *ret,
			     struct error *err)
{
	_cleanup_free_ struct prefix_item *items = NULL;
	size_t n, n_block;
	int r = policy_items(rules->policy, &items, &n, &n_block, err);

	*ret = (struct prefix_change_list){0};
	if (!r && prefix_map_diff(rules_map(rules), items, n, ret) < 0) {
		free(ret->items);
		r = error_no_memory(err);
	}
	return r;
}

/* An entry of the blacklist that packets see and no rule explains. */
static bool read_unexplained(const struct rules *rules, const struct prefix_change *change,
			     struct prefix_state *ret)
{
	return change->kind == PREFIX_REMOVE && change->item.table == TABLE_BLOCK &&
	       prefix_map_read(rules_map(rules), TABLE_BLOCK, &change->item.prefix, ret);
}

static int put(struct recovery *recovery, enum prefix_table table, const struct rule *rule,
	       struct error *err)
{
	struct rules *rules = recovery->rules;

	recovery->n_put++;
	if (ruleset_put(rules_runtime(rules->policy, table), rule) < 0)
		return error_no_memory(err);
	return store_put(rules->store, (enum store_table)table, rule, err);
}

static int remove_rule(struct recovery *recovery, enum prefix_table table,
		       const struct prefix *prefix, struct error *err)
{
	struct rules *rules = recovery->rules;

	recovery->n_removed++;
	if (ruleset_remove(rules_runtime(rules->policy, table), prefix) < 0)
		return error_no_memory(err);
	return store_remove(rules->store, (enum store_table)table, prefix, err);
}

static bool is_unconfirmed(const struct rules *rules)
{
	char path[STORE_FILE_MAX];

	return !store_unconfirmed_path(rules->config->daemon.state_dir, path, NULL) &&
	       !access(path, F_OK);
}

/* One difference between packets and rules: the rule is made what packets see. */
static int recover_prefix(struct recovery *recovery, const struct prefix_change *change,
			  struct error *err)
{
	const struct rules *rules = recovery->rules;
	enum prefix_table table = (enum prefix_table)change->item.table;
	const struct prefix *prefix = &change->item.prefix;
	const struct rule *known = ruleset_find(rules_runtime(rules->policy, table), prefix);
	struct rule rule = {.prefix = *prefix, .created_s = wall_s()};
	struct prefix_state state;

	switch ((enum prefix_change_kind)change->kind) {
	case PREFIX_INSERT:
		return known ? remove_rule(recovery, table, prefix, err) : 0;
	case PREFIX_RETIME:
		if (!known)
			return 0;
		rule = *known;
		break;
	case PREFIX_REMOVE:
		/* What a start has just gone back from must not stay for good. */
		if (recovery->unconfirmed)
			return 0;
		break;
	}
	if (!prefix_map_read(rules_map(rules), table, prefix, &state) ||
	    (state.expires_ns && state.expires_ns <= boot_ns()))
		return 0;
	rule.expires_ns = state.expires_ns;
	return put(recovery, table, &rule, err);
}

static int recover_prefixes(struct recovery *recovery, enum prefix_table table, struct error *err)
{
	struct prefix_change_list list;
	int r = compare_with_maps(recovery->rules, &list, err);

	if (r < 0)
		return r;
	for (size_t i = 0; !r && i < list.n; i++)
		if (list.items[i].item.table == table)
			r = recover_prefix(recovery, &list.items[i], err);
	free(list.items);
	return r;
}

/* What the daemon spares is explained by what is blocked: it is nobody's rule. */
static int recover_tables(struct recovery *recovery, struct error *err)
{
	struct rules *rules = recovery->rules;
	_cleanup_(ruleset_freep) struct ruleset *none = ruleset_new();
	int r = none ? recover_prefixes(recovery, TABLE_BLOCK, err) : error_no_memory(err);

	if (r < 0)
		return r;
	if (guard_spare_all(rules->policy, &rules->locals, none) < 0)
		return error_no_memory(err);
	return recover_prefixes(recovery, TABLE_ALLOW, err);
}

/* ---- redirects ---- */

static const struct redirect *find_match(const struct redirect *redirects, size_t n,
					 const struct redirect *redirect)
{
	for (size_t i = 0; i < n; i++)
		if (redirect_same_match(&redirects[i], redirect))
			return &redirects[i];
	return NULL;
}

/* Those in the maps that the configuration does not have. */
static size_t list_redirects(const struct rules *rules, struct redirect list[static REDIRECTS_MAX])
{
	const struct policy *policy = rules->policy;
	struct redirect redirect;
	size_t n = 0;
	u32 at = 0;

	while (n < REDIRECTS_MAX &&
	       redirect_map_next(datapath_redirects(rules->dp), &at, &redirect))
		if (*redirect.target &&
		    !find_match(policy->redirects, policy->n_config_redirects, &redirect) &&
		    !find_match(list, n, &redirect))
			list[n++] = redirect;
	return n;
}

static int recover_redirects(struct recovery *recovery, struct error *err)
{
	struct rules *rules = recovery->rules;
	struct policy *policy = rules->policy;
	const struct redirect *known = policy->redirects + policy->n_config_redirects;
	size_t n_known = policy->n_redirects - policy->n_config_redirects;
	_cleanup_free_ struct redirect *seen = calloc(REDIRECTS_MAX, sizeof(*seen));
	size_t n;
	int r = 0;

	if (!seen)
		return error_no_memory(err);
	n = list_redirects(rules, seen);
	for (size_t i = 0; !r && i < n_known; i++) {
		if (find_match(seen, n, &known[i]))
			continue;
		recovery->n_removed++;
		r = store_remove_redirect(rules->store, &known[i], err);
	}
	for (size_t i = 0; !r && i < n; i++) {
		const struct redirect *same = find_match(known, n_known, &seen[i]);

		recovery->n_put += !same || same->mode != seen[i].mode ||
				   strcmp(same->target, seen[i].target) != 0;
		r = store_put_redirect(rules->store, &seen[i], err);
	}
	return r ? r : policy_set_runtime_redirects(policy, seen, n, err);
}

/* ---- a feed ---- */

/* The one whose given list is there and cannot be read. NULL: none, or several. */
static struct origin *find_damaged_feed(const struct rules *rules)
{
	const struct policy *policy = rules->policy;
	struct origin *found = NULL;

	for (size_t i = ORIGIN_FEEDS; i < policy->n_origins; i++) {
		struct origin *feed = &policy->origins[i];
		struct address_list list;
		s64 replaced_s;
		int r;

		if (feed->replaced)
			continue;
		r = store_feed_load(rules->config->daemon.state_dir, feed->name, &list, &replaced_s,
				    NULL);
		if (!r)
			free(list.prefixes);
		if (!r || r == -ENOENT)
			continue;
		if (found)
			return NULL;
		found = feed;
	}
	return found;
}

/* What packets see without an end and no rule explains. The caller frees *ret. */
static int list_unexplained(const struct rules *rules, struct prefix **ret, size_t *ret_n,
			    struct error *err)
{
	struct prefix_change_list list;
	struct prefix_state state;
	struct prefix *prefixes;
	size_t n = 0;
	int r = compare_with_maps(rules, &list, err);

	if (r < 0)
		return r;
	prefixes = calloc(list.n + 1, sizeof(*prefixes));
	for (size_t i = 0; prefixes && i < list.n; i++)
		if (read_unexplained(rules, &list.items[i], &state) && !state.expires_ns)
			prefixes[n++] = list.items[i].item.prefix;
	free(list.items);
	*ret = prefixes;
	*ret_n = n;
	return prefixes ? 0 : error_no_memory(err);
}

/* Where that fails, the feed has the entries until the next start. */
static void keep_feed(const struct rules *rules, const struct origin *feed,
		      const struct prefix *prefixes, size_t n)
{
	const char *dir = rules->config->daemon.state_dir;
	_cleanup_(store_feed_dropp) struct store_feed *list = NULL;
	char path[STORE_FILE_MAX];
	struct error err;
	int r = store_feed_keep(dir, feed->name, path, &err);

	if (!r)
		r = store_feed_write(dir, feed->name, prefixes, n, &list, &err);
	if (!r)
		r = store_feed_commit(&list, 1, &err);
	if (r < 0)
		log_error("feed \"%s\" has the %zu entries that packets see, until the next start: "
			  "%s",
			  feed->name, n, err.text);
	else
		log_error("feed \"%s\" has the %zu entries that packets see; the damaged list is "
			  "kept as %s",
			  feed->name, n, path);
}

/* With one list damaged and all else whole, what nothing else explains is of that list. */
static int recover_feed(struct rules *rules, struct error *err)
{
	struct origin *feed = rules->dp ? find_damaged_feed(rules) : NULL;
	_cleanup_(ruleset_freep) struct ruleset *other = NULL;
	_cleanup_free_ struct prefix *prefixes = NULL;
	struct ruleset *rules_seen = NULL;
	size_t n = 0;
	int r;

	if (!feed || !datapath_is_whole(rules->dp))
		return 0;
	/* Its file's, which the list had taken the place of. */
	other = feed->rules;
	feed->rules = ruleset_new();
	if (!feed->rules)
		return error_no_memory(err);
	r = list_unexplained(rules, &prefixes, &n, err);
	if (!r && n)
		r = policy_rules_from(prefixes, n, NULL, &rules_seen, err);
	if (r < 0)
		return r;
	ruleset_free(feed->rules);
	feed->rules = n ? rules_seen : take_pointer(&other);
	if (!n)
		return 0;
	feed->replaced = true;
	feed->loaded_s = wall_s();
	keep_feed(rules, feed, prefixes, n);
	return 0;
}

/* ---- all of it ---- */

static int recover(struct recovery *recovery, struct error *err)
{
	struct rules *rules = recovery->rules;
	char what[160] = "there was nothing in the kernel to compare them with";
	u64 change = 0;
	int r = 0;

	if (rules->dp) {
		r = recover_tables(recovery, err);
		if (!r)
			r = recover_redirects(recovery, err);
		snprintf(what, sizeof(what),
			 "%zu more were known from what packets see, %zu were not in force any "
			 "more",
			 recovery->n_put, recovery->n_removed);
		change = datapath_change_number(rules->dp);
	}
	if (r < 0)
		return r;
	/* Where no database is, and nothing is missed, nothing was damaged. */
	return store_recovered(rules->store, change,
			       store_damage(rules->store) || recovery->n_put ? what : NULL, err);
}

/* Each rule is in the maps, if the maps and the database are of the same change. */
static bool is_in_maps(const struct rules *rules, enum prefix_table table)
{
	struct ruleset_cursor cursor = ruleset_seek(rules_runtime(rules->policy, table), NULL);
	struct prefix_state state;

	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		if (!prefix_map_read(rules_map(rules), table, &rule->prefix, &state))
			return false;
	return true;
}

static bool redirects_are_in_maps(const struct rules *rules)
{
	const struct policy *policy = rules->policy;
	struct redirect_state state;

	for (size_t i = policy->n_config_redirects; i < policy->n_redirects; i++)
		if (!redirect_map_read(datapath_redirects(rules->dp), &policy->redirects[i],
				       &state))
			return false;
	return true;
}

/* What has ended needs no rule any more, nor does what was spared. */
static bool needs_rule(const struct rules *rules, const struct prefix_change *change)
{
	struct prefix_state state;

	return read_unexplained(rules, change, &state) &&
	       (!state.expires_ns || state.expires_ns > boot_ns());
}

/* Where the maps lack an entry and have nothing in its place, somebody took it from them: no
 * damage. */
static int find_unexplained(const struct rules *rules, bool *ret, struct error *err)
{
	const struct policy *policy = rules->policy;
	const struct redirect *known = policy->redirects + policy->n_config_redirects;
	size_t n_known = policy->n_redirects - policy->n_config_redirects;
	_cleanup_free_ struct redirect *seen = calloc(REDIRECTS_MAX, sizeof(*seen));
	struct prefix_change_list list;
	bool found = false;
	size_t n_seen;
	int r;

	if (!seen)
		return error_no_memory(err);
	r = compare_with_maps(rules, &list, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++)
		found |= needs_rule(rules, &list.items[i]);
	free(list.items);
	n_seen = list_redirects(rules, seen);
	for (size_t i = 0; i < n_seen; i++) {
		const struct redirect *same = find_match(known, n_known, &seen[i]);

		found |= !same || strcmp(same->target, seen[i].target) != 0;
	}
	*ret = found;
	return 0;
}

/*
 * Damage that leaves no trace in the database: a log that was cut off looks like one that ends
 * there, and so does an old database put back; a changed key may be a key.
 */
static int compare(const struct rules *rules, char *why, size_t size, bool *ret_as_it_was,
		   struct error *err)
{
	u64 stored = store_change(rules->store), seen = datapath_change_number(rules->dp);
	bool unexplained = false;
	int r;

	*ret_as_it_was = true;
	if (seen > stored) {
		snprintf(why, size, "the database of rules lacks the last %llu changes",
			 (unsigned long long)(seen - stored));
		*ret_as_it_was = false;
		return 0;
	}
	/* Else the database was changed last, and the maps were not any more. */
	if (seen < stored || !datapath_is_whole(rules->dp) ||
	    (is_in_maps(rules, TABLE_BLOCK) && is_in_maps(rules, TABLE_ALLOW) &&
	     redirects_are_in_maps(rules)))
		return 0;
	r = find_unexplained(rules, &unexplained, err);
	snprintf(why, size, "the database of rules has some that never were in force");
	*ret_as_it_was = !unexplained;
	return r;
}

static int check(struct rules *rules, struct error *err)
{
	_cleanup_(ruleset_freep) struct ruleset *none = ruleset_new();
	bool as_it_was;
	char why[128];
	int r;

	if (!rules->dp || store_recovering(rules->store))
		return 0;
	if (!none || guard_spare_all(rules->policy, &rules->locals, none) < 0)
		return error_no_memory(err);
	r = compare(rules, why, sizeof(why), &as_it_was, err);
	if (r < 0 || as_it_was)
		return r;
	r = store_recover(rules->store, why, err);
	return r ? r : rules_load_runtime(rules, err);
}

int rules_recover(struct rules *rules, struct error *err)
{
	struct recovery recovery = {.rules = rules, .unconfirmed = is_unconfirmed(rules)};
	int r = check(rules, err);

	if (r < 0)
		return r;
	if (!store_recovering(rules->store))
		return recover_feed(rules, err);
	r = store_begin(rules->store, err);
	if (r < 0)
		return r;
	r = recover(&recovery, err);
	if (r < 0) {
		store_rollback(rules->store);
		return r;
	}
	if (store_damage(rules->store))
		log_error("%s", store_damage(rules->store));
	return rules_remember_ends(rules) < 0 ? error_no_memory(err) : 0;
}
