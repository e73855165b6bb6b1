/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel or the disk has otherwise than the rules say, in sentences. */
#pragma once

#include "error.h"
#include "types.h"

enum difference_kind {
	DIFFERENCE_VIEW,      /* what leads packets to the rules */
	DIFFERENCE_PIN,	      /* a pin of a map */
	DIFFERENCE_ENTRY,     /* a prefix in the kernel's maps */
	DIFFERENCE_REDIRECT,  /* a redirect in the kernel's maps */
	DIFFERENCE_INTERFACE, /* which interfaces are looked after */
	DIFFERENCE_PROGRAM,   /* an XDP program */
	DIFFERENCE_FILTER,    /* a TC program */
	DIFFERENCE_STORE,     /* a durable rule */
	DIFFERENCE_KINDS,
};

/* "view", "pin", ... as the protocol has them. */
extern const char *const difference_kind_names[DIFFERENCE_KINDS];

struct difference {
	enum difference_kind kind;
	char *where; /* a prefix, ports, a path or an interface */
	char *text;  /* both printable */
};

/* Those behind this many are counted only. */
#define DIFFERENCES_MAX 1000

/* Begin with zeros. */
struct differences {
	struct difference *items;
	size_t n_items; /* DIFFERENCES_MAX at most, fewer where memory is lacking */
	size_t n;	/* all of them */
	size_t by_kind[DIFFERENCE_KINDS];
};

__attribute__((format(printf, 4, 5))) void differences_add(struct differences *differences,
							   enum difference_kind kind,
							   const char *where, const char *format,
							   ...);
void differences_clear(struct differences *differences);
