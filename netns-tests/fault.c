// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Has a chosen call to the kernel fail: preloaded into the daemon by tests. What the calls are
 * about is what can fail as configurations change: bpf(2), netlink, files, memory, threads.
 *
 * The file that FWD_FAULT names is shared with the test, which counts the calls of a change first
 * and then has each of them fail in turn.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* fwdtest/fault.py has the same. */
struct fault {
	_Atomic uint32_t armed; /* 0: calls are neither counted nor failed */
	_Atomic uint32_t
		first; /* the number of the first call that fails, from 1 on; 0: none does */
	_Atomic uint32_t last;	 /* the number of the last one */
	_Atomic uint32_t calls;	 /* so far */
	_Atomic uint32_t failed; /* so far */
	char name[64];		 /* of the first that failed */
};

static struct fault *fault;

/* The broker, whose sandbox does not let us look at its sockets. */
static void leave_alone(void)
{
	fault = NULL;
}

__attribute__((constructor)) static void open_fault(void)
{
	const char *path = getenv("FWD_FAULT");
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	void *memory = MAP_FAILED;

	if (fd >= 0)
		memory = mmap(NULL, sizeof(*fault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		fprintf(stderr, "FWD_FAULT=%s: %s\n", path ? path : "", strerror(errno));
		_exit(1);
	}
	close(fd);
	fault = memory;
	pthread_atfork(NULL, NULL, leave_alone);
}

static int fails(const char *name, int error)
{
	uint32_t number;

	if (!fault || !atomic_load(&fault->armed))
		return 0;
	number = atomic_fetch_add(&fault->calls, 1) + 1;
	if (!fault->first || number < fault->first || number > fault->last)
		return 0;
	if (!atomic_fetch_add(&fault->failed, 1))
		snprintf(fault->name, sizeof(fault->name), "%s", name);
	errno = error;
	return 1;
}

#define NEXT(function) ((__typeof__(&(function)))dlsym(RTLD_NEXT, #function))

/* ---- bpf(2), which libbpf calls by its number ---- */

static const char *const commands[] = {
	"MAP_CREATE",	    "MAP_LOOKUP_ELEM",	 "MAP_UPDATE_ELEM",  "MAP_DELETE_ELEM",
	"MAP_GET_NEXT_KEY", "PROG_LOAD",	 "OBJ_PIN",	     "OBJ_GET",
	"PROG_ATTACH",	    "PROG_DETACH",	 "PROG_TEST_RUN",    "PROG_GET_NEXT_ID",
	"MAP_GET_NEXT_ID",  "PROG_GET_FD_BY_ID", "MAP_GET_FD_BY_ID", "OBJ_GET_INFO_BY_FD",
};

static const char *command_name(long command, char *buffer, size_t size)
{
	if (command >= 0 && (size_t)command < sizeof(commands) / sizeof(*commands))
		snprintf(buffer, size, "bpf %s", commands[command]);
	else
		snprintf(buffer, size, "bpf %ld", command);
	return buffer;
}

long syscall(long number, ...)
{
	long (*next)(long, ...) = NEXT(syscall);
	char name[64];
	long a[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_bpf && fails(command_name(a[0], name, sizeof(name)), ENOMEM))
		return -1;
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- netlink ---- */

static int is_netlink(int fd)
{
	int saved = errno, domain = 0;
	socklen_t size = sizeof(domain);

	if (!fault)
		return 0;
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
	errno = saved;
	return domain == AF_NETLINK;
}

ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to,
	       socklen_t to_size)
{
	if (is_netlink(fd) && fails("netlink sendto", ENOBUFS))
		return -1;
	return NEXT(sendto)(fd, bytes, size, flags, to, to_size);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
	if (is_netlink(fd) && fails("netlink send", ENOBUFS))
		return -1;
	return NEXT(send)(fd, bytes, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	if (is_netlink(fd) && fails("netlink sendmsg", ENOBUFS))
		return -1;
	return NEXT(sendmsg)(fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	if (is_netlink(fd) && fails("netlink recvmsg", ENOBUFS))
		return -1;
	return NEXT(recvmsg)(fd, message, flags);
}

/* ---- files ---- */

int open(const char *path, int flags, ...)
{
	mode_t mode;
	va_list args;

	va_start(args, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return fails("open", EMFILE) ? -1 : NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	mode_t mode;
	va_list args;

	va_start(args, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return fails("open", EMFILE) ? -1 : NEXT(open64)(path, flags, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
	return fails("fopen", EMFILE) ? NULL : NEXT(fopen64)(path, mode);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	/* Not what is told: the journal's and the log's descriptors. */
	return fd > 2 && fails("write", ENOSPC) ? -1 : NEXT(write)(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at)
{
	return fails("pwrite", ENOSPC) ? -1 : NEXT(pwrite64)(fd, bytes, size, at);
}

int fsync(int fd)
{
	return fails("fsync", EIO) ? -1 : NEXT(fsync)(fd);
}

int fdatasync(int fd)
{
	return fails("fdatasync", EIO) ? -1 : NEXT(fdatasync)(fd);
}

int rename(const char *from, const char *to)
{
	return fails("rename", EIO) ? -1 : NEXT(rename)(from, to);
}

/* ---- memory and threads ---- */

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{
	/* Not the allocator's. */
	if (fd >= 0 && fails("mmap", ENOMEM))
		return MAP_FAILED;
	return NEXT(mmap64)(at, size, protection, flags, fd, offset);
}

int pthread_create(pthread_t *ret, const pthread_attr_t *attributes, void *(*run)(void *),
		   void *data)
{
	if (fails("pthread_create", EAGAIN))
		return EAGAIN;
	return NEXT(pthread_create)(ret, attributes, run, data);
}
