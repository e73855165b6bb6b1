/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads beside the event loop. */
#pragma once

#include <pthread.h>

/*
 * Starts a thread that takes no signals: they are the event loop's, which waits for them with
 * signalfd(2) and misses those that another thread was given. `name` is for ps(1), 15 bytes at
 * most. 0 or a negative errno.
 */
int thread_start(const char *name, void *(*run)(void *data), void *data, pthread_t *ret);
