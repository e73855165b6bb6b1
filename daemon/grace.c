// SPDX-License-Identifier: GPL-2.0-or-later
#include "grace.h"

#include "log.h"
#include "thread.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdatomic.h>

/*
 * Periods have numbers, from 1 on, and come one after the other; a ticket is the number of the
 * first that begins after it. As `begun` changes under the mutex only, a period that counts one
 * more than what a ticket saw begins behind it.
 */
static struct {
	int outer_fd, inner_fd;
	pthread_t thread;
	pid_t pid; /* whose the thread is; 0: there is none */

	pthread_mutex_t mutex; /* of what follows, and of changes of `ended` */
	pthread_cond_t asked;  /* `asked_for` or `closing` has changed */
	pthread_cond_t over;   /* `ended` has */
	u64 asked_for, begun;
	_Atomic u64 ended;
	bool closing;
} grace = {
	.outer_fd = -1,
	.inner_fd = -1,
	.mutex = PTHREAD_MUTEX_INITIALIZER,
	.asked = PTHREAD_COND_INITIALIZER,
	.over = PTHREAD_COND_INITIALIZER,
};

/* ---- the thread ---- */

static void wait_for_programs(void)
{
	const u32 zero = 0;

	if (!bpf_map_update_elem(grace.outer_fd, &zero, &grace.inner_fd, BPF_ANY))
		return;
	log_warning("cannot wait for the programs that run: %s; waiting a second instead",
		    error_name(errno));
	sleep(1); /* A program cannot sleep: it ends in microseconds. */
}

static void *run_periods(void *data)
{
	pthread_mutex_lock(&grace.mutex);
	for (;;) {
		while (grace.asked_for <= grace.begun && !grace.closing)
			pthread_cond_wait(&grace.asked, &grace.mutex);
		if (grace.closing)
			break;
		grace.begun++;
		pthread_mutex_unlock(&grace.mutex);
		wait_for_programs();
		pthread_mutex_lock(&grace.mutex);
		atomic_store_explicit(&grace.ended, grace.begun, memory_order_release);
		pthread_cond_broadcast(&grace.over);
	}
	pthread_mutex_unlock(&grace.mutex);
	return NULL;
}

/* ---- tickets ---- */

u64 grace_ticket(void)
{
	u64 ticket;

	pthread_mutex_lock(&grace.mutex);
	ticket = grace.begun + 1;
	if (grace.asked_for < ticket) {
		grace.asked_for = ticket;
		pthread_cond_signal(&grace.asked);
	}
	pthread_mutex_unlock(&grace.mutex);
	return ticket;
}

bool grace_over(u64 ticket)
{
	return ticket <= atomic_load_explicit(&grace.ended, memory_order_acquire);
}

void grace_wait_for(u64 ticket)
{
	if (grace_over(ticket))
		return;
	pthread_mutex_lock(&grace.mutex);
	while (!grace_over(ticket))
		pthread_cond_wait(&grace.over, &grace.mutex);
	pthread_mutex_unlock(&grace.mutex);
}

void grace_wait(void)
{
	grace_wait_for(grace_ticket());
}

/* ---- opening ---- */

static int make_maps(struct error *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	_cleanup_close_ int inner_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "fwd_grace_inner",
						      sizeof(u32), sizeof(u32), 1, NULL);
	int outer_fd;

	if (inner_fd < 0)
		return error_set(err, -errno, "cannot make a map: %s", error_name(errno));
	opts.inner_map_fd = (u32)inner_fd;
	outer_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "fwd_grace", sizeof(u32), sizeof(u32),
				  1, &opts);
	if (outer_fd < 0)
		return error_set(err, -errno, "cannot make a map of maps: %s", error_name(errno));
	grace.outer_fd = outer_fd;
	grace.inner_fd = take_fd(&inner_fd);
	return 0;
}

/* What the parent's threads held and waited for is of no use here. */
static void forget_parent(void)
{
	pthread_mutex_init(&grace.mutex, NULL);
	pthread_cond_init(&grace.asked, NULL);
	pthread_cond_init(&grace.over, NULL);
	/* It may have been waiting for a period: that begins again. */
	grace.begun = grace.ended;
	grace.closing = false;
}

int grace_open(struct error *err)
{
	int r;

	if (grace.pid == getpid())
		return 0;
	if (grace.pid)
		forget_parent();
	r = grace.outer_fd < 0 ? make_maps(err) : 0;
	if (r < 0)
		return r;
	r = thread_start("fwd-grace", run_periods, NULL, &grace.thread);
	if (r < 0)
		return error_set(err, r, "cannot start a thread for grace periods: %s",
				 error_name(r));
	grace.pid = getpid();
	return 0;
}

void grace_close(void)
{
	if (grace.pid == getpid()) {
		pthread_mutex_lock(&grace.mutex);
		grace.closing = true;
		pthread_cond_signal(&grace.asked);
		pthread_mutex_unlock(&grace.mutex);
		pthread_join(grace.thread, NULL);
		grace.closing = false;
		grace.pid = 0;
	}
	closep(&grace.outer_fd);
	closep(&grace.inner_fd);
	grace.outer_fd = grace.inner_fd = -1;
}
