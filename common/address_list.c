// SPDX-License-Identifier: GPL-2.0-or-later
#include "address_list.h"

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The part of a line that holds an address: no comment, no white space around it. */
static void trim(const char **text, size_t *size)
{
	const char *p = *text;
	size_t n = *size;

	while (n && is_blank(*p)) {
		p++;
		n--;
	}
	for (size_t i = 0; i < n; i++) {
		if ((p[i] == '#' || p[i] == ';') && (i == 0 || is_blank(p[i - 1]))) {
			n = i;
			break;
		}
	}
	while (n && is_blank(p[n - 1]))
		n--;
	*text = p;
	*size = n;
}

static int append(struct address_list *list, size_t *room, const struct prefix *prefix,
		  struct error *err)
{
	if (list->n == ADDRESS_LIST_MAX_ENTRIES)
		return error_set(err, -EFBIG, "more than %u addresses, the most a list may have",
				 ADDRESS_LIST_MAX_ENTRIES);
	if (list->n == *room) {
		size_t grown = *room ? *room * 2 : 64;
		struct prefix *more = reallocarray(list->prefixes, grown, sizeof(*more));

		if (!more)
			return error_no_memory(err);
		list->prefixes = more;
		*room = grown;
	}
	list->prefixes[list->n++] = *prefix;
	return 0;
}

/* What a line holds, `size` bytes without its end: a prefix, or nothing. */
static int parse_line(const char *text, size_t size, struct prefix *ret, bool *ret_found,
		      struct error *err)
{
	trim(&text, &size);
	*ret_found = size;
	return size ? prefix_parse(text, size, ret, err) : 0;
}

/* The next line, up to `end`; *text moves behind it. Most lines are a plain prefix and no more. */
static int take_line(const char **text, const char *end, struct prefix *ret, bool *ret_found,
		     struct error *err)
{
	const char *line = *text, *newline;
	const char *rest = line + prefix_scan(line, (size_t)(end - line), ret);
	size_t rest_size;

	*ret_found = true;
	if (rest != line && (rest == end || *rest == '\n')) {
		*text = rest + (rest < end);
		return 0;
	}
	newline = memchr(rest, '\n', (size_t)(end - rest));
	*text = newline ? newline + 1 : end;
	rest_size = (size_t)((newline ? newline : end) - rest);
	if (memchr(rest, '\0', rest_size))
		return error_set(err, -EINVAL, "binary data, not a list of addresses");
	if (rest != line && is_blank(*rest)) {
		const char *more = rest;
		size_t more_size = rest_size;

		trim(&more, &more_size);
		if (!more_size)
			return 0;
	}
	return parse_line(line, (size_t)(rest - line) + rest_size, ret, ret_found, err);
}

/* `file`: what to call the text in front of a line's number, or NULL for "line ". */
static int parse(const char *text, size_t size, const char *file, struct address_list *ret,
		 struct error *err)
{
	struct address_list list = {0};
	const char *end = text + size;
	size_t room = 0, line = 0;
	int r = 0;

	while (!r && text < end) {
		struct prefix prefix;
		bool found = false;

		line++;
		r = take_line(&text, end, &prefix, &found, err);
		if (!r && found)
			r = append(&list, &room, &prefix, err);
	}
	if (r < 0) {
		if (file)
			error_prepend(err, "%s:%zu: ", file, line);
		else
			error_prepend(err, "line %zu: ", line);
		free(list.prefixes);
		return r;
	}
	*ret = list;
	return 0;
}

int address_list_parse(const char *text, size_t size, struct address_list *ret, struct error *err)
{
	return parse(text, size, NULL, ret, err);
}

static int read_whole(int fd, char *text, size_t size, size_t *ret_size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = read(fd, text + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		have += (size_t)n;
	}
	*ret_size = have;
	return 0;
}

int address_list_read(int fd, const char *name, struct address_list *ret, struct error *err)
{
	const char *shown = name ? name : "the list";
	_cleanup_free_ char *text = NULL;
	struct stat st;
	size_t size = 0;
	int r;

	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot read %s: %s", shown, error_name(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "cannot read %s: it is %s, not a regular file",
				 shown, S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
	if (st.st_size > ADDRESS_LIST_MAX_BYTES)
		return error_set(err, -EFBIG, "%s is too large: %lld bytes, the largest list is %u",
				 shown, (long long)st.st_size, ADDRESS_LIST_MAX_BYTES);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_no_memory(err);
	r = read_whole(fd, text, (size_t)st.st_size, &size);
	if (r < 0)
		return error_set(err, r, "cannot read %s: %s", shown, error_name(r));
	return parse(text, size, name, ret, err);
}

int address_list_load(const char *path, struct address_list *ret, struct error *err)
{
	/* O_NONBLOCK: a FIFO in the place of the file must not hang the daemon. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return error_set(err, -errno, "cannot open %s: %s", path, error_name(errno));
	return address_list_read(fd, path, ret, err);
}
