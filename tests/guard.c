// SPDX-License-Identifier: GPL-2.0-or-later
/* What is refused, and what is spared. */
#include "guard.h"

#include "log.h"
#include "temporary.h"

#include <criterion/criterion.h>
#include <errno.h>

/* ---- the parts of a test ---- */

static struct local items[] = {
	{.kind = LOCAL_ADDRESS, .interface = "eth0"},
	{.kind = LOCAL_GATEWAY, .interface = "eth0"},
	{.kind = LOCAL_GATEWAY, .interface = "eth1"},
};
static const struct local_list locals = {items, ARRAY_SIZE(items)};
static struct guarded guarded = {.locals = &locals};
static struct policy *policy;

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0, "%s", text);
	return prefix;
}

static void put(struct ruleset *set, const char *text)
{
	const struct rule rule = {.prefix = prefix_of(text)};

	cr_assert_eq(ruleset_put(set, &rule), 0);
}

static void configure(const char *text)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	char whole[1024];
	struct error err;

	snprintf(whole, sizeof(whole), "daemon.state_dir = '%s'\n%s", temporary, text);
	cr_assert_eq(config_parse(whole, strlen(whole), &config, &errors), 0, "%s",
		     errors.n ? errors.items[0].message : "");
	policy_free(policy);
	cr_assert_eq(policy_from_config(config, false, &policy, &err), 0, "%s", err.text);
	config_free(config);
}

static void set_up(void)
{
	temporary_make();
	items[0].address = prefix_of("10.0.0.2");
	items[1].address = prefix_of("10.0.0.254");
	items[2].address = prefix_of("fe80::1");
	configure("");
}

static void tear_down(void)
{
	policy_free(policy);
	temporary_remove();
}

TestSuite(guard, .init = set_up, .fini = tear_down);

static void log_in_from(const char *address)
{
	guarded.sessions[guarded.n_sessions++] = prefix_of(address);
}

static void expect_refused(const char *text, const char *why)
{
	const struct prefix prefix = prefix_of(text);
	struct error err = {""};

	cr_expect_eq(guard_check_add(policy, &guarded, &prefix, 1, &err), -EHOSTUNREACH, "%s",
		     text);
	cr_expect_str_eq(err.text, why);
}

static void expect_accepted(const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct error err = {""};

	cr_expect_eq(guard_check_add(policy, &guarded, &prefix, 1, &err), 0, "%s", err.text);
}

static int check_disallow(const char *text, struct error *err)
{
	const struct prefix prefix = prefix_of(text);

	err->text[0] = '\0';
	return guard_check_disallow(policy, &guarded, &prefix, 1, err);
}

/* All that is spared, and why. */
static void expect_spared(const char *expected)
{
	_cleanup_(ruleset_freep) struct ruleset *none = ruleset_new();
	struct ruleset_cursor cursor;
	char all[1024] = "";
	size_t n = 0;

	cr_assert_eq(guard_spare_all(policy, &locals, none), 0);
	cursor = ruleset_seek(policy->allow[ALLOW_SYSTEM], NULL);
	for (const struct rule *rule; (rule = ruleset_at(&cursor)); ruleset_next(&cursor)) {
		char text[PREFIX_TEXT_MAX];

		prefix_format(&rule->prefix, text);
		n += (size_t)snprintf(all + n, sizeof(all) - n, "%s: %s\n", text,
				      comment_text(rule->comment));
	}
	cr_expect_str_eq(all, expected);
}

/* ---- refused ---- */

Test(guard, refuses_what_covers_an_address_of_this_host)
{
	expect_refused("10.0.0.0/25",
		       "10.0.0.0/25 covers 10.0.0.2, an address of this host (eth0): "
		       "this would cut this host off; use --force if it is meant");
	expect_refused("10.0.0.2",
		       "10.0.0.2 is an address of this host (eth0): this would cut this "
		       "host off; use --force if it is meant");
}

Test(guard, names_the_gateway_first)
{
	expect_refused("0.0.0.0/0",
		       "0.0.0.0/0 covers 10.0.0.254, the default gateway on eth0: this "
		       "would cut this host off; use --force if it is meant");
	expect_refused("fe80::/10", "fe80::/10 covers fe80::1, the default gateway on eth1: this "
				    "would cut this host off; use --force if it is meant");
}

Test(guard, refuses_what_covers_where_the_caller_is_logged_in_from)
{
	expect_accepted("198.51.100.0/24");
	log_in_from("198.51.100.7");
	log_in_from("2001:db8::7");
	expect_refused("198.51.100.0/24",
		       "198.51.100.0/24 covers 198.51.100.7, from where you are logged in by SSH: "
		       "this would cut you off; use --force if it is meant");
	expect_refused(
		"2001:db8::7",
		"2001:db8::7 is from where you are logged in by SSH: this would cut you off; "
		"use --force if it is meant");
	expect_accepted("198.51.100.8");
}

Test(guard, accepts_what_covers_nothing_of_that)
{
	expect_accepted("10.0.1.0/24");
	expect_accepted("10.0.0.3");
	expect_accepted("2001:db8::/32");
}

Test(guard, accepts_what_the_allowlist_has)
{
	log_in_from("10.0.0.7");
	put(policy->allow[ORIGIN_RUNTIME], "10.0.0.254");
	expect_accepted("10.0.0.128/25");
	expect_refused("10.0.0.0/24",
		       "10.0.0.0/24 covers 10.0.0.7, from where you are logged in by "
		       "SSH: this would cut you off; use --force if it is meant");
	put(policy->allow[ORIGIN_CONFIG], "10.0.0.0/28");
	expect_accepted("10.0.0.0/24");
}

Test(guard, what_is_spared_is_no_leave_to_block_it)
{
	put(policy->allow[ALLOW_SYSTEM], "10.0.0.254");
	expect_refused("10.0.0.254",
		       "10.0.0.254 is the default gateway on eth0: this would cut this "
		       "host off; use --force if it is meant");
}

Test(guard, what_is_a_rule_already_may_be_added_again)
{
	put(policy->origins[ORIGIN_RUNTIME].rules, "10.0.0.0/8");
	expect_accepted("10.0.0.0/8");
	expect_refused("10.0.0.0/9",
		       "10.0.0.0/9 covers 10.0.0.254, the default gateway on eth0: this "
		       "would cut this host off; use --force if it is meant");
}

/* ---- taken off the allowlist ---- */

Test(guard, a_blocked_session_stays_on_the_allowlist)
{
	struct error err;

	log_in_from("198.51.100.7");
	put(policy->allow[ORIGIN_RUNTIME], "198.51.100.7");
	cr_expect_eq(check_disallow("198.51.100.7", &err), 0, "%s", err.text);
	put(policy->origins[ORIGIN_CONFIG].rules, "198.51.100.0/24");
	cr_expect_eq(check_disallow("198.51.100.7", &err), -EHOSTUNREACH);
	cr_expect_str_eq(err.text,
			 "198.51.100.7, from where you are logged in by SSH, is blocked by "
			 "198.51.100.0/24, and nothing would allow it any more: this would "
			 "cut you off; use --force if it is meant");
	put(policy->allow[ORIGIN_RUNTIME], "198.51.100.0/28");
	cr_expect_eq(check_disallow("198.51.100.7", &err), 0, "%s", err.text);
}

Test(guard, what_would_be_spared_may_leave_the_allowlist)
{
	struct error err;

	put(policy->allow[ORIGIN_RUNTIME], "10.0.0.254");
	put(policy->origins[ORIGIN_RUNTIME].rules, "10.0.0.0/24");
	cr_expect_eq(check_disallow("10.0.0.254", &err), 0, "%s", err.text);
	put(policy->forced, "10.0.0.0/24");
	cr_expect_eq(check_disallow("10.0.0.254", &err), -EHOSTUNREACH);
	cr_expect_str_eq(err.text,
			 "10.0.0.254, the default gateway on eth0, is blocked by "
			 "10.0.0.0/24, and nothing would allow it any more: this would cut "
			 "this host off; use --force if it is meant");
}

/* ---- spared ---- */

Test(guard, spares_what_a_prefix_of_any_origin_blocks)
{
	expect_spared("");
	put(policy->origins[ORIGIN_RUNTIME].rules, "10.0.0.0/30");
	put(policy->origins[ORIGIN_CONFIG].rules, "fe80::/10");
	expect_spared("10.0.0.2: an address of this host (eth0), in 10.0.0.0/30 (runtime)\n"
		      "fe80::1: the default gateway on eth1, in fe80::/10 (config)\n");
}

Test(guard, spares_what_a_feed_names)
{
	configure("[[blacklist.feed]]\nname = 'drop'\n");
	put(policy->origins[ORIGIN_FEEDS].rules, "10.0.0.254");
	expect_spared("10.0.0.254: the default gateway on eth0, in 10.0.0.254 (drop)\n");
}

Test(guard, does_not_spare_what_the_configuration_names)
{
	put(policy->origins[ORIGIN_CONFIG].rules, "10.0.0.254");
	expect_spared("");
	put(policy->origins[ORIGIN_CONFIG].rules, "10.0.0.0/8");
	expect_spared("10.0.0.2: an address of this host (eth0), in 10.0.0.0/8 (config)\n");
}

Test(guard, does_not_spare_what_a_forced_rule_blocks)
{
	put(policy->origins[ORIGIN_CONFIG].rules, "10.0.0.0/8");
	put(policy->origins[ORIGIN_RUNTIME].rules, "10.0.0.0/30");
	put(policy->forced, "10.0.0.0/30");
	expect_spared("10.0.0.254: the default gateway on eth0, in 10.0.0.0/8 (config)\n");
}

Test(guard, does_not_spare_what_is_allowed)
{
	put(policy->origins[ORIGIN_CONFIG].rules, "10.0.0.0/8");
	put(policy->allow[ORIGIN_RUNTIME], "10.0.0.0/24");
	expect_spared("");
}

Test(guard, spares_nothing_where_it_is_told_so)
{
	configure("[allowlist]\nsystem = false\n");
	put(policy->origins[ORIGIN_RUNTIME].rules, "10.0.0.0/8");
	expect_spared("");
}

Test(guard, follows_what_comes_and_goes)
{
	struct local_list none = {0};

	put(policy->origins[ORIGIN_RUNTIME].rules, "10.0.0.0/8");
	cr_assert_eq(guard_spare_changed(policy, &none, &locals, policy->allow[ALLOW_SYSTEM]), 0);
	cr_expect_eq(ruleset_size(policy->allow[ALLOW_SYSTEM]), 2);
	cr_assert_eq(guard_spare_changed(policy, &locals, &none, policy->allow[ALLOW_SYSTEM]), 0);
	cr_expect_eq(ruleset_size(policy->allow[ALLOW_SYSTEM]), 0);
}

Test(guard, remembers_what_is_forced_for_a_reason_only)
{
	const struct prefix prefixes[] = {prefix_of("10.0.0.0/24"), prefix_of("10.0.1.0/24")};

	cr_assert_eq(guard_force(policy, &locals, prefixes, ARRAY_SIZE(prefixes)), 0);
	cr_expect_eq(ruleset_size(policy->forced), 1);
	cr_expect(ruleset_find(policy->forced, &prefixes[0]));
}
