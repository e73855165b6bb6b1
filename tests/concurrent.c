// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Packets on one core while the other changes the set, on the modules of the daemon and the loaded
 * XDP program: what is in both sets is never missed, what is in neither never hit, and no packet is
 * counted in an entry that covers none.
 *
 * Chains make the way of a packet long, so that it is under way while the set changes: entries that
 * have ended, one inside the other, each of which a look-up has to step over.
 */
#include "clock.h"
#include "datapath.h"
#include "private_bpffs.h"
#include "random.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#define ITEMS_MAX  8192
#define PROBES_MAX 1024
#define FILLERS	   3000 /* with them the IPv4 trie has a table on top, without it has none */

#define RUN_NS 3000000000ull /* of each test */

#define ENDED_NS 1ull /* since the boot: long ago */
#define FAR_NS	 (1ull << 62)

TestSuite(concurrent, .init = enter_private_bpffs, .timeout = 120);

/* ---- the set ---- */

enum role {
	STAYS,	/* always in it, sometimes with an end that does not come */
	TOGGLE, /* always in it, below one that stays; its end comes and goes */
	MOVES,	/* comes and goes */
	ENDED,	/* the same, but its end is over when it comes */
	FILLER, /* all of them or none, with a new bank */
};

struct item {
	struct prefix_item now;
	enum role role;
	bool in;
	bool silent; /* covers no probe, so it counts no packet */
};

/* An address whose packets have one verdict, whatever else happens. */
struct probe {
	enum fwd_verdict verdict;
	char text[PREFIX_TEXT_MAX];
	u32 size;
	u8 frame[ETH_HLEN + sizeof(struct ipv6hdr)];
};

struct set {
	struct item items[ITEMS_MAX];
	size_t n_items;
	struct probe probes[PROBES_MAX];
	size_t n_probes;
	size_t chains[16], n_chains; /* probes with a long way */
};

/* The first `len` bits of an IPv4 address; as IPv6 with ten bytes of zeros in the middle. */
static struct prefix prefix_at(enum family family, u32 addr, u8 len)
{
	const u8 bytes[] = {(u8)(addr >> 24), (u8)(addr >> 16), (u8)(addr >> 8), (u8)addr};
	struct prefix prefix = {.family = family, .len = len};

	memcpy(prefix.addr, bytes, 4);
	if (family == FAMILY_IPV6) {
		memset(&prefix.addr[2], 0, 2);
		memcpy(&prefix.addr[12], &bytes[2], 2);
		prefix.len = (u8)(len == 32 ? 128 : len > 16 ? len + 80 : len);
	}
	prefix_truncate(&prefix, prefix.len);
	return prefix;
}

static void add_item(struct set *set, enum prefix_table table, const struct prefix *prefix,
		     enum role role, bool silent)
{
	cr_assert_lt(set->n_items, ITEMS_MAX);
	set->items[set->n_items++] = (struct item){
		.now = {.prefix = *prefix,
			.table = (u8)table,
			.expires_ns = role == ENDED ? ENDED_NS : 0},
		.role = role,
		.in = role == STAYS || role == TOGGLE,
		.silent = silent,
	};
}

static void block(struct set *set, enum family family, u32 addr, u8 len, enum role role,
		  bool silent)
{
	struct prefix prefix = prefix_at(family, addr, len);

	add_item(set, TABLE_BLOCK, &prefix, role, silent);
}

static void add_probe(struct set *set, const struct prefix *host, enum fwd_verdict verdict)
{
	struct probe *probe = &set->probes[set->n_probes++];
	bool is6 = host->family == FAMILY_IPV6;
	struct ethhdr *eth = (struct ethhdr *)probe->frame;
	struct ipv6hdr ip6 = {.version = 6};
	struct iphdr ip = {.version = 4, .ihl = 5};

	cr_assert_lt(set->n_probes, PROBES_MAX);
	probe->verdict = verdict;
	probe->size = (u32)(ETH_HLEN + (is6 ? sizeof(ip6) : sizeof(ip)));
	prefix_format(host, probe->text);
	memcpy(&ip6.saddr, host->addr, 16);
	memcpy(&ip.saddr, host->addr, 4);
	eth->h_proto = htons(is6 ? ETH_P_IPV6 : ETH_P_IP);
	if (is6)
		memcpy(probe->frame + ETH_HLEN, &ip6, sizeof(ip6));
	else
		memcpy(probe->frame + ETH_HLEN, &ip, sizeof(ip));
}

static void probe(struct set *set, enum family family, u32 addr, enum fwd_verdict verdict)
{
	struct prefix host = prefix_at(family, addr, 32);

	add_probe(set, &host, verdict);
}

/* Hosts side by side, in the same nodes: some stay, some move, some are in no set. */
static void add_hosts(struct set *set, enum family family)
{
	for (u32 i = 0; i < 1024; i++) {
		u32 addr = 0x0a000000 | i / 64 << 8 | i % 64 * 3;

		if (i % 4 != 1)
			block(set, family, addr, 32, i % 4 ? MOVES : STAYS, i % 4 != 0);
		if (i % 16 < 2)
			probe(set, family, addr, i % 4 ? FWD_PASS : FWD_DROP);
	}
}

/* Prefixes in prefixes, over several bytes and within one, where lists stand. */
static void add_nested(struct set *set, enum family family)
{
	for (u32 i = 0; i < 8; i++) {
		u32 outer = 0xac100000 | i << 12, near = 0xac200000 | i << 8;

		block(set, family, outer, 20, STAYS, false);
		block(set, family, outer | 0x100, 24, MOVES, false);
		block(set, family, outer | 0x140, 26, TOGGLE, false);
		block(set, family, outer | 0x150, 28, MOVES, false);
		block(set, family, outer | 0x155, 32, MOVES, false);
		probe(set, family, outer | 0x155, FWD_DROP);
		block(set, family, near, 25, STAYS, false);
		block(set, family, near | 0x20, 27, TOGGLE, false);
		block(set, family, near | 0x24, 30, MOVES, false);
		block(set, family, near | 0x25, 32, TOGGLE, false);
		probe(set, family, near | 0x25, FWD_DROP);
		probe(set, family, near | 0x99, FWD_PASS);
	}
}

static void add_allowed(struct set *set, enum family family)
{
	struct prefix stays = prefix_at(family, 0xc6336407, 32), moves;

	block(set, family, 0xc6336400, 24, STAYS, false);
	add_item(set, TABLE_ALLOW, &stays, STAYS, false);
	for (u32 i = 0; i < 64; i++) {
		moves = prefix_at(family, 0xc6336480 + i, 32);
		add_item(set, TABLE_ALLOW, &moves, MOVES, true);
	}
	probe(set, family, 0xc6336407, FWD_ALLOW);
	probe(set, family, 0xc6336409, FWD_DROP);
}

/* A host that stays below all that have ended. */
static void add_chain_of(struct set *set, enum prefix_table table, const struct prefix *host,
			 enum role role)
{
	for (u8 len = 9; len < host->len; len++) {
		struct prefix above = *host;

		prefix_truncate(&above, len);
		add_item(set, table, &above, ENDED, true);
	}
	add_item(set, table, host, role, false);
}

/* The packets of the host, and those of the one beside it, which no entry has that goes on. */
static void add_chain_probes(struct set *set, struct prefix host, enum fwd_verdict verdict,
			     enum fwd_verdict beside)
{
	cr_assert_leq(set->n_chains + 2, ARRAY_SIZE(set->chains));
	set->chains[set->n_chains++] = set->n_probes;
	add_probe(set, &host, verdict);
	host.addr[host.len / 8 - 1] ^= 1;
	set->chains[set->n_chains++] = set->n_probes;
	add_probe(set, &host, beside);
}

static struct prefix chain_host(enum family family, u8 first)
{
	struct prefix host = {.family = family, .len = family_bits(family), .addr = {first}};

	for (u8 i = 1; i < host.len / 8; i++)
		host.addr[i] = (u8)(i * 0x35);
	return host;
}

static void add_chains(struct set *set, enum family family)
{
	struct prefix low = chain_host(family, 0x20), allowed = chain_host(family, 0x30);
	struct prefix capped = chain_host(family, 0x28), cap = capped;

	add_chain_of(set, TABLE_BLOCK, &low, STAYS);
	add_chain_probes(set, low, FWD_DROP, FWD_PASS);

	/* What stays is on top. */
	prefix_truncate(&cap, 8);
	add_item(set, TABLE_BLOCK, &cap, STAYS, false);
	add_chain_of(set, TABLE_BLOCK, &capped, MOVES);
	add_chain_probes(set, capped, FWD_DROP, FWD_DROP);

	/* The longest way: all of the blacklist, then all of the allowlist. */
	add_chain_of(set, TABLE_BLOCK, &allowed, STAYS);
	add_chain_of(set, TABLE_ALLOW, &allowed, STAYS);
	add_chain_probes(set, allowed, FWD_ALLOW, FWD_PASS);
}

static int compare_items(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->now.table != y->now.table)
		return x->now.table - y->now.table;
	return prefix_compare(&x->now.prefix, &y->now.prefix);
}

static struct set *make_set(void)
{
	struct set *set = calloc(1, sizeof(*set));

	cr_assert(set);
	for (enum family family = FAMILY_IPV4; family <= FAMILY_IPV6; family += 2) {
		add_hosts(set, family);
		add_nested(set, family);
		add_allowed(set, family);
		add_chains(set, family);
	}
	for (u32 i = 0; i < FILLERS; i++)
		block(set, FAMILY_IPV4, 0x0a400000 + i * 77, 32, FILLER, true);
	qsort(set->items, set->n_items, sizeof(*set->items), compare_items);
	return set;
}

/* ---- the reader ---- */

struct reader {
	pthread_t thread;
	const struct set *set;
	u64 runs[FWD_VERDICTS]; /* packets by the verdict they should have */
	atomic_int fd, used_fd; /* the program to run, and the one that runs */
	atomic_bool stop;
	const struct probe *_Atomic failed;
	int error;
};

static void pin_to(unsigned nth)
{
	cpu_set_t all, one;

	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return;
	nth %= (unsigned)CPU_COUNT(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all) || nth--)
			continue;
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

/* One packet a call: for more the kernel waits for a grace period first (bpf_prog_change_xdp()). */
static void send_probe(struct reader *reader, const struct probe *probe)
{
	int fd = atomic_load(&reader->fd);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = probe->frame, .data_size_in = probe->size,
		    .repeat = 1);

	atomic_store(&reader->used_fd, fd);
	reader->error = bpf_prog_test_run_opts(fd, &opts);
	reader->runs[probe->verdict]++;
	if (reader->error || (opts.retval == XDP_DROP) != (probe->verdict == FWD_DROP))
		atomic_store(&reader->failed, probe);
}

static void *read_on(void *data)
{
	struct reader *reader = data;
	const struct set *set = reader->set;

	pin_to(1);
	for (size_t i = 0; !atomic_load(&reader->stop) && !atomic_load(&reader->failed); i++) {
		send_probe(reader, &set->probes[i % set->n_probes]);
		send_probe(reader, &set->probes[set->chains[i % set->n_chains]]);
	}
	/* Whoever waits for another program to be taken up waits no longer. */
	atomic_store(&reader->used_fd, -1);
	return NULL;
}

/* ---- the writer ---- */

struct run {
	struct random random;
	struct set *set;
	struct reader reader;
	struct datapath *dp;
	struct bpf_object *program;
};

static void check_reader(struct run *run, const char *during)
{
	const struct probe *failed = atomic_load(&run->reader.failed);

	cr_assert(!failed,
		  "%s: a packet of %s, which should have verdict %d, had another: FWD_SEED=%#llx",
		  during, failed->text, failed->verdict, (unsigned long long)run->random.seed);
}

static struct bpf_object *load_program(struct datapath *dp)
{
	struct bpf_object *program = NULL;
	struct error err;

	cr_assert_eq(datapath_open_xdp(dp, 0, true, &program, &err), 0, "%s", err.text);
	cr_assert_eq(bpf_object__load(program), 0);
	return program;
}

static int program_fd(const struct bpf_object *program)
{
	return bpf_program__fd(bpf_object__next_program(program, NULL));
}

/* A program on the maps of both banks as they are now, and the reader is with it. */
static void move_reader(struct run *run)
{
	struct bpf_object *program = load_program(run->dp);
	int fd = program_fd(program);

	atomic_store(&run->reader.fd, fd);
	while (atomic_load(&run->reader.used_fd) != fd) {
		check_reader(run, "moving to another program");
		sched_yield();
	}
	bpf_object__close(run->program);
	run->program = program;
}

static void check_silent(const struct run *run, const struct item *item)
{
	struct prefix_state state;

	if (!item->in || !item->silent)
		return;
	random_holds(&run->random,
		     prefix_map_read(datapath_prefixes(run->dp), (enum prefix_table)item->now.table,
				     &item->now.prefix, &state));
	cr_assert_eq(state.packets, 0, "an entry counted packets of others: FWD_SEED=%#llx",
		     (unsigned long long)run->random.seed);
}

static u64 another_end(struct run *run, enum role role)
{
	switch (role) {
	case ENDED:
		return ENDED_NS;
	case TOGGLE:
		if (random_below(&run->random, 2))
			return random_below(&run->random, 2) ? ENDED_NS : boot_ns() + 100000;
		break;
	case STAYS:
	case MOVES:
	case FILLER:
		break;
	}
	return random_below(&run->random, 2) ? FAR_NS : 0;
}

static struct prefix_change change_item(struct run *run, struct item *item)
{
	bool comes_and_goes = item->role == MOVES || item->role == ENDED;
	struct prefix_change change = {.item = item->now, .kind = PREFIX_RETIME};

	if (comes_and_goes)
		change.kind = item->in ? PREFIX_REMOVE : PREFIX_INSERT;
	if (change.kind == PREFIX_REMOVE)
		check_silent(run, item);
	else
		change.item.expires_ns = another_end(run, item->role);
	return change;
}

static void took_effect(struct item *item, const struct prefix_change *change)
{
	item->in = change->kind != PREFIX_REMOVE;
	item->now.expires_ns = change->item.expires_ns;
}

static void replace_bank(struct run *run);

/* Half of them of the chains, which packets are long in, a quarter of those whose ends toggle. */
static bool is_picked(const struct item *item, u64 draw)
{
	if (draw < 2)
		return item->role == ENDED;
	return draw == 2 ? item->role == TOGGLE : item->role != FILLER;
}

static size_t pick_item(struct run *run)
{
	u64 draw = random_below(&run->random, 4);
	size_t at;

	do {
		at = random_below(&run->random, run->set->n_items);
	} while (!is_picked(&run->set->items[at], draw));
	return at;
}

/* Items that follow each other, which share nodes; of fillers none. */
static void change_some(struct run *run, size_t n)
{
	size_t at = pick_item(run), n_changes = 0;
	_cleanup_free_ struct prefix_change *changes = calloc(n, sizeof(*changes));
	_cleanup_free_ struct item **items = calloc(n, sizeof(*items));
	struct error err;
	int r;

	cr_assert(changes && items);
	for (size_t i = 0; i < n && at + i < run->set->n_items; i++) {
		struct item *item = &run->set->items[at + i];

		if (item->role == FILLER || (n > 1 && random_below(&run->random, 3) == 0))
			continue;
		items[n_changes] = item;
		changes[n_changes++] = change_item(run, item);
	}
	r = datapath_stage(run->dp,
			   &(struct datapath_change){.prefixes = changes,
						     .n_prefixes = n_changes,
						     .flags = FWD_BLOCK_IN},
			   &err);
	if (r == -E2BIG) {
		replace_bank(run);
		return;
	}
	cr_assert_eq(r, 0, "%s: FWD_SEED=%#llx", err.text, (unsigned long long)run->random.seed);
	datapath_commit(run->dp);
	for (size_t i = 0; i < n_changes; i++)
		took_effect(items[i], &changes[i]);
}

/* Another set: what moves is drawn anew. */
static void draw_items(struct run *run, bool fillers)
{
	for (size_t i = 0; i < run->set->n_items; i++) {
		struct item *item = &run->set->items[i];

		check_silent(run, item);
		if (item->role == MOVES || item->role == ENDED)
			item->in = random_below(&run->random, 2);
		else if (item->role == FILLER)
			item->in = fillers;
		item->now.expires_ns = another_end(run, item->role);
	}
}

static struct prefix_map *build_map(const struct run *run, unsigned bank)
{
	_cleanup_free_ struct prefix_item *items = calloc(run->set->n_items, sizeof(*items));
	struct prefix_map *map = NULL;
	struct error err;
	size_t n = 0;

	cr_assert(items);
	for (size_t i = 0; i < run->set->n_items; i++)
		if (run->set->items[i].in)
			items[n++] = run->set->items[i].now;
	cr_assert_eq(prefix_map_build(items, n, bank, &map, &err), 0, "%s", err.text);
	return map;
}

static void replace_bank(struct run *run)
{
	struct datapath_change change = {.offered_bank = true, .flags = FWD_BLOCK_IN};
	struct prefix_map *map;
	struct error err;

	draw_items(run, random_below(&run->random, 2));
	map = build_map(run, datapath_offered_bank(run->dp));
	cr_assert_eq(datapath_offer_bank(run->dp, map, &err), 0, "%s", err.text);
	move_reader(run);
	cr_assert_eq(datapath_stage(run->dp, &change, &err), 0, "%s", err.text);
	datapath_commit(run->dp);
}

/* ---- a run ---- */

static void start(struct run *run)
{
	struct prefix_map *map;
	struct error err;

	run->random = random_start();
	run->set = make_set();
	map = build_map(run, 0);
	cr_assert_eq(datapath_create(PIN_DIR, map, FWD_BLOCK_IN, &run->dp, &err), 0, "%s",
		     err.text);
	run->program = load_program(run->dp);
	run->reader = (struct reader){.set = run->set, .fd = program_fd(run->program)};
	cr_assert_eq(pthread_create(&run->reader.thread, NULL, read_on, &run->reader), 0);
	pin_to(0);
}

/* Each packet had the verdict that it should have. */
static void finish(struct run *run)
{
	struct fwd_counters counters;
	u64 packets = 0;

	atomic_store(&run->reader.stop, true);
	pthread_join(run->reader.thread, NULL);
	check_reader(run, "at the end");
	for (size_t i = 0; i < run->set->n_items; i++)
		check_silent(run, &run->set->items[i]);
	cr_assert_eq(datapath_counters(run->dp, 0, FWD_HOOK_XDP, &counters), 0);
	for (size_t v = 0; v < FWD_VERDICTS; v++) {
		packets += run->reader.runs[v];
		cr_assert_eq(counters.by_verdict[v].packets, run->reader.runs[v],
			     "%llu packets had verdict %zu, not %llu: FWD_SEED=%#llx",
			     (unsigned long long)counters.by_verdict[v].packets, v,
			     (unsigned long long)run->reader.runs[v],
			     (unsigned long long)run->random.seed);
	}
	cr_assert_gt(packets, run->set->n_probes, "no packet meanwhile");
	bpf_object__close(run->program);
	datapath_close(run->dp);
	free(run->set);
}

/* By turns, so that changes meet both kinds of trie and each bank. */
static void run_turns(u64 changes, u64 most)
{
	u64 until = boot_ns() + RUN_NS;
	struct run run = {0};

	start(&run);
	while (boot_ns() < until) {
		for (u64 i = 0; i < changes && boot_ns() < until; i++) {
			change_some(&run, 1 + random_below(&run.random, most));
			check_reader(&run, "changes of the bank");
		}
		replace_bank(&run);
		check_reader(&run, "another bank");
	}
	finish(&run);
}

Test(concurrent, single_changes_mislead_no_packet)
{
	run_turns(10000, 1);
}

Test(concurrent, changes_of_many_at_once_mislead_no_packet)
{
	run_turns(300, 40);
}

Test(concurrent, new_banks_mislead_no_packet)
{
	run_turns(20, 2);
}
