// SPDX-License-Identifier: GPL-2.0-or-later
/* What the guard makes of changes of the rules, and of this host's addresses and gateways. */
#include "rules_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int rules_guard_request(const struct policy *policy, const struct rules_request *request,
			const struct local_list *locals, struct error *err)
{
	struct guarded guarded = {.locals = locals, .n_sessions = request->n_sessions};

	memcpy(guarded.sessions, request->sessions, sizeof(guarded.sessions));
	if (request->force)
		return 0;
	if (request->kind == RULES_ADD && request->table == TABLE_BLOCK)
		return guard_check_add(policy, &guarded, request->prefixes, request->n, err);
	if (request->kind == RULES_REMOVE && request->table == TABLE_ALLOW)
		return guard_check_disallow(policy, &guarded, request->prefixes, request->n, err);
	return 0;
}

/* ---- small changes ---- */

static bool touches(const struct rules *rules, const struct prefix *prefix)
{
	size_t first;

	return local_list_within(&rules->locals, prefix, &first) ||
	       ruleset_find(rules->policy->forced, prefix);
}

/* Most changes are of prefixes that have nothing to do with any of this. */
static bool is_touched(const struct rules *rules, const struct edit *edit)
{
	for (size_t i = 0; i < edit->n_puts; i++)
		if (touches(rules, &edit->puts[i].prefix))
			return true;
	for (size_t i = 0; i < edit->n_removes; i++)
		if (touches(rules, &edit->removes[i]))
			return true;
	return false;
}

static int edit_rules(const struct rules *rules, const struct edit *edit, struct policy *policy)
{
	struct ruleset *runtime = rules_runtime(policy, edit->table);
	int r = 0;

	for (size_t i = 0; !r && i < edit->n_puts; i++) {
		r = ruleset_put(runtime, &edit->puts[i]);
		if (!r && edit->force && edit->table == TABLE_BLOCK)
			r = guard_force(policy, &rules->locals, &edit->puts[i].prefix, 1);
	}
	for (size_t i = 0; !r && i < edit->n_removes; i++) {
		r = ruleset_remove(runtime, &edit->removes[i]);
		if (!r && edit->table == TABLE_BLOCK)
			r = ruleset_remove(policy->forced, &edit->removes[i]);
	}
	return r;
}

int rules_guard_edit(const struct rules *rules, const struct edit *edit, struct policy **ret)
{
	_cleanup_(policy_freep) struct policy *next = NULL;
	struct ruleset *spared;
	int r;

	if (!is_touched(rules, edit))
		return 0;
	r = policy_clone(rules->policy, &next);
	if (!r)
		r = edit_rules(rules, edit, next);
	if (r < 0)
		return r;
	spared = next->allow[ALLOW_SYSTEM];
	for (size_t i = 0; !r && i < edit->n_puts; i++)
		r = guard_spare_within(next, &rules->locals, &edit->puts[i].prefix, spared);
	for (size_t i = 0; !r && i < edit->n_removes; i++)
		r = guard_spare_within(next, &rules->locals, &edit->removes[i], spared);
	if (!r)
		*ret = take_pointer(&next);
	return r;
}

/* What packets see of a prefix before and after. */
static int compare_sets(const struct policy_sets *before, const struct policy_sets *after,
			enum prefix_table table, const struct prefix *prefix,
			struct prefix_change_list *ret)
{
	struct effective old = {0}, new = {0};
	bool was = policy_effective(before, prefix, &old),
	     is = policy_effective(after, prefix, &new);
	const struct prefix_item item = {
		.prefix = *prefix, .table = table, .expires_ns = new.expires_ns};

	if (was == is && old.expires_ns == new.expires_ns)
		return 0;
	return prefix_change_add(ret,
				 !was  ? PREFIX_INSERT
				 : !is ? PREFIX_REMOVE
				       : PREFIX_RETIME,
				 &item);
}

/* Those that only one of the two sets has. */
static size_t list_differences(const struct ruleset *a, const struct ruleset *b,
			       struct prefix *prefixes)
{
	const struct ruleset *const sets[] = {a, b};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		struct ruleset_cursor cursor = ruleset_seek(sets[i], NULL);

		for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
			if (!ruleset_find(sets[!i], &rule->prefix))
				prefixes[n++] = rule->prefix;
	}
	return n;
}

static int compare_all(const struct policy *before, const struct policy *after,
		       enum prefix_table table, const struct prefix *prefixes, size_t n,
		       struct prefix_change_list *ret)
{
	struct policy_sets old = policy_sets_of(before, table), new = policy_sets_of(after, table);
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		r = compare_sets(&old, &new, table, &prefixes[i], ret);
	return r;
}

static int check_room(const struct rules *rules, const struct edit *edit, const struct policy *next,
		      const struct prefix_change_list *list, struct error *err)
{
	size_t n = prefix_map_size(rules_map(rules), edit->table), inserts = 0;

	for (size_t i = 0; i < list->n; i++) {
		if (list->items[i].item.table != edit->table)
			continue;
		inserts += list->items[i].kind == PREFIX_INSERT;
		n += list->items[i].kind == PREFIX_INSERT;
		n -= list->items[i].kind == PREFIX_REMOVE;
	}
	/* There may be more than the limit already, after a restart with a lower one. */
	return edit->n_puts && inserts ? rules_check_limit(next, edit->table, n, err) : 0;
}

int rules_guard_changes(const struct rules *rules, const struct edit *edit,
			const struct policy *next, struct prefix_change_list *ret,
			struct error *err)
{
	const struct ruleset *old = rules->policy->allow[ALLOW_SYSTEM];
	const struct ruleset *new = next->allow[ALLOW_SYSTEM];
	_cleanup_free_ struct prefix *prefixes =
		calloc(edit->n_puts + edit->n_removes + ruleset_size(old) + ruleset_size(new) + 1,
		       sizeof(*prefixes));
	size_t n = 0;
	int r = 0;

	if (!prefixes)
		return error_no_memory(err);
	for (size_t i = 0; i < edit->n_puts; i++)
		prefixes[n++] = edit->puts[i].prefix;
	for (size_t i = 0; i < edit->n_removes; i++)
		prefixes[n++] = edit->removes[i];
	if (edit->table == TABLE_BLOCK) {
		r = compare_all(rules->policy, next, TABLE_BLOCK, prefixes, n, ret);
		n = 0;
	}
	n += list_differences(old, new, prefixes + n);
	n = prefix_sort_unique(prefixes, n);
	if (!r)
		r = compare_all(rules->policy, next, TABLE_ALLOW, prefixes, n, ret);
	return r < 0 ? error_no_memory(err) : check_room(rules, edit, next, ret, err);
}

static void note_missing(struct rules *rules, const struct ruleset *a, const struct ruleset *b)
{
	struct ruleset_cursor cursor = ruleset_seek(a, NULL);

	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		if (!ruleset_find(b, &rule->prefix))
			change_note(rules, TABLE_ALLOW, &rule->prefix);
}

/* A large change on its way does not know of what is spared, or not any more. */
static void note_differences(struct rules *rules, const struct ruleset *a, const struct ruleset *b)
{
	note_missing(rules, a, b);
	note_missing(rules, b, a);
}

static void swap(struct ruleset **a, struct ruleset **b)
{
	struct ruleset *old = *a;

	*a = *b;
	*b = old;
}

void rules_guard_adopt(struct rules *rules, struct policy *next)
{
	struct ruleset **now = &rules->policy->allow[ALLOW_SYSTEM];
	struct ruleset **later = &next->allow[ALLOW_SYSTEM];

	guard_log_spared(*now, *later);
	note_differences(rules, *now, *later);
	swap(now, later);
	swap(&rules->policy->forced, &next->forced);
}

/* ---- large changes ---- */

int rules_guard_catch_up(struct rules *rules, struct policy *after, const struct local_list *before,
			 const struct prefix *changed, size_t n)
{
	_cleanup_(ruleset_freep) struct ruleset *old = ruleset_clone(after->allow[ALLOW_SYSTEM]);
	struct ruleset *spared = after->allow[ALLOW_SYSTEM];
	int r;

	if (!old)
		return -ENOMEM;
	r = guard_spare_changed(after, before, &rules->locals, spared);
	for (size_t i = 0; !r && i < n; i++)
		r = guard_spare_within(after, &rules->locals, &changed[i], spared);
	if (r < 0)
		return r;
	note_differences(rules, old, spared);
	return 0;
}

/* ---- addresses and gateways that come and go ---- */

static int follow(struct rules *rules, const struct local_list *old, struct error *err)
{
	const struct edit none = {.table = TABLE_ALLOW};
	_cleanup_(policy_freep) struct policy *next = NULL;
	struct prefix_change_list list = {0};
	struct datapath_change change = {.flags = datapath_flags(rules->dp)};
	int r;

	if (policy_clone(rules->policy, &next) < 0 ||
	    guard_spare_changed(next, old, &rules->locals, next->allow[ALLOW_SYSTEM]) < 0)
		return error_no_memory(err);
	r = rules_guard_changes(rules, &none, next, &list, err);
	change.prefixes = list.items;
	change.n_prefixes = list.n;
	if (!r && list.n) {
		r = datapath_stage(rules->dp, &change, err);
		if (!r)
			datapath_commit(rules->dp);
	}
	free(list.items);
	if (!r)
		rules_guard_adopt(rules, next);
	return r;
}

int rules_set_locals(struct rules *rules, struct local_list *locals, struct error *err)
{
	/* It spares what there is to spare, and finds room. */
	struct rules_request request = {.kind = RULES_RESIZE, .list_fd = -1};
	struct local_list old = rules->locals;
	int r;

	rules->locals = *locals;
	*locals = (struct local_list){0};
	r = follow(rules, &old, err);
	free(old.items);
	if (r < 0 && !change_start(rules, &request, &(struct rules_later){0}))
		r = 0;
	return r;
}
