// SPDX-License-Identifier: GPL-2.0-or-later
/* What is told of the changes of others, made by tc(8) on the loopback interface. */
#include "tc_watch.h"

#include "private_bpffs.h"
#include "tc.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LOOPBACK 1

TestSuite(tc_watch, .init = enter_private_bpffs, .timeout = 60);

static struct tc *tc;
static struct tc_watch *watch;

static void set_up(void)
{
	struct error err;

	cr_assert_eq(tc_open(&tc, &err), 0, "%s", err.text);
	cr_assert_eq(tc_watch_open(tc_port(tc), &watch, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	tc_watch_close(watch);
	tc_close(tc);
}

static void others(const char *command)
{
	if (system("tc -Version >/dev/null") != 0)
		cr_skip_test("needs tc");
	cr_assert_eq(system(command), 0, "%s", command);
}

static bool is_loopback(void *data, int ifindex)
{
	return ifindex == LOOPBACK;
}

static bool is_nothing(void *data, int ifindex)
{
	return false;
}

static bool changed(tc_watch_filter is_watched)
{
	struct error err;
	bool ret = false;

	cr_assert_eq(tc_watch_process(watch, is_watched, NULL, &ret, &err), 0, "%s", err.text);
	return ret;
}

Test(tc_watch, tells_of_what_others_do_at_our_place)
{
	static const char *const commands[] = {
		"tc qdisc add dev lo clsact",
		"tc filter add dev lo ingress pref 10 bpf bytecode '1,6 0 0 0,'",
		"tc filter del dev lo ingress pref 10",
		"tc filter add dev lo egress pref 10 bpf bytecode '1,6 0 0 0,'",
		"tc filter del dev lo egress",
		"tc qdisc del dev lo clsact",
	};

	set_up();
	cr_expect_not(changed(is_loopback), "nothing yet");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		others(commands[i]);
		cr_expect(changed(is_loopback), "%s", commands[i]);
		cr_expect_not(changed(is_loopback), "once: %s", commands[i]);
	}
	tear_down();
}

Test(tc_watch, looks_away_from_other_priorities_qdiscs_and_interfaces)
{
	set_up();
	others("tc qdisc add dev lo clsact");
	cr_expect_not(changed(is_nothing));
	others("tc filter add dev lo ingress pref 11 bpf bytecode '1,6 0 0 0,'");
	others("tc filter del dev lo ingress pref 11");
	others("tc qdisc add dev lo root handle 1: htb");
	others("tc filter add dev lo parent 1: pref 10 bpf bytecode '1,6 0 0 0,'");
	cr_expect_not(changed(is_loopback));
	tear_down();
}

Test(tc_watch, looks_away_from_what_we_do_ourselves)
{
	struct error err;
	bool done = false;

	set_up();
	cr_assert_eq(tc_add_clsact(tc, LOOPBACK, &done, &err), 0, "%s", err.text);
	cr_expect(done);
	cr_assert_eq(tc_remove_clsact(tc, LOOPBACK, &done, &err), 0, "%s", err.text);
	cr_expect(done);
	cr_expect_not(changed(is_loopback));
	tear_down();
}

Test(tc_watch, takes_lost_messages_for_a_change)
{
	int size = 1;

	set_up();
	cr_assert_eq(setsockopt(tc_watch_fd(watch), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
	others("for i in 1 2 3 4 5 6 7 8; do"
	       " tc qdisc add dev lo clsact && tc qdisc del dev lo clsact; done");
	cr_expect(changed(is_nothing));
	tear_down();
}
