// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The life of the rules over a real database and real maps, with no interface: each change happens
 * as a whole or leaves everything as it was.
 */
#include "clock.h"
#include "private_bpffs.h"
#include "rules_parts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <sys/stat.h>

TestSuite(rules, .init = rules_set_up, .fini = rules_tear_down, .timeout = 120);

/* ---- adding ---- */

Test(rules, fill_up_to_max_entries_and_not_one_more)
{
	struct rules_count count;
	struct error err;

	start("blacklist.max_entries = 5\n"
	      "blacklist.addresses = ['192.0.2.1', '2001:db8::/32']");
	cr_assert_eq(add_with(0, NULL, &count, &err, "10.0.0.1", "10.0.0.2", NULL), 0);
	cr_expect_eq(add_with(0, NULL, &count, &err, "10.0.0.3", "10.0.0.4", NULL), -ENOSPC);
	expect_text(&err, "full: 5 of 5 entries");
	expect_blocked("10.0.0.3", false);
	expect_blocked("10.0.0.4", false);
	add("10.0.0.3");
	cr_expect_eq(add_with(0, NULL, &count, &err, "10.0.0.4", NULL), -ENOSPC);
	expect_text(&err, "full: 5 of 5 entries");
	cr_expect_eq(add_with(60, NULL, &count, &err, "10.0.0.3", "192.0.2.1", NULL), 0,
		     "what is blocked already takes no room");
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.2", NULL), 0);
	add("10.0.0.4");
	expect_blocked("10.0.0.4", true);
}

/* A restart with a smaller bound keeps all, and what is there can still be changed. */
Test(rules, what_is_there_can_be_added_again_where_more_than_max_entries_are)
{
	struct rules_count count;
	struct error err;

	start("");
	cr_assert_eq(add_with(0, NULL, &count, &err, "10.0.0.1", "10.0.0.2", NULL), 0);
	restart("blacklist.max_entries = 1");
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.2", true);
	cr_expect_eq(add_with(60, NULL, &count, &err, "10.0.0.1", NULL), 0, "%s", err.text);
	cr_expect_eq(count.updated, 1);
	cr_expect_eq(add_with(0, NULL, &count, &err, "10.0.0.3", NULL), -ENOSPC);
	expect_text(&err, "full: 1 of 1 entries");
}

Test(rules, adding_again_replaces_ttl_and_comment_and_keeps_the_hits)
{
	const struct rule *rule;
	struct rules_count count;
	struct error err;

	start("");
	cr_assert_eq(add_with(3600, "first", &count, &err, "10.0.0.1", "10.0.0.1", NULL), 0);
	cr_expect_eq(count.added, 1, "twice in a list is once");
	rule = find_rule(ORIGIN_RUNTIME, "10.0.0.1");
	cr_expect_gt(rule->expires_ns, boot_ns() + 3590 * NS_PER_S);
	cr_expect_leq(rule->expires_ns, boot_ns() + 3600 * NS_PER_S);
	cr_expect_geq(entry_of("10.0.0.1").expires_ns, rule->expires_ns);
	cr_expect_lt(entry_of("10.0.0.1").expires_ns, rule->expires_ns + (1u << FWD_END_SHIFT));
	set_hits("10.0.0.1", 7, 5);
	((struct rule *)rule)->created_s = 5;
	cr_assert_eq(add_with(0, "second", &count, &err, "10.0.0.1", NULL), 0);
	cr_expect_eq(count.added, 0);
	cr_expect_eq(count.updated, 1);
	rule = find_rule(ORIGIN_RUNTIME, "10.0.0.1");
	cr_expect_eq(rule->expires_ns, 0);
	cr_expect_str_eq(comment_text(rule->comment), "second");
	cr_expect_eq(rule->created_s, 5, "its age begins anew");
	cr_expect_eq(entry_of("10.0.0.1").expires_ns, 0);
	cr_expect_eq(entry_of("10.0.0.1").packets, 7);
	cr_assert_eq(add_with(5, NULL, &count, &err, "10.0.0.1", NULL), 0);
	cr_expect_null(find_rule(ORIGIN_RUNTIME, "10.0.0.1")->comment);
}

/* ---- removing ---- */

Test(rules, only_runtime_rules_are_removed_and_all_or_none)
{
	struct error err;

	start("blacklist.addresses = ['192.0.2.1']\n"
	      "allowlist.addresses = ['203.0.113.1']");
	add("10.0.0.1");
	cr_expect_eq(del(TABLE_BLOCK, &err, "10.0.0.1", "192.0.2.1", NULL), -ENOENT);
	expect_text(&err, "192.0.2.1 comes from the configuration: take it out there and reload");
	cr_expect_eq(del(TABLE_BLOCK, &err, "10.0.0.1", "10.0.0.0/24", NULL), -ENOENT);
	expect_text(&err, "10.0.0.0/24 is not blocked");
	cr_expect_eq(del(TABLE_ALLOW, &err, "203.0.113.1", NULL), -ENOENT);
	expect_text(&err, "203.0.113.1 comes from the configuration: take it out there and reload");
	cr_expect_eq(del(TABLE_ALLOW, &err, "10.0.0.1", NULL), -ENOENT);
	expect_text(&err, "10.0.0.1 is not on the allowlist");
	expect_blocked("10.0.0.1", true);
	expect_blocked("192.0.2.1", true);
	cr_expect_eq(del(TABLE_BLOCK, &err, "10.0.0.1", "10.0.0.1", NULL), 0);
	expect_blocked("10.0.0.1", false);
}

static const char *config_with_feed(const char *feed)
{
	static char config[4500];

	write_file("feed", feed);
	snprintf(config, sizeof(config), "[[blacklist.feed]]\nname = 'drop'\nfile = '%s'\n",
		 file_path("feed"));
	return config;
}

static void start_with_feed(const char *feed)
{
	start(config_with_feed(feed));
}

static int reload_feed(const char *feed, struct error *err)
{
	return reload(config_with_feed(feed), err);
}

Test(rules, a_prefix_of_a_feed_stays_when_its_runtime_rule_goes)
{
	struct rules_count count;
	struct error err;

	start_with_feed("198.51.100.1\n");
	cr_assert_eq(add_with(60, NULL, &count, &err, "198.51.100.1", NULL), 0);
	cr_expect_eq(entry_of("198.51.100.1").expires_ns, 0, "the feed has it for good");
	cr_assert_eq(del(TABLE_BLOCK, &err, "198.51.100.1", NULL), 0);
	expect_blocked("198.51.100.1", true);
	cr_expect_eq(del(TABLE_BLOCK, &err, "198.51.100.1", NULL), -ENOENT);
	expect_text(&err,
		    "198.51.100.1 comes from the feed \"drop\": take it out there and reload");
}

Test(rules, flush_removes_runtime_rules_alone)
{
	const struct rules_request request = {.kind = RULES_FLUSH, .list_fd = -1};
	struct rules_count count;
	struct error err;

	start("blacklist.addresses = ['192.0.2.1']");
	add("10.0.0.1");
	add("192.0.2.1");
	cr_assert_eq(allow("10.0.0.2"), 0);
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	cr_expect_eq(count.removed, 2);
	expect_blocked("10.0.0.1", false);
	expect_blocked("192.0.2.1", true);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_ALLOW), 1);
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	cr_expect_eq(count.removed, 0);
}

Test(rules, ended_rules_go_and_what_others_have_stays)
{
	struct rules_count count;
	struct error err;
	u64 next, ended;

	start("blacklist.addresses = ['192.0.2.1']");
	cr_assert_eq(add_with(1, NULL, &count, &err, "10.0.0.1", "192.0.2.1", NULL), 0);
	cr_assert_eq(add_with(3600, NULL, &count, &err, "10.0.0.2", NULL), 0);
	cr_assert_eq(add_with(1, NULL, &count, &err, "10.0.0.3", NULL), 0);
	cr_assert_eq(add_with(0, NULL, &count, &err, "10.0.0.3", NULL), 0, "for good now");
	ended = boot_ns() + NS_PER_S + NS_PER_S / 10;
	next = rules_expire(rules);
	cr_expect(next > boot_ns() && next <= boot_ns() + NS_PER_S);
	expect_blocked("10.0.0.1", true);
	while (boot_ns() < ended)
		usleep(10000);
	next = rules_expire(rules);
	cr_expect_gt(next, boot_ns() + 3500 * NS_PER_S);
	expect_blocked("10.0.0.1", false);
	expect_blocked("10.0.0.2", true);
	expect_blocked("10.0.0.3", true);
	expect_blocked("192.0.2.1", true);
	cr_expect_null(find_rule(ORIGIN_RUNTIME, "192.0.2.1"));
}

/* ---- durability ---- */

Test(rules, a_restart_adopts_what_is_pinned_and_keeps_the_hits)
{
	struct error err;

	start("blacklist.addresses = ['192.0.2.1']");
	cr_expect_not(rules_adopted(rules));
	add("10.0.0.1");
	add("10.0.0.2");
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.2", NULL), 0);
	set_hits("10.0.0.1", 7, 5);
	restart("blacklist.addresses = ['192.0.2.2']");
	cr_expect(rules_adopted(rules));
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.2", false);
	expect_blocked("192.0.2.1", false);
	expect_blocked("192.0.2.2", true);
	cr_expect_eq(entry_of("10.0.0.1").packets, 7);
}

Test(rules, a_start_without_pins_makes_everything_from_the_database)
{
	start("");
	add("10.0.0.1");
	stop();
	cr_assert_eq(datapath_remove_pins(PIN_DIR, NULL), 0);
	cr_assert_eq(mkdir(PIN_DIR, 0700), 0);
	start("");
	cr_expect_not(rules_adopted(rules));
	expect_blocked("10.0.0.1", true);
}

static sqlite3 *lock_database(void)
{
	sqlite3 *db;

	cr_assert_eq(sqlite3_open(file_path("rules.db"), &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	return db;
}

/* The database is locked by somebody else, who stands for a full or broken disk. */
Test(rules, what_cannot_be_made_durable_does_not_happen)
{
	const struct redirect redirect = {
		.protocol = IPPROTO_TCP, .port_first = 80, .port_last = 80, .target = "lan"};
	struct rules_count count = {.added = 99};
	struct error err;
	sqlite3 *db;

	start("");
	add("10.0.0.1");
	db = lock_database();
	cr_expect_eq(add_with(0, "x", &count, &err, "10.0.0.2", "10.0.0.3", NULL), -EIO);
	cr_expect(strstr(err.text, "cannot write"), "%s", err.text);
	cr_expect_eq(count.added, 99, "the output was touched");
	cr_expect_eq(del(TABLE_BLOCK, &err, "10.0.0.1", NULL), -EIO);
	cr_expect_eq(rules_add_redirect(rules, &redirect, &count, &err), -EIO);
	sqlite3_close(db);
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.2", false);
	cr_expect_eq(rules_policy(rules)->n_redirects, 0);
	add("10.0.0.2");
	expect_blocked("10.0.0.2", true);
}

/* ---- growth ---- */

static void add_many(u32 first, u32 n)
{
	struct rules_count count;
	struct error err;

	cr_assert_eq(submit(many(RULES_ADD, first, n), &count, &err), 0, "%s", err.text);
	cr_expect_eq(count.added, n);
}

Test(rules, grow_beyond_the_maps_and_keep_the_hits)
{
	u32 capacity;

	start("blacklist.addresses = ['192.0.2.1']");
	capacity = prefix_map_capacity(rules_map(rules));
	add("10.0.0.1");
	set_hits("10.0.0.1", 7, 5);
	add_many(0, RULES_SMALL);
	cr_expect_gt(prefix_map_capacity(rules_map(rules)), capacity);
	add_many(RULES_SMALL, 20000);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_BLOCK), 2 + RULES_SMALL + 20000);
	cr_expect_eq(entry_of("10.0.0.1").packets, 7);
	cr_expect_eq(entry_of("10.0.0.1").bytes, 700);
	cr_expect_eq(entry_of("10.0.0.1").last_hit, 5);
	expect_blocked("192.0.2.1", true);
	restart("blacklist.addresses = ['192.0.2.1']");
	cr_expect(rules_adopted(rules), "the larger maps were pinned in the place of the others");
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_BLOCK), 2 + RULES_SMALL + 20000);
	cr_expect_eq(entry_of("10.0.0.1").packets, 7);
	expect_agreement();
}

/* Room is made ahead: no change has to wait for it. */
Test(rules, small_changes_one_after_the_other_find_room)
{
	start("");
	for (u32 i = 0; i < 3000; i++) {
		struct rules_count count;
		struct error err;

		cr_assert_eq(submit(many(RULES_ADD, i, 1), &count, &err), 0, "%s", err.text);
	}
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_BLOCK), 3000);
	cr_expect(prefix_map_fits(rules_map(rules)));
	expect_agreement();
}

/* ---- reload ---- */

Test(rules, a_reload_replaces_configuration_and_feeds_and_keeps_runtime_rules)
{
	struct error err;

	start_with_feed("198.51.100.1\n198.51.100.2\n");
	add("10.0.0.1");
	add("198.51.100.2");
	set_hits("198.51.100.1", 7, 5);
	cr_assert_eq(reload_feed("198.51.100.1\n198.51.100.3\n", &err), 0, "%s", err.text);
	expect_blocked("10.0.0.1", true);
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", true);
	expect_blocked("198.51.100.3", true);
	cr_expect_eq(entry_of("198.51.100.1").packets, 7);
	cr_assert_eq(reload("blacklist.direction = ['out']", &err), 0, "%s", err.text);
	expect_blocked("198.51.100.1", false);
	expect_blocked("198.51.100.2", true);
	cr_expect_eq(datapath_flags(rules_datapath(rules)), FWD_BLOCK_OUT);
	add("10.0.0.2");
	restart("");
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.2", true);
}

Test(rules, a_failing_reload_leaves_everything_as_it_was)
{
	struct error err = {""};

	start_with_feed("198.51.100.1\n");
	add("10.0.0.1");
	cr_expect_eq(reload_feed("198.51.100.2\n198.51.100.3 oops\n", &err), -EINVAL);
	cr_expect(strstr(err.text, "feed \"drop\": "), "%s", err.text);
	cr_expect(strstr(err.text, ":2: "), "%s", err.text);
	cr_expect_lt(reload("[[blacklist.feed]]\nname = 'a'\nfile = '/nonexistent'\n", &err), 0);
	cr_expect_eq(reload("blacklist.max_entries = 2\n"
			    "blacklist.addresses = ['192.0.2.1', '192.0.2.2']\n"
			    "blacklist.direction = ['out']",
			    &err),
		     -ENOSPC);
	expect_text(&err, "full: 2 of 2 entries");
	expect_blocked("10.0.0.1", true);
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", false);
	expect_blocked("192.0.2.1", false);
	cr_expect_eq(datapath_flags(rules_datapath(rules)), FWD_BLOCK_IN);
	cr_expect_str_eq(rules_policy(rules)->origins[ORIGIN_FEEDS].name, "drop");
	cr_expect_eq(rules_config(rules)->blacklist.n_feeds, 1);
	expect_agreement();
	add("10.0.0.2");
	expect_blocked("10.0.0.2", true);
}

Test(rules, a_reload_with_more_than_the_maps_take_grows_them)
{
	char *feed = malloc(100000), *at = feed;
	struct error err;

	start_with_feed("198.51.100.1\n");
	add("10.0.0.1");
	for (int i = 0; i < 5000; i++)
		at += sprintf(at, "20.0.%d.%d\n", i / 256, i % 256);
	cr_assert_eq(reload_feed(feed, &err), 0, "%s", err.text);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_BLOCK), 5001);
	expect_blocked("198.51.100.1", false);
	expect_blocked("10.0.0.1", true);
	free(feed);
}

/* ---- the allowlist, and what would be dropped ---- */

static struct rules_match match(const char *address)
{
	const struct prefix prefix = prefix_of(address);
	struct rules_match ret;

	rules_test(rules, &prefix, &ret);
	return ret;
}

Test(rules, tell_the_most_specific_rule_of_each_kind)
{
	const struct prefix allowed = prefix_of("10.0.0.0/24");
	const struct prefix inner = prefix_of("10.0.0.0/16");
	struct rules_match both;

	start("blacklist.addresses = ['10.0.0.0/8', '10.0.0.0/16']");
	cr_assert_eq(allow("10.0.0.0/24"), 0);
	both = match("10.0.0.1");
	cr_expect(both.blocked && both.allowed);
	cr_expect(prefix_equal(&both.blocked_by, &inner));
	cr_expect(prefix_equal(&both.allowed_by, &allowed));
	cr_expect(match("10.0.1.1").blocked && !match("10.0.1.1").allowed);
	cr_expect(!match("11.0.0.1").blocked && !match("2001:db8::1").blocked);
}

/* ---- redirects ---- */

static struct redirect tcp(u16 first, u16 last, const char *target)
{
	struct redirect redirect = {
		.protocol = IPPROTO_TCP,
		.port_first = first,
		.port_last = last,
	};

	snprintf(redirect.target, sizeof(redirect.target), "%s", target);
	return redirect;
}

static int add_redirect(const struct redirect *redirect, struct rules_count *ret, struct error *err)
{
	return rules_add_redirect(rules, redirect, ret, err);
}

Test(rules, redirects_are_added_replaced_and_removed)
{
	struct redirect first = tcp(80, 90, "lan"), other = tcp(80, 90, "tun0");
	struct rules_count count;
	struct error err;

	start("");
	cr_assert_eq(add_redirect(&first, &count, &err), 0, "%s", err.text);
	cr_expect_eq(count.added, 1);
	cr_assert_eq(add_redirect(&other, &count, &err), 0, "%s", err.text);
	cr_expect_eq(count.updated, 1);
	cr_expect_eq(rules_policy(rules)->n_redirects, 1);
	restart("");
	cr_assert_eq(rules_policy(rules)->n_redirects, 1);
	cr_expect_str_eq(rules_policy(rules)->redirects[0].target, "tun0");
	cr_assert_eq(rules_remove_redirect(rules, &first, &count, &err), 0, "%s", err.text);
	cr_expect_eq(rules_policy(rules)->n_redirects, 0);
	cr_expect_eq(rules_remove_redirect(rules, &first, &count, &err), -ENOENT);
	expect_text(&err, "there is no redirect of tcp/80-90 in on every interface");
}

#define REDIRECT_80_90 "[[redirect]]\nprotocol = 'tcp'\nport = '80-90'\ntarget = 'lan'\n"

Test(rules, redirects_that_overlap_or_make_no_sense_are_refused)
{
	struct redirect overlap = tcp(90, 95, "lan"), same = tcp(80, 90, "tun0");
	struct redirect beside = tcp(91, 95, "lan"), on_none = tcp(1, 1, "lan");
	struct rules_count count;
	struct error err;

	start(REDIRECT_80_90);
	cr_expect_eq(add_redirect(&overlap, &count, &err), -EEXIST);
	expect_text(&err, "tcp/90-95 overlaps the redirect of tcp/80-90 to \"lan\", from the "
			  "configuration");
	cr_expect_eq(add_redirect(&same, &count, &err), -EEXIST);
	expect_text(&err, "tcp/80-90 is redirected: tcp/80-90 to \"lan\", from the configuration");
	cr_expect_eq(rules_remove_redirect(rules, &same, &count, &err), -ENOENT);
	cr_expect(strstr(err.text, "comes from the configuration"), "%s", err.text);
	strcpy(on_none.interface, "eth0");
	cr_expect_eq(add_redirect(&on_none, &count, &err), -EINVAL);
	cr_expect(strstr(err.text, "\"eth0\" is not an interface of the configuration"), "%s",
		  err.text);
	cr_expect_eq(add_redirect(&beside, &count, &err), 0, "%s", err.text);
	cr_expect_eq(rules_policy(rules)->n_redirects, 2);
	cr_expect_eq(add_redirect(&overlap, &count, &err), -EEXIST);
	cr_expect_eq(rules_policy(rules)->n_redirects, 2);
}

Test(rules, there_is_room_for_1000_redirects_and_not_one_more)
{
	struct redirect last = tcp(60000, 60000, "lan"), more = tcp(60001, 60001, "lan");
	char *config = malloc(1 << 17), *at = config;
	struct rules_count count;
	struct error err;

	for (int i = 1; i < REDIRECTS_MAX; i++)
		at += sprintf(at, "[[redirect]]\nprotocol='tcp'\nport=%d\ntarget='lan'\n", i);
	start(config);
	cr_expect_eq(add_redirect(&last, &count, &err), 0, "%s", err.text);
	cr_expect_eq(add_redirect(&more, &count, &err), -ENOSPC);
	expect_text(&err, "full: 1000 of 1000 redirects");
	strcpy(last.target, "tun0");
	cr_expect_eq(add_redirect(&last, &count, &err), 0, "replacing one needs no room");
	cr_expect_eq(rules_policy(rules)->n_redirects, REDIRECTS_MAX);
	free(config);
}
