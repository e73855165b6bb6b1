// SPDX-License-Identifier: GPL-2.0-or-later
#include "differences.h"

#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const difference_kind_names[] = {
	[DIFFERENCE_VIEW] = "view",	      [DIFFERENCE_PIN] = "pin",
	[DIFFERENCE_ENTRY] = "entry",	      [DIFFERENCE_REDIRECT] = "redirect",
	[DIFFERENCE_INTERFACE] = "interface", [DIFFERENCE_PROGRAM] = "program",
	[DIFFERENCE_FILTER] = "filter",	      [DIFFERENCE_STORE] = "store",
};
_Static_assert(ARRAY_SIZE(difference_kind_names) == DIFFERENCE_KINDS, "a name for each kind");

void differences_add(struct differences *differences, enum difference_kind kind, const char *where,
		     const char *format, ...)
{
	struct difference *item;
	va_list args;

	differences->n++;
	differences->by_kind[kind]++;
	if (!differences->items)
		differences->items = calloc(DIFFERENCES_MAX, sizeof(*differences->items));
	if (!differences->items || differences->n_items == DIFFERENCES_MAX)
		return;
	item = &differences->items[differences->n_items];
	*item = (struct difference){.kind = kind, .where = strdup(where)};
	va_start(args, format);
	if (vasprintf(&item->text, format, args) < 0)
		item->text = NULL;
	va_end(args);
	if (item->where && item->text) {
		text_make_printable(item->where);
		text_make_printable(item->text);
		differences->n_items++;
	} else {
		free(item->where);
		free(item->text);
	}
}

void differences_clear(struct differences *differences)
{
	for (size_t i = 0; i < differences->n_items; i++) {
		free(differences->items[i].where);
		free(differences->items[i].text);
	}
	free(differences->items);
	*differences = (struct differences){0};
}
