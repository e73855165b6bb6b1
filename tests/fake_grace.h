/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Grace periods that are over when a test says so, or when somebody waits. No kernel is needed. */
#pragma once

#include "grace.h"

static u64 grace_begun = 1; /* the period that runs; a ticket is for the next one */
static u64 grace_waits;

u64 grace_ticket(void)
{
	return grace_begun + 1;
}

bool grace_over(u64 ticket)
{
	return ticket < grace_begun;
}

/* What has a ticket by now is over. */
static inline void grace_pass(void)
{
	grace_begun += 2;
}

void grace_wait_for(u64 ticket)
{
	grace_waits++;
	if (!grace_over(ticket))
		grace_begun = ticket + 1;
}
