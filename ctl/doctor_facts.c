// SPDX-License-Identifier: GPL-2.0-or-later
#include "doctor_facts.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XDP_HEADROOM 256 /* XDP_PACKET_HEADROOM, linux/bpf.h */
#define SHARED_INFO_SIZE                                                        \
	320 /* struct skb_shared_info on 64-bit machines with lines of 64 bytes \
	     */

/* Those of 5.10 that have ndo_bpf() for XDP_SETUP_PROG, as ethtool -i names them. */
static const char *const native_drivers[] = {
	"bnxt_en", "ena",     "fsl_dpaa2_eth", "hv_netvsc", "i40e",	  "ice", "igb",
	"ixgbe",   "ixgbevf", "mlx4_en",       "mlx5_core", "mvneta",	  "nfp", "nicvf",
	"qede",	   "sfc",     "tun",	       "veth",	    "virtio_net", "vif",
};

enum answer facts_native(const struct link_facts *link)
{
	if (link->features_known)
		return link->features & XDP_FEATURE_BASIC ? ANSWER_YES : ANSWER_NO;
	for (size_t i = 0; i < ARRAY_SIZE(native_drivers); i++)
		if (!strcmp(link->driver, native_drivers[i]))
			return ANSWER_YES;
	/* Since 5.15 a bond has it if its ports do. */
	if (!strcmp(link->kind, "bond"))
		return ANSWER_UNKNOWN;
	/* What else has a kind is made of software, and of that the list is whole. */
	return *link->kind ? ANSWER_NO : ANSWER_UNKNOWN;
}

u32 facts_mtu_of_one_buffer(u32 page_size)
{
	return page_size - XDP_HEADROOM - SHARED_INFO_SIZE - ETH_HLEN;
}

enum answer facts_mtu_fits(const struct link_facts *link, u32 page_size, bool frags)
{
	if (link->mtu <= facts_mtu_of_one_buffer(page_size))
		return ANSWER_YES;
	if (!frags)
		return ANSWER_NO;
	if (!link->features_known)
		return ANSWER_UNKNOWN;
	return link->features & XDP_FEATURE_RX_SG ? ANSWER_YES : ANSWER_NO;
}

void facts_missing_capabilities(u64 set, char ret[static CAPABILITIES_TEXT_MAX])
{
	static const struct {
		int number;
		bool in_sys_admin;
		const char *name;
	} needed[] = {
		{CAP_NET_ADMIN, false, "CAP_NET_ADMIN"},
		{CAP_BPF, true, "CAP_BPF"},
		{CAP_PERFMON, true, "CAP_PERFMON"},
	};
	bool sys_admin = set >> CAP_SYS_ADMIN & 1;
	size_t used = 0;

	*ret = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!(set >> needed[i].number & 1) && !(sys_admin && needed[i].in_sys_admin))
			used += (size_t)snprintf(ret + used, CAPABILITIES_TEXT_MAX - used, "%s%s",
						 used ? ", " : "", needed[i].name);
}

/* The value of the line "KEY<white space>VALUE"; NULL: there is none. */
static const char *value_of(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (!strncmp(text, key, n))
			return text + n + strspn(text + n, " \t");
	}
	return NULL;
}

int facts_effective_capabilities(const char *status, u64 *ret)
{
	const char *value = value_of(status, "CapEff:");
	unsigned long long set;

	if (!value || sscanf(value, "%16llx", &set) != 1)
		return -EINVAL;
	*ret = set;
	return 0;
}

u32 facts_program_of(const char *fdinfo)
{
	const char *value = value_of(fdinfo, "prog_id:");

	return value ? (u32)strtoul(value, NULL, 10) : 0;
}

bool facts_is_full(u64 count, u64 max)
{
	return count * 100 >= max * FULL_PERCENT;
}

bool facts_locks_without_limit(const char *limits)
{
	const char *value = value_of(limits, "Max locked memory");

	return value && !strncmp(value, "unlimited", strlen("unlimited"));
}
