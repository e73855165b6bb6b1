// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The life of the rules over a real database and real maps, with no interface: each change happens
 * as a whole or leaves everything as it was.
 */
#include "rules.h"

#include "clock.h"
#include "private_bpffs.h"
#include "temporary.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <sys/stat.h>

/* ---- the parts of a daemon that rules need ---- */

static struct links *links;
static struct tc *tc;
static struct interfaces *ifs;
static struct store *store;
static struct rules *rules;

static void set_up(void)
{
	struct error err;

	enter_private_bpffs();
	temporary_make();
	cr_assert_eq(links_open(&links, &err), 0, "%s", err.text);
	cr_assert_eq(tc_open(&tc, &err), 0, "%s", err.text);
}

static void stop(void)
{
	rules_close(take_pointer(&rules));
	interfaces_close(take_pointer(&ifs));
	store_close(take_pointer(&store));
}

static void tear_down(void)
{
	stop();
	tc_close(tc);
	links_close(links);
	temporary_remove();
}

TestSuite(rules, .init = set_up, .fini = tear_down, .timeout = 120);

static struct config *parse_config(const char *text)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	char whole[1 << 18];

	snprintf(whole, sizeof(whole), "daemon.pin_dir = '%s'\n%s", PIN_DIR, text);
	cr_assert_eq(config_parse(whole, strlen(whole), &config, &errors), 0, "%s",
		     errors.n ? errors.items[0].message : "");
	return config;
}

static void start(const char *config)
{
	struct error err;

	cr_assert_eq(store_open(temporary, &store, &err), 0, "%s", err.text);
	cr_assert_eq(interfaces_open(links, tc, &ifs, &err), 0, "%s", err.text);
	cr_assert_eq(rules_open(parse_config(config), store, ifs, &rules, &err), 0, "%s", err.text);
}

static void restart(const char *config)
{
	stop();
	start(config);
}

/* -errno; on success the configuration is the rules'. */
static int reload(const char *text, struct error *err)
{
	struct config *config = parse_config(text);
	struct rules_count count;
	int r = rules_reload(rules, config, &count, err);

	if (r < 0)
		config_free(config);
	return r;
}

/* ---- rules by text ---- */

#define PREFIXES_AT_ONCE 8

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0, "%s", text);
	return prefix;
}

/* Up to a NULL. */
static size_t read_prefixes(va_list texts, struct prefix *ret)
{
	const char *text;
	size_t n = 0;

	while ((text = va_arg(texts, const char *))) {
		cr_assert_lt(n, PREFIXES_AT_ONCE);
		ret[n++] = prefix_of(text);
	}
	return n;
}

static int add_with(s64 ttl_s, const char *comment, struct rules_count *ret, struct error *err, ...)
{
	struct prefix prefixes[PREFIXES_AT_ONCE];
	va_list texts;
	size_t n;

	va_start(texts, err);
	n = read_prefixes(texts, prefixes);
	va_end(texts);
	return rules_add(rules, STORE_BLOCK, prefixes, n, ttl_s, comment, ret, err);
}

static void add(const char *text)
{
	struct rules_count count;
	struct error err;

	cr_assert_eq(add_with(0, NULL, &count, &err, text, NULL), 0, "%s", err.text);
}

static int del(enum store_table table, struct error *err, ...)
{
	struct prefix prefixes[PREFIXES_AT_ONCE];
	struct rules_count count;
	va_list texts;
	size_t n;

	va_start(texts, err);
	n = read_prefixes(texts, prefixes);
	va_end(texts);
	return rules_remove(rules, table, prefixes, n, &count, err);
}

/* What packets see. */
static const struct fwd_entry *find_entry(const char *text)
{
	const struct prefix prefix = prefix_of(text);

	return prefix_map_find(datapath_block(rules_datapath(rules)), &prefix);
}

static const struct rule *find_rule(size_t origin, const char *text)
{
	const struct prefix prefix = prefix_of(text);

	return ruleset_find(rules_policy(rules)->origins[origin].rules, &prefix);
}

/* The policy, the database and the maps agree on it. */
static void expect_blocked(const char *text, bool blocked)
{
	struct policy_sets sets = policy_block_sets(rules_policy(rules));
	_cleanup_(ruleset_freep) struct ruleset *stored = NULL;
	const struct prefix prefix = prefix_of(text);
	struct effective effective;

	cr_expect_eq(policy_effective(&sets, &prefix, &effective), blocked, "%s: the policy", text);
	cr_expect_eq(find_entry(text) != NULL, blocked, "%s: the maps", text);
	cr_assert_eq(store_load(store, STORE_BLOCK, &stored, NULL), 0);
	cr_expect_eq(!ruleset_find(stored, &prefix), !find_rule(ORIGIN_RUNTIME, text),
		     "%s: the database", text);
}

static void expect_text(const struct error *err, const char *text)
{
	cr_expect_str_eq(err->text, text);
}

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
	cr_assert_eq(del(STORE_BLOCK, &err, "10.0.0.2", NULL), 0);
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
	cr_expect_eq(find_entry("10.0.0.1")->expires_ns, rule->expires_ns);
	((struct fwd_entry *)find_entry("10.0.0.1"))->packets = 7;
	((struct rule *)rule)->created_s = 5;
	cr_assert_eq(add_with(0, "second", &count, &err, "10.0.0.1", NULL), 0);
	cr_expect_eq(count.added, 0);
	cr_expect_eq(count.updated, 1);
	rule = find_rule(ORIGIN_RUNTIME, "10.0.0.1");
	cr_expect_eq(rule->expires_ns, 0);
	cr_expect_str_eq(comment_text(rule->comment), "second");
	cr_expect_eq(rule->created_s, 5, "its age begins anew");
	cr_expect_eq(find_entry("10.0.0.1")->expires_ns, 0);
	cr_expect_eq(find_entry("10.0.0.1")->packets, 7);
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
	cr_expect_eq(del(STORE_BLOCK, &err, "10.0.0.1", "192.0.2.1", NULL), -ENOENT);
	expect_text(&err, "192.0.2.1 comes from the configuration: take it out there and reload");
	cr_expect_eq(del(STORE_BLOCK, &err, "10.0.0.1", "10.0.0.0/24", NULL), -ENOENT);
	expect_text(&err, "10.0.0.0/24 is not blocked");
	cr_expect_eq(del(STORE_ALLOW, &err, "203.0.113.1", NULL), -ENOENT);
	expect_text(&err, "203.0.113.1 comes from the configuration: take it out there and reload");
	cr_expect_eq(del(STORE_ALLOW, &err, "10.0.0.1", NULL), -ENOENT);
	expect_text(&err, "10.0.0.1 is not on the allowlist");
	expect_blocked("10.0.0.1", true);
	expect_blocked("192.0.2.1", true);
	cr_expect_eq(del(STORE_BLOCK, &err, "10.0.0.1", "10.0.0.1", NULL), 0);
	expect_blocked("10.0.0.1", false);
}

static void start_with_feed(const char *feed)
{
	char config[512];

	temporary_write("feed", feed, strlen(feed));
	snprintf(config, sizeof(config), "[[blacklist.feed]]\nname = 'drop'\nfile = '%s'\n",
		 temporary_path("feed"));
	start(config);
}

static int reload_feed(const char *feed, struct error *err)
{
	char config[512];

	temporary_write("feed", feed, strlen(feed));
	snprintf(config, sizeof(config), "[[blacklist.feed]]\nname = 'drop'\nfile = '%s'\n",
		 temporary_path("feed"));
	return reload(config, err);
}

Test(rules, a_prefix_of_a_feed_stays_when_its_runtime_rule_goes)
{
	struct rules_count count;
	struct error err;

	start_with_feed("198.51.100.1\n");
	cr_assert_eq(add_with(60, NULL, &count, &err, "198.51.100.1", NULL), 0);
	cr_expect_eq(find_entry("198.51.100.1")->expires_ns, 0, "the feed has it for good");
	cr_assert_eq(del(STORE_BLOCK, &err, "198.51.100.1", NULL), 0);
	expect_blocked("198.51.100.1", true);
	cr_expect_eq(del(STORE_BLOCK, &err, "198.51.100.1", NULL), -ENOENT);
	expect_text(&err,
		    "198.51.100.1 comes from the feed \"drop\": take it out there and reload");
}

Test(rules, flush_removes_runtime_rules_alone)
{
	struct rules_count count;

	start("blacklist.addresses = ['192.0.2.1']");
	add("10.0.0.1");
	add("192.0.2.1");
	cr_assert_eq(rules_flush(rules, STORE_BLOCK, &count, NULL), 0);
	cr_expect_eq(count.removed, 2);
	expect_blocked("10.0.0.1", false);
	expect_blocked("192.0.2.1", true);
	cr_assert_eq(rules_flush(rules, STORE_BLOCK, &count, NULL), 0);
	cr_expect_eq(count.removed, 0);
}

Test(rules, ended_rules_go_and_what_others_have_stays)
{
	struct rules_count count;
	struct error err;
	u64 next;

	start("blacklist.addresses = ['192.0.2.1']");
	cr_assert_eq(add_with(1, NULL, &count, &err, "10.0.0.1", "192.0.2.1", NULL), 0);
	cr_assert_eq(add_with(3600, NULL, &count, &err, "10.0.0.2", NULL), 0);
	cr_assert_eq(add_with(1, NULL, &count, &err, "10.0.0.3", NULL), 0);
	cr_assert_eq(add_with(0, NULL, &count, &err, "10.0.0.3", NULL), 0, "for good now");
	next = rules_expire(rules);
	cr_expect(next > boot_ns() && next <= boot_ns() + NS_PER_S);
	expect_blocked("10.0.0.1", true);
	while (boot_ns() < next + NS_PER_S / 10)
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
	cr_assert_eq(del(STORE_BLOCK, &err, "10.0.0.2", NULL), 0);
	((struct fwd_entry *)find_entry("10.0.0.1"))->packets = 7;
	restart("blacklist.addresses = ['192.0.2.2']");
	cr_expect(rules_adopted(rules));
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.2", false);
	expect_blocked("192.0.2.1", false);
	expect_blocked("192.0.2.2", true);
	cr_expect_eq(find_entry("10.0.0.1")->packets, 7);
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

	cr_assert_eq(sqlite3_open(temporary_path("rules.db"), &db), SQLITE_OK);
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
	cr_expect_eq(del(STORE_BLOCK, &err, "10.0.0.1", NULL), -EIO);
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
	struct prefix *prefixes = calloc(n, sizeof(*prefixes));
	struct rules_count count;
	struct error err;

	for (u32 i = 0; i < n; i++) {
		u32 number = first + i;

		prefixes[i] = (struct prefix){
			.family = number % 2 ? FAMILY_IPV4 : FAMILY_IPV6,
			.len = 32,
			.addr = {20, (u8)(number >> 16), (u8)(number >> 8), (u8)number},
		};
	}
	cr_assert_eq(rules_add(rules, STORE_BLOCK, prefixes, n, 0, NULL, &count, &err), 0, "%s",
		     err.text);
	cr_expect_eq(count.added, n);
	free(prefixes);
}

Test(rules, grow_beyond_the_maps_and_keep_the_hits)
{
	u32 capacity;

	start("blacklist.addresses = ['192.0.2.1']");
	capacity = prefix_map_capacity(datapath_block(rules_datapath(rules)));
	cr_assert_eq(capacity, 1024);
	add("10.0.0.1");
	((struct fwd_entry *)find_entry("10.0.0.1"))->packets = 7;
	((struct fwd_entry *)find_entry("10.0.0.1"))->last_hit_ns = 5;
	add_many(0, capacity - 2);
	cr_expect_eq(prefix_map_capacity(datapath_block(rules_datapath(rules))), capacity,
		     "it is just full");
	add_many(capacity - 2, 1);
	cr_expect_gt(prefix_map_capacity(datapath_block(rules_datapath(rules))), capacity);
	add_many(capacity, 20000);
	cr_expect_eq(prefix_map_size(datapath_block(rules_datapath(rules))), capacity + 20001);
	cr_expect_eq(find_entry("10.0.0.1")->packets, 7);
	cr_expect_eq(find_entry("10.0.0.1")->last_hit_ns, 5);
	expect_blocked("192.0.2.1", true);
	restart("blacklist.addresses = ['192.0.2.1']");
	cr_expect(rules_adopted(rules), "the larger maps were pinned in the place of the others");
	cr_expect_eq(prefix_map_size(datapath_block(rules_datapath(rules))), capacity + 20001);
	cr_expect_eq(find_entry("10.0.0.1")->packets, 7);
}

/* ---- reload ---- */

Test(rules, a_reload_replaces_configuration_and_feeds_and_keeps_runtime_rules)
{
	struct error err;

	start_with_feed("198.51.100.1\n198.51.100.2\n");
	add("10.0.0.1");
	add("198.51.100.2");
	((struct fwd_entry *)find_entry("198.51.100.1"))->packets = 7;
	cr_assert_eq(reload_feed("198.51.100.1\n198.51.100.3\n", &err), 0, "%s", err.text);
	expect_blocked("10.0.0.1", true);
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", true);
	expect_blocked("198.51.100.3", true);
	cr_expect_eq(find_entry("198.51.100.1")->packets, 7);
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
	cr_expect_eq(prefix_map_size(datapath_block(rules_datapath(rules))), 5001);
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
	struct prefix allowed = prefix_of("10.0.0.0/24");
	const struct prefix inner = prefix_of("10.0.0.0/16");
	struct rules_count count;
	struct rules_match both;
	struct error err;

	start("blacklist.addresses = ['10.0.0.0/8', '10.0.0.0/16']");
	cr_assert_eq(rules_add(rules, STORE_ALLOW, &allowed, 1, 0, NULL, &count, &err), 0);
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
