// SPDX-License-Identifier: GPL-2.0-or-later
#include "duration.h"

#include <errno.h>
#include <stdio.h>

static const struct {
	char name;
	s64 s;
} units[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};

#define ACCEPTED "expected a time such as 90s, 15m, 1h30m, 7d or 2w"

int duration_parse(const char *text, s64 *ret_s, struct error *err)
{
	const char *p = text;
	size_t next_unit = 0;
	s64 total = 0;

	while (*p) {
		s64 value = 0;
		size_t unit;

		if (*p < '0' || *p > '9')
			return error_set(err, -EINVAL, "\"%.80s\" is not a time; " ACCEPTED, text);
		for (; *p >= '0' && *p <= '9'; p++) {
			value = value * 10 + (*p - '0');
			if (value > DURATION_MAX_S)
				goto too_long;
		}
		if (!*p && !next_unit)
			unit = ARRAY_SIZE(units) - 1; /* a bare number */
		else
			for (unit = next_unit; unit < ARRAY_SIZE(units); unit++)
				if (units[unit].name == *p)
					break;
		if (unit >= ARRAY_SIZE(units))
			return error_set(err, -EINVAL, "\"%.80s\" is not a time; " ACCEPTED, text);
		next_unit = unit + 1;
		if (*p)
			p++;
		total += value * units[unit].s;
		if (total > DURATION_MAX_S)
			goto too_long;
	}
	if (p == text)
		return error_set(err, -EINVAL, "an empty time; " ACCEPTED);
	if (!total)
		return error_set(err, -EINVAL, "\"%.80s\" is no time at all; the shortest is 1s",
				 text);
	*ret_s = total;
	return 0;

too_long:
	return error_set(err, -EINVAL, "\"%.80s\" is too long; the longest is 36500d", text);
}

void duration_format(s64 s, char text[static DURATION_TEXT_MAX])
{
	size_t used = 0;
	int shown = 0;

	for (size_t i = 1; i < ARRAY_SIZE(units) && shown < 2 && s > 0; i++) {
		s64 n = s / units[i].s;

		if (!n && !shown)
			continue;
		shown++;
		s %= units[i].s;
		if (n)
			used += (size_t)snprintf(text + used, DURATION_TEXT_MAX - used, "%lld%c",
						 (long long)n, units[i].name);
	}
	if (!used)
		snprintf(text, DURATION_TEXT_MAX, "0s");
}
