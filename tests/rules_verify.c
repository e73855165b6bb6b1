// SPDX-License-Identifier: GPL-2.0-or-later
/* Verifying everything against the rules while small changes go on, and mending what differs. */
#include "kernel_entries.h"
#include "private_bpffs.h"
#include "rules_parts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

TestSuite(rules_verify, .init = rules_set_up, .fini = rules_tear_down, .timeout = 120);

/* ---- the parts of a test ---- */

/* What was found: the texts, a line each, and how many were mended. */
struct verdict {
	unsigned n_done;
	int r;
	size_t n, n_repaired, n_entries;
	char texts[8192];
	struct error err;
};

static void on_verified(void *data, const struct rules_end *end)
{
	struct verdict *verdict = data;

	verdict->n_done++;
	verdict->r = end->r;
	verdict->err = end->err;
	if (end->r < 0)
		return;
	cr_assert(end->verified);
	verdict->n = end->verified->differences.n;
	verdict->n_repaired = end->verified->n_repaired;
	verdict->n_entries = end->verified->n_entries;
	for (size_t i = 0; i < end->verified->differences.n_items; i++) {
		size_t size = strlen(verdict->texts);

		snprintf(verdict->texts + size, sizeof(verdict->texts) - size, "%s\n",
			 end->verified->differences.items[i].text);
	}
}

static void begin_verify(bool repair, struct verdict *ret)
{
	struct rules_request request = {.kind = RULES_VERIFY, .list_fd = -1, .repair = repair};
	const struct rules_later later = {on_verified, ret};
	struct rules_count count;

	*ret = (struct verdict){0};
	cr_assert_eq(rules_submit(rules, &request, &later, &count, &ret->err), -EINPROGRESS);
}

static void run_until(const bool *over)
{
	while (!*over)
		cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0, "nothing happens");
}

static void end_verify(const struct verdict *verdict)
{
	while (!verdict->n_done || worker_busy(worker))
		cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0, "nothing happens");
	cr_expect_eq(verdict->n_done, 1);
	cr_assert_eq(verdict->r, 0, "%s", verdict->err.text);
}

static struct verdict verify(bool repair)
{
	struct verdict verdict;

	begin_verify(repair, &verdict);
	end_verify(&verdict);
	return verdict;
}

static void expect_verdict(bool repair, size_t n_repaired, const char *texts)
{
	struct verdict verdict = verify(repair);

	cr_expect_str_eq(verdict.texts, texts);
	cr_expect_eq(verdict.n_repaired, n_repaired, "%zu mended", verdict.n_repaired);
}

static struct fwd_entry *find_in(struct kernel_entries *entries, const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct fwd_entry *entry;

	kernel_entries_open(rules_map(rules), FAMILY_IPV4, entries);
	entry = kernel_entries_find(entries, TABLE_BLOCK, &prefix);
	cr_assert(entry, "%s", text);
	return entry;
}

/* Has packets find another address in the place of this one. */
static void move_entry(const char *from, const char *to)
{
	const struct prefix other = prefix_of(to);
	struct kernel_entries entries;

	find_in(&entries, from)->addr = (u32)other.addr[0] << 24 | (u32)other.addr[1] << 16 |
					(u32)other.addr[2] << 8 | other.addr[3];
	kernel_entries_close(&entries);
}

static void give_end(const char *text)
{
	struct kernel_entries entries;

	find_in(&entries, text)->about |= FWD_ABOUT(1ull << 40, 0, 0);
	kernel_entries_close(&entries);
}

/* When the worker has come so far. */
static void mark(void *data)
{
	*(bool *)data = true;
}

static void nothing(void *data)
{
}

/* ---- */

Test(rules_verify, finds_nothing_and_mends_nothing_where_all_agrees)
{
	struct rules_count count;
	unsigned first;
	struct error err;

	start("blacklist.addresses = ['192.0.2.0/24']\n");
	add("10.0.0.1");
	cr_assert_eq(allow("10.0.0.0/8"), 0);
	cr_assert_eq(add_with(60, NULL, &count, &err, "10.0.0.2", "2001:db8::1", NULL), 0);
	first = bank();
	expect_verdict(false, 0, "");
	expect_verdict(true, 0, "");
	cr_expect_eq(bank(), first);
	cr_expect_eq(verify(false).n_entries, 5);
	cr_assert_eq(submit(many(RULES_ADD, 0, RULES_SMALL + 1), &count, &err), 0, "%s", err.text);
	expect_verdict(false, 0, "");
	expect_agreement();
}

Test(rules_verify, mends_entries_in_a_new_bank)
{
	unsigned first;

	start("");
	add("10.0.0.1");
	add("10.0.0.2");
	first = bank();
	move_entry("10.0.0.1", "10.0.0.3");
	expect_verdict(false, 0,
		       "10.0.0.1: blocked by the rules, not in the kernel's maps\n"
		       "10.0.0.3: blocked in the kernel's maps, and no rule says so\n");
	cr_expect_eq(bank(), first);
	expect_verdict(true, 2, "");
	cr_expect_neq(bank(), first);
	expect_blocked("10.0.0.1", true);
	expect_blocked("10.0.0.3", false);
}

Test(rules_verify, what_cannot_be_mended_has_the_reason_and_packets_find_what_they_found)
{
	start("");
	add("10.0.0.1");
	move_entry("10.0.0.1", "10.0.0.3");
	refuse = REFUSE_BUILD;
	expect_verdict(true, 0,
		       "10.0.0.1: blocked by the rules, not in the kernel's maps (mending failed: "
		       "refused by the test)\n"
		       "10.0.0.3: blocked in the kernel's maps, and no rule says so\n");
	refuse = REFUSE_MOVE;
	cr_expect_eq(verify(true).n, 2);
	refuse = 0;
	expect_verdict(true, 2, "");
	expect_agreement();
}

Test(rules_verify, leaves_out_what_small_changes_touched_meanwhile)
{
	struct verdict verdict;
	struct error err;

	start("");
	add("10.0.0.1");
	add("10.0.0.2");
	hold_worker();
	begin_verify(true, &verdict);
	add("10.0.0.3");
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.2", NULL), 0, "%s", err.text);
	release_worker();
	end_verify(&verdict);
	cr_expect_str_eq(verdict.texts, "");
	cr_expect_eq(verdict.n_repaired, 0);
	expect_agreement();
}

static sem_t reached;

static void reach(void *data)
{
	sem_post(&reached);
}

/* Each time the snapshot has it, and the maps have not. */
Test(rules_verify, leaves_out_what_came_and_went_at_each_look)
{
	struct verdict verdict;
	bool looked = false;
	struct error err;

	cr_assert_eq(sem_init(&reached, 0, 0), 0);
	start("");
	add("10.0.0.1");
	add("10.0.0.2");
	give_end("10.0.0.2");
	hold_worker();
	begin_verify(false, &verdict);
	cr_assert_eq(worker_run(worker, reach, mark, &looked), 0);
	hold_worker();
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.1", NULL), 0, "%s", err.text);
	release_worker();
	cr_assert_eq(sem_wait(&reached), 0);
	add("10.0.0.1");
	run_until(&looked);
	cr_assert_eq(del(TABLE_BLOCK, &err, "10.0.0.1", NULL), 0, "%s", err.text);
	release_worker();
	end_verify(&verdict);
	cr_expect_str_eq(
		verdict.texts,
		"10.0.0.2: blocked in the kernel's maps to another end than by the rules\n");
}

Test(rules_verify, what_is_found_beside_small_changes_is_looked_for_again)
{
	struct verdict verdict;
	bool looked = false;

	start("");
	add("10.0.0.1");
	add("10.0.0.2");
	/* Damage that is not there the second time: */
	move_entry("10.0.0.1", "10.0.0.4");
	hold_worker();
	begin_verify(false, &verdict);
	cr_assert_eq(worker_run(worker, nothing, mark, &looked), 0);
	hold_worker();
	add("10.0.0.3");
	release_worker();
	run_until(&looked);
	move_entry("10.0.0.4", "10.0.0.1");
	/* and such as comes beside other changes, between the two: */
	move_entry("10.0.0.2", "10.0.0.5");
	add("10.0.0.6");
	release_worker();
	end_verify(&verdict);
	cr_expect_str_eq(verdict.texts, "");
	/* What stays is found. */
	hold_worker();
	begin_verify(false, &verdict);
	add("10.0.0.7");
	release_worker();
	end_verify(&verdict);
	cr_expect_str_eq(verdict.texts,
			 "10.0.0.2: blocked by the rules, not in the kernel's maps\n"
			 "10.0.0.5: blocked in the kernel's maps, and no rule says so\n");
}

Test(rules_verify, small_changes_made_while_entries_are_mended_stay)
{
	struct verdict verdict;
	bool looked = false;

	start("");
	add("10.0.0.1");
	move_entry("10.0.0.1", "10.0.0.3");
	begin_verify(true, &verdict);
	cr_assert_eq(worker_run(worker, nothing, mark, &looked), 0);
	hold_worker();
	run_until(&looked);
	add("10.0.0.9");
	release_worker();
	end_verify(&verdict);
	cr_expect_str_eq(verdict.texts, "");
	cr_expect_eq(verdict.n_repaired, 2);
	expect_blocked("10.0.0.9", true);
	expect_blocked("10.0.0.1", true);
}

Test(rules_verify, counts_what_is_behind_a_thousand)
{
	struct verdict verdict;
	struct rules_count count;
	struct kernel_entries entries;
	struct error err;

	start("");
	cr_assert_eq(submit(many(RULES_ADD, 0, 6000), &count, &err), 0, "%s", err.text);
	kernel_entries_open(rules_map(rules), FAMILY_IPV4, &entries);
	for (size_t i = 1; i <= 1500; i++)
		kernel_entries_at(&entries, i)->about |= FWD_ABOUT(1, 0, 0);
	kernel_entries_close(&entries);
	verdict = verify(false);
	cr_expect_eq(verdict.n, 1500);
	verdict = verify(true);
	cr_expect_eq(verdict.n, 0);
	cr_expect_eq(verdict.n_repaired, 1500);
	expect_agreement();
}

Test(rules_verify, puts_the_durable_store_right_by_the_rules)
{
	const struct rule extra = {.prefix = prefix_of("10.0.0.3")};
	const struct prefix lost = prefix_of("10.0.0.1");
	struct error err;

	start("");
	add("10.0.0.1");
	add("10.0.0.2");
	cr_assert_eq(store_begin(store, &err), 0);
	cr_assert_eq(store_remove(store, STORE_BLOCK, &lost, &err), 0);
	cr_assert_eq(store_put(store, STORE_ALLOW, &extra, &err), 0);
	cr_assert_eq(store_commit(store, &err), 0);
	expect_verdict(false, 0,
		       "10.0.0.1: blocked, not in the durable store: a restart would forget it\n"
		       "10.0.0.3: in the durable store, not on the allowlist: a restart would put "
		       "it there\n");
	refuse = REFUSE_STORE_COMMIT;
	cr_expect_eq(verify(true).n, 2);
	refuse = 0;
	expect_verdict(true, 2, "");
	expect_agreement();
}

Test(rules_verify, tells_of_a_store_that_cannot_be_read)
{
	struct verdict verdict;

	start("");
	add("10.0.0.1");
	cr_assert_eq(unlink(file_path("rules.db")), 0);
	verdict = verify(true);
	cr_expect_eq(verdict.n, 1);
	cr_expect(strstr(verdict.texts, "rules.db"), "%s", verdict.texts);
}

Test(rules_verify, ends_with_an_error_when_the_daemon_stops)
{
	struct verdict verdict;

	start("");
	hold_worker();
	begin_verify(false, &verdict);
	release_worker();
	stop();
	cr_expect_eq(verdict.n_done, 1);
	cr_expect_eq(verdict.r, -ECANCELED);
}
