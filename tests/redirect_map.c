// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The redirects in the kernel: which redirect each port of each interface has in each set, through
 * staging, settling, aborting and death. packet_tc.c has what packets see of it.
 */
#include "redirect_map.h"

#include "datapath.h"
#include "private_bpffs.h"
#include "random.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>

static struct redirect_map_fds fds;

/* The slots of the scopes below are in use. */
static struct fwd_interface slots[FWD_MAX_INTERFACES];

static bool updates_fail;

int __real_bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags);
int __wrap_bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags);

int __wrap_bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags)
{
	if (!updates_fail)
		return __real_bpf_map_update_elem(fd, key, value, flags);
	errno = ENOMEM;
	return -1;
}

static int get_pin(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), PIN_DIR "/next/%s", name);
	fd = bpf_obj_get(path);
	cr_assert_geq(fd, 0, "%s", path);
	return fd;
}

/* The maps as the datapath makes them; not used by it. */
static void make_maps(void)
{
	struct prefix_map *empty;
	struct datapath *dp = NULL;
	struct error err;

	cr_assert_eq(prefix_map_build(NULL, 0, 0, &empty, &err), 0, "%s", err.text);
	cr_assert_eq(datapath_create(PIN_DIR, empty, 0, &dp, &err), 0, "%s", err.text);
	datapath_close(dp);
	fds.tables = get_pin(FWD_MAP_REDIRECT_TABLES);
	fds.redirects = get_pin(FWD_MAP_REDIRECTS);
	fds.counts = get_pin(FWD_MAP_REDIRECT_COUNTERS);
	fds.slots = slots;
	slots[0].ifindex = 1;
	slots[255].ifindex = 2;
}

static void set_up(void)
{
	enter_private_bpffs();
	make_maps();
}

TestSuite(redirect_map, .init = set_up, .timeout = 120);

/* ---- the parts of a test ---- */

static const struct redirect_scope scopes[] = {{.slot = 0, .name = "eth0"},
					       {.slot = 255, .name = "eth1"}};

static struct redirect_map *open_map(unsigned set)
{
	struct redirect_map *map = NULL;
	struct error err;

	cr_assert_eq(redirect_map_open(&fds, set, &map, &err), 0, "%s", err.text);
	return map;
}

static struct redirect tcp(const char *interface, u16 first, u16 last, const char *target)
{
	struct redirect redirect = {
		.protocol = IPPROTO_TCP,
		.port_first = first,
		.port_last = last,
	};

	snprintf(redirect.interface, sizeof(redirect.interface), "%s", interface);
	snprintf(redirect.target, sizeof(redirect.target), "%s", target);
	return redirect;
}

static int stage(struct redirect_map *map, unsigned set, const struct redirect *redirects, size_t n)
{
	struct error err;

	return redirect_map_stage(map, set, redirects, n, scopes, ARRAY_SIZE(scopes), &err);
}

/* The number of the table that packets of a set find; 0: none. */
static u32 table_id(unsigned set, u32 slot, enum fwd_hook hook)
{
	u32 index = FWD_TABLE_INDEX(set, slot, hook), id = 0;

	return bpf_map_lookup_elem(fds.tables, &index, &id) < 0 ? 0 : id;
}

/* The row that a port leads to; not used: none. */
static struct fwd_redirect row_of(unsigned set, u32 slot, enum fwd_hook hook,
				  enum fwd_protocol protocol, u16 port)
{
	_cleanup_close_ int table = -1;
	struct fwd_redirect row = {.used = 0};
	u32 id = table_id(set, slot, hook), line_index = FWD_LINE_INDEX(protocol, port), number;
	struct fwd_port_line line;

	if (!id)
		return row;
	table = bpf_map_get_fd_by_id(id);
	cr_assert_eq(bpf_map_lookup_elem(table, &line_index, &line), 0);
	number = line.redirect[port % FWD_PORT_LINE];
	if (!number)
		return row;
	cr_assert_eq(bpf_map_lookup_elem(fds.redirects, &number, &row), 0);
	cr_assert(row.used, "port %u leads to a row that is not used", port);
	return row;
}

/* "" for none. */
static void expect_target(unsigned set, u32 slot, u16 port, const char *target)
{
	struct fwd_redirect row = row_of(set, slot, FWD_HOOK_TC_IN, FWD_TCP, port);

	cr_expect_str_eq(row.target_name, target, "set %u, slot %u, port %u", set, slot, port);
}

/* At rest both sets find the same. */
static void expect_both(u32 slot, u16 port, const char *target)
{
	expect_target(0, slot, port, target);
	expect_target(1, slot, port, target);
}

static struct redirect_state state_of(const struct redirect_map *map,
				      const struct redirect *redirect)
{
	struct redirect_state state;

	cr_assert(redirect_map_read(map, redirect, &state));
	return state;
}

static void set_count(u32 number, u64 packets)
{
	int cpus = libbpf_num_possible_cpus();
	struct fwd_counter *counts = calloc((size_t)cpus, sizeof(*counts));

	for (int i = 0; i < cpus; i++)
		counts[i] = (struct fwd_counter){.packets = packets, .bytes = 60 * packets};
	cr_assert_eq(bpf_map_update_elem(fds.counts, &number, counts, BPF_ANY), 0);
	free(counts);
}

/* ---- staging ---- */

Test(redirect_map, an_interfaces_own_redirect_goes_before_that_of_every_interface)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect redirects[] = {tcp("eth1", 85, 85, "own"), tcp("", 80, 90, "all"),
					     tcp("eth9", 80, 90, "nobody")};

	cr_assert_eq(stage(map, 1, redirects, 3), 0);
	redirect_map_settle(map);
	expect_both(0, 79, "");
	expect_both(0, 80, "all");
	expect_both(0, 85, "all");
	expect_both(0, 90, "all");
	expect_both(0, 91, "");
	expect_both(255, 84, "all");
	expect_both(255, 85, "own");
	expect_both(255, 86, "all");
	expect_both(1, 85, ""); /* no interface has that slot */
}

Test(redirect_map, a_redirect_of_every_interface_is_left_out_on_its_target)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect all = tcp("", 80, 80, "eth1");

	cr_assert_eq(stage(map, 1, &all, 1), 0);
	redirect_map_settle(map);
	expect_both(0, 80, "eth1");
	expect_both(255, 80, "");
	cr_expect_eq(table_id(0, 255, FWD_HOOK_TC_IN), 0, "an empty table is none");
}

Test(redirect_map, directions_and_protocols_do_not_mix)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	struct redirect out_udp = tcp("eth0", 65535, 65535, "lan");

	out_udp.protocol = IPPROTO_UDP;
	out_udp.direction = DIRECTION_OUT;
	cr_assert_eq(stage(map, 1, &out_udp, 1), 0);
	redirect_map_settle(map);
	cr_expect(row_of(0, 0, FWD_HOOK_TC_OUT, FWD_UDP, 65535).used);
	cr_expect_not(row_of(0, 0, FWD_HOOK_TC_OUT, FWD_TCP, 65535).used);
	cr_expect_not(row_of(0, 0, FWD_HOOK_TC_IN, FWD_UDP, 65535).used);
	cr_expect_not(row_of(0, 0, FWD_HOOK_TC_OUT, FWD_UDP, 65534).used);
}

/* Packets have the old one by set 1; the new one is staged in set 0. */
static void stage_over(struct redirect_map *map, const struct redirect *old,
		       const struct redirect *new)
{
	cr_assert_eq(stage(map, 1, old, 1), 0);
	redirect_map_settle(map);
	cr_assert_eq(stage(map, 0, new, 1), 0);
}

Test(redirect_map, staged_redirects_are_seen_in_their_set_alone)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect old = tcp("eth0", 80, 80, "old"), new = tcp("eth0", 80, 80, "new");

	stage_over(map, &old, &new);
	expect_target(0, 0, 80, "new");
	expect_target(1, 0, 80, "old");
	redirect_map_settle(map);
	expect_both(0, 80, "new");
	cr_expect_not(redirect_map_read(map, &old, &(struct redirect_state){0}));
}

/* One set was left behind when packets had the other: they must not be led back to it. */
Test(redirect_map, a_set_that_could_not_be_kept_up_is_before_packets_see_it)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect old = tcp("eth0", 80, 80, "old"), new = tcp("eth0", 80, 80, "new");

	stage_over(map, &old, &new);
	updates_fail = true;
	redirect_map_settle(map);
	cr_expect_neq(stage(map, 1, &new, 1), 0, "not while it cannot be");
	updates_fail = false;
	cr_assert_eq(stage(map, 1, &new, 1), 0);
	expect_both(0, 80, "new");
	redirect_map_settle(map);
	expect_both(0, 80, "new");
}

Test(redirect_map, a_set_that_an_abort_could_not_clear_is_cleared_by_the_next_stage)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect old = tcp("eth0", 80, 80, "old"), new = tcp("eth0", 80, 80, "new");

	stage_over(map, &old, &new);
	updates_fail = true;
	redirect_map_abort(map);
	updates_fail = false;
	cr_assert_eq(stage(map, 0, &old, 1), 0);
	expect_both(0, 80, "old");
	redirect_map_settle(map);
}

Test(redirect_map, an_abort_leaves_everything_as_it_was)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect old = tcp("eth0", 80, 80, "old");
	const struct redirect changed[] = {tcp("eth0", 80, 80, "new"), tcp("", 1, 65535, "all")};

	cr_assert_eq(stage(map, 1, &old, 1), 0);
	redirect_map_settle(map);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(stage(map, 0, changed, 2), 0);
		redirect_map_abort(map);
		expect_both(0, 80, "old");
		expect_both(255, 80, "");
	}
	redirect_map_abort(map); /* nothing is staged */
	redirect_map_settle(map);
	expect_both(0, 80, "old");
	cr_expect_not(redirect_map_read(map, &changed[0], &(struct redirect_state){0}));
}

Test(redirect_map, no_redirects_take_the_tables_away)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect old = tcp("", 80, 80, "old");

	cr_assert_eq(stage(map, 1, &old, 1), 0);
	redirect_map_settle(map);
	cr_assert_eq(stage(map, 0, NULL, 0), 0);
	redirect_map_settle(map);
	expect_both(0, 80, "");
	for (unsigned set = 0; set < FWD_TABLE_SETS; set++)
		for (size_t i = 0; i < ARRAY_SIZE(scopes); i++)
			cr_expect_eq(table_id(set, scopes[i].slot, FWD_HOOK_TC_IN), 0);
}

/* A change of a table waits for packets; where none is needed none is made. */
Test(redirect_map, a_table_that_does_not_change_stays)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect redirects[] = {tcp("eth0", 80, 80, "lan"),
					     tcp("eth1", 80, 80, "lan")};
	u32 before, changed;

	cr_assert_eq(stage(map, 1, redirects, 1), 0);
	redirect_map_settle(map);
	before = table_id(0, 0, FWD_HOOK_TC_IN);
	changed = table_id(0, 255, FWD_HOOK_TC_IN);
	cr_assert_eq(stage(map, 0, redirects, 2), 0);
	redirect_map_settle(map);
	cr_expect_eq(table_id(0, 0, FWD_HOOK_TC_IN), before);
	cr_expect_eq(table_id(1, 0, FWD_HOOK_TC_IN), before);
	cr_expect_neq(table_id(0, 255, FWD_HOOK_TC_IN), changed);
}

/* Number 0 stands for none. */
Test(redirect_map, takes_as_many_as_it_has_room_for_and_not_one_more)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	struct redirect redirects[FWD_MAX_REDIRECTS];

	for (u16 i = 0; i < FWD_MAX_REDIRECTS; i++)
		redirects[i] = tcp("eth0", i + 1, i + 1, "lan");
	cr_expect_eq(stage(map, 1, redirects, FWD_MAX_REDIRECTS), -ENOSPC);
	expect_both(0, 1, "");
	cr_expect_not(redirect_map_read(map, &redirects[0], &(struct redirect_state){0}));
	cr_expect_eq(stage(map, 1, redirects, FWD_MAX_REDIRECTS - 1), 0);
	redirect_map_settle(map);
	expect_both(0, 1, "lan");
	expect_both(0, FWD_MAX_REDIRECTS - 1, "lan");
	cr_expect_eq(stage(map, 0, redirects, FWD_MAX_REDIRECTS), -ENOSPC);
	expect_both(0, FWD_MAX_REDIRECTS - 1, "lan");
}

/* ---- targets and counters ---- */

Test(redirect_map, auto_becomes_what_the_target_can_do)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	struct redirect redirect = tcp("eth0", 80, 80, "lan");
	struct redirect_link link = {.ifindex = 7, .has_l2 = true, .mac = {2, 0, 0, 0, 0, 9}};
	struct fwd_redirect row;

	cr_assert_eq(stage(map, 1, &redirect, 1), 0);
	cr_expect_not(state_of(map, &redirect).has_target, "it is not known yet");
	redirect_map_set_target(map, "lan", &link);
	cr_expect_eq(state_of(map, &redirect).mode, REDIRECT_NEIGH, "a staged one is told, too");
	redirect_map_settle(map);
	row = row_of(0, 0, FWD_HOOK_TC_IN, FWD_TCP, 80);
	cr_expect_eq(row.target.ifindex, 7);
	cr_expect_eq(row.target.has_l2, 1);
	cr_expect_eq(memcmp(row.mac, link.mac, sizeof(row.mac)), 0);
	link = (struct redirect_link){.ifindex = 8};
	redirect_map_set_target(map, "other", &link);
	cr_expect_eq(state_of(map, &redirect).mode, REDIRECT_NEIGH, "another target's");
	redirect_map_set_target(map, "lan", &link);
	cr_expect_eq(state_of(map, &redirect).mode, REDIRECT_L2);
	redirect_map_set_target(map, "lan", &(struct redirect_link){0});
	cr_expect_not(state_of(map, &redirect).has_target);
}

Test(redirect_map, a_mode_that_was_asked_for_stays)
{
	static const u8 modes[] = {REDIRECT_L2, REDIRECT_NEIGH, REDIRECT_INGRESS};
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect_link bare = {.ifindex = 7}, ethernet = {.ifindex = 8, .has_l2 = true};
	struct redirect redirect = tcp("eth0", 80, 80, "lan");
	unsigned set = 0;

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		redirect.mode = modes[i];
		set = !set;
		cr_assert_eq(stage(map, set, &redirect, 1), 0);
		redirect_map_settle(map);
		redirect_map_set_target(map, "lan", &bare);
		cr_expect_eq(state_of(map, &redirect).mode, modes[i]);
		redirect_map_set_target(map, "lan", &ethernet);
		cr_expect_eq(state_of(map, &redirect).mode, modes[i]);
	}
}

Test(redirect_map, hits_stay_while_others_come_and_go)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect redirects[] = {tcp("eth0", 80, 80, "lan"),
					     tcp("eth0", 81, 81, "lan")};
	u64 cpus = (u64)libbpf_num_possible_cpus();

	cr_assert_eq(stage(map, 1, redirects, 2), 0);
	redirect_map_settle(map);
	set_count(1, 5);
	set_count(2, 7);
	cr_expect_eq(state_of(map, &redirects[0]).packets, 5 * cpus);
	cr_expect_eq(state_of(map, &redirects[0]).bytes, 300 * cpus);
	cr_assert_eq(stage(map, 0, &redirects[1], 1), 0);
	redirect_map_settle(map);
	cr_assert_eq(stage(map, 1, redirects, 2), 0);
	redirect_map_settle(map);
	cr_expect_eq(state_of(map, &redirects[1]).packets, 7 * cpus);
	cr_expect_eq(state_of(map, &redirects[0]).packets, 0, "it was gone in between");
}

/* ---- a daemon that dies ---- */

static const char *const after_death[FWD_TABLE_SETS] = {"old", "new"};

static void die_staged(void)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(1);
	const struct redirect old = tcp("eth0", 80, 80, "old");
	const struct redirect changed[] = {tcp("eth0", 80, 80, "new"), tcp("eth1", 80, 80, "new")};

	cr_assert_eq(stage(map, 0, &old, 1), 0);
	redirect_map_settle(map);
	cr_assert_eq(stage(map, 1, changed, 2), 0);
}

Test(redirect_map, death_before_or_behind_the_switch_leaves_one_policy_whole)
{
	for (unsigned set = 0; set < FWD_TABLE_SETS; set++) {
		_cleanup_(redirect_map_closep) struct redirect_map *map = NULL;

		if (set)
			make_maps();
		die_staged();
		map = open_map(set);
		expect_both(0, 80, after_death[set]);
		expect_both(255, 80, set ? "new" : "");
		cr_assert_eq(stage(map, !set, NULL, 0), 0);
		redirect_map_settle(map);
		expect_both(0, 80, "");
		expect_both(255, 80, "");
	}
}

/* A table can be left in a slot that was given up just before the death. */
Test(redirect_map, a_table_of_a_slot_that_was_free_is_not_used_for_the_next_interface)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = open_map(0);
	const struct redirect old = tcp("eth1", 80, 80, "old"), new = tcp("eth0", 81, 81, "new");

	cr_assert_eq(stage(map, 1, &old, 1), 0);
	redirect_map_settle(map);
	redirect_map_close(take_pointer(&map));
	slots[255].ifindex = 0;
	map = open_map(1);
	cr_assert_eq(stage(map, 0, &new, 1), 0);
	redirect_map_settle(map);
	expect_both(0, 81, "new");
	expect_both(255, 80, "");
}

/* ---- all of it in any order ---- */

#define PORTS 8 /* around the end of a line of the table */

static u16 numbered_port(size_t n)
{
	return (u16)(FWD_PORT_LINE - PORTS / 2 + n);
}

/* What is redirected where, by interface and port: the target's letter, 0 for none. */
struct model {
	char at[2][PORTS];
};

/* Ranges that do not overlap within a scope, as the policy has them. */
static size_t random_redirects(struct random *random, struct redirect *redirects, struct model *ret)
{
	static const char *const interfaces[] = {"", "eth0", "eth1"};
	size_t n = 0;

	*ret = (struct model){0};
	for (size_t scope = 0; scope < ARRAY_SIZE(interfaces); scope++) {
		for (size_t port = 0; port < PORTS;) {
			size_t last = port + random_below(random, PORTS - port);
			char target[] = {(char)('a' + random_below(random, 4)), '\0'};

			if (random_below(random, 3)) {
				redirects[n++] = tcp(interfaces[scope], numbered_port(port),
						     numbered_port(last), target);
				for (size_t p = port; p <= last; p++)
					for (size_t i = 0; i < 2; i++)
						if (!scope || scope == i + 1)
							ret->at[i][p] = target[0];
			}
			port = last + 1;
		}
	}
	return n;
}

static void expect_model(struct random *random, const struct model *model, unsigned set)
{
	for (size_t i = 0; i < ARRAY_SIZE(scopes); i++) {
		for (size_t p = 0; p < PORTS; p++) {
			struct fwd_redirect row = row_of(set, scopes[i].slot, FWD_HOOK_TC_IN,
							 FWD_TCP, numbered_port(p));

			random_holds(random, row.target_name[0] == model->at[i][p]);
		}
	}
}

Test(redirect_map, holds_what_was_settled_whoever_dies_when)
{
	struct redirect_map *map = open_map(0);
	struct random random = random_start();
	struct model model = {0}, next;
	unsigned set = 0;

	for (int step = 0; step < 150; step++) {
		struct redirect redirects[3 * PORTS];
		size_t n = random_redirects(&random, redirects, &next);
		bool done = random_below(&random, 2), dies = random_below(&random, 3) == 0;

		random_holds(&random, !stage(map, !set, redirects, n));
		expect_model(&random, &model, set);
		expect_model(&random, &next, !set);
		if (done) {
			model = next;
			set = !set;
		}
		if (dies) {
			redirect_map_close(map);
			map = open_map(set);
		} else if (done) {
			redirect_map_settle(map);
		} else {
			redirect_map_abort(map);
		}
		expect_model(&random, &model, 0);
		expect_model(&random, &model, 1);
	}
	redirect_map_close(map);
}
