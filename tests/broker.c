// SPDX-License-Identifier: GPL-2.0-or-later
/* The broker of BPF objects, asked by a process that has given up CAP_SYS_ADMIN. */
#include "broker.h"

#include "capabilities.h"
#include "cleanup.h"
#include "grace.h"
#include "private_bpffs.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define NO_SUCH_ID 0x7fffffff

static int program_fd, map_fd;
static u32 program_id, map_id, btf_id;

static void make_objects(void)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 2},
		{.code = BPF_JMP | BPF_EXIT},
	};
	struct bpf_prog_info program = {0};
	struct bpf_map_info map = {0};
	u32 program_size = sizeof(program), map_size = sizeof(map);

	program_fd =
		bpf_prog_load(BPF_PROG_TYPE_XDP, "fwd_test", "GPL", insns, ARRAY_SIZE(insns), NULL);
	map_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "fwd_test", 4, 4, 1, NULL);
	cr_assert_eq(bpf_obj_get_info_by_fd(program_fd, &program, &program_size), 0);
	cr_assert_eq(bpf_obj_get_info_by_fd(map_fd, &map, &map_size), 0);
	cr_assert_eq(bpf_btf_get_next_id(0, &btf_id), 0);
	program_id = program.id;
	map_id = map.id;
}

static void set_up(void)
{
	struct error err;

	enter_private_bpffs();
	grace_close(); /* its thread */
	make_objects();
	cr_assert_eq(broker_open(&err), 0, "%s", err.text);
	cr_assert_eq(capabilities_keep_for_service(&err), 0, "%s", err.text);
}

TestSuite(broker, .init = set_up, .fini = broker_close, .timeout = 60);

/* There is no other child. */
static pid_t broker_pid(void)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/thread-self/children", "re");
	int pid = 0;

	cr_assert(file && fscanf(file, "%d", &pid) == 1);
	return pid;
}

static bool status_has(pid_t pid, const char *line)
{
	_cleanup_fclose_ FILE *file = NULL;
	char path[64], text[8192] = "";

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	cr_assert(file && fread(text, 1, sizeof(text) - 1, file));
	return strstr(text, line);
}

static u32 id_of_program(int fd)
{
	struct bpf_prog_info info = {0};
	u32 size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ? 0 : info.id;
}

Test(broker, opens_what_the_caller_itself_may_not)
{
	union bpf_attr attr = {.prog_id = program_id};
	struct bpf_map_info map = {0};
	struct bpf_btf_info btf = {0};
	u32 map_size = sizeof(map), btf_size = sizeof(btf);
	_cleanup_close_ int program = bpf_prog_get_fd_by_id(program_id);
	_cleanup_close_ int its_map = bpf_map_get_fd_by_id(map_id);
	_cleanup_close_ int its_btf = bpf_btf_get_fd_by_id(btf_id);

	cr_expect_eq(syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr)), -1);
	cr_expect_eq(errno, EPERM);
	cr_expect_eq(id_of_program(program), program_id);
	cr_expect_eq(bpf_obj_get_info_by_fd(its_map, &map, &map_size), 0);
	cr_expect_eq(map.id, map_id);
	cr_expect_eq(bpf_obj_get_info_by_fd(its_btf, &btf, &btf_size), 0);
	cr_expect_eq(btf.id, btf_id);
	cr_expect_eq(fcntl(program, F_GETFD), FD_CLOEXEC);
}

Test(broker, opens_a_map_for_what_was_asked)
{
	LIBBPF_OPTS(bpf_get_fd_by_id_opts, opts, .open_flags = BPF_F_RDONLY);
	_cleanup_close_ int fd = bpf_map_get_fd_by_id_opts(map_id, &opts);
	u32 zero = 0, value;

	cr_expect_eq(bpf_map_lookup_elem(fd, &zero, &value), 0);
	cr_expect_eq(bpf_map_update_elem(fd, &zero, &value, BPF_ANY), -EPERM);
}

Test(broker, tells_why_it_does_not)
{
	for (size_t i = 0; i < 3; i++) {
		errno = 0;
		cr_expect_eq(bpf_prog_get_fd_by_id(NO_SUCH_ID), -ENOENT);
		cr_expect_eq(errno, ENOENT);
		cr_expect_eq(bpf_map_get_fd_by_id(NO_SUCH_ID), -ENOENT);
		cr_expect_eq(bpf_btf_get_fd_by_id(NO_SUCH_ID), -ENOENT);
	}
}

static void expect_answer(const void *request, size_t size, int expected)
{
	int answer = 1;

	cr_assert_eq(send(broker_fd(), request, size, 0), (ssize_t)size);
	cr_assert_eq(recv(broker_fd(), &answer, sizeof(answer), 0), (ssize_t)sizeof(answer));
	cr_expect_eq(answer, expected);
}

Test(broker, refuses_what_is_no_request_of_its_own)
{
	const struct broker_request others[] = {
		{.command = BPF_PROG_GET_NEXT_ID},
		{.command = BPF_LINK_GET_FD_BY_ID, .id = 1},
		{.command = BPF_PROG_LOAD},
		{.command = ~0u},
	};
	const struct broker_request longer[2] = {
		{.command = BPF_PROG_GET_FD_BY_ID, .id = program_id},
	};
	_cleanup_close_ int fd = -1;

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		expect_answer(&others[i], sizeof(others[i]), -EINVAL);
	expect_answer(longer, sizeof(*longer) - 1, -EINVAL);
	expect_answer(longer, sizeof(*longer) + 1, -EINVAL);
	fd = bpf_prog_get_fd_by_id(program_id);
	cr_expect_geq(fd, 0, "and goes on");
}

Test(broker, has_one_capability_and_a_filter)
{
	pid_t pid = broker_pid();

	cr_expect(status_has(pid, "Name:\tfwd-broker\n"));
	cr_expect(status_has(pid, "CapInh:\t0000000000000000\nCapPrm:\t0000000000200000\n"
				  "CapEff:\t0000000000200000\nCapBnd:\t0000000000200000\n"
				  "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"));
}

Test(broker, a_stop_of_the_service_does_not_end_it)
{
	pid_t pid = broker_pid();
	_cleanup_close_ int fd = -1;

	kill(pid, SIGTERM);
	kill(pid, SIGINT);
	kill(pid, SIGHUP);
	fd = bpf_prog_get_fd_by_id(program_id);
	cr_expect_geq(fd, 0);
}

Test(broker, ends_with_its_socket)
{
	pid_t pid = broker_pid();

	broker_close();
	cr_expect_eq(kill(pid, 0), -1);
	cr_expect_eq(errno, ESRCH);
	cr_expect_eq(broker_fd(), -1);
}

Test(broker, that_has_died_is_told_and_fails_requests)
{
	struct pollfd hang_up = {.fd = broker_fd()};

	cr_expect_eq(poll(&hang_up, 1, 0), 0);
	kill(broker_pid(), SIGKILL);
	cr_assert_eq(poll(&hang_up, 1, 10000), 1);
	cr_expect(hang_up.revents & POLLHUP);
	cr_expect_eq(bpf_prog_get_fd_by_id(program_id), -EPIPE);
	cr_expect_eq(bpf_map_get_fd_by_id(map_id), -EPIPE);
}

#define ASKED 500

/* Answers to other questions than *id. */
static void *ask_many(void *id)
{
	u32 own = *(const u32 *)id;
	uintptr_t wrong = 0;

	for (size_t i = 0; i < ASKED; i++) {
		_cleanup_close_ int fd = bpf_prog_get_fd_by_id(own);

		wrong += own == NO_SUCH_ID ? fd != -ENOENT : id_of_program(fd) != own;
	}
	return (void *)wrong;
}

Test(broker, answers_each_of_several_threads)
{
	u32 ids[4] = {program_id, NO_SUCH_ID, program_id, NO_SUCH_ID};
	pthread_t threads[4];
	void *wrong;

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, ask_many, &ids[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		cr_assert_eq(pthread_join(threads[i], &wrong), 0);
		cr_expect_null(wrong);
	}
}

Test(no_broker, the_kernel_is_asked, .init = enter_private_bpffs)
{
	_cleanup_close_ int fd = -1;

	make_objects();
	fd = bpf_prog_get_fd_by_id(program_id);
	cr_expect_eq(id_of_program(fd), program_id);
	cr_expect_eq(bpf_prog_get_fd_by_id(NO_SUCH_ID), -ENOENT);
	cr_expect_eq(errno, ENOENT);
}
