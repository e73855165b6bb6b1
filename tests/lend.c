// SPDX-License-Identifier: GPL-2.0-or-later
/* What libxdp is lent is not there any more behind it; what others open is. */
#include "lend.h"

#include "private_bpffs.h"
#include "types.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(lend, .init = enter_private_bpffs, .timeout = 60);

#define PIN PIN_DIR "-lend"

static int make_map(u32 *ret_id)
{
	struct bpf_map_info info = {0};
	u32 size = sizeof(info);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "lend", 4, 4, 1, NULL);

	cr_assert_geq(fd, 0, "%s", strerror(errno));
	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
	cr_assert_eq(bpf_obj_pin(fd, PIN), 0, "%s", strerror(errno));
	*ret_id = info.id;
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

Test(lend, what_was_lent_is_closed_in_the_end)
{
	u32 id;
	int fd = make_map(&id), by_id[3], by_pin;

	lend_begin();
	for (int i = 0; i < 3; i++) {
		by_id[i] = bpf_map_get_fd_by_id(id);
		cr_assert_geq(by_id[i], 0);
	}
	by_pin = bpf_obj_get(PIN);
	cr_assert(is_open(by_pin));
	cr_expect(fcntl(by_pin, F_GETFD) & FD_CLOEXEC);
	lend_end();
	for (int i = 0; i < 3; i++)
		cr_expect_not(is_open(by_id[i]));
	cr_expect_not(is_open(by_pin));
	cr_expect(is_open(fd));
	close(fd);
}

/* As libraries do that lose nothing; the number may be somebody else's then. */
Test(lend, what_was_closed_before_the_end_takes_nobody_elses)
{
	u32 id;
	int fd = make_map(&id), lent, other;

	lend_begin();
	lent = bpf_map_get_fd_by_id(id);
	close(lent);
	other = dup(fd);
	cr_expect_neq(other, lent);
	lend_end();
	cr_expect(is_open(other));
	close(other);
	close(fd);
}

Test(lend, outside_of_it_nothing_is_lent)
{
	u32 id;
	int fd = make_map(&id), by_id, by_pin;

	lend_begin();
	lend_end();
	by_id = bpf_map_get_fd_by_id(id);
	by_pin = bpf_obj_get(PIN);
	lend_begin();
	lend_end();
	cr_expect(is_open(by_id) && is_open(by_pin));
	close(by_id);
	close(by_pin);
	close(fd);
}

Test(lend, failures_are_told_as_without_it)
{
	lend_begin();
	errno = 0;
	cr_expect_eq(bpf_obj_get(PIN), -ENOENT);
	cr_expect_eq(errno, ENOENT);
	cr_expect_eq(bpf_map_get_fd_by_id(0), -ENOENT);
	cr_expect_eq(errno, ENOENT);
	lend_end();
}

Test(lend, without_numbers_descriptors_are_given_all_the_same)
{
	struct rlimit limit;
	u32 id;
	int fd = make_map(&id), by_id;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	lend_begin();
	limit.rlim_cur = 32;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	by_id = bpf_map_get_fd_by_id(id);
	cr_expect(is_open(by_id));
	lend_end();
	cr_expect(is_open(by_id));
	close(by_id);
	close(fd);
}
