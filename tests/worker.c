// SPDX-License-Identifier: GPL-2.0-or-later
/* The worker's thread beside an event loop. */
#include "worker.h"

#include "types.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>

#define JOBS 1000

static sd_event *event;
static struct worker *worker;

static struct {
	pthread_t loop;
	sem_t begun, go;	  /* of held_work() */
	int works[JOBS], n_works; /* numbers, in the order of the calls */
	int dones[JOBS], n_dones;
	sigset_t mask;
	int priority;
} seen;

static void set_up(void)
{
	struct error err;

	seen.loop = pthread_self();
	sem_init(&seen.begun, 0, 0);
	sem_init(&seen.go, 0, 0);
	cr_assert_geq(sd_event_new(&event), 0);
	cr_assert_eq(worker_open(event, &worker, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	worker_close(worker);
	sd_event_unref(event);
}

TestSuite(worker, .init = set_up, .fini = tear_down, .timeout = 60);

static int number_of(const void *data)
{
	return (int)(intptr_t)data;
}

static void work(void *data)
{
	seen.works[seen.n_works++] =
		pthread_equal(pthread_self(), seen.loop) ? -1 : number_of(data);
}

static void held_work(void *data)
{
	sem_post(&seen.begun);
	sem_wait(&seen.go);
	work(data);
}

static void done(void *data)
{
	seen.dones[seen.n_dones++] =
		pthread_equal(pthread_self(), seen.loop) ? number_of(data) : -1;
}

static void add(void (*work_fn)(void *data), void (*done_fn)(void *data), int number)
{
	cr_assert_eq(worker_run(worker, work_fn, done_fn, (void *)(intptr_t)number), 0);
}

static void run_until_idle(void)
{
	while (worker_busy(worker))
		cr_assert_geq(sd_event_run(event, UINT64_MAX), 0);
}

Test(worker, runs_jobs_in_order_and_tells_in_order)
{
	cr_expect_not(worker_busy(worker));
	for (int i = 0; i < JOBS; i++)
		add(work, done, i);
	cr_expect(worker_busy(worker));
	run_until_idle();
	cr_assert_eq(seen.n_works, JOBS);
	cr_assert_eq(seen.n_dones, JOBS);
	for (int i = 0; i < JOBS; i++) {
		cr_assert_eq(seen.works[i], i);
		cr_assert_eq(seen.dones[i], i);
	}
}

static int on_defer(sd_event_source *source, void *data)
{
	++*(int *)data;
	return 0;
}

Test(worker, the_loop_goes_on_while_a_job_runs)
{
	sd_event_source *source = NULL;
	int turns = 0;

	add(held_work, done, 1);
	sem_wait(&seen.begun);
	cr_assert_geq(sd_event_add_defer(event, &source, on_defer, &turns), 0);
	cr_assert_gt(sd_event_run(event, 0), 0);
	cr_expect_eq(turns, 1);
	sd_event_source_disable_unref(source);
	cr_expect_eq(sd_event_run(event, 0), 0);
	cr_expect(worker_busy(worker));
	cr_expect_eq(seen.n_dones, 0);
	sem_post(&seen.go);
	run_until_idle();
	cr_expect_eq(seen.n_dones, 1);
}

Test(worker, calls_one_done_a_turn)
{
	for (int i = 0; i < 3; i++)
		add(work, done, i);
	add(held_work, done, 3);
	sem_wait(&seen.begun);
	for (int i = 1; i <= 3; i++) {
		cr_assert_gt(sd_event_run(event, 0), 0);
		cr_expect_eq(seen.n_dones, i);
	}
	sem_post(&seen.go);
	run_until_idle();
}

static void done_with_another(void *data)
{
	int left = number_of(data);

	cr_expect_not(worker_busy(worker));
	done(data);
	if (left)
		add(work, done_with_another, left - 1);
}

Test(worker, a_done_may_add_a_job)
{
	add(work, done_with_another, 10);
	run_until_idle();
	cr_expect_eq(seen.n_works, 11);
	cr_expect_eq(seen.n_dones, 11);
	cr_expect_eq(seen.dones[10], 0);
}

static void *let_go(void *data)
{
	usleep(20000); /* the close waits by then */
	sem_post(&seen.go);
	return NULL;
}

Test(worker, closing_waits_for_the_job_that_runs_and_drops_the_others)
{
	pthread_t helper;

	add(work, done, 1);
	add(held_work, done, 2);
	add(work, done, 3);
	sem_wait(&seen.begun);
	cr_assert_eq(pthread_create(&helper, NULL, let_go, NULL), 0);
	worker_close(take_pointer(&worker));
	pthread_join(helper, NULL);
	cr_expect_eq(seen.n_works, 2);
	cr_expect_eq(seen.works[1], 2);
	cr_expect_eq(sd_event_run(event, 0), 0);
	cr_expect_eq(seen.n_dones, 0);
}

Test(worker, closes_without_a_job)
{
	worker_close(take_pointer(&worker));
	worker_close(NULL);
}

static void look_around(void *data)
{
	pthread_sigmask(SIG_SETMASK, NULL, &seen.mask);
	seen.priority = getpriority(PRIO_PROCESS, 0);
}

Test(worker, takes_no_signals_and_is_nicer_than_the_loop)
{
	sigset_t own;

	add(look_around, done, 0);
	run_until_idle();
	cr_expect_eq(sigismember(&seen.mask, SIGTERM), 1);
	cr_expect_eq(sigismember(&seen.mask, SIGHUP), 1);
	cr_expect_eq(seen.priority, getpriority(PRIO_PROCESS, 0) + 5);
	pthread_sigmask(SIG_SETMASK, NULL, &own);
	cr_expect_eq(sigismember(&own, SIGTERM), 0, "the loop takes none either");
}
