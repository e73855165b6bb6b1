// SPDX-License-Identifier: GPL-2.0-or-later
#include "ssh_client.h"

#include "cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "CLIENT PORT SERVER PORT"; sshd(8) */
#define VARIABLE "SSH_CONNECTION"

/* Processes can become their ancestors' ancestors while they are looked at; no shell is as deep. */
#define ANCESTORS_MAX 64

static bool parse(const char *value, struct prefix *ret)
{
	return !address_parse_loose(value, strcspn(value, " "), ret);
}

/* Of a process; false also where it may not be looked at. */
static bool find_in_process(long pid, struct prefix *ret)
{
	_cleanup_fclose_ FILE *file = NULL;
	_cleanup_free_ char *entry = NULL;
	const size_t n = strlen(VARIABLE "=");
	size_t room = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/environ", pid);
	file = fopen(path, "re");
	while (file && getdelim(&entry, &room, '\0', file) > 0)
		if (!strncmp(entry, VARIABLE "=", n))
			return parse(entry + n, ret);
	return false;
}

/* 0: there is none. */
static long parent_of(long pid)
{
	_cleanup_fclose_ FILE *file = NULL;
	char path[64], line[256];
	long parent = 0;

	snprintf(path, sizeof(path), "/proc/%ld/status", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "PPid: %ld", &parent) == 1)
			return parent;
	return 0;
}

bool ssh_client_find(struct prefix *ret)
{
	const char *value = getenv(VARIABLE);
	long pid = getppid();

	if (value)
		return parse(value, ret);
	for (unsigned i = 0; pid > 1 && i < ANCESTORS_MAX; i++, pid = parent_of(pid))
		if (find_in_process(pid, ret))
			return true;
	return false;
}
