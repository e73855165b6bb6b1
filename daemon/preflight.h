/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What must hold before anything is touched, each with a sentence that says what to do. */
#pragma once

#include "error.h"

/* Privileges, the kernel's version, and a BPF file system at `pin_dir`. */
int preflight_check(const char *pin_dir, struct error *err);

/* The parts that hold for who only takes away. */
int preflight_check_privileges(struct error *err);
int preflight_check_bpffs(const char *pin_dir, struct error *err);
