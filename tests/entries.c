// SPDX-License-Identifier: GPL-2.0-or-later
/* The entries of a bank, over plain memory; grace periods are what the test says. */
#include "entries.h"

#include "grace.h"
#include "random.h"

#include <criterion/criterion.h>
#include <errno.h>

TestSuite(entries, .timeout = 120);

static struct {
	u64 ticket, ended; /* given out now; over up to this one */
	u32 waits;
} grace = {.ticket = 1};

u64 __wrap_grace_ticket(void);
bool __wrap_grace_over(u64 ticket);
void __wrap_grace_wait_for(u64 ticket);

u64 __wrap_grace_ticket(void)
{
	return grace.ticket;
}

bool __wrap_grace_over(u64 ticket)
{
	return ticket <= grace.ended;
}

void __wrap_grace_wait_for(u64 ticket)
{
	grace.waits++;
	if (grace.ended < ticket)
		grace.ended = ticket;
	if (grace.ticket <= grace.ended)
		grace.ticket = grace.ended + 1;
}

/* ---- the parts of a test ---- */

#define CAPACITY_MAX 1024

/* As an earlier daemon may have left them. */
static struct fwd_entry6 memory[CAPACITY_MAX];

static struct entries *new_entries(u32 capacity, int family)
{
	struct entries *entries = entries_new(memory, capacity, family);

	cr_assert(entries);
	return entries;
}

/* 192.0.2.0/24 and such, of 10 bits. */
static struct fwd_bits bits_of(u32 n)
{
	return (struct fwd_bits){.high = (u64)(0xc0000000 | n << 8) << 32};
}

static u32 insert(struct entries *entries, u32 n)
{
	return entries_insert(entries, false, bits_of(n), 24, 0);
}

static u32 find(const struct entries *entries, u32 n)
{
	return entries_find(entries, false, bits_of(n), 24);
}

static u32 count_listed(const struct entries *entries)
{
	u32 n = 0;

	for (u32 i = 1; (i = entries_next(entries, i)); i++)
		n++;
	return n;
}

/* ---- the index ---- */

Test(entries, finds_exactly_what_it_is_asked_for)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(16, FWD_IPV6);
	const struct fwd_bits bits = {1ull << 63, 0}, low = {1ull << 63, 1};
	u32 block = entries_insert(entries, false, bits, 48, 7);
	u32 allow = entries_insert(entries, true, bits, 48, 0);
	struct fwd_bits key;
	u32 len;

	cr_assert(block && allow && block != allow);
	cr_expect_eq(entries_find(entries, false, bits, 48), block);
	cr_expect_eq(entries_find(entries, true, bits, 48), allow);
	cr_expect_eq(entries_find(entries, false, bits, 47), 0);
	cr_expect_eq(entries_find(entries, false, bits, 49), 0);
	cr_expect_eq(entries_find(entries, false, low, 48), 0);
	entries_key(entries, block, &key, &len);
	cr_expect(key.high == bits.high && key.low == bits.low && len == 48);
	cr_expect_eq(entries_at(entries, block)->about, FWD_ABOUT(7, 48, FWD_ENTRY_USED));
	cr_expect_eq(entries_at(entries, allow)->about,
		     FWD_ABOUT(0, 48, FWD_ENTRY_USED | FWD_ENTRY_ALLOW));
}

Test(entries, what_is_taken_off_the_list_can_go_back)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(16, FWD_IPV4);
	u32 index = insert(entries, 1);

	entries_unlist(entries, index);
	cr_expect_eq(find(entries, 1), 0);
	cr_expect_eq(entries_used(entries), 1);
	entries_relist(entries, index);
	cr_expect_eq(find(entries, 1), index);
}

/* ---- elements ---- */

Test(entries, all_but_element_0_are_given_out_and_not_one_more)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(16, FWD_IPV4);

	cr_expect_eq(entries_capacity(entries), 15);
	for (u32 n = 0; n < 15; n++)
		cr_expect_eq(insert(entries, n), n + 1);
	cr_expect_eq(insert(entries, 15), 0);
	cr_expect_eq(entries_used(entries), 15);
	cr_expect_eq(find(entries, 15), 0);
	cr_expect_eq(grace.waits, 0, "there is nothing to wait for");
}

Test(entries, what_no_packet_has_seen_is_used_again_at_once)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(2, FWD_IPV4);
	u32 index = insert(entries, 1);

	entries_unlist(entries, index);
	entries_give(entries, index);
	cr_expect_eq(entries_used(entries), 0);
	cr_expect_eq(count_listed(entries), 0);
	cr_expect_eq(insert(entries, 2), index);
	cr_expect_eq(grace.waits, 0);
}

/* E1: a packet that has found it goes on to compare its prefix and its end. */
Test(entries, what_is_retired_keeps_what_packets_look_at)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(16, FWD_IPV4);
	u32 index = entries_insert(entries, true, bits_of(1), 24, 9);
	const struct fwd_entry *entry = entries_at(entries, index);

	entries_unlist(entries, index);
	entries_retire(entries, index);
	cr_expect_eq(entry->about, FWD_ABOUT(9, 24, FWD_ENTRY_ALLOW));
	cr_expect_eq(entry->addr, 0xc0000100);
	cr_expect_eq(count_listed(entries), 0);
	cr_expect_eq(entries_used(entries), 1, "it waits");
}

Test(entries, another_one_begins_without_hits)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(2, FWD_IPV4);
	u32 index = insert(entries, 1);
	struct fwd_entry *entry = entries_at(entries, index);

	entry->hits = entry->packet_chunks = entry->byte_chunks = entry->last_hit = 5;
	entries_unlist(entries, index);
	entries_retire(entries, index);
	cr_expect_eq(insert(entries, 2), index);
	cr_expect_eq(entry->hits + entry->packet_chunks + entry->byte_chunks + entry->last_hit, 0);
}

static void retire(struct entries *entries, u32 index)
{
	entries_unlist(entries, index);
	entries_retire(entries, index);
}

Test(entries, nobody_waits_as_long_as_others_are_free)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(4, FWD_IPV4);

	retire(entries, insert(entries, 1));
	cr_expect_eq(insert(entries, 2), 2, "element 1 waits");
	cr_expect_eq(insert(entries, 3), 3);
	cr_expect_eq(grace.waits, 0);
	grace.ended = grace.ticket;
	cr_expect_eq(insert(entries, 4), 1, "its ticket is over");
	cr_expect_eq(grace.waits, 0);
}

Test(entries, a_full_map_waits_for_the_oldest_ticket_alone)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(4, FWD_IPV4);

	for (u32 n = 1; n < 4; n++)
		insert(entries, n);
	retire(entries, 2);
	retire(entries, 3);
	grace.ticket++;
	retire(entries, 1);
	cr_expect_neq(insert(entries, 5), 1);
	cr_expect_neq(insert(entries, 6), 1);
	cr_expect_eq(grace.waits, 1, "two were on one ticket");
	cr_expect_eq(insert(entries, 7), 1);
	cr_expect_eq(grace.waits, 2);
	cr_expect_eq(insert(entries, 8), 0);
	cr_expect_eq(grace.waits, 2);
}

/* A map that only loses entries is seen to be too large. */
Test(entries, what_waits_no_longer_does_not_count_as_used)
{
	_cleanup_(entries_freep) struct entries *entries = new_entries(16, FWD_IPV4);

	for (u32 n = 1; n < 8; n++)
		insert(entries, n);
	for (u32 index = 1; index < 7; index++)
		retire(entries, index);
	cr_expect_eq(entries_used(entries), 7);
	grace.ended = grace.ticket++;
	retire(entries, 7);
	cr_expect_eq(entries_used(entries), 1);
}

/* ---- taking up ---- */

Test(entries, what_is_not_listed_is_free_after_adoption)
{
	_cleanup_(entries_freep) struct entries *before = new_entries(16, FWD_IPV4);
	_cleanup_(entries_freep) struct entries *after = NULL;
	u32 gone, indices[8];

	for (u32 n = 0; n < 8; n++)
		indices[n] = insert(before, n);
	gone = indices[3];
	retire(before, gone);
	after = new_entries(16, FWD_IPV4);
	for (u32 n = 0; n < 8; n++)
		cr_expect_eq(entries_list(after, indices[n]), n != 3, "%u", n);
	cr_assert_eq(entries_listed(after), 0);
	cr_expect_eq(entries_used(after), 7);
	cr_expect_eq(count_listed(after), 7);
	for (u32 n = 0; n < 8; n++)
		cr_expect_eq(find(after, n), n == 3 ? 0 : indices[n]);
	cr_expect_eq(insert(after, 20), gone);
	for (u32 n = 21; n < 28; n++)
		cr_expect(insert(after, n));
	cr_expect_eq(insert(after, 28), 0);
}

Test(entries, a_map_that_is_full_or_empty_is_taken_up)
{
	for (u32 used = 0; used <= 15; used += 15) {
		_cleanup_(entries_freep) struct entries *before = NULL, *after = NULL;

		memset(memory, 0, sizeof(memory));
		before = new_entries(16, FWD_IPV6);
		for (u32 n = 0; n < used; n++)
			insert(before, n);
		after = new_entries(16, FWD_IPV6);
		for (u32 index = 1; index <= used; index++)
			cr_expect(entries_list(after, index));
		cr_expect_eq(entries_listed(after), 0);
		for (u32 n = used; n < 15; n++)
			cr_expect(insert(after, n));
		cr_expect_eq(insert(after, 99), 0);
	}
}

Test(entries, refuses_to_list_what_is_no_entry)
{
	static const struct {
		u64 about;
		int family;
		bool listed;
	} rows[] = {
		{FWD_ABOUT(0, 32, FWD_ENTRY_USED), FWD_IPV4, true},
		{FWD_ABOUT(0, 33, FWD_ENTRY_USED), FWD_IPV4, false},
		{FWD_ABOUT(0, 128, FWD_ENTRY_USED), FWD_IPV6, true},
		{FWD_ABOUT(0, 129, FWD_ENTRY_USED), FWD_IPV6, false},
		{FWD_ABOUT(5, 32, FWD_ENTRY_ALLOW), FWD_IPV4, false},
		{0, FWD_IPV4, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_(entries_freep) struct entries *entries = new_entries(4, rows[i].family);

		memset(memory, 0, sizeof(memory));
		entries_at(entries, 1)->about = rows[i].about;
		cr_expect_eq(entries_list(entries, 1), rows[i].listed, "row %zu", i);
		entries_at(entries, 2)->about = rows[i].about;
		cr_expect_not(entries_list(entries, 2), "row %zu: one prefix twice", i);
	}
}

/* ---- all of it in any order ---- */

#define KEYS 2048

/* What is to be true; of elements by index, of keys by number. */
struct model {
	struct random random;
	struct entries *entries;
	u32 capacity, listed, waiting;
	u32 index_of[KEYS];
	struct element {
		enum { FREE, LISTED, WAITING } is;
		u32 key;
		u64 ticket;
	} of[CAPACITY_MAX];
};

/* Bits, lengths and tables that are alike. */
static void key_of(u32 key, bool *ret_allow, struct fwd_bits *ret_bits, u32 *ret_len)
{
	*ret_allow = key & 1;
	*ret_len = key & 2 ? 24 : 32;
	*ret_bits = bits_of(key >> 2);
}

static u32 find_key(const struct model *model, u32 key)
{
	struct fwd_bits bits;
	bool allow;
	u32 len;

	key_of(key, &allow, &bits, &len);
	return entries_find(model->entries, allow, bits, len);
}

static void insert_key(struct model *model, u32 key)
{
	struct fwd_bits bits;
	struct element *element;
	bool allow;
	u32 len, index;

	key_of(key, &allow, &bits, &len);
	index = entries_insert(model->entries, allow, bits, len, 0);
	if (!index) {
		random_holds(&model->random, model->listed == model->capacity - 1);
		return;
	}
	element = &model->of[index];
	random_holds(&model->random, index < model->capacity);
	random_holds(&model->random, element->is == FREE || (element->is == WAITING &&
							     element->ticket <= grace.ended));
	model->waiting -= element->is == WAITING;
	model->listed++;
	*element = (struct element){.is = LISTED, .key = key};
	model->index_of[key] = index;
}

static void change_listed(struct model *model, u32 key)
{
	u32 index = model->index_of[key];
	struct element *element = &model->of[index];
	u64 how = random_below(&model->random, 8);

	entries_unlist(model->entries, index);
	random_holds(&model->random, find_key(model, key) == 0);
	if (how == 0) {
		entries_relist(model->entries, index);
		return;
	}
	model->index_of[key] = 0;
	model->listed--;
	if (how == 1) {
		entries_give(model->entries, index);
		element->is = FREE;
		return;
	}
	entries_retire(model->entries, index);
	model->waiting++;
	*element = (struct element){.is = WAITING, .ticket = grace.ticket};
}

static void expect_all(struct model *model)
{
	u32 n = 0;

	for (u32 key = 0; key < KEYS; key++)
		random_holds(&model->random, find_key(model, key) == model->index_of[key]);
	for (u32 i = 1; (i = entries_next(model->entries, i)); i++, n++)
		random_holds(&model->random, model->of[i].is == LISTED);
	random_holds(&model->random, n == model->listed);
}

static void live(struct model *model, u32 keys, int steps)
{
	for (int step = 0; step < steps; step++) {
		u32 key = (u32)random_below(&model->random, keys), used;

		if (model->index_of[key])
			change_listed(model, key);
		else
			insert_key(model, key);
		random_holds(&model->random, find_key(model, key) == model->index_of[key]);
		used = entries_used(model->entries);
		random_holds(&model->random, used >= model->listed);
		random_holds(&model->random, used <= model->listed + model->waiting);
		if (!random_below(&model->random, 20))
			grace.ticket++;
		if (!random_below(&model->random, 40))
			grace.ended = grace.ticket++;
		if (step % 256 == 0)
			expect_all(model);
	}
	expect_all(model);
}

/* A small index has its entries next to each other and round its end, a large one waits longer. */
Test(entries, holds_what_the_model_holds)
{
	static const struct {
		u32 capacity, keys;
		int steps;
	} rows[] = {{11, 32, 20000}, {CAPACITY_MAX, KEYS, 40000}};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
		static struct model model;
		int family = i & 1 ? FWD_IPV6 : FWD_IPV4;

		memset(memory, 0, sizeof(memory));
		model = (struct model){
			.random = random_start(),
			.capacity = rows[i / 2].capacity,
			.entries = new_entries(rows[i / 2].capacity, family),
		};
		live(&model, rows[i / 2].keys, rows[i / 2].steps);
		entries_free(model.entries);
	}
}
