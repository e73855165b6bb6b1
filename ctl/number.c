// SPDX-License-Identifier: GPL-2.0-or-later
#include "number.h"

#include <stdio.h>

const char *number_format(s64 number, char text[static NUMBER_TEXT_MAX])
{
	char digits[NUMBER_TEXT_MAX];
	int n = snprintf(digits, sizeof(digits), "%lld", (long long)number);
	char *out = text;

	for (int i = 0; i < n; i++) {
		*out++ = digits[i];
		if (digits[i] != '-' && i + 1 < n && (n - i - 1) % 3 == 0)
			*out++ = ',';
	}
	*out = '\0';
	return text;
}

const char *size_format(s64 bytes, char text[static NUMBER_TEXT_MAX])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double size = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(text, NUMBER_TEXT_MAX, "%lld bytes", (long long)bytes);
		return text;
	}
	while (size >= 1023.95 && unit + 1 < ARRAY_SIZE(units)) { /* "1024.0" */
		size /= 1024;
		unit++;
	}
	snprintf(text, NUMBER_TEXT_MAX, "%.1f %s", size, units[unit]);
	return text;
}
