// SPDX-License-Identifier: GPL-2.0-or-later
/* What goes back by itself, and what does not any more; over real rules, with a clock of the test.
 */
#include "confirm.h"

#include "clock.h"
#include "rules_parts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>

#define LARGE  (RULES_SMALL + 1000)
#define HOUR_S 3600

static struct confirm *confirm;
static unsigned went_back;

/* ---- the time ---- */

int __real_sd_event_source_set_time(sd_event_source *source, u64 us);
int __wrap_sd_event_source_set_time(sd_event_source *source, u64 us);

static sd_event_source *timer;
static u64 timer_us;

int __wrap_sd_event_source_set_time(sd_event_source *source, u64 us)
{
	timer = source;
	timer_us = us;
	return __real_sd_event_source_set_time(source, us);
}

/* The time that is waited for has come. */
static void time_comes(void)
{
	cr_assert_geq(__real_sd_event_source_set_time(timer, 0), 0);
}

static void run_once(void)
{
	cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0, "nothing happens");
}

static void expect_timer(u64 from_ns, s64 seconds)
{
	u64 end_us = from_ns / 1000 + (u64)seconds * 1000000;

	cr_expect_geq(timer_us, end_us);
	cr_expect_leq(timer_us, end_us + 60 * 1000000ull);
}

/* ---- the parts of a test ---- */

static void on_went_back(void *data)
{
	went_back++;
}

static void begin(const char *config)
{
	const struct confirm_watcher watcher = {on_went_back, NULL};
	struct error err;

	start(config);
	cr_assert_eq(confirm_open(event, rules, &watcher, &confirm, &err), 0, "%s", err.text);
}

static void end_confirm(void)
{
	confirm_close(take_pointer(&confirm));
}

/* The confirmation has to go before the rules that the next start makes anew. */
static void begin_again(const char *config)
{
	stop();
	end_confirm();
	begin(config);
}

static void tear_down(void)
{
	release_worker();
	stop();
	end_confirm();
	rules_tear_down();
}

TestSuite(confirm, .init = rules_set_up, .fini = tear_down, .timeout = 120);

struct unconfirmed_end {
	bool done;
	int r;
	struct error err;
};

static void on_begun(void *data, const struct rules_end *end)
{
	struct unconfirmed_end *ret = data;

	ret->done = true;
	ret->r = end->r;
	ret->err = end->err;
	confirm_begun(confirm, end);
}

/* *ret is done at once, or later. */
static void submit_unconfirmed(struct rules_request request, s64 time_s,
			       struct unconfirmed_end *ret)
{
	const struct rules_later later = {on_begun, ret};
	struct rules_end end = {0};

	*ret = (struct unconfirmed_end){0};
	end.r = confirm_begin(confirm, &request, time_s, &ret->err);
	if (end.r < 0) {
		rules_request_clear(&request);
		ret->done = true;
		ret->r = end.r;
		return;
	}
	end.r = rules_submit(rules, &request, &later, &end.count, &end.err);
	if (end.r != -EINPROGRESS)
		on_begun(ret, &end);
}

static int unconfirmed(struct rules_request request, s64 time_s, struct error *err)
{
	struct unconfirmed_end end;

	submit_unconfirmed(request, time_s, &end);
	while (!end.done)
		run_once();
	*err = end.err;
	return end.r;
}

static void unconfirmed_ok(struct rules_request request, s64 time_s)
{
	struct error err;

	cr_assert_eq(unconfirmed(request, time_s, &err), 0, "%s", err.text);
}

static void on_accepted(void *data, const struct rules_end *end)
{
	*(int *)data = end->r;
}

static int accept_it(struct error *err)
{
	int later_r = 1;
	const struct rules_later later = {on_accepted, &later_r};
	const char *what = NULL;
	int r = confirm_accept(confirm, &later, &what, err);

	while (r == -EINPROGRESS && later_r == 1)
		run_once();
	return r == -EINPROGRESS ? later_r : r;
}

static void expect_waits(const char *what)
{
	s64 left_s;
	const char *waits = confirm_waits(confirm, &left_s);

	cr_assert_eq(!waits, !what);
	cr_expect(!what || !strcmp(what, waits));
}

static struct rules_request one(const char *text, s64 ttl_s)
{
	struct rules_request request = many(RULES_ADD, 0, 1);

	request.prefixes[0] = prefix_of(text);
	request.ttl_s = ttl_s;
	return request;
}

static u64 end_of(const char *text)
{
	const struct rule *rule = find_rule(ORIGIN_RUNTIME, text);

	cr_assert(rule, "%s has no runtime rule", text);
	return rule->expires_ns;
}

static const char *text_of(u32 number)
{
	static char text[PREFIX_TEXT_MAX];
	struct prefix prefix = numbered(number);

	prefix_format(&prefix, text);
	return text;
}

static bool has_marker(void)
{
	return !access(file_path("unconfirmed/fwd.toml"), F_OK);
}

static void goes_back(void)
{
	unsigned before = went_back;

	time_comes();
	while (went_back == before)
		run_once();
	cr_expect_eq(went_back, before + 1);
	expect_waits(NULL);
}

/* ---- add ---- */

Test(confirm, an_add_ends_what_is_new_and_leaves_what_is_there)
{
	u64 before_ns = boot_ns();

	begin("");
	add("192.0.2.1");
	unconfirmed_ok(one("192.0.2.1", 0), 60);
	expect_waits("add");
	cr_expect_eq(end_of("192.0.2.1"), 0);
	confirm_begun(confirm, &(struct rules_end){.r = -ECANCELED});
	unconfirmed_ok(one("192.0.2.2", 0), 60);
	cr_expect_geq(end_of("192.0.2.2"), before_ns + 60 * NS_PER_S);
	cr_expect_leq(end_of("192.0.2.2"), boot_ns() + 60 * NS_PER_S);
	cr_expect_geq(entry_of("192.0.2.2").expires_ns, end_of("192.0.2.2"));
	expect_timer(before_ns, 60);
	time_comes();
	run_once();
	expect_waits(NULL);
	expect_agreement();
}

Test(confirm, a_confirmed_add_is_as_it_was_asked_for_from_its_beginning_on)
{
	struct error err;
	u64 end_ns;

	begin("");
	add("192.0.2.1");
	unconfirmed_ok(one("192.0.2.2", HOUR_S), 60);
	end_ns = end_of("192.0.2.2");
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	cr_expect_eq(end_of("192.0.2.2"), end_ns + (HOUR_S - 60) * NS_PER_S);
	expect_waits(NULL);
	unconfirmed_ok(one("192.0.2.1", HOUR_S), 60);
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	cr_expect_geq(end_of("192.0.2.1"), boot_ns() + (HOUR_S - 60) * NS_PER_S);
	unconfirmed_ok(one("192.0.2.3", 0), 60);
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	cr_expect_eq(end_of("192.0.2.3"), 0);
	expect_agreement();
}

Test(confirm, many_and_a_list_are_confirmed_whole)
{
	struct rules_request list = {.kind = RULES_ADD};
	struct error err;

	begin("");
	add(text_of(7));
	unconfirmed_ok(many(RULES_ADD, 0, LARGE), 60);
	cr_expect_eq(end_of(text_of(7)), 0);
	cr_expect_neq(end_of(text_of(8)), 0);
	expect_agreement();
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	cr_expect_eq(end_of(text_of(8)), 0);
	write_file("list", "198.51.100.1\n198.51.100.2\n");
	list.list_fd = open(file_path("list"), O_RDONLY | O_CLOEXEC);
	unconfirmed_ok(list, 60);
	cr_expect_neq(end_of("198.51.100.2"), 0);
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	cr_expect_eq(end_of("198.51.100.1"), 0);
	cr_expect_eq(end_of("198.51.100.2"), 0);
	begin_again("");
	cr_expect_eq(end_of("198.51.100.2"), 0);
	cr_expect_eq(end_of(text_of(LARGE - 1)), 0);
	expect_agreement();
}

Test(confirm, a_rule_that_comes_while_many_are_added_stays_as_it_is)
{
	struct unconfirmed_end end;

	begin("");
	hold_worker();
	submit_unconfirmed(many(RULES_ADD, 0, LARGE), 60, &end);
	cr_expect(!end.done);
	add(text_of(7));
	release_worker();
	while (!end.done)
		run_once();
	cr_expect_eq(end.r, 0, "%s", end.err.text);
	cr_expect_eq(end_of(text_of(7)), 0);
	cr_expect_neq(end_of(text_of(8)), 0);
	expect_agreement();
	begin_again("");
	cr_expect_eq(end_of(text_of(7)), 0);
}

Test(confirm, an_add_that_cannot_be_confirmed_goes_on_waiting)
{
	struct error err;

	begin("");
	unconfirmed_ok(one("192.0.2.1", 0), 60);
	refuse = REFUSE_STORE_COMMIT;
	cr_expect_eq(accept_it(&err), -EIO);
	refuse = 0;
	expect_waits("add");
	cr_expect_neq(end_of("192.0.2.1"), 0);
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	cr_expect_eq(end_of("192.0.2.1"), 0);
	cr_expect_eq(accept_it(&err), -ENOENT);
	expect_text(&err, "nothing waits for confirmation");
}

Test(confirm, an_add_that_fails_leaves_nothing_to_confirm)
{
	struct error err;

	begin("blacklist.max_entries = 1");
	add("192.0.2.1");
	cr_expect_eq(unconfirmed(one("192.0.2.2", 0), 60, &err), -ENOSPC);
	expect_waits(NULL);
	cr_expect_eq(unconfirmed(many(RULES_ADD, 0, LARGE), 60, &err), -ENOSPC);
	expect_waits(NULL);
}

/* ---- reload ---- */

Test(confirm, a_reload_goes_back_and_is_tried_until_it_has)
{
	u64 before_ns;

	begin("blacklist.addresses = ['192.0.2.1']");
	unconfirmed_ok(reload_request("blacklist.addresses = ['192.0.2.2']"), 60);
	expect_blocked("192.0.2.1", false);
	expect_waits("reload");
	cr_expect(has_marker());
	add("192.0.2.3");
	refuse = REFUSE_JOB;
	before_ns = boot_ns();
	time_comes();
	run_once();
	expect_waits("reload");
	expect_timer(before_ns, 10);
	expect_blocked("192.0.2.2", true);
	refuse = REFUSE_PREPARE; /* of the interfaces, each for itself */
	goes_back();
	refuse = 0;
	expect_blocked("192.0.2.1", true);
	expect_blocked("192.0.2.2", false);
	expect_blocked("192.0.2.3", true);
	cr_expect(has_marker(), "the file is still the one that was not confirmed");
	expect_agreement();
}

Test(confirm, a_reload_goes_back_whatever_was_added_meanwhile)
{
	struct redirect redirect = {.protocol = 17, .port_first = 8, .port_last = 8};
	struct rules_count count;
	struct error err;

	begin("blacklist.max_entries = 2\nblacklist.addresses = ['192.0.2.1']\n"
	      "interface = [{name = 'eth0'}]\n"
	      "redirect = [{protocol = 'udp', port = '8', target = 'a', interface = 'eth0'}]\n");
	unconfirmed_ok(reload_request("interface = [{name = 'eth0'}]\n"), 60);
	cr_assert_eq(submit(many(RULES_ADD, 0, LARGE), &count, &err), 0, "%s", err.text);
	strcpy(redirect.interface, "eth0");
	strcpy(redirect.target, "b");
	cr_assert_eq(rules_add_redirect(rules, &redirect, &count, &err), 0, "%s", err.text);
	goes_back();
	expect_blocked("192.0.2.1", true);
	expect_blocked(text_of(LARGE - 1), true);
	cr_expect_eq(rules_policy(rules)->max_entries, 2);
	cr_expect_eq(rules_policy(rules)->n_redirects, 2);
	expect_agreement();
}

static void give(const char *feed, const char *text)
{
	struct rules_request request = many(RULES_FEED_REPLACE, 0, 1);
	struct rules_count count;
	struct error err;

	request.prefixes[0] = prefix_of(text);
	snprintf(request.feed, sizeof(request.feed), "%s", feed);
	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
}

Test(confirm, feeds_go_back_to_the_lists_that_they_were_given)
{
	struct prefix_state state;

	begin(two_feeds());
	give("drop", "198.51.100.2");
	give("given", "198.51.100.3");
	unconfirmed_ok(reload_request(two_feeds()), 60);
	cr_expect(find_entry("198.51.100.1", &state));
	cr_expect(!find_entry("198.51.100.2", &state));
	give("given", "198.51.100.4");
	goes_back();
	expect_blocked("198.51.100.1", false);
	expect_blocked("198.51.100.2", true);
	expect_blocked("198.51.100.4", true);
	expect_agreement();
	begin_again(two_feeds());
	expect_blocked("198.51.100.2", true);
	expect_blocked("198.51.100.4", true);
}

Test(confirm, a_confirmed_reload_forgets_the_way_back)
{
	struct error err;

	begin(two_feeds());
	give("drop", "198.51.100.2");
	unconfirmed_ok(reload_request(two_feeds()), 60);
	cr_expect_eq(accept_it(&err), 0, "%s", err.text);
	expect_waits(NULL);
	cr_expect(!has_marker());
	expect_agreement();
	begin_again(two_feeds());
	expect_blocked("198.51.100.1", true);
	expect_blocked("198.51.100.2", false);
	cr_expect_eq(went_back, 0);
}

Test(confirm, a_reload_whose_way_back_cannot_be_kept_is_not_made)
{
	struct error err;

	begin("blacklist.addresses = ['192.0.2.1']");
	write_file("unconfirmed", "");
	cr_expect_eq(unconfirmed(reload_request(""), 60, &err), -ENOTDIR, "%s", err.text);
	expect_waits(NULL);
	expect_blocked("192.0.2.1", true);
	expect_agreement();
}

Test(confirm, a_plain_reload_makes_the_file_the_one_to_start_with)
{
	struct error err;

	begin("");
	unconfirmed_ok(reload_request(""), 60);
	goes_back();
	cr_expect(has_marker());
	cr_expect_lt(reload("blacklist.max_entries = 'x'", &err), 0);
	cr_expect(has_marker());
	cr_expect_eq(reload("", &err), 0, "%s", err.text);
	cr_expect(!has_marker());
}

/* ---- one at a time ---- */

Test(confirm, only_one_waits_and_nothing_is_done_while_it_is_under_way)
{
	struct unconfirmed_end end;
	struct error err;
	s64 left_s;

	begin("");
	hold_worker();
	submit_unconfirmed(reload_request(""), HOUR_S, &end);
	cr_expect_eq(accept_it(&err), -EBUSY);
	expect_text(&err, "the reload has not taken effect yet: try again");
	cr_expect_eq(confirm_check_reload(confirm, &err), -EBUSY);
	release_worker();
	while (!end.done)
		run_once();
	cr_expect_eq(unconfirmed(one("192.0.2.1", 0), 60, &err), -EBUSY);
	expect_text(&err, "the reload before it waits for confirmation: confirm that with fwctl "
			  "confirm, or wait until it has gone back");
	cr_expect_str_eq(confirm_waits(confirm, &left_s), "reload");
	cr_expect(left_s > HOUR_S - 100 && left_s <= HOUR_S, "%lld", (long long)left_s);
	hold_worker();
	time_comes();
	run_once();
	cr_expect_eq(accept_it(&err), -EBUSY);
	expect_text(&err, "the reload is going back: try again");
	release_worker();
	while (!went_back)
		run_once();
	cr_expect_eq(confirm_check_reload(confirm, &err), 0);
	unconfirmed_ok(one("192.0.2.1", 0), 60);
	cr_expect_eq(confirm_check_reload(confirm, &err), 0, "an add holds up no reload");
}

Test(confirm, what_is_under_way_at_the_end_is_given_up)
{
	struct unconfirmed_end end;

	begin("");
	unconfirmed_ok(reload_request(""), 60);
	hold_worker();
	time_comes();
	run_once();
	release_worker();
	begin_again("");
	cr_expect_eq(went_back, 0);
	hold_worker();
	submit_unconfirmed(many(RULES_ADD, 0, LARGE), 60, &end);
	release_worker();
	stop();
	cr_expect_eq(end.r, -ECANCELED);
}
