// SPDX-License-Identifier: GPL-2.0-or-later
#include "prefix_map.h"

#include <errno.h>
#include <stdlib.h>

int prefix_finding_add(struct prefix_finding_list *list, const struct prefix_finding *finding)
{
	if (list->n == list->room) {
		size_t room = list->room ? list->room * 2 : 64;
		struct prefix_finding *more = reallocarray(list->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		list->items = more;
		list->room = room;
	}
	list->items[list->n++] = *finding;
	return 0;
}

int prefix_finding_compare(const void *a, const void *b)
{
	const struct prefix_finding *x = a, *y = b;
	int order;

	if (x->table != y->table)
		return x->table < y->table ? -1 : 1;
	order = prefix_compare(&x->prefix, &y->prefix);
	return order ? order : x->fault - y->fault;
}

void prefix_finding_sort(struct prefix_finding_list *list)
{
	size_t kept = 0;

	if (list->n)
		qsort(list->items, list->n, sizeof(*list->items), prefix_finding_compare);
	for (size_t i = 0; i < list->n; i++)
		if (!kept || prefix_finding_compare(&list->items[kept - 1], &list->items[i]) != 0)
			list->items[kept++] = list->items[i];
	list->n = kept;
}

struct side {
	unsigned trie; /* enum fwd_trie */
	struct prefix_finding_list *list;
};

static int add_found(void *data, enum trie_fault fault, struct fwd_bits bits, u32 len)
{
	const struct side *side = data;
	struct prefix_finding finding = {.table = (u8)(side->trie / 2), .fault = (u8)fault};

	prefix_map_prefix(bits, len, side->trie, &finding.prefix);
	return prefix_finding_add(side->list, &finding);
}

int prefix_map_verify(const struct prefix_map *map, const u32 roots[FWD_TRIES],
		      const struct prefix_item *items, size_t n, struct prefix_finding_list *ret,
		      struct error *err)
{
	_cleanup_(prefix_map_closep) struct prefix_map *model = NULL;
	u32 model_roots[FWD_TRIES];
	int r = prefix_map_model(items, n, roots, &model, err);

	if (r < 0)
		return r;
	prefix_map_roots(model, model_roots);
	for (unsigned i = 0; !r && i < FWD_TRIES; i++) {
		struct trie_memory seen, wanted;
		struct side side = {i, ret};

		prefix_map_memory(map, i, &seen);
		prefix_map_memory(model, i, &wanted);
		r = trie_compare(&seen, roots[i], &wanted, model_roots[i],
				 i & 1 ? FWD_IPV6 : FWD_IPV4, add_found, &side);
	}
	if (r < 0)
		return error_no_memory(err);
	prefix_finding_sort(ret);
	return 0;
}
