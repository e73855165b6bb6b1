// SPDX-License-Identifier: GPL-2.0-or-later
#include "worker.h"

#include "thread.h"
#include "types.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/*
 * The loop's turns are short and clients wait for them, within milliseconds, while a job takes
 * seconds: so where both want the same core (there may be two, and packets take their share) the
 * loop's is the larger.
 */
#define NICE_MORE 5

struct job {
	struct job *next;
	void (*work)(void *data);
	void (*done)(void *data);
	void *data;
};

struct jobs {
	struct job *first, **end;
};

struct worker {
	sd_event_source *source;
	int finished_fd; /* eventfd(2): counts `finished` */
	pthread_t thread;
	bool started;
	size_t n; /* jobs whose done() was not called; the event loop's alone */

	pthread_mutex_t mutex; /* of what follows */
	pthread_cond_t wake;
	struct jobs waiting, finished;
	bool closing;
};

static void append(struct jobs *jobs, struct job *job)
{
	job->next = NULL;
	*jobs->end = job;
	jobs->end = &job->next;
}

/* NULL: there is none. */
static struct job *take_first(struct jobs *jobs)
{
	struct job *job = jobs->first;

	if (!job)
		return NULL;
	jobs->first = job->next;
	if (!jobs->first)
		jobs->end = &jobs->first;
	return job;
}

/* ---- the thread ---- */

/* The next job; NULL: there will be no more. */
static struct job *await_job(struct worker *worker)
{
	struct job *job = NULL;

	pthread_mutex_lock(&worker->mutex);
	while (!worker->waiting.first && !worker->closing)
		pthread_cond_wait(&worker->wake, &worker->mutex);
	if (!worker->closing)
		job = take_first(&worker->waiting);
	pthread_mutex_unlock(&worker->mutex);
	return job;
}

static void *run_jobs(void *data)
{
	struct worker *worker = data;
	struct job *job;

	/* To Linux 0 is this thread alone. */
	setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICE_MORE);
	while ((job = await_job(worker))) {
		job->work(job->data);
		pthread_mutex_lock(&worker->mutex);
		append(&worker->finished, job);
		pthread_mutex_unlock(&worker->mutex);
		eventfd_write(worker->finished_fd, 1);
	}
	return NULL;
}

/* ---- the event loop ---- */

static int on_finished(sd_event_source *source, int fd, u32 revents, void *data)
{
	struct worker *worker = data;
	struct job *job;
	eventfd_t one;

	if (eventfd_read(fd, &one) < 0)
		return 0;
	pthread_mutex_lock(&worker->mutex);
	job = take_first(&worker->finished);
	pthread_mutex_unlock(&worker->mutex);
	worker->n--;
	job->done(job->data);
	free(job);
	return 0;
}

int worker_run(struct worker *worker, void (*work)(void *data), void (*done)(void *data),
	       void *data)
{
	struct job *job = malloc(sizeof(*job));

	if (!job)
		return -ENOMEM;
	*job = (struct job){.work = work, .done = done, .data = data};
	worker->n++;
	pthread_mutex_lock(&worker->mutex);
	append(&worker->waiting, job);
	pthread_cond_signal(&worker->wake);
	pthread_mutex_unlock(&worker->mutex);
	return 0;
}

sd_event *worker_event(const struct worker *worker)
{
	return sd_event_source_get_event(worker->source);
}

bool worker_busy(const struct worker *worker)
{
	return worker->n;
}

int worker_open(sd_event *event, struct worker **ret, struct error *err)
{
	_cleanup_(worker_closep) struct worker *worker = calloc(1, sizeof(*worker));
	int r;

	if (!worker)
		return error_no_memory(err);
	pthread_mutex_init(&worker->mutex, NULL);
	pthread_cond_init(&worker->wake, NULL);
	worker->waiting.end = &worker->waiting.first;
	worker->finished.end = &worker->finished.first;
	/* Each read takes one of the count: one done() a turn, so that clients come in between. */
	worker->finished_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	if (worker->finished_fd < 0)
		return error_set(err, -errno, "cannot make an eventfd: %s", error_name(errno));
	r = sd_event_add_io(event, &worker->source, worker->finished_fd, EPOLLIN, on_finished,
			    worker);
	if (r < 0)
		return error_set(err, r, "cannot watch the worker: %s", error_name(r));
	r = thread_start("fwd-worker", run_jobs, worker, &worker->thread);
	if (r < 0)
		return error_set(err, r, "cannot start the worker's thread: %s", error_name(r));
	worker->started = true;
	*ret = take_pointer(&worker);
	return 0;
}

static void free_jobs(struct jobs *jobs)
{
	struct job *job;

	while ((job = take_first(jobs)))
		free(job);
}

void worker_close(struct worker *worker)
{
	if (!worker)
		return;
	if (worker->started) {
		pthread_mutex_lock(&worker->mutex);
		worker->closing = true;
		pthread_cond_signal(&worker->wake);
		pthread_mutex_unlock(&worker->mutex);
		pthread_join(worker->thread, NULL);
	}
	sd_event_source_disable_unref(worker->source);
	closep(&worker->finished_fd);
	free_jobs(&worker->waiting);
	free_jobs(&worker->finished);
	pthread_cond_destroy(&worker->wake);
	pthread_mutex_destroy(&worker->mutex);
	free(worker);
}
