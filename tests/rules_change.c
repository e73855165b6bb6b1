// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Large changes, which a worker makes beside the event loop: they happen as a whole or leave
 * everything as it was, and small ones that are made meanwhile are not lost.
 */
#include "clock.h"
#include "rules_parts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

TestSuite(rules_change, .init = rules_set_up, .fini = rules_tear_down, .timeout = 120);

#define LARGE (RULES_SMALL + 1000)

/* ---- the parts of a test ---- */

static struct rules_request of_kind(enum rules_kind kind)
{
	return (struct rules_request){.kind = kind, .list_fd = -1};
}

static struct rules_request with_list(enum rules_kind kind, const char *text)
{
	struct rules_request request = of_kind(kind);

	write_file("list", text);
	request.list_fd = open(file_path("list"), O_RDONLY | O_CLOEXEC);
	cr_assert_geq(request.list_fd, 0);
	return request;
}

static struct rules_request for_feed(struct rules_request request, const char *feed)
{
	snprintf(request.feed, sizeof(request.feed), "%s", feed);
	return request;
}

static const char *text_of(u32 number)
{
	static char text[PREFIX_TEXT_MAX];
	struct prefix prefix = numbered(number);

	prefix_format(&prefix, text);
	return text;
}

static const char *comment_of(const char *prefix)
{
	const struct rule *rule = find_rule(ORIGIN_RUNTIME, prefix);

	cr_assert(rule, "%s has no runtime rule", prefix);
	return rule->comment ? comment_text(rule->comment) : "";
}

static u32 blocked(void)
{
	return prefix_map_size(rules_map(rules), TABLE_BLOCK);
}

/* ---- what each of them does ---- */

Test(rules_change, many_prefixes_are_added_and_removed_in_a_new_bank)
{
	struct rules_count count;
	unsigned first;

	start("");
	first = bank();
	count = submit_ok(many(RULES_ADD, 0, LARGE));
	cr_expect_eq(count.added, LARGE);
	cr_expect_eq(count.updated, 0);
	cr_expect_neq(bank(), first);
	cr_expect_eq(blocked(), LARGE);
	expect_blocked(text_of(LARGE - 1), true);
	count = submit_ok(many(RULES_REMOVE, 1, LARGE - 1));
	cr_expect_eq(count.removed, LARGE - 1);
	cr_expect_eq(bank(), first);
	expect_blocked(text_of(0), true);
	expect_blocked(text_of(1), false);
	restart("");
	cr_expect(rules_adopted(rules));
	cr_expect_eq(blocked(), 1);
	expect_agreement();
}

Test(rules_change, adding_many_again_replaces_ttl_and_comment_and_keeps_age_and_hits)
{
	struct rules_request again = many(RULES_ADD, 0, LARGE + 1);
	struct rules_count count;
	unsigned first;

	start("");
	submit_ok(many(RULES_ADD, 0, LARGE));
	first = bank();
	((struct rule *)find_rule(ORIGIN_RUNTIME, text_of(7)))->created_s -= 100;
	set_hits(text_of(7), 3, 9);
	again.ttl_s = 3600;
	again.comment = comment_new("again");
	count = submit_ok(again);
	cr_expect_eq(count.added, 1);
	cr_expect_eq(count.updated, LARGE);
	cr_expect_neq(bank(), first);
	cr_expect_str_eq(comment_of(text_of(7)), "again");
	cr_expect_gt(find_rule(ORIGIN_RUNTIME, text_of(7))->expires_ns, boot_ns());
	cr_expect_leq(find_rule(ORIGIN_RUNTIME, text_of(7))->created_s, wall_s() - 100);
	cr_expect_eq(entry_of(text_of(7)).packets, 3);
	cr_expect_eq(entry_of(text_of(7)).bytes, 300);
	cr_expect_eq(entry_of(text_of(7)).last_hit, 9);
	cr_expect_geq(entry_of(text_of(7)).expires_ns,
		      find_rule(ORIGIN_RUNTIME, text_of(7))->expires_ns);
	cr_expect_gt(rules_expire(rules), boot_ns(), "nothing reminds of the ends");
}

Test(rules_change, a_list_in_a_file_is_parsed_once_and_whole)
{
	struct rules_count count = {.added = 99};
	struct error err;

	start("");
	add("10.0.0.1");
	cr_expect_eq(submit(with_list(RULES_ADD, "192.0.2.1\n\n192.0.2.300\n"), &count, &err),
		     -EINVAL);
	cr_expect(strstr(err.text, "line 3: \"192.0.2.300\""), "%s", err.text);
	cr_expect_eq(count.added, 99, "the output was touched");
	expect_blocked("192.0.2.1", false);
	count = submit_ok(with_list(RULES_ADD, "192.0.2.2\n192.0.2.1 # twice\n192.0.2.1\n"));
	cr_expect_eq(count.added, 2);
	expect_blocked("192.0.2.1", true);
	cr_expect_eq(submit(with_list(RULES_REMOVE, "192.0.2.1\n192.0.2.9\n"), &count, &err),
		     -ENOENT);
	expect_text(&err, "192.0.2.9 is not blocked");
	expect_blocked("192.0.2.1", true);
	count = submit_ok(with_list(RULES_REMOVE, "192.0.2.1\n192.0.2.2\n"));
	cr_expect_eq(count.removed, 2);
	expect_blocked("192.0.2.1", false);
	expect_blocked("10.0.0.1", true);
}

Test(rules_change, an_empty_list_changes_nothing)
{
	start("");
	add("10.0.0.1");
	cr_expect_eq(submit_ok(with_list(RULES_ADD, "# none\n")).added, 0);
	cr_expect_eq(submit_ok(with_list(RULES_REMOVE, "")).removed, 0);
	expect_blocked("10.0.0.1", true);
}

Test(rules_change, a_large_flush_removes_runtime_rules_alone)
{
	start("blacklist.addresses = ['192.0.2.1']");
	submit_ok(many(RULES_ADD, 0, LARGE));
	cr_assert_eq(allow("10.0.0.2"), 0);
	cr_expect_eq(submit_ok(of_kind(RULES_FLUSH)).removed, LARGE);
	cr_expect_eq(blocked(), 1);
	expect_blocked("192.0.2.1", true);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_ALLOW), 1);
	restart("blacklist.addresses = ['192.0.2.1']");
	cr_expect_eq(blocked(), 1);
	expect_agreement();
}

/* ---- feeds ---- */

Test(rules_change, a_feed_is_replaced_by_a_list_until_its_file_is_read_again)
{
	struct rules_count count;

	start(two_feeds());
	count = submit_ok(
		for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.1\n198.51.100.2\n"), "drop"));
	cr_expect_eq(count.entries, 2);
	cr_expect_eq(count.added, 1);
	cr_expect_eq(count.removed, 0);
	expect_blocked("198.51.100.2", true);
	count = submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.3\n"), "given"));
	cr_expect_eq(count.entries, 1);
	restart(two_feeds());
	expect_blocked("198.51.100.2", true);
	expect_blocked("198.51.100.3", true);
	count = submit_ok(for_feed(of_kind(RULES_FEED_RELOAD), "drop"));
	cr_expect_eq(count.entries, 1);
	cr_expect_eq(count.removed, 1);
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", false);
	expect_blocked("198.51.100.3", true);
}

Test(rules_change, a_start_does_without_a_given_list_that_is_damaged)
{
	struct prefix_state state;
	struct error err;

	start(two_feeds());
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.2\n"), "drop"));
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.3\n"), "given"));
	stop();
	write_file("feeds/drop.list", "198.51.100.300\n");
	write_file("feeds/given.list", "198.51.100.3\n198.51\n");
	start(two_feeds());
	cr_expect(find_entry("198.51.100.1", &state));
	cr_expect(!find_entry("198.51.100.2", &state));
	cr_expect(!find_entry("198.51.100.3", &state));
	cr_expect_eq(reload(two_feeds(), &err), -EINVAL);
	cr_expect(strstr(err.text, "feeds/given.list:2"), "%s", err.text);
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.2\n"), "drop"));
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.3\n"), "given"));
	expect_agreement();
	restart(two_feeds());
	expect_blocked("198.51.100.2", true);
	expect_blocked("198.51.100.3", true);
}

Test(rules_change, reloading_all_feeds_reads_those_that_have_a_file)
{
	start(two_feeds());
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.2\n"), "drop"));
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.3\n"), "given"));
	cr_expect_eq(submit_ok(of_kind(RULES_FEED_RELOAD)).entries, 1);
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", false);
	expect_blocked("198.51.100.3", true);
}

Test(rules_change, a_feed_may_be_large_and_empty_again)
{
	struct rules_request large = for_feed(many(RULES_FEED_REPLACE, 0, LARGE), "given");

	start(two_feeds());
	set_hits("198.51.100.1", 7, 5);
	cr_expect_eq(submit_ok(large).entries, LARGE);
	cr_expect_eq(blocked(), LARGE + 1);
	cr_expect_eq(entry_of("198.51.100.1").packets, 7);
	expect_agreement();
	cr_expect_eq(submit_ok(for_feed(with_list(RULES_FEED_REPLACE, ""), "given")).removed,
		     LARGE);
	cr_expect_eq(blocked(), 1);
	expect_agreement();
}

static void expect_refused(struct rules_request request, int error, const char *text)
{
	struct rules_count count;
	struct error err = {""};

	cr_expect_eq(submit(request, &count, &err), error);
	cr_expect(strstr(err.text, text), "\"%s\" does not say \"%s\"", err.text, text);
	expect_agreement();
}

Test(rules_change, what_a_feed_cannot_do_is_refused)
{
	start(two_feeds());
	expect_refused(for_feed(of_kind(RULES_FEED_REPLACE), "none"), -ENOENT,
		       "there is no feed \"none\"");
	expect_refused(for_feed(of_kind(RULES_FEED_RELOAD), "none"), -ENOENT,
		       "there is no feed \"none\"");
	expect_refused(for_feed(of_kind(RULES_FEED_RELOAD), "given"), -EINVAL,
		       "the feed \"given\" has no file");
	expect_refused(for_feed(with_list(RULES_FEED_REPLACE, "x\n"), "drop"), -EINVAL, "line 1: ");
	write_file("feed", "198.51.100.1\n198.51.100.300\n");
	expect_refused(of_kind(RULES_FEED_RELOAD), -EINVAL, "feed:2: ");
	expect_blocked("198.51.100.1", true);
}

/* ---- reload ---- */

Test(rules_change, a_reload_forgets_given_lists_where_there_are_files_or_no_feed_is_left)
{
	struct error err;

	start(two_feeds());
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.2\n"), "drop"));
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.3\n"), "given"));
	cr_assert_eq(reload(two_feeds(), &err), 0, "%s", err.text);
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", false);
	expect_blocked("198.51.100.3", true);
	cr_assert_eq(reload("", &err), 0, "%s", err.text);
	cr_expect_eq(blocked(), 0);
	cr_assert_eq(reload(two_feeds(), &err), 0, "%s", err.text);
	expect_blocked("198.51.100.3", false);
}

Test(rules_change, all_errors_of_a_configuration_come_with_the_end)
{
	struct ending ending;

	start("blacklist.addresses = ['192.0.2.1']");
	cr_assert_eq(submit_later(reload_request("blacklist.addresses = ['x', 'y']\n"), &ending),
		     -EINPROGRESS);
	await(&ending);
	cr_expect_eq(ending.r, -EINVAL);
	cr_expect_eq(ending.n_errors, 2);
	cr_expect(strstr(ending.err.text, "fwd.toml has 2 errors; nothing was changed"), "%s",
		  ending.err.text);
	expect_blocked("192.0.2.1", true);
	expect_refused(reload_request("daemon.socket = '/run/other'"), -EINVAL,
		       "daemon.socket cannot change");
}

Test(rules_change, a_reload_counts_what_packets_see_of_it)
{
	struct rules_count count;

	start("blacklist.addresses = ['192.0.2.1', '192.0.2.2']");
	add("192.0.2.2");
	add("192.0.2.3");
	count = submit_ok(reload_request("blacklist.addresses = ['192.0.2.3', '192.0.2.4']"));
	cr_expect_eq(count.added, 1);
	cr_expect_eq(count.removed, 1);
	expect_blocked("192.0.2.2", true);
}

/* ---- with a new bank, and without ---- */

Test(rules_change, a_small_difference_makes_no_bank_and_a_large_one_does)
{
	unsigned first;

	start(two_feeds());
	submit_ok(of_kind(RULES_RESIZE));
	first = bank();
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.2\n"), "drop"));
	cr_expect_eq(bank(), first);
	submit_ok(of_kind(RULES_FEED_RELOAD));
	cr_expect_eq(bank(), first);
	submit_ok(reload_request("blacklist.addresses = ['192.0.2.1']"));
	cr_expect_eq(bank(), first);
	submit_ok(reload_request(two_feeds()));
	cr_expect_eq(bank(), first);
	submit_ok(for_feed(many(RULES_FEED_REPLACE, 0, RULES_SMALL + 1), "given"));
	cr_expect_neq(bank(), first);
	submit_ok(for_feed(many(RULES_FEED_REPLACE, 100, RULES_SMALL + 1), "given"));
	cr_expect_neq(bank(), first, "the difference is small");
	expect_agreement();
}

Test(rules_change, a_resize_keeps_everything)
{
	unsigned first;
	size_t large;

	start("blacklist.addresses = ['192.0.2.1']");
	submit_ok(many(RULES_ADD, 0, LARGE));
	large = prefix_map_bytes(rules_map(rules));
	cr_assert_eq(allow("10.0.0.2"), 0);
	set_hits("192.0.2.1", 7, 5);
	submit_ok(many(RULES_REMOVE, 0, RULES_SMALL));
	first = bank();
	submit_ok(of_kind(RULES_RESIZE));
	cr_expect_neq(bank(), first);
	cr_expect_lt(prefix_map_bytes(rules_map(rules)), large);
	cr_expect_eq(entry_of("192.0.2.1").packets, 7);
	cr_expect_eq(entry_of("192.0.2.1").last_hit, 5);
	cr_expect_eq(blocked(), LARGE - RULES_SMALL + 1);
	expect_agreement();
}

/* ---- the bank that is left ---- */

static bool holds_memory(void)
{
	return prefix_map_is_large(datapath_offered(rules_datapath(rules)));
}

static void make_two_large_banks(void)
{
	submit_ok(many(RULES_ADD, 0, LARGE));
	submit_ok(many(RULES_ADD, LARGE, LARGE));
	cr_expect(holds_memory(), "the next exchange might be near");
}

static void run_until_idle(void)
{
	do
		cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0, "nothing happens");
	while (worker_busy(worker));
}

Test(rules_change, maps_that_were_left_are_given_back_in_a_while)
{
	unsigned used;

	start("");
	make_two_large_banks();
	used = bank();
	while (holds_memory())
		run_until_idle();
	cr_expect_eq(bank(), used);
	cr_expect_eq(blocked(), 2 * LARGE);
	expect_agreement();
}

Test(rules_change, a_start_gives_maps_back_that_were_left)
{
	start("");
	make_two_large_banks();
	restart("");
	cr_expect(rules_adopted(rules));
	while (holds_memory())
		run_until_idle();
	expect_agreement();
}

Test(rules_change, maps_that_cannot_be_given_back_are_the_next_exchange_s)
{
	start("");
	make_two_large_banks();
	refuse = REFUSE_MOVE;
	while (refuse)
		run_until_idle();
	cr_expect_eq(blocked(), 2 * LARGE);
	expect_agreement();
	submit_ok(many(RULES_REMOVE, 0, LARGE));
	expect_agreement();
}

/* Up to where its maps are in use, and their hits are not taken over. */
static void exchange_without_hits(struct ending *ending)
{
	unsigned first = bank();

	set_hits("192.0.2.1", 7, 5);
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), ending), -EINPROGRESS);
	hold_worker();
	while (bank() == first)
		cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0, "nothing happens");
	cr_expect_eq(ending->n_done, 0);
	cr_expect_eq(entry_of("192.0.2.1").packets, 0);
}

Test(rules_change, hits_of_the_maps_before_are_seen_all_the_time)
{
	const struct prefix prefix = prefix_of("192.0.2.1");
	struct prefix_state state;
	struct ending ending;

	start("blacklist.addresses = ['192.0.2.1']");
	exchange_without_hits(&ending);
	cr_assert(rules_read_entry(rules, TABLE_BLOCK, &prefix, &state));
	cr_expect_eq(state.packets, 7);
	cr_expect_eq(state.last_hit, 5);
	release_worker();
	await(&ending);
	cr_expect_eq(entry_of("192.0.2.1").packets, 7);
	cr_assert(rules_read_entry(rules, TABLE_BLOCK, &prefix, &state));
	cr_expect_eq(state.packets, 7);
	expect_agreement();
}

Test(rules_change, a_stop_takes_hits_over_and_tells_of_what_is_in_force)
{
	struct ending ending;

	start("blacklist.addresses = ['192.0.2.1']");
	exchange_without_hits(&ending);
	release_worker();
	restart("blacklist.addresses = ['192.0.2.1']");
	cr_expect_eq(ending.n_done, 1);
	cr_expect_eq(ending.r, 0);
	cr_expect_eq(ending.count.added, LARGE);
	cr_expect_eq(entry_of("192.0.2.1").packets, 7);
	expect_agreement();
}

Test(rules_change, without_memory_for_the_wait_hits_are_taken_over_at_once)
{
	struct ending ending;

	start("blacklist.addresses = ['192.0.2.1']");
	set_hits("192.0.2.1", 7, 5);
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &ending), -EINPROGRESS);
	refuse = REFUSE_JOB;
	await(&ending);
	refuse = 0;
	cr_expect_eq(ending.r, 0);
	cr_expect_eq(entry_of("192.0.2.1").packets, 7);
	expect_agreement();
}

/* As room is made ahead of small changes. */
Test(rules_change, a_difference_that_leaves_little_room_is_followed_by_a_resize)
{
	start(two_feeds());
	for (u32 n = 5; n < 400; n += 5) {
		submit_ok(for_feed(many(RULES_FEED_REPLACE, 0, n), "given"));
		cr_assert(prefix_map_fits(rules_map(rules)), "with %u entries", n);
	}
	expect_agreement();
}

/* However many: neither the database's pending changes nor the start after them grow with them. */
Test(rules_change, changes_of_some_are_stored_together_and_are_all_there_after_a_restart)
{
	size_t most = 0;

	start("");
	add("192.0.2.1");
	for (u32 n = 0; n < 3 * STORE_BULKS_MANY; n++) {
		size_t pending = 0;

		submit_ok(many(n % 3 ? RULES_ADD : RULES_REMOVE,
			       n % 3 ? n % 64 * 100 : (n - 1) % 64 * 100, n ? 100 : 0));
		cr_assert_eq(store_pending(store, STORE_BLOCK, &pending, NULL), 0);
		most = pending > most ? pending : most;
	}
	cr_expect_leq(most, STORE_BULKS_MANY + 1, "%zu", most);
	expect_agreement();
	restart("");
	expect_agreement();
}

Test(rules_change, a_small_change_that_finds_no_room_is_made_later)
{
	struct ending ending;
	unsigned first;

	start("");
	first = bank();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, 2000), &ending), -EINPROGRESS);
	cr_expect_eq(blocked(), 0);
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_eq(ending.count.added, 2000);
	cr_expect_neq(bank(), first);
	cr_expect_eq(blocked(), 2000);
	expect_agreement();
}

/* ---- small changes while a large one is on its way ---- */

/* A few rules that are there, and what is done to them in the middle of `request`. */
static void change_meanwhile(struct rules_request request, struct ending *ret)
{
	struct rules_count count;
	struct error err;

	add("10.0.0.1");
	add("10.0.0.2");
	cr_assert_eq(allow("10.9.0.1"), 0);
	hold_worker();
	cr_assert_eq(submit_later(request, ret), -EINPROGRESS);
	add("10.0.0.3");
	cr_assert_eq(add_with(3600, "small", &count, &err, "10.0.0.1", NULL), 0);
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.2", NULL), 0);
	add("10.0.0.4");
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.4", NULL), 0);
	cr_assert_eq(allow("10.9.0.2"), 0);
	cr_assert_eq(del(TABLE_ALLOW, &err, "10.9.0.1", NULL), 0);
	set_hits("10.0.0.1", 7, 5);
	cr_expect_eq(ret->n_done, 0);
	release_worker();
	await(ret);
	cr_expect_eq(ret->r, 0, "%s", ret->err.text);
}

static void expect_changed_meanwhile(void)
{
	const struct prefix allowed = prefix_of("10.9.0.2"), not = prefix_of("10.9.0.1");
	const struct ruleset *runtime = rules_policy(rules)->allow[ORIGIN_RUNTIME];

	expect_blocked("10.0.0.1", true);
	cr_expect_str_eq(comment_of("10.0.0.1"), "small");
	cr_expect_eq(entry_of("10.0.0.1").packets, 7);
	cr_expect_gt(entry_of("10.0.0.1").expires_ns, boot_ns());
	expect_blocked("10.0.0.2", false);
	expect_blocked("10.0.0.3", true);
	expect_blocked("10.0.0.4", false);
	cr_expect(ruleset_find(runtime, &allowed) && !ruleset_find(runtime, &not ));
}

Test(rules_change, what_is_changed_while_many_are_added_stays_changed)
{
	struct ending ending;

	start("");
	change_meanwhile(many(RULES_ADD, 0, LARGE), &ending);
	expect_changed_meanwhile();
	cr_expect_eq(blocked(), LARGE + 2);
}

/* More than the event loop catches up with at once; of it the large change decides a part. */
static void change_much_meanwhile(unsigned refused)
{
	struct rules_request large = many(RULES_ADD, 0, LARGE + 200);
	struct ending ending;

	start("");
	submit_ok(many(RULES_ADD, LARGE, LARGE));
	large.comment = comment_new("large");
	hold_worker();
	cr_assert_eq(submit_later(large, &ending), -EINPROGRESS);
	submit_at_once(many(RULES_REMOVE, LARGE, 600));
	submit_at_once(many(RULES_ADD, LARGE + 580, 10));
	refuse = refused;
	release_worker();
	await(&ending);
	refuse = 0;
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_str_eq(comment_of(text_of(LARGE + 199)), "large");
	expect_blocked(text_of(LARGE + 199), true);
	expect_blocked(text_of(LARGE + 200), false);
	expect_blocked(text_of(LARGE + 589), true);
	cr_expect_eq(blocked(), LARGE + 200 + LARGE - 600 + 10);
	expect_agreement();
}

Test(rules_change, much_that_is_changed_while_many_are_added_stays_changed)
{
	change_much_meanwhile(0);
}

Test(rules_change, much_that_is_changed_is_caught_up_with_without_memory_for_the_worker)
{
	change_much_meanwhile(REFUSE_JOB);
}

Test(rules_change, much_that_is_added_before_a_change_of_new_rules_stays_as_it_is)
{
	struct rules_request large = many(RULES_ADD, 0, LARGE), small = many(RULES_ADD, 0, 600);
	struct ending ending;

	start("");
	submit_ok(many(RULES_ADD, LARGE, LARGE)); /* so that there is room */
	large.only_new = true;
	large.comment = comment_new("large");
	small.comment = comment_new("small");
	hold_worker();
	cr_assert_eq(submit_later(large, &ending), -EINPROGRESS);
	submit_at_once(small);
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_eq(ending.count.added, LARGE - 600);
	cr_expect_str_eq(comment_of(text_of(7)), "small");
	cr_expect_str_eq(comment_of(text_of(607)), "large");
	expect_agreement();
}

Test(rules_change, what_is_changed_while_a_short_list_is_added_stays_changed)
{
	struct ending ending;

	start("");
	change_meanwhile(with_list(RULES_ADD, "192.0.2.1\n192.0.2.2\n"), &ending);
	expect_changed_meanwhile();
	cr_expect_eq(blocked(), 4);
}

Test(rules_change, what_is_changed_while_many_are_removed_stays_changed)
{
	struct ending ending;

	start("");
	submit_ok(many(RULES_ADD, 0, LARGE));
	change_meanwhile(many(RULES_REMOVE, 0, LARGE), &ending);
	expect_changed_meanwhile();
	cr_expect_eq(blocked(), 2);
}

Test(rules_change, what_is_changed_while_a_feed_is_replaced_stays_changed)
{
	struct ending ending;

	start(two_feeds());
	change_meanwhile(for_feed(many(RULES_FEED_REPLACE, 0, LARGE), "drop"), &ending);
	expect_changed_meanwhile();
	cr_expect_eq(blocked(), LARGE + 2);
}

Test(rules_change, what_is_changed_while_a_feed_is_read_again_stays_changed)
{
	struct ending ending;

	start(two_feeds());
	write_file("feed", "198.51.100.7\n");
	change_meanwhile(of_kind(RULES_FEED_RELOAD), &ending);
	expect_changed_meanwhile();
	expect_blocked("198.51.100.7", true);
}

/* The same prefixes; the difference that the worker found is out of date. */
#define ALL_FOUR "10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4\n"

Test(rules_change, what_a_feed_gets_and_is_changed_meanwhile_is_of_both)
{
	struct ending ending;

	start(two_feeds());
	change_meanwhile(for_feed(with_list(RULES_FEED_REPLACE, ALL_FOUR), "given"), &ending);
	cr_expect_eq(blocked(), 5);
	cr_expect_str_eq(comment_of("10.0.0.1"), "small");
	cr_expect_eq(entry_of("10.0.0.1").expires_ns, 0, "the feed has it for good");
	cr_expect_eq(entry_of("10.0.0.1").packets, 7);
	cr_expect_null(find_rule(ORIGIN_RUNTIME, "10.0.0.2"));
	expect_agreement();
}

Test(rules_change, what_a_feed_loses_and_is_changed_meanwhile_is_as_it_was_changed)
{
	struct ending ending;

	start(two_feeds());
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, ALL_FOUR), "given"));
	change_meanwhile(for_feed(with_list(RULES_FEED_REPLACE, ""), "given"), &ending);
	expect_changed_meanwhile();
}

Test(rules_change, what_is_changed_while_maps_are_fitted_stays_changed)
{
	struct ending ending;

	start(two_feeds());
	change_meanwhile(of_kind(RULES_RESIZE), &ending);
	expect_changed_meanwhile();
}

Test(rules_change, what_is_changed_during_a_reload_stays_changed)
{
	const struct redirect redirect = {
		.protocol = IPPROTO_TCP, .port_first = 80, .port_last = 80, .target = "lan"};
	struct rules_count count;
	struct ending ending;
	struct error err;

	start(two_feeds());
	change_meanwhile(reload_request("blacklist.addresses = ['192.0.2.1', '10.0.0.2']"),
			 &ending);
	expect_blocked("10.0.0.2", true);
	cr_expect_null(find_rule(ORIGIN_RUNTIME, "10.0.0.2"));
	expect_blocked("10.0.0.3", true);
	expect_blocked("198.51.100.1", false);
	hold_worker();
	cr_assert_eq(submit_later(reload_request("blacklist.direction = ['out']"), &ending),
		     -EINPROGRESS);
	cr_assert_eq(rules_add_redirect(rules, &redirect, &count, &err), 0, "%s", err.text);
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_eq(rules_policy(rules)->n_redirects, 1);
	cr_expect_eq(datapath_flags(rules_datapath(rules)), FWD_BLOCK_OUT);
	expect_agreement();
}

/* L4: the large change comes after the small ones. */
Test(rules_change, of_the_same_prefix_the_large_change_decides)
{
	struct rules_request large = many(RULES_ADD, 0, LARGE);
	struct rules_count count;
	struct ending ending;
	struct error err;

	start("");
	add(text_of(1));
	add(text_of(2));
	large.comment = comment_new("large");
	hold_worker();
	cr_assert_eq(submit_later(large, &ending), -EINPROGRESS);
	cr_assert_eq(add_with(3600, "small", &count, &err, text_of(1), NULL), 0);
	cr_assert_eq(del(TABLE_BLOCK, &err, text_of(2), NULL), 0);
	cr_assert_eq(add_with(3600, "small", &count, &err, text_of(3), NULL), 0);
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	for (u32 i = 1; i <= 3; i++) {
		cr_expect_str_eq(comment_of(text_of(i)), "large");
		cr_expect_eq(entry_of(text_of(i)).expires_ns, 0);
	}
	cr_expect_eq(blocked(), LARGE);
	expect_agreement();
}

Test(rules_change, what_is_added_again_while_it_is_removed_goes)
{
	struct rules_count count;
	struct ending ending;
	struct error err;

	start("");
	submit_ok(many(RULES_ADD, 0, LARGE));
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_REMOVE, 0, LARGE), &ending), -EINPROGRESS);
	cr_assert_eq(add_with(3600, "small", &count, &err, text_of(1), NULL), 0);
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_eq(blocked(), 0);
	expect_agreement();
}

Test(rules_change, what_is_added_during_a_flush_goes_and_the_allowlist_stays)
{
	struct ending ending;

	start("");
	submit_ok(many(RULES_ADD, 0, LARGE));
	hold_worker();
	cr_assert_eq(submit_later(of_kind(RULES_FLUSH), &ending), -EINPROGRESS);
	add("10.0.0.1");
	cr_assert_eq(allow("10.0.0.2"), 0);
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_eq(blocked(), 0);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_ALLOW), 1);
	expect_agreement();
}

/* What a small change adds meanwhile takes room that the large one counted on. */
Test(rules_change, together_they_do_not_exceed_max_entries)
{
	struct ending ending;

	start("blacklist.max_entries = 5000");
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, 5000), &ending), -EINPROGRESS);
	add("10.0.0.1");
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, -ENOSPC);
	expect_text(&ending.err, "full: 5000 of 5000 entries");
	cr_expect_eq(blocked(), 1);
	expect_blocked("10.0.0.1", true);
	cr_expect_eq(submit_ok(many(RULES_ADD, 0, 4999)).added, 4999);
	expect_agreement();
}

/* Once more, from what is there now. */
Test(rules_change, one_that_lost_track_of_small_changes_is_made_again)
{
	struct rules_count count;
	struct ending ending;
	struct error err;

	start("");
	cr_assert_eq(add_with(3600, NULL, &count, &err, "10.0.0.1", NULL), 0);
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &ending), -EINPROGRESS);
	refuse = REFUSE_NOTE;
	add("10.0.0.2");
	refuse = 0;
	release_worker();
	await(&ending);
	cr_expect_eq(ending.r, 0, "%s", ending.err.text);
	cr_expect_eq(ending.count.added, LARGE);
	cr_expect_eq(blocked(), LARGE + 2);
	expect_blocked("10.0.0.2", true);
}

/* ---- failures ---- */

Test(rules_change, without_memory_for_its_ends_those_before_are_remembered)
{
	struct rules_request request = many(RULES_ADD, 0, LARGE);
	struct rules_count count;
	struct error err;

	start("");
	cr_assert_eq(add_with(3600, NULL, &count, &err, "10.0.0.1", NULL), 0);
	request.ttl_s = 7200;
	refuse = REFUSE_ENDS;
	cr_expect_eq(submit(request, &count, &err), 0, "%s", err.text);
	refuse = 0;
	cr_expect_gt(rules_expire(rules), boot_ns());
	expect_agreement();
}

/* Who asks does not get the answer twice, nor before it is waited for. */
Test(rules_change, what_cannot_be_begun_is_refused_at_once)
{
	struct ending ending;

	start("");
	add("10.0.0.1");
	refuse = REFUSE_JOB;
	cr_expect_eq(submit_later(many(RULES_ADD, 0, LARGE), &ending), -ENOMEM);
	refuse = 0;
	cr_expect_eq(ending.n_done, 0);
	expect_text(&ending.err, "out of memory");
	submit_ok(many(RULES_ADD, 0, LARGE));
	expect_agreement();
}

static void expect_as_it_was(enum refusal what, struct rules_request request)
{
	struct rules_count count = {.added = 99};
	struct error err = {""};
	unsigned first = bank();
	u32 size = blocked();

	refuse = what;
	cr_expect_eq(submit(request, &count, &err), -EIO, "%s", err.text);
	refuse = 0;
	expect_text(&err, "refused by the test");
	cr_expect_eq(count.added, 99);
	cr_expect_eq(bank(), first);
	cr_expect_eq(blocked(), size);
	expect_blocked("10.0.0.1", true);
	expect_blocked("198.51.100.1", true);
	expect_blocked("192.0.2.1", false);
	cr_expect_eq(rules_config(rules)->blacklist.n_feeds, 2);
}

#define RELOADED "blacklist.addresses = ['192.0.2.1']\nblacklist.direction = ['out']\n"

Test(rules_change, what_the_store_refuses_leaves_everything_as_it_was)
{
	start(two_feeds());
	add("10.0.0.1");
	expect_as_it_was(REFUSE_BULK_COMMIT, many(RULES_ADD, 0, LARGE));
	expect_as_it_was(REFUSE_BULK_COMMIT, with_list(RULES_ADD, "192.0.2.1\n"));
	expect_as_it_was(REFUSE_STORE_COMMIT, many(RULES_ADD, 0, 2000));
	submit_ok(many(RULES_ADD, 0, LARGE));
	expect_as_it_was(REFUSE_BULK_COMMIT, many(RULES_REMOVE, 0, LARGE));
	expect_as_it_was(REFUSE_STORE_COMMIT, of_kind(RULES_FLUSH));
	expect_as_it_was(REFUSE_FEED_COMMIT,
			 for_feed(many(RULES_FEED_REPLACE, LARGE, LARGE), "drop"));
	expect_as_it_was(REFUSE_FEED_COMMIT,
			 for_feed(with_list(RULES_FEED_REPLACE, "192.0.2.1"), "drop"));
	submit_ok(for_feed(with_list(RULES_FEED_REPLACE, "198.51.100.1"), "drop"));
	write_file("feed", "192.0.2.1\n");
	expect_as_it_was(REFUSE_FEED_COMMIT, of_kind(RULES_FEED_RELOAD));
	expect_as_it_was(REFUSE_FEED_COMMIT, reload_request(RELOADED));
	cr_expect_eq(submit_ok(many(RULES_REMOVE, 0, LARGE)).removed, LARGE);
	expect_agreement();
}

Test(rules_change, programs_that_cannot_be_moved_or_attached_leave_everything_as_it_was)
{
	start(two_feeds());
	add("10.0.0.1");
	expect_as_it_was(REFUSE_MOVE, many(RULES_ADD, 0, LARGE));
	expect_as_it_was(REFUSE_MOVE, for_feed(many(RULES_FEED_REPLACE, 0, LARGE), "drop"));
	expect_as_it_was(REFUSE_MOVE, of_kind(RULES_RESIZE));
	expect_as_it_was(REFUSE_PREPARE, reload_request(RELOADED));
	submit_ok(many(RULES_ADD, 0, LARGE));
	expect_as_it_was(REFUSE_MOVE, of_kind(RULES_FLUSH));
	cr_expect_eq(submit_ok(of_kind(RULES_FLUSH)).removed, LARGE + 1);
	expect_agreement();
}

Test(rules_change, maps_that_cannot_be_made_leave_everything_as_it_was)
{
	start(two_feeds());
	add("10.0.0.1");
	expect_as_it_was(REFUSE_BUILD, many(RULES_ADD, 0, LARGE));
	expect_as_it_was(REFUSE_BUILD, for_feed(many(RULES_FEED_REPLACE, 0, LARGE), "drop"));
	expect_as_it_was(REFUSE_BUILD, of_kind(RULES_RESIZE));
}

Test(rules_change, what_is_too_much_leaves_everything_as_it_was)
{
	char config[1024];
	struct rules_count count;
	struct error err;

	snprintf(config, sizeof(config), "blacklist.max_entries = 5000\n%s", two_feeds());
	start(config);
	expect_refused(many(RULES_ADD, 0, 5000), -ENOSPC, "full: 5000 of 5000 entries");
	expect_refused(for_feed(many(RULES_FEED_REPLACE, 0, 5000), "given"), -ENOSPC,
		       "full: 5000 of 5000 entries");
	cr_expect_eq(blocked(), 1);
	cr_expect_eq(submit_ok(many(RULES_ADD, 0, 4999)).added, 4999);
	cr_expect_eq(add_with(0, NULL, &count, &err, "10.0.0.1", NULL), -ENOSPC);
	expect_agreement();
	restart("blacklist.max_entries = 1");
	cr_expect_eq(submit_ok(many(RULES_ADD, 0, 4999)).updated, 4999, "what is there may stay");
	cr_expect_eq(submit_ok(many(RULES_REMOVE, 0, 4990)).removed, 4990);
	expect_refused(reload_request("blacklist.max_entries = 2"), -ENOSPC, "full: 2 of 2");
}

/* ---- one after the other ---- */

Test(rules_change, large_changes_are_made_in_order)
{
	struct ending first, second, third;

	start("");
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &first), -EINPROGRESS);
	cr_assert_eq(submit_later(many(RULES_REMOVE, 0, LARGE), &second), -EINPROGRESS);
	cr_assert_eq(submit_later(many(RULES_ADD, LARGE, LARGE), &third), -EINPROGRESS);
	add("10.0.0.1");
	release_worker();
	await(&first);
	cr_expect_eq(first.r, 0, "%s", first.err.text);
	cr_expect_eq(second.n_done, 0);
	add("10.0.0.2");
	await(&second);
	cr_expect_eq(second.r, 0, "%s", second.err.text);
	await(&third);
	cr_expect_eq(third.r, 0, "%s", third.err.text);
	cr_expect_eq(blocked(), LARGE + 2);
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.2", true);
	expect_blocked(text_of(0), false);
	expect_blocked(text_of(LARGE), true);
}

Test(rules_change, one_that_fails_does_not_hold_up_the_next)
{
	struct ending first, second;

	start("");
	hold_worker();
	cr_assert_eq(submit_later(with_list(RULES_ADD, "x\n"), &first), -EINPROGRESS);
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &second), -EINPROGRESS);
	release_worker();
	await(&second);
	cr_expect_eq(first.n_done, 1);
	cr_expect_eq(first.r, -EINVAL);
	cr_expect_eq(second.r, 0, "%s", second.err.text);
	expect_agreement();
}

static struct ending follower;
static unsigned n_followed;

static void submit_follower(void *data, const struct rules_end *end)
{
	cr_expect_eq(end->r, 0, "%s", end->err.text);
	n_followed++;
	cr_expect_eq(submit_later(many(RULES_ADD, 0, LARGE), &follower), -EINPROGRESS);
	add("10.0.0.1");
}

Test(rules_change, the_end_of_one_may_submit_another)
{
	struct rules_request request = of_kind(RULES_RESIZE);
	const struct rules_later later = {submit_follower, NULL};
	struct rules_count count;
	struct error err;

	start("");
	cr_assert_eq(rules_submit(rules, &request, &later, &count, &err), -EINPROGRESS);
	while (!n_followed || worker_busy(worker))
		cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0);
	cr_expect_eq(n_followed, 1);
	cr_expect_eq(follower.n_done, 1);
	cr_expect_eq(follower.r, 0, "%s", follower.err.text);
	cr_expect_eq(blocked(), LARGE + 1);
	expect_agreement();
}

Test(rules_change, what_is_under_way_at_the_end_is_not_made_and_told_so)
{
	struct ending first, second;

	start("");
	add("10.0.0.1");
	hold_worker();
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &first), -EINPROGRESS);
	cr_assert_eq(submit_later(many(RULES_ADD, LARGE, LARGE), &second), -EINPROGRESS);
	add("10.0.0.2");
	release_worker();
	restart("");
	cr_expect_eq(first.n_done, 1);
	cr_expect_eq(first.r, -ECANCELED);
	expect_text(&first.err, "fwd is stopping: nothing was changed");
	cr_expect_eq(second.n_done, 1);
	cr_expect_eq(second.r, -ECANCELED);
	cr_expect_eq(blocked(), 2);
	expect_blocked("10.0.0.2", true);
}

/* The worker is done, and the event loop does not know yet. */
Test(rules_change, what_was_prepared_at_the_end_is_not_made)
{
	struct ending ending;

	start("");
	cr_assert_eq(submit_later(many(RULES_ADD, 0, LARGE), &ending), -EINPROGRESS);
	sleep(1);
	restart("");
	cr_expect_eq(ending.n_done, 1);
	cr_expect_eq(ending.r, -ECANCELED);
	cr_expect_eq(blocked(), 0);
	expect_agreement();
}

/* ---- ends ---- */

/* Removes what has ended until nothing is to end any more. */
static void expire_all(void)
{
	u64 next = rules_expire(rules);

	cr_assert(next && next <= boot_ns() + NS_PER_S);
	while (boot_ns() <= next)
		usleep(10000);
	for (int i = 0; i < 100 && rules_expire(rules); i++)
		;
	while (worker_busy(worker))
		cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0);
}

Test(rules_change, many_that_end_together_go)
{
	struct rules_request request = many(RULES_ADD, 0, LARGE);

	start("");
	request.ttl_s = 1;
	submit_ok(request);
	expire_all();
	cr_expect_eq(blocked(), 0);
	expect_agreement();
}

#define NETS 4000

/* In each of many networks some hosts, one behind the other. */
static struct rules_request hosts(u8 first, u8 n)
{
	struct rules_request request = many(RULES_ADD, 0, (u32)NETS * n);

	for (u32 i = 0; i < request.n; i++)
		request.prefixes[i] = (struct prefix){
			.family = FAMILY_IPV4,
			.len = 32,
			.addr = {30, (u8)(i / n >> 8), (u8)(i / n), (u8)(first + i % n)},
		};
	return request;
}

/* Their removal at once would need more room than there is. */
Test(rules_change, those_that_end_together_all_over_the_trie_go)
{
	struct rules_request request = hosts(100, 1);

	start("");
	submit_ok(hosts(1, 10));
	request.ttl_s = 1;
	submit_ok(request);
	cr_assert_eq(blocked(), 11 * NETS);
	expire_all();
	cr_expect_eq(blocked(), 10 * NETS);
	expect_agreement();
}
