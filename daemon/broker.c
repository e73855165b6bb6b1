// SPDX-License-Identifier: GPL-2.0-or-later
#include "broker.h"

#include "capabilities.h"
#include "cleanup.h"
#include "lend.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct {
	int fd; /* -1: there is none */
	pid_t pid;
	pthread_mutex_t mutex; /* a request and its answer; callers are on several threads */
} broker = {.fd = -1, .mutex = PTHREAD_MUTEX_INITIALIZER};

static const u32 commands_allowed[] = {
	BPF_PROG_GET_FD_BY_ID,
	BPF_MAP_GET_FD_BY_ID,
	BPF_BTF_GET_FD_BY_ID,
};

/* A descriptor or a negative errno. */
static int get_fd_by_id(const struct broker_request *request)
{
	union bpf_attr attr = {.prog_id = request->id, .open_flags = request->open_flags};
	long fd = syscall(SYS_bpf, request->command, &attr, sizeof(attr));

	return fd < 0 ? -errno : (int)fd;
}

/* ---- an answer and its descriptor ---- */

union fd_space {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int send_answer(int socket_fd, int r, int fd)
{
	union fd_space space = {{0}};
	struct iovec iov = {.iov_base = &r, .iov_len = sizeof(r)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *header = &space.align;

		msg.msg_control = space.bytes;
		msg.msg_controllen = sizeof(space.bytes);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	return sendmsg(socket_fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The answer's 0 or negative errno, or that of the socket. *ret_fd: -1 where none came. */
static int receive_answer(int socket_fd, int *ret_fd)
{
	union fd_space space = {{0}};
	int answer;
	struct iovec iov = {.iov_base = &answer, .iov_len = sizeof(answer)};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space.bytes,
		.msg_controllen = sizeof(space.bytes),
	};
	ssize_t n;

	do {
		n = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(answer))
		return n < 0 ? -errno : -EPIPE;
	*ret_fd = -1;
	if (CMSG_FIRSTHDR(&msg))
		memcpy(ret_fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(*ret_fd));
	return answer;
}

/* ---- the broker's process ---- */

static bool is_allowed(u32 command)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands_allowed); i++)
		if (command == commands_allowed[i])
			return true;
	return false;
}

/* Until the daemon has closed its end. */
static void serve(int socket_fd)
{
	struct broker_request request;
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	/* With MSG_TRUNC it is the length of what was sent. */
	while ((n = recvmsg(socket_fd, &msg, MSG_TRUNC)) > 0) {
		int fd = -EINVAL;

		if (n == sizeof(request) && is_allowed(request.command))
			fd = get_fd_by_id(&request);
		if (send_answer(socket_fd, fd < 0 ? fd : 0, fd) < 0)
			break;
		if (fd >= 0)
			close(fd);
	}
}

/* B1: from here on, any other system call ends the process. */
static int allow_calls(void)
{
	static const int calls[] = {SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(close),
				    SCMP_SYS(exit_group)};
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = filter ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < ARRAY_SIZE(calls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
	for (size_t i = 0; !r && i < ARRAY_SIZE(commands_allowed); i++) {
		const struct scmp_arg_cmp command = {
			.arg = 0,
			.op = SCMP_CMP_EQ,
			.datum_a = commands_allowed[i],
		};

		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(bpf), 1, &command);
	}
	if (!r)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

static void be_broker(int socket_fd, pid_t daemon_pid)
{
	sigset_t all;
	int r;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL); /* B3 */
	prctl(PR_SET_NAME, "fwd-broker");
	r = capabilities_keep(CAPABILITY(CAP_SYS_ADMIN), NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != daemon_pid)
		_exit(EXIT_FAILURE);
	if (socket_fd > 0)
		close_range(0, (unsigned)socket_fd - 1, 0);
	close_range((unsigned)socket_fd + 1, ~0u, 0);
	if (!r)
		r = allow_calls();
	if (!send_answer(socket_fd, r, -1) && !r)
		serve(socket_fd);
	/* A sanitizer has system calls of its own before what does not return, as _exit(). */
	syscall(SYS_exit_group, r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* ---- the daemon's end ---- */

int broker_open(struct error *err)
{
	pid_t daemon_pid = getpid();
	int fds[2], none, r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return error_set(err, -errno, "cannot make the broker's socket: %s",
				 error_name(errno));
	broker.pid = fork();
	if (!broker.pid) {
		close(fds[0]);
		be_broker(fds[1], daemon_pid);
	}
	r = broker.pid < 0 ? -errno : 0;
	close(fds[1]);
	broker.fd = fds[0];
	if (!r)
		r = receive_answer(broker.fd, &none);
	if (r < 0) {
		broker_close();
		return error_set(err, r, "cannot start the broker of BPF objects: %s",
				 error_name(r));
	}
	return 0;
}

void broker_close(void)
{
	if (broker.fd < 0)
		return;
	close(take_fd(&broker.fd));
	if (broker.pid > 0) {
		kill(broker.pid, SIGKILL);
		waitpid(broker.pid, NULL, 0);
	}
}

int broker_fd(void)
{
	return broker.fd;
}

/* libbpf's convention: a descriptor, or a negative errno that is in errno, too. */
static int ask(u32 command, u32 id, const struct bpf_get_fd_by_id_opts *opts)
{
	const struct broker_request request = {
		.command = command,
		.id = id,
		.open_flags = opts ? opts->open_flags : 0,
	};
	int fd = -1, r = 0;

	if (broker.fd < 0) {
		fd = r = get_fd_by_id(&request);
	} else {
		pthread_mutex_lock(&broker.mutex);
		if (send(broker.fd, &request, sizeof(request), MSG_NOSIGNAL) < 0)
			r = -errno;
		else
			r = receive_answer(broker.fd, &fd);
		pthread_mutex_unlock(&broker.mutex);
		/* The kernel keeps it to itself where we have no room for another one. */
		if (r >= 0 && fd < 0)
			r = -EMFILE;
	}
	if (r >= 0)
		return fd;
	errno = -r;
	return r;
}

int bpf_prog_get_fd_by_id_opts(__u32 id, const struct bpf_get_fd_by_id_opts *opts)
{
	return lend(ask(BPF_PROG_GET_FD_BY_ID, id, opts));
}

int bpf_prog_get_fd_by_id(__u32 id)
{
	return lend(ask(BPF_PROG_GET_FD_BY_ID, id, NULL));
}

int bpf_map_get_fd_by_id_opts(__u32 id, const struct bpf_get_fd_by_id_opts *opts)
{
	return lend(ask(BPF_MAP_GET_FD_BY_ID, id, opts));
}

int bpf_map_get_fd_by_id(__u32 id)
{
	return lend(ask(BPF_MAP_GET_FD_BY_ID, id, NULL));
}

int bpf_btf_get_fd_by_id_opts(__u32 id, const struct bpf_get_fd_by_id_opts *opts)
{
	return ask(BPF_BTF_GET_FD_BY_ID, id, opts);
}

int bpf_btf_get_fd_by_id(__u32 id)
{
	return ask(BPF_BTF_GET_FD_BY_ID, id, NULL);
}
