// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A checkpoint copies the write-ahead log into the database and waits for the disk twice: some 20
 * ms for the 1,000 pages of SQLite's own threshold. Folding a million rules takes a dozen of them.
 * A connection of its own, in a thread of its own, does it beside the one that writes.
 */
#include "store_internal.h"
#include "thread.h"

#define CHECKPOINT_PAGES 1000 /* SQLite's default */

struct checkpointer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool asked, working, ending; /* under the lock */
	sqlite3 *db;		     /* the thread's */
};

static void *checkpoint_when_asked(void *data)
{
	struct checkpointer *c = data;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		while (!c->asked && !c->ending)
			pthread_cond_wait(&c->wake, &c->lock);
		if (c->ending)
			break;
		c->asked = false;
		c->working = true;
		pthread_mutex_unlock(&c->lock);
		/* Where it fails, the log is as good; the next commit asks again. */
		sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
		pthread_mutex_lock(&c->lock);
		c->working = false;
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* SQLite calls it after each commit, in place of its own checkpoint. */
static int committed(void *data, sqlite3 *db, const char *name, int pages)
{
	struct checkpointer *c = data;

	if (pages >= CHECKPOINT_PAGES) {
		pthread_mutex_lock(&c->lock);
		c->asked = true;
		pthread_cond_signal(&c->wake);
		pthread_mutex_unlock(&c->lock);
	}
	return SQLITE_OK;
}

struct checkpointer *checkpointer_start(struct store *store)
{
	struct checkpointer *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->wake, NULL);
	if (sqlite3_open_v2(store->path, &c->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
			    NULL) != SQLITE_OK ||
	    /* Until it has read something, it does not know of the log, and does nothing. */
	    sqlite3_exec(c->db, "SELECT 1 FROM meta", NULL, NULL, NULL) != SQLITE_OK ||
	    thread_start("fwd-checkpoint", checkpoint_when_asked, c, &c->thread) < 0) {
		sqlite3_close(c->db);
		free(c);
		return NULL;
	}
	sqlite3_wal_hook(store->db, committed, c);
	return c;
}

bool checkpointer_works(struct checkpointer *c)
{
	bool works;

	if (!c)
		return false;
	pthread_mutex_lock(&c->lock);
	works = c->asked || c->working;
	pthread_mutex_unlock(&c->lock);
	return works;
}

void checkpointer_stop(struct checkpointer *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->ending = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
	sqlite3_close(c->db);
	free(c);
}
