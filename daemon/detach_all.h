/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The emergency exit: takes everything of fwd out of the kernel, without a running daemon, a valid
 * configuration or whole pins.
 */
#pragma once

/*
 * Takes our programs off every interface of this network namespace, and the pins away. It tells on
 * standard output what it took off where, and on standard error what it could not: then it returns
 * a negative errno, having done all the rest. -EBUSY: a daemon runs, and nothing was done.
 */
int detach_all(const char *config_file);
