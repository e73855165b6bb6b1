// SPDX-License-Identifier: GPL-2.0-or-later
/* The desired state: what several origins make of a prefix together, and what has to change. */
#include "policy.h"

#include "random.h"
#include "temporary.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>

/* ---- what packets see, in the place of a map in the kernel ---- */

#define SEEN_MAX 512

static struct prefix_map_item seen[SEEN_MAX];
static size_t n_seen;

int __wrap_prefix_map_snapshot(const struct prefix_map *map, struct prefix_map_item **ret,
			       size_t *ret_n, struct error *err);

int __wrap_prefix_map_snapshot(const struct prefix_map *map, struct prefix_map_item **ret,
			       size_t *ret_n, struct error *err)
{
	*ret = calloc(n_seen + 1, sizeof(**ret));
	memcpy(*ret, seen, n_seen * sizeof(*seen));
	*ret_n = n_seen;
	return 0;
}

/* ---- the parts of a test ---- */

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0, "%s", text);
	return prefix;
}

static void put(struct ruleset *set, const char *prefix, u64 expires_ns)
{
	struct rule rule = {.prefix = prefix_of(prefix), .expires_ns = expires_ns};

	cr_assert_eq(ruleset_put(set, &rule), 0);
}

static struct policy_sets new_sets(size_t n)
{
	struct policy_sets sets = {.n = n};

	for (size_t i = 0; i < n; i++)
		sets.sets[i] = ruleset_new();
	return sets;
}

/* Rules come from one place here, so they may be changed through the sets. */
static struct ruleset *at(const struct policy_sets *sets, size_t i)
{
	return (struct ruleset *)sets->sets[i];
}

static void free_sets(struct policy_sets *sets)
{
	for (size_t i = 0; i < sets->n; i++)
		ruleset_free(at(sets, i));
}

static void expect_end(const struct policy_sets *sets, const char *prefix, u64 expires_ns)
{
	const struct prefix wanted = prefix_of(prefix);
	struct effective effective;

	cr_assert(policy_effective(sets, &wanted, &effective), "%s is not there", prefix);
	cr_expect(prefix_equal(&effective.prefix, &wanted));
	cr_expect_eq(effective.expires_ns, expires_ns, "%s ends at %llu", prefix,
		     (unsigned long long)effective.expires_ns);
}

/* ---- several origins ---- */

Test(policy, a_prefix_lasts_until_the_latest_of_its_ends)
{
	struct policy_sets sets = new_sets(3);
	const struct prefix absent = prefix_of("192.0.2.0/25");
	struct effective effective;

	put(at(&sets, 0), "192.0.2.0/24", 10);
	put(at(&sets, 1), "192.0.2.0/24", 30);
	put(at(&sets, 2), "192.0.2.0/24", 20);
	expect_end(&sets, "192.0.2.0/24", 30);
	put(at(&sets, 0), "192.0.2.0/24", 0);
	expect_end(&sets, "192.0.2.0/24", 0);
	put(at(&sets, 2), "192.0.2.1", 7);
	expect_end(&sets, "192.0.2.1", 7);
	cr_expect_not(policy_effective(&sets, &absent, &effective), "another prefix counts");
	free_sets(&sets);
}

Test(policy, for_good_is_the_latest_end)
{
	cr_expect_eq(latest_end(0, 0), 0);
	cr_expect_eq(latest_end(5, 0), 0);
	cr_expect_eq(latest_end(0, 5), 0);
	cr_expect_eq(latest_end(5, 6), 6);
	cr_expect_eq(latest_end(6, 5), 6);
}

static void expect_next(struct policy_walk *walk, const char *prefix, size_t set)
{
	const struct prefix wanted = prefix_of(prefix);
	const struct rule *rule;
	size_t got;

	rule = policy_walk_next(walk, &got);
	cr_assert(rule, "the walk ends before %s", prefix);
	cr_expect(prefix_equal(&rule->prefix, &wanted), "expected %s", prefix);
	cr_expect_eq(got, set, "%s: of set %zu", prefix, got);
}

Test(policy, a_walk_goes_by_prefix_and_then_by_origin)
{
	struct policy_sets sets = new_sets(3);
	const struct prefix from = prefix_of("192.0.2.1");
	struct policy_walk walk;
	size_t unused;

	put(at(&sets, 0), "2001:db8::/32", 0);
	put(at(&sets, 0), "192.0.2.0/24", 0);
	put(at(&sets, 1), "192.0.2.0/24", 0);
	put(at(&sets, 2), "10.0.0.0/8", 0);
	put(at(&sets, 2), "192.0.2.0/24", 0);
	put(at(&sets, 1), "192.0.2.0/32", 0);
	policy_walk_start(&walk, &sets, NULL);
	expect_next(&walk, "10.0.0.0/8", 2);
	expect_next(&walk, "192.0.2.0/24", 0);
	expect_next(&walk, "192.0.2.0/24", 1);
	expect_next(&walk, "192.0.2.0/24", 2);
	expect_next(&walk, "192.0.2.0/32", 1);
	expect_next(&walk, "2001:db8::/32", 0);
	cr_expect_null(policy_walk_next(&walk, &unused));
	policy_walk_start(&walk, &sets, &from);
	expect_next(&walk, "2001:db8::/32", 0);
	cr_expect_null(policy_walk_next(&walk, &unused));
	cr_expect_eq(policy_count(&sets), 4);
	free_sets(&sets);
}

Test(policy, nothing_is_walked_where_nothing_is)
{
	struct policy_sets sets = new_sets(2), none = {.n = 0};
	struct effective effective;
	struct policy_walk walk;
	size_t set;

	policy_walk_start(&walk, &sets, NULL);
	cr_expect_null(policy_walk_next(&walk, &set));
	cr_expect_not(policy_walk_next_effective(&walk, &effective));
	cr_expect_eq(policy_count(&sets), 0);
	cr_expect_eq(policy_count(&none), 0);
	free_sets(&sets);
}

/* ---- the difference ---- */

/* The model: prefix number N is 10.0.N.0/24 or 10.0.N.0/25, by its lowest bit. */
#define NUMBERS 200
#define ABSENT	(~0ull)

static struct prefix numbered(u64 n)
{
	return (struct prefix){
		.family = FAMILY_IPV4,
		.len = (u8)(24 + n % 2),
		.addr = {10, 0, (u8)(n / 2)},
	};
}

static void random_sets(struct random *random, const struct policy_sets *sets, u64 want[NUMBERS])
{
	for (u64 n = 0; n < NUMBERS; n++)
		want[n] = ABSENT;
	for (size_t i = 0; i < sets->n; i++) {
		for (u64 n = 0; n < NUMBERS; n++) {
			struct rule rule = {.prefix = numbered(n)};

			if (random_below(random, 4))
				continue;
			rule.expires_ns = random_below(random, 3);
			cr_assert_eq(ruleset_put(at(sets, i), &rule), 0);
			want[n] = want[n] == ABSENT ? rule.expires_ns
						    : latest_end(want[n], rule.expires_ns);
		}
	}
}

static void random_seen(struct random *random, u64 have[NUMBERS])
{
	n_seen = 0;
	for (u64 n = 0; n < NUMBERS; n++) {
		have[n] = random_below(random, 2) ? random_below(random, 3) : ABSENT;
		if (have[n] != ABSENT)
			seen[n_seen++] = (struct prefix_map_item){numbered(n), have[n]};
	}
}

static void check_change(struct random *random, const struct prefix_change *change, u64 n, u64 want,
			 u64 have)
{
	struct prefix prefix = numbered(n);

	random_holds(random, prefix_equal(&change->prefix, &prefix));
	if (have == ABSENT)
		random_holds(random, change->kind == PREFIX_INSERT && change->expires_ns == want);
	else if (want == ABSENT)
		random_holds(random, change->kind == PREFIX_REMOVE);
	else
		random_holds(random, change->kind == PREFIX_RETIME && change->expires_ns == want);
}

Test(policy, the_difference_is_just_what_has_to_change)
{
	struct random random = random_start();

	for (int round = 0; round < 300; round++) {
		struct policy_sets sets = new_sets(random_below(&random, 6));
		_cleanup_free_ struct prefix_change *changes = NULL;
		u64 want[NUMBERS], have[NUMBERS];
		size_t n_changes, i = 0;

		random_sets(&random, &sets, want);
		random_seen(&random, have);
		cr_assert_eq(policy_diff(&sets, NULL, &changes, &n_changes, NULL), 0);
		for (u64 n = 0; n < NUMBERS; n++) {
			if (want[n] == have[n])
				continue;
			random_holds(&random, i < n_changes);
			check_change(&random, &changes[i++], n, want[n], have[n]);
		}
		random_holds(&random, i == n_changes);
		free_sets(&sets);
	}
}

/* ---- from a configuration ---- */

static struct config *parse_config(const char *text)
{
	struct config_errors errors = {0};
	struct config *config = NULL;

	cr_assert_eq(config_parse(text, strlen(text), &config, &errors), 0, "%s",
		     errors.n ? errors.items[0].message : "");
	return config;
}

static struct config *config_with_feed(void)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "[blacklist]\n"
		 "max_entries = 77\n"
		 "direction = ['out']\n"
		 "addresses = ['192.0.2.0/24', '2001:db8::/32']\n"
		 "[[blacklist.feed]]\n"
		 "name = 'drop'\n"
		 "file = '%s'\n"
		 "[allowlist]\n"
		 "addresses = ['203.0.113.7']\n"
		 "[[redirect]]\n"
		 "protocol = 'tcp'\n"
		 "port = 80\n"
		 "target = 'tun0'\n",
		 temporary_path("feed"));
	return parse_config(text);
}

static struct policy *policy_with_feed(const char *feed)
{
	_cleanup_(config_freep) struct config *config = config_with_feed();
	struct policy *policy = NULL;
	struct error err;

	temporary_write("feed", feed, strlen(feed));
	cr_assert_eq(policy_from_config(config, &policy, &err), 0, "%s", err.text);
	return policy;
}

Test(policy, holds_the_configuration_and_its_feeds, .init = temporary_make,
     .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *policy =
		policy_with_feed("192.0.2.0/24\n198.51.100.1 # twice\n198.51.100.1\n");
	struct policy_sets block = policy_block_sets(policy), allow = policy_allow_sets(policy);

	cr_expect_eq(policy->n_origins, 3);
	cr_expect_str_eq(policy->origins[ORIGIN_CONFIG].name, "config");
	cr_expect_str_eq(policy->origins[ORIGIN_RUNTIME].name, "runtime");
	cr_expect_str_eq(policy->origins[ORIGIN_FEEDS].name, "drop");
	cr_expect_eq(ruleset_size(policy->origins[ORIGIN_CONFIG].rules), 2);
	cr_expect_eq(ruleset_size(policy->origins[ORIGIN_RUNTIME].rules), 0);
	cr_expect_eq(ruleset_size(policy->origins[ORIGIN_FEEDS].rules), 2);
	cr_expect_eq(policy_count(&block), 3, "a prefix of two origins counts once");
	cr_expect_eq(policy_count(&allow), 1);
	cr_expect_eq(policy->max_entries, 77);
	cr_expect_eq(policy->flags, FWD_BLOCK_OUT);
	cr_expect_eq(policy->n_redirects, 1);
	cr_expect_eq(policy->n_config_redirects, 1);
}

static void expect_bad_feed(const char *why)
{
	_cleanup_(config_freep) struct config *config = config_with_feed();
	struct policy *policy = NULL;
	struct error err = {""};

	cr_expect_lt(policy_from_config(config, &policy, &err), 0);
	cr_expect_null(policy);
	cr_expect(strstr(err.text, "feed \"drop\": "), "%s", err.text);
	cr_expect(strstr(err.text, why), "\"%s\" does not say \"%s\"", err.text, why);
}

Test(policy, an_error_names_the_feed_the_file_and_the_line, .init = temporary_make,
     .fini = temporary_remove)
{
	expect_bad_feed("No such file");
	temporary_write("feed", "192.0.2.1\n\n10.0.0.300\n", 22);
	expect_bad_feed("feed:3: \"10.0.0.300\"");
	temporary_write("feed", "192.0.2.1\n\0\n", 12);
	expect_bad_feed("feed");
}

/* As a reload does. */
Test(policy, takes_over_what_comes_from_run_time, .init = temporary_make, .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *old = policy_with_feed("198.51.100.1\n");
	_cleanup_(policy_freep) struct policy *next = policy_with_feed("198.51.100.2\n");
	const struct redirect runtime = {
		.protocol = IPPROTO_UDP, .port_first = 53, .port_last = 53, .target = "tun1"};
	struct policy_sets sets = policy_block_sets(old);

	put(old->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 0);
	put(old->allow[ORIGIN_RUNTIME], "192.0.2.98", 0);
	cr_assert_eq(policy_set_runtime_redirects(old, &runtime, 1, NULL), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(policy_take_runtime(next, old, NULL), 0);
	put(next->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 7);
	expect_end(&sets, "192.0.2.99", 0);
	policy_free(take_pointer(&old));
	sets = policy_block_sets(next);
	expect_end(&sets, "192.0.2.99", 7);
	expect_end(&sets, "198.51.100.2", 0);
	sets = policy_allow_sets(next);
	expect_end(&sets, "192.0.2.98", 0);
	cr_assert_eq(next->n_redirects, 2);
	cr_expect_str_eq(next->redirects[1].target, "tun1");
}

Test(policy, rules_of_the_same_origin_stay_as_old_as_they_are, .init = temporary_make,
     .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *old = policy_with_feed("198.51.100.1\n");
	_cleanup_(policy_freep) struct policy *next =
		policy_with_feed("198.51.100.1\n192.0.2.0/24\n");
	const struct rule listed = {.prefix = prefix_of("198.51.100.1"), .created_s = 5};
	const struct rule configured = {.prefix = prefix_of("192.0.2.0/24"), .created_s = 6};
	const struct rule allowed = {.prefix = prefix_of("203.0.113.7"), .created_s = 7};
	const struct ruleset *feed = next->origins[ORIGIN_FEEDS].rules;

	cr_assert_eq(ruleset_put(old->origins[ORIGIN_FEEDS].rules, &listed), 0);
	cr_assert_eq(ruleset_put(old->origins[ORIGIN_CONFIG].rules, &configured), 0);
	cr_assert_eq(ruleset_put(old->allow[ORIGIN_CONFIG], &allowed), 0);
	cr_assert_eq(policy_keep_created(next, old, NULL), 0);
	cr_expect_eq(ruleset_find(feed, &listed.prefix)->created_s, 5);
	cr_expect_gt(ruleset_find(feed, &configured.prefix)->created_s, 7, "of another origin");
	cr_expect_eq(
		ruleset_find(next->origins[ORIGIN_CONFIG].rules, &configured.prefix)->created_s, 6);
	cr_expect_eq(ruleset_find(next->allow[ORIGIN_CONFIG], &allowed.prefix)->created_s, 7);
}

Test(policy, a_clone_has_everything_and_changes_apart, .init = temporary_make,
     .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *policy = policy_with_feed("198.51.100.1\n");
	_cleanup_(policy_freep) struct policy *clone = NULL;
	struct policy_sets sets;

	put(policy->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 3);
	cr_assert_eq(policy_clone(policy, &clone), 0);
	put(policy->origins[ORIGIN_FEEDS].rules, "198.51.100.1", 9);
	put(policy->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 9);
	put(policy->allow[ORIGIN_CONFIG], "203.0.113.7", 9);
	policy->redirects[0].target[0] = 'x';
	policy_free(take_pointer(&policy));
	sets = policy_block_sets(clone);
	cr_expect_eq(policy_count(&sets), 4);
	expect_end(&sets, "192.0.2.99", 3);
	expect_end(&sets, "198.51.100.1", 0);
	expect_end(&sets, "2001:db8::/32", 0);
	sets = policy_allow_sets(clone);
	expect_end(&sets, "203.0.113.7", 0);
	cr_expect_eq(clone->n_origins, 3);
	cr_expect_str_eq(clone->origins[ORIGIN_FEEDS].name, "drop");
	cr_expect_eq(clone->max_entries, 77);
	cr_expect_eq(clone->flags, FWD_BLOCK_OUT);
	cr_expect_eq(clone->n_redirects, 1);
	cr_expect_eq(clone->n_config_redirects, 1);
	cr_expect_str_eq(clone->redirects[0].target, "tun0");
}
