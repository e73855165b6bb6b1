// SPDX-License-Identifier: GPL-2.0-or-later
#include "redirect.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

const char *const direction_names[] = {
	[DIRECTION_IN] = "in",
	[DIRECTION_OUT] = "out",
};
_Static_assert(ARRAY_SIZE(direction_names) == DIRECTION_COUNT, "a name for each direction");

const char *const redirect_mode_names[] = {
	[REDIRECT_AUTO] = "auto",
	[REDIRECT_L2] = "l2",
	[REDIRECT_NEIGH] = "neigh",
	[REDIRECT_INGRESS] = "ingress",
};
_Static_assert(ARRAY_SIZE(redirect_mode_names) == REDIRECT_MODE_COUNT, "a name for each mode");

static int name_parse(const char *text, const char *const names[], size_t n, u8 *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(text, names[i])) {
			*ret = (u8)i;
			return 0;
		}
	}
	return -EINVAL;
}

int direction_parse(const char *text, u8 *ret, struct error *err)
{
	if (name_parse(text, direction_names, DIRECTION_COUNT, ret) < 0)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not a direction; expected \"in\" or \"out\"", text);
	return 0;
}

int redirect_mode_parse(const char *text, u8 *ret, struct error *err)
{
	if (name_parse(text, redirect_mode_names, REDIRECT_MODE_COUNT, ret) < 0)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not a mode; expected \"auto\", \"l2\", \"neigh\" or "
				 "\"ingress\"",
				 text);
	return 0;
}

int protocol_parse(const char *text, u8 *ret, struct error *err)
{
	if (!strcmp(text, "tcp"))
		*ret = IPPROTO_TCP;
	else if (!strcmp(text, "udp"))
		*ret = IPPROTO_UDP;
	else
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not a protocol; expected \"tcp\" or \"udp\"", text);
	return 0;
}

const char *protocol_name(u8 protocol)
{
	return protocol == IPPROTO_TCP ? "tcp" : "udp";
}

/* A decimal port without a leading zero; moves *text behind it. */
static bool parse_port(const char **text, u16 *ret)
{
	unsigned value = 0;
	const char *p = *text;

	if (*p < '1' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (unsigned)(*p - '0');
		if (value > UINT16_MAX)
			return false;
	}
	*text = p;
	*ret = (u16)value;
	return true;
}

int port_range_parse(const char *text, u16 *ret_first, u16 *ret_last, struct error *err)
{
	const char *p = text;
	u16 first, last;

	if (!parse_port(&p, &first))
		goto refuse;
	last = first;
	if (*p == '-') {
		p++;
		if (!parse_port(&p, &last))
			goto refuse;
	}
	if (*p)
		goto refuse;
	if (last < first)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is a range that ends before it starts; did you mean "
				 "%u-%u?",
				 text, last, first);
	*ret_first = first;
	*ret_last = last;
	return 0;

refuse:
	return error_set(err, -EINVAL,
			 "\"%.80s\" is not a port (1 to 65535) or a range such as 8000-8099", text);
}

int redirect_ports_parse(const char *text, struct redirect *redirect, struct error *err)
{
	const char *slash = strchr(text, '/');
	char name[8];
	u16 first = 0, last = 0;
	u8 protocol = 0;
	int r;

	if (!slash || (size_t)(slash - text) >= sizeof(name))
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not PROTO/PORT[-PORT], such as tcp/8080 or "
				 "udp/8000-8099",
				 text);
	memcpy(name, text, (size_t)(slash - text));
	name[slash - text] = '\0';
	r = protocol_parse(name, &protocol, err);
	if (r < 0)
		return r;
	r = port_range_parse(slash + 1, &first, &last, err);
	if (r < 0)
		return r;
	redirect->protocol = protocol;
	redirect->port_first = first;
	redirect->port_last = last;
	return 0;
}

void redirect_ports_format(const struct redirect *redirect,
			   char text[static REDIRECT_PORTS_TEXT_MAX])
{
	const char *protocol = protocol_name(redirect->protocol);

	if (redirect->port_first == redirect->port_last)
		snprintf(text, REDIRECT_PORTS_TEXT_MAX, "%s/%u", protocol, redirect->port_first);
	else
		snprintf(text, REDIRECT_PORTS_TEXT_MAX, "%s/%u-%u", protocol, redirect->port_first,
			 redirect->port_last);
}

int interface_name_check(const char *text, struct error *err)
{
	size_t n = strlen(text);
	bool good = n > 0 && n < IFNAMSIZ && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;

	/* dev_valid_name() in the kernel's net/core/dev.c. */
	for (size_t i = 0; good && i < n; i++)
		good = text[i] != '/' && text[i] != ':' && !isspace((unsigned char)text[i]);
	if (!good)
		return error_set(err, -EINVAL,
				 "\"%.80s\" is not an interface name: 1 to %d bytes without '/', "
				 "':' or white space",
				 text, IFNAMSIZ - 1);
	return 0;
}

bool redirect_overlaps(const struct redirect *a, const struct redirect *b)
{
	return a->direction == b->direction && a->protocol == b->protocol &&
	       !strcmp(a->interface, b->interface) && a->port_first <= b->port_last &&
	       b->port_first <= a->port_last;
}

bool redirect_same_match(const struct redirect *a, const struct redirect *b)
{
	return redirect_overlaps(a, b) && a->port_first == b->port_first &&
	       a->port_last == b->port_last;
}

int redirect_compare(const struct redirect *a, const struct redirect *b)
{
	int order = strcmp(a->interface, b->interface);

	if (!order)
		order = (int)a->direction - (int)b->direction;
	if (!order)
		order = (int)a->protocol - (int)b->protocol;
	if (!order)
		order = (int)a->port_first - (int)b->port_first;
	return order;
}

bool redirect_is_valid(const struct redirect *redirect)
{
	return (!*redirect->interface || !interface_name_check(redirect->interface, NULL)) &&
	       !interface_name_check(redirect->target, NULL) &&
	       redirect->direction < DIRECTION_COUNT && redirect->mode < REDIRECT_MODE_COUNT &&
	       (redirect->protocol == IPPROTO_TCP || redirect->protocol == IPPROTO_UDP) &&
	       redirect->port_first >= 1 && redirect->port_first <= redirect->port_last;
}
