// SPDX-License-Identifier: GPL-2.0-or-later
#include "packet_loaded.h"

#include "entries.h"
#include "grace.h"
#include "kernel_entries.h"
#include "private_bpffs.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <string.h>

/* ---- programs and rules ---- */

static void load_slot(struct loaded *loaded, enum loaded_slot slot)
{
	bool has_l2 = slot == SLOT_ETHERNET;
	struct error err;

	cr_assert_eq(datapath_open_xdp(loaded->dp, slot, has_l2, &loaded->xdp[slot], &err), 0, "%s",
		     err.text);
	cr_assert_eq(bpf_object__load(loaded->xdp[slot]), 0);
	loaded->fds[slot][FWD_HOOK_XDP] =
		bpf_program__fd(bpf_object__next_program(loaded->xdp[slot], NULL));
	for (enum fwd_hook hook = FWD_HOOK_TC_IN; hook <= FWD_HOOK_TC_OUT; hook++)
		cr_assert_eq(datapath_load_tc(loaded->dp, slot, hook, has_l2,
					      &loaded->fds[slot][hook], &err),
			     0, "%s", err.text);
}

static void unload_slot(struct loaded *loaded, enum loaded_slot slot)
{
	bpf_object__close(loaded->xdp[slot]);
	close(loaded->fds[slot][FWD_HOOK_TC_IN]);
	close(loaded->fds[slot][FWD_HOOK_TC_OUT]);
}

void loaded_open(struct loaded *loaded)
{
	struct prefix_map *empty;
	struct error err;

	*loaded = (struct loaded){0};
	enter_private_bpffs();
	cr_assert_eq(prefix_map_build(NULL, 0, 0, &empty, &err), 0, "%s", err.text);
	cr_assert_eq(datapath_create(PIN_DIR, empty, 0, &loaded->dp, &err), 0, "%s", err.text);
	for (enum loaded_slot slot = 0; slot < SLOTS; slot++)
		load_slot(loaded, slot);
	loaded_set_flags(loaded, FWD_BLOCK_IN | FWD_BLOCK_OUT);
}

void loaded_close(struct loaded *loaded)
{
	for (enum loaded_slot slot = 0; slot < SLOTS; slot++)
		unload_slot(loaded, slot);
	datapath_close(loaded->dp);
}

struct prefix prefix_of(const char *text)
{
	struct prefix prefix;
	struct error err;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, &err), 0, "%s", err.text);
	return prefix;
}

struct prefix_item item_of(enum prefix_table table, const char *prefix, u64 expires_ns)
{
	return (struct prefix_item){
		.prefix = prefix_of(prefix), .table = table, .expires_ns = expires_ns};
}

struct prefix_change insertion(const char *prefix, u64 expires_ns)
{
	return (struct prefix_change){item_of(TABLE_BLOCK, prefix, expires_ns), PREFIX_INSERT};
}

struct prefix_change removal(const char *prefix)
{
	return (struct prefix_change){item_of(TABLE_BLOCK, prefix, 0), PREFIX_REMOVE};
}

void loaded_change(struct loaded *loaded, const struct datapath_change *change)
{
	struct error err;

	cr_assert_eq(datapath_stage(loaded->dp, change, &err), 0, "%s", err.text);
	datapath_commit(loaded->dp);
}

static void change_one(struct loaded *loaded, enum prefix_change_kind kind, enum prefix_table table,
		       const char *prefix, u64 expires_ns)
{
	const struct prefix_change change = {item_of(table, prefix, expires_ns), (u8)kind};

	loaded_change(loaded, &(struct datapath_change){
				      .prefixes = &change,
				      .n_prefixes = 1,
				      .flags = datapath_flags(loaded->dp),
			      });
}

void loaded_block(struct loaded *loaded, const char *prefix, u64 expires_ns)
{
	change_one(loaded, PREFIX_INSERT, TABLE_BLOCK, prefix, expires_ns);
}

void loaded_allow(struct loaded *loaded, const char *prefix, u64 expires_ns)
{
	change_one(loaded, PREFIX_INSERT, TABLE_ALLOW, prefix, expires_ns);
}

void loaded_retime(struct loaded *loaded, const char *prefix, u64 expires_ns)
{
	change_one(loaded, PREFIX_RETIME, TABLE_BLOCK, prefix, expires_ns);
}

void loaded_unblock(struct loaded *loaded, const char *prefix)
{
	change_one(loaded, PREFIX_REMOVE, TABLE_BLOCK, prefix, 0);
}

void loaded_disallow(struct loaded *loaded, const char *prefix)
{
	change_one(loaded, PREFIX_REMOVE, TABLE_ALLOW, prefix, 0);
}

/* What is attached to interfaces is moved by loading it anew. */
void loaded_replace(struct loaded *loaded, const struct prefix_item *items, size_t n)
{
	const struct datapath_change change = {
		.offered_bank = true,
		.flags = datapath_flags(loaded->dp),
	};
	struct prefix_map *map;
	struct error err;

	cr_assert_eq(prefix_map_build(items, n, datapath_offered_bank(loaded->dp), &map, &err), 0,
		     "%s", err.text);
	cr_assert_eq(datapath_offer_bank(loaded->dp, map, &err), 0, "%s", err.text);
	for (enum loaded_slot slot = 0; slot < SLOTS; slot++) {
		unload_slot(loaded, slot);
		load_slot(loaded, slot);
	}
	loaded_change(loaded, &change);
	grace_wait();
	prefix_map_add_counters(datapath_offered(loaded->dp), datapath_prefixes(loaded->dp));
}

void loaded_set_flags(struct loaded *loaded, u32 flags)
{
	loaded_change(loaded, &(struct datapath_change){.flags = flags});
	cr_assert_eq(datapath_flags(loaded->dp), flags);
}

void loaded_set_redirects(struct loaded *loaded, const struct redirect *redirects, size_t n)
{
	const struct redirect_scope scopes[SLOTS] = {
		{.slot = SLOT_ETHERNET, .name = "eth0"},
		{.slot = SLOT_BARE, .name = "tun0"},
	};

	loaded_change(loaded, &(struct datapath_change){
				      .flags = datapath_flags(loaded->dp),
				      .redirects_too = true,
				      .redirects = redirects,
				      .n_redirects = n,
				      .scopes = scopes,
				      .n_scopes = SLOTS,
			      });
}

/* ---- one packet ---- */

struct all_counters {
	struct fwd_counters of[SLOTS][FWD_HOOKS];
};

static void read_counters(struct loaded *loaded, struct all_counters *ret)
{
	for (enum loaded_slot slot = 0; slot < SLOTS; slot++)
		for (enum fwd_hook hook = 0; hook < FWD_HOOKS; hook++)
			cr_assert_eq(
				datapath_counters(loaded->dp, slot, hook, &ret->of[slot][hook]), 0);
}

static void expect_counted(struct loaded *loaded, const struct all_counters *before, u32 slot,
			   enum fwd_hook hook, enum fwd_verdict verdict, size_t bytes,
			   const char *what)
{
	struct all_counters expected = *before, after;
	struct fwd_counter *one = &expected.of[slot][hook].by_verdict[verdict];

	one->packets++;
	one->bytes += bytes;
	read_counters(loaded, &after);
	for (enum fwd_verdict v = 0; v < FWD_VERDICTS; v++) {
		const struct fwd_counter *is = &after.of[slot][hook].by_verdict[v];
		const struct fwd_counter *was = &before->of[slot][hook].by_verdict[v];

		cr_expect_eq(is->packets - was->packets, v == verdict,
			     "%s: verdict %d: %+lld packets", what, v,
			     (long long)(is->packets - was->packets));
		cr_expect_eq(is->bytes - was->bytes, v == verdict ? bytes : 0,
			     "%s: verdict %d: %+lld bytes of %zu", what, v,
			     (long long)(is->bytes - was->bytes), bytes);
	}
	cr_expect_eq(memcmp(&after, &expected, sizeof(after)), 0,
		     "%s: a counter of another slot or hook moved", what);
}

/*
 * What some kernel refuses to run a test on is shorter: for TC also a header of IP that is not
 * whole, unless it is behind a tag (bpf_prog_test_run_skb() of 6.18).
 */
static size_t kernel_wants(const struct packet *packet, enum fwd_hook hook)
{
	u16 type = (u16)(packet->bytes[12] << 8 | packet->bytes[13]);

	if (hook == FWD_HOOK_XDP)
		return ETH_HLEN + 1;
	return ETH_HLEN + (type == ETH_P_IP ? 20 : type == ETH_P_IPV6 ? 40 : 1);
}

bool loaded_run(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
		const struct packet *packet, enum fwd_verdict verdict, const char *what,
		struct outcome *ret)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet->bytes,
		    .data_size_in = (u32)packet->size, .data_out = ret->out.bytes,
		    .data_size_out = sizeof(ret->out.bytes), .repeat = 1);
	struct all_counters before;
	int r;

	read_counters(loaded, &before);
	r = bpf_prog_test_run_opts(loaded->fds[slot][hook], &opts);
	if (r == -EINVAL && packet->size < kernel_wants(packet, hook))
		return false;
	cr_assert_eq(r, 0, "%s: %zu bytes: %s", what, packet->size, strerror(-r));
	ret->action = opts.retval;
	ret->out.size = opts.data_size_out;
	expect_counted(loaded, &before, slot, hook, verdict, packet->size, what);
	return true;
}

/* ---- rows ---- */

/* What the entries of the blacklist and the allowlist counted, together. */
struct hits {
	u64 packets, bytes;
};

static struct hits hits_of(const struct fwd_entry *entry)
{
	struct hits hits;

	entries_read_hits(entry, &hits.packets, &hits.bytes);
	return hits;
}

static struct hits all_hits(const struct loaded *loaded)
{
	static const enum family families[] = {FAMILY_IPV4, FAMILY_IPV6};
	struct kernel_entries entries;
	struct hits hits = {0};

	for (size_t family = 0; family < ARRAY_SIZE(families); family++) {
		kernel_entries_open(datapath_prefixes(loaded->dp), families[family], &entries);
		for (size_t i = 0; i < entries.n; i++) {
			struct hits one = hits_of(kernel_entries_at(&entries, i));

			hits.packets += one.packets;
			hits.bytes += one.bytes;
		}
		kernel_entries_close(&entries);
	}
	return hits;
}

bool loaded_find(const struct loaded *loaded, enum prefix_table table, const char *text,
		 struct fwd_entry *ret)
{
	const struct prefix prefix = prefix_of(text);
	const struct fwd_entry *entry;
	struct kernel_entries entries;

	kernel_entries_open(datapath_prefixes(loaded->dp), (enum family)prefix.family, &entries);
	entry = kernel_entries_find(&entries, table, &prefix);
	if (entry)
		*ret = *entry;
	kernel_entries_close(&entries);
	return entry != NULL;
}

/* Zeros where the row has no entry. */
static struct fwd_entry read_entry(const struct loaded *loaded, const struct packet_case *row)
{
	enum prefix_table table = row->verdict == FWD_ALLOW ? TABLE_ALLOW : TABLE_BLOCK;
	struct fwd_entry entry = {0};

	if (row->entry)
		cr_assert(loaded_find(loaded, table, row->entry, &entry),
			  "%s: there is no entry %s", row->sentence, row->entry);
	return entry;
}

static u32 expected_action(enum fwd_hook hook, enum fwd_verdict verdict)
{
	if (hook == FWD_HOOK_XDP)
		return verdict == FWD_DROP ? XDP_DROP : XDP_PASS;
	switch (verdict) {
	case FWD_DROP:
	case FWD_NO_TARGET:
		return TC_ACT_SHOT;
	case FWD_REDIRECT:
		return TC_ACT_REDIRECT;
	default:
		return (u32)TC_ACT_UNSPEC;
	}
}

/* As the row says, but for the verdict; false: the kernel does not take it. */
static void check_packet(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
			 const struct packet_case *row, const struct packet *packet)
{
	struct fwd_entry was = read_entry(loaded, row), is;
	struct hits before = all_hits(loaded), after;
	u64 size = row->entry ? packet->size : 0;
	struct outcome outcome;

	if (!loaded_run(loaded, slot, hook, packet, row->verdict, row->sentence, &outcome))
		return;
	cr_expect_eq(outcome.action, expected_action(hook, row->verdict), "%s: action %d",
		     row->sentence, (int)outcome.action);
	after = all_hits(loaded);
	cr_expect_eq(after.packets - before.packets, row->entry != NULL,
		     "%s: %llu entries counted it", row->sentence,
		     (unsigned long long)(after.packets - before.packets));
	cr_expect_eq(after.bytes - before.bytes, size, "%s: entries counted %llu bytes",
		     row->sentence, (unsigned long long)(after.bytes - before.bytes));
	if (!row->entry)
		return;
	is = read_entry(loaded, row);
	cr_expect_eq(hits_of(&is).packets, hits_of(&was).packets + 1, "%s: not counted in %s",
		     row->sentence, row->entry);
	cr_expect_eq(hits_of(&is).bytes, hits_of(&was).bytes + size, "%s: not counted in %s",
		     row->sentence, row->entry);
	cr_expect(is.last_hit && is.last_hit >= was.last_hit, "%s: last hit %u, then %u",
		  row->sentence, was.last_hit, is.last_hit);
}

void loaded_check(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
		  const struct packet_case *row)
{
	struct packet packet;

	packet_build(row->layers, &packet);
	if (row->size) {
		cr_assert_lt(row->size, packet.size, "%s: nothing to cut", row->sentence);
		packet.size = row->size;
	}
	check_packet(loaded, slot, hook, row, &packet);
}

void loaded_check_lengths(struct loaded *loaded, enum loaded_slot slot, enum fwd_hook hook,
			  const struct packet_case *row, size_t needed)
{
	struct packet packet;
	size_t whole;

	packet_build(row->layers, &packet);
	whole = packet.size;
	for (packet.size = ETH_HLEN; packet.size <= whole; packet.size++) {
		struct packet_case at = *row;
		char sentence[256];

		snprintf(sentence, sizeof(sentence), "%s: cut to %zu of %zu bytes", row->sentence,
			 packet.size, whole);
		at.sentence = sentence;
		if (packet.size < needed) {
			at.verdict = FWD_MALFORMED;
			at.entry = NULL;
		}
		check_packet(loaded, slot, hook, &at, &packet);
	}
}
