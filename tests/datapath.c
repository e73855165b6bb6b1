// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's side of an instance as a whole: what is pinned, what is adopted after a death at any
 * point, and whose programs are whose.
 */
#include "datapath.h"

#include "grace.h"
#include "private_bpffs.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(datapath, .init = enter_private_bpffs, .timeout = 120);

/* ---- the parts of a test ---- */

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0);
	return prefix;
}

static struct prefix_map *build(unsigned bank, const char *blocked)
{
	struct prefix_item item = {.table = TABLE_BLOCK};
	struct prefix_map *map = NULL;
	struct error err;

	if (blocked)
		item.prefix = prefix_of(blocked);
	cr_assert_eq(prefix_map_build(&item, blocked ? 1 : 0, bank, &map, &err), 0, "%s", err.text);
	return map;
}

static struct datapath *create(void)
{
	struct datapath *dp = NULL;
	struct error err;

	cr_assert_eq(datapath_create(PIN_DIR, build(0, NULL), 0, &dp, &err), 0, "%s", err.text);
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

static struct prefix_change insertion(const char *text)
{
	return (struct prefix_change){{prefix_of(text), TABLE_BLOCK, 0}, PREFIX_INSERT};
}

static struct prefix_change allowance(const char *text)
{
	return (struct prefix_change){{prefix_of(text), TABLE_ALLOW, 0}, PREFIX_INSERT};
}

static struct prefix_change removal(const char *text)
{
	return (struct prefix_change){{prefix_of(text), TABLE_BLOCK, 0}, PREFIX_REMOVE};
}

static bool blocks(struct datapath *dp, const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct prefix_state state;

	return prefix_map_read(datapath_prefixes(dp), TABLE_BLOCK, &prefix, &state);
}

static u32 size(const struct datapath *dp, enum prefix_table table)
{
	return prefix_map_size(datapath_prefixes(dp), table);
}

static void change(struct datapath *dp, const struct prefix_change *changes, size_t n)
{
	const struct datapath_change change = {
		.prefixes = changes,
		.n_prefixes = n,
		.flags = datapath_flags(dp),
	};
	struct error err;

	cr_assert_eq(datapath_stage(dp, &change, &err), 0, "%s", err.text);
	datapath_commit(dp);
}

static void block(struct datapath *dp, const char *text)
{
	const struct prefix_change one = insertion(text);

	change(dp, &one, 1);
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
	cr_expect_eq(size(dp, TABLE_BLOCK), 1);
	cr_expect(datapath_is_whole(dp));
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
		FWD_MAP_LINES "0", FWD_MAP_ENTRIES4 "0",    FWD_MAP_ENTRIES6 "0",
		FWD_MAP_LINES "1", FWD_MAP_ENTRIES4 "1",    FWD_MAP_ENTRIES6 "1",
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

static struct fwd_view current_view(void)
{
	const struct fwd_control control = read_control("current");

	return control.views[control.view];
}

Test(datapath, what_it_is_created_of_is_in_force)
{
	_cleanup_(datapath_closep) struct datapath *dp = NULL;
	struct prefix_map *map = build(0, "192.0.2.1");
	u32 roots[FWD_TRIES];
	struct error err;

	prefix_map_roots(map, roots);
	cr_assert_eq(datapath_create(PIN_DIR, map, FWD_BLOCK_OUT, &dp, &err), 0, "%s", err.text);
	cr_expect_eq(datapath_prefixes(dp), map);
	cr_expect_eq(read_control("next").views[0].flags, FWD_BLOCK_OUT);
	cr_expect_eq(memcmp(read_control("next").views[0].root, roots, sizeof(roots)), 0);
	cr_expect_eq(read_control("next").complete, 0);
	cr_expect(datapath_is_whole(dp));
	cr_assert_eq(datapath_promote(dp, NULL), 0);
	cr_expect_eq(read_control("current").complete, 1);
	cr_expect_eq(read_control("current").changing, 0);
}

Test(datapath, a_change_is_staged_whole_or_not_at_all)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const struct prefix_change changes[] = {insertion("192.0.2.1"), insertion("192.0.2.2"),
						allowance("203.0.113.1"), removal("192.0.2.9")};
	struct datapath_change change = {
		.prefixes = changes,
		.n_prefixes = 4,
		.flags = FWD_BLOCK_IN,
	};

	cr_expect_eq(datapath_stage(dp, &change, NULL), -ENOENT);
	cr_expect(!blocks(dp, "192.0.2.1"), "a part of it is staged");
	cr_expect_eq(read_control("current").changing, 0);
	change.n_prefixes = 3;
	cr_expect_eq(datapath_stage(dp, &change, NULL), 0);
	cr_expect_eq(read_control("current").changing, 1);
	datapath_abort(dp);
	cr_expect_eq(read_control("current").changing, 0);
	cr_expect_eq(size(dp, TABLE_BLOCK) + size(dp, TABLE_ALLOW), 0);
	cr_expect_eq(datapath_flags(dp), 0);
	cr_expect_eq(read_control("current").view, 0);
	cr_expect_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(size(dp, TABLE_BLOCK), 2);
	cr_expect_eq(size(dp, TABLE_ALLOW), 1);
	cr_expect_eq(datapath_flags(dp), FWD_BLOCK_IN);
	cr_expect_eq(read_control("current").changing, 0);
}

/* One change needs no switch, and so no grace period; more take effect at once by one (V3). */
Test(datapath, views_are_switched_for_more_than_one_change)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const struct prefix_change two[] = {insertion("192.0.2.1"), insertion("192.0.2.2")};
	struct datapath_change change = {.prefixes = two, .n_prefixes = 2};
	const struct fwd_view before = current_view();
	u32 view = read_control("current").view;

	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	cr_expect_eq(read_control("current").view, view, "staging switches");
	datapath_commit(dp);
	cr_expect_eq(read_control("current").view, view + 1);
	cr_expect_eq(memcmp(&read_control("current").views[view], &before, sizeof(before)), 0,
		     "packets may hold it");
	block(dp, "2001:db8::1");
	cr_expect_eq(read_control("current").view, view + 1);
	cr_expect_neq(current_view().root[FWD_BLOCK6], 0);
	change = (struct datapath_change){.flags = FWD_BLOCK_OUT};
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(read_control("current").view, view + 2, "flags are of a view, too");
	cr_expect_eq(current_view().flags, FWD_BLOCK_OUT);
	change.redirects_too = true;
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(read_control("current").view, view + 3);
	cr_expect_eq(current_view().tables, 1);
	cr_expect_neq(current_view().root[FWD_BLOCK4], 0, "the rest went along");
}

/* Two changes each, so that each takes another view. */
static void switch_view(struct datapath *dp, bool insert)
{
	const struct prefix_change in[] = {insertion("192.0.2.1"), insertion("192.0.2.2")};
	const struct prefix_change out[] = {removal("192.0.2.1"), removal("192.0.2.2")};

	change(dp, insert ? in : out, 2);
}

Test(datapath, views_go_round)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const u32 first = read_control("current").view;

	for (u32 i = 1; i <= 3 * FWD_VIEWS; i++) {
		struct fwd_control before = read_control("current"), after;

		switch_view(dp, i & 1);
		after = read_control("current");
		cr_expect_eq(after.view, (first + i) % FWD_VIEWS);
		for (u32 view = 0; view < FWD_VIEWS; view++)
			cr_expect(view == after.view ||
					  !memcmp(&before.views[view], &after.views[view],
						  sizeof(struct fwd_view)),
				  "view %u was written, too", view);
		cr_expect_eq(blocks(dp, "192.0.2.2"), i & 1);
	}
}

/* The tickets that the datapath takes, and what it waited for. */
static struct {
	bool held; /* no ticket is over before somebody waits for it */
	u64 last, waited_for;
} grace;

u64 __real_grace_ticket(void);
u64 __wrap_grace_ticket(void);
bool __real_grace_over(u64 ticket);
bool __wrap_grace_over(u64 ticket);
void __real_grace_wait_for(u64 ticket);
void __wrap_grace_wait_for(u64 ticket);

u64 __wrap_grace_ticket(void)
{
	return grace.held ? ++grace.last : __real_grace_ticket();
}

bool __wrap_grace_over(u64 ticket)
{
	return grace.held ? ticket <= grace.waited_for : __real_grace_over(ticket);
}

void __wrap_grace_wait_for(u64 ticket)
{
	if (!grace.held)
		__real_grace_wait_for(ticket);
	else if (ticket > grace.waited_for)
		grace.waited_for = ticket;
}

/* V3. No flags change the tries, so that all tickets are those of the views. */
Test(datapath, no_view_is_written_again_before_its_grace_period)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();

	grace.held = true;
	for (u32 i = 1; i <= 3 * FWD_VIEWS; i++) {
		const struct datapath_change change = {.flags = i & 1 ? FWD_BLOCK_IN : 0};

		cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
		datapath_commit(dp);
		cr_expect_eq(grace.last, i, "one ticket for the view that was left");
		cr_expect_eq(grace.waited_for, i < FWD_VIEWS ? 0 : i - FWD_VIEWS + 1, "change %u",
			     i);
	}
	grace.held = false;
}

/* The end of 192.0.2.1 when packets see the new roots already, and nothing else is settled. */
static u64 end_at_settle_ns;

void __real_prefix_map_settle(struct prefix_map *map);
void __wrap_prefix_map_settle(struct prefix_map *map);

void __wrap_prefix_map_settle(struct prefix_map *map)
{
	const struct prefix prefix = prefix_of("192.0.2.1");
	struct prefix_state state;

	if (prefix_map_read(map, TABLE_BLOCK, &prefix, &state))
		end_at_settle_ns = state.expires_ns;
	__real_prefix_map_settle(map);
}

/* Behind an entry without an end the new roots lead nowhere. */
Test(datapath, what_is_to_stay_has_no_end_before_the_switch)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const struct prefix_change changes[] = {
		{{prefix_of("192.0.2.1"), TABLE_BLOCK, 0}, PREFIX_RETIME},
		insertion("192.0.2.2"),
	};

	block(dp, "192.0.2.1");
	for (size_t n = 1; n <= ARRAY_SIZE(changes); n++) {
		struct prefix_change ends = changes[0];

		ends.item.expires_ns = 1000000000;
		change(dp, &ends, 1);
		cr_expect_eq(end_at_settle_ns, 0, "%zu: it got its end before the switch", n);
		change(dp, changes, n);
		cr_expect_eq(end_at_settle_ns, 0, "%zu: it kept its end over the switch", n);
	}
}

/* ---- banks ---- */

/* The map that is pinned by the name of a bank's. */
static u32 pinned_map(const char *name)
{
	_cleanup_close_ int fd = -1;
	struct bpf_map_info info = {0};
	u32 info_size = sizeof(info);
	char path[128];

	snprintf(path, sizeof(path), PIN_DIR "/current/%s", name);
	fd = bpf_obj_get(path);
	cr_assert_geq(fd, 0, "%s", path);
	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &info_size), 0);
	return info.id;
}

static void use_offered(struct datapath *dp, const struct prefix_change *changes, size_t n)
{
	const struct datapath_change change = {
		.prefixes = changes,
		.n_prefixes = n,
		.offered_bank = true,
		.flags = datapath_flags(dp),
	};
	struct error err;

	cr_assert_eq(datapath_stage(dp, &change, &err), 0, "%s", err.text);
	datapath_commit(dp);
}

static void offer(struct datapath *dp, const char *blocked)
{
	struct error err;

	cr_assert_eq(datapath_offer_bank(dp, build(datapath_offered_bank(dp), blocked), &err), 0,
		     "%s", err.text);
}

Test(datapath, an_offered_bank_is_used_by_one_switch)
{
	static const char *const names[FWD_BANKS][PART_COUNT] = {
		{FWD_MAP_LINES "0", FWD_MAP_ENTRIES4 "0", FWD_MAP_ENTRIES6 "0"},
		{FWD_MAP_LINES "1", FWD_MAP_ENTRIES4 "1", FWD_MAP_ENTRIES6 "1"},
	};
	struct datapath *dp = create_current();
	const struct prefix_change more = insertion("192.0.2.3");

	block(dp, "192.0.2.1");
	for (unsigned i = 0; i < 4; i++) {
		unsigned bank = !(i & 1);
		u32 before[FWD_BANKS][PART_COUNT], view = read_control("current").view;

		for (unsigned part = 0; part < FWD_BANKS * PART_COUNT; part++)
			before[part & 1][part / 2] = pinned_map(names[part & 1][part / 2]);
		cr_expect_eq(datapath_offered_bank(dp), bank);
		offer(dp, "192.0.2.2");
		for (unsigned part = 0; part < PART_COUNT; part++) {
			cr_expect_neq(pinned_map(names[bank][part]), before[bank][part]);
			cr_expect_eq(pinned_map(names[!bank][part]), before[!bank][part], "V4");
		}
		cr_expect_eq(read_control("current").view, view, "an offer changes nothing");
		cr_expect_eq(blocks(dp, "192.0.2.3"), i > 0);
		use_offered(dp, &more, 1);
		cr_expect_eq(read_control("current").view, (view + 1) % FWD_VIEWS);
		cr_expect_eq(current_view().bank, bank);
		cr_expect_not(is_there("current/fresh"));
		cr_expect(!blocks(dp, "192.0.2.1") && blocks(dp, "192.0.2.2") &&
			  blocks(dp, "192.0.2.3"));
		datapath_close(dp);
		dp = adopt();
		cr_assert(dp);
		cr_expect(datapath_is_whole(dp));
		cr_expect_eq(size(dp, TABLE_BLOCK), 2);
	}
	datapath_close(dp);
}

Test(datapath, an_offered_bank_can_be_let_be)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	const struct prefix_change more = insertion("192.0.2.3"), again = insertion("192.0.2.2");
	struct datapath_change change = {.prefixes = &again, .n_prefixes = 1, .offered_bank = true};

	block(dp, "192.0.2.1");
	offer(dp, "192.0.2.2");
	cr_expect_eq(datapath_stage(dp, &change, NULL), -EEXIST);
	change.prefixes = &more;
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_abort(dp);
	cr_expect(blocks(dp, "192.0.2.1") && !blocks(dp, "192.0.2.2"));
	block(dp, "192.0.2.4");
	offer(dp, NULL);
	cr_expect_eq(prefix_map_size(datapath_offered(dp), TABLE_BLOCK), 0);
	cr_expect_eq(size(dp, TABLE_BLOCK), 2);
}

static size_t count_differences(const struct datapath *dp)
{
	struct differences differences = {0};
	size_t n;

	datapath_verify(dp, datapath_flags(dp), &differences);
	n = differences.n;
	differences_clear(&differences);
	return n;
}

/* A directory in the place of the second pin: the first one has been replaced by then. */
Test(datapath, a_bank_that_cannot_be_pinned_leaves_the_pins_of_the_one_before)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	struct prefix_map *map = build(datapath_offered_bank(dp), "192.0.2.2");
	char path[PATH_MAX];
	struct error err;

	cr_assert_eq(count_differences(dp), 0);
	snprintf(path, sizeof(path), PIN_DIR "/current/" FWD_MAP_ENTRIES4 "%u",
		 datapath_offered_bank(dp));
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(mkdir(path, 0700), 0);
	cr_expect_lt(datapath_offer_bank(dp, map, &err), 0);
	cr_expect_eq(count_differences(dp), 1, "only what nobody can put there");
	cr_expect_lt(datapath_keep_pins(dp, &err), 0);
	cr_assert_eq(rmdir(path), 0);
	cr_expect_eq(datapath_keep_pins(dp, &err), 0);
	cr_expect_eq(count_differences(dp), 0);
	prefix_map_close(map);
	offer(dp, "192.0.2.3");
	cr_expect_eq(count_differences(dp), 0);
}

/* ---- a daemon that dies ---- */

enum death {
	DEATH_STAGED,
	DEATH_SWITCHED, /* behind the store of the view: `changing` has not been taken back */
};

/* The old policy blocks .1 and has no direction, the new one blocks .2 and .3 inward. */
static void die(enum death death, bool offered)
{
	struct datapath *dp = create_current();
	const struct prefix_change changes[] = {insertion("192.0.2.2"), insertion("192.0.2.3"),
						allowance("203.0.113.1"), removal("192.0.2.1")};
	const struct datapath_change change = {
		.prefixes = changes,
		.n_prefixes = offered ? 3 : 4,
		.offered_bank = offered,
		.flags = FWD_BLOCK_IN,
	};
	struct fwd_control control;
	int status;
	pid_t pid;

	block(dp, "192.0.2.1");
	if (offered)
		offer(dp, NULL);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		if (grace_open(NULL) < 0 || datapath_stage(dp, &change, NULL) < 0)
			_exit(1);
		if (death == DEATH_SWITCHED)
			datapath_commit(dp);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "status %d", status);
	datapath_close(dp);
	control = read_control("current");
	cr_expect_eq(control.changing, death == DEATH_STAGED);
	control.changing = 1;
	write_control(&control);
}

Test(datapath, death_before_the_switch_leaves_the_old_policy)
{
	for (int offered = 0; offered < 2; offered++) {
		_cleanup_(datapath_closep) struct datapath *dp = NULL;
		struct prefix address = prefix_of("192.0.2.1");
		struct prefix_state state;

		die(DEATH_STAGED, offered);
		dp = adopt();
		cr_assert(dp);
		cr_expect_not(datapath_is_whole(dp));
		cr_expect_eq(current_view().bank, 0);
		cr_expect_neq(current_view().root[FWD_BLOCK4], 0);
		cr_expect_eq(current_view().root[FWD_ALLOW4], 0);
		cr_expect_eq(datapath_flags(dp), 0);
		cr_expect(prefix_map_read(datapath_prefixes(dp), TABLE_BLOCK, &address, &state));
	}
}

Test(datapath, death_behind_the_switch_leaves_the_new_policy)
{
	for (int offered = 0; offered < 2; offered++) {
		_cleanup_(datapath_closep) struct datapath *dp = NULL;

		die(DEATH_SWITCHED, offered);
		dp = adopt();
		cr_assert(dp);
		cr_expect_not(datapath_is_whole(dp), "nobody can know");
		cr_expect_eq(current_view().bank, offered);
		cr_expect(!blocks(dp, "192.0.2.1") && blocks(dp, "192.0.2.2") &&
			  blocks(dp, "192.0.2.3"));
		cr_expect_eq(size(dp, TABLE_ALLOW), 1);
		cr_expect_eq(datapath_flags(dp), FWD_BLOCK_IN);
	}
}

/* Neither a change that is refused, nor one that is taken back or made beside. */
Test(datapath, only_a_new_bank_makes_it_whole)
{
	struct datapath *dp = NULL;
	const struct prefix_change absent = removal("192.0.2.77"), new = insertion("192.0.2.78");
	struct datapath_change change = {.prefixes = &absent, .n_prefixes = 1};

	die(DEATH_STAGED, false);
	dp = adopt();
	cr_assert_eq(datapath_stage(dp, &change, NULL), -ENOENT);
	cr_expect_eq(read_control("current").changing, 1);
	change.prefixes = &new;
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_abort(dp);
	cr_expect_eq(read_control("current").changing, 1);
	cr_assert_eq(datapath_stage(dp, &change, NULL), 0);
	datapath_commit(dp);
	cr_expect_eq(read_control("current").changing, 1);
	cr_expect_not(datapath_is_whole(dp));
	offer(dp, "192.0.2.2");
	use_offered(dp, NULL, 0);
	cr_expect(datapath_is_whole(dp));
	cr_expect_eq(read_control("current").changing, 0);
	datapath_close(dp);
	dp = adopt();
	cr_assert(dp && datapath_is_whole(dp));
	cr_expect_eq(size(dp, TABLE_BLOCK), 1);
	datapath_close(dp);
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

static bool owns(const struct datapath_owner *owner, u32 program_id)
{
	struct error err;
	bool ours = false;

	cr_assert_eq(datapath_owner_has(owner, program_id, &ours, &err), 0, "%s", err.text);
	return ours;
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
	cr_expect(owns(&owner, id_of_program(old_fd)), "from the moment it is loaded");
	cr_expect(owns(&owner, id_of_program(new_fd)), "on maps that are being made");
	cr_expect_not(owns(&owner, id_of_program(foreign)));
	cr_expect_not(owns(&owner, 0));
	cr_expect(datapath_has_program(old, FWD_HOOK_TC_IN, id_of_program(old_fd)));
	cr_expect_not(datapath_has_program(old, FWD_HOOK_TC_OUT, id_of_program(new_fd)));
	cr_expect_not(datapath_has_program(old, FWD_HOOK_TC_IN, id_of_program(foreign)));
	cr_expect_not(datapath_has_program(old, FWD_HOOK_TC_IN, 0));
	datapath_read_owner(PIN_DIR "-of-another", &other);
	cr_expect_not(owns(&other, id_of_program(old_fd)), "another instance");
	cr_assert_eq(datapath_promote(new, NULL), 0);
	datapath_read_owner(PIN_DIR, &owner);
	cr_expect(owns(&owner, id_of_program(new_fd)));
}

Test(datapath, a_program_that_cannot_be_asked_is_not_taken_for_anybody_elses)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	_cleanup_close_ int fd = load_tc(dp, FWD_HOOK_TC_IN);
	u32 id = id_of_program(fd);
	struct datapath_owner owner;
	struct rlimit limit, none;
	struct error err = {""};
	bool ours = true;
	int r;

	datapath_read_owner(PIN_DIR, &owner);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	r = datapath_owner_has(&owner, id, &ours, &err);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_expect_eq(r, -EMFILE);
	cr_expect(ours, "untouched on failure");
	cr_expect(strstr(err.text, "cannot ask program"), "%s", err.text);
}

static int load_xdp(struct datapath *dp)
{
	struct bpf_object *obj = NULL;
	int fd;

	cr_assert_eq(datapath_open_xdp(dp, 0, true, &obj, NULL), 0);
	cr_assert_eq(bpf_object__load(obj), 0);
	fd = dup(bpf_program__fd(bpf_object__next_program(obj, NULL)));
	bpf_object__close(obj);
	return fd;
}

/* Those that look prefixes up have to move to each new bank, that of redirects need not. */
Test(datapath, a_program_is_known_by_the_banks_it_uses)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	int fds[FWD_HOOKS];

	for (int round = 0; round < 3; round++) {
		fds[FWD_HOOK_XDP] = load_xdp(dp);
		fds[FWD_HOOK_TC_IN] = load_tc(dp, FWD_HOOK_TC_IN);
		fds[FWD_HOOK_TC_OUT] = load_tc(dp, FWD_HOOK_TC_OUT);
		for (enum fwd_hook hook = 0; hook < FWD_HOOKS; hook++)
			cr_expect(datapath_has_program(dp, hook, id_of_program(fds[hook])));
		if (round == 2)
			use_offered(dp, NULL, 0);
		for (enum fwd_hook hook = 0; hook < FWD_HOOKS; hook++)
			cr_expect(datapath_has_program(dp, hook, id_of_program(fds[hook])),
				  "a switch needs no other programs");
		offer(dp, "192.0.2.1");
		for (enum fwd_hook hook = 0; hook < FWD_HOOKS; hook++) {
			cr_expect_eq(datapath_has_program(dp, hook, id_of_program(fds[hook])),
				     hook == FWD_HOOK_TC_IN, "hook %u", hook);
			close(fds[hook]);
		}
	}
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
	struct prefix_map *map = build(0, "192.0.2.1");
	struct datapath *dp = NULL;
	char dir[] = "/tmp/fwd-test-XXXXXX";
	struct error err = {""};

	cr_assert(mkdtemp(dir));
	cr_expect_lt(datapath_create(dir, map, 0, &dp, &err), 0);
	cr_expect_null(dp);
	cr_expect(strstr(err.text, dir), "%s", err.text);
	datapath_remove_pins(dir, NULL);
	rmdir(dir);
	cr_expect_lt(datapath_create("/nonexistent/fwd", map, 0, &dp, &err), 0);
	cr_expect_null(dp);
	cr_expect_eq(prefix_map_size(map, TABLE_BLOCK), 1, "they are still the caller's");
	prefix_map_close(map);
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

Test(datapath, counters_are_of_all_cpus)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	u64 cpus = (u64)libbpf_num_possible_cpus();

	set_counter("current", 0, FWD_HOOK_XDP, 3);
	set_counter("current", 255, FWD_HOOK_TC_OUT, 5);
	cr_expect_eq(dropped(dp, 0, FWD_HOOK_XDP).packets, 3 * cpus);
	cr_expect_eq(dropped(dp, 0, FWD_HOOK_XDP).bytes, 180 * cpus);
	cr_expect_eq(dropped(dp, 0, FWD_HOOK_TC_IN).packets, 0);
	cr_expect_eq(dropped(dp, 255, FWD_HOOK_TC_OUT).packets, 5 * cpus);
	datapath_clear_counters(dp, 255);
	cr_expect_eq(dropped(dp, 255, FWD_HOOK_TC_OUT).packets, 0);
	cr_expect_eq(dropped(dp, 0, FWD_HOOK_XDP).packets, 3 * cpus);
}

/* ---- memory ---- */

Test(datapath, memory_is_that_of_all_maps)
{
	_cleanup_(datapath_closep) struct datapath *dp = create_current();
	size_t empty = datapath_bytes(dp), bank = prefix_map_bytes(datapath_offered(dp));
	struct prefix_item *items = calloc(10000, sizeof(*items));
	struct prefix_map *large = NULL;
	size_t bytes;

	for (u32 i = 0; i < 10000; i++)
		items[i].prefix = (struct prefix){FAMILY_IPV4, 32, {10, 0, (u8)(i >> 8), (u8)i}};
	cr_assert_eq(prefix_map_build(items, 10000, 1, &large, NULL), 0);
	free(items);
	bytes = prefix_map_bytes(large);
	cr_expect_gt(bytes, bank);
	cr_assert_eq(datapath_offer_bank(dp, large, NULL), 0);
	cr_expect_eq(datapath_bytes(dp), empty - bank + bytes);
	cr_expect_gt(empty, 2 * bank + sizeof(struct fwd_control));
	cr_expect_lt(empty, 4 << 20, "%zu bytes hold nothing", empty);
}
