// SPDX-License-Identifier: GPL-2.0-or-later
#include "store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int disk_full(struct error *err, const char *what, const char *path)
{
	return error_set(err, -EDQUOT, "cannot %s %s: the disk is full, make room on it", what,
			 path);
}

int file_error(struct error *err, const char *what, const char *path)
{
	int code = errno;

	if (code == ENOSPC)
		return disk_full(err, what, path);
	return error_set(err, -code, "cannot %s %s: %s", what, path, error_name(code));
}

int file_write(int fd, const void *bytes, size_t size)
{
	const u8 *p = bytes;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

int directory_sync(const char *path, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return file_error(err, "write", path);
	return 0;
}

int directory_make(const char *dir, const char *name, struct error *err)
{
	char path[FILE_PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return error_set(err, -ENAMETOOLONG, "state_dir \"%s\" is too long", dir);
	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? 0 : file_error(err, "make the directory", path);
	return directory_sync(dir, err);
}

void directory_sweep(const char *dir, const char *name,
		     bool (*is_stale)(const char *file, const void *data), const void *data)
{
	char path[FILE_PATH_MAX];
	struct dirent *entry;
	DIR *files;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	files = opendir(path);
	if (!files)
		return;
	while ((entry = readdir(files)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    is_stale(entry->d_name, data))
			unlinkat(dirfd(files), entry->d_name, 0);
	closedir(files);
}
