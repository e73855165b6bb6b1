// SPDX-License-Identifier: GPL-2.0-or-later
#include "guard.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <string.h>

#define FORCE_HINT "use --force if it is meant"

/* Room for "the default gateway on IFACE" and "an address of this host (IFACE)". */
#define LOCAL_TEXT_MAX 64

static void describe_local(const struct local *local, char text[static LOCAL_TEXT_MAX])
{
	switch ((enum local_kind)local->kind) {
	case LOCAL_GATEWAY:
		snprintf(text, LOCAL_TEXT_MAX, "the default gateway on %s", local->interface);
		return;
	case LOCAL_ADDRESS:
		snprintf(text, LOCAL_TEXT_MAX, "an address of this host (%s)", local->interface);
		return;
	}
}

/* ---- what is allowed ---- */

/* By people: what the daemon spares is not theirs. Without `removed`, which is in order. */
static bool is_allowed(const struct policy *policy, const struct prefix *address,
		       const struct prefix *removed, size_t n_removed)
{
	for (int len = address->len; len >= 0; len--) {
		struct prefix prefix = *address;

		prefix_truncate(&prefix, (u8)len);
		if (ruleset_find(policy->allow[ORIGIN_CONFIG], &prefix))
			return true;
		if (ruleset_find(policy->allow[ORIGIN_RUNTIME], &prefix) &&
		    !prefix_search(removed, n_removed, &prefix))
			return true;
	}
	return false;
}

/* G3. */
static bool is_meant(const struct policy *policy, const struct prefix *address)
{
	if (ruleset_find(policy->origins[ORIGIN_CONFIG].rules, address))
		return true;
	for (int len = address->len; len >= 0 && ruleset_size(policy->forced); len--) {
		struct prefix prefix = *address;

		prefix_truncate(&prefix, (u8)len);
		if (ruleset_find(policy->forced, &prefix))
			return true;
	}
	return false;
}

static bool is_blocked(const struct policy *policy, const struct prefix *address,
		       struct prefix *ret_by)
{
	struct policy_sets block = policy_sets_of(policy, TABLE_BLOCK);

	return policy_find_cover(&block, address, ret_by);
}

/* ---- refusing ---- */

static int refuse_add(const struct prefix *prefix, const struct prefix *address, const char *what,
		      const char *consequence, struct error *err)
{
	char text[PREFIX_TEXT_MAX], covered[PREFIX_TEXT_MAX];

	prefix_format(prefix, text);
	prefix_format(address, covered);
	if (prefix_equal(prefix, address))
		return error_set(err, -EHOSTUNREACH, "%s is %s: this would cut %s off; " FORCE_HINT,
				 text, what, consequence);
	return error_set(err, -EHOSTUNREACH, "%s covers %s, %s: this would cut %s off; " FORCE_HINT,
			 text, covered, what, consequence);
}

/* The gateway goes first: where it is blocked, nothing of the rest matters. */
static const struct local *find_endangered(const struct policy *policy,
					   const struct local_list *locals,
					   const struct prefix *prefix)
{
	const struct local *found = NULL;
	size_t first, n = local_list_within(locals, prefix, &first);

	for (size_t i = first; i < first + n; i++) {
		const struct local *local = &locals->items[i];

		if ((found && local->kind >= found->kind) ||
		    is_allowed(policy, &local->address, NULL, 0))
			continue;
		found = local;
		if (found->kind == LOCAL_GATEWAY)
			break;
	}
	return found;
}

static int check_add(const struct policy *policy, const struct guarded *guarded,
		     const struct prefix *prefix, struct error *err)
{
	char what[LOCAL_TEXT_MAX];
	const struct local *local;

	for (size_t i = 0; i < guarded->n_sessions; i++)
		if (prefix_contains(prefix, &guarded->sessions[i]) &&
		    !is_allowed(policy, &guarded->sessions[i], NULL, 0))
			return refuse_add(prefix, &guarded->sessions[i],
					  "from where you are logged in by SSH", "you", err);
	local = find_endangered(policy, guarded->locals, prefix);
	if (!local)
		return 0;
	describe_local(local, what);
	return refuse_add(prefix, &local->address, what, "this host", err);
}

int guard_check_add(const struct policy *policy, const struct guarded *guarded,
		    const struct prefix *prefixes, size_t n, struct error *err)
{
	const struct ruleset *runtime = policy->origins[ORIGIN_RUNTIME].rules;

	for (size_t i = 0; i < n; i++) {
		struct error why;
		int r = check_add(policy, guarded, &prefixes[i], &why);

		if (r < 0 && !ruleset_find(runtime, &prefixes[i]))
			return error_set(err, r, "%s", why.text);
	}
	return 0;
}

static int refuse_disallow(const struct prefix *address, const struct prefix *by, const char *what,
			   const char *consequence, struct error *err)
{
	char text[PREFIX_TEXT_MAX], blocking[PREFIX_TEXT_MAX];

	prefix_format(address, text);
	prefix_format(by, blocking);
	return error_set(
		err, -EHOSTUNREACH,
		"%s, %s, is blocked by %s, and nothing would allow it any more: this would "
		"cut %s off; " FORCE_HINT,
		text, what, blocking, consequence);
}

int guard_check_disallow(const struct policy *policy, const struct guarded *guarded,
			 const struct prefix *prefixes, size_t n, struct error *err)
{
	const struct local_list *locals = guarded->locals;
	char what[LOCAL_TEXT_MAX];
	struct prefix by;

	for (size_t i = 0; i < n; i++) {
		size_t first, within = local_list_within(locals, &prefixes[i], &first);

		for (size_t j = 0; j < guarded->n_sessions; j++) {
			const struct prefix *session = &guarded->sessions[j];

			if (prefix_contains(&prefixes[i], session) &&
			    is_blocked(policy, session, &by) &&
			    !is_allowed(policy, session, prefixes, n))
				return refuse_disallow(session, &by,
						       "from where you are logged in by SSH", "you",
						       err);
		}
		for (size_t j = first; j < first + within; j++) {
			const struct local *local = &locals->items[j];

			if (!is_blocked(policy, &local->address, &by) ||
			    (policy->spares && !is_meant(policy, &local->address)) ||
			    is_allowed(policy, &local->address, prefixes, n))
				continue;
			describe_local(local, what);
			return refuse_disallow(&local->address, &by, what, "this host", err);
		}
	}
	return 0;
}

/* ---- what is forced, and what is spared ---- */

int guard_force(struct policy *policy, const struct local_list *locals,
		const struct prefix *prefixes, size_t n)
{
	size_t first;
	int r = 0;

	for (size_t i = 0; !r && i < n; i++) {
		const struct rule rule = {.prefix = prefixes[i]};

		if (local_list_within(locals, &prefixes[i], &first))
			r = ruleset_put(policy->forced, &rule);
	}
	return r;
}

/* Who blocks it, for people: one of them. */
static const char *origin_of(const struct policy *policy, const struct prefix *prefix)
{
	for (size_t i = 0; i < policy->n_origins; i++)
		if (ruleset_find(policy->origins[i].rules, prefix))
			return policy->origins[i].name;
	return "nobody";
}

static struct comment *make_comment(const struct policy *policy, const struct local *local,
				    const struct prefix *by)
{
	char what[LOCAL_TEXT_MAX], blocking[PREFIX_TEXT_MAX];
	char text[LOCAL_TEXT_MAX + PREFIX_TEXT_MAX + ORIGIN_NAME_MAX + 32];

	describe_local(local, what);
	prefix_format(by, blocking);
	snprintf(text, sizeof(text), "%s, in %s (%s)", what, blocking, origin_of(policy, by));
	return comment_new(text);
}

int guard_spare(const struct policy *policy, const struct local *local, struct ruleset *spared)
{
	const struct prefix *address = &local->address;
	const struct rule *old = ruleset_find(spared, address);
	struct rule rule = {.prefix = *address, .created_s = old ? old->created_s : wall_s()};
	struct prefix by;
	int r;

	if (!policy->spares || !is_blocked(policy, address, &by) || is_meant(policy, address) ||
	    is_allowed(policy, address, NULL, 0))
		return ruleset_remove(spared, address);
	rule.comment = make_comment(policy, local, &by);
	if (!rule.comment)
		return -ENOMEM;
	r = ruleset_put(spared, &rule);
	comment_unref(rule.comment);
	return r;
}

int guard_spare_within(const struct policy *policy, const struct local_list *locals,
		       const struct prefix *prefix, struct ruleset *spared)
{
	size_t first, n = local_list_within(locals, prefix, &first);
	int r = 0;

	for (size_t i = first; !r && i < first + n; i++)
		r = guard_spare(policy, &locals->items[i], spared);
	return r;
}

int guard_spare_changed(const struct policy *policy, const struct local_list *old,
			const struct local_list *new, struct ruleset *spared)
{
	size_t i = 0, j = 0;
	int r = 0;

	while (!r && (i < old->n || j < new->n)) {
		int order = i == old->n	  ? 1
			    : j == new->n ? -1
					  : prefix_compare(&old->items[i].address,
							   &new->items[j].address);

		if (order < 0)
			r = ruleset_remove(spared, &old->items[i].address);
		else if (order > 0 ||
			 memcmp(&old->items[i], &new->items[j], sizeof(*new->items)) != 0)
			r = guard_spare(policy, &new->items[j], spared);
		i += order <= 0;
		j += order >= 0;
	}
	return r;
}

int guard_spare_all(struct policy *policy, const struct local_list *locals,
		    const struct ruleset *old)
{
	_cleanup_(ruleset_freep) struct ruleset *spared = ruleset_new();
	int r = spared ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < locals->n; i++)
		r = guard_spare(policy, &locals->items[i], spared);
	if (!r)
		r = ruleset_keep_created(spared, old);
	if (r < 0)
		return r;
	ruleset_free(policy->allow[ALLOW_SYSTEM]);
	policy->allow[ALLOW_SYSTEM] = take_pointer(&spared);
	return 0;
}

void guard_log_spared(const struct ruleset *old, const struct ruleset *new)
{
	struct ruleset_cursor before = ruleset_seek(old, NULL), now = ruleset_seek(new, NULL);
	const struct rule *rule;
	char text[PREFIX_TEXT_MAX];

	for (; (rule = ruleset_at(&now)); ruleset_next(&now)) {
		if (ruleset_find(old, &rule->prefix))
			continue;
		prefix_format(&rule->prefix, text);
		log_warning(
			"%s passes though it is blocked: it is %s; block it with --force, or by "
			"its own address in the configuration, if it is meant",
			text, comment_text(rule->comment));
	}
	for (; (rule = ruleset_at(&before)); ruleset_next(&before)) {
		if (ruleset_find(new, &rule->prefix))
			continue;
		prefix_format(&rule->prefix, text);
		log_notice("%s is no longer let pass by fwd itself", text);
	}
}
