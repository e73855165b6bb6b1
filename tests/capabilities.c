// SPDX-License-Identifier: GPL-2.0-or-later
/* Each test is a process of its own, so what it gives up the others still have. */
#include "capabilities.h"

#include "cleanup.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define NONE "0000000000000000"

static void need_root(void)
{
	if (geteuid() != 0 || !capability_is_held(CAP_SETPCAP))
		cr_skip_test("needs root: it gives up capabilities");
}

TestSuite(capabilities, .init = need_root, .timeout = 30);

/* The lines of capabilities in proc_pid_status(5), of the calling thread. */
static void *read_sets(void *text)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/thread-self/status", "re");
	char line[256];

	*(char *)text = '\0';
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNew", 5))
			strcat(text, line);
	return NULL;
}

static void keep(u64 caps)
{
	struct error err;

	cr_assert_eq(capabilities_keep(caps, &err), 0, "%s", err.text);
}

#define THREE "000000c000001000" /* CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN */
#define SETS(caps, bound)                                                          \
	"CapInh:\t" NONE "\nCapPrm:\t" caps "\nCapEff:\t" caps "\nCapBnd:\t" bound \
	"\nCapAmb:\t" NONE "\nNoNewPrivs:\t1\n"

Test(capabilities, of_the_service_are_three_in_every_set)
{
	struct error err;
	char text[1024];

	cr_assert_eq(capabilities_keep_for_service(&err), 0, "%s", err.text);
	read_sets(text);
	cr_expect_str_eq(text, SETS(THREE, THREE));
	cr_expect(capability_is_held(CAP_BPF) && capability_is_held(CAP_NET_ADMIN));
	cr_expect_not(capability_is_held(CAP_SYS_ADMIN));
}

Test(capabilities, are_those_of_threads_made_later)
{
	struct error err;
	char text[1024];
	pthread_t thread;

	cr_assert_eq(capabilities_keep_for_service(&err), 0, "%s", err.text);
	cr_assert_eq(pthread_create(&thread, NULL, read_sets, text), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_str_eq(text, SETS(THREE, THREE));
}

Test(capabilities, that_were_ambient_are_not_any_more)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct words[2];
	char text[1024];

	cr_assert_eq(syscall(SYS_capget, &header, words), 0);
	words[CAP_TO_INDEX(CAP_BPF)].inheritable |= CAP_TO_MASK(CAP_BPF);
	cr_assert_eq(syscall(SYS_capset, &header, words), 0);
	cr_assert_eq(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_BPF, 0, 0), 0);
	keep(CAPABILITY(CAP_BPF));
	read_sets(text);
	cr_expect_str_eq(text, SETS("0000008000000000", "0000008000000000"));
}

Test(capabilities, without_setpcap_the_bounding_set_stays)
{
	char before[1024], text[1024];
	struct error err;

	keep(~CAPABILITY(CAP_SETPCAP));
	read_sets(before);
	cr_assert_eq(capabilities_keep_for_service(&err), 0, "%s", err.text);
	read_sets(text);
	cr_expect(strstr(text, "CapPrm:\t" THREE "\nCapEff:\t" THREE "\n"), "%s", text);
	cr_expect_str_eq(strstr(text, "CapBnd:"), strstr(before, "CapBnd:"));
}

Test(capabilities, sys_admin_stays_where_it_is_in_the_place_of_others)
{
	struct error err;
	char text[1024];

	keep(CAPABILITY(CAP_SETPCAP) | CAPABILITY(CAP_SYS_ADMIN) | CAPABILITY(CAP_NET_ADMIN));
	cr_assert_eq(capabilities_keep_for_service(&err), 0, "%s", err.text);
	read_sets(text);
	cr_expect_str_eq(text, SETS("0000000000201000", "0000000000201000"));
}
