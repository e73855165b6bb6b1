/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One question to the kernel over netlink (libmnl), and its answers. */
#pragma once

#include "types.h"

#include <libmnl/libmnl.h>

/* Room for any question here, and for what the kernel answers at once. */
#define NETLINK_BUFFER_SIZE 32768

/*
 * Begins a question in the buffer: a message of a type, with a header of its family of `size`
 * bytes, zeroed. The caller adds attributes.
 */
struct nlmsghdr *netlink_begin(void *buffer, u16 type, u16 flags, size_t size, void **ret_header);

/* Sends it over a socket of its own, and hands each answer to `see`, which may be NULL. -errno. */
int netlink_ask(int bus, struct nlmsghdr *question, mnl_cb_t see, void *data);
