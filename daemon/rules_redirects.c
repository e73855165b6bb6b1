// SPDX-License-Identifier: GPL-2.0-or-later
/* Changes of redirects at run time (rules.h). */
#include "rules_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

static int store_once(struct store *store, const struct redirect *put,
		      const struct redirect *removed, struct error *err)
{
	int r = put ? store_begin(store, err) : store_begin_removal(store, err);

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

/* As rules_store_edit() over a full disk. */
static int store_redirect_edit(struct store *store, const struct redirect *put,
			       const struct redirect *removed, struct error *err)
{
	int r = store_once(store, put, removed, err);

	if (r == -EDQUOT && !put && !store_make_room(store))
		r = store_once(store, put, removed, err);
	return r;
}

/* From staging on; `list` is what is wanted already. */
static int enforce_redirects(struct rules *rules, const struct redirect *list, size_t n,
			     const struct redirect *put, const struct redirect *removed,
			     struct error *err)
{
	const struct datapath_change change = {
		.flags = rules->policy->flags,
		.redirects_too = true,
		.redirects = list,
		.n_redirects = n,
	};
	int r = interfaces_stage(rules->ifs, &change, err);

	if (r < 0)
		return r;
	r = store_redirect_edit(rules->store, put, removed, err);
	if (r < 0) {
		datapath_abort(rules->dp);
		return r;
	}
	interfaces_set_targets(rules->ifs);
	rules_take_effect(rules);
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
	rules_want(rules, rules->config, policy->flags, list, n);
	r = interfaces_prepare(rules->ifs, err);
	if (!r)
		r = enforce_redirects(rules, list, n, put, removed, err);
	if (r < 0) {
		rules_want(rules, rules->config, policy->flags, old, policy->n_redirects);
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
