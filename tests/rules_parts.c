// SPDX-License-Identifier: GPL-2.0-or-later
#include "rules_parts.h"

#include "expiry.h"
#include "kernel_entries.h"
#include "private_bpffs.h"
#include "temporary.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>

sd_event *event;
struct worker *worker;
struct interfaces *ifs;
struct store *store;
struct rules *rules;
unsigned refuse;
struct local_list locals;

static struct links *links;
static struct tc *tc;
static sem_t go;

/* ---- refusals ---- */

int __real_store_commit(struct store *s, struct error *err);
int __wrap_store_commit(struct store *s, struct error *err);
int __real_store_bulk_commit(struct store *s, struct store_bulk *bulk, const struct ruleset *forced,
			     struct error *err);
int __wrap_store_bulk_commit(struct store *s, struct store_bulk *bulk, const struct ruleset *forced,
			     struct error *err);
int __real_store_feed_commit(struct store_feed *const *feeds, size_t n, struct error *err);
int __wrap_store_feed_commit(struct store_feed *const *feeds, size_t n, struct error *err);
int __real_interfaces_prepare(struct interfaces *i, struct error *err);
int __wrap_interfaces_prepare(struct interfaces *i, struct error *err);
int __real_interfaces_move(struct interfaces *i, struct error *err);
int __wrap_interfaces_move(struct interfaces *i, struct error *err);
int __real_prefix_map_build(const struct prefix_item *items, size_t n, unsigned bank_number,
			    struct prefix_map **ret, struct error *err);
int __wrap_prefix_map_build(const struct prefix_item *items, size_t n, unsigned bank_number,
			    struct prefix_map **ret, struct error *err);
int __real_worker_run(struct worker *w, void (*work)(void *data), void (*done)(void *data),
		      void *data);
int __wrap_worker_run(struct worker *w, void (*work)(void *data), void (*done)(void *data),
		      void *data);
time_t __real_time(time_t *ret);
time_t __wrap_time(time_t *ret);
void *__real_reallocarray(void *memory, size_t n, size_t size);
void *__wrap_reallocarray(void *memory, size_t n, size_t size);

static bool refuses(enum refusal what)
{
	return refuse & what;
}

static int refused(struct error *err)
{
	return error_set(err, -EIO, "refused by the test");
}

int __wrap_store_commit(struct store *s, struct error *err)
{
	return refuses(REFUSE_STORE_COMMIT) ? refused(err) : __real_store_commit(s, err);
}

int __wrap_store_bulk_commit(struct store *s, struct store_bulk *bulk, const struct ruleset *forced,
			     struct error *err)
{
	return refuses(REFUSE_BULK_COMMIT) ? refused(err)
					   : __real_store_bulk_commit(s, bulk, forced, err);
}

int __wrap_store_feed_commit(struct store_feed *const *feeds, size_t n, struct error *err)
{
	return refuses(REFUSE_FEED_COMMIT) ? refused(err) : __real_store_feed_commit(feeds, n, err);
}

int __wrap_interfaces_prepare(struct interfaces *i, struct error *err)
{
	return refuses(REFUSE_PREPARE) ? refused(err) : __real_interfaces_prepare(i, err);
}

int __wrap_interfaces_move(struct interfaces *i, struct error *err)
{
	if (refuses(REFUSE_MOVE)) {
		refuse &= ~(unsigned)REFUSE_MOVE;
		return refused(err);
	}
	return __real_interfaces_move(i, err);
}

int __wrap_prefix_map_build(const struct prefix_item *items, size_t n, unsigned bank_number,
			    struct prefix_map **ret, struct error *err)
{
	if (refuses(REFUSE_BUILD)) {
		refuse &= ~(unsigned)REFUSE_BUILD;
		return refused(err);
	}
	return __real_prefix_map_build(items, n, bank_number, ret, err);
}

int __wrap_worker_run(struct worker *w, void (*work)(void *data), void (*done)(void *data),
		      void *data)
{
	return refuses(REFUSE_JOB) ? -ENOMEM : __real_worker_run(w, work, done, data);
}

void *__wrap_reallocarray(void *memory, size_t n, size_t size)
{
	if (refuses(REFUSE_NOTE) && size == sizeof(struct prefix) + 1)
		return NULL;
	if (refuses(REFUSE_ENDS) && size == sizeof(struct expiry_item))
		return NULL;
	return __real_reallocarray(memory, n, size);
}

/* ---- time ---- */

static atomic_long seconds_ahead;

/* Each look at the clock is a second later: no two rules have the same age by chance. */
time_t __wrap_time(time_t *ret)
{
	time_t now = __real_time(NULL) + atomic_fetch_add(&seconds_ahead, 1);

	if (ret)
		*ret = now;
	return now;
}

/* ---- the parts of a daemon ---- */

void rules_set_up(void)
{
	struct error err;

	enter_private_bpffs();
	temporary_make();
	cr_assert_eq(sem_init(&go, 0, 0), 0);
	cr_assert_geq(sd_event_new(&event), 0);
	cr_assert_eq(links_open(&links, &err), 0, "%s", err.text);
	cr_assert_eq(tc_open(&tc, &err), 0, "%s", err.text);
}

void stop(void)
{
	if (rules)
		rules_stop(rules);
	worker_close(take_pointer(&worker));
	rules_close(take_pointer(&rules));
	interfaces_close(take_pointer(&ifs));
	store_close(take_pointer(&store));
}

void rules_tear_down(void)
{
	release_worker(); /* where a test failed that held it */
	stop();
	tc_close(tc);
	links_close(links);
	sd_event_unref(event);
	temporary_remove();
}

const char *file_path(const char *name)
{
	return temporary_path(name);
}

void write_file(const char *name, const char *text)
{
	temporary_write(name, text, strlen(text));
}

const char *two_feeds(void)
{
	static char config[512];

	write_file("feed", "198.51.100.1\n");
	snprintf(config, sizeof(config),
		 "[[blacklist.feed]]\nname = 'drop'\nfile = '%s'\n"
		 "[[blacklist.feed]]\nname = 'given'\n",
		 file_path("feed"));
	return config;
}

static char *whole_config(const char *text)
{
	char *whole;

	cr_assert_gt(asprintf(&whole, "daemon.pin_dir = '%s'\ndaemon.state_dir = '%s'\n%s", PIN_DIR,
			      temporary, text),
		     0);
	return whole;
}

void start(const char *text)
{
	_cleanup_free_ char *whole = whole_config(text);
	struct config_errors errors = {0};
	struct config *config = NULL;
	struct error err;

	cr_assert_eq(config_parse(whole, strlen(whole), &config, &errors), 0, "%s",
		     errors.n ? errors.items[0].message : "");
	cr_assert_eq(store_open(temporary, &store, &err), 0, "%s", err.text);
	cr_assert_eq(interfaces_open(links, tc, &ifs, &err), 0, "%s", err.text);
	cr_assert_eq(worker_open(event, &worker, &err), 0, "%s", err.text);
	cr_assert_eq(rules_open(config, store, ifs, worker, &locals, &rules, &err), 0, "%s",
		     err.text);
}

void restart(const char *text)
{
	stop();
	start(text);
}

/* ---- changes ---- */

static void on_done(void *data, const struct rules_end *end)
{
	struct ending *ending = data;

	ending->n_done++;
	ending->r = end->r;
	ending->count = end->count;
	ending->err = end->err;
	ending->n_errors = end->errors ? end->errors->n : 0;
}

int submit_later(struct rules_request request, struct ending *ret)
{
	const struct rules_later later = {on_done, ret};

	*ret = (struct ending){0};
	return rules_submit(rules, &request, &later, &ret->count, &ret->err);
}

static void run_once(void)
{
	cr_assert_gt(sd_event_run(event, 30 * 1000 * 1000), 0, "nothing happens");
}

void await(const struct ending *ending)
{
	while (!ending->n_done)
		run_once();
	cr_expect_eq(ending->n_done, 1);
}

int submit(struct rules_request request, struct rules_count *ret, struct error *err)
{
	struct ending ending;
	int r = submit_later(request, &ending);

	if (r == -EINPROGRESS) {
		await(&ending);
		r = ending.r;
	}
	while (worker_busy(worker))
		run_once();
	if (r < 0)
		*err = ending.err;
	else
		*ret = ending.count;
	return r;
}

struct rules_count submit_ok(struct rules_request request)
{
	struct rules_count count;
	struct error err;

	cr_assert_eq(submit(request, &count, &err), 0, "%s", err.text);
	return count;
}

void submit_at_once(struct rules_request request)
{
	struct ending ending;

	cr_assert_eq(submit_later(request, &ending), 0, "%s", ending.err.text);
}

static void wait_to_go(void *data)
{
	sem_wait(&go);
}

static void ignore(void *data)
{
}

void hold_worker(void)
{
	cr_assert_eq(worker_run(worker, wait_to_go, ignore, NULL), 0);
}

void release_worker(void)
{
	sem_post(&go);
}

struct prefix *copy_prefixes(const struct prefix *prefixes, size_t n)
{
	struct prefix *copy = calloc(n + 1, sizeof(*copy));

	cr_assert(copy);
	if (prefixes)
		memcpy(copy, prefixes, n * sizeof(*copy));
	return copy;
}

struct prefix numbered(u32 number)
{
	return (struct prefix){
		.family = number % 2 ? FAMILY_IPV4 : FAMILY_IPV6,
		.len = 32,
		.addr = {20, (u8)(number >> 16), (u8)(number >> 8), (u8)number},
	};
}

struct rules_request many(enum rules_kind kind, u32 first, u32 n)
{
	struct prefix *prefixes = copy_prefixes(NULL, n);

	for (u32 i = 0; i < n; i++)
		prefixes[i] = numbered(first + i);
	return (struct rules_request){.kind = kind, .prefixes = prefixes, .n = n, .list_fd = -1};
}

struct rules_request reload_request(const char *text)
{
	_cleanup_free_ char *whole = whole_config(text);
	static char path[PATH_MAX];

	temporary_write("fwd.toml", whole, strlen(whole));
	snprintf(path, sizeof(path), "%s", temporary_path("fwd.toml"));
	return (struct rules_request){.kind = RULES_RELOAD, .list_fd = -1, .config_file = path};
}

int reload(const char *text, struct error *err)
{
	struct rules_count count;

	return submit(reload_request(text), &count, err);
}

#define PREFIXES_AT_ONCE 8

static struct rules_request read_request(enum rules_kind kind, enum prefix_table table,
					 va_list texts)
{
	struct rules_request request = {.kind = kind, .table = table, .list_fd = -1};
	const char *text;

	request.prefixes = copy_prefixes(NULL, PREFIXES_AT_ONCE);
	while ((text = va_arg(texts, const char *))) {
		cr_assert_lt(request.n, PREFIXES_AT_ONCE);
		request.prefixes[request.n++] = prefix_of(text);
	}
	return request;
}

/* Small ones end at once, whatever is under way. */
static int submit_small(struct rules_request request, struct rules_count *ret, struct error *err)
{
	struct ending ending;
	int r = submit_later(request, &ending);

	cr_assert_neq(r, -EINPROGRESS);
	if (r < 0)
		*err = ending.err;
	else
		*ret = ending.count;
	return r;
}

int add_with(s64 ttl_s, const char *comment, struct rules_count *ret, struct error *err, ...)
{
	struct rules_request request;
	va_list texts;

	va_start(texts, err);
	request = read_request(RULES_ADD, TABLE_BLOCK, texts);
	va_end(texts);
	request.ttl_s = ttl_s;
	request.comment = comment ? comment_new(comment) : NULL;
	return submit_small(request, ret, err);
}

int del(enum prefix_table table, struct error *err, ...)
{
	struct rules_request request;
	struct rules_count count;
	va_list texts;

	va_start(texts, err);
	request = read_request(RULES_REMOVE, table, texts);
	va_end(texts);
	return submit_small(request, &count, err);
}

void add(const char *text)
{
	struct rules_count count;
	struct error err;

	cr_assert_eq(add_with(0, NULL, &count, &err, text, NULL), 0, "%s", err.text);
}

int allow(const char *text)
{
	const struct prefix prefix = prefix_of(text);
	struct rules_count count;
	struct error err;

	return submit_small((struct rules_request){.kind = RULES_ADD,
						   .table = TABLE_ALLOW,
						   .prefixes = copy_prefixes(&prefix, 1),
						   .n = 1,
						   .list_fd = -1},
			    &count, &err);
}

/* ---- facts ---- */

struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	cr_assert_eq(prefix_parse(text, strlen(text), &prefix, NULL), 0, "%s", text);
	return prefix;
}

bool find_entry(const char *text, struct prefix_state *ret)
{
	const struct prefix prefix = prefix_of(text);

	return prefix_map_read(rules_map(rules), TABLE_BLOCK, &prefix, ret);
}

struct prefix_state entry_of(const char *text)
{
	struct prefix_state state;

	cr_assert(find_entry(text, &state), "packets see no %s", text);
	return state;
}

void set_hits(const char *text, u64 packets, u32 last_hit)
{
	const struct prefix prefix = prefix_of(text);
	struct kernel_entries entries;
	struct fwd_entry *entry;

	kernel_entries_open(rules_map(rules), (enum family)prefix.family, &entries);
	entry = kernel_entries_find(&entries, TABLE_BLOCK, &prefix);
	cr_assert(entry);
	entry->hits = packets * FWD_HIT(100);
	entry->last_hit = last_hit;
	kernel_entries_close(&entries);
}

const struct rule *find_rule(size_t origin, const char *text)
{
	const struct prefix prefix = prefix_of(text);

	return ruleset_find(rules_policy(rules)->origins[origin].rules, &prefix);
}

unsigned bank(void)
{
	return !datapath_offered_bank(rules_datapath(rules));
}

static void expect_maps(const struct policy *policy)
{
	const struct datapath *dp = rules_datapath(rules);
	_cleanup_free_ struct prefix_item *items = NULL;
	struct prefix_change_list list = {0};
	size_t n, n_block;

	cr_assert_eq(policy_items(policy, &items, &n, &n_block, NULL), 0);
	cr_assert_eq(prefix_map_diff(rules_map(rules), items, n, &list), 0);
	cr_expect_eq(list.n, 0, "the maps are %zu changes away from the policy", list.n);
	free(list.items);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_BLOCK), n_block);
	cr_expect_eq(prefix_map_size(rules_map(rules), TABLE_ALLOW), n - n_block);
	cr_expect_eq(datapath_flags(dp), policy->flags);
	cr_expect(datapath_is_whole(dp));
}

/* What a daemon would find that takes over now. */
static void expect_pins(void)
{
	struct fwd_control control;
	u32 zero = 0;
	int fd = bpf_obj_get(PIN_DIR "/current/" FWD_MAP_CONTROL);

	cr_assert_geq(fd, 0);
	cr_assert_eq(bpf_map_lookup_elem(fd, &zero, &control), 0);
	close(fd);
	cr_expect_eq(control.complete, 1);
	cr_expect_eq(control.changing, 0);
	cr_expect_eq(control.views[control.view].bank, bank());
}

static bool same_rule(const struct rule *a, const struct rule *b)
{
	u64 apart_ns = a->expires_ns > b->expires_ns ? a->expires_ns - b->expires_ns
						     : b->expires_ns - a->expires_ns;
	const char *text_a = comment_text(a->comment), *text_b = comment_text(b->comment);

	return prefix_equal(&a->prefix, &b->prefix) && a->created_s == b->created_s &&
	       !a->expires_ns == !b->expires_ns && apart_ns < 1000000 &&
	       !strcmp(text_a ? text_a : "", text_b ? text_b : "");
}

static void expect_stored(enum store_table table, const struct ruleset *runtime)
{
	_cleanup_(ruleset_freep) struct ruleset *stored = NULL;
	struct ruleset_cursor a, b;
	const struct rule *rule;
	char text[PREFIX_TEXT_MAX];

	cr_assert_eq(store_load(store, table, &stored, NULL), 0);
	cr_assert_eq(ruleset_size(stored), ruleset_size(runtime), "%zu are stored, not %zu",
		     ruleset_size(stored), ruleset_size(runtime));
	a = ruleset_seek(stored, NULL);
	b = ruleset_seek(runtime, NULL);
	for (; (rule = ruleset_at(&a)); ruleset_next(&a), ruleset_next(&b)) {
		prefix_format(&rule->prefix, text);
		cr_assert(same_rule(rule, ruleset_at(&b)), "%s is stored differently", text);
	}
}

static void expect_forced(const struct ruleset *forced)
{
	_cleanup_(ruleset_freep) struct ruleset *stored = NULL;
	struct ruleset_cursor cursor = ruleset_seek(forced, NULL);
	const struct rule *rule;

	cr_assert_eq(store_load_forced(store, &stored, NULL), 0);
	cr_expect_eq(ruleset_size(stored), ruleset_size(forced));
	for (; (rule = ruleset_at(&cursor)); ruleset_next(&cursor))
		cr_expect(ruleset_find(stored, &rule->prefix));
}

static void expect_feeds(const struct policy *policy)
{
	for (size_t i = ORIGIN_FEEDS; i < policy->n_origins; i++) {
		const struct origin *origin = &policy->origins[i];
		struct address_list list = {0};
		struct error err;
		s64 when;
		int r = store_feed_load(temporary, origin->name, &list, &when, &err);

		cr_expect_eq(r, origin->replaced ? 0 : -ENOENT, "%s: %d", origin->name, r);
		cr_expect(!origin->replaced || list.n == ruleset_size(origin->rules));
		for (size_t j = 0; j < list.n; j++)
			cr_expect(ruleset_find(origin->rules, &list.prefixes[j]));
		free(list.prefixes);
	}
}

void expect_agreement(void)
{
	const struct policy *policy = rules_policy(rules);

	expect_maps(policy);
	expect_pins();
	expect_stored(STORE_BLOCK, policy->origins[ORIGIN_RUNTIME].rules);
	expect_stored(STORE_ALLOW, policy->allow[ORIGIN_RUNTIME]);
	expect_forced(policy->forced);
	expect_feeds(policy);
}

void expect_blocked(const char *text, bool blocked)
{
	struct policy_sets sets = rules_sets(rules, TABLE_BLOCK);
	const struct prefix prefix = prefix_of(text);
	struct effective effective;
	struct prefix_state state;

	cr_expect_eq(policy_effective(&sets, &prefix, &effective), blocked, "%s: the policy", text);
	cr_expect_eq(find_entry(text, &state), blocked, "%s: the maps", text);
	expect_agreement();
}

void expect_text(const struct error *err, const char *text)
{
	cr_expect_str_eq(err->text, text);
}
