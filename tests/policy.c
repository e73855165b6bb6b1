// SPDX-License-Identifier: GPL-2.0-or-later
/* The desired state: what several origins make of a prefix together, and what has to change. */
#include "policy.h"

#include "clock.h"
#include "random.h"
#include "store.h"
#include "temporary.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>

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

static size_t count(const struct policy_sets *sets)
{
	struct policy_walk walk;
	struct effective next;
	size_t n = 0;

	policy_walk_start(&walk, sets, NULL);
	while (policy_walk_next_effective(&walk, &next))
		n++;
	return n;
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
	cr_expect_eq(count(&sets), 4);
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
	cr_expect_eq(count(&sets), 0);
	cr_expect_eq(count(&none), 0);
	free_sets(&sets);
}

/* ---- what packets are to see, and the difference ---- */

/*
 * The model: prefix number N is 10.0.N.0/24 or 10.0.N.0/25, by its lowest bit, and the last half of
 * them is the allowlist's.
 */
#define NUMBERS	      400
#define BLOCK_NUMBERS (NUMBERS / 2)
#define ABSENT	      (~0ull)

static struct prefix numbered(u64 n)
{
	n %= BLOCK_NUMBERS;
	return (struct prefix){
		.family = FAMILY_IPV4,
		.len = (u8)(24 + n % 2),
		.addr = {10, 0, (u8)(n / 2)},
	};
}

static struct prefix_item numbered_item(u64 n, u64 expires_ns)
{
	return (struct prefix_item){
		.prefix = numbered(n),
		.table = n < BLOCK_NUMBERS ? TABLE_BLOCK : TABLE_ALLOW,
		.expires_ns = expires_ns,
	};
}

static bool is_item(const struct prefix_item *item, u64 n, u64 expires_ns)
{
	struct prefix_item wanted = numbered_item(n, expires_ns);

	return prefix_equal(&item->prefix, &wanted.prefix) && item->table == wanted.table &&
	       item->expires_ns == expires_ns;
}

/* With so many origins of the blacklist. */
static struct policy *new_policy(size_t n_origins)
{
	struct policy *policy = calloc(1, sizeof(*policy));

	policy->n_origins = n_origins;
	policy->origins = calloc(n_origins, sizeof(*policy->origins));
	for (size_t i = 0; i < n_origins; i++)
		policy->origins[i].rules = ruleset_new();
	policy->forced = ruleset_new();
	for (size_t i = 0; i < ALLOW_SETS; i++)
		policy->allow[i] = ruleset_new();
	return policy;
}

static void random_rules(struct random *random, const struct policy_sets *sets, u64 first,
			 u64 want[NUMBERS])
{
	for (size_t i = 0; i < sets->n; i++) {
		for (u64 n = first; n < first + BLOCK_NUMBERS; n++) {
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

/* A random policy, and what packets are to see of it. */
static struct policy *random_policy(struct random *random, u64 want[NUMBERS])
{
	struct policy *policy = new_policy(ORIGIN_FEEDS + random_below(random, 4));
	struct policy_sets block = policy_sets_of(policy, TABLE_BLOCK);
	struct policy_sets allow = policy_sets_of(policy, TABLE_ALLOW);

	for (u64 n = 0; n < NUMBERS; n++)
		want[n] = ABSENT;
	random_rules(random, &block, 0, want);
	random_rules(random, &allow, BLOCK_NUMBERS, want);
	return policy;
}

Test(policy, its_items_are_the_blacklist_then_the_allowlist_each_prefix_once_and_in_order)
{
	struct random random = random_start();

	for (int round = 0; round < 100; round++) {
		_cleanup_free_ struct prefix_item *items = NULL;
		_cleanup_(policy_freep) struct policy *policy = NULL;
		size_t n_items, n_block, i = 0;
		u64 want[NUMBERS];

		policy = random_policy(&random, want);
		cr_assert_eq(policy_items(policy, &items, &n_items, &n_block, NULL), 0);
		for (u64 n = 0; n < NUMBERS; n++) {
			random_holds(&random, n != BLOCK_NUMBERS || i == n_block);
			if (want[n] == ABSENT)
				continue;
			random_holds(&random, i < n_items);
			random_holds(&random, is_item(&items[i++], n, want[n]));
		}
		random_holds(&random, i == n_items);
	}
}

Test(policy, an_empty_one_has_no_items)
{
	_cleanup_(policy_freep) struct policy *policy = new_policy(ORIGIN_FEEDS);
	_cleanup_free_ struct prefix_item *items = NULL;
	size_t n = 9, n_block = 9;

	cr_assert_eq(policy_items(policy, &items, &n, &n_block, NULL), 0);
	cr_expect_eq(n, 0);
	cr_expect_eq(n_block, 0);
}

static size_t random_items(struct random *random, u64 have[NUMBERS], struct prefix_item *ret)
{
	u64 density = random_below(random, 5);
	size_t n_items = 0;

	for (u64 n = 0; n < NUMBERS; n++) {
		have[n] = random_below(random, 4) < density ? random_below(random, 3) : ABSENT;
		if (have[n] != ABSENT)
			ret[n_items++] = numbered_item(n, have[n]);
	}
	return n_items;
}

static bool is_change(const struct prefix_change *change, u64 n, u64 have, u64 want)
{
	if (want == ABSENT) /* the end of what goes has no meaning */
		return change->kind == PREFIX_REMOVE && is_item(&change->item, n, have);
	return change->kind == (have == ABSENT ? PREFIX_INSERT : PREFIX_RETIME) &&
	       is_item(&change->item, n, want);
}

Test(policy, the_difference_is_just_what_has_to_change)
{
	struct random random = random_start();

	for (int round = 0; round < 300; round++) {
		struct prefix_item from[NUMBERS], to[NUMBERS];
		struct prefix_change_list list = {0};
		u64 have[NUMBERS], want[NUMBERS];
		size_t n_from = random_items(&random, have, from), i = 0;
		size_t n_to = random_items(&random, want, to);

		cr_assert_eq(policy_diff(from, n_from, to, n_to, &list), 0);
		for (u64 n = 0; n < NUMBERS; n++) {
			if (want[n] == have[n])
				continue;
			random_holds(&random, i < list.n);
			random_holds(&random, is_change(&list.items[i++], n, have[n], want[n]));
		}
		random_holds(&random, i == list.n);
		free(list.items);
	}
}

/* ---- rules of a list ---- */

Test(policy, a_list_becomes_rules_whatever_its_order_and_duplicates)
{
	struct prefix prefixes[] = {prefix_of("2001:db8::1"), prefix_of("192.0.2.1"),
				    prefix_of("192.0.2.0/24"), prefix_of("192.0.2.1")};
	_cleanup_(ruleset_freep) struct ruleset *old = ruleset_new(), *rules = NULL;
	const struct rule known = {.prefix = prefix_of("192.0.2.1"), .created_s = 5};
	const struct rule gone = {.prefix = prefix_of("192.0.2.2"), .created_s = 5};
	const struct rule *rule;

	cr_assert_eq(ruleset_put(old, &known), 0);
	cr_assert_eq(ruleset_put(old, &gone), 0);
	cr_assert_eq(policy_rules_from(prefixes, ARRAY_SIZE(prefixes), old, &rules, NULL), 0);
	cr_expect_eq(ruleset_size(rules), 3);
	rule = ruleset_find(rules, &known.prefix);
	cr_assert(rule);
	cr_expect_eq(rule->created_s, 5, "what was there before is made anew");
	cr_expect_eq(rule->expires_ns, 0);
	cr_expect_null(rule->comment);
	rule = ruleset_find(rules, &prefixes[0]);
	cr_assert(rule);
	cr_expect_leq(llabs(rule->created_s - wall_s()), 2);
	cr_expect_null(ruleset_find(rules, &gone.prefix));
}

Test(policy, no_list_becomes_no_rules)
{
	_cleanup_(ruleset_freep) struct ruleset *rules = NULL;

	cr_assert_eq(policy_rules_from(NULL, 0, NULL, &rules, NULL), 0);
	cr_expect_eq(ruleset_size(rules), 0);
}

Test(policy, the_file_of_a_feed_becomes_rules_that_are_as_old_as_they_were, .init = temporary_make,
     .fini = temporary_remove)
{
	char name[] = "drop", file[PATH_MAX];
	const struct config_feed feed = {.name = name, .file = file};
	_cleanup_(ruleset_freep) struct ruleset *old = ruleset_new(), *rules = NULL;
	const struct rule known = {.prefix = prefix_of("192.0.2.1"), .created_s = 5};
	struct ruleset *none = NULL;
	struct error err;

	strcpy(file, temporary_path("feed"));
	cr_assert_eq(ruleset_put(old, &known), 0);
	temporary_write("feed", "192.0.2.1\n192.0.2.0/25\n", 23);
	cr_assert_eq(policy_read_feed(&feed, old, &rules, &err), 0, "%s", err.text);
	cr_expect_eq(ruleset_size(rules), 2);
	cr_expect_eq(ruleset_find(rules, &known.prefix)->created_s, 5);
	temporary_write("feed", "192.0.2.1\n192.0.2.1/25\n", 23);
	cr_expect_eq(policy_read_feed(&feed, old, &none, &err), -EINVAL);
	cr_expect_null(none);
	cr_expect(strstr(err.text, "feed \"drop\": "), "%s", err.text);
	cr_expect(strstr(err.text, "feed:2: "), "%s", err.text);
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
		 "daemon.state_dir = '%s'\n"
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
		 temporary, temporary_path("feed"));
	return parse_config(text);
}

static struct policy *policy_with_feed(const char *feed)
{
	_cleanup_(config_freep) struct config *config = config_with_feed();
	struct policy *policy = NULL;
	struct error err;

	temporary_write("feed", feed, strlen(feed));
	cr_assert_eq(policy_from_config(config, false, &policy, &err), 0, "%s", err.text);
	return policy;
}

Test(policy, holds_the_configuration_and_its_feeds, .init = temporary_make,
     .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *policy =
		policy_with_feed("192.0.2.0/24\n198.51.100.1 # twice\n198.51.100.1\n");
	struct policy_sets block = policy_sets_of(policy, TABLE_BLOCK);
	struct policy_sets allow = policy_sets_of(policy, TABLE_ALLOW);

	cr_expect_eq(policy->n_origins, 3);
	cr_expect_str_eq(policy->origins[ORIGIN_CONFIG].name, "config");
	cr_expect_str_eq(policy->origins[ORIGIN_RUNTIME].name, "runtime");
	cr_expect_str_eq(policy->origins[ORIGIN_FEEDS].name, "drop");
	cr_expect_eq(ruleset_size(policy->origins[ORIGIN_CONFIG].rules), 2);
	cr_expect_eq(ruleset_size(policy->origins[ORIGIN_RUNTIME].rules), 0);
	cr_expect_eq(ruleset_size(policy->origins[ORIGIN_FEEDS].rules), 2);
	cr_expect_eq(count(&block), 3, "a prefix of two origins counts once");
	cr_expect_eq(count(&allow), 1);
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

	cr_expect_lt(policy_from_config(config, false, &policy, &err), 0);
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

/* ---- lists that were given at run time ---- */

static void give_list(const char *feed, const char *prefix)
{
	const struct prefix only = prefix_of(prefix);
	struct store_feed *list = NULL;
	struct error err;

	cr_assert_eq(store_feed_write(temporary, feed, &only, 1, &list, &err), 0, "%s", err.text);
	cr_assert_eq(store_feed_commit(&list, 1, &err), 0, "%s", err.text);
	store_feed_drop(list);
}

static struct policy *policy_with_two_feeds(bool files_first)
{
	_cleanup_(config_freep) struct config *config = NULL;
	struct policy *policy = NULL;
	struct error err;
	char text[1024];

	snprintf(text, sizeof(text),
		 "daemon.state_dir = '%s'\n"
		 "[[blacklist.feed]]\n"
		 "name = 'drop'\n"
		 "file = '%s'\n"
		 "[[blacklist.feed]]\n"
		 "name = 'given'\n",
		 temporary, temporary_path("feed"));
	config = parse_config(text);
	cr_assert_eq(policy_from_config(config, files_first, &policy, &err), 0, "%s", err.text);
	cr_assert_eq(policy->n_origins, ORIGIN_FEEDS + 2);
	return policy;
}

/* `prefix` NULL: it holds nothing. */
static void expect_feed(const struct policy *policy, size_t i, const char *prefix, bool replaced)
{
	const struct origin *origin = &policy->origins[ORIGIN_FEEDS + i];

	cr_expect_eq(ruleset_size(origin->rules), prefix != NULL, "feed %zu: %zu rules", i,
		     ruleset_size(origin->rules));
	if (prefix) {
		const struct prefix only = prefix_of(prefix);

		cr_expect(ruleset_find(origin->rules, &only), "feed %zu has no %s", i, prefix);
	}
	cr_expect_eq(origin->replaced, replaced, "feed %zu", i);
	cr_expect_leq(llabs(origin->loaded_s - wall_s()), 5, "feed %zu", i);
}

Test(policy, a_feed_has_its_file_until_a_list_was_given, .init = temporary_make,
     .fini = temporary_remove)
{
	temporary_write("feed", "192.0.2.1\n", 10);
	for (int files_first = 0; files_first < 2; files_first++) {
		_cleanup_(policy_freep) struct policy *policy = policy_with_two_feeds(files_first);

		expect_feed(policy, 0, "192.0.2.1", false);
		expect_feed(policy, 1, NULL, false);
	}
}

Test(policy, a_list_that_was_given_goes_before_the_file_but_where_files_come_first,
     .init = temporary_make, .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *at_start = NULL, *at_reload = NULL;

	temporary_write("feed", "192.0.2.1\n", 10);
	give_list("drop", "192.0.2.2");
	give_list("given", "192.0.2.3");
	at_start = policy_with_two_feeds(false);
	expect_feed(at_start, 0, "192.0.2.2", true);
	expect_feed(at_start, 1, "192.0.2.3", true);
	at_reload = policy_with_two_feeds(true);
	expect_feed(at_reload, 0, "192.0.2.1", false);
	expect_feed(at_reload, 1, "192.0.2.3", true);
}

/* So that a start works where the file is gone. */
Test(policy, the_file_is_not_read_where_a_list_was_given, .init = temporary_make,
     .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *policy = NULL;

	give_list("drop", "192.0.2.2");
	policy = policy_with_two_feeds(false);
	expect_feed(policy, 0, "192.0.2.2", true);
}

/* As a reload does. */
Test(policy, takes_over_what_comes_from_run_time, .init = temporary_make, .fini = temporary_remove)
{
	_cleanup_(policy_freep) struct policy *old = policy_with_feed("198.51.100.1\n");
	_cleanup_(policy_freep) struct policy *next = policy_with_feed("198.51.100.2\n");
	const struct redirect runtime = {
		.protocol = IPPROTO_UDP, .port_first = 53, .port_last = 53, .target = "tun1"};
	struct policy_sets sets = policy_sets_of(old, TABLE_BLOCK);

	put(old->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 0);
	put(old->allow[ORIGIN_RUNTIME], "192.0.2.98", 0);
	cr_assert_eq(policy_set_runtime_redirects(old, &runtime, 1, NULL), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(policy_take_runtime(next, old, NULL), 0);
	put(next->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 7);
	expect_end(&sets, "192.0.2.99", 0);
	policy_free(take_pointer(&old));
	sets = policy_sets_of(next, TABLE_BLOCK);
	expect_end(&sets, "192.0.2.99", 7);
	expect_end(&sets, "198.51.100.2", 0);
	sets = policy_sets_of(next, TABLE_ALLOW);
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
	policy->origins[ORIGIN_FEEDS].replaced = true;
	policy->origins[ORIGIN_FEEDS].loaded_s = 12;
	cr_assert_eq(policy_clone(policy, &clone), 0);
	policy->origins[ORIGIN_FEEDS].replaced = false;
	put(clone->origins[ORIGIN_RUNTIME].rules, "192.0.2.98", 3);
	sets = policy_sets_of(policy, TABLE_BLOCK);
	cr_expect_eq(count(&sets), 4, "the clone changed it");
	put(policy->origins[ORIGIN_FEEDS].rules, "198.51.100.1", 9);
	put(policy->origins[ORIGIN_RUNTIME].rules, "192.0.2.99", 9);
	put(policy->allow[ORIGIN_CONFIG], "203.0.113.7", 9);
	policy->redirects[0].target[0] = 'x';
	policy_free(take_pointer(&policy));
	sets = policy_sets_of(clone, TABLE_BLOCK);
	cr_expect_eq(count(&sets), 5);
	expect_end(&sets, "192.0.2.99", 3);
	expect_end(&sets, "198.51.100.1", 0);
	expect_end(&sets, "2001:db8::/32", 0);
	sets = policy_sets_of(clone, TABLE_ALLOW);
	expect_end(&sets, "203.0.113.7", 0);
	cr_expect_eq(clone->n_origins, 3);
	cr_expect_str_eq(clone->origins[ORIGIN_FEEDS].name, "drop");
	cr_expect(clone->origins[ORIGIN_FEEDS].replaced);
	cr_expect_eq(clone->origins[ORIGIN_FEEDS].loaded_s, 12);
	cr_expect_eq(clone->max_entries, 77);
	cr_expect_eq(clone->flags, FWD_BLOCK_OUT);
	cr_expect_eq(clone->n_redirects, 1);
	cr_expect_eq(clone->n_config_redirects, 1);
	cr_expect_str_eq(clone->redirects[0].target, "tun0");
}
