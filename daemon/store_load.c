// SPDX-License-Identifier: GPL-2.0-or-later
#include "clock.h"
#include "store_internal.h"

#include <errno.h>
#include <string.h>

/* The columns of `block` and `allow` that merge_row() reads. */
#define ROWS_OF(table)                                                                   \
	"SELECT prefix, created_s, expires_boot_ns, expires_s, comment, seq FROM " table \
	" ORDER BY prefix"

/* All that says something about a table, each in order of the prefixes. */
struct merge {
	struct store *store;
	struct ruleset *set;
	sqlite3_stmt *rows;
	const u8 *row_key; /* of the row at hand; NULL: none is left */
	u8 last[KEY_SIZE]; /* the key of the row before */
	bool has_last;
	s64 cleared_seq; /* older rows are void */
	struct bulk_reader *sources;
	const u8 **at; /* the record at hand of each; NULL: none is left */
	size_t n_sources;
	u64 now_ns;
	struct comment *comment; /* of the rule before */
};

/* What is known of one prefix. */
struct outcome {
	bool is_there;
	s64 created_s, expires_s;
	u64 expires_ns;
	const char *comment;
};

static int step_row(struct merge *merge, struct error *err)
{
	int step = sqlite3_step(merge->rows);

	merge->row_key = NULL;
	if (step == SQLITE_DONE)
		return 0;
	if (step != SQLITE_ROW)
		return store_db_error(merge->store, "read", err);
	if (sqlite3_column_type(merge->rows, 0) != SQLITE_BLOB ||
	    sqlite3_column_bytes(merge->rows, 0) != KEY_SIZE)
		return store_damaged(merge->store, "a row that is no prefix", err);
	merge->row_key = sqlite3_column_blob(merge->rows, 0);
	if (merge->has_last && memcmp(merge->row_key, merge->last, KEY_SIZE) <= 0)
		return store_damaged(merge->store, "rows out of order", err);
	memcpy(merge->last, merge->row_key, KEY_SIZE);
	merge->has_last = true;
	return 0;
}

static const u8 *lower(const u8 *a, const u8 *b)
{
	return !a || (b && memcmp(b, a, KEY_SIZE) < 0) ? b : a;
}

static bool is_at(const u8 *key, const u8 at[static KEY_SIZE])
{
	return key && !memcmp(key, at, KEY_SIZE);
}

static struct outcome row_outcome(sqlite3_stmt *row)
{
	return (struct outcome){
		.is_there = true,
		.created_s = sqlite3_column_int64(row, 1),
		.expires_ns = (u64)sqlite3_column_int64(row, 2),
		.expires_s = sqlite3_column_int64(row, 3),
		.comment = (const char *)sqlite3_column_text(row, 4),
	};
}

/* As folding does it. */
static int apply_record(struct outcome *outcome, const struct bulk_reader *source, const u8 *record,
			struct error *err)
{
	const struct pending_bulk *bulk = source->bulk;
	struct bulk_rule rule;
	bool keeps_age = bulk->kind != BULK_SNAPSHOT && outcome->is_there &&
			 (!outcome->expires_ns || outcome->expires_s > bulk->created_s);
	int r = bulk_reader_rule(source, record, &rule, err);

	if (r < 0)
		return r;
	*outcome = (struct outcome){
		.is_there = bulk->kind != BULK_REMOVE,
		.created_s = keeps_age ? outcome->created_s : rule.created_s,
		.expires_ns = rule.expires_ns,
		.expires_s = rule.expires_s,
		.comment = rule.comment,
	};
	return 0;
}

/* Many rules in a row have the same. */
static struct comment *shared_comment(struct merge *merge, const char *text)
{
	if (!merge->comment || strcmp(merge->comment->text, text) != 0) {
		comment_unref(merge->comment);
		merge->comment = comment_new(text);
	}
	return merge->comment;
}

static int put_outcome(struct merge *merge, const u8 key[static KEY_SIZE],
		       const struct outcome *outcome, struct error *err)
{
	struct rule rule = {.created_s = outcome->created_s, .expires_ns = outcome->expires_ns};

	if (!key_unpack(key, KEY_SIZE, &rule.prefix))
		return store_damaged(merge->store, "a row that is no prefix", err);
	if (!outcome->is_there || (rule.expires_ns && rule.expires_ns <= merge->now_ns))
		return 0;
	if (outcome->comment) {
		rule.comment = shared_comment(merge, outcome->comment);
		if (!rule.comment)
			return error_no_memory(err);
	}
	return ruleset_put(merge->set, &rule) < 0 ? error_no_memory(err) : 0;
}

/* The lowest prefix that is left: the row, and in order the bulk changes that are newer (S1, S2).
 */
static int merge_next(struct merge *merge, const u8 key[static KEY_SIZE], struct error *err)
{
	struct outcome outcome = {0};
	bool has_row = is_at(merge->row_key, key);
	s64 row_seq = 0;
	int r = 0;

	if (has_row) {
		row_seq = sqlite3_column_int64(merge->rows, 5);
		if (row_seq >= merge->cleared_seq)
			outcome = row_outcome(merge->rows);
	}
	for (size_t i = 0; !r && i < merge->n_sources; i++) {
		struct bulk_reader *source = &merge->sources[i];
		const u8 *record = merge->at[i];

		if (!is_at(record, key))
			continue;
		if (!has_row || row_seq < source->bulk->seq)
			r = apply_record(&outcome, source, record, err);
		source->at++;
	}
	if (!r)
		r = put_outcome(merge, key, &outcome, err);
	return !r && has_row ? step_row(merge, err) : r;
}

static int merge_all(struct merge *merge, struct error *err)
{
	u8 key[KEY_SIZE];
	int r = step_row(merge, err);

	while (!r) {
		const u8 *lowest = merge->row_key;

		for (size_t i = 0; !r && i < merge->n_sources; i++) {
			r = bulk_reader_at(&merge->sources[i], &merge->at[i], err);
			if (!r)
				lowest = lower(lowest, merge->at[i]);
		}
		if (r < 0 || !lowest)
			break;
		memcpy(key, lowest, KEY_SIZE);
		r = merge_next(merge, key, err);
	}
	return r;
}

static int open_sources(struct merge *merge, enum store_table table,
			const struct pending_bulk *bulks, size_t n, struct error *err)
{
	merge->sources = calloc(n + 1, sizeof(*merge->sources));
	merge->at = calloc(n + 1, sizeof(*merge->at));
	if (!merge->sources || !merge->at)
		return error_no_memory(err);
	for (size_t i = 0; i < n; i++) {
		int r;

		if (bulks[i].table != table)
			continue;
		if (bulks[i].kind == BULK_CLEAR || bulks[i].kind == BULK_SNAPSHOT)
			merge->cleared_seq = bulks[i].seq;
		r = bulk_reader_open(merge->store, &bulks[i], &merge->sources[merge->n_sources++],
				     err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void close_sources(struct merge *merge)
{
	for (size_t i = 0; i < merge->n_sources; i++)
		bulk_reader_close(&merge->sources[i]);
	free(merge->sources);
	free(merge->at);
}

int store_load(struct store *store, enum store_table table, struct ruleset **ret, struct error *err)
{
	static const char *const sql[] = {
		[STORE_BLOCK] = ROWS_OF("block"),
		[STORE_ALLOW] = ROWS_OF("allow"),
	};
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	struct merge merge = {.store = store, .set = set, .now_ns = boot_ns()};
	struct pending_bulk *bulks = NULL;
	size_t n = 0;
	int r;

	if (!set)
		return error_no_memory(err);
	r = pending_bulks_load(store, SIZE_MAX, &bulks, &n, err);
	if (!r)
		r = open_sources(&merge, table, bulks, n, err);
	if (!r && sqlite3_prepare_v2(store->db, sql[table], -1, &merge.rows, NULL) != SQLITE_OK)
		r = store_db_error(store, "read", err);
	if (!r)
		r = merge_all(&merge, err);
	sqlite3_finalize(merge.rows);
	close_sources(&merge);
	comment_unref(merge.comment);
	pending_bulks_free(bulks, n);
	if (!r)
		*ret = take_pointer(&set);
	return r;
}

static bool fits(int value, int most)
{
	return value >= 0 && value <= most;
}

bool redirect_unpack(sqlite3_stmt *row, struct redirect *ret)
{
	const char *interface = (const char *)sqlite3_column_text(row, 0);
	const char *target = (const char *)sqlite3_column_text(row, 5);
	int direction = sqlite3_column_int(row, 1), protocol = sqlite3_column_int(row, 2);
	int first = sqlite3_column_int(row, 3), last = sqlite3_column_int(row, 4);
	int mode = sqlite3_column_int(row, 6);
	struct redirect redirect = {
		.direction = (u8)direction,
		.protocol = (u8)protocol,
		.port_first = (u16)first,
		.port_last = (u16)last,
		.mode = (u8)mode,
	};

	if (!interface || !target || strlen(interface) >= sizeof(redirect.interface) ||
	    strlen(target) >= sizeof(redirect.target) || !fits(direction, UINT8_MAX) ||
	    !fits(protocol, UINT8_MAX) || !fits(first, UINT16_MAX) || !fits(last, UINT16_MAX) ||
	    !fits(mode, UINT8_MAX))
		return false;
	snprintf(redirect.interface, sizeof(redirect.interface), "%s", interface);
	snprintf(redirect.target, sizeof(redirect.target), "%s", target);
	*ret = redirect;
	return redirect_is_valid(&redirect);
}

int store_load_redirects(struct store *store, struct redirect **ret, size_t *ret_n,
			 struct error *err)
{
	_cleanup_free_ struct redirect *redirects = NULL;
	sqlite3_stmt *rows = NULL;
	s64 count = 0;
	int step, r;
	size_t n = 0;

	r = store_query(store, "SELECT count(*) FROM redirect", &count, err);
	if (r < 0)
		return r;
	redirects = calloc((size_t)count + 1, sizeof(*redirects));
	if (!redirects)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db, REDIRECT_ROWS, -1, &rows, NULL) != SQLITE_OK)
		return store_db_error(store, "read", err);
	while ((step = sqlite3_step(rows)) == SQLITE_ROW && n < (size_t)count && !r)
		r = redirect_unpack(rows, &redirects[n++])
			    ? 0
			    : store_damaged(store, "a row that is no redirect", err);
	if (!r && step != SQLITE_DONE)
		r = store_db_error(store, "read", err);
	sqlite3_finalize(rows);
	if (r < 0)
		return r;
	*ret = take_pointer(&redirects);
	*ret_n = n;
	return 0;
}

int store_load_forced(struct store *store, struct ruleset **ret, struct error *err)
{
	_cleanup_(ruleset_freep) struct ruleset *set = ruleset_new();
	sqlite3_stmt *rows = NULL;
	int step, r = 0;

	if (!set)
		return error_no_memory(err);
	if (sqlite3_prepare_v2(store->db, "SELECT prefix FROM forced", -1, &rows, NULL) !=
	    SQLITE_OK)
		return store_db_error(store, "read", err);
	while (!r && (step = sqlite3_step(rows)) == SQLITE_ROW) {
		const u8 *key = sqlite3_column_blob(rows, 0);
		struct rule rule = {0};

		if (!key || !key_unpack(key, sqlite3_column_bytes(rows, 0), &rule.prefix))
			r = store_damaged(store, "a row that is no prefix", err);
		else if (ruleset_put(set, &rule) < 0)
			r = error_no_memory(err);
	}
	if (!r && step != SQLITE_DONE)
		r = store_db_error(store, "read", err);
	sqlite3_finalize(rows);
	if (!r)
		*ret = take_pointer(&set);
	return r;
}
