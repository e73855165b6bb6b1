// SPDX-License-Identifier: GPL-2.0-or-later
#include "interfaces.h"

#include "attachment.h"
#include "clock.h"
#include "contest.h"
#include "log.h"

#include <errno.h>
#include <fnmatch.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

/* Between two tries of what failed and what no message will tell the end of; doubles. */
#define RETRY_MIN_NS NS_PER_S
#define RETRY_MAX_NS (60 * NS_PER_S)

/* Each look into a dispatcher costs (see xdp_query()): so many are known by their number. */
#define OTHERS_MAX 256

struct slot {
	struct attachment attachment;
	struct contest contests[FWD_HOOKS];
	char *error;		    /* the first of its hooks' failures; NULL: none */
	bool moved;		    /* somebody has moved the interface to another namespace */
	bool lifted, lifted_native; /* its XDP program is off for a change below it */
};

struct interfaces {
	struct links *links;
	struct tc *tc;
	struct datapath *dp;
	struct datapath_owner owner;
	struct interfaces_wanted wanted;
	struct slot slots[FWD_MAX_INTERFACES];
	bool scopes_changed; /* since the redirects were last set up for them */
	bool scopes_failed;  /* to be set up, which was logged (I3) */
	bool pins_failed;    /* datapath_keep_pins() */
	bool full_logged;
	bool top_blocks;	      /* the kernel has refused a change below a program of ours */
	u64 retry_ns, retry_pause_ns; /* of what failed; 0: nothing, or not since it changed */
	u64 contests_ns;	      /* the next of a contest; 0: none */

	/* Dispatchers of others without a program of ours, the latest ones, in turn. */
	u32 others[OTHERS_MAX];
	u32 n_others;
};

int interfaces_open(struct links *links, struct tc *tc, struct interfaces **ret, struct error *err)
{
	struct interfaces *ifs = calloc(1, sizeof(*ifs));

	if (!ifs)
		return error_no_memory(err);
	ifs->links = links;
	ifs->tc = tc;
	*ret = ifs;
	return 0;
}

void interfaces_close(struct interfaces *ifs)
{
	if (!ifs)
		return;
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		free(ifs->slots[slot].error);
	free(ifs);
}

/* Which programs use the right maps has to be looked at again, which takes time. */
static void forget_checks(struct interfaces *ifs)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		memset(ifs->slots[slot].attachment.checked, 0,
		       sizeof(ifs->slots[slot].attachment.checked));
}

void interfaces_use(struct interfaces *ifs, struct datapath *dp, const struct datapath_owner *owner)
{
	if (dp != ifs->dp)
		forget_checks(ifs);
	ifs->dp = dp;
	ifs->owner = *owner;
}

void interfaces_want(struct interfaces *ifs, const struct interfaces_wanted *wanted)
{
	ifs->wanted = *wanted;
}

/* ---- what an interface should have ---- */

/* The entry of the configuration for a name: that name itself before any glob. */
static const struct config_interface *find_pattern(const struct interfaces *ifs, const char *name)
{
	const struct interfaces_wanted *wanted = &ifs->wanted;

	for (size_t i = 0; i < wanted->n_patterns; i++)
		if (!strcmp(wanted->patterns[i].name, name))
			return &wanted->patterns[i];
	for (size_t i = 0; i < wanted->n_patterns; i++)
		if (!fnmatch(wanted->patterns[i].name, name, 0))
			return &wanted->patterns[i];
	return NULL;
}

static bool needs_hook(const struct interfaces *ifs, const char *name, enum fwd_hook hook)
{
	const struct interfaces_wanted *wanted = &ifs->wanted;
	u8 direction = hook == FWD_HOOK_TC_OUT ? DIRECTION_OUT : DIRECTION_IN;

	if (!find_pattern(ifs, name))
		return false;
	if (hook == FWD_HOOK_XDP)
		return wanted->flags & FWD_BLOCK_IN;
	if (hook == FWD_HOOK_TC_OUT && wanted->flags & FWD_BLOCK_OUT)
		return true;
	for (size_t i = 0; i < wanted->n_redirects; i++) {
		const struct redirect *redirect = &wanted->redirects[i];

		if (redirect->direction == direction && strcmp(redirect->target, name) != 0 &&
		    (!redirect->interface[0] || !strcmp(redirect->interface, name)))
			return true;
	}
	return false;
}

/* ---- errors ---- */

/* Keeps and logs an interface's failure, unless it is the same as before (I3). */
static void note_error(struct interfaces *ifs, u32 slot, const char *text)
{
	struct slot *at = &ifs->slots[slot];
	const char *name = datapath_interfaces(ifs->dp)[slot].name;

	if (!text && at->error)
		log_notice("%s: the trouble is over", name);
	else if (text && (!at->error || strcmp(at->error, text) != 0))
		log_error("%s: %s; its rules do not act there", name, text);
	if (text && at->error && !strcmp(at->error, text))
		return;
	free(at->error);
	at->error = text ? strdup(text) : NULL;
	ifs->retry_pause_ns = 0;
}

static struct attachment_site site_of(const struct interfaces *ifs, u32 slot,
				      const struct link_info *link)
{
	const struct config_interface *pattern = find_pattern(ifs, link->name);

	return (struct attachment_site){
		.dp = ifs->dp,
		.owner = &ifs->owner,
		.tc = ifs->tc,
		.link = *link,
		.slot = slot,
		.xdp_mode = pattern ? pattern->xdp_mode : XDP_WANT_AUTO,
	};
}

/* ---- what is on top ---- */

/*
 * The kernel changes no XDP program while an interface on top has one (xdp.h). So ours above are
 * off for that moment: what comes through the interface below is filtered there meanwhile.
 */
static bool lift_above(struct interfaces *ifs, const struct link_info *below)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);
	bool any = false;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		struct slot *at = &ifs->slots[slot];
		struct attachment_site site;
		struct link_info link;

		if (!rows[slot].ifindex || !at->attachment.program_id[FWD_HOOK_XDP] ||
		    !links_is_on_top(ifs->links, (int)rows[slot].ifindex, below->ifindex) ||
		    !links_get(ifs->links, (int)rows[slot].ifindex, &link))
			continue;
		site = site_of(ifs, slot, &link);
		at->lifted_native = at->attachment.xdp.native;
		at->lifted = !attachment_drop(&at->attachment, &site, FWD_HOOK_XDP, NULL);
		any |= at->lifted;
	}
	return any;
}

/* In the mode that they had: "auto" has settled for it already, and said so. */
static void put_back_above(struct interfaces *ifs)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		struct slot *at = &ifs->slots[slot];
		struct attachment_site site;
		struct link_info link;
		struct error err;
		bool added;

		if (!at->lifted)
			continue;
		at->lifted = false;
		if (!links_get(ifs->links, (int)datapath_interfaces(ifs->dp)[slot].ifindex, &link))
			continue;
		site = site_of(ifs, slot, &link);
		if (site.xdp_mode == XDP_WANT_AUTO && !at->lifted_native)
			site.xdp_mode = XDP_WANT_GENERIC;
		if (attachment_ensure(&at->attachment, &site, FWD_HOOK_XDP, &added, &err) < 0)
			note_error(ifs, slot, err.text);
	}
}

/* Whose program on top of the interface keeps ours from it. */
static int blocked_above(struct interfaces *ifs, const struct link_info *below, struct error *err)
{
	_cleanup_free_ struct link_info *links = NULL;
	size_t n = 0;

	if (links_list(ifs->links, &links, &n, NULL) < 0)
		return -EEXIST;
	for (size_t i = 0; i < n; i++) {
		struct xdp_state state;

		if (links_is_on_top(ifs->links, links[i].ifindex, below->ifindex) &&
		    !xdp_query(links[i].ifindex, &ifs->owner, NULL, &state, NULL) && state.main_id)
			return error_set(
				err, -EEXIST,
				"XDP: %s, which is on top of it, has another XDP program (id %u), "
				"and the kernel lets nobody change what is below: take that off "
				"(ip link set dev %s xdp off)",
				links[i].name, state.main_id, links[i].name);
	}
	return -EEXIST;
}

/* ---- one hook ---- */

/* As attachment_ensure(), also below a program of ours. */
static int attach(struct interfaces *ifs, u32 slot, const struct link_info *link,
		  enum fwd_hook hook, bool *ret_added, struct error *err)
{
	struct attachment *at = &ifs->slots[slot].attachment;
	struct attachment_site site = site_of(ifs, slot, link);
	bool lifted = false;
	int r;

	if (hook != FWD_HOOK_XDP)
		return attachment_ensure(at, &site, hook, ret_added, err);
	/* With a dispatcher it takes libxdp ten tries to find out that it may not. */
	if (ifs->top_blocks && !attachment_is_right(at, &site, hook))
		lifted = lift_above(ifs, link);
	r = attachment_ensure(at, &site, hook, ret_added, err);
	if (r == -EEXIST && !lifted && lift_above(ifs, link)) {
		lifted = ifs->top_blocks = true;
		r = attachment_ensure(at, &site, hook, ret_added, err);
	}
	if (lifted)
		put_back_above(ifs);
	return r == -EEXIST ? blocked_above(ifs, link, err) : r;
}

/* With its programs; the message is on its way. */
static bool is_gone(const struct link_info *link)
{
	char name[IF_NAMESIZE];

	return !if_indextoname((unsigned)link->ifindex, name) && errno == ENXIO;
}

static int contested(enum fwd_hook hook, struct error *err)
{
	return error_set(err, -EAGAIN,
			 "%s: somebody takes our program off again and again; it is put back "
			 "after a pause each time, of a minute at most",
			 attachment_hook_names[hook]);
}

static int ensure(struct interfaces *ifs, u32 slot, const struct link_info *link,
		  enum fwd_hook hook, bool *ret_added, struct error *err)
{
	struct attachment *at = &ifs->slots[slot].attachment, before = *at;
	struct contest *contest = &ifs->slots[slot].contests[hook];
	struct attachment_site site = site_of(ifs, slot, link);
	u64 now_ns = clock_ns(CLOCK_MONOTONIC);
	int r = attachment_find(at, &site, hook, err);
	bool lost;

	*ret_added = false;
	if (r < 0)
		return r;
	lost = before.program_id[hook] && !at->program_id[hook];
	if (lost && is_gone(link)) {
		*at = before;
		return -ENODEV;
	}
	if (lost)
		contest_lose(contest, now_ns);
	if (!at->program_id[hook] && contest_holds(contest, now_ns))
		return contested(hook, err);
	r = attach(ifs, slot, link, hook, ret_added, err);
	/* Between two of our steps, most likely. */
	if (r < 0 && r != -EBUSY && contest_is_on(contest, now_ns)) {
		contest_lose(contest, now_ns);
		return contested(hook, err);
	}
	if (!r && lost)
		log_warning("%s: somebody took our %s program off; attached again", link->name,
			    attachment_hook_names[hook]);
	return r;
}

static int drop(struct interfaces *ifs, u32 slot, const struct link_info *link, enum fwd_hook hook,
		struct error *err)
{
	struct attachment *at = &ifs->slots[slot].attachment;
	struct attachment_site site = site_of(ifs, slot, link);
	int r = attachment_drop(at, &site, hook, err);

	if (r != -EEXIST || hook != FWD_HOOK_XDP)
		return r;
	if (lift_above(ifs, link)) {
		r = attachment_drop(at, &site, hook, err);
		put_back_above(ifs);
	}
	return r == -EEXIST ? blocked_above(ifs, link, err) : r;
}

/* ---- slots ---- */

static bool find_slot(const struct interfaces *ifs, int ifindex, u32 *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		if (rows[slot].ifindex == (u32)ifindex) {
			*ret = slot;
			return true;
		}
	}
	return false;
}

bool interfaces_has(const struct interfaces *ifs, int ifindex)
{
	u32 slot;

	return find_slot(ifs, ifindex, &slot);
}

void interfaces_note_move(struct interfaces *ifs, int ifindex)
{
	u32 slot;

	if (find_slot(ifs, ifindex, &slot))
		ifs->slots[slot].moved = true;
}

static void free_slot(struct interfaces *ifs, u32 slot)
{
	for (u32 hook = 0; hook < FWD_HOOKS; hook++)
		datapath_unpin_program(ifs->dp, slot, hook);
	free(ifs->slots[slot].error);
	ifs->slots[slot] = (struct slot){0};
	datapath_interfaces(ifs->dp)[slot] = (struct fwd_interface){0};
}

static bool allocate_slot(struct interfaces *ifs, const struct link_info *link, u32 *ret)
{
	struct fwd_interface *row;
	u32 slot;

	if (!find_slot(ifs, 0, &slot)) {
		if (!ifs->full_logged)
			log_error("%s: full: %d of %d interfaces; its packets are not filtered",
				  link->name, FWD_MAX_INTERFACES, FWD_MAX_INTERFACES);
		ifs->full_logged = true;
		return false;
	}
	datapath_clear_counters(ifs->dp, slot);
	row = &datapath_interfaces(ifs->dp)[slot];
	memcpy(row->name, link->name, sizeof(row->name));
	row->flags = 0;
	row->ifindex = (u32)link->ifindex;
	*ret = slot;
	return true;
}

/* Slots for interfaces that match and have none. */
static void add_slots(struct interfaces *ifs, const struct link_info *links, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct fwd_interface *row;
		u32 slot;

		if (find_slot(ifs, links[i].ifindex, &slot)) {
			row = &datapath_interfaces(ifs->dp)[slot];
			if (!strcmp(row->name, links[i].name))
				continue;
			log_notice("%s is called %s now", row->name, links[i].name);
			memcpy(row->name, links[i].name, sizeof(row->name));
			ifs->scopes_changed = true;
		} else if (find_pattern(ifs, links[i].name)) {
			ifs->scopes_changed |= allocate_slot(ifs, &links[i], &slot);
		}
	}
}

static void log_gone(const struct interfaces *ifs, u32 slot)
{
	const char *name = datapath_interfaces(ifs->dp)[slot].name;
	const struct slot *at = &ifs->slots[slot];

	if (at->moved && at->attachment.program_id[FWD_HOOK_XDP])
		log_warning("%s: moved to another network namespace, with our XDP program, which "
			    "goes on dropping blocked sources there; take it off there if it is "
			    "not to (ip link set dev %s xdp off)",
			    name, name);
	else
		log_info("%s: gone", name);
}

/* Gives up slots whose interface is gone, or matches nothing any more. */
static void remove_slots(struct interfaces *ifs)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		struct fwd_interface *row = &datapath_interfaces(ifs->dp)[slot];
		struct link_info link;
		struct error err;
		int r = 0;

		if (!row->ifindex)
			continue;
		if (links_get(ifs->links, (int)row->ifindex, &link)) {
			if (find_pattern(ifs, link.name))
				continue;
			for (u32 hook = 0; hook < FWD_HOOKS && !r; hook++)
				r = drop(ifs, slot, &link, hook, &err);
			if (r < 0) {
				note_error(ifs, slot, err.text);
				continue;
			}
			log_info("%s: left", row->name);
		} else {
			log_gone(ifs, slot);
		}
		free_slot(ifs, slot);
		ifs->scopes_changed = true;
	}
}

/* The interfaces that have a slot. `ret` has FWD_MAX_INTERFACES places. */
static size_t list_scopes(const struct interfaces *ifs, struct redirect_scope *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);
	size_t n = 0;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		if (!rows[slot].ifindex)
			continue;
		ret[n].slot = slot;
		memcpy(ret[n++].name, rows[slot].name, sizeof(rows[slot].name));
	}
	return n;
}

int interfaces_stage(struct interfaces *ifs, const struct datapath_change *change,
		     struct error *err)
{
	_cleanup_free_ struct redirect_scope *scopes = calloc(FWD_MAX_INTERFACES, sizeof(*scopes));
	struct datapath_change staged = *change;

	if (!scopes)
		return error_no_memory(err);
	staged.scopes = scopes;
	staged.n_scopes = list_scopes(ifs, scopes);
	return datapath_stage(ifs->dp, &staged, err);
}

/* ---- redirects ---- */

static struct redirect_link find_target(struct interfaces *ifs, const char *name)
{
	struct redirect_link target = {0};
	struct link_info link;

	if (links_find(ifs->links, name, &link)) {
		target.ifindex = (u32)link.ifindex;
		target.has_l2 = link.has_l2;
		memcpy(target.mac, link.mac, sizeof(target.mac));
	}
	return target;
}

void interfaces_set_targets(struct interfaces *ifs)
{
	struct redirect_map *map = datapath_redirects(ifs->dp);
	char name[IFNAMSIZ];
	u32 at = 0;

	while (redirect_map_next_target(map, &at, name)) {
		const struct redirect_link target = find_target(ifs, name);

		redirect_map_set_target(map, name, &target);
	}
}

/* The redirects again, for other interfaces than before. */
static void restage_redirects(struct interfaces *ifs)
{
	const struct datapath_change change = {
		.flags = datapath_flags(ifs->dp),
		.redirects_too = true,
		.redirects = ifs->wanted.redirects,
		.n_redirects = ifs->wanted.n_redirects,
	};
	struct error err;

	if (interfaces_stage(ifs, &change, &err) < 0) {
		if (!ifs->scopes_failed)
			log_error("cannot set up the redirects for interfaces that came or went: "
				  "%s; trying again",
				  err.text);
		ifs->scopes_failed = true;
		return;
	}
	interfaces_set_targets(ifs);
	datapath_commit(ifs->dp);
	if (ifs->scopes_failed)
		log_notice("the redirects are set up for the interfaces that there are");
	ifs->scopes_changed = ifs->scopes_failed = false;
}

/* ---- the whole ---- */

/* What one prepare has attached, to be undone. */
struct undo {
	u32 slot;
	struct link_info link;
	enum fwd_hook hook;
};

static int prepare_link(struct interfaces *ifs, u32 slot, const struct link_info *link,
			struct undo *done, size_t *n_done, struct error *err)
{
	bool had_error = ifs->slots[slot].error, added;

	for (u32 hook = 0; hook < FWD_HOOKS; hook++) {
		int r;

		if (!needs_hook(ifs, link->name, hook))
			continue;
		r = ensure(ifs, slot, link, hook, &added, err);
		if (r < 0 && is_gone(link))
			return 0;
		if (r < 0 && !had_error) {
			error_prepend(err, "%s: ", link->name);
			return r;
		}
		if (!r && added)
			done[(*n_done)++] = (struct undo){slot, *link, hook};
	}
	return 0;
}

int interfaces_prepare(struct interfaces *ifs, struct error *err)
{
	_cleanup_free_ struct link_info *links = NULL;
	_cleanup_free_ struct undo *done = NULL;
	size_t n, n_done = 0;
	int r = links_list(ifs->links, &links, &n, err);

	if (r < 0)
		return r;
	done = calloc(n * FWD_HOOKS + 1, sizeof(*done));
	if (!done)
		return error_no_memory(err);
	add_slots(ifs, links, n);
	for (size_t i = 0; i < n && !r; i++) {
		u32 slot;

		if (find_slot(ifs, links[i].ifindex, &slot))
			r = prepare_link(ifs, slot, &links[i], done, &n_done, err);
	}
	if (r < 0)
		while (n_done--)
			drop(ifs, done[n_done].slot, &done[n_done].link, done[n_done].hook, NULL);
	return r;
}

/*
 * V4: what counts is what is there now. Some could not be seen when they were looked for, and
 * others have taken the place of some.
 */
static int move_hook(struct interfaces *ifs, u32 slot, const struct link_info *link,
		     enum fwd_hook hook, struct error *err)
{
	struct attachment *at = &ifs->slots[slot].attachment;
	struct attachment_site site = site_of(ifs, slot, link);
	int r = attachment_find(at, &site, hook, err);
	bool added;

	if (!r && at->program_id[hook])
		r = attach(ifs, slot, link, hook, &added, err);
	return r;
}

int interfaces_move(struct interfaces *ifs, struct error *err)
{
	forget_checks(ifs);
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		const struct fwd_interface *row = &datapath_interfaces(ifs->dp)[slot];
		struct link_info link;
		int r = 0;

		if (!row->ifindex || !links_get(ifs->links, (int)row->ifindex, &link))
			continue;
		for (u32 hook = 0; hook < FWD_HOOKS && !r; hook++)
			r = move_hook(ifs, slot, &link, hook, err);
		if (r < 0 && !is_gone(&link)) {
			error_prepend(err, "%s: ", link.name);
			return r;
		}
	}
	return 0;
}

/* Needed and there, but maybe not for long. */
static int check_contest(const struct interfaces *ifs, u32 slot, enum fwd_hook hook,
			 struct error *err)
{
	const struct slot *at = &ifs->slots[slot];

	return contest_is_on(&at->contests[hook], clock_ns(CLOCK_MONOTONIC)) ? contested(hook, err)
									     : 0;
}

static struct program_kind kind_of(const struct attachment *at, u32 slot,
				   const struct link_info *link, enum fwd_hook hook)
{
	return (struct program_kind){
		.slot = slot,
		.hook = (u8)hook,
		.has_l2 = link->has_l2,
		.frags = hook == FWD_HOOK_XDP && xdp_wants_frags(at->xdp.native),
	};
}

int interfaces_list_programs(const struct interfaces *ifs, struct program_set *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);
	struct program_set set = {calloc(FWD_MAX_INTERFACES * FWD_HOOKS, sizeof(*set.items)), 0};

	if (!set.items)
		return -ENOMEM;
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		const struct attachment *at = &ifs->slots[slot].attachment;
		struct link_info link;

		if (!rows[slot].ifindex || !links_get(ifs->links, (int)rows[slot].ifindex, &link))
			continue;
		for (enum fwd_hook hook = 0; hook < FWD_HOOKS; hook++)
			if (at->program_id[hook] && (hook != FWD_HOOK_XDP || !at->xdp.dispatcher))
				set.items[set.n++] =
					(struct loaded_program){kind_of(at, slot, &link, hook), -1};
	}
	*ret = set;
	return 0;
}

/* All hooks, whatever happens at one; the first failure is kept. */
static void settle_link(struct interfaces *ifs, u32 slot, const struct link_info *link)
{
	struct error err, first;
	bool failed = false, added;

	ifs->slots[slot].moved = false; /* and back */
	for (u32 hook = 0; hook < FWD_HOOKS; hook++) {
		bool needed = needs_hook(ifs, link->name, hook);
		int r = needed ? ensure(ifs, slot, link, hook, &added, &err)
			       : drop(ifs, slot, link, hook, &err);

		if (!r && needed)
			r = check_contest(ifs, slot, hook, &err);
		if (r == -ENODEV) /* it is gone; the message is on its way */
			return;
		if (r < 0 && !failed)
			first = err;
		failed |= r < 0;
	}
	note_error(ifs, slot, failed ? first.text : NULL);
}

static u64 earlier(u64 a_ns, u64 b_ns)
{
	return a_ns && a_ns < b_ns ? a_ns : b_ns;
}

/* The first of the slot's contests to be looked at again; 0: none is on. */
static u64 contests_due_ns(const struct slot *at, u64 now_ns)
{
	u64 due_ns = 0;

	for (u32 hook = 0; hook < FWD_HOOKS; hook++) {
		const struct contest *contest = &at->contests[hook];

		if (contest_holds(contest, now_ns))
			due_ns = earlier(due_ns, contest_resume_ns(contest));
		else if (contest_is_on(contest, now_ns))
			due_ns = earlier(due_ns, contest_end_ns(contest));
	}
	return due_ns;
}

/*
 * For failures that no message will tell the end of. Settling that a message asks for does not make
 * the pause longer.
 */
static void plan_retry(struct interfaces *ifs)
{
	u64 now_ns = clock_ns(CLOCK_MONOTONIC), contests_ns = 0;
	bool failed = ifs->scopes_failed || ifs->pins_failed;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		u64 due_ns = contests_due_ns(&ifs->slots[slot], now_ns);

		if (due_ns)
			contests_ns = earlier(contests_ns, due_ns);
		failed |= ifs->slots[slot].error != NULL;
	}
	ifs->contests_ns = contests_ns;
	if (!failed) {
		ifs->retry_ns = ifs->retry_pause_ns = 0;
	} else if (!ifs->retry_pause_ns || now_ns >= ifs->retry_ns) {
		u64 doubled_ns = 2 * ifs->retry_pause_ns;

		ifs->retry_pause_ns = !doubled_ns		  ? RETRY_MIN_NS
				      : doubled_ns < RETRY_MAX_NS ? doubled_ns
								  : RETRY_MAX_NS;
		ifs->retry_ns = now_ns + ifs->retry_pause_ns;
	}
}

u64 interfaces_due_ns(const struct interfaces *ifs)
{
	if (!ifs->retry_ns)
		return ifs->contests_ns;
	return earlier(ifs->contests_ns, ifs->retry_ns);
}

static void keep_pins(struct interfaces *ifs)
{
	struct error err;
	bool failed = datapath_keep_pins(ifs->dp, &err) < 0;

	if (failed && !ifs->pins_failed)
		log_error("%s; trying again", err.text);
	else if (!failed && ifs->pins_failed)
		log_notice("the maps are pinned");
	ifs->pins_failed = failed;
}

void interfaces_settle(struct interfaces *ifs)
{
	_cleanup_free_ struct link_info *links = NULL;
	struct error err;
	size_t n;

	if (links_list(ifs->links, &links, &n, &err) < 0) {
		log_error("%s", err.text);
		return;
	}
	remove_slots(ifs);
	add_slots(ifs, links, n);
	if (ifs->scopes_changed)
		restage_redirects(ifs);
	interfaces_set_targets(ifs);
	for (size_t i = 0; i < n; i++) {
		u32 slot;

		if (find_slot(ifs, links[i].ifindex, &slot))
			settle_link(ifs, slot, &links[i]);
	}
	keep_pins(ifs);
	plan_retry(ifs);
}

/* Takes our programs off; with `strays_only`, just where no slot accounts for them. */
static void detach(struct interfaces *ifs, bool strays_only)
{
	_cleanup_free_ struct link_info *links = NULL;
	struct error err = {""};
	size_t n;

	if (links_list(ifs->links, &links, &n, &err) < 0) {
		log_error("%s", err.text);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		bool has_slot;
		u32 slot;

		has_slot = find_slot(ifs, links[i].ifindex, &slot);
		if (has_slot && strays_only)
			continue;
		/* A stray program has no slot: it gets one for as long as it takes to go. */
		if (!has_slot && !allocate_slot(ifs, &links[i], &slot))
			continue;
		for (u32 hook = 0; hook < FWD_HOOKS; hook++)
			if (drop(ifs, slot, &links[i], hook, &err) < 0)
				log_error("%s: %s", links[i].name, err.text);
		free_slot(ifs, slot);
	}
}

void interfaces_detach_all(struct interfaces *ifs)
{
	detach(ifs, false);
}

void interfaces_detach_strays(struct interfaces *ifs)
{
	detach(ifs, true);
}

/* ---- verifying ---- */

static void verify_link(struct interfaces *ifs, u32 slot, const struct link_info *link,
			struct differences *ret)
{
	const struct slot *at = &ifs->slots[slot];
	const struct attachment_site site = site_of(ifs, slot, link);
	const char *name = datapath_interfaces(ifs->dp)[slot].name;

	if (strcmp(name, link->name) != 0)
		differences_add(ret, DIFFERENCE_INTERFACE, link->name,
				"%s: its rules are still those of %.16s", link->name, name);
	for (u32 hook = 0; hook < FWD_HOOKS; hook++)
		attachment_verify(&at->attachment, &site, hook, needs_hook(ifs, link->name, hook),
				  at->error, ret);
}

static void verify_slots(struct interfaces *ifs, struct differences *ret)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		const struct fwd_interface *row = &datapath_interfaces(ifs->dp)[slot];
		struct link_info link;

		if (row->ifindex && !links_get(ifs->links, (int)row->ifindex, &link))
			differences_add(ret, DIFFERENCE_INTERFACE, row->name,
					"%.16s: gone, and the kernel's maps still have it",
					row->name);
	}
}

static void verify_targets(struct interfaces *ifs, struct differences *ret)
{
	struct redirect_map *map = datapath_redirects(ifs->dp);
	char name[IFNAMSIZ];
	u32 at = 0;

	while (redirect_map_next_target(map, &at, name)) {
		const struct redirect_link target = find_target(ifs, name);

		redirect_map_verify_target(map, at - 1, &target, ret);
	}
}

static int verify_redirects(struct interfaces *ifs, const struct redirect_tables *tables,
			    struct differences *ret)
{
	_cleanup_free_ struct redirect_scope *scopes = calloc(FWD_MAX_INTERFACES, sizeof(*scopes));
	const struct interfaces_wanted *wanted = &ifs->wanted;
	int r = scopes ? 0 : -ENOMEM;

	if (!r)
		r = redirect_map_verify(datapath_redirects(ifs->dp), datapath_table_set(ifs->dp),
					tables, wanted->redirects, wanted->n_redirects, scopes,
					list_scopes(ifs, scopes), ret);
	if (!r)
		verify_targets(ifs, ret);
	return r;
}

int interfaces_verify(struct interfaces *ifs, const struct redirect_tables *tables,
		      struct differences *ret, size_t *ret_n_interfaces, struct error *err)
{
	_cleanup_free_ struct link_info *links = NULL;
	size_t n, n_interfaces = 0;
	int r = links_list(ifs->links, &links, &n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		bool wanted = find_pattern(ifs, links[i].name);
		u32 slot;

		n_interfaces += wanted;
		if (find_slot(ifs, links[i].ifindex, &slot))
			verify_link(ifs, slot, &links[i], ret);
		else if (wanted)
			differences_add(ret, DIFFERENCE_INTERFACE, links[i].name,
					"%s: configured, and not taken care of: its packets are "
					"not filtered",
					links[i].name);
	}
	verify_slots(ifs, ret);
	if (verify_redirects(ifs, tables, ret) < 0)
		return error_no_memory(err);
	*ret_n_interfaces = n_interfaces;
	return 0;
}

/* A dispatcher has a program of ours. */
static bool is_in_dispatcher(struct interfaces *ifs, int ifindex, u32 dispatcher_id)
{
	struct xdp_state state;

	for (u32 i = 0; i < OTHERS_MAX; i++)
		if (ifs->others[i] == dispatcher_id)
			return false;
	if (xdp_query(ifindex, &ifs->owner, NULL, &state, NULL) < 0)
		return false;
	if (!state.program_id)
		ifs->others[ifs->n_others++ % OTHERS_MAX] = dispatcher_id;
	return state.program_id;
}

void interfaces_verify_strays(struct interfaces *ifs, const struct strays *strays,
			      struct differences *ret)
{
	for (size_t i = 0; i < strays->n; i++) {
		const struct stray *stray = &strays->items[i];
		struct link_info link;
		u32 slot;

		if (find_slot(ifs, stray->ifindex, &slot) ||
		    !links_get(ifs->links, stray->ifindex, &link))
			continue;
		for (u32 hook = 0; hook < FWD_HOOKS; hook++)
			if (stray->ours[hook] ||
			    (hook == FWD_HOOK_XDP && stray->dispatcher_id &&
			     is_in_dispatcher(ifs, stray->ifindex, stray->dispatcher_id)))
				differences_add(ret,
						hook == FWD_HOOK_XDP ? DIFFERENCE_PROGRAM
								     : DIFFERENCE_FILTER,
						link.name,
						"%s: %s: a program of ours, and the interface is "
						"not configured",
						link.name, attachment_hook_names[hook]);
	}
}

const struct datapath_owner *interfaces_owner(const struct interfaces *ifs)
{
	return &ifs->owner;
}

int interfaces_mend(struct interfaces *ifs, struct error *err)
{
	int r;

	redirect_map_look_again(datapath_redirects(ifs->dp), datapath_table_set(ifs->dp),
				datapath_interfaces(ifs->dp));
	ifs->scopes_changed = true; /* so that the redirects are staged anew */
	r = interfaces_move(ifs, err);
	interfaces_settle(ifs);
	return r;
}

bool interfaces_next(const struct interfaces *ifs, u32 *slot, struct interface_status *ret)
{
	const struct fwd_interface *rows = datapath_interfaces(ifs->dp);

	for (; *slot < FWD_MAX_INTERFACES; (*slot)++) {
		const struct attachment *at = &ifs->slots[*slot].attachment;

		if (!rows[*slot].ifindex)
			continue;
		*ret = (struct interface_status){
			.name = rows[*slot].name,
			.ifindex = (int)rows[*slot].ifindex,
			.slot = *slot,
			.xdp = at->program_id[FWD_HOOK_XDP],
			.native = at->xdp.native,
			.dispatcher = at->xdp.dispatcher,
			.tc_in = at->program_id[FWD_HOOK_TC_IN],
			.tc_out = at->program_id[FWD_HOOK_TC_OUT],
			.error = ifs->slots[*slot].error,
		};
		(*slot)++;
		return true;
	}
	return false;
}

bool interfaces_is_wanted(const struct interfaces *ifs, const char *name)
{
	return find_pattern(ifs, name) != NULL;
}

int interfaces_check_redirect(struct interfaces *ifs, const struct redirect *redirect,
			      struct error *err)
{
	struct link_info from, target;

	if (redirect->mode != REDIRECT_L2 || !links_find(ifs->links, redirect->interface, &from) ||
	    !links_find(ifs->links, redirect->target, &target) || from.has_l2 || !target.has_l2)
		return 0;
	return error_set(
		err, -EINVAL,
		"mode \"l2\" cannot send from %s, whose packets have no link-layer header, "
		"to %s; use \"neigh\" or \"ingress\"",
		from.name, target.name);
}

bool interfaces_matches(struct interfaces *ifs, const char *pattern)
{
	_cleanup_free_ struct link_info *links = NULL;
	size_t n = 0;

	if (links_list(ifs->links, &links, &n, NULL) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(pattern, links[i].name) || !fnmatch(pattern, links[i].name, 0))
			return true;
	return false;
}
