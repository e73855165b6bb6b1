// SPDX-License-Identifier: GPL-2.0-or-later
#include "strays.h"

#include "tc.h"
#include "xdp.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>

static int add(struct strays *strays, const struct stray *stray)
{
	if (strays->n == strays->room) {
		size_t room = strays->room ? strays->room * 2 : 16;
		struct stray *more = reallocarray(strays->items, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		strays->items = more;
		strays->room = room;
	}
	strays->items[strays->n++] = *stray;
	return 0;
}

/* An interface that cannot be looked at is not there any more, or has no room for programs. */
static int look(const struct datapath_owner *owner, struct tc *tc, int ifindex, struct stray *ret,
		struct error *err)
{
	struct stray stray = {.ifindex = ifindex};
	int r = xdp_peek(ifindex, owner, &stray.ours[FWD_HOOK_XDP], &stray.dispatcher_id, err);

	for (enum fwd_hook hook = FWD_HOOK_TC_IN; !r && hook <= FWD_HOOK_TC_OUT; hook++) {
		u32 id = 0;

		if (!tc_get_filter(tc, ifindex, hook, &id, NULL))
			r = datapath_owner_has(owner, id, &stray.ours[hook], err);
	}
	*ret = stray;
	return r;
}

int strays_find(const struct datapath_owner *owner, struct strays *ret, struct error *err)
{
	_cleanup_(tc_closep) struct tc *tc = NULL;
	struct if_nameindex *links;
	int r = tc_open(&tc, err);

	if (r < 0)
		return r;
	links = if_nameindex();
	if (!links)
		return error_set(err, -errno, "cannot list the interfaces: %s", error_name(errno));
	for (size_t i = 0; !r && links[i].if_index; i++) {
		struct stray stray;

		r = look(owner, tc, (int)links[i].if_index, &stray, err);
		if (!r && (stray.dispatcher_id || stray.ours[FWD_HOOK_XDP] ||
			   stray.ours[FWD_HOOK_TC_IN] || stray.ours[FWD_HOOK_TC_OUT]))
			r = add(ret, &stray) < 0 ? error_no_memory(err) : 0;
	}
	if_freenameindex(links);
	return r;
}
