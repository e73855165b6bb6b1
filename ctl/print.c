// SPDX-License-Identifier: GPL-2.0-or-later
#include "print.h"

#include "cleanup.h"
#include "duration.h"
#include "number.h"
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Numbers and texts that an answer lacks print as this. */
#define NOTHING "-"

struct printer {
	/* Of the answer, or of each piece of it. NULL: success needs no words. */
	int (*print)(struct output *output, const json_t *answer, struct error *err);
	/* The array that may come in pieces, and is all there is; NULL: one answer, whole. */
	const char *array;
	const struct column *columns;
};

/* ---- fields ---- */

static const char *text_of(const json_t *object, const char *field)
{
	const char *text = json_string_value(json_object_get(object, field));

	return text ? text : NOTHING;
}

static s64 number_of(const json_t *object, const char *field)
{
	return json_integer_value(json_object_get(object, field));
}

static bool is_number(const json_t *object, const char *field)
{
	return json_is_integer(json_object_get(object, field));
}

static bool is_true(const json_t *object, const char *field)
{
	return json_is_true(json_object_get(object, field));
}

static void text_cell(struct table *table, const json_t *object, const char *field)
{
	table_cell(table, "%s", text_of(object, field));
}

static void number_cell(struct table *table, const json_t *object, const char *field)
{
	if (is_number(object, field))
		table_cell(table, "%lld", (long long)number_of(object, field));
	else
		table_cell(table, NOTHING);
}

static void duration_cell(struct table *table, const json_t *object, const char *field)
{
	char text[DURATION_TEXT_MAX];

	duration_format(number_of(object, field), text);
	table_cell(table, "%s", is_number(object, field) ? text : NOTHING);
}

/* A line of text, printable whatever it quotes. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list args;
	int size;

	va_start(args, format);
	size = vasprintf(&text, format, args);
	va_end(args);
	if (size < 0) {
		text = NULL; /* out of memory; say nothing */
		return;
	}
	text_make_printable(text);
	puts(text);
}

/* The texts of an array, with ", " between them, in allocated memory; NULL: none. */
static char *join(const json_t *array)
{
	char *text = NULL;
	size_t size = 0;
	const json_t *item;
	FILE *out;
	size_t i;

	if (!json_array_size(array))
		return NULL;
	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	json_array_foreach (array, i, item)
		fprintf(out, "%s%s", i ? ", " : "",
			json_is_string(item) ? json_string_value(item) : NOTHING);
	fclose(out);
	return text;
}

/* ---- list, allow list ---- */

static const struct column list_columns[] = {
	{.title = "PREFIX", .width = sizeof("255.255.255.255/32") - 1},
	{.title = "PACKETS", .right = true},
	{.title = "BYTES", .right = true},
	{.title = "LAST-HIT", .right = true},
	{.title = "AGE", .right = true},
	{.title = "LEFT", .right = true},
	{.title = "ORIGIN"},
	{.title = "COMMENT"},
	{0},
};

/* Seconds since the last hit. The clock is the daemon's, so that it fits the entry's age. */
static s64 since_last_hit(const json_t *entry)
{
	s64 now, ago;

	if (__builtin_add_overflow(number_of(entry, "created_s"), number_of(entry, "age_s"),
				   &now) ||
	    __builtin_sub_overflow(now, number_of(entry, "last_hit_s"), &ago))
		return 0;
	return ago;
}

/* PREFIX to AGE. */
static void entry_cells(struct table *table, const json_t *entry)
{
	char ago[DURATION_TEXT_MAX];

	text_cell(table, entry, "prefix");
	number_cell(table, entry, "packets");
	number_cell(table, entry, "bytes");
	duration_format(since_last_hit(entry), ago);
	if (is_number(entry, "last_hit_s"))
		table_cell(table, "%s ago", ago);
	else
		table_cell(table, NOTHING);
	duration_cell(table, entry, "age_s");
}

static int print_list(struct output *output, const json_t *answer, struct error *err)
{
	const json_t *entry;
	size_t i;

	json_array_foreach (json_object_get(answer, "entries"), i, entry) {
		entry_cells(&output->table, entry);
		duration_cell(&output->table, entry, "left_s");
		text_cell(&output->table, entry, "origin");
		text_cell(&output->table, entry, "comment");
	}
	return 0;
}

/* Those of the allowlist have no time to live; what the daemon puts there tells why. */
static const struct column allow_columns[] = {
	{.title = "PREFIX", .width = sizeof("255.255.255.255/32") - 1},
	{.title = "PACKETS", .right = true},
	{.title = "BYTES", .right = true},
	{.title = "LAST-HIT", .right = true},
	{.title = "AGE", .right = true},
	{.title = "ORIGIN"},
	{.title = "COMMENT"},
	{0},
};

static int print_allow_list(struct output *output, const json_t *answer, struct error *err)
{
	const json_t *entry;
	size_t i;

	json_array_foreach (json_object_get(answer, "entries"), i, entry) {
		entry_cells(&output->table, entry);
		text_cell(&output->table, entry, "origin");
		text_cell(&output->table, entry, "comment");
	}
	return 0;
}

/* ---- test ---- */

static bool answer_is_drop(const json_t *answer)
{
	return !strcmp(text_of(answer, "verdict"), "drop");
}

static int print_test(struct output *output, const json_t *answer, struct error *err)
{
	const char *address = request_text(output->request, "address");
	const json_t *entry = json_object_get(answer, "entry");
	const char *comment = json_string_value(json_object_get(entry, "comment"));
	const char *allowed_by = json_string_value(json_object_get(answer, "allowed_by"));
	const char *quote = comment ? "\"" : "";
	_cleanup_free_ char *blocked = NULL;

	if (asprintf(&blocked, "%s (%s%s%s%s%s)", text_of(entry, "prefix"),
		     text_of(entry, "origin"), comment ? ", " : "", quote, comment ? comment : "",
		     quote) < 0) {
		blocked = NULL;
		return error_no_memory(err);
	}
	if (answer_is_drop(answer))
		say("%s is dropped: %s", address, blocked);
	else if (allowed_by)
		say("%s passes: allowed by %s, though blocked by %s", address, allowed_by, blocked);
	else
		say("%s passes: no entry matches", address);
	return 0;
}

/* ---- feed list ---- */

static const struct column feed_columns[] = {
	{.title = "NAME"},
	{.title = "ENTRIES", .right = true},
	{.title = "PACKETS", .right = true},
	{.title = "BYTES", .right = true},
	{.title = "LAST-HIT", .right = true},
	{.title = "LOADED", .right = true},
	{.title = "FROM"},
	{0},
};

/* "5m ago". The daemon's clock is this host's, too. */
static void ago_cell(struct table *table, const json_t *object, const char *field)
{
	char text[DURATION_TEXT_MAX];
	s64 ago;

	if (__builtin_sub_overflow((s64)time(NULL), number_of(object, field), &ago))
		ago = 0;
	duration_format(ago, text);
	if (is_number(object, field))
		table_cell(table, "%s ago", text);
	else
		table_cell(table, NOTHING);
}

static int print_feeds(struct output *output, const json_t *answer, struct error *err)
{
	struct table *table = &output->table;
	const json_t *feed;
	size_t i;

	json_array_foreach (json_object_get(answer, "feeds"), i, feed) {
		text_cell(table, feed, "name");
		number_cell(table, feed, "entries");
		number_cell(table, feed, "packets");
		number_cell(table, feed, "bytes");
		ago_cell(table, feed, "last_hit_s");
		ago_cell(table, feed, "loaded_s");
		table_cell(table, "%s",
			   is_true(feed, "replaced") ? "feed replace" : text_of(feed, "file"));
	}
	return 0;
}

/* ---- redirect list ---- */

static const struct column redirect_columns[] = {
	{.title = "PORTS"},
	{.title = "INTERFACE"},
	{.title = "DIRECTION"},
	{.title = "TARGET"},
	{.title = "MODE"},
	{.title = "PACKETS", .right = true},
	{.title = "BYTES", .right = true},
	{.title = "ORIGIN"},
	{0},
};

/* "l2", "auto (l2)", "auto (no target)". */
static void mode_cell(struct table *table, const json_t *redirect)
{
	const char *effective = json_string_value(json_object_get(redirect, "effective_mode"));
	const char *mode = text_of(redirect, "mode");

	if (!effective)
		table_cell(table, "%s (no target)", mode);
	else if (strcmp(mode, effective) != 0)
		table_cell(table, "%s (%s)", mode, effective);
	else
		table_cell(table, "%s", mode);
}

static int print_redirects(struct output *output, const json_t *answer, struct error *err)
{
	struct table *table = &output->table;
	const json_t *redirect;
	size_t i;

	json_array_foreach (json_object_get(answer, "redirects"), i, redirect) {
		const char *interface = json_string_value(json_object_get(redirect, "interface"));

		text_cell(table, redirect, "ports");
		table_cell(table, "%s", interface ? interface : "*");
		text_cell(table, redirect, "direction");
		text_cell(table, redirect, "target");
		mode_cell(table, redirect);
		number_cell(table, redirect, "packets");
		number_cell(table, redirect, "bytes");
		text_cell(table, redirect, "origin");
	}
	return 0;
}

/* ---- add, reload, confirm ---- */

static void say_confirm(const json_t *answer, const char *done)
{
	if (is_number(answer, "confirm_s"))
		say("%s; confirm within %lld s with: fwctl confirm", done,
		    (long long)number_of(answer, "confirm_s"));
}

static int print_add(struct output *output, const json_t *answer, struct error *err)
{
	say_confirm(answer, "added");
	return 0;
}

static int print_reload(struct output *output, const json_t *answer, struct error *err)
{
	say_confirm(answer, "reloaded");
	return 0;
}

static int print_confirm(struct output *output, const json_t *answer, struct error *err)
{
	say("confirmed: %s", text_of(answer, "confirmed"));
	return 0;
}

/* ---- status ---- */

static const struct column status_columns[] = {
	{.title = "INTERFACE"},
	{.title = "INDEX", .right = true},
	{.title = "XDP"},
	{.title = "TC-IN"},
	{.title = "TC-OUT"},
	{.title = "ERROR"},
	{0},
};

/* "2025-11-24 16:00:00 UTC", in local time. */
static const char *time_of(const json_t *object, const char *field, char *text, size_t size)
{
	time_t at = (time_t)number_of(object, field);
	struct tm tm;

	if (!is_number(object, field) || !localtime_r(&at, &tm) ||
	    !strftime(text, size, "%Y-%m-%d %H:%M:%S %Z", &tm))
		return NOTHING;
	return text;
}

/* "3 of 1,000,000 entries". */
static const char *filling_of(const json_t *table, char *text, size_t size)
{
	char entries[NUMBER_TEXT_MAX], most[NUMBER_TEXT_MAX];

	snprintf(text, size, "%s of %s entries",
		 number_format(number_of(table, "entries"), entries),
		 number_format(number_of(table, "max_entries"), most));
	return text;
}

/* "43.1 MiB, room for 1,024 entries". */
static void say_maps(const json_t *maps)
{
	char bytes[NUMBER_TEXT_MAX], room[NUMBER_TEXT_MAX];
	bool has_room = is_number(maps, "capacity");

	if (!is_number(maps, "bytes"))
		return;
	say("maps:           %s%s%s%s", size_format(number_of(maps, "bytes"), bytes),
	    has_room ? ", room for " : "",
	    has_room ? number_format(number_of(maps, "capacity"), room) : "",
	    has_room ? " entries" : "");
}

static void say_sizes(const json_t *answer)
{
	const json_t *black = json_object_get(answer, "blacklist");
	const json_t *allow = json_object_get(answer, "allowlist");
	_cleanup_free_ char *directions = join(json_object_get(black, "directions"));
	char filling[128], number[NUMBER_TEXT_MAX];

	say("blacklist:      %s; %s of them runtime; direction %s",
	    filling_of(black, filling, sizeof(filling)),
	    number_format(number_of(black, "runtime"), number), directions ? directions : NOTHING);
	say("allowlist:      %s%s%s%s", filling_of(allow, filling, sizeof(filling)),
	    number_of(allow, "spared") ? "; " : "",
	    number_of(allow, "spared") ? number_format(number_of(allow, "spared"), number) : "",
	    number_of(allow, "spared") ? " more by fwd itself" : "");
	say("redirects:      %s",
	    filling_of(json_object_get(answer, "redirects"), filling, sizeof(filling)));
	say_maps(json_object_get(answer, "maps"));
	say("clients:        %lld", (long long)number_of(answer, "clients"));
}

/* What waits for confirmation, or was not confirmed. */
static void say_confirmation(const json_t *answer)
{
	const json_t *confirm = json_object_get(answer, "confirm");

	if (is_true(answer, "config_unconfirmed"))
		say("not confirmed:  what that file says; in force is the configuration before it");
	if (json_is_object(confirm))
		say("to confirm:     %s, which goes back in %lld s", text_of(confirm, "command"),
		    (long long)number_of(confirm, "left_s"));
}

static void say_daemon(const json_t *answer)
{
	char since[64], loaded[64], uptime[DURATION_TEXT_MAX];

	duration_format(number_of(answer, "uptime_s"), uptime);
	say("version:        %s", text_of(answer, "version"));
	say("process:        %lld", (long long)number_of(answer, "pid"));
	say("running for:    %s, since %s", uptime,
	    time_of(answer, "started_s", since, sizeof(since)));
	say("configuration:  %s, read %s", text_of(answer, "config"),
	    time_of(answer, "config_loaded_s", loaded, sizeof(loaded)));
	say_confirmation(answer);
	say("pinned under:   %s, %s", text_of(answer, "pin_dir"),
	    is_true(answer, "adopted") ? "adopted at the start" : "new at the start");
	say("on stop:        %s", text_of(answer, "on_stop"));
	if (json_string_value(json_object_get(answer, "damage")))
		say("damage:         %s", text_of(answer, "damage"));
	if (json_string_value(json_object_get(answer, "refuses_changes")))
		say("no changes:     %s", text_of(answer, "refuses_changes"));
}

static void interface_cells(struct table *table, const json_t *interface)
{
	const char *xdp = json_string_value(json_object_get(interface, "xdp"));

	text_cell(table, interface, "name");
	number_cell(table, interface, "ifindex");
	if (xdp)
		table_cell(table, "%s, %s", xdp,
			   is_true(interface, "dispatcher") ? "dispatcher" : "single program");
	else
		table_cell(table, NOTHING);
	table_cell(table, "%s", is_true(interface, "tc_in") ? "yes" : "no");
	table_cell(table, "%s", is_true(interface, "tc_out") ? "yes" : "no");
	text_cell(table, interface, "error");
}

static int print_status(struct output *output, const json_t *answer, struct error *err)
{
	const json_t *interfaces = json_object_get(answer, "interfaces");
	const json_t *waiting = json_object_get(answer, "waiting");
	_cleanup_free_ char *names = join(waiting);
	const json_t *interface;
	size_t i;

	if (!json_is_array(interfaces))
		return error_set(err, -EPROTO, "the answer has no array \"interfaces\"");
	say_daemon(answer);
	say_sizes(answer);
	if (json_array_size(waiting))
		say("not there yet:  %s", names ? names : NOTHING);
	putchar('\n');
	json_array_foreach (interfaces, i, interface)
		interface_cells(&output->table, interface);
	return 0;
}

/* ---- stats ---- */

static const struct column stats_columns[] = {
	{.title = "INTERFACE"},
	{.title = "HOOK"},
	{.title = "VERDICT"},
	{.title = "PACKETS", .right = true},
	{.title = "BYTES", .right = true},
	{0},
};

static void verdict_rows(struct table *table, const json_t *interface, const json_t *hook)
{
	const json_t *count;
	const char *verdict;

	json_object_foreach ((json_t *)json_object_get(hook, "verdicts"), verdict, count) {
		/* What passes and what is dropped is told in any case, the rest where there is any.
		 */
		if (strcmp(verdict, "pass") != 0 && strcmp(verdict, "drop") != 0 &&
		    !number_of(count, "packets"))
			continue;
		text_cell(table, interface, "name");
		text_cell(table, hook, "hook");
		table_cell(table, "%s", verdict);
		number_cell(table, count, "packets");
		number_cell(table, count, "bytes");
	}
}

static int print_stats(struct output *output, const json_t *answer, struct error *err)
{
	const json_t *interfaces = json_object_get(answer, "interfaces");
	const json_t *interface, *hook;
	size_t i, j;

	if (!json_is_array(interfaces))
		return error_set(err, -EPROTO, "the answer has no array \"interfaces\"");
	json_array_foreach (interfaces, i, interface)
		json_array_foreach (json_object_get(interface, "hooks"), j, hook)
			verdict_rows(&output->table, interface, hook);
	return 0;
}

/* ---- verify ---- */

static int print_verify(struct output *output, const json_t *answer, struct error *err)
{
	const json_t *differences = json_object_get(answer, "differences");
	const json_t *checked = json_object_get(answer, "checked"), *difference;
	s64 n = number_of(answer, "n_differences"), repaired = number_of(answer, "repaired");
	s64 entries = number_of(checked, "entries"), redirects = number_of(checked, "redirects");
	s64 interfaces = number_of(checked, "interfaces");
	s64 listed = (s64)json_array_size(differences);
	size_t i;

	json_array_foreach (differences, i, difference)
		say("%s", text_of(difference, "text"));
	if (n > listed)
		say("and %lld more", (long long)(n - listed));
	if (repaired)
		say("%lld difference%s mended", (long long)repaired, repaired == 1 ? "" : "s");
	if (n)
		say("%lld difference%s", (long long)n, n == 1 ? "" : "s");
	else
		say("all agree: %lld entr%s, %lld redirect%s, %lld interface%s", (long long)entries,
		    entries == 1 ? "y" : "ies", (long long)redirects, redirects == 1 ? "" : "s",
		    (long long)interfaces, interfaces == 1 ? "" : "s");
	return 0;
}

/* ---- doctor ---- */

static void say_finding(const json_t *finding)
{
	const char *subject = json_string_value(json_object_get(finding, "subject"));
	const char *remedy = json_string_value(json_object_get(finding, "remedy"));

	say("%-8s %s%s%s: %s", text_of(finding, "state"), subject ? subject : "",
	    subject ? " " : "", text_of(finding, "id"), text_of(finding, "text"));
	if (remedy)
		say("         -> %s", remedy);
}

static int print_findings(struct output *output, const json_t *answer, struct error *err)
{
	long long problems = number_of(answer, "problems"), notes = number_of(answer, "notes");
	const json_t *finding;
	size_t i;

	json_array_foreach (json_object_get(answer, "findings"), i, finding)
		say_finding(finding);
	putchar('\n');
	say("%lld problem%s, %lld note%s", problems, problems == 1 ? "" : "s", notes,
	    notes == 1 ? "" : "s");
	return 0;
}

/* ---- any answer ---- */

bool answer_is_negative(enum command_id command, const json_t *answer)
{
	switch (command) {
	case COMMAND_TEST:
		return answer_is_drop(answer);
	case COMMAND_VERIFY:
		return !is_true(answer, "agrees");
	case COMMAND_DOCTOR:
		return number_of(answer, "problems") > 0;
	default:
		return false;
	}
}

static const struct printer printers[] = {
	[COMMAND_ADD] = {.print = print_add},
	[COMMAND_DEL] = {0},
	[COMMAND_LIST] = {print_list, "entries", list_columns},
	[COMMAND_TEST] = {.print = print_test},
	[COMMAND_FLUSH] = {0},
	[COMMAND_ALLOW_ADD] = {0},
	[COMMAND_ALLOW_DEL] = {0},
	[COMMAND_ALLOW_LIST] = {print_allow_list, "entries", allow_columns},
	[COMMAND_FEED_LIST] = {print_feeds, "feeds", feed_columns},
	[COMMAND_FEED_REPLACE] = {0},
	[COMMAND_FEED_RELOAD] = {0},
	[COMMAND_REDIRECT_ADD] = {0},
	[COMMAND_REDIRECT_DEL] = {0},
	[COMMAND_REDIRECT_LIST] = {print_redirects, "redirects", redirect_columns},
	[COMMAND_STATUS] = {print_status, NULL, status_columns},
	[COMMAND_STATS] = {print_stats, NULL, stats_columns},
	[COMMAND_VERIFY] = {.print = print_verify},
	[COMMAND_RELOAD] = {.print = print_reload},
	[COMMAND_CONFIRM] = {.print = print_confirm},
	[COMMAND_DOCTOR] = {.print = print_findings},
};
_Static_assert(ARRAY_SIZE(printers) == COMMAND_COUNT, "a printer for each command");

/* jansson escapes all control characters of ASCII but one. */
static int write_json(const char *text, size_t size, void *unused)
{
	for (const char *end = text + size; text < end; text++) {
		if (*text == 0x7f)
			fputs("\\u007F", stdout);
		else
			putchar_unlocked(*text);
	}
	return 0;
}

/* ASCII only: no control character of any encoding reaches a terminal. */
static void print_value(const json_t *value)
{
	json_dump_callback(value, write_json, NULL, JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
}

static void print_json_items(struct output *output, const char *array, const json_t *items,
			     bool last)
{
	const json_t *item;
	size_t i;

	json_array_foreach (items, i, item) {
		if (output->begun)
			fputs(",\n", stdout);
		else
			printf("{\"%s\": [\n", array);
		print_value(item);
		output->begun = true;
	}
	if (last)
		output->begun ? puts("\n]}") : printf("{\"%s\": []}\n", array);
}

static void print_json(struct output *output, const char *array, json_t *answer, bool last)
{
	if (array) {
		print_json_items(output, array, json_object_get(answer, array), last);
		return;
	}
	json_object_del(answer, "ok");
	print_value(answer);
	putchar('\n');
}

static int check(const struct output *output, const json_t *answer, bool last, struct error *err)
{
	const char *array = printers[output->command].array;

	if (!array && !last)
		return error_set(err, -EPROTO, "the answer comes in pieces, which it should not");
	if (array && !json_is_array(json_object_get(answer, array)))
		return error_set(err, -EPROTO, "the answer has no array \"%s\"", array);
	if (output->command == COMMAND_TEST && !answer_is_drop(answer) &&
	    strcmp(text_of(answer, "verdict"), "pass") != 0)
		return error_set(err, -EPROTO, "the answer has no \"verdict\", drop or pass");
	if (output->command == COMMAND_VERIFY &&
	    !json_is_boolean(json_object_get(answer, "agrees")))
		return error_set(err, -EPROTO, "the answer has no \"agrees\", true or false");
	return 0;
}

int output_answer(struct output *output, json_t *answer, bool last, struct error *err)
{
	const struct printer *printer = &printers[output->command];
	int r = check(output, answer, last, err);

	if (r < 0)
		return r;
	if (output->json) {
		print_json(output, printer->array, answer, last);
		return 0;
	}
	output->table.columns = printer->columns;
	if (printer->print)
		r = printer->print(output, answer, err);
	if (r < 0 || !printer->columns)
		return r;
	r = table_flush(&output->table);
	return r < 0 ? error_no_memory(err) : 0;
}

void output_error(struct output *output, const json_t *error)
{
	if (!output->json)
		return;
	fputs(output->begun ? "\n], \"error\": " : "{\"error\": ", stdout);
	print_value(error);
	puts("}");
}

void output_clear(struct output *output)
{
	table_clear(&output->table);
}
