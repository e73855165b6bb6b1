// SPDX-License-Identifier: GPL-2.0-or-later
#include "capabilities.h"

#include "log.h"
#include "types.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct capability_sets {
	struct __user_cap_data_struct words[_LINUX_CAPABILITY_U32S_3];
};

/* capset(2) and capget(2) have no declaration in libc. */
static int call(long number, struct capability_sets *sets)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(number, &header, sets->words) < 0 ? -errno : 0;
}

bool capability_is_held(int cap)
{
	struct capability_sets sets;

	return !call(SYS_capget, &sets) &&
	       sets.words[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap);
}

/* Up to the last one that the kernel knows. */
static int bound(u64 keep)
{
	for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap) < 0)
			return -errno;
	return 0;
}

int capabilities_keep(u64 keep, struct error *err)
{
	struct capability_sets sets;
	int r = capability_is_held(CAP_SETPCAP) ? bound(keep) : 0;

	if (!r)
		r = call(SYS_capget, &sets);
	for (size_t i = 0; !r && i < ARRAY_SIZE(sets.words); i++) {
		sets.words[i].permitted &= (u32)(keep >> 32 * i);
		sets.words[i].effective = sets.words[i].permitted;
		/* The ambient set is never more. */
		sets.words[i].inheritable = 0;
	}
	if (!r)
		r = call(SYS_capset, &sets);
	if (!r && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	return r < 0 ? error_set(err, r, "cannot give up capabilities: %s", error_name(r)) : 0;
}

int capabilities_keep_for_service(struct error *err)
{
	/* Maps and programs; what the verifier lets programs do; links and tc. */
	u64 keep = CAPABILITY(CAP_BPF) | CAPABILITY(CAP_PERFMON) | CAPABILITY(CAP_NET_ADMIN);

	/* A container may have only the one that includes the first two. */
	if (!capability_is_held(CAP_BPF) || !capability_is_held(CAP_PERFMON))
		keep |= CAPABILITY(CAP_SYS_ADMIN);
	if (!capability_is_held(CAP_SETPCAP))
		log_debug("without CAP_SETPCAP the capability bounding set stays as it is");
	return capabilities_keep(keep, err);
}
