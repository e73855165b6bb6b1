// SPDX-License-Identifier: GPL-2.0-or-later
#include "expiry.h"

#include <errno.h>
#include <stdlib.h>

int expiry_reserve(struct expiry *expiry, size_t n)
{
	struct expiry_item *more;
	size_t room = expiry->room ? expiry->room : 64;

	while (room < expiry->n + n)
		room *= 2;
	if (room == expiry->room)
		return 0;
	more = reallocarray(expiry->items, room, sizeof(*more));
	if (!more)
		return -ENOMEM;
	expiry->items = more;
	expiry->room = room;
	return 0;
}

void expiry_push(struct expiry *expiry, u64 ns, const struct prefix *prefix)
{
	size_t i = expiry->n++;

	while (i && expiry->items[(i - 1) / 2].ns > ns) {
		expiry->items[i] = expiry->items[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	expiry->items[i] = (struct expiry_item){.ns = ns, .prefix = *prefix};
}

const struct expiry_item *expiry_first(const struct expiry *expiry)
{
	return expiry->n ? &expiry->items[0] : NULL;
}

void expiry_pop(struct expiry *expiry)
{
	struct expiry_item last = expiry->items[--expiry->n];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= expiry->n)
			break;
		if (child + 1 < expiry->n && expiry->items[child + 1].ns < expiry->items[child].ns)
			child++;
		if (last.ns <= expiry->items[child].ns)
			break;
		expiry->items[i] = expiry->items[child];
		i = child;
	}
	if (expiry->n)
		expiry->items[i] = last;
}

void expiry_clear(struct expiry *expiry)
{
	free(expiry->items);
	*expiry = (struct expiry){0};
}
