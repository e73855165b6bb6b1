// SPDX-License-Identifier: GPL-2.0-or-later
#include "confirm.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define NS_PER_US 1000

/* After a failure to go back. */
#define AGAIN_NS (10 * NS_PER_S)

struct confirm {
	struct rules *rules;
	struct confirm_watcher watcher;
	sd_event_source *timer;

	const char *what;  /* "add" or "reload"; NULL: nothing waits */
	const char *doing; /* what is under way with it (W3); NULL: nothing is */
	s64 time_s;
	u64 end_ns;			/* CLOCK_BOOTTIME; 0: it has not taken effect */
	struct rules_request add;	/* as it was asked for */
	size_t n_added;			/* prefixes that end */
	struct rules_in_force replaced; /* by the reload */
	bool failed;			/* to go back: it was logged */
	struct rules_later asker;	/* of the confirmation that is under way */
};

/* ---- one that waits ---- */

static int copy_request(const struct rules_request *request, struct rules_request *ret,
			struct error *err)
{
	struct rules_request copy = *request;

	copy.prefixes = NULL;
	copy.comment = comment_ref(request->comment);
	copy.list_fd = request->list_fd < 0 ? -1 : fcntl(request->list_fd, F_DUPFD_CLOEXEC, 0);
	/* Both share the position, but the one is read only before or after the other. */
	if (request->list_fd >= 0 && (copy.list_fd < 0 || lseek(copy.list_fd, 0, SEEK_SET) < 0)) {
		int r = error_set(err, -errno, "cannot keep the list: %s", error_name(errno));

		rules_request_clear(&copy);
		return r;
	}
	if (request->prefixes) {
		copy.prefixes = calloc(request->n + 1, sizeof(*copy.prefixes));
		if (!copy.prefixes) {
			rules_request_clear(&copy);
			return error_no_memory(err);
		}
		memcpy(copy.prefixes, request->prefixes, request->n * sizeof(*copy.prefixes));
	}
	*ret = copy;
	return 0;
}

static void forget(struct confirm *confirm)
{
	sd_event_source_set_enabled(confirm->timer, SD_EVENT_OFF);
	rules_request_clear(&confirm->add);
	rules_in_force_clear(&confirm->replaced);
	confirm->what = confirm->doing = NULL;
	confirm->end_ns = 0;
	confirm->failed = false;
}

static void wait_until(struct confirm *confirm, u64 ns)
{
	sd_event_source_set_time(confirm->timer, ns / NS_PER_US + 1);
	sd_event_source_set_enabled(confirm->timer, SD_EVENT_ONESHOT);
}

/* ---- going back ---- */

static void restored(void *data, const struct rules_end *end)
{
	struct confirm *confirm = data;

	confirm->doing = NULL;
	if (end->r == -ECANCELED)
		return;
	if (end->r < 0) {
		if (!confirm->failed)
			log_error("cannot go back from a reload that was not confirmed: %s; trying "
				  "again",
				  end->err.text);
		confirm->failed = true;
		wait_until(confirm, boot_ns() + AGAIN_NS);
		return;
	}
	log_warning("the reload was not confirmed within %lld s: the configuration before it is in "
		    "force again; %zu entries more are blocked, %zu fewer",
		    (long long)confirm->time_s, end->count.added, end->count.removed);
	forget(confirm);
	confirm->watcher.went_back(confirm->watcher.data);
}

static void restore(struct confirm *confirm)
{
	const struct rules_later later = {restored, confirm};
	struct rules_request request = {
		.kind = RULES_RESTORE,
		.list_fd = -1,
		.restore = &confirm->replaced,
	};
	struct rules_end end = {0};

	confirm->doing = "is going back";
	end.r = rules_submit(confirm->rules, &request, &later, &end.count, &end.err);
	if (end.r != -EINPROGRESS)
		restored(confirm, &end);
}

static int on_time(sd_event_source *source, u64 us, void *data)
{
	struct confirm *confirm = data;

	if (confirm->doing)
		return 0;
	if (confirm->replaced.config) {
		restore(confirm);
		return 0;
	}
	log_warning("the add was not confirmed within %lld s: what it added, %zu entr%s, has ended",
		    (long long)confirm->time_s, confirm->n_added,
		    confirm->n_added == 1 ? "y" : "ies");
	forget(confirm);
	return 0;
}

/* ---- beginning ---- */

int confirm_begin(struct confirm *confirm, struct rules_request *request, s64 time_s,
		  struct error *err)
{
	int r;

	if (confirm->what)
		return error_set(err, -EBUSY,
				 "the %s before it waits for confirmation: confirm that with "
				 "fwctl confirm, or wait until it has gone back",
				 confirm->what);
	if (request->kind == RULES_ADD) {
		r = copy_request(request, &confirm->add, err);
		if (r < 0)
			return r;
		request->only_new = true;
		request->ttl_s = time_s;
	} else {
		request->unconfirmed = true;
	}
	confirm->what = request->kind == RULES_ADD ? "add" : "reload";
	confirm->doing = "has not taken effect yet";
	confirm->time_s = time_s;
	return 0;
}

void confirm_begun(struct confirm *confirm, const struct rules_end *end)
{
	u64 time_ns = (u64)confirm->time_s * NS_PER_S;
	struct rules_request *add = &confirm->add;

	if (end->r < 0) {
		forget(confirm);
		return;
	}
	confirm->doing = NULL;
	confirm->end_ns = end->replaced ? boot_ns() + time_ns : end->count.expires_ns;
	if (end->replaced) {
		confirm->replaced = *end->replaced;
		*end->replaced = (struct rules_in_force){0};
	} else if (add->ttl_s) {
		/* It counts from the add on. */
		add->expires_ns = confirm->end_ns - time_ns + (u64)add->ttl_s * NS_PER_S;
	}
	confirm->n_added = end->count.added;
	wait_until(confirm, confirm->end_ns);
	log_notice("%s: goes back in %lld s unless it is confirmed", confirm->what,
		   (long long)confirm->time_s);
}

/* ---- the confirmation ---- */

static void added(void *data, const struct rules_end *end)
{
	struct confirm *confirm = data;
	struct rules_later asker = confirm->asker;

	confirm->doing = NULL;
	if (!end->r)
		forget(confirm);
	else if (end->r != -ECANCELED)
		wait_until(confirm, confirm->end_ns);
	asker.done(asker.data, end);
}

static int accept_add(struct confirm *confirm, const struct rules_later *later, struct error *err)
{
	const struct rules_later own = {added, confirm};
	struct rules_request request;
	struct rules_count count;
	int r = copy_request(&confirm->add, &request, err);

	if (r < 0)
		return r;
	confirm->doing = "is being confirmed";
	confirm->asker = *later;
	r = rules_submit(confirm->rules, &request, &own, &count, err);
	if (r == -EINPROGRESS)
		return r;
	confirm->doing = NULL;
	if (!r)
		forget(confirm);
	return r;
}

int confirm_accept(struct confirm *confirm, const struct rules_later *later, const char **ret_what,
		   struct error *err)
{
	const char *what = confirm->what;
	int r;

	if (!what)
		return error_set(err, -ENOENT, "nothing waits for confirmation");
	if (confirm->doing)
		return error_set(err, -EBUSY, "the %s %s: try again", what, confirm->doing);
	if (confirm->replaced.config) {
		r = rules_confirm(confirm->rules, &confirm->replaced, err);
		if (!r)
			forget(confirm);
	} else {
		r = accept_add(confirm, later, err);
	}
	if (!r || r == -EINPROGRESS)
		*ret_what = what;
	return r;
}

/* ---- facts ---- */

const char *confirm_waits(const struct confirm *confirm, s64 *ret_left_s)
{
	u64 now_ns = boot_ns();

	if (!confirm->what)
		return NULL;
	/* What has not taken effect has all of its time; the rest of a second counts as one. */
	if (!confirm->end_ns)
		*ret_left_s = confirm->time_s;
	else if (confirm->end_ns <= now_ns)
		*ret_left_s = 0;
	else
		*ret_left_s = (s64)((confirm->end_ns - now_ns + NS_PER_S - 1) / NS_PER_S);
	return confirm->what;
}

int confirm_check_reload(const struct confirm *confirm, struct error *err)
{
	s64 left_s;
	const char *what = confirm_waits(confirm, &left_s);

	if (!what || strcmp(what, "reload") != 0)
		return 0;
	return error_set(err, -EBUSY,
			 "a reload waits for confirmation: confirm it with fwctl confirm, or wait "
			 "%lld s until it has gone back",
			 (long long)left_s);
}

/* ---- opening ---- */

int confirm_open(sd_event *event, struct rules *rules, const struct confirm_watcher *watcher,
		 struct confirm **ret, struct error *err)
{
	_cleanup_(confirm_closep) struct confirm *confirm = calloc(1, sizeof(*confirm));
	int r;

	if (!confirm)
		return error_no_memory(err);
	confirm->rules = rules;
	confirm->watcher = *watcher;
	confirm->add.list_fd = -1;
	/* As exact as the kernel is with entries that end: the accuracy is 1 us. */
	r = sd_event_add_time(event, &confirm->timer, CLOCK_BOOTTIME, 0, 1, on_time, confirm);
	if (r >= 0)
		r = sd_event_source_set_enabled(confirm->timer, SD_EVENT_OFF);
	if (r < 0)
		return error_set(err, r, "cannot watch the time: %s", error_name(r));
	*ret = take_pointer(&confirm);
	return 0;
}

void confirm_close(struct confirm *confirm)
{
	if (!confirm)
		return;
	if (confirm->replaced.config)
		log_warning("stopped before the reload was confirmed: the next start takes the "
			    "configuration before it");
	sd_event_source_disable_unref(confirm->timer);
	rules_request_clear(&confirm->add);
	rules_in_force_clear(&confirm->replaced);
	free(confirm);
}
