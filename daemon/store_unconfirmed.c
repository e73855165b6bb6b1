// SPDX-License-Identifier: GPL-2.0-or-later
/* unconfirmed/fwd.toml, and unconfirmed/fwd.toml.new until it is committed. */
#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define UNCONFIRMED_DIRECTORY "unconfirmed"
#define UNCONFIRMED_FILE      UNCONFIRMED_DIRECTORY "/fwd.toml"

struct store_unconfirmed {
	char directory[FILE_PATH_MAX];
	char path[FILE_PATH_MAX];
	char new_path[FILE_PATH_MAX]; /* empty: nothing is there any more */
};

static int path_below(const char *dir, const char *name, char path[static FILE_PATH_MAX],
		      struct error *err)
{
	if ((size_t)snprintf(path, FILE_PATH_MAX, "%s/%s", dir, name) >= FILE_PATH_MAX)
		return error_set(err, -ENAMETOOLONG, "state_dir \"%s\" is too long", dir);
	return 0;
}

int store_unconfirmed_path(const char *dir, char path[static STORE_FILE_MAX], struct error *err)
{
	return path_below(dir, UNCONFIRMED_FILE, path, err);
}

int store_unconfirmed_write(const char *dir, const char *text, size_t size,
			    struct store_unconfirmed **ret, struct error *err)
{
	_cleanup_(store_unconfirmed_dropp) struct store_unconfirmed *unconfirmed =
		calloc(1, sizeof(*unconfirmed));
	char new_path[FILE_PATH_MAX];
	_cleanup_close_ int fd = -1;
	int r;

	if (!unconfirmed)
		return error_no_memory(err);
	r = path_below(dir, UNCONFIRMED_DIRECTORY, unconfirmed->directory, err);
	if (!r)
		r = path_below(dir, UNCONFIRMED_FILE, unconfirmed->path, err);
	if (!r)
		r = path_below(dir, UNCONFIRMED_FILE ".new", new_path, err);
	if (!r)
		r = directory_make(dir, UNCONFIRMED_DIRECTORY, err);
	if (r < 0)
		return r;
	fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return file_error(err, "make", new_path);
	memcpy(unconfirmed->new_path, new_path, sizeof(new_path));
	r = file_write(fd, text, size);
	if (r < 0)
		errno = -r;
	if (r < 0 || fsync(fd) < 0)
		return file_error(err, "write", new_path);
	*ret = take_pointer(&unconfirmed);
	return 0;
}

int store_unconfirmed_commit(struct store_unconfirmed *unconfirmed, struct error *err)
{
	if (rename(unconfirmed->new_path, unconfirmed->path) < 0)
		return file_error(err, "replace", unconfirmed->path);
	unconfirmed->new_path[0] = '\0';
	return directory_sync(unconfirmed->directory, err);
}

void store_unconfirmed_drop(struct store_unconfirmed *unconfirmed)
{
	if (!unconfirmed)
		return;
	if (*unconfirmed->new_path)
		unlink(unconfirmed->new_path);
	free(unconfirmed);
}

int store_unconfirmed_remove(const char *dir, struct error *err)
{
	char directory[FILE_PATH_MAX], path[FILE_PATH_MAX];
	int r = path_below(dir, UNCONFIRMED_DIRECTORY, directory, err);

	if (!r)
		r = store_unconfirmed_path(dir, path, err);
	if (r < 0)
		return r;
	if (unlink(path) < 0)
		return errno == ENOENT ? 0 : file_error(err, "remove", path);
	return directory_sync(directory, err);
}
