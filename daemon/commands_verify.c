// SPDX-License-Identifier: GPL-2.0-or-later
/* The answer to `verify`. */
#include "commands_internal.h"

static json_t *describe(const struct difference *difference)
{
	return json_pack("{s:s, s:s, s:s}", "kind", difference_kind_names[difference->kind],
			 "where", difference->where, "text", difference->text);
}

void describe_verified(const struct rules_verified *verified, json_t *reply)
{
	const struct differences *differences = &verified->differences;
	json_t *list = json_array(), *checked = json_object();

	for (size_t i = 0; i < differences->n_items; i++)
		json_array_append_new(list, describe(&differences->items[i]));
	set_bool(reply, "agrees", !differences->n);
	json_object_set_new(reply, "differences", list);
	set_int(reply, "n_differences", (json_int_t)differences->n);
	set_int(checked, "entries", (json_int_t)verified->n_entries);
	set_int(checked, "redirects", (json_int_t)verified->n_redirects);
	set_int(checked, "interfaces", (json_int_t)verified->n_interfaces);
	json_object_set_new(reply, "checked", checked);
	set_int(reply, "repaired", (json_int_t)verified->n_repaired);
}
