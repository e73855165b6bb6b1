// SPDX-License-Identifier: GPL-2.0-or-later
/* What small changes did while a large one was made (L3, L4 in rules_change.c). */
#include "rules_change.h"

#include <errno.h>
#include <stdlib.h>

/* L3: so much is left to the event loop, which takes a few milliseconds for it. */
#define CATCH_UP_AT_ONCE 512

/* ---- notes ---- */

static int note(struct noted_list *list, const struct noted *noted)
{
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 64;
		struct noted *more = reallocarray(list->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		list->items = more;
		list->room = room;
	}
	list->items[list->n++] = *noted;
	return 0;
}

void change_note(struct rules *rules, enum prefix_table table, const struct prefix *prefix)
{
	struct change *change = rules->changes;

	if (change && note(&change->noted, &(struct noted){*prefix, (u8)table}) < 0)
		change->lost_note = true;
}

static int compare_noted(const void *a, const void *b)
{
	const struct noted *x = a, *y = b;

	if (x->table != y->table)
		return x->table < y->table ? -1 : 1;
	return prefix_compare(&x->prefix, &y->prefix);
}

/* In order, each once. */
static void sort_noted(struct noted_list *list)
{
	size_t kept = 0;

	if (list->n)
		qsort(list->items, list->n, sizeof(*list->items), compare_noted);
	for (size_t i = 0; i < list->n; i++)
		if (!kept || compare_noted(&list->items[kept - 1], &list->items[i]) != 0)
			list->items[kept++] = list->items[i];
	list->n = kept;
}

static bool has_noted(const struct noted_list *list, enum prefix_table table,
		      const struct prefix *prefix)
{
	const struct noted key = {*prefix, (u8)table};

	return list->n && bsearch(&key, list->items, list->n, sizeof(key), compare_noted);
}

void change_sort_noted(struct change *change)
{
	sort_noted(&change->noted);
}

bool change_is_noted(const struct change *change, enum prefix_table table,
		     const struct prefix *prefix)
{
	return has_noted(&change->noted, table, prefix);
}

/* The change itself says what the runtime rule of a prefix is to be: it comes later (L4). */
static bool decides(const struct rules_request *request, const struct noted *noted)
{
	switch (request->kind) {
	case RULES_ADD:
	case RULES_REMOVE:
		return noted->table == request->table &&
		       prefix_search(request->prefixes, request->n, &noted->prefix);
	case RULES_FLUSH:
		return noted->table == TABLE_BLOCK;
	default:
		return false;
	}
}

/* It has made a rule that a change of new rules only, which comes behind it (L4), is to leave. */
static bool overtakes(const struct change *change, const struct policy *now,
		      const struct noted *noted)
{
	enum prefix_table table = (enum prefix_table)noted->table;

	return change->request.only_new && decides(&change->request, noted) &&
	       ruleset_find(rules_runtime(now, table), &noted->prefix);
}

static int copy_rule(const struct policy *from, struct policy *to, const struct noted *noted)
{
	enum prefix_table table = (enum prefix_table)noted->table;
	const struct rule *rule = ruleset_find(rules_runtime(from, table), &noted->prefix);

	return rule ? ruleset_put(rules_runtime(to, table), rule)
		    : ruleset_remove(rules_runtime(to, table), &noted->prefix);
}

static int copy_forced(const struct policy *from, struct policy *to, const struct noted *noted)
{
	const struct rule *forced = ruleset_find(from->forced, &noted->prefix);

	return forced ? ruleset_put(to->forced, forced)
		      : ruleset_remove(to->forced, &noted->prefix);
}

/* What RULES_ADD decides is as old as the small change left it (L4), or as new as this one. */
static int take_age(struct change *change, const struct policy *now, const struct noted *noted)
{
	enum prefix_table table = (enum prefix_table)noted->table;
	struct ruleset *after = rules_runtime(change->after, table);
	const struct rule *there = ruleset_find(rules_runtime(now, table), &noted->prefix);
	struct rule rule = *ruleset_find(after, &noted->prefix);

	rule.created_s = there ? there->created_s : change->created_s;
	return ruleset_put(after, &rule);
}

static int copy_noted(struct change *change, const struct policy *now, const struct noted *noted)
{
	const struct rules_request *request = &change->request;
	bool decided = decides(request, noted), adds = decided && request->kind == RULES_ADD;
	int r = 0;

	if (!decided)
		r = copy_rule(now, change->after, noted);
	else if (adds)
		r = take_age(change, now, noted);
	if (r || noted->table != TABLE_BLOCK || (decided && !adds))
		return r;
	/* Who adds again what was forced does not take that back; who forces it does so anew. */
	if (adds && request->force && !ruleset_find(now->forced, &noted->prefix))
		return 0;
	return copy_forced(now, change->after, noted);
}

/* What they are to be. */
static int copy_all_noted(struct change *change, const struct policy *now,
			  const struct noted_list *list)
{
	int r = 0;

	for (size_t i = 0; !r && i < list->n; i++)
		r = copy_noted(change, now, &list->items[i]);
	return r;
}

/* What is spared then is noted with the rest. */
static int catch_up_guard(struct change *change)
{
	size_t n = 0;
	_cleanup_free_ struct prefix *prefixes =
		calloc(change->guarded.n + change->noted.n + 1, sizeof(*prefixes));
	int r;

	if (!prefixes)
		return -ENOMEM;
	for (size_t i = 0; i < change->guarded.n; i++)
		prefixes[n++] = change->guarded.items[i].prefix;
	for (size_t i = 0; i < change->noted.n; i++)
		prefixes[n++] = change->noted.items[i].prefix;
	r = rules_guard_catch_up(change->rules, change->after, &change->locals, prefixes, n);
	return !r && change->lost_note ? -ENOMEM : r;
}

/* What the difference says of noted prefixes is out of date. */
static void drop_noted(struct change *change)
{
	struct prefix_change_list *list = &change->list;
	size_t kept = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct prefix_item *item = &list->items[i].item;

		if (!has_noted(&change->noted, (enum prefix_table)item->table, &item->prefix))
			list->items[kept++] = list->items[i];
	}
	list->n = kept;
}

/* What the difference leads from. */
static const struct prefix_map *target_map(const struct change *change)
{
	return change->prefixes ? change->prefixes : datapath_prefixes(change->rules->dp);
}

/* check_limits() knew of the snapshot alone. */
static int check_room(const struct change *change, enum prefix_table table, struct error *err)
{
	size_t n = prefix_map_size(target_map(change), table);
	bool grew;

	if (change->request.kind == RULES_RESTORE)
		return 0;
	for (size_t i = 0; i < change->list.n; i++) {
		const struct prefix_change *one = &change->list.items[i];

		if (one->item.table != table)
			continue;
		n += one->kind == PREFIX_INSERT;
		n -= one->kind == PREFIX_REMOVE;
	}
	grew = n > prefix_map_size(datapath_prefixes(change->rules->dp), table);
	if (!grew && change->request.kind != RULES_RELOAD)
		return 0;
	return rules_check_limit(change->after, table, n, err);
}

/* Adds what leads the map to what they are to be. */
static int compare_noted_with_map(struct change *change, const struct policy *now,
				  const struct noted_list *list, struct error *err)
{
	const struct prefix_map *target = target_map(change);

	for (size_t i = 0; i < list->n; i++) {
		const struct noted *noted = &list->items[i];
		struct policy_sets sets;
		struct prefix_item item = {.prefix = noted->prefix, .table = noted->table};
		struct effective effective = {0};
		bool wanted;

		if (overtakes(change, now, noted)) {
			change->overtaken = true;
			return -EAGAIN;
		}
		sets = policy_sets_of(change->after, (enum prefix_table)noted->table);
		wanted = policy_effective(&sets, &noted->prefix, &effective);
		item.expires_ns = effective.expires_ns;
		if (prefix_map_diff_one(target, &item, wanted, &change->list) < 0)
			return error_no_memory(err);
	}
	return 0;
}

int change_catch_up(struct change *change, struct error *err)
{
	const struct policy *now = change->rules->policy;
	int r;

	if (copy_all_noted(change, now, &change->noted) < 0 || catch_up_guard(change) < 0)
		return error_no_memory(err);
	if (!change->noted.n && !change->round.n)
		return 0;
	sort_noted(&change->noted);
	drop_noted(change);
	r = compare_noted_with_map(change, now, &change->noted, err);
	if (r < 0)
		return r;
	r = check_room(change, TABLE_BLOCK, err);
	return r ? r : check_room(change, TABLE_ALLOW, err);
}

/* ---- rounds of the worker (L3) ---- */

/* Where a round was hardly faster than the small changes, another one is of no use. */
static bool is_far_behind(const struct change *change)
{
	size_t n = change->noted.n, last = change->round.n;

	return !change->end.r && change->prefixes && !change->lost_note &&
	       change->request.kind != RULES_RELEASE && n > CATCH_UP_AT_ONCE &&
	       (!last || n < last - last / 4);
}

/* What the guard has to do with. What has become so since is found by the event loop. */
static int note_guarded(struct change *change)
{
	const struct noted_list *round = &change->round;
	size_t first;
	int r = 0;

	for (size_t i = 0; !r && i < round->n; i++)
		if (local_list_within(&change->locals, &round->items[i].prefix, &first))
			r = note(&change->guarded, &round->items[i]);
	return r;
}

/* In the thread. What is spared is left to the event loop. */
static void make_round(void *data)
{
	struct change *change = data;
	struct noted_list *round = &change->round;
	struct rules_end *end = &change->end;

	sort_noted(round);
	if (copy_all_noted(change, change->now, round) < 0)
		end->r = error_no_memory(&end->err);
	if (!end->r)
		end->r = compare_noted_with_map(change, change->now, round, &end->err);
	if (!end->r)
		end->r = prefix_map_rework(change->prefixes, change->list.items, change->list.n,
					   &end->err);
	change->list.n = 0;
	if (!end->r && note_guarded(change) < 0)
		end->r = error_no_memory(&end->err);
	policy_free(take_pointer(&change->now));
}

static void swap_lists(struct noted_list *a, struct noted_list *b)
{
	struct noted_list old = *a;

	*a = *b;
	*b = old;
}

/* 0 or -ENOMEM. */
static int start_round(struct change *change)
{
	struct rules *rules = change->rules;
	int r = policy_clone(rules->policy, &change->now);

	if (r < 0)
		return r;
	change->round.n = 0;
	swap_lists(&change->noted, &change->round);
	r = worker_run(rules->worker, make_round, change_finish, change);
	if (r < 0) {
		swap_lists(&change->noted, &change->round);
		policy_free(take_pointer(&change->now));
	}
	return r;
}

/* Where there is no memory for it, the event loop does it all. */
bool change_start_round(struct change *change)
{
	return is_far_behind(change) && !start_round(change);
}
