// SPDX-License-Identifier: GPL-2.0-or-later
/* Moving programs to other maps, and putting back what others take off. */
#include "clock.h"
#include "interfaces.h"
#include "private_bpffs.h"
#include "xdp.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLAGS (FWD_BLOCK_IN | FWD_BLOCK_OUT)

TestSuite(interfaces, .init = enter_private_bpffs, .timeout = 120);

/* ---- looks that fail ---- */

static bool blind;

int __real_tc_get_filter(struct tc *tc, int ifindex, enum fwd_hook hook, u32 *ret_program_id,
			 struct error *err);
int __wrap_tc_get_filter(struct tc *tc, int ifindex, enum fwd_hook hook, u32 *ret_program_id,
			 struct error *err);
int __real_bpf_prog_get_fd_by_id(u32 id);
int __wrap_bpf_prog_get_fd_by_id(u32 id);

int __wrap_tc_get_filter(struct tc *tc, int ifindex, enum fwd_hook hook, u32 *ret_program_id,
			 struct error *err)
{
	if (blind)
		return error_set(err, -EIO, "refused by the test");
	return __real_tc_get_filter(tc, ifindex, hook, ret_program_id, err);
}

int __wrap_bpf_prog_get_fd_by_id(u32 id)
{
	if (!blind)
		return __real_bpf_prog_get_fd_by_id(id);
	errno = EMFILE;
	return -EMFILE;
}

/* ---- the parts of a test ---- */

static char loopback_name[] = "lo", pair_names[] = "fwd*";
static const struct config_interface loopback = {loopback_name, XDP_WANT_GENERIC};
static const struct config_interface pair = {pair_names, XDP_WANT_GENERIC};
static struct links *links;
static struct tc *tc;
static struct interfaces *ifs;
static struct datapath *dp;
static struct datapath_owner owner;

static struct prefix_map *build(unsigned bank)
{
	struct prefix_map *map = NULL;
	struct error err;

	cr_assert_eq(prefix_map_build(NULL, 0, bank, &map, &err), 0, "%s", err.text);
	return map;
}

/* As of a daemon that finds what the one before it left. */
static void begin(const struct config_interface *patterns)
{
	const struct interfaces_wanted wanted = {
		.patterns = patterns, .n_patterns = 1, .flags = FLAGS};
	struct error err;

	cr_assert_eq(interfaces_open(links, tc, &ifs, &err), 0, "%s", err.text);
	interfaces_use(ifs, dp, &owner);
	interfaces_want(ifs, &wanted);
	interfaces_settle(ifs);
}

static void set_up(const struct config_interface *patterns)
{
	struct error err;

	cr_assert_eq(links_open(&links, &err), 0, "%s", err.text);
	cr_assert_eq(tc_open(&tc, &err), 0, "%s", err.text);
	cr_assert_eq(datapath_create(PIN_DIR, build(0), FLAGS, &dp, &err), 0, "%s", err.text);
	datapath_read_owner(PIN_DIR, &owner);
	begin(patterns);
}

static void tear_down(void)
{
	interfaces_close(ifs);
	datapath_close(dp);
	tc_close(tc);
	links_close(links);
}

static void offer_bank(void)
{
	struct error err;

	cr_assert_eq(datapath_offer_bank(dp, build(datapath_offered_bank(dp)), &err), 0, "%s",
		     err.text);
}

static u32 attached(enum fwd_hook hook)
{
	struct xdp_state xdp = {0};
	struct error err;
	u32 id = 0;

	if (hook != FWD_HOOK_XDP) {
		cr_assert_eq(tc_get_filter(tc, 1, hook, &id, &err), 0, "%s", err.text);
		return id;
	}
	cr_assert_eq(xdp_query(1, &owner, NULL, &xdp, &err), 0, "%s", err.text);
	return xdp.program_id;
}

static void expect_moved(bool expected, const char *when)
{
	static const enum fwd_hook hooks[] = {FWD_HOOK_XDP, FWD_HOOK_TC_OUT};

	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++) {
		u32 id = attached(hooks[i]);

		cr_expect_neq(id, 0, "hook %d, %s", hooks[i], when);
		cr_expect_eq(datapath_has_program(dp, hooks[i], id), expected, "hook %d, %s",
			     hooks[i], when);
	}
}

/* ---- the tests ---- */

Test(interfaces, moves_what_is_attached)
{
	struct error err;

	set_up(&loopback);
	expect_moved(true, "attached");
	offer_bank();
	expect_moved(false, "a bank is offered");
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	expect_moved(true, "moved");
	tear_down();
}

/* ---- programs that are loaded ahead ---- */

/* For the maps that are offered then. */
static struct program_set load_ahead(void)
{
	unsigned bank = datapath_offered_bank(dp);
	struct prefix_map *map = build(bank);
	struct program_set set = {0};
	struct error err;

	cr_assert_eq(interfaces_list_programs(ifs, &set), 0);
	cr_assert_gt(set.n, 0);
	datapath_load_ahead(dp, bank, map, &set);
	cr_assert_eq(datapath_offer_bank(dp, map, &err), 0, "%s", err.text);
	return set;
}

Test(interfaces, moves_to_programs_that_were_loaded_ahead)
{
	u32 expected[FWD_HOOKS] = {0};
	struct program_set set;
	struct error err;

	set_up(&loopback);
	set = load_ahead();
	for (size_t i = 0; i < set.n; i++)
		expected[set.items[i].kind.hook] = datapath_program_id(set.items[i].fd);
	datapath_take_programs(dp, &set);
	cr_expect_eq(set.n, 0, "they are the datapath's");
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	expect_moved(true, "moved");
	cr_expect_neq(expected[FWD_HOOK_TC_OUT], 0);
	for (u32 hook = 0; hook < FWD_HOOKS; hook++)
		if (expected[hook])
			cr_expect_eq(attached(hook), expected[hook], "hook %u", hook);
	tear_down();
}

Test(interfaces, moves_to_no_program_of_other_maps)
{
	struct program_set set;
	struct error err;

	set_up(&loopback);
	set = load_ahead();
	datapath_take_programs(dp, &set);
	offer_bank();
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	expect_moved(true, "moved");
	tear_down();
}

Test(interfaces, loads_what_could_not_be_loaded_ahead)
{
	struct program_set set;
	struct error err;

	set_up(&loopback);
	set = load_ahead();
	for (size_t i = 0; i < set.n; i++) {
		closep(&set.items[i].fd);
		set.items[i].fd = -1;
	}
	datapath_take_programs(dp, &set);
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	expect_moved(true, "moved");
	datapath_take_programs(dp, NULL);
	tear_down();
}

/* V4: a program that stayed behind would look for one bank's roots in another's maps. */
Test(interfaces, moves_programs_that_could_not_be_seen_before)
{
	struct error err;

	set_up(&loopback);
	interfaces_close(ifs);
	blind = true;
	begin(&loopback);
	offer_bank();
	cr_expect_lt(interfaces_move(ifs, &err), 0, "nobody can tell what is attached");
	blind = false;
	expect_moved(false, "not seen");
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	expect_moved(true, "moved");
	tear_down();
}

/* At our place in TC. */
static void attach_foreign(enum fwd_hook hook)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = -1}, /* TC_ACT_UNSPEC */
		{.code = BPF_JMP | BPF_EXIT},
	};
	_cleanup_close_ int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", insns,
					       ARRAY_SIZE(insns), NULL);
	struct error err;

	cr_assert_geq(fd, 0);
	cr_assert_eq(tc_set_filter(tc, 1, hook, fd, &err), 0, "%s", err.text);
}

Test(interfaces, that_others_have_taken_keep_no_programs_from_moving)
{
	struct interface_status status;
	struct error err;
	u32 slot = 0;

	set_up(&loopback);
	attach_foreign(FWD_HOOK_TC_OUT);
	offer_bank();
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	cr_expect(datapath_has_program(dp, FWD_HOOK_XDP, attached(FWD_HOOK_XDP)));
	cr_assert(interfaces_next(ifs, &slot, &status));
	cr_expect(status.xdp && !status.tc_out);
	tear_down();
}

Test(interfaces, that_are_gone_keep_no_others_from_moving)
{
	struct error err;

	if (system("ip link add fwd0 type veth peer name fwd1") != 0)
		cr_skip_test("needs ip and veth");
	set_up(&pair);
	offer_bank();
	cr_assert_eq(system("ip link del fwd0"), 0);
	cr_expect_eq(interfaces_move(ifs, &err), 0, "%s", err.text);
	offer_bank();
	cr_expect_eq(interfaces_prepare(ifs, &err), 0, "%s", err.text);
	tear_down();
}

/* ---- what others take off ---- */

static void take_xdp_off(void)
{
	cr_assert_eq(bpf_xdp_detach(1, XDP_FLAGS_SKB_MODE, NULL), 0);
}

Test(interfaces, that_lose_a_program_again_and_again_get_it_after_a_pause)
{
	struct interface_status status;
	u32 slot = 0;

	set_up(&loopback);
	for (int i = 0; i < 3; i++) {
		take_xdp_off();
		interfaces_settle(ifs);
		cr_expect_neq(attached(FWD_HOOK_XDP), 0, "loss %d", i + 1);
		cr_expect_eq(interfaces_due_ns(ifs), 0, "loss %d", i + 1);
	}
	take_xdp_off();
	interfaces_settle(ifs);
	cr_expect_eq(attached(FWD_HOOK_XDP), 0);
	cr_assert(interfaces_next(ifs, &slot, &status));
	cr_expect(status.error && strstr(status.error, "again and again"), "%s", status.error);
	while (clock_ns(CLOCK_MONOTONIC) < interfaces_due_ns(ifs))
		usleep(1000);
	interfaces_settle(ifs);
	cr_expect_neq(attached(FWD_HOOK_XDP), 0, "the pause is over");
	tear_down();
}

Test(interfaces, that_cannot_be_looked_at_are_looked_at_again_soon)
{
	u64 first_ns, now_ns = clock_ns(CLOCK_MONOTONIC);

	set_up(&loopback);
	cr_expect_eq(interfaces_due_ns(ifs), 0);
	blind = true;
	interfaces_settle(ifs);
	first_ns = interfaces_due_ns(ifs);
	cr_expect_gt(first_ns, now_ns);
	interfaces_settle(ifs);
	cr_expect_eq(interfaces_due_ns(ifs), first_ns, "for a message, before it is due");
	while (clock_ns(CLOCK_MONOTONIC) < first_ns)
		usleep(1000);
	interfaces_settle(ifs);
	cr_expect_gt(interfaces_due_ns(ifs), first_ns + NS_PER_S, "the pause has doubled");
	blind = false;
	interfaces_settle(ifs);
	cr_expect_eq(interfaces_due_ns(ifs), 0);
	expect_moved(true, "seen again");
	tear_down();
}

/* ---- verifying ---- */

/* The texts, a line each. */
static void expect_differences(const char *expected)
{
	struct differences differences = {0};
	char texts[4096] = "";
	struct error err;
	size_t n;

	cr_assert_eq(interfaces_verify(ifs, NULL, &differences, &n, &err), 0, "%s", err.text);
	for (size_t i = 0; i < differences.n_items; i++) {
		size_t size = strlen(texts);

		snprintf(texts + size, sizeof(texts) - size, "%s\n", differences.items[i].text);
	}
	cr_expect_str_eq(texts, expected);
	differences_clear(&differences);
}

static void mend(void)
{
	struct error err;

	cr_expect_eq(interfaces_mend(ifs, &err), 0, "%s", err.text);
	expect_differences("");
}

static void want_of(const struct config_interface *patterns, u32 flags)
{
	const struct interfaces_wanted wanted = {
		.patterns = patterns, .n_patterns = 1, .flags = flags};

	interfaces_want(ifs, &wanted);
}

Test(interfaces, that_lack_programs_are_named_and_mended)
{
	struct error err;

	set_up(&loopback);
	expect_differences("");
	take_xdp_off();
	cr_assert_eq(tc_remove_filter(tc, 1, FWD_HOOK_TC_OUT, &err), 0, "%s", err.text);
	expect_differences("lo: XDP: no program of ours, but a rule needs one\n"
			   "lo: TC out: no program of ours, but a rule needs one\n");
	mend();
	tear_down();
}

Test(interfaces, whose_programs_use_other_maps_are_named_and_mended)
{
	set_up(&loopback);
	offer_bank();
	expect_differences("lo: XDP: our program looks into other maps than the ones in use\n"
			   "lo: TC out: our program looks into other maps than the ones in use\n");
	mend();
	expect_moved(true, "mended");
	tear_down();
}

Test(interfaces, with_programs_that_no_rule_needs_are_named_and_mended)
{
	set_up(&loopback);
	want_of(&loopback, FWD_BLOCK_OUT);
	expect_differences("lo: XDP: a program of ours, and no rule needs one\n");
	want_of(&loopback, FWD_BLOCK_IN);
	expect_differences("lo: TC out: a program of ours, and no rule needs one\n");
	want_of(&pair, FLAGS);
	expect_differences("lo: XDP: a program of ours, and no rule needs one\n"
			   "lo: TC out: a program of ours, and no rule needs one\n");
	mend();
	cr_expect_eq(attached(FWD_HOOK_XDP) + attached(FWD_HOOK_TC_OUT), 0);
	tear_down();
}

Test(interfaces, with_a_program_of_somebody_else_in_our_place_are_named_and_left_alone)
{
	char text[512];
	struct error err;
	u32 id = 0;

	set_up(&loopback);
	attach_foreign(FWD_HOOK_TC_OUT);
	cr_assert_eq(tc_get_filter(tc, 1, FWD_HOOK_TC_OUT, &id, &err), 0, "%s", err.text);
	snprintf(text, sizeof(text),
		 "lo: TC out: the filter of another program (id %u) is there in the place of "
		 "ours\n",
		 id);
	expect_differences(text);
	cr_expect_eq(interfaces_mend(ifs, &err), 0, "%s", err.text);
	snprintf(text, sizeof(text),
		 "lo: TC out: the filter of another program (id %u) is there in the place of ours "
		 "(TC out: a tc filter of another program (id %u) has our priority 10 and handle "
		 "0x667764: take it off (tc filter del dev lo egress pref 10))\n",
		 id, id);
	expect_differences(text);
	tear_down();
}

Test(interfaces, that_have_no_slot_or_another_name_in_it_are_named_and_mended)
{
	struct fwd_interface *row;

	set_up(&loopback);
	row = &datapath_interfaces(dp)[0];
	memcpy(row->name, "eth7", sizeof("eth7"));
	expect_differences("lo: its rules are still those of eth7\n");
	mend();
	row->ifindex = 4000;
	expect_differences("lo: configured, and not taken care of: its packets are not filtered\n"
			   "lo: gone, and the kernel's maps still have it\n");
	mend();
	tear_down();
}

Test(interfaces, with_xdp_in_another_mode_are_named_and_mended)
{
	static const struct config_interface native = {pair_names, XDP_WANT_NATIVE};

	if (system("ip link add fwd0 type veth peer name fwd1") != 0)
		cr_skip_test("needs ip and veth");
	set_up(&pair);
	want_of(&native, FLAGS);
	expect_differences("fwd1: XDP: generic, and \"native\" is configured\n"
			   "fwd0: XDP: generic, and \"native\" is configured\n");
	mend();
	tear_down();
}
