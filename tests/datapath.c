// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's side of an instance as a whole: what is pinned, what is adopted after a death at any
 * point, and whose programs are whose.
 */
#include "datapath.h"

#include "clock.h"
#include "private_bpffs.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(datapath, .init = enter_private_bpffs, .timeout = 120);

/* ---- the parts of a test ---- */

static const struct datapath_sizes sizes = {.block = 64, .allow = 4};

static struct datapath *create(void)
{
	struct datapath *dp = NULL;
	struct error err;

	cr_assert_eq(datapath_create(PIN_DIR, &sizes, &dp, &err), 0, "%s", err.text);
	return dp;
}

static struct datapath *create_current(void)
{
	struct datapath *dp = create();
	struct error err;

	cr_assert_eq(datapath_promote(dp, &err), 0, "%s", err.text);
	return dp;
}

/* NULL: there is nothing to adopt. */
static struct datapath *adopt(void)
{
	struct datapath *dp = NULL;
	struct error err;

	cr_assert_eq(datapath_adopt(PIN_DIR, &dp, &err), 0, "%s", err.text);
	return dp;
}

static void expect_adoption(bool expected, const char *when)
{
	_cleanup_(datapath_closep) struct datapath *dp = adopt();

	cr_expect_eq(dp != NULL, expected, "%s", when);
}

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0);
	return prefix;
}

static struct prefix_change insertion(const char *text)
{
	return (struct prefix_change){prefix_of(text), PREFIX_INSERT, 0};
}

static struct prefix_change removal(const char *text)
{
	return (struct prefix_change){prefix_of(text), PREFIX_REMOVE, 0};
}

static bool blocks(struct datapath *dp, const char *text)
{
	const struct prefix prefix = prefix_of(text);

	return prefix_map_find(datapath_block(dp), &prefix) != NULL;
}

static void block(struct datapath *dp, const char *text)
{
	const struct prefix_change change = insertion(text);
	const struct datapath_change changes = {
		.block = &change,
		.n_block = 1,
		.flags = datapath_flags(dp),
	};

	cr_assert_eq(datapath_stage(dp, &changes, NULL), 0);
	datapath_commit(dp);
}

static bool is_there(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), PIN_DIR "/%s", name);
	return !access(path, F_OK);
}

/* The control map of `current`, or of `next`, as the packets' programs see it. */
static struct fwd_control read_control(const char *set)
{
	_cleanup_close_ int fd = -1;
	struct fwd_control control;
	char path[128];
	u32 zero = 0;

	snprintf(path, sizeof(path), PIN_DIR "/%s/" FWD_MAP_CONTROL, set);
	fd = bpf_obj_get(path);
	cr_assert_geq(fd, 0, "%s", path);
	cr_assert_eq(bpf_map_lookup_elem(fd, &zero, &control), 0);
	return control;
}

static void write_control(const struct fwd_control *control)
{
	_cleanup_close_ int fd = bpf_obj_get(PIN_DIR "/current/" FWD_MAP_CONTROL);
	u32 zero = 0;

	cr_assert_eq(bpf_map_update_elem(fd, &zero, control, BPF_ANY), 0);
}

static u32 id_of_program(int fd)
{
	struct bpf_prog_info info = {0};
	u32 size = sizeof(info);

	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
	return info.id;
}

static int load_tc(struct datapath *dp, enum fwd_hook hook)
{
	struct error err;
	int fd = -1;

	cr_assert_eq(datapath_load_tc(dp, 0, hook, true, &fd, &err), 0, "%s", err.text);
	return fd;
}

/* ---- adoption ---- */

Test(datapath, nothing_is_adopted_where_nothing_is)
{
	expect_adoption(false, "the directory is empty");
	cr_assert_eq(rmdir(PIN_DIR), 0);
	expect_adoption(false, "there is no directory");
}

Test(datapath, what_was_promoted_is_adopted_with_its_rules)
{
	struct datapath *dp = create_current();
	struct fwd_interface *row = &datapath_interfaces(dp)[3];

	block(dp, "192.0.2.1");
	row->ifindex = 7;
	datapath_close(dp);
	dp = adopt();
	cr_assert(dp);
	cr_expect(blocks(dp, "192.0.2.1"));
	cr_expect_eq(prefix_map_size(datapath_block(dp)), 1);
	cr_expect_eq(prefix_map_capacity(datapath_block(dp)), sizes.block);
	cr_expect_eq(prefix_map_capacity(datapath_allow(dp)), sizes.allow);
	cr_expect_eq(datapath_interfaces(dp)[3].ifindex, 7);
	datapath_close(dp);
}

Test(datapath, what_was_not_promoted_is_not_adopted)
{
	datapath_close(create());
	cr_expect(is_there("next") && !is_there("current"));
	expect_adoption(false, "the daemon died before it had filled them");
	cr_expect(is_there("next") && !is_there("current"), "it was renamed");
	datapath_close(create_current());
	cr_expect(is_there("current") && !is_there("next"));
	expect_adoption(true, "the next daemon made them again");
}

Test(datapath, another_version_is_not_adopted)
{
	struct fwd_control control;

	datapath_close(create_current());
	control = read_control("current");
	cr_expect_eq(control.abi_version, FWD_ABI_VERSION);
	cr_expect_eq(control.complete, 1);
	control.abi_version++;
	write_control(&control);
	expect_adoption(false, "a newer version");
	control.abi_version = 0;
	write_control(&control);
	expect_adoption(false, "no version");
	control.abi_version = FWD_ABI_VERSION;
	control.complete = 0;
	write_control(&control);
	expect_adoption(false, "not complete");
	control.complete = 1;
	write_control(&control);
	expect_adoption(true, "as it was");
}

Test(datapath, a_control_map_of_another_size_is_not_adopted)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "control", 4, 2 * sizeof(struct fwd_control), 1,
				&opts);
	struct fwd_control larger[2];
	u32 zero = 0;

	datapath_close(create_current());
	larger[0] = larger[1] = read_control("current");
	cr_assert_eq(bpf_map_update_elem(fd, &zero, larger, BPF_ANY), 0);
	cr_assert_eq(unlink(PIN_DIR "/current/" FWD_MAP_CONTROL), 0);
	cr_assert_eq(bpf_obj_pin(fd, PIN_DIR "/current/" FWD_MAP_CONTROL), 0);
	close(fd);
	expect_adoption(false, "of twice the size");
}

Test(datapath, a_set_with_a_map_missing_is_not_adopted)
{
	static const char *const names[] = {
		FWD_MAP_BLOCK4,	   FWD_MAP_BLOCK6,	    FWD_MAP_BLOCK_ENTRIES,
		FWD_MAP_ALLOW4,	   FWD_MAP_ALLOW6,	    FWD_MAP_ALLOW_ENTRIES,
		FWD_MAP_REDIRECTS, FWD_MAP_REDIRECT_TABLES, FWD_MAP_REDIRECT_COUNTERS,
		FWD_MAP_COUNTERS,  FWD_MAP_INTERFACES,	    FWD_MAP_CONTROL,
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[128];

		datapath_close(create_current());
		snprintf(path, sizeof(path), PIN_DIR "/current/%s", names[i]);
		cr_assert_eq(unlink(path), 0, "%s", path);
		expect_adoption(false, names[i]);
	}
}

Test(datapath, death_between_the_two_renames_is_made_good)
{
	struct datapath *dp = create_current();

	block(dp, "192.0.2.1");
	datapath_close(dp);
	cr_assert_eq(rename(PIN_DIR "/current", PIN_DIR "/next"), 0);
	dp = adopt();
	cr_assert(dp, "complete maps were there, by the name of next");
	cr_expect(blocks(dp, "192.0.2.1"));
	cr_expect(is_there("current") && !is_there("next"));
	datapath_close(dp);
}

Test(datapath, death_within_a_promotion_leaves_one_of_the_two)
{
	struct datapath *old = create_current(), *new = create();

	block(new, "192.0.2.1");
	expect_adoption(true, "the old ones, before it begins");
	cr_assert_eq(datapath_promote(new, NULL), 0);
	cr_expect(is_there("current") && !is_there("next") && !is_there("old"));
	datapath_close(old);
	datapath_close(new);
	new = adopt();
	cr_assert(new);
	cr_expect(blocks(new, "192.0.2.1"));
	cr_assert_eq(datapath_promote(new, NULL), 0, "again");
	datapath_close(new);
}

Test(datapath, half_made_maps_go_with_the_next_promotion)
{
	struct datapath *dp = create_current();

	datapath_close(create());
	cr_assert_eq(mkdir(PIN_DIR "/old", 0700), 0);
	cr_assert_eq(datapath_promote(dp, NULL), 0);
	cr_expect(is_there("current") && !is_there("next") && !is_there("old"));
	datapath_close(dp);
}

/* ---- changes of the policy ---- */

Test(datapath, a_change_is_staged_whole_or_not_at_all)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const struct prefix_change good[] = {insertion("192.0.2.1"), insertion("192.0.2.2")};
	struct prefix_change many[5] = {insertion("203.0.113.1"), insertion("203.0.113.2"),
					insertion("203.0.113.3"), insertion("203.0.113.4"),
					insertion("203.0.113.5")};
	struct datapath_change change = {
		.block = good,
		.n_block = 2,
		.allow = many,
		.n_allow = sizes.allow + 1,
		.flags = FWD_BLOCK_IN,
	};

	cr_expect_eq(datapath_stage(dp, &change, NULL), -E2BIG);
	cr_expect(!blocks(dp, "192.0.2.1"), "a part of it is staged");
	change.n_allow = sizes.allow;
	cr_expect_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_abort(dp);
	cr_expect_eq(prefix_map_size(datapath_block(dp)), 0);
	cr_expect_eq(prefix_map_size(datapath_allow(dp)), 0);
	cr_expect_eq(datapath_flags(dp), 0);
	cr_expect_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(prefix_map_size(datapath_block(dp)), 2);
	cr_expect_eq(prefix_map_size(datapath_allow(dp)), sizes.allow);
	cr_expect_eq(datapath_flags(dp), FWD_BLOCK_IN);
}

/* One change needs no switch, and so no grace period; more take effect at once by one (V2). */
Test(datapath, views_are_switched_for_more_than_one_change)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const struct prefix_change two[] = {insertion("192.0.2.1"), insertion("192.0.2.2")};
	const struct prefix_change one = insertion("192.0.2.3");
	struct datapath_change change = {.block = two, .n_block = 2};
	u32 view = read_control("current").view;

	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	cr_expect_eq(read_control("current").view, view, "staging switches");
	datapath_commit(dp);
	cr_expect_eq(read_control("current").view, !view);
	change = (struct datapath_change){.block = &one, .n_block = 1};
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(read_control("current").view, !view);
	change = (struct datapath_change){.flags = FWD_BLOCK_OUT};
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(read_control("current").view, view, "flags have views, too");
	cr_expect_eq(read_control("current").flags[0], FWD_BLOCK_OUT);
	cr_expect_eq(read_control("current").flags[1], FWD_BLOCK_OUT);
}

/* The old policy blocks .1 and has no direction, the new one blocks .2 and .3 inward. */
static void die_staged(bool switched)
{
	struct datapath *dp = create_current();
	const struct prefix_change changes[] = {removal("192.0.2.1"), insertion("192.0.2.2"),
						insertion("192.0.2.3")};
	const struct prefix_change allow = insertion("203.0.113.1");
	const struct datapath_change change = {
		.block = changes,
		.n_block = 3,
		.allow = &allow,
		.n_allow = 1,
		.flags = FWD_BLOCK_IN,
	};
	struct fwd_control control;

	block(dp, "192.0.2.1");
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	control = read_control("current");
	if (switched) {
		/* As datapath_commit() begins. */
		control.flags[!control.view] = FWD_BLOCK_IN;
		control.view = !control.view;
		write_control(&control);
	}
	datapath_close(dp);
}

Test(datapath, death_before_the_switch_leaves_the_old_policy)
{
	_cleanup_(datapath_closep) struct datapath *dp = NULL;

	die_staged(false);
	dp = adopt();
	cr_assert(dp);
	cr_expect(blocks(dp, "192.0.2.1") && !blocks(dp, "192.0.2.2") && !blocks(dp, "192.0.2.3"));
	cr_expect_eq(prefix_map_size(datapath_allow(dp)), 0);
	cr_expect_eq(datapath_flags(dp), 0);
	block(dp, "192.0.2.2");
}

Test(datapath, death_behind_the_switch_leaves_the_new_policy)
{
	_cleanup_(datapath_closep) struct datapath *dp = NULL;

	die_staged(true);
	dp = adopt();
	cr_assert(dp);
	cr_expect(!blocks(dp, "192.0.2.1") && blocks(dp, "192.0.2.2") && blocks(dp, "192.0.2.3"));
	cr_expect_eq(prefix_map_size(datapath_allow(dp)), 1);
	cr_expect_eq(datapath_flags(dp), FWD_BLOCK_IN);
	cr_expect_eq(read_control("current").flags[0], read_control("current").flags[1]);
	block(dp, "192.0.2.1");
}

/* ---- whose programs ---- */

static int load_foreign(void)
{
	struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 2},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", insns, ARRAY_SIZE(insns),
			       NULL);

	cr_assert_geq(fd, 0);
	return fd;
}

Test(datapath, a_program_is_known_by_the_maps_it_uses)
{
	_cleanup_(datapath_closep) struct datapath *old = create_current(), *new = NULL;
	_cleanup_close_ int foreign = load_foreign(), old_fd = load_tc(old, FWD_HOOK_TC_IN);
	_cleanup_close_ int new_fd = -1;
	struct datapath_owner owner, other;

	new = create();
	new_fd = load_tc(new, FWD_HOOK_TC_OUT);
	datapath_read_owner(PIN_DIR, &owner);
	cr_expect(datapath_owner_has(&owner, id_of_program(old_fd)),
		  "from the moment it is loaded");
	cr_expect(datapath_owner_has(&owner, id_of_program(new_fd)), "on maps that are being made");
	cr_expect_not(datapath_owner_has(&owner, id_of_program(foreign)));
	cr_expect_not(datapath_owner_has(&owner, 0));
	cr_expect(datapath_has_program(old, id_of_program(old_fd)));
	cr_expect_not(datapath_has_program(old, id_of_program(new_fd)));
	cr_expect_not(datapath_has_program(old, id_of_program(foreign)));
	datapath_read_owner(PIN_DIR "-of-another", &other);
	cr_expect_not(datapath_owner_has(&other, id_of_program(old_fd)), "another instance");
	cr_assert_eq(datapath_promote(new, NULL), 0);
	datapath_read_owner(PIN_DIR, &owner);
	cr_expect(datapath_owner_has(&owner, id_of_program(new_fd)));
}

Test(datapath, all_programs_load_for_each_slot_and_device)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	static const u32 slots[] = {0, FWD_MAX_INTERFACES - 1};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(slots); i++) {
		struct bpf_object *obj = NULL;
		bool has_l2 = i & 1;
		struct error err;
		int fd = -1;

		cr_assert_eq(datapath_open_xdp(dp, slots[i / 2], has_l2, &obj, &err), 0, "%s",
			     err.text);
		cr_expect_eq(bpf_object__load(obj), 0);
		bpf_object__close(obj);
		for (enum fwd_hook hook = FWD_HOOK_TC_IN; hook <= FWD_HOOK_TC_OUT; hook++) {
			cr_assert_eq(datapath_load_tc(dp, slots[i / 2], hook, has_l2, &fd, &err), 0,
				     "%s", err.text);
			close(fd);
		}
	}
}

Test(datapath, a_pinned_program_is_replaced_and_taken_away)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	_cleanup_close_ int first = load_tc(dp, FWD_HOOK_TC_IN), second = -1, pinned = -1;

	second = load_tc(dp, FWD_HOOK_TC_OUT);
	cr_assert_eq(datapath_pin_program(dp, 7, FWD_HOOK_TC_IN, first, NULL), 0);
	cr_assert_eq(datapath_pin_program(dp, 7, FWD_HOOK_TC_IN, second, NULL), 0);
	pinned = bpf_obj_get(PIN_DIR "/current/tc_in_7");
	cr_assert_geq(pinned, 0);
	cr_expect_eq(id_of_program(pinned), id_of_program(second));
	datapath_unpin_program(dp, 7, FWD_HOOK_TC_IN);
	datapath_unpin_program(dp, 7, FWD_HOOK_TC_IN);
	cr_expect_not(is_there("current/tc_in_7"));
}

/* ---- pins ---- */

Test(datapath, all_its_pins_are_removed)
{
	datapath_close(create_current());
	datapath_close(create());
	cr_assert_eq(datapath_remove_pins(PIN_DIR, NULL), 0);
	cr_expect(access(PIN_DIR, F_OK) < 0);
	cr_expect_eq(datapath_remove_pins(PIN_DIR, NULL), 0, "there are none");
}

/* pin_dir may be shared: it may even be the whole file system. */
Test(datapath, pins_of_others_stay)
{
	_cleanup_close_ int foreign = load_foreign();

	datapath_close(create_current());
	cr_assert_eq(bpf_obj_pin(foreign, PIN_DIR "/theirs"), 0);
	cr_expect_eq(datapath_remove_pins(PIN_DIR, NULL), 0);
	cr_expect(is_there("theirs") && !is_there("current"));
}

Test(datapath, a_place_that_is_no_bpf_file_system_is_refused)
{
	struct datapath *dp = NULL;
	char dir[] = "/tmp/fwd-test-XXXXXX";
	struct error err = {""};

	cr_assert(mkdtemp(dir));
	cr_expect_lt(datapath_create(dir, &sizes, &dp, &err), 0);
	cr_expect_null(dp);
	cr_expect(strstr(err.text, dir), "%s", err.text);
	datapath_remove_pins(dir, NULL);
	rmdir(dir);
	cr_expect_lt(datapath_create("/nonexistent/fwd", &sizes, &dp, &err), 0);
	cr_expect_null(dp);
}

/* ---- counters ---- */

static void set_counter(const char *set, u32 slot, enum fwd_hook hook, u64 packets)
{
	int cpus = libbpf_num_possible_cpus();
	struct fwd_counters *counters = calloc((size_t)cpus, sizeof(*counters));
	_cleanup_close_ int fd = -1;
	u32 index = slot * FWD_HOOKS + hook;
	char path[128];

	snprintf(path, sizeof(path), PIN_DIR "/%s/" FWD_MAP_COUNTERS, set);
	fd = bpf_obj_get(path);
	for (int i = 0; i < cpus; i++)
		counters[i].by_verdict[FWD_DROP] = (struct fwd_counter){packets, 60 * packets};
	cr_assert_eq(bpf_map_update_elem(fd, &index, counters, BPF_ANY), 0);
	free(counters);
}

static struct fwd_counter dropped(struct datapath *dp, u32 slot, enum fwd_hook hook)
{
	struct fwd_counters counters;

	cr_assert_eq(datapath_counters(dp, slot, hook, &counters), 0);
	return counters.by_verdict[FWD_DROP];
}

Test(datapath, counters_are_of_all_cpus_and_go_over_to_other_maps)
{
	_cleanup_(datapath_closep) struct datapath *old = create_current(), *new = NULL;
	u64 cpus = (u64)libbpf_num_possible_cpus();

	set_counter("current", 0, FWD_HOOK_XDP, 3);
	set_counter("current", 255, FWD_HOOK_TC_OUT, 5);
	set_counter("current", 9, FWD_HOOK_TC_IN, 7);
	cr_expect_eq(dropped(old, 0, FWD_HOOK_XDP).packets, 3 * cpus);
	cr_expect_eq(dropped(old, 0, FWD_HOOK_XDP).bytes, 180 * cpus);
	cr_expect_eq(dropped(old, 0, FWD_HOOK_TC_IN).packets, 0);
	datapath_interfaces(old)[0].ifindex = 1;
	datapath_interfaces(old)[255].ifindex = 2;
	new = create();
	datapath_copy_counters(old, new);
	cr_expect_eq(dropped(new, 0, FWD_HOOK_XDP).packets, 3 * cpus);
	cr_expect_eq(dropped(new, 255, FWD_HOOK_TC_OUT).packets, 5 * cpus);
	cr_expect_eq(dropped(new, 9, FWD_HOOK_TC_IN).packets, 0, "no interface has the slot");
	datapath_clear_counters(new, 255);
	cr_expect_eq(dropped(new, 255, FWD_HOOK_TC_OUT).packets, 0);
	cr_expect_eq(dropped(new, 0, FWD_HOOK_XDP).packets, 3 * cpus);
}
