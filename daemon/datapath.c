// SPDX-License-Identifier: GPL-2.0-or-later
#include "datapath.h"

#include "grace.h"
#include "tc.skel.h"
#include "xdp.skel.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <string.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* The maps that stay as long as the datapath; beside them stand those of the banks. */
enum map_id {
	MAP_CONTROL,
	MAP_REDIRECT_TABLES,
	MAP_REDIRECTS,
	MAP_REDIRECT_COUNTERS,
	MAP_COUNTERS,
	MAP_INTERFACES,
	MAPS,
};

static const char *const map_names[] = {
	[MAP_CONTROL] = FWD_MAP_CONTROL,     [MAP_REDIRECT_TABLES] = FWD_MAP_REDIRECT_TABLES,
	[MAP_REDIRECTS] = FWD_MAP_REDIRECTS, [MAP_REDIRECT_COUNTERS] = FWD_MAP_REDIRECT_COUNTERS,
	[MAP_COUNTERS] = FWD_MAP_COUNTERS,   [MAP_INTERFACES] = FWD_MAP_INTERFACES,
};
_Static_assert(ARRAY_SIZE(map_names) == MAPS, "a name for each map");

static const char *const hook_names[] = {
	[FWD_HOOK_XDP] = "xdp",
	[FWD_HOOK_TC_IN] = "tc_in",
	[FWD_HOOK_TC_OUT] = "tc_out",
};
_Static_assert(ARRAY_SIZE(hook_names) == FWD_HOOKS, "a name for each hook");

#define CURRENT	       "current"
#define NEXT	       "next"
#define OLD	       "old"
#define INTERFACE_SIZE (FWD_MAX_INTERFACES * sizeof(struct fwd_interface))

static const char *const set_names[] = {CURRENT, NEXT, OLD};
_Static_assert(ARRAY_SIZE(set_names) == DATAPATH_SETS, "a name for each set");

struct datapath {
	char pin_dir[PATH_MAX - 64];
	const char *set; /* CURRENT or NEXT */
	int fds[MAPS];
	struct fwd_control *control;
	struct fwd_interface *interfaces;
	struct prefix_map *banks[FWD_BANKS]; /* owned; one in use, one empty or offered */
	bool pins_behind; /* pins of the bank that is not in use may be of maps that were refused */
	struct redirect_map *redirects;
	bool whole;
	int lock_fd; /* of a pin directory that was made anew; -1: none */

	/* Views are written again after these. */
	u64 left[FWD_VIEWS];

	/* What is staged. */
	bool one_store; /* no other view is needed */
	bool redirects_too;
	struct fwd_view next;

	struct program_set ahead; /* loaded, and not attached yet */
};

static struct fwd_view *current_view(const struct datapath *dp)
{
	return &dp->control->views[dp->control->view % FWD_VIEWS];
}

static unsigned current_bank(const struct datapath *dp)
{
	return current_view(dp)->bank & 1;
}

struct prefix_map *datapath_prefixes(const struct datapath *dp)
{
	return dp->banks[current_bank(dp)];
}

static void pin_path(const struct datapath *dp, const char *name, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s/%s", dp->pin_dir, dp->set, name);
}

/* ---- opening and making ---- */

static struct datapath *new_datapath(const char *pin_dir, const char *set)
{
	struct datapath *dp = calloc(1, sizeof(*dp));

	if (!dp)
		return NULL;
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", pin_dir);
	dp->set = set;
	dp->lock_fd = -1;
	for (size_t i = 0; i < MAPS; i++)
		dp->fds[i] = -1;
	return dp;
}

static int map_memory(int fd, size_t bytes, void **ret, struct error *err)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED) {
		error_set(err, -EIO, "cannot map a pinned map into memory: %s", error_name(errno));
		return -EIO;
	}
	*ret = memory;
	return 0;
}

/* Everything in user space over the descriptors, but for the banks. */
static int attach_maps(struct datapath *dp, bool adopted, struct error *err)
{
	struct redirect_map_fds redirects = {
		.tables = dp->fds[MAP_REDIRECT_TABLES],
		.redirects = dp->fds[MAP_REDIRECTS],
		.counts = dp->fds[MAP_REDIRECT_COUNTERS],
	};
	void *memory = NULL;
	int r;

	if (!dp->control) {
		r = map_memory(dp->fds[MAP_CONTROL], sizeof(*dp->control), &memory, err);
		if (r < 0)
			return r;
		dp->control = memory;
	}
	r = map_memory(dp->fds[MAP_INTERFACES], INTERFACE_SIZE, &memory, err);
	if (r < 0)
		return r;
	dp->interfaces = memory;
	redirects.slots = adopted ? dp->interfaces : NULL;
	return redirect_map_open(&redirects, current_view(dp)->tables & 1, &dp->redirects, err);
}

static int adopt_bank(struct datapath *dp, unsigned bank, struct error *err)
{
	const u32 none[FWD_TRIES] = {0};
	bool used = bank == current_bank(dp);
	char name[PREFIX_MAP_NAME_MAX], path[PATH_MAX];
	int fds[PART_COUNT] = {-1, -1, -1}, r = 0;

	for (size_t i = 0; i < PART_COUNT; i++) {
		prefix_map_name((enum prefix_map_part)i, bank, name);
		pin_path(dp, name, path);
		fds[i] = bpf_obj_get(path);
		if (fds[i] < 0)
			r = -EUCLEAN;
	}
	if (!r)
		r = prefix_map_adopt(fds, used ? current_view(dp)->root : none, &dp->banks[bank],
				     err);
	for (size_t i = 0; i < PART_COUNT; i++)
		closep(&fds[i]);
	return r;
}

/* In the place of a pin that may be there, which at no moment is missing. */
static int replace_pin(const struct datapath *dp, int fd, const char *path, struct error *err)
{
	char fresh[PATH_MAX];

	pin_path(dp, "fresh", fresh);
	unlink(fresh);
	if (bpf_obj_pin(fd, fresh) < 0 || rename(fresh, path) < 0)
		return error_set(err, -errno, "cannot pin %s: %s", path, error_name(errno));
	return 0;
}

static int pin_bank(const struct datapath *dp, unsigned bank, const struct prefix_map *map,
		    struct error *err)
{
	char name[PREFIX_MAP_NAME_MAX], path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; !r && i < PART_COUNT; i++) {
		prefix_map_name((enum prefix_map_part)i, bank, name);
		pin_path(dp, name, path);
		r = replace_pin(dp, prefix_map_fd(map, (enum prefix_map_part)i), path, err);
	}
	return r;
}

int datapath_offer_bank(struct datapath *dp, struct prefix_map *prefixes, struct error *err)
{
	unsigned other = datapath_offered_bank(dp);
	int r = pin_bank(dp, other, prefixes, err); /* V4 */

	dp->pins_behind = r < 0;
	if (r < 0) {
		datapath_keep_pins(dp, NULL);
		return r;
	}
	program_set_clear(&dp->ahead);
	prefix_map_close(dp->banks[other]);
	dp->banks[other] = prefixes;
	return 0;
}

int datapath_keep_pins(struct datapath *dp, struct error *err)
{
	unsigned other = datapath_offered_bank(dp);
	int r = dp->pins_behind ? pin_bank(dp, other, dp->banks[other], err) : 0;

	dp->pins_behind = r < 0;
	return r;
}

unsigned datapath_offered_bank(const struct datapath *dp)
{
	return !current_bank(dp);
}

struct prefix_map *datapath_offered(const struct datapath *dp)
{
	return dp->banks[datapath_offered_bank(dp)];
}

static bool exists(const char *pin_dir, const char *set)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/%s", pin_dir, set, map_names[MAP_CONTROL]);
	return !access(path, F_OK);
}

/* The first two fields of control are the same in every version. */
static bool is_adoptable(struct datapath *dp)
{
	struct bpf_map_info info = {0};
	char path[PATH_MAX];
	u32 size = sizeof(info);
	void *memory = NULL;

	pin_path(dp, map_names[MAP_CONTROL], path);
	dp->fds[MAP_CONTROL] = bpf_obj_get(path);
	if (dp->fds[MAP_CONTROL] < 0 ||
	    bpf_obj_get_info_by_fd(dp->fds[MAP_CONTROL], &info, &size) < 0 ||
	    info.value_size != sizeof(struct fwd_control) ||
	    map_memory(dp->fds[MAP_CONTROL], sizeof(*dp->control), &memory, NULL) < 0)
		return false;
	dp->control = memory;
	return dp->control->abi_version == FWD_ABI_VERSION && dp->control->complete;
}

/* Of a daemon that died between the two renames of datapath_promote(). */
static int finish_promotion(const char *pin_dir, struct error *err)
{
	_cleanup_(datapath_closep) struct datapath *dp = NULL;
	char next[PATH_MAX], current[PATH_MAX];

	if (exists(pin_dir, CURRENT) || !exists(pin_dir, NEXT))
		return 0;
	dp = new_datapath(pin_dir, NEXT);
	if (!dp)
		return error_no_memory(err);
	snprintf(next, sizeof(next), "%s/" NEXT, pin_dir);
	snprintf(current, sizeof(current), "%s/" CURRENT, pin_dir);
	if (is_adoptable(dp) && rename(next, current) < 0)
		return error_set(err, -errno, "cannot rename %s: %s", next, error_name(errno));
	return 0;
}

int datapath_adopt(const char *pin_dir, struct datapath **ret, struct error *err)
{
	_cleanup_(datapath_closep) struct datapath *dp = new_datapath(pin_dir, CURRENT);
	char path[PATH_MAX];
	int r;

	if (!dp)
		return error_no_memory(err);
	r = finish_promotion(pin_dir, err);
	if (r < 0)
		return r;
	if (!is_adoptable(dp))
		return 0;
	for (size_t i = 0; i < MAPS; i++) {
		pin_path(dp, map_names[i], path);
		if (dp->fds[i] < 0)
			dp->fds[i] = bpf_obj_get(path);
		if (dp->fds[i] < 0)
			return 0; /* somebody took it away: as good as none */
	}
	/* What an earlier daemon unhooked is free to those who open the maps (V5). */
	grace_wait();
	r = attach_maps(dp, true, err);
	for (unsigned bank = 0; !r && bank < FWD_BANKS; bank++)
		r = adopt_bank(dp, bank, err);
	if (r == -EUCLEAN)
		return 0;
	if (r < 0)
		return r;
	dp->whole = !dp->control->changing;
	*ret = take_pointer(&dp);
	return 0;
}

bool datapath_is_whole(const struct datapath *dp)
{
	return dp->whole;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int remove_tree(const char *path, struct error *err)
{
	int r;

	if (access(path, F_OK) < 0)
		return 0;
	r = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (r < 0)
		return error_set(err, r == -1 ? -errno : r, "cannot remove the pins in %s: %s",
				 path, error_name(r == -1 ? errno : r));
	return 0;
}

int datapath_lock(const char *pin_dir, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = -1;

	if (mkdir(pin_dir, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make the pin directory %s: %s", pin_dir,
				 error_name(errno));
	fd = open(pin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "cannot open the pin directory %s: %s", pin_dir,
				 error_name(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(
			err, -EBUSY,
			"another fwd uses the pin directory %s; stop it, or give this one a "
			"pin_dir of its own",
			pin_dir);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int make_directory(const struct datapath *dp, struct error *err)
{
	char next[PATH_MAX], old[PATH_MAX];
	int r;

	snprintf(next, sizeof(next), "%s/%s", dp->pin_dir, dp->set);
	snprintf(old, sizeof(old), "%s/" OLD, dp->pin_dir);
	/*
	 * A daemon that was killed may have attached programs on these already: its control map
	 * must stay known until they are replaced (D2).
	 */
	r = remove_tree(old, err);
	if (r < 0)
		return r;
	if (rename(next, old) < 0 && errno != ENOENT)
		return error_set(err, -errno, "cannot rename %s: %s", next, error_name(errno));
	if (mkdir(next, 0700) < 0)
		return error_set(err, -errno, "cannot make %s: %s", next, error_name(errno));
	return 0;
}

/* The TC object has every map; with no program to load it makes just these. */
static int make_maps(struct datapath *dp, struct error *err)
{
	struct tc_bpf *skel = tc_bpf__open();
	int r;

	if (!skel)
		return error_set(err, -errno, "cannot open the programs: %s", error_name(errno));
	bpf_program__set_autoload(skel->progs.fwd_tc_in, false);
	bpf_program__set_autoload(skel->progs.fwd_tc_out, false);
	r = tc_bpf__load(skel);
	if (r < 0)
		error_set(err, r, "the kernel does not make the maps: %s", error_name(r));
	for (size_t i = 0; !r && i < MAPS; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(skel->obj, map_names[i]);

		dp->fds[i] = dup(bpf_map__fd(map));
		if (dp->fds[i] < 0)
			r = error_set(err, -errno, "cannot keep a map: %s", error_name(errno));
	}
	tc_bpf__destroy(skel);
	return r;
}

static int pin_maps(const struct datapath *dp, struct error *err)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < MAPS; i++) {
		pin_path(dp, map_names[i], path);
		if (bpf_obj_pin(dp->fds[i], path) < 0)
			return error_set(err, -errno, "cannot pin %s: %s", path, error_name(errno));
	}
	for (unsigned bank = 0; bank < FWD_BANKS; bank++) {
		int r = pin_bank(dp, bank, dp->banks[bank], err);

		if (r < 0)
			return r;
	}
	return 0;
}

int datapath_create(const char *pin_dir, struct prefix_map *prefixes, u32 flags,
		    struct datapath **ret, struct error *err)
{
	_cleanup_(datapath_closep) struct datapath *dp = new_datapath(pin_dir, NEXT);
	int r;

	if (!dp)
		return error_no_memory(err);
	r = make_directory(dp, err);
	if (!r)
		r = make_maps(dp, err);
	if (!r)
		r = attach_maps(dp, false, err);
	if (!r)
		r = prefix_map_build(NULL, 0, 1, &dp->banks[1], err);
	if (r < 0)
		return r;
	dp->banks[0] = prefixes;
	r = pin_maps(dp, err);
	if (r < 0) {
		dp->banks[0] = NULL; /* still the caller's */
		return r;
	}
	dp->control->abi_version = FWD_ABI_VERSION;
	current_view(dp)->flags = (u8)flags;
	prefix_map_roots(prefixes, current_view(dp)->root);
	dp->whole = true;
	*ret = take_pointer(&dp);
	return 0;
}

int datapath_promote(struct datapath *dp, struct error *err)
{
	char current[PATH_MAX], next[PATH_MAX], old[PATH_MAX];
	int r;

	__atomic_store_n(&dp->control->complete, 1, __ATOMIC_RELEASE);
	snprintf(current, sizeof(current), "%s/" CURRENT, dp->pin_dir);
	snprintf(next, sizeof(next), "%s/" NEXT, dp->pin_dir);
	snprintf(old, sizeof(old), "%s/" OLD, dp->pin_dir);
	r = remove_tree(old, err);
	if (r < 0)
		return r;
	/* Adopted: a daemon before us may have died with new ones half made. */
	if (!strcmp(dp->set, CURRENT))
		return remove_tree(next, err);
	if (rename(current, old) < 0 && errno != ENOENT)
		return error_set(err, -errno, "cannot rename %s: %s", current, error_name(errno));
	if (rename(next, current) < 0)
		return error_set(err, -errno, "cannot rename %s: %s", next, error_name(errno));
	dp->set = CURRENT;
	return remove_tree(old, err);
}

void datapath_close(struct datapath *dp)
{
	if (!dp)
		return;
	program_set_clear(&dp->ahead);
	for (size_t i = 0; i < FWD_BANKS; i++)
		prefix_map_close(dp->banks[i]);
	redirect_map_close(dp->redirects);
	if (dp->control)
		munmap(dp->control, sizeof(*dp->control));
	if (dp->interfaces)
		munmap(dp->interfaces, INTERFACE_SIZE);
	for (size_t i = 0; i < MAPS; i++)
		closep(&dp->fds[i]);
	closep(&dp->lock_fd);
	free(dp);
}

int datapath_remove_pins(const char *pin_dir, struct error *err)
{
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(set_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", pin_dir, set_names[i]);
		r = remove_tree(path, err);
	}
	/* Stays where others have pins in it. */
	if (!r)
		rmdir(pin_dir);
	return r;
}

/* ---- whose programs ---- */

static u32 map_id(int fd)
{
	struct bpf_map_info info = {0};
	u32 size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ? 0 : info.id;
}

/* A map of a set; -1 where it is not there. */
static int open_pin(const char *pin_dir, const char *set, enum map_id map)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/%s", pin_dir, set, map_names[map]);
	return bpf_obj_get(path);
}

void datapath_read_owner(const char *pin_dir, struct datapath_owner *ret)
{
	*ret = (struct datapath_owner){0};
	for (size_t i = 0; i < DATAPATH_SETS; i++) {
		_cleanup_close_ int fd = open_pin(pin_dir, set_names[i], MAP_CONTROL);

		ret->control_ids[i] = fd < 0 ? 0 : map_id(fd);
	}
}

static bool says_clsact(int fd, int ifindex)
{
	struct fwd_interface row;

	for (u32 slot = 0; slot < FWD_MAX_INTERFACES; slot++)
		if (!bpf_map_lookup_elem(fd, &slot, &row) && row.ifindex == (u32)ifindex &&
		    row.flags & FWD_INTERFACE_CLSACT)
			return true;
	return false;
}

int datapath_added_clsact(const char *pin_dir, int ifindex)
{
	int r = -ENOENT;

	for (size_t i = 0; i < DATAPATH_SETS; i++) {
		_cleanup_close_ int fd = open_pin(pin_dir, set_names[i], MAP_INTERFACES);
		struct bpf_map_info info = {0};
		u32 size = sizeof(info);

		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ||
		    info.value_size != sizeof(struct fwd_interface))
			continue;
		if (says_clsact(fd, ifindex))
			return 1;
		r = 0;
	}
	return r;
}

/* The maps that a program uses. */
struct used_maps {
	char program[BPF_OBJ_NAME_LEN];
	u32 ids[64];
	u32 n;
};

static int read_used_maps(u32 program_id, struct used_maps *ret)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(program_id);
	struct bpf_prog_info info = {
		.nr_map_ids = ARRAY_SIZE(ret->ids),
		.map_ids = (u64)(uintptr_t)ret->ids,
	};
	u32 size = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	ret->n = info.nr_map_ids < ARRAY_SIZE(ret->ids) ? info.nr_map_ids : ARRAY_SIZE(ret->ids);
	memcpy(ret->program, info.name, sizeof(ret->program));
	return 0;
}

static bool is_used(const struct used_maps *used, u32 id)
{
	for (u32 i = 0; id && i < used->n; i++)
		if (used->ids[i] == id)
			return true;
	return false;
}

static bool is_control(u32 id)
{
	_cleanup_close_ int fd = bpf_map_get_fd_by_id(id);
	struct bpf_map_info info = {0};
	u32 size = sizeof(info);

	return fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size) &&
	       info.type == BPF_MAP_TYPE_ARRAY && info.max_entries == 1 &&
	       !strcmp(info.name, FWD_MAP_CONTROL);
}

/* The names are those of all versions. */
static bool looks_ours(const struct used_maps *used)
{
	static const char *const names[] = {"fwd_xdp", "fwd_tc_in", "fwd_tc_out"};
	bool named = false;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		named |= !strcmp(used->program, names[i]);
	for (u32 i = 0; named && i < used->n; i++)
		if (is_control(used->ids[i]))
			return true;
	return false;
}

int datapath_owner_has(const struct datapath_owner *owner, u32 program_id, bool *ret,
		       struct error *err)
{
	struct used_maps used = {.n = 0};
	int r = program_id ? read_used_maps(program_id, &used) : 0;
	bool has = false;

	if (r < 0 && r != -ENOENT)
		return error_set(err, r, "cannot ask program %u which maps it uses: %s", program_id,
				 error_name(r));
	for (size_t i = 0; i < DATAPATH_SETS; i++)
		has |= is_used(&used, owner->control_ids[i]);
	*ret = has || (owner->by_looks && looks_ours(&used));
	return 0;
}

bool datapath_has_program(const struct datapath *dp, enum fwd_hook hook, u32 program_id)
{
	struct used_maps used;

	if (read_used_maps(program_id, &used) < 0 || !is_used(&used, map_id(dp->fds[MAP_CONTROL])))
		return false;
	/* That of packets coming in does not look prefixes up. */
	for (size_t i = 0; hook != FWD_HOOK_TC_IN && i < FWD_BANKS; i++)
		if (!is_used(&used, map_id(prefix_map_fd(dp->banks[i], PART_LINES))))
			return false;
	return true;
}

/* ---- changes of the policy ---- */

struct redirect_map *datapath_redirects(struct datapath *dp)
{
	return dp->redirects;
}

u32 datapath_flags(const struct datapath *dp)
{
	return current_view(dp)->flags;
}

/* The view behind the one in use, once no packet holds it. */
static unsigned next_view(const struct datapath *dp)
{
	unsigned next = (dp->control->view + 1) % FWD_VIEWS;

	grace_wait_for(dp->left[next]);
	return next;
}

static struct prefix_map *next_prefixes(const struct datapath *dp)
{
	return dp->banks[dp->next.bank];
}

/* What an earlier daemon left half done stays so until there is a new bank. */
static void end_change(struct datapath *dp)
{
	if (dp->whole)
		__atomic_store_n(&dp->control->changing, 0, __ATOMIC_RELEASE);
}

int datapath_stage(struct datapath *dp, const struct datapath_change *change, struct error *err)
{
	const struct fwd_view *now = current_view(dp);
	int r;

	dp->next = *now;
	dp->next.flags = (u8)change->flags;
	dp->redirects_too = change->redirects_too;
	if (change->offered_bank)
		dp->next.bank = !now->bank;
	if (change->redirects_too)
		dp->next.tables = !now->tables;
	dp->one_store = change->n_prefixes <= 1 && !memcmp(&dp->next, now, sizeof(*now));
	__atomic_store_n(&dp->control->changing, 1, __ATOMIC_SEQ_CST);
	r = change->offered_bank ? prefix_map_rework(next_prefixes(dp), change->prefixes,
						     change->n_prefixes, err)
				 : prefix_map_stage(next_prefixes(dp), change->prefixes,
						    change->n_prefixes, dp->one_store, err);
	if (r < 0) {
		end_change(dp);
		return r;
	}
	if (change->redirects_too)
		r = redirect_map_stage(dp->redirects, dp->next.tables, change->redirects,
				       change->n_redirects, change->scopes, change->n_scopes, err);
	if (r < 0)
		datapath_abort(dp);
	return r;
}

/* At most one root is another; it takes effect by that store, or by the settling of a table. */
static void commit_in_place(struct datapath *dp)
{
	struct fwd_view *view = current_view(dp);
	u32 roots[FWD_TRIES];

	prefix_map_roots(next_prefixes(dp), roots);
	prefix_map_prolong(next_prefixes(dp));
	for (size_t i = 0; i < FWD_TRIES; i++)
		if (view->root[i] != roots[i])
			__atomic_store_n(&view->root[i], roots[i], __ATOMIC_SEQ_CST); /* V3 */
	prefix_map_settle(next_prefixes(dp));
}

static void commit_view(struct datapath *dp)
{
	struct fwd_control *control = dp->control;
	unsigned old = control->view % FWD_VIEWS, next = next_view(dp);

	prefix_map_roots(next_prefixes(dp), dp->next.root);
	control->views[next] = dp->next;
	prefix_map_prolong(next_prefixes(dp));
	__atomic_store_n(&control->view, next, __ATOMIC_SEQ_CST); /* V1 */
	dp->left[old] = grace_ticket();
	prefix_map_settle(next_prefixes(dp));
	if (!dp->redirects_too)
		return;
	grace_wait_for(dp->left[old]);
	redirect_map_settle(dp->redirects);
}

void datapath_commit(struct datapath *dp)
{
	dp->whole |= dp->next.bank != current_bank(dp);
	if (dp->one_store)
		commit_in_place(dp);
	else
		commit_view(dp);
	end_change(dp);
}

void datapath_abort(struct datapath *dp)
{
	prefix_map_abort(next_prefixes(dp));
	redirect_map_abort(dp->redirects);
	end_change(dp);
}

void datapath_set_change(struct datapath *dp, u64 change)
{
	__atomic_store_n(&dp->control->change, change, __ATOMIC_RELEASE);
}

u64 datapath_change_number(const struct datapath *dp)
{
	return dp->control->change;
}

/* ---- verifying ---- */

void datapath_read_roots(const struct datapath *dp, u32 ret[FWD_TRIES])
{
	const struct fwd_view *view = current_view(dp);

	for (size_t i = 0; i < FWD_TRIES; i++)
		ret[i] = __atomic_load_n(&view->root[i], __ATOMIC_RELAXED);
}

unsigned datapath_table_set(const struct datapath *dp)
{
	return current_view(dp)->tables & 1;
}

static void verify_view(const struct datapath *dp, u32 flags, struct differences *ret)
{
	const struct fwd_control *control = dp->control;
	const struct fwd_view *view = current_view(dp);
	u32 seen[FWD_TRIES], roots[FWD_TRIES];

	datapath_read_roots(dp, seen);
	prefix_map_roots(datapath_prefixes(dp), roots);
	if (control->abi_version != FWD_ABI_VERSION || !control->complete || control->changing)
		differences_add(ret, DIFFERENCE_VIEW, FWD_MAP_CONTROL,
				"the pinned maps: a daemon that starts would not take them over");
	if (view->flags != flags)
		differences_add(ret, DIFFERENCE_VIEW, FWD_MAP_CONTROL,
				"blacklist.direction: the kernel's maps have others than the rules "
				"(%#x, not %#x)",
				view->flags, flags);
	if (view->bank >= FWD_BANKS || view->tables >= FWD_TABLE_SETS ||
	    memcmp(seen, roots, sizeof(seen)) != 0)
		differences_add(ret, DIFFERENCE_VIEW, FWD_MAP_CONTROL,
				"the view: packets are led elsewhere than to what the daemon made");
}

/* Has `visit` see each map with the path of its pin; stops at the first error. */
static int for_each_pin(const struct datapath *dp,
			int (*visit)(const struct datapath *dp, int fd, const char *path,
				     struct differences *differences, struct error *err),
			struct differences *differences, struct error *err)
{
	char path[PATH_MAX], name[PREFIX_MAP_NAME_MAX];
	int r = 0;

	for (size_t i = 0; !r && i < MAPS; i++) {
		pin_path(dp, map_names[i], path);
		r = visit(dp, dp->fds[i], path, differences, err);
	}
	for (unsigned bank = 0; bank < FWD_BANKS; bank++) {
		for (size_t i = 0; !r && i < PART_COUNT; i++) {
			enum prefix_map_part part = (enum prefix_map_part)i;

			prefix_map_name(part, bank, name);
			pin_path(dp, name, path);
			r = visit(dp, prefix_map_fd(dp->banks[bank], part), path, differences, err);
		}
	}
	return r;
}

/* The identifier of the map that is pinned there; 0: none. */
static u32 pinned_map(const char *path)
{
	_cleanup_close_ int fd = bpf_obj_get(path);

	return fd < 0 ? 0 : map_id(fd);
}

static int verify_pin(const struct datapath *dp, int fd, const char *path,
		      struct differences *differences, struct error *err)
{
	u32 there = pinned_map(path);

	if (there != map_id(fd))
		differences_add(differences, DIFFERENCE_PIN, path, "%s: %s", path,
				there ? "another map than the one in use is pinned there"
				      : "the map in use is not pinned there");
	return 0;
}

static int mend_pin(const struct datapath *dp, int fd, const char *path,
		    struct differences *differences, struct error *err)
{
	return pinned_map(path) == map_id(fd) ? 0 : replace_pin(dp, fd, path, err);
}

void datapath_verify(const struct datapath *dp, u32 flags, struct differences *ret)
{
	verify_view(dp, flags, ret);
	for_each_pin(dp, verify_pin, ret, NULL);
}

int datapath_mend(struct datapath *dp, struct error *err)
{
	struct fwd_view *view = current_view(dp);
	char set[PATH_MAX];
	int fd = -1;

	dp->control->abi_version = FWD_ABI_VERSION;
	__atomic_store_n(&dp->control->complete, 1, __ATOMIC_RELEASE);
	/* What the programs make of any number. */
	view->bank = view->bank != 0;
	view->tables &= 1;
	/* Where somebody removed the directory, the lock went with it. */
	if (!datapath_lock(dp->pin_dir, &fd, NULL)) {
		closep(&dp->lock_fd);
		dp->lock_fd = fd;
	}
	snprintf(set, sizeof(set), "%s/%s", dp->pin_dir, dp->set);
	if (mkdir(set, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make %s: %s", set, error_name(errno));
	return for_each_pin(dp, mend_pin, NULL, err);
}

/* ---- programs ---- */

struct fwd_interface *datapath_interfaces(struct datapath *dp)
{
	return dp->interfaces;
}

bool datapath_has_frags(void)
{
	static int known = -1;
	struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = BPF_F_XDP_HAS_FRAGS);

	if (known < 0) {
		_cleanup_close_ int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "fwd_probe", "GPL", insns,
						       ARRAY_SIZE(insns), &opts);

		known = fd >= 0;
	}
	return known;
}

static int reuse_map(struct bpf_object *obj, const char *name, int fd, struct error *err)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, name);
	int r = map ? bpf_map__reuse_fd(map, fd) : -ENOENT;

	return r < 0 ? error_set(err, r, "cannot give map %s to a program: %s", name, error_name(r))
		     : 0;
}

/* The maps that a program is loaded with, beside those that stay. */
struct bank_maps {
	const struct prefix_map *banks[FWD_BANKS];
};

static struct bank_maps banks_of(const struct datapath *dp)
{
	return (struct bank_maps){{dp->banks[0], dp->banks[1]}};
}

/* Hands the maps to an object that is open and not loaded. */
static int reuse_maps(const struct datapath *dp, const struct bank_maps *maps,
		      struct bpf_object *obj, struct error *err)
{
	char name[PREFIX_MAP_NAME_MAX];
	int r = 0;

	for (size_t i = 0; !r && i < MAPS; i++)
		r = reuse_map(obj, map_names[i], dp->fds[i], err);
	for (unsigned bank = 0; bank < FWD_BANKS; bank++) {
		for (size_t i = 0; !r && i < PART_COUNT; i++) {
			enum prefix_map_part part = (enum prefix_map_part)i;

			prefix_map_name(part, bank, name);
			r = reuse_map(obj, name, prefix_map_fd(maps->banks[bank], part), err);
		}
	}
	return r;
}

static int open_xdp(const struct datapath *dp, const struct bank_maps *maps, u32 slot, bool has_l2,
		    struct bpf_object **ret, struct error *err)
{
	struct xdp_bpf *skel = xdp_bpf__open();
	int r;

	if (!skel)
		return error_set(err, -errno, "cannot open the XDP program: %s", error_name(errno));
	skel->rodata->fwd_slot = slot;
	skel->rodata->fwd_has_l2 = has_l2;
	skel->rodata->fwd_has_frags = datapath_has_frags();
	r = reuse_maps(dp, maps, skel->obj, err);
	if (!r)
		*ret = take_pointer(&skel->obj);
	xdp_bpf__destroy(skel);
	return r;
}

int datapath_open_xdp(struct datapath *dp, u32 slot, bool has_l2, struct bpf_object **ret,
		      struct error *err)
{
	const struct bank_maps maps = banks_of(dp);

	return open_xdp(dp, &maps, slot, has_l2, ret, err);
}

/* The program outlives the object that it was loaded from. */
static int keep_program(const struct bpf_program *program, int *ret_fd, struct error *err)
{
	int fd = fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return error_set(err, -errno, "cannot keep a program: %s", error_name(errno));
	*ret_fd = fd;
	return 0;
}

static int load_xdp(const struct datapath *dp, const struct bank_maps *maps,
		    const struct program_kind *kind, int *ret_fd, struct error *err)
{
	struct bpf_object *obj = NULL;
	struct bpf_program *program;
	int r = open_xdp(dp, maps, kind->slot, kind->has_l2, &obj, err);

	if (r < 0)
		return r;
	program = bpf_object__next_program(obj, NULL);
	bpf_program__set_flags(program, kind->frags ? BPF_F_XDP_HAS_FRAGS : 0);
	r = bpf_object__load(obj);
	r = r < 0 ? error_set(err, r, "the kernel does not load the XDP program: %s", error_name(r))
		  : keep_program(program, ret_fd, err);
	bpf_object__close(obj);
	return r;
}

static int load_tc(const struct datapath *dp, const struct bank_maps *maps,
		   const struct program_kind *kind, int *ret_fd, struct error *err)
{
	struct tc_bpf *skel = tc_bpf__open();
	bool in = kind->hook == FWD_HOOK_TC_IN;
	int r;

	if (!skel)
		return error_set(err, -errno, "cannot open the TC programs: %s", error_name(errno));
	skel->rodata->fwd_slot = kind->slot;
	skel->rodata->fwd_has_l2 = kind->has_l2;
	bpf_program__set_autoload(skel->progs.fwd_tc_in, in);
	bpf_program__set_autoload(skel->progs.fwd_tc_out, !in);
	r = reuse_maps(dp, maps, skel->obj, err);
	if (!r) {
		r = tc_bpf__load(skel);
		if (r < 0)
			error_set(err, r, "the kernel does not load the TC program: %s",
				  error_name(r));
	}
	if (!r)
		r = keep_program(in ? skel->progs.fwd_tc_in : skel->progs.fwd_tc_out, ret_fd, err);
	tc_bpf__destroy(skel);
	return r;
}

static int load_program(const struct datapath *dp, const struct bank_maps *maps,
			const struct program_kind *kind, int *ret_fd, struct error *err)
{
	return kind->hook == FWD_HOOK_XDP ? load_xdp(dp, maps, kind, ret_fd, err)
					  : load_tc(dp, maps, kind, ret_fd, err);
}

static bool is_kind(const struct program_kind *a, const struct program_kind *b)
{
	return a->slot == b->slot && a->hook == b->hook && a->has_l2 == b->has_l2 &&
	       a->frags == b->frags;
}

static int take_or_load(struct datapath *dp, const struct program_kind *kind, int *ret_fd,
			struct error *err)
{
	const struct bank_maps maps = banks_of(dp);

	for (size_t i = 0; i < dp->ahead.n; i++) {
		struct loaded_program *loaded = &dp->ahead.items[i];

		if (loaded->fd < 0 || !is_kind(&loaded->kind, kind))
			continue;
		*ret_fd = take_fd(&loaded->fd);
		return 0;
	}
	return load_program(dp, &maps, kind, ret_fd, err);
}

int datapath_load_xdp(struct datapath *dp, u32 slot, bool has_l2, bool frags, int *ret_fd,
		      struct error *err)
{
	const struct program_kind kind = {slot, FWD_HOOK_XDP, has_l2, frags};

	return take_or_load(dp, &kind, ret_fd, err);
}

int datapath_load_tc(struct datapath *dp, u32 slot, enum fwd_hook hook, bool has_l2, int *ret_fd,
		     struct error *err)
{
	const struct program_kind kind = {slot, (u8)hook, has_l2, false};

	return take_or_load(dp, &kind, ret_fd, err);
}

/* ---- programs that are loaded ahead ---- */

void program_set_clear(struct program_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		closep(&set->items[i].fd);
	free(set->items);
	*set = (struct program_set){0};
}

void datapath_load_ahead(const struct datapath *dp, unsigned bank, const struct prefix_map *offered,
			 struct program_set *set)
{
	struct bank_maps maps = banks_of(dp);

	maps.banks[bank] = offered;
	for (size_t i = 0; i < set->n; i++)
		load_program(dp, &maps, &set->items[i].kind, &set->items[i].fd, NULL);
}

void datapath_take_programs(struct datapath *dp, struct program_set *set)
{
	program_set_clear(&dp->ahead);
	if (!set)
		return;
	dp->ahead = *set;
	*set = (struct program_set){0};
}

static void program_path(const struct datapath *dp, u32 slot, enum fwd_hook hook,
			 char path[static PATH_MAX])
{
	char name[32];

	snprintf(name, sizeof(name), "%s_%u", hook_names[hook], slot);
	pin_path(dp, name, path);
}

int datapath_pin_program(struct datapath *dp, u32 slot, enum fwd_hook hook, int fd,
			 struct error *err)
{
	char path[PATH_MAX];

	program_path(dp, slot, hook, path);
	return replace_pin(dp, fd, path, err);
}

void datapath_unpin_program(struct datapath *dp, u32 slot, enum fwd_hook hook)
{
	char path[PATH_MAX];

	program_path(dp, slot, hook, path);
	unlink(path);
}

static bool read_program_info(int fd, struct bpf_prog_info *ret)
{
	u32 size = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return bpf_obj_get_info_by_fd(fd, ret, &size) >= 0;
}

u32 datapath_program_id(int fd)
{
	struct bpf_prog_info info;

	return read_program_info(fd, &info) ? info.id : 0;
}

u32 datapath_pinned_program(const struct datapath *dp, u32 slot, enum fwd_hook hook)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];

	program_path(dp, slot, hook, path);
	fd = bpf_obj_get(path);
	return fd < 0 ? 0 : datapath_program_id(fd);
}

/* A program of the hook, loaded to be looked at. */
static int load_sample(struct datapath *dp, enum fwd_hook hook)
{
	const struct program_kind kind = {.hook = (u8)hook, .has_l2 = true};
	const struct bank_maps maps = banks_of(dp);
	int fd = -1;

	load_program(dp, &maps, &kind, &fd, NULL);
	return fd;
}

bool datapath_is_current_code(struct datapath *dp, enum fwd_hook hook, u32 program_id)
{
	/* The tag is over the instructions; neither maps nor a slot's constants change it. */
	static struct {
		bool known;
		u8 tag[BPF_TAG_SIZE];
	} own[FWD_HOOKS];
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(program_id);
	struct bpf_prog_info info;

	if (!own[hook].known) {
		_cleanup_close_ int sample = load_sample(dp, hook);

		if (sample < 0 || !read_program_info(sample, &info))
			return false;
		memcpy(own[hook].tag, info.tag, sizeof(info.tag));
		own[hook].known = true;
	}
	return fd >= 0 && read_program_info(fd, &info) &&
	       !memcmp(own[hook].tag, info.tag, sizeof(info.tag));
}

/* ---- counters ---- */

static u32 counters_index(u32 slot, enum fwd_hook hook)
{
	return slot * FWD_HOOKS + hook;
}

int datapath_counters(struct datapath *dp, u32 slot, enum fwd_hook hook, struct fwd_counters *ret)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct fwd_counters *per_cpu = calloc((size_t)cpus, sizeof(*per_cpu));
	u32 index = counters_index(slot, hook);
	struct fwd_counters sum = {0};

	if (!per_cpu)
		return -ENOMEM;
	if (bpf_map_lookup_elem(dp->fds[MAP_COUNTERS], &index, per_cpu) < 0)
		return -errno;
	for (int cpu = 0; cpu < cpus; cpu++) {
		for (size_t v = 0; v < FWD_VERDICTS; v++) {
			sum.by_verdict[v].packets += per_cpu[cpu].by_verdict[v].packets;
			sum.by_verdict[v].bytes += per_cpu[cpu].by_verdict[v].bytes;
		}
	}
	*ret = sum;
	return 0;
}

void datapath_clear_counters(struct datapath *dp, u32 slot)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct fwd_counters *zero = calloc((size_t)cpus, sizeof(*zero));

	for (u32 hook = 0; zero && hook < FWD_HOOKS; hook++) {
		u32 index = counters_index(slot, hook);

		bpf_map_update_elem(dp->fds[MAP_COUNTERS], &index, zero, BPF_ANY);
	}
}

/* ---- memory ---- */

/* What the kernel counts for a map: that of all CPUs, and of what it needs beside. */
static size_t map_bytes(int fd)
{
	_cleanup_fclose_ FILE *file = NULL;
	char path[64], line[128];
	size_t bytes = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %zu", &bytes) == 1)
			break;
	return bytes;
}

size_t datapath_bytes(const struct datapath *dp)
{
	size_t bytes = redirect_map_bytes(dp->redirects);

	for (size_t i = 0; i < MAPS; i++)
		bytes += map_bytes(dp->fds[i]);
	for (size_t i = 0; i < FWD_BANKS; i++)
		bytes += prefix_map_bytes(dp->banks[i]);
	return bytes;
}
