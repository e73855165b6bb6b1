// SPDX-License-Identifier: GPL-2.0-or-later
/* What the parsers of common/ take, they write in a form that they take for the same. */
#include "address_list.h"
#include "cleanup.h"
#include "duration.h"
#include "prefix.h"
#include "redirect.h"

#include <errno.h>
#include <string.h>

static void require(bool fact)
{
	if (!fact)
		abort();
}

static void check_refusal(int r, const struct error *err)
{
	require(r == -EINVAL && *err->text);
}

static void check_round_trip(const struct prefix *prefix)
{
	struct prefix again, truncated = *prefix;
	char text[PREFIX_TEXT_MAX], second[PREFIX_TEXT_MAX];

	prefix_truncate(&truncated, prefix->len);
	require(prefix_equal(prefix, &truncated));
	prefix_format(prefix, text);
	require(!prefix_parse(text, strlen(text), &again, NULL));
	require(prefix_equal(prefix, &again) && !prefix_compare(prefix, &again));
	require(prefix_contains(prefix, &again));
	prefix_format(&again, second);
	require(!strcmp(text, second));
}

static void try_prefix(const char *text, size_t size)
{
	struct prefix prefix, address;
	struct error err = {0};
	int r = prefix_parse(text, size, &prefix, &err);

	if (r < 0) {
		check_refusal(r, &err);
		require(address_parse(text, size, &address, NULL) == -EINVAL);
		return;
	}
	check_round_trip(&prefix);
	r = address_parse(text, size, &address, &err);
	require(!r == !memchr(text, '/', size));
	require(r || prefix_equal(&prefix, &address));
}

/* The quick look takes nothing that the strict parser refuses or reads otherwise. */
static void try_scan(const char *text, size_t size)
{
	struct prefix quick, strict;
	size_t n = prefix_scan(text, size, &quick);

	require(n <= size);
	require(!n || (!prefix_parse(text, n, &strict, NULL) && prefix_equal(&quick, &strict)));
}

static void try_list(const char *text, size_t size)
{
	struct address_list list = {0};
	struct error err = {0};
	int r = address_list_parse(text, size, &list, &err);

	if (r < 0)
		check_refusal(r, &err);
	for (size_t i = 0; i < list.n; i++)
		check_round_trip(&list.prefixes[i]);
	free(list.prefixes);
}

/* The written form drops what is smaller than the two largest units. */
static void try_duration(const char *text)
{
	char written[DURATION_TEXT_MAX], second[DURATION_TEXT_MAX];
	struct error err = {0};
	s64 s, again;
	int r = duration_parse(text, &s, &err);

	if (r < 0) {
		check_refusal(r, &err);
		return;
	}
	require(s >= 1 && s <= DURATION_MAX_S);
	duration_format(s, written);
	require(!duration_parse(written, &again, NULL));
	require(again <= s && again > s / 2);
	duration_format(again, second);
	require(!strcmp(written, second));
}

static void try_ports(const char *text)
{
	struct redirect redirect = {0}, again = {0};
	char written[REDIRECT_PORTS_TEXT_MAX];
	struct error err = {0};
	u16 first, last;
	int r = redirect_ports_parse(text, &redirect, &err);

	if (r < 0) {
		check_refusal(r, &err);
	} else {
		redirect_ports_format(&redirect, written);
		require(!redirect_ports_parse(written, &again, NULL));
		require(redirect_same_match(&redirect, &again));
		require(!redirect_compare(&redirect, &again));
	}
	r = port_range_parse(text, &first, &last, &err);
	if (r < 0)
		check_refusal(r, &err);
	else
		require(first >= 1 && first <= last);
	(void)interface_name_check(text, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = malloc(size + 1);

	require(text);
	memcpy(text, data, size);
	text[size] = '\0';
	try_prefix((const char *)data, size);
	try_scan((const char *)data, size);
	try_list((const char *)data, size);
	try_duration(text);
	try_ports(text);
	return 0;
}
