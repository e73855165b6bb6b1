// SPDX-License-Identifier: GPL-2.0-or-later
#include "duration.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void reads(const char *text, s64 expected)
{
	struct error err = {""};
	s64 s = -1;

	cr_expect_eq(duration_parse(text, &s, &err), 0, "%s: %s", text, err.text);
	cr_expect_eq(s, expected, "%s: %lld", text, (long long)s);
}

static void refused(const char *text, const char *why)
{
	struct error err = {""};
	s64 s = -1;

	cr_expect_eq(duration_parse(text, &s, &err), -EINVAL, "%s was accepted", text);
	cr_expect(strstr(err.text, why), "%s: %s", text, err.text);
	cr_expect_eq(s, -1, "%s: the output was touched", text);
}

Test(duration, adds_up_units)
{
	reads("90s", 90);
	reads("15m", 900);
	reads("1h30m", 5400);
	reads("2d", 172800);
	reads("1w", 604800);
	reads("1w2d3h4m5s", 604800 + 2 * 86400 + 3 * 3600 + 4 * 60 + 5);
	reads("0h5m", 300);
	reads("007m", 420);
}

Test(duration, a_bare_number_is_seconds)
{
	reads("1", 1);
	reads("3600", 3600);
	refused("1h30", "expected a time such as");
}

Test(duration, refuses_what_is_not_a_time)
{
	static const char *const bad[] = {"s",	  "h1",	 "1x",	"1h 30m", " 1h",
					  "1h ",  "-1h", "+1h", "1.5h",	  "1m1h",
					  "1h1h", "1H",	 "1ms", "1e3",	  "1hm"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(bad[i], "is not a time; expected a time such as 90s");
	refused("", "an empty time");
}

Test(duration, refuses_no_time_at_all)
{
	reads("1s", 1);
	refused("0", "the shortest is 1s");
	refused("0s", "the shortest is 1s");
	refused("0w0d", "the shortest is 1s");
}

Test(duration, ends_at_a_hundred_years)
{
	reads("36500d", DURATION_MAX_S);
	reads("3153600000", DURATION_MAX_S);
	refused("3153600001", "the longest is 36500d");
	refused("36500d1s", "the longest is 36500d");
	refused("36501d", "the longest is 36500d");
	refused("99999999999999999999999999w", "the longest is 36500d");
}

static void formats(s64 s, const char *expected)
{
	char text[DURATION_TEXT_MAX];

	duration_format(s, text);
	cr_expect_str_eq(text, expected);
}

Test(duration, formats_the_largest_unit_and_the_one_below)
{
	formats(0, "0s");
	formats(-5, "0s");
	formats(INT64_MIN, "0s");
	formats(5, "5s");
	formats(59, "59s");
	formats(60, "1m");
	formats(61, "1m1s");
	formats(5400, "1h30m");
	formats(3601, "1h");
	formats(90061, "1d1h");
	formats(2 * 86400 + 300, "2d");
	formats(604800, "7d");
	formats(INT64_MAX, "106751991167300d15h");
}
