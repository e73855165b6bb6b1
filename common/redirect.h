/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A redirect as a user writes it, in the configuration and on the command line: packets to these
 * ports, on this interface, in this direction, go to that interface.
 */
#pragma once

#include "error.h"
#include "types.h"

#include <net/if.h>

enum direction {
	DIRECTION_IN,
	DIRECTION_OUT,
	DIRECTION_COUNT,
};

enum redirect_mode {
	REDIRECT_AUTO,	  /* l2 to a device without a link-layer header, neigh to any other */
	REDIRECT_L2,	  /* the frame as it is */
	REDIRECT_NEIGH,	  /* the link-layer address of the next hop on the target is looked up */
	REDIRECT_INGRESS, /* as if it had been received on the target */
	REDIRECT_MODE_COUNT,
};

/* `protocol` is IPPROTO_TCP or IPPROTO_UDP; ports are in host order, `first` to `last` inclusive.
 */
struct redirect {
	char interface[IFNAMSIZ]; /* empty: every configured interface */
	u8 direction;		  /* enum direction */
	u8 mode;		  /* enum redirect_mode */
	u8 protocol;
	u16 port_first;
	u16 port_last;
	char target[IFNAMSIZ];
};

/* The most redirects an instance holds, from all origins. */
#define REDIRECTS_MAX 1000

/* "tcp/8000-8099" and its NUL. */
#define REDIRECT_PORTS_TEXT_MAX 16

/* "tcp/8080", "udp/8000-8099": sets protocol, port_first and port_last. */
int redirect_ports_parse(const char *text, struct redirect *redirect, struct error *err);
void redirect_ports_format(const struct redirect *redirect,
			   char text[static REDIRECT_PORTS_TEXT_MAX]);

/* "8080" or "8000-8099", 1 to 65535, first no higher than last. */
int port_range_parse(const char *text, u16 *ret_first, u16 *ret_last, struct error *err);

/* A name the kernel would take: 1 to 15 bytes, no '/', ':' or white space, not "." or "..". */
int interface_name_check(const char *text, struct error *err);

/* Names of the enums, as they stand in the configuration and on the wire. */
extern const char *const direction_names[DIRECTION_COUNT];
extern const char *const redirect_mode_names[REDIRECT_MODE_COUNT];
int direction_parse(const char *text, u8 *ret, struct error *err);
int redirect_mode_parse(const char *text, u8 *ret, struct error *err);
int protocol_parse(const char *text, u8 *ret, struct error *err);
const char *protocol_name(u8 protocol);

/*
 * True if a packet could match both: same direction, protocol and scope (interface or every
 * interface), and a port in common. A redirect of one interface and one of every interface do not
 * overlap: on that interface its own one goes first.
 */
bool redirect_overlaps(const struct redirect *a, const struct redirect *b);

/* True if they have the same ports, protocol, direction and interface: what `redirect del` names.
 */
bool redirect_same_match(const struct redirect *a, const struct redirect *b);

/* False: no user could have written it. Its names end. */
bool redirect_is_valid(const struct redirect *redirect);

/* Order of lists: interface, direction, protocol, first port. */
int redirect_compare(const struct redirect *a, const struct redirect *b);
