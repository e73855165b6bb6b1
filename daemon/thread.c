// SPDX-License-Identifier: GPL-2.0-or-later
#include "thread.h"

#include <signal.h>

int thread_start(const char *name, void *(*run)(void *data), void *data, pthread_t *ret)
{
	sigset_t all, old;
	pthread_t thread;
	int r;

	/* A thread inherits the mask: so there is no moment at which it takes any. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, NULL, run, data);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return -r;
	pthread_setname_np(thread, name);
	*ret = thread;
	return 0;
}
