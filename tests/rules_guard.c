// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guard in the life of the rules: what is refused changes nothing, and what is spared passes
 * from the moment on that something would block it.
 */
#include "clock.h"
#include "rules_parts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>

#define OWN	"10.0.0.1"
#define GATEWAY "10.0.0.254"
#define LARGE	(RULES_SMALL + 1000)

/* ---- the parts of a test ---- */

static struct local host[] = {
	{.kind = LOCAL_ADDRESS, .interface = "eth0"},
	{.kind = LOCAL_GATEWAY, .interface = "eth0"},
};

static void set_up(void)
{
	rules_set_up();
	host[0].address = prefix_of(OWN);
	host[1].address = prefix_of(GATEWAY);
}

TestSuite(rules_guard, .init = set_up, .fini = rules_tear_down, .timeout = 120);

static void start_at_host(const char *text)
{
	locals = (struct local_list){host, ARRAY_SIZE(host)};
	start(text);
}

/* Addresses appear, or go. */
static void set_locals(size_t n)
{
	const struct local_list list = {host, n};
	struct local_list copy;
	struct error err;

	cr_assert_eq(local_list_copy(&list, &copy), 0);
	cr_assert_eq(rules_set_locals(rules, &copy, &err), 0, "%s", err.text);
}

static bool is_in(const struct ruleset *set, const char *text)
{
	const struct prefix prefix = prefix_of(text);

	return ruleset_find(set, &prefix);
}

static bool is_forced(const char *text)
{
	return is_in(rules_policy(rules)->forced, text);
}

/* The policy says so, and packets see it. */
static void expect_spared(const char *text, bool spared)
{
	const struct prefix prefix = prefix_of(text);
	struct prefix_state state;

	cr_expect_eq(is_in(rules_policy(rules)->allow[ALLOW_SYSTEM], text), spared, "%s", text);
	cr_expect_eq(prefix_map_read(rules_map(rules), TABLE_ALLOW, &prefix, &state), spared, "%s",
		     text);
	expect_agreement();
}

static struct rules_request one(enum rules_kind kind, enum prefix_table table, const char *text,
				bool force)
{
	const struct prefix prefix = prefix_of(text);

	return (struct rules_request){.kind = kind,
				      .table = table,
				      .prefixes = copy_prefixes(&prefix, 1),
				      .n = 1,
				      .list_fd = -1,
				      .force = force};
}

static int add_one(const char *text, bool force)
{
	struct rules_count count;
	struct error err;

	return submit(one(RULES_ADD, TABLE_BLOCK, text, force), &count, &err);
}

/* A large addition with this prefix in it. */
static struct rules_request many_with(const char *text, bool force)
{
	struct rules_request request = many(RULES_ADD, 0, LARGE);

	request.prefixes[LARGE / 2] = prefix_of(text);
	request.force = force;
	return request;
}

static int add_many_with(const char *text, bool force, struct error *err)
{
	struct rules_count count;

	return submit(many_with(text, force), &count, err);
}

/* ---- refused ---- */

Test(rules_guard, what_is_refused_changes_nothing)
{
	start_at_host("");
	cr_expect_eq(add_one("10.0.0.0/8", false), -EHOSTUNREACH);
	expect_blocked("10.0.0.0/8", false);
	expect_spared(GATEWAY, false);
}

Test(rules_guard, a_large_change_is_refused_as_a_whole)
{
	struct error err;

	start_at_host("");
	cr_expect_eq(add_many_with("10.0.0.0/24", false, &err), -EHOSTUNREACH);
	expect_text(&err,
		    "10.0.0.0/24 covers 10.0.0.254, the default gateway on eth0: this would cut "
		    "this host off; use --force if it is meant");
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_BLOCK), 0);
	expect_agreement();
}

Test(rules_guard, the_allowlist_keeps_what_lets_the_caller_in)
{
	struct rules_request request;
	struct rules_count count;
	struct error err;

	start_at_host("blacklist.addresses = ['198.51.100.0/24']");
	cr_assert_eq(allow("198.51.100.7"), 0);
	request = one(RULES_REMOVE, TABLE_ALLOW, "198.51.100.7", false);
	request.sessions[request.n_sessions++] = prefix_of("198.51.100.7");
	cr_expect_eq(submit(request, &count, &err), -EHOSTUNREACH);
	cr_expect(is_in(rules_policy(rules)->allow[ORIGIN_RUNTIME], "198.51.100.7"));
	request = one(RULES_REMOVE, TABLE_ALLOW, "198.51.100.7", true);
	request.sessions[request.n_sessions++] = prefix_of("198.51.100.7");
	cr_expect_eq(submit(request, &count, &err), 0, "%s", err.text);
	expect_agreement();
}

/* ---- forced ---- */

Test(rules_guard, what_is_forced_blocks_after_a_restart_too)
{
	struct error err;

	start_at_host("");
	cr_assert_eq(add_one("10.0.0.0/24", true), 0);
	cr_expect(is_forced("10.0.0.0/24"));
	expect_spared(GATEWAY, false);
	restart("");
	cr_expect(is_forced("10.0.0.0/24"));
	expect_spared(GATEWAY, false);
	cr_assert_eq(add_one("10.0.0.0/24", false), 0, "it is there already");
	cr_expect(is_forced("10.0.0.0/24"));
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.0/24", NULL), 0);
	cr_expect_not(is_forced("10.0.0.0/24"));
	expect_agreement();
}

Test(rules_guard, a_large_change_can_be_forced)
{
	struct rules_request request;
	struct rules_count count;
	struct error err;

	start_at_host("");
	cr_assert_eq(add_many_with("10.0.0.0/24", true, &err), 0, "%s", err.text);
	cr_expect(is_forced("10.0.0.0/24"));
	cr_expect_eq(ruleset_size(rules_policy(rules)->forced), 1);
	expect_spared(GATEWAY, false);
	restart("");
	cr_expect(is_forced("10.0.0.0/24"));
	expect_spared(GATEWAY, false);
	request = many_with("10.0.0.0/24", false);
	request.kind = RULES_REMOVE;
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	cr_expect_not(is_forced("10.0.0.0/24"));
	expect_agreement();
}

Test(rules_guard, a_flush_forgets_what_was_forced)
{
	struct rules_count count;
	struct error err;

	start_at_host("");
	cr_assert_eq(add_many_with("10.0.0.0/24", true, &err), 0, "%s", err.text);
	cr_assert_eq(
		submit((struct rules_request){.kind = RULES_FLUSH, .list_fd = -1}, &count, &err), 0,
		"%s", err.text);
	cr_expect_not(is_forced("10.0.0.0/24"));
	restart("");
	cr_expect_not(is_forced("10.0.0.0/24"));
	expect_agreement();
}

Test(rules_guard, a_forced_rule_that_ends_is_forgotten)
{
	struct rules_request request;
	struct rules_count count;
	struct error err;

	start_at_host("");
	request = one(RULES_ADD, TABLE_BLOCK, "10.0.0.0/24", true);
	request.ttl_s = 1;
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	cr_expect(is_forced("10.0.0.0/24"));
	while (rules_expire(rules))
		usleep(50 * 1000);
	cr_expect_not(is_forced("10.0.0.0/24"));
	expect_agreement();
}

Test(rules_guard, a_forced_rule_that_ends_while_fwd_is_stopped_is_forgotten)
{
	struct rules_request request;
	struct rules_count count;
	struct error err;

	start_at_host("");
	request = one(RULES_ADD, TABLE_BLOCK, "10.0.0.0/24", true);
	request.ttl_s = 1;
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	stop();
	usleep(1100 * 1000);
	start_at_host("");
	cr_expect_not(is_forced("10.0.0.0/24"));
	expect_agreement();
}

Test(rules_guard, what_cannot_be_made_durable_is_not_forced)
{
	start_at_host("");
	refuse = REFUSE_STORE_COMMIT;
	cr_expect_eq(add_one("10.0.0.0/24", true), -EIO);
	refuse = 0;
	cr_expect_not(is_forced("10.0.0.0/24"));
	expect_blocked("10.0.0.0/24", false);
	expect_spared(GATEWAY, false);
}

/* ---- spared ---- */

Test(rules_guard, a_start_spares_what_the_configuration_blocks)
{
	start_at_host("blacklist.addresses = ['10.0.0.0/8']");
	expect_spared(GATEWAY, true);
	expect_spared(OWN, true);
	restart("blacklist.addresses = ['10.0.0.0/8']");
	expect_spared(GATEWAY, true);
	restart("");
	expect_spared(GATEWAY, false);
}

Test(rules_guard, what_appears_later_is_spared_and_what_goes_is_not)
{
	start("blacklist.addresses = ['10.0.0.0/8']");
	expect_spared(GATEWAY, false);
	set_locals(1);
	expect_spared(OWN, true);
	expect_spared(GATEWAY, false);
	set_locals(2);
	expect_spared(GATEWAY, true);
	set_locals(0);
	expect_spared(OWN, false);
	expect_spared(GATEWAY, false);
}

Test(rules_guard, a_rule_from_before_spares_what_appears)
{
	struct error err;

	start("");
	add("10.0.0.0/24");
	set_locals(2);
	expect_spared(GATEWAY, true);
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.0/24", NULL), 0);
	expect_spared(GATEWAY, false);
	expect_spared(OWN, false);
}

Test(rules_guard, a_reload_spares_in_the_same_switch)
{
	struct error err;

	start_at_host("");
	cr_assert_eq(reload("blacklist.addresses = ['10.0.0.0/8']", &err), 0, "%s", err.text);
	expect_spared(GATEWAY, true);
	cr_assert_eq(reload("blacklist.addresses = ['10.0.0.0/8', '10.0.0.254']", &err), 0, "%s",
		     err.text);
	expect_spared(GATEWAY, false);
	expect_spared(OWN, true);
	cr_assert_eq(reload("blacklist.addresses = ['10.0.0.0/8']\nallowlist.system = false", &err),
		     0, "%s", err.text);
	expect_spared(OWN, false);
}

Test(rules_guard, a_feed_that_is_replaced_spares)
{
	struct rules_request request = {.kind = RULES_FEED_REPLACE, .list_fd = -1};
	struct rules_count count;
	struct error err;
	struct prefix prefix;

	start_at_host("[[blacklist.feed]]\nname = 'drop'");
	prefix = prefix_of(GATEWAY);
	request.prefixes = copy_prefixes(&prefix, request.n = 1);
	strcpy(request.feed, "drop");
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	expect_blocked(GATEWAY, true);
	expect_spared(GATEWAY, true);
}

Test(rules_guard, who_allows_it_takes_over_from_the_daemon)
{
	const struct prefix gateway = prefix_of(GATEWAY);
	struct prefix_state state;
	struct error err;

	start_at_host("blacklist.addresses = ['10.0.0.0/8']");
	cr_assert_eq(allow(GATEWAY), 0);
	cr_expect_not(is_in(rules_policy(rules)->allow[ALLOW_SYSTEM], GATEWAY));
	cr_expect(prefix_map_read(rules_map(rules), TABLE_ALLOW, &gateway, &state));
	expect_agreement();
	cr_assert_eq(del(TABLE_ALLOW, &err, GATEWAY, NULL), 0, "%s", err.text);
	expect_spared(GATEWAY, true);
	cr_expect_eq(del(TABLE_ALLOW, &err, GATEWAY, NULL), -ENOENT);
	expect_text(&err,
		    "10.0.0.254 is on the allowlist by fwd itself: take away what blocks it, or "
		    "set allowlist.system = false");
}

Test(rules_guard, what_is_spared_does_not_fill_the_allowlist)
{
	struct rules_request request = many(RULES_ADD, 0, CONFIG_ALLOW_MAX);
	struct rules_count count;
	struct error err;

	start_at_host("blacklist.addresses = ['10.0.0.0/8']");
	request.table = TABLE_ALLOW;
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	expect_spared(GATEWAY, true);
	cr_expect_eq(allow("192.0.2.1"), -ENOSPC);
}

/* ---- beside a large change ---- */

static void set_locals_during(struct rules_request request, size_t n)
{
	struct ending ending;

	hold_worker();
	cr_assert_eq(submit_later(request, &ending), -EINPROGRESS);
	set_locals(n);
	release_worker();
	await(&ending);
	cr_assert_eq(ending.r, 0, "%s", ending.err.text);
}

Test(rules_guard, what_appears_while_many_are_added_is_spared)
{
	start("blacklist.addresses = ['10.0.0.0/8']");
	set_locals_during(many(RULES_ADD, 0, LARGE), 2);
	expect_spared(GATEWAY, true);
	expect_spared(OWN, true);
}

Test(rules_guard, what_a_large_change_blocks_is_spared_though_it_appeared_meanwhile)
{
	start("");
	set_locals_during(many_with("10.0.0.0/8", false), 2);
	expect_blocked("10.0.0.0/8", true);
	expect_spared(GATEWAY, true);
}

Test(rules_guard, what_goes_while_many_are_added_is_no_longer_spared)
{
	start_at_host("blacklist.addresses = ['10.0.0.0/8']");
	set_locals_during(many(RULES_ADD, 0, LARGE), 0);
	expect_spared(GATEWAY, false);
	expect_spared(OWN, false);
}

Test(rules_guard, what_is_to_be_spared_of_much_that_changed_meanwhile_is_spared)
{
	struct ending ending;

	start("");
	submit_ok(many(RULES_ADD, LARGE, LARGE));
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &ending), -EINPROGRESS);
	add("10.0.0.0/8");
	submit_at_once(many(RULES_REMOVE, LARGE, 600));
	set_locals(2);
	release_worker();
	await(&ending);
	cr_assert_eq(ending.r, 0, "%s", ending.err.text);
	expect_spared(GATEWAY, true);
	expect_spared(OWN, true);
	expect_agreement();
}

Test(rules_guard, what_was_forced_and_goes_while_many_are_added_is_not_forced_by_them)
{
	struct ending ending;
	struct error err;

	start_at_host("");
	cr_assert_eq(add_one("10.0.0.0/8", true), 0);
	hold_worker();
	cr_assert_eq(submit_later(many_with("10.0.0.0/8", false), &ending), -EINPROGRESS);
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.0/8", NULL), 0);
	release_worker();
	await(&ending);
	cr_assert_eq(ending.r, 0, "%s", ending.err.text);
	expect_blocked("10.0.0.0/8", true);
	cr_expect_not(is_forced("10.0.0.0/8"));
	expect_spared(GATEWAY, true);
	expect_agreement();
}

Test(rules_guard, what_is_forced_while_many_are_added_stays_forced)
{
	struct rules_count count;
	struct ending ending;
	struct error err;
	struct rules_request request;

	start_at_host("");
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &ending), -EINPROGRESS);
	request = one(RULES_ADD, TABLE_BLOCK, "10.0.0.0/24", true);
	cr_assert_eq(rules_submit(rules, &request, &(struct rules_later){0}, &count, &err), 0, "%s",
		     err.text);
	release_worker();
	await(&ending);
	cr_assert_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect(is_forced("10.0.0.0/24"));
	expect_spared(GATEWAY, false);
	restart("");
	cr_expect(is_forced("10.0.0.0/24"));
}
