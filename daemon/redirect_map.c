// SPDX-License-Identifier: GPL-2.0-or-later
#include "redirect_map.h"

#include "grace.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HOOKS	    2 /* FWD_HOOK_TC_IN and FWD_HOOK_TC_OUT */
#define TABLE_BYTES (FWD_PORT_TABLE_LINES * sizeof(struct fwd_port_line))

/* What a slot of the tables holds in each set. A descriptor -1: no table. */
struct table {
	int current_fd; /* in the set that packets see */
	int staged_fd;	/* in the other, while something is staged and `changed` */
	bool changed;
	bool behind;  /* the set that packets do not see could not be given the same */
	bool unknown; /* a slot that was free at the start: nobody has looked what is there */
};

struct redirect_map {
	struct redirect_map_fds fds;
	struct fwd_redirect *rows;
	struct table tables[FWD_MAX_INTERFACES][HOOKS];
	bool keep[FWD_MAX_REDIRECTS];  /* rows that the staged set uses */
	bool fresh[FWD_MAX_REDIRECTS]; /* rows that were made for it */
	unsigned staged_set;
	bool staged;
};

/* ---- rows: one a redirect, by number ---- */

static bool row_is(const struct fwd_redirect *row, const struct redirect *redirect)
{
	return row->used && row->direction == redirect->direction &&
	       row->protocol == redirect->protocol && row->port_first == redirect->port_first &&
	       row->port_last == redirect->port_last && row->mode_wanted == redirect->mode &&
	       !strncmp(row->interface, redirect->interface, sizeof(row->interface)) &&
	       !strncmp(row->target_name, redirect->target, sizeof(row->target_name));
}

static u32 find_row(const struct redirect_map *map, const struct redirect *redirect)
{
	for (u32 i = 1; i < FWD_MAX_REDIRECTS; i++)
		if (row_is(&map->rows[i], redirect))
			return i;
	return 0;
}

static void clear_count(const struct redirect_map *map, u32 number)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct fwd_counter *zero = calloc((size_t)cpus, sizeof(*zero));

	if (zero)
		bpf_map_update_elem(map->fds.counts, &number, zero, BPF_ANY);
}

static u8 effective_mode(u8 wanted, bool has_l2)
{
	if (wanted == REDIRECT_AUTO)
		return has_l2 ? REDIRECT_NEIGH : REDIRECT_L2;
	return wanted;
}

static u8 kernel_mode(u8 mode)
{
	switch (mode) {
	case REDIRECT_NEIGH:
		return FWD_MODE_NEIGH;
	case REDIRECT_INGRESS:
		return FWD_MODE_INGRESS;
	default:
		return FWD_MODE_L2;
	}
}

static u8 wire_mode(u8 mode)
{
	switch (mode) {
	case FWD_MODE_NEIGH:
		return REDIRECT_NEIGH;
	case FWD_MODE_INGRESS:
		return REDIRECT_INGRESS;
	default:
		return REDIRECT_L2;
	}
}

static void store_target(struct fwd_redirect *row, struct fwd_target target)
{
	u64 word;

	memcpy(&word, &target, sizeof(word));
	__atomic_store_n((u64 *)(void *)&row->target, word, __ATOMIC_RELEASE);
}

/* What a row is to have as its target. */
static struct fwd_target row_target(const struct fwd_redirect *row,
				    const struct redirect_link *link)
{
	if (!link->ifindex)
		return (struct fwd_target){0};
	return (struct fwd_target){
		.ifindex = link->ifindex,
		.has_l2 = link->has_l2,
		.mode = kernel_mode(effective_mode(row->mode_wanted, link->has_l2)),
	};
}

static bool has_target(const struct fwd_redirect *row, const struct redirect_link *link)
{
	struct fwd_target target = row_target(row, link);

	if (!link->ifindex)
		return !row->target.ifindex;
	return !memcmp(&row->target, &target, sizeof(target)) &&
	       !memcmp(row->mac, link->mac, sizeof(row->mac));
}

static void set_row_target(struct fwd_redirect *row, const struct redirect_link *link)
{
	if (has_target(row, link))
		return;
	/* Without a target first, until no packet holds the old one: none may see the address
	 * change. */
	if (row->target.ifindex) {
		store_target(row, (struct fwd_target){0});
		grace_wait();
	}
	if (!link->ifindex)
		return;
	memcpy(row->mac, link->mac, sizeof(row->mac));
	store_target(row, row_target(row, link));
}

static int allocate_row(struct redirect_map *map, const struct redirect *redirect, u32 *ret,
			struct error *err)
{
	struct fwd_redirect *row;

	for (u32 i = 1; i < FWD_MAX_REDIRECTS; i++) {
		row = &map->rows[i];
		if (row->used)
			continue;
		*row = (struct fwd_redirect){
			.used = 1,
			.mode_wanted = redirect->mode,
			.port_first = redirect->port_first,
			.port_last = redirect->port_last,
			.protocol = redirect->protocol,
			.direction = redirect->direction,
		};
		memcpy(row->interface, redirect->interface, sizeof(row->interface));
		memcpy(row->target_name, redirect->target, sizeof(row->target_name));
		clear_count(map, i);
		*ret = i;
		return 0;
	}
	return error_set(err, -ENOSPC, "full: no room for another redirect");
}

static void free_unused_rows(struct redirect_map *map)
{
	for (u32 i = 1; i < FWD_MAX_REDIRECTS; i++)
		if (map->rows[i].used && !map->keep[i])
			map->rows[i].used = 0;
}

/* ---- tables ---- */

static void fill_ports(struct fwd_port_line *lines, const struct redirect *redirect, u32 number)
{
	u32 protocol = redirect->protocol == IPPROTO_TCP ? FWD_TCP : FWD_UDP;

	for (u32 port = redirect->port_first; port <= redirect->port_last; port++)
		lines[FWD_LINE_INDEX(protocol, port)].redirect[port % FWD_PORT_LINE] = (u16)number;
}

/* Fills the table of an interface and direction; false: it stays empty. */
static bool fill_table(struct fwd_port_line *lines, const struct redirect_scope *scope,
		       u8 direction, const struct redirect *redirects, const u32 *numbers, size_t n)
{
	bool filled = false;

	memset(lines, 0, TABLE_BYTES);
	/* Those of every interface first: the interface's own ones then go over them. */
	for (int own = 0; own < 2; own++) {
		for (size_t i = 0; i < n; i++) {
			const struct redirect *redirect = &redirects[i];

			if (redirect->direction != direction || !redirect->interface[0] != !own ||
			    (own && strcmp(redirect->interface, scope->name) != 0) ||
			    !strcmp(redirect->target, scope->name))
				continue;
			fill_ports(lines, redirect, numbers[i]);
			filled = true;
		}
	}
	return filled;
}

static int make_table(const struct fwd_port_line *lines, int *ret_fd, struct error *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	_cleanup_close_ int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "fwd_ports", sizeof(u32),
						sizeof(*lines), FWD_PORT_TABLE_LINES, &opts);
	void *memory;

	if (fd < 0)
		return error_set(err, -errno, "cannot make a port table: %s", error_name(errno));
	memory = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return error_set(err, -errno, "cannot map a port table: %s", error_name(errno));
	memcpy(memory, lines, TABLE_BYTES);
	munmap(memory, TABLE_BYTES);
	*ret_fd = take_fd(&fd);
	return 0;
}

static bool table_equals(int fd, const struct fwd_port_line *lines)
{
	void *memory = mmap(NULL, TABLE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	bool equal;

	if (memory == MAP_FAILED)
		return false;
	equal = !memcmp(memory, lines, TABLE_BYTES);
	munmap(memory, TABLE_BYTES);
	return equal;
}

/* Puts a table, or none, where packets of `set` look for it. */
static int put_table(struct redirect_map *map, unsigned set, u32 slot, u32 hook, int fd,
		     struct error *err)
{
	u32 index = FWD_TABLE_INDEX(set, slot, hook + FWD_HOOK_TC_IN);
	int r;

	if (fd >= 0)
		r = bpf_map_update_elem(map->fds.tables, &index, &fd, BPF_ANY) < 0 ? -errno : 0;
	else
		r = bpf_map_delete_elem(map->fds.tables, &index) < 0 && errno != ENOENT ? -errno
											: 0;
	if (r < 0)
		return error_set(err, r, "cannot set a port table: %s", error_name(r));
	return 0;
}

/* Gives a set that packets do not see what the other has. */
static int keep_up(struct redirect_map *map, unsigned set, u32 slot, u32 hook, struct error *err)
{
	struct table *table = &map->tables[slot][hook];
	int r = put_table(map, set, slot, hook, table->current_fd, err);

	table->behind = r < 0;
	return r;
}

static int stage_table(struct redirect_map *map, u32 slot, u32 hook,
		       const struct fwd_port_line *lines, struct error *err)
{
	struct table *table = &map->tables[slot][hook];
	int r;

	if (!table->unknown &&
	    (lines ? table->current_fd >= 0 && table_equals(table->current_fd, lines)
		   : table->current_fd < 0))
		return table->behind ? keep_up(map, map->staged_set, slot, hook, err) : 0;
	if (lines) {
		r = make_table(lines, &table->staged_fd, err);
		if (r < 0)
			return r;
	}
	table->changed = true;
	return put_table(map, map->staged_set, slot, hook, table->staged_fd, err);
}

static int stage_tables(struct redirect_map *map, const struct redirect *redirects,
			const u32 *numbers, size_t n, const struct redirect_scope *scopes,
			size_t n_scopes, struct error *err)
{
	_cleanup_free_ struct fwd_port_line *lines = malloc(TABLE_BYTES);
	bool in_scope[FWD_MAX_INTERFACES] = {0};
	int r = 0;

	if (!lines)
		return error_no_memory(err);
	for (size_t i = 0; i < n_scopes; i++) {
		in_scope[scopes[i].slot] = true;
		for (u32 hook = 0; hook < HOOKS && !r; hook++) {
			bool filled =
				fill_table(lines, &scopes[i], hook ? DIRECTION_OUT : DIRECTION_IN,
					   redirects, numbers, n);

			r = stage_table(map, scopes[i].slot, hook, filled ? lines : NULL, err);
		}
		if (r < 0)
			return r;
	}
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		for (u32 hook = 0; hook < HOOKS && !in_scope[slot] && !r; hook++)
			if (!map->tables[slot][hook].unknown)
				r = stage_table(map, slot, hook, NULL, err);
	return r;
}

int redirect_map_stage(struct redirect_map *map, unsigned set, const struct redirect *redirects,
		       size_t n, const struct redirect_scope *scopes, size_t n_scopes,
		       struct error *err)
{
	_cleanup_free_ u32 *numbers = calloc(n + 1, sizeof(*numbers));
	int r = 0;

	if (!numbers)
		return error_no_memory(err);
	map->staged = true;
	map->staged_set = set;
	memset(map->keep, 0, sizeof(map->keep));
	memset(map->fresh, 0, sizeof(map->fresh));
	for (size_t i = 0; i < n && !r; i++) {
		numbers[i] = find_row(map, &redirects[i]);
		if (!numbers[i]) {
			r = allocate_row(map, &redirects[i], &numbers[i], err);
			map->fresh[numbers[i]] = true;
		}
		map->keep[numbers[i]] = true;
	}
	if (!r)
		r = stage_tables(map, redirects, numbers, n, scopes, n_scopes, err);
	if (r < 0)
		redirect_map_abort(map);
	return r;
}

/* Brings the set that packets do not see to the same tables as the other, and forgets the rest. */
static void finish(struct redirect_map *map, unsigned other_set)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		for (u32 hook = 0; hook < HOOKS; hook++) {
			struct table *table = &map->tables[slot][hook];

			if (!table->changed)
				continue;
			keep_up(map, other_set, slot, hook, NULL);
			if (table->staged_fd >= 0)
				close(table->staged_fd);
			table->staged_fd = -1;
			table->changed = false;
		}
	}
	map->staged = false;
}

void redirect_map_settle(struct redirect_map *map)
{
	if (!map->staged)
		return;
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		for (u32 hook = 0; hook < HOOKS; hook++) {
			struct table *table = &map->tables[slot][hook];
			int old = table->current_fd;

			if (!table->changed)
				continue;
			table->current_fd = table->staged_fd;
			table->staged_fd = old;
			table->unknown = false;
		}
	}
	/* Each update below waits for the packets that hold what it replaces (V5). */
	finish(map, !map->staged_set);
	free_unused_rows(map);
}

void redirect_map_abort(struct redirect_map *map)
{
	if (!map->staged)
		return;
	finish(map, map->staged_set);
	for (u32 i = 1; i < FWD_MAX_REDIRECTS; i++)
		if (map->fresh[i])
			map->rows[i].used = 0;
}

/* ---- verifying ---- */

/* In the place of the number of a redirect that has none: told of already. */
#define NO_ROW UINT16_MAX
_Static_assert(NO_ROW > FWD_MAX_REDIRECTS, "no redirect's number");

/* One table as it should be and as it is. */
struct sight {
	const struct redirect_scope *scope;
	u8 direction;
	const struct fwd_port_line *wanted, *seen;
	struct differences *differences;
};

static u16 port_redirect(const struct fwd_port_line *lines, u32 protocol, u32 port)
{
	return lines[FWD_LINE_INDEX(protocol, port)].redirect[port % FWD_PORT_LINE];
}

static void tell_ports(const struct sight *sight, u32 protocol, u32 first, u32 last)
{
	u16 wanted = port_redirect(sight->wanted, protocol, first);
	u16 seen = port_redirect(sight->seen, protocol, first);
	const struct redirect ports = {
		.protocol = protocol == FWD_TCP ? IPPROTO_TCP : IPPROTO_UDP,
		.port_first = (u16)first,
		.port_last = (u16)last,
	};
	char text[REDIRECT_PORTS_TEXT_MAX];

	if (wanted == NO_ROW)
		return;
	redirect_ports_format(&ports, text);
	differences_add(sight->differences, DIFFERENCE_REDIRECT, text, "%s %s on %s: %s", text,
			direction_names[sight->direction], sight->scope->name,
			!seen	  ? "redirected by the rules, not in the kernel's maps"
			: !wanted ? "redirected in the kernel's maps, and no rule says so"
				  : "redirected in the kernel's maps by another rule");
}

/* Ports beside each other that differ in the same way are told of together. */
static void compare_table(const struct sight *sight)
{
	for (u32 protocol = 0; protocol < FWD_PROTOCOLS; protocol++) {
		for (u32 port = 0, next; port <= UINT16_MAX; port = next) {
			u16 wanted = port_redirect(sight->wanted, protocol, port);
			u16 seen = port_redirect(sight->seen, protocol, port);

			next = port + 1;
			if (wanted == seen)
				continue;
			while (next <= UINT16_MAX &&
			       port_redirect(sight->wanted, protocol, next) == wanted &&
			       port_redirect(sight->seen, protocol, next) == seen)
				next++;
			tell_ports(sight, protocol, port, next - 1);
		}
	}
}

/* A descriptor of the table that packets of `set` find, or -1. */
static int get_table(const struct redirect_map *map, unsigned set, u32 slot, u32 hook, u32 *ret_id)
{
	u32 index = FWD_TABLE_INDEX(set, slot, hook + FWD_HOOK_TC_IN);

	*ret_id = 0;
	if (bpf_map_lookup_elem(map->fds.tables, &index, ret_id) < 0)
		return -1;
	return bpf_map_get_fd_by_id(*ret_id);
}

void redirect_map_find_tables(const struct redirect_map *map, unsigned set,
			      const struct fwd_interface *slots, struct redirect_tables *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		for (u32 hook = 0; slots[slot].ifindex && hook < HOOKS; hook++) {
			u32 index = FWD_TABLE_INDEX(set, slot, hook + FWD_HOOK_TC_IN);

			bpf_map_lookup_elem(map->fds.tables, &index, &ret->ids[slot][hook]);
		}
}

/* 0: it is none. */
static u32 table_id(int fd)
{
	struct bpf_map_info info = {0};
	u32 size = sizeof(info);

	return fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ? 0 : info.id;
}

/* What packets find in `set`; no table holds nothing. */
static void read_table(const struct redirect_map *map, unsigned set,
		       const struct redirect_tables *found, u32 slot, u32 hook,
		       struct fwd_port_line *ret)
{
	const struct table *table = &map->tables[slot][hook];
	_cleanup_close_ int fd = -1;
	void *memory = MAP_FAILED;
	u32 id;

	if (found && !table->unknown && found->ids[slot][hook] == table_id(table->current_fd))
		fd = dup(table->current_fd);
	else
		fd = get_table(map, set, slot, hook, &id);
	if (fd >= 0)
		memory = mmap(NULL, TABLE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		memset(ret, 0, TABLE_BYTES);
		return;
	}
	memcpy(ret, memory, TABLE_BYTES);
	munmap(memory, TABLE_BYTES);
}

static void find_rows(const struct redirect_map *map, const struct redirect *redirects, size_t n,
		      u32 *numbers, struct differences *ret)
{
	char text[REDIRECT_PORTS_TEXT_MAX];

	for (size_t i = 0; i < n; i++) {
		numbers[i] = find_row(map, &redirects[i]);
		if (numbers[i])
			continue;
		numbers[i] = NO_ROW;
		redirect_ports_format(&redirects[i], text);
		differences_add(ret, DIFFERENCE_REDIRECT, text,
				"%s %s to %s: a rule, and not in the kernel's maps", text,
				direction_names[redirects[i].direction], redirects[i].target);
	}
}

int redirect_map_verify(const struct redirect_map *map, unsigned set,
			const struct redirect_tables *found, const struct redirect *redirects,
			size_t n, const struct redirect_scope *scopes, size_t n_scopes,
			struct differences *ret)
{
	_cleanup_free_ struct fwd_port_line *wanted = malloc(TABLE_BYTES);
	_cleanup_free_ struct fwd_port_line *seen = malloc(TABLE_BYTES);
	_cleanup_free_ u32 *numbers = calloc(n + 1, sizeof(*numbers));

	if (!wanted || !seen || !numbers)
		return -ENOMEM;
	find_rows(map, redirects, n, numbers, ret);
	for (size_t i = 0; i < n_scopes; i++) {
		for (u32 hook = 0; hook < HOOKS; hook++) {
			const struct sight sight = {
				.scope = &scopes[i],
				.direction = hook ? DIRECTION_OUT : DIRECTION_IN,
				.wanted = wanted,
				.seen = seen,
				.differences = ret,
			};

			fill_table(wanted, &scopes[i], sight.direction, redirects, numbers, n);
			read_table(map, set, found, scopes[i].slot, hook, seen);
			if (memcmp(wanted, seen, TABLE_BYTES) != 0)
				compare_table(&sight);
		}
	}
	return 0;
}

void redirect_map_verify_target(const struct redirect_map *map, u32 number,
				const struct redirect_link *link, struct differences *ret)
{
	const struct fwd_redirect *row = &map->rows[number];
	const struct redirect ports = {
		.protocol = row->protocol,
		.port_first = row->port_first,
		.port_last = row->port_last,
	};
	char text[REDIRECT_PORTS_TEXT_MAX];

	if (!row->used || has_target(row, link))
		return;
	redirect_ports_format(&ports, text);
	differences_add(ret, DIFFERENCE_REDIRECT, text,
			"%s to %.16s: the kernel's maps have another target than %.16s is now",
			text, row->target_name, row->target_name);
}

/* ---- opening ---- */

/*
 * The tables that an earlier daemon left; the next stage compares them. Only what differs between
 * the sets is put right, and only slots in use are looked at: an update waits for a grace period,
 * and up to Linux 6.6 so does a look-up.
 */
static void adopt_tables(struct redirect_map *map, unsigned set)
{
	const struct fwd_interface *slots = map->fds.slots;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++) {
		for (u32 hook = 0; hook < HOOKS; hook++) {
			struct table *table = &map->tables[slot][hook];
			u32 id, other_id;
			int other;

			*table = (struct table){.current_fd = -1, .staged_fd = -1};
			table->unknown = slots && !slots[slot].ifindex;
			if (!slots || !slots[slot].ifindex)
				continue;
			table->current_fd = get_table(map, set, slot, hook, &id);
			other = get_table(map, !set, slot, hook, &other_id);
			closep(&other);
			if (id != other_id)
				keep_up(map, !set, slot, hook, NULL); /* V1 */
		}
	}
}

void redirect_map_look_again(struct redirect_map *map, unsigned set,
			     const struct fwd_interface *slots)
{
	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		for (u32 hook = 0; hook < HOOKS; hook++)
			closep(&map->tables[slot][hook].current_fd);
	map->fds.slots = slots;
	adopt_tables(map, set);
}

int redirect_map_open(const struct redirect_map_fds *fds, unsigned set, struct redirect_map **ret,
		      struct error *err)
{
	_cleanup_(redirect_map_closep) struct redirect_map *map = calloc(1, sizeof(*map));
	void *memory;

	if (!map)
		return error_no_memory(err);
	map->fds = *fds;
	memory = mmap(NULL, FWD_MAX_REDIRECTS * sizeof(*map->rows), PROT_READ | PROT_WRITE,
		      MAP_SHARED, fds->redirects, 0);
	if (memory == MAP_FAILED)
		return error_set(err, -errno, "cannot map the redirects: %s", error_name(errno));
	map->rows = memory;
	adopt_tables(map, set);
	*ret = take_pointer(&map);
	return 0;
}

void redirect_map_close(struct redirect_map *map)
{
	if (!map)
		return;
	if (map->rows) {
		munmap(map->rows, FWD_MAX_REDIRECTS * sizeof(*map->rows));
		for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
			for (u32 hook = 0; hook < HOOKS; hook++)
				closep(&map->tables[slot][hook].current_fd);
	}
	free(map);
}

/* ---- targets and counters ---- */

void redirect_map_set_target(struct redirect_map *map, const char *name,
			     const struct redirect_link *link)
{
	for (u32 i = 1; i < FWD_MAX_REDIRECTS; i++)
		if (map->rows[i].used &&
		    !strncmp(map->rows[i].target_name, name, sizeof(map->rows[i].target_name)))
			set_row_target(&map->rows[i], link);
}

bool redirect_map_next_target(const struct redirect_map *map, u32 *at, char name[static IFNAMSIZ])
{
	for (; *at < FWD_MAX_REDIRECTS; (*at)++) {
		const struct fwd_redirect *row = &map->rows[*at];

		if (!*at || !row->used)
			continue;
		memcpy(name, row->target_name, IFNAMSIZ);
		(*at)++;
		return true;
	}
	return false;
}

bool redirect_map_next(const struct redirect_map *map, u32 *at, struct redirect *ret)
{
	for (; *at < FWD_MAX_REDIRECTS; (*at)++) {
		const struct fwd_redirect *row = &map->rows[*at];

		if (!*at || !row->used)
			continue;
		*ret = (struct redirect){
			.direction = row->direction,
			.protocol = row->protocol,
			.port_first = row->port_first,
			.port_last = row->port_last,
			.mode = row->mode_wanted,
		};
		memcpy(ret->interface, row->interface, sizeof(ret->interface) - 1);
		memcpy(ret->target, row->target_name, sizeof(ret->target) - 1);
		if (!redirect_is_valid(ret))
			ret->target[0] = '\0';
		(*at)++;
		return true;
	}
	return false;
}

static void read_count(const struct redirect_map *map, u32 number, struct fwd_counter *ret)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct fwd_counter *counts = calloc((size_t)cpus, sizeof(*counts));

	*ret = (struct fwd_counter){0};
	if (!counts || bpf_map_lookup_elem(map->fds.counts, &number, counts) < 0)
		return;
	for (int i = 0; i < cpus; i++) {
		ret->packets += counts[i].packets;
		ret->bytes += counts[i].bytes;
	}
}

bool redirect_map_read(const struct redirect_map *map, const struct redirect *redirect,
		       struct redirect_state *ret)
{
	u32 number = find_row(map, redirect);
	struct fwd_counter count;

	if (!number)
		return false;
	read_count(map, number, &count);
	*ret = (struct redirect_state){
		.packets = count.packets,
		.bytes = count.bytes,
		.has_target = map->rows[number].target.ifindex != 0,
		.mode = wire_mode(map->rows[number].target.mode),
	};
	return true;
}

size_t redirect_map_bytes(const struct redirect_map *map)
{
	size_t bytes = 0;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		for (u32 hook = 0; hook < HOOKS; hook++)
			bytes += map->tables[slot][hook].current_fd >= 0 ? TABLE_BYTES : 0;
	return bytes;
}
