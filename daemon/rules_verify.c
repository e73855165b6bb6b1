// SPDX-License-Identifier: GPL-2.0-or-later
#include "rules_verify.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The clocks by which ends are stored are read one after the other. */
#define SAME_END_NS NS_PER_S

/* A file of the store may be folded away between two looks of its reader. */
#define STORE_TRIES 3

/* What the worker found. */
struct look {
	struct prefix_finding_list entries, stored;
	struct strays strays;
	struct redirect_tables tables;
	bool store_failed;
	struct error store_err;
	size_t n_items;
};

struct verification {
	struct rules *rules;
	bool repair, mended;
	struct datapath_owner owner;
	struct look look, earlier;
	bool looked_earlier;			/* `earlier` counts (F2) */
	size_t n_first;				/* differences before they were mended */
	struct error reasons[DIFFERENCE_KINDS]; /* why mending failed; empty: it did not */
	struct rules_verified result;
};

static void look_clear(struct look *look)
{
	free(look->entries.items);
	free(look->stored.items);
	free(look->strays.items);
	*look = (struct look){0};
}

struct verification *verification_new(struct rules *rules, bool repair)
{
	struct verification *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->rules = rules;
	v->repair = repair;
	v->owner = *interfaces_owner(rules->ifs);
	return v;
}

void verification_free(struct verification *v)
{
	if (!v)
		return;
	look_clear(&v->look);
	look_clear(&v->earlier);
	differences_clear(&v->result.differences);
	free(v);
}

const struct rules_verified *verification_result(const struct verification *v)
{
	return &v->result;
}

/* ---- the worker ---- */

static int look_at_entries(struct verification *v, const struct policy *policy, struct error *err)
{
	const struct datapath *dp = v->rules->dp;
	_cleanup_free_ struct prefix_item *items = NULL;
	u32 roots[FWD_TRIES];
	size_t n_block;
	int r = policy_items(policy, &items, &v->look.n_items, &n_block, err);

	if (r < 0)
		return r;
	datapath_read_roots(dp, roots);
	return prefix_map_verify(datapath_prefixes(dp), roots, items, v->look.n_items,
				 &v->look.entries, err);
}

static bool has_ended(const struct rule *rule, u64 now_ns)
{
	return rule && rule->expires_ns && rule->expires_ns <= now_ns;
}

static bool same_end(const struct rule *a, const struct rule *b)
{
	u64 apart_ns = a->expires_ns > b->expires_ns ? a->expires_ns - b->expires_ns
						     : b->expires_ns - a->expires_ns;

	return !a->expires_ns == !b->expires_ns && apart_ns < SAME_END_NS;
}

/* Those that have ended count as not there, on both sides. */
static int compare_stored(const struct ruleset *stored, const struct ruleset *wanted,
			  enum prefix_table table, struct prefix_finding_list *ret)
{
	struct ruleset_cursor a = ruleset_seek(stored, NULL), b = ruleset_seek(wanted, NULL);
	u64 now_ns = boot_ns();
	int r = 0;

	while (!r && (ruleset_at(&a) || ruleset_at(&b))) {
		const struct rule *x = ruleset_at(&a), *y = ruleset_at(&b);
		int order = !x ? 1 : !y ? -1 : prefix_compare(&x->prefix, &y->prefix);
		struct prefix_finding finding = {
			.prefix = order < 0 ? x->prefix : y->prefix,
			.table = (u8)table,
			.fault = order < 0   ? TRIE_UNWANTED
				 : order > 0 ? TRIE_MISSING
					     : TRIE_OTHER_END,
		};

		if (!has_ended(order < 0 ? x : y, now_ns) && (order || !same_end(x, y)))
			r = prefix_finding_add(ret, &finding);
		if (order <= 0)
			ruleset_next(&a);
		if (order >= 0)
			ruleset_next(&b);
	}
	return r;
}

static int look_at_store_once(struct verification *v, const struct policy *policy,
			      struct error *err)
{
	_cleanup_(store_closep) struct store *reader = NULL;
	int r = store_open_reader(v->rules->store, &reader, err);

	v->look.stored.n = 0;
	for (enum prefix_table table = 0; !r && table < TABLE_COUNT; table++) {
		_cleanup_(ruleset_freep) struct ruleset *stored = NULL;

		r = store_load(reader, (enum store_table)table, &stored, err);
		if (!r && compare_stored(stored, rules_runtime(policy, table), table,
					 &v->look.stored) < 0)
			r = error_no_memory(err);
	}
	return r;
}

static int look_at_store(struct verification *v, const struct policy *policy, struct error *err)
{
	int r = -EIO;

	for (unsigned i = 0; r < 0 && r != -ENOMEM && i < STORE_TRIES; i++)
		r = look_at_store_once(v, policy, &v->look.store_err);
	v->look.store_failed = r < 0;
	return r == -ENOMEM ? error_no_memory(err) : 0;
}

int verification_look(struct verification *v, const struct policy *policy, struct error *err)
{
	struct datapath *dp = v->rules->dp;
	int r;

	look_clear(&v->look);
	redirect_map_find_tables(datapath_redirects(dp), datapath_table_set(dp),
				 datapath_interfaces(dp), &v->look.tables);
	r = look_at_entries(v, policy, err);
	if (!r)
		r = look_at_store(v, policy, err);
	return r ? r : strays_find(&v->owner, &v->look.strays, err);
}

/* ---- what counts of it (F2) ---- */

struct notes {
	bool (*is_noted)(const void *data, enum prefix_table table, const struct prefix *prefix);
	const void *data;
};

/* Keeps those that were not noted, and with `earlier` those that are in it, too. */
static void keep(struct prefix_finding_list *list, const struct notes *notes,
		 const struct prefix_finding_list *earlier)
{
	size_t kept = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct prefix_finding *finding = &list->items[i];

		if (notes->is_noted(notes->data, (enum prefix_table)finding->table,
				    &finding->prefix) ||
		    (earlier &&
		     (!earlier->n || !bsearch(finding, earlier->items, earlier->n, sizeof(*finding),
					      prefix_finding_compare))))
			continue;
		list->items[kept++] = *finding;
	}
	list->n = kept;
}

/* True: it has to be looked at once more. */
static bool is_doubtful(struct verification *v, bool any_notes, const struct notes *notes)
{
	struct look *look = &v->look;
	bool again = any_notes && v->looked_earlier;

	keep(&look->entries, notes, again ? &v->earlier.entries : NULL);
	keep(&look->stored, notes, again ? &v->earlier.stored : NULL);
	if (v->looked_earlier || !any_notes || (!look->entries.n && !look->stored.n)) {
		look_clear(&v->earlier);
		v->looked_earlier = false;
		return false;
	}
	v->earlier = *look;
	*look = (struct look){0};
	v->looked_earlier = true;
	return true;
}

/* ---- in words ---- */

static const char *const entry_texts[][TABLE_COUNT] = {
	[TRIE_MISSING] = {"blocked by the rules, not in the kernel's maps",
			  "on the allowlist by the rules, not in the kernel's maps"},
	[TRIE_UNWANTED] = {"blocked in the kernel's maps, and no rule says so",
			   "on the allowlist in the kernel's maps, and no rule says so"},
	[TRIE_OTHER_END] = {"blocked in the kernel's maps to another end than by the rules",
			    "on the allowlist in the kernel's maps to another end than by the "
			    "rules"},
	[TRIE_GARBLED] = {"the kernel's maps are damaged there: blocking is not as the rules say",
			  "the kernel's maps are damaged there: the allowlist is not as the rules "
			  "say"},
};

static const char *const stored_texts[][TABLE_COUNT] = {
	[TRIE_MISSING] = {"blocked, not in the durable store: a restart would forget it",
			  "on the allowlist, not in the durable store: a restart would forget it"},
	[TRIE_UNWANTED] = {"in the durable store, not blocked: a restart would block it",
			   "in the durable store, not on the allowlist: a restart would put it "
			   "there"},
	[TRIE_OTHER_END] = {"blocked, to another end in the durable store",
			    "on the allowlist, to another end in the durable store"},
};

static void tell_findings(const struct prefix_finding_list *list, enum difference_kind kind,
			  const char *const texts[][TABLE_COUNT], struct differences *ret)
{
	char text[PREFIX_TEXT_MAX] = "";

	for (size_t i = 0; i < list->n; i++) {
		const struct prefix_finding *finding = &list->items[i];

		/* Those behind them are only counted. */
		if (ret->n_items < DIFFERENCES_MAX)
			prefix_format(&finding->prefix, text);
		differences_add(ret, kind, text, "%s: %s", text,
				texts[finding->fault][finding->table]);
	}
}

/* ---- redirects in the store ---- */

struct runtime_redirects {
	const struct redirect *items;
	size_t n;
};

static struct runtime_redirects wanted_redirects(const struct policy *policy)
{
	return (struct runtime_redirects){
		.items = policy->redirects + policy->n_config_redirects,
		.n = policy->n_redirects - policy->n_config_redirects,
	};
}

static bool has_redirect(const struct runtime_redirects *list, const struct redirect *redirect)
{
	for (size_t i = 0; i < list->n; i++)
		if (redirect_same_match(&list->items[i], redirect) &&
		    list->items[i].mode == redirect->mode &&
		    !strcmp(list->items[i].target, redirect->target))
			return true;
	return false;
}

/* Has `visit` see each redirect of `a` that is not in `b`; stops at the first error. */
static int for_each_only(const struct runtime_redirects *a, const struct runtime_redirects *b,
			 int (*visit)(void *data, const struct redirect *redirect,
				      struct error *err),
			 void *data, struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < a->n; i++)
		if (!has_redirect(b, &a->items[i]))
			r = visit(data, &a->items[i], err);
	return r;
}

static int tell_redirect(struct differences *differences, const struct redirect *redirect,
			 const char *what)
{
	char ports[REDIRECT_PORTS_TEXT_MAX];

	redirect_ports_format(redirect, ports);
	differences_add(differences, DIFFERENCE_STORE, ports, "%s %s to %s: %s", ports,
			direction_names[redirect->direction], redirect->target, what);
	return 0;
}

static int tell_missing(void *data, const struct redirect *redirect, struct error *err)
{
	return tell_redirect(data, redirect,
			     "redirected, not in the durable store: a restart would forget it");
}

static int tell_unwanted(void *data, const struct redirect *redirect, struct error *err)
{
	return tell_redirect(data, redirect,
			     "in the durable store, not redirected: a restart would redirect it");
}

static int put_redirect(void *data, const struct redirect *redirect, struct error *err)
{
	return store_put_redirect(data, redirect, err);
}

static int remove_redirect(void *data, const struct redirect *redirect, struct error *err)
{
	return store_remove_redirect(data, redirect, err);
}

static void verify_stored_redirects(const struct rules *rules, struct differences *ret)
{
	const struct runtime_redirects wanted = wanted_redirects(rules->policy);
	struct runtime_redirects stored = {0};
	struct redirect *items = NULL;
	struct error err;

	if (store_load_redirects(rules->store, &items, &stored.n, &err) < 0) {
		differences_add(ret, DIFFERENCE_STORE, rules->config->daemon.state_dir, "%s",
				err.text);
		return;
	}
	stored.items = items;
	for_each_only(&wanted, &stored, tell_missing, ret, NULL);
	for_each_only(&stored, &wanted, tell_unwanted, ret, NULL);
	free(items);
}

/* What is stored otherwise goes first: it may be of the same ports. */
static int mend_stored_redirects(struct rules *rules, struct error *err)
{
	const struct runtime_redirects wanted = wanted_redirects(rules->policy);
	struct runtime_redirects stored = {0};
	struct redirect *items = NULL;
	int r = store_load_redirects(rules->store, &items, &stored.n, err);

	if (r < 0)
		return r;
	stored.items = items;
	r = store_begin(rules->store, err);
	if (!r)
		r = for_each_only(&stored, &wanted, remove_redirect, rules->store, err);
	if (!r)
		r = for_each_only(&wanted, &stored, put_redirect, rules->store, err);
	if (!r)
		r = store_commit(rules->store, err);
	if (r < 0)
		store_rollback(rules->store);
	free(items);
	return r;
}

/* ---- the event loop: the rest ---- */

static int gather(struct verification *v, struct error *err)
{
	struct rules *rules = v->rules;
	struct rules_verified *result = &v->result;
	struct differences *differences = &result->differences;
	int r;

	differences_clear(differences);
	datapath_verify(rules->dp, rules->policy->flags, differences);
	tell_findings(&v->look.entries, DIFFERENCE_ENTRY, entry_texts, differences);
	r = interfaces_verify(rules->ifs, &v->look.tables, differences, &result->n_interfaces, err);
	if (r < 0)
		return r;
	interfaces_verify_strays(rules->ifs, &v->look.strays, differences);
	tell_findings(&v->look.stored, DIFFERENCE_STORE, stored_texts, differences);
	if (v->look.store_failed)
		differences_add(differences, DIFFERENCE_STORE, rules->config->daemon.state_dir,
				"%s", v->look.store_err.text);
	verify_stored_redirects(rules, differences);
	result->n_entries = v->look.n_items;
	result->n_redirects = rules->policy->n_redirects;
	return 0;
}

/* ---- mending ---- */

/* The rules of a table that are stored otherwise, or whose prefixes are stored and should not be.
 */
static int mend_stored_table(struct rules *rules, enum prefix_table table,
			     const struct prefix_finding_list *list, struct error *err)
{
	const struct ruleset *runtime = rules_runtime(rules->policy, table);
	_cleanup_free_ struct rule *puts = calloc(RULES_SMALL, sizeof(*puts));
	_cleanup_free_ struct prefix *removes = calloc(RULES_SMALL, sizeof(*removes));
	struct edit edit = {.table = table, .puts = puts, .removes = removes};

	if (!puts || !removes)
		return error_no_memory(err);
	for (size_t i = 0; i < list->n && edit.n_puts + edit.n_removes < RULES_SMALL; i++) {
		const struct rule *rule = ruleset_find(runtime, &list->items[i].prefix);

		if (list->items[i].table != table)
			continue;
		if (rule)
			puts[edit.n_puts++] = *rule;
		else
			removes[edit.n_removes++] = list->items[i].prefix;
	}
	return edit.n_puts + edit.n_removes ? rules_store_edit(rules->store, &edit, NULL, err) : 0;
}

static int mend_store(struct verification *v, struct error *err)
{
	int r = 0;

	for (enum prefix_table table = 0; !r && table < TABLE_COUNT; table++)
		r = mend_stored_table(v->rules, table, &v->look.stored, err);
	return r ? r : mend_stored_redirects(v->rules, err);
}

static int mend_interfaces(struct verification *v, struct error *err)
{
	struct rules *rules = v->rules;
	struct differences strays = {0};
	int r = interfaces_mend(rules->ifs, err);

	interfaces_verify_strays(rules->ifs, &v->look.strays, &strays);
	if (strays.n)
		interfaces_detach_strays(rules->ifs);
	differences_clear(&strays);
	return r;
}

static void set_reason(struct verification *v, enum difference_kind kind, int r,
		       const struct error *err)
{
	if (r < 0)
		v->reasons[kind] = *err;
}

/* What can be mended at once; the entries take a new bank. */
static enum verification_step mend(struct verification *v)
{
	const size_t *n = v->result.differences.by_kind;
	struct error err;
	int r;

	if (n[DIFFERENCE_VIEW] || n[DIFFERENCE_PIN]) {
		r = datapath_mend(v->rules->dp, &err);
		set_reason(v, DIFFERENCE_VIEW, r, &err);
		set_reason(v, DIFFERENCE_PIN, r, &err);
	}
	if (n[DIFFERENCE_REDIRECT] || n[DIFFERENCE_INTERFACE] || n[DIFFERENCE_PROGRAM] ||
	    n[DIFFERENCE_FILTER]) {
		r = mend_interfaces(v, &err);
		for (enum difference_kind kind = DIFFERENCE_REDIRECT; kind <= DIFFERENCE_FILTER;
		     kind++)
			set_reason(v, kind, r, &err);
	}
	if (n[DIFFERENCE_STORE])
		set_reason(v, DIFFERENCE_STORE, mend_store(v, &err), &err);
	return n[DIFFERENCE_VIEW] || n[DIFFERENCE_ENTRY] ? VERIFICATION_BUILD : VERIFICATION_LOOK;
}

void verification_built(struct verification *v, int r, const struct error *err)
{
	set_reason(v, DIFFERENCE_VIEW, r, err);
	set_reason(v, DIFFERENCE_ENTRY, r, err);
}

/* What is left says why; the first of each kind will do. */
static void conclude(struct verification *v)
{
	struct differences *left = &v->result.differences;

	for (size_t i = 0; i < left->n_items; i++) {
		struct difference *item = &left->items[i];
		char *reason = v->reasons[item->kind].text, *text;

		if (!*reason || asprintf(&text, "%s (mending failed: %s)", item->text, reason) < 0)
			continue;
		free(item->text);
		item->text = text;
		*reason = '\0';
	}
	v->result.n_repaired = v->n_first > left->n ? v->n_first - left->n : 0;
	if (v->mended)
		log_notice("verify: differences: %zu found, %zu mended", v->n_first,
			   v->result.n_repaired);
}

int verification_judge(struct verification *v, bool any_notes,
		       bool (*is_noted)(const void *data, enum prefix_table table,
					const struct prefix *prefix),
		       const void *data, enum verification_step *ret_step, struct error *err)
{
	const struct notes notes = {is_noted, data};
	int r;

	if (is_doubtful(v, any_notes, &notes)) {
		*ret_step = VERIFICATION_LOOK;
		return 0;
	}
	r = gather(v, err);
	if (r < 0)
		return r;
	if (!v->repair || v->mended || !v->result.differences.n) {
		conclude(v);
		*ret_step = VERIFICATION_DONE;
		return 0;
	}
	v->mended = true;
	v->n_first = v->result.differences.n;
	*ret_step = mend(v);
	return 0;
}
