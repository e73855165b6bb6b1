/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests that load programs and pin maps: a mount and a network namespace of the test's own,
 * with a BPF file system in it. Whatever the test pins or attaches goes with its process, however
 * that ends. Criterion runs each test in a process.
 */
#pragma once

/* On the private file system; empty. */
#define PIN_DIR "/sys/fs/bpf/fwd-test"

/* Without the privileges it needs, the test is skipped and says so. */
void enter_private_bpffs(void);
