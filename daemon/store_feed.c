// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lists of feeds: feeds/NAME.list, and feeds/NAME.XXXXXX.new until they are committed. The endings
 * keep apart what is a list and what is not whatever the name is, "." and ".." included.
 */
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define FEED_DIRECTORY "feeds"
#define FEED_NAME_MAX  32

/* The first line, by which a list that was cut off between two lines is known. */
#define LIST_HEAD "# %zu addresses\n"

struct store_feed {
	char directory[FILE_PATH_MAX];
	char path[FILE_PATH_MAX];
	char new_path[FILE_PATH_MAX]; /* empty: nothing is there, or not any more */
	bool removes;
};

static int feed_path(const char *dir, const char *name, const char *ending,
		     char path[static FILE_PATH_MAX], struct error *err)
{
	if (!*name || strlen(name) > FEED_NAME_MAX || strchr(name, '/'))
		return error_set(err, -EINVAL, "\"%s\" is not the name of a feed", name);
	if ((size_t)snprintf(path, FILE_PATH_MAX, "%s/" FEED_DIRECTORY "/%s%s", dir, name,
			     ending) >= FILE_PATH_MAX)
		return error_set(err, -ENAMETOOLONG, "state_dir \"%s\" is too long", dir);
	return 0;
}

static int feed_new(const char *dir, const char *name, struct store_feed **ret, struct error *err)
{
	struct store_feed *feed;
	char path[FILE_PATH_MAX];
	int r = feed_path(dir, name, ".list", path, err);

	if (r < 0)
		return r;
	feed = calloc(1, sizeof(*feed));
	if (!feed)
		return error_no_memory(err);
	memcpy(feed->path, path, sizeof(path));
	snprintf(feed->directory, sizeof(feed->directory), "%s/" FEED_DIRECTORY, dir);
	*ret = feed;
	return 0;
}

static int write_list(FILE *file, const char *path, const struct prefix *prefixes, size_t n,
		      struct error *err)
{
	char text[PREFIX_TEXT_MAX];
	int head = fprintf(file, LIST_HEAD, n);
	size_t size = head < 0 ? 0 : (size_t)head;

	if (head < 0)
		return file_error(err, "write", path);
	for (size_t i = 0; i < n; i++) {
		prefix_format(&prefixes[i], text);
		/* Else it could not be read again. */
		size += strlen(text) + 1;
		if (size > ADDRESS_LIST_MAX_BYTES)
			return error_set(err, -EFBIG, "a list of %zu addresses is too large for %s",
					 n, path);
		if (fprintf(file, "%s\n", text) < 0)
			return file_error(err, "write", path);
	}
	if (fflush(file) != 0 || fsync(fileno(file)) < 0)
		return file_error(err, "write", path);
	return 0;
}

int store_feed_write(const char *dir, const char *name, const struct prefix *prefixes, size_t n,
		     struct store_feed **ret, struct error *err)
{
	_cleanup_(store_feed_dropp) struct store_feed *feed = NULL;
	_cleanup_fclose_ FILE *file = NULL;
	int fd, r;

	if (n > ADDRESS_LIST_MAX_ENTRIES)
		return error_set(err, -EFBIG, "%zu addresses: a list has at most %u", n,
				 ADDRESS_LIST_MAX_ENTRIES);
	r = feed_new(dir, name, &feed, err);
	if (!feed)
		return r;
	r = directory_make(dir, FEED_DIRECTORY, err);
	if (!r)
		r = feed_path(dir, name, ".XXXXXX.new", feed->new_path, err);
	if (r < 0)
		return r;
	fd = mkostemps(feed->new_path, (int)strlen(".new"), O_CLOEXEC);
	if (fd < 0)
		return file_error(err, "make", feed->new_path);
	file = fdopen(fd, "w");
	if (!file) {
		close(fd);
		return error_no_memory(err);
	}
	r = write_list(file, feed->new_path, prefixes, n, err);
	if (!r)
		*ret = take_pointer(&feed);
	return r;
}

int store_feed_remove(const char *dir, const char *name, struct store_feed **ret, struct error *err)
{
	int r = feed_new(dir, name, ret, err);

	if (!r)
		(*ret)->removes = true;
	return r;
}

static int commit_one(struct store_feed *feed, struct error *err)
{
	if (feed->removes) {
		if (unlink(feed->path) < 0 && errno != ENOENT)
			return file_error(err, "remove", feed->path);
		return 0;
	}
	if (rename(feed->new_path, feed->path) < 0)
		return file_error(err, "replace", feed->path);
	feed->new_path[0] = '\0';
	return 0;
}

int store_feed_commit(struct store_feed *const *feeds, size_t n, struct error *err)
{
	struct stat st;
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		r = commit_one(feeds[i], err);
	/* Where no list ever was, there is nothing to remove one from. */
	if (r < 0 || !n || (stat(feeds[0]->directory, &st) < 0 && errno == ENOENT))
		return r;
	return directory_sync(feeds[0]->directory, err);
}

void store_feed_drop(struct store_feed *feed)
{
	if (!feed)
		return;
	if (*feed->new_path)
		unlink(feed->new_path);
	free(feed);
}

/* Lists of earlier versions have no first line of ours. */
static int check_size(int fd, const char *path, const struct stat *st, size_t n, struct error *err)
{
	char head[64] = "";
	size_t written = n;

	if (!st->st_size)
		return error_set(err, -EUCLEAN, "%s is empty", path);
	if (pread(fd, head, sizeof(head) - 1, 0) < 0)
		return file_error(err, "read", path);
	if (sscanf(head, LIST_HEAD, &written) == 1 && written != n)
		return error_set(err, -EUCLEAN, "%s has %zu of %zu addresses", path, n, written);
	return 0;
}

int store_feed_keep(const char *dir, const char *name, char ret_path[static STORE_FILE_MAX],
		    struct error *err)
{
	char path[FILE_PATH_MAX], kept[FILE_PATH_MAX];
	int r = feed_path(dir, name, ".list", path, err);

	if (!r)
		r = feed_path(dir, name, ".list.damaged", kept, err);
	if (r < 0)
		return r;
	unlink(kept);
	if (link(path, kept) < 0)
		return file_error(err, "keep", path);
	memcpy(ret_path, kept, sizeof(kept));
	return 0;
}

int store_feed_load(const char *dir, const char *name, struct address_list *ret,
		    s64 *ret_replaced_s, struct error *err)
{
	char path[FILE_PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r = feed_path(dir, name, ".list", path, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return file_error(err, "open", path);
	r = address_list_read(fd, path, ret, err);
	if (r < 0)
		return r;
	r = check_size(fd, path, &st, ret->n, err);
	if (r < 0)
		free(take_pointer(&ret->prefixes));
	else
		*ret_replaced_s = st.st_mtim.tv_sec;
	return r;
}

static bool is_new(const char *file, const void *data)
{
	size_t size = strlen(file), ending = strlen(".new");

	return size > ending && !strcmp(file + size - ending, ".new");
}

void feeds_sweep(const char *dir)
{
	directory_sweep(dir, FEED_DIRECTORY, is_new, NULL);
}
