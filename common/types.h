/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Short names of the fixed-width types, as the kernel has them. Host byte order, unless the name
 * says otherwise: __be16 and __be32 (linux/types.h) are in network byte order.
 */
#pragma once

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
