// SPDX-License-Identifier: GPL-2.0-or-later
#include "doctor_program.h"

#include "cleanup.h"
#include "doctor_facts.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <time.h>

#define BPFFS		    "/sys/fs/bpf"
#define LIBXDP_BPFFS	    "LIBXDP_BPFFS" /* where libxdp pins, if not there */
#define NS_PER_S	    1000000000
#define FDINFO_MAX	    4096
#define PINS_MAX	    10000 /* looked at */
#define DISPATCHER_PROGRAMS 10	  /* MAX_DISPATCHER_ACTIONS of libxdp */

static u64 seconds_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (u64)now.tv_sec;
}

static int read_program(int fd, struct program_facts *ret)
{
	struct bpf_prog_info info = {0};
	u32 size = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	*ret = (struct program_facts){.id = info.id};
	snprintf(ret->name, sizeof(ret->name), "%s", info.name);
	ret->loaded_s =
		seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME) + info.load_time / NS_PER_S;
	return 0;
}

int program_read(u32 id, struct program_facts *ret)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);

	return read_program(fd, ret);
}

/* ---- owners ---- */

static u32 program_of_fdinfo(const char *path)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	char text[FDINFO_MAX];

	if (!file)
		return 0;
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	return facts_program_of(text);
}

/* nftw(3) has no other way to its function. */
static struct program_facts *wanted;
static unsigned n_pins;

static int look_at_pin(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	_cleanup_close_ int fd = -1;
	char fdinfo[64];

	if (type != FTW_F)
		return 0;
	if (++n_pins > PINS_MAX)
		return 1;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0;
	snprintf(fdinfo, sizeof(fdinfo), "/proc/self/fdinfo/%d", fd);
	if (program_of_fdinfo(fdinfo) != wanted->id)
		return 0;
	snprintf(wanted->pin, sizeof(wanted->pin), "%s", path);
	return 1;
}

static void find_pin(struct program_facts *program)
{
	wanted = program;
	n_pins = 0;
	nftw(BPFFS, look_at_pin, 16, FTW_PHYS | FTW_MOUNT);
}

DEFINE_CLEANUP(DIR *, closedir);

static bool holds(const char *pid, u32 id)
{
	_cleanup_(closedirp) DIR *folder = NULL;
	char path[PATH_MAX];
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
	folder = opendir(path);
	while (folder && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, entry->d_name);
		if (entry->d_name[0] != '.' && program_of_fdinfo(path) == id)
			return true;
	}
	return false;
}

static void find_holders(struct program_facts *program)
{
	_cleanup_(closedirp) DIR *folder = opendir("/proc");
	struct dirent *entry;

	while (folder && program->n_holders < PROGRAM_HOLDERS_MAX && (entry = readdir(folder)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
		    holds(entry->d_name, program->id))
			program->holders[program->n_holders++] = atoi(entry->d_name);
}

void program_find_owner(struct program_facts *program)
{
	find_pin(program);
	find_holders(program);
}

/* ---- the dispatcher ---- */

void program_list_components(int ifindex, u32 dispatcher_id, size_t size, char *ret)
{
	const char *bpffs = getenv(LIBXDP_BPFFS);
	size_t used = 0;

	*ret = '\0';
	for (int i = 0; i < DISPATCHER_PROGRAMS; i++) {
		_cleanup_close_ int fd = -1;
		struct program_facts program;
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/xdp/dispatch-%d-%u/prog%d-prog",
			 bpffs ? bpffs : BPFFS, ifindex, dispatcher_id, i);
		fd = bpf_obj_get(path);
		if (read_program(fd, &program) < 0)
			return;
		if (used < size)
			used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? ", " : "",
						 program.name);
	}
}
