// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Grace periods. The update that the kernel holds goes through a gate here, so that a test decides
 * how long a period takes.
 */
#include "grace.h"

#include "clock.h"
#include "private_bpffs.h"

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

static struct {
	atomic_bool shut;
	atomic_int begun; /* periods */
	atomic_int failures;
	sem_t entered, go;
} gate;

int __real_bpf_map_update_elem(int fd, const void *key, const void *value, u64 flags);
int __wrap_bpf_map_update_elem(int fd, const void *key, const void *value, u64 flags);

int __wrap_bpf_map_update_elem(int fd, const void *key, const void *value, u64 flags)
{
	gate.begun++;
	if (gate.shut) {
		sem_post(&gate.entered);
		sem_wait(&gate.go);
	}
	if (gate.failures) {
		gate.failures--;
		errno = EPERM;
		return -EPERM;
	}
	return __real_bpf_map_update_elem(fd, key, value, flags);
}

static void set_up(void)
{
	sem_init(&gate.entered, 0, 0);
	sem_init(&gate.go, 0, 0);
	enter_private_bpffs();
}

TestSuite(grace, .init = set_up, .fini = grace_close, .timeout = 60);

Test(grace, waits_for_a_period)
{
	u64 ticket = grace_ticket();

	cr_expect(grace_over(0));
	grace_wait_for(ticket);
	cr_expect(grace_over(ticket));
	cr_expect_eq(gate.begun, 1);
	grace_wait();
	cr_expect_eq(gate.begun, 2);
}

Test(grace, a_ticket_is_over_with_a_period_that_began_after_it)
{
	u64 first, second;

	gate.shut = true;
	first = grace_ticket();
	sem_wait(&gate.entered);
	second = grace_ticket();
	cr_expect_gt(second, first);
	cr_expect_not(grace_over(first));
	sem_post(&gate.go);
	grace_wait_for(first);
	sem_wait(&gate.entered);
	cr_expect_not(grace_over(second), "the period had begun before the ticket");
	sem_post(&gate.go);
	grace_wait_for(second);
	cr_expect(grace_over(second));
	cr_expect_eq(gate.begun, 2);
}

Test(grace, many_tickets_share_a_period)
{
	u64 first, last;

	gate.shut = true;
	first = grace_ticket();
	sem_wait(&gate.entered);
	last = grace_ticket();
	for (int i = 0; i < 100000; i++)
		cr_assert_eq(grace_ticket(), last);
	gate.shut = false;
	sem_post(&gate.go);
	grace_wait_for(last);
	cr_expect(grace_over(first));
	cr_expect_eq(gate.begun, 2);
}

Test(grace, nobody_asks_and_no_period_begins)
{
	grace_wait();
	usleep(50000);
	cr_expect_eq(gate.begun, 1);
}

Test(grace, what_the_kernel_refuses_takes_a_second)
{
	u64 start_ns = clock_ns(CLOCK_MONOTONIC);

	gate.failures = 1;
	grace_wait();
	cr_expect_geq(clock_ns(CLOCK_MONOTONIC) - start_ns, NS_PER_S);
}

#define WAITERS 8

static void *wait_often(void *data)
{
	for (int i = 0; i < 20; i++) {
		u64 ticket = grace_ticket();

		grace_wait_for(ticket);
		if (!grace_over(ticket))
			return data;
	}
	return NULL;
}

Test(grace, many_threads_wait_at_once)
{
	pthread_t threads[WAITERS];
	void *failed;

	for (int i = 0; i < WAITERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, wait_often, threads), 0);
	for (int i = 0; i < WAITERS; i++) {
		pthread_join(threads[i], &failed);
		cr_expect_null(failed);
	}
}

Test(grace, opens_twice_and_again_after_a_close)
{
	struct error err;
	u64 ticket;

	cr_assert_eq(grace_open(&err), 0);
	gate.shut = true;
	grace_ticket();
	sem_wait(&gate.entered);
	ticket = grace_ticket();
	gate.shut = false;
	sem_post(&gate.go);
	grace_close();
	grace_close();
	cr_assert_eq(grace_open(&err), 0, "%s", err.text);
	grace_wait_for(ticket);
	grace_wait();
}

/* In the middle of a period: the lock may be held, and the period's end is not seen there. */
Test(grace, a_child_opens_again)
{
	struct error err;
	int status;
	u64 ticket;
	pid_t pid;

	gate.shut = true;
	grace_ticket();
	sem_wait(&gate.entered);
	ticket = grace_ticket();
	pid = fork();
	if (!pid) {
		alarm(20);
		gate.shut = false;
		if (grace_open(&err) < 0 || grace_over(ticket))
			_exit(1);
		grace_wait_for(ticket);
		grace_wait();
		grace_close();
		_exit(0);
	}
	gate.shut = false;
	sem_post(&gate.go);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	grace_wait_for(ticket);
}
