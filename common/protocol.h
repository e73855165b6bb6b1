/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What both ends of the control socket agree on beside the command table; docs/protocol.md
 * describes it for others.
 *
 * A request is one JSON object on a line, the answer one JSON object or, for long lists, several,
 * each on a line, all but the last with "more": true. Answers come in the order of requests.
 *
 *   {"command": "add", "prefixes": ["10.0.0.5"], "ttl": "1h30m"}
 *   {"ok": true, "added": 1, "updated": 0}
 *   {"ok": false, "error": {"code": "full", "message": "full: 1000000 of 1000000 entries"}}
 */
#pragma once

#define SOCKET_DEFAULT_PATH "/run/fwd/fwd.sock"

/* Every bound of the control socket. */
#define REQUEST_MAX_BYTES (64u << 10) /* a request's line, newline and all */
#define REPLY_MAX_BYTES	  (1u << 20)  /* an answer's line, newline and all */
#define REPLIES_MAX_BYTES (16u << 20) /* long answers that are not taken, of all connections */
#define REPLY_LONG_BYTES  (16u << 10) /* an answer's line that is longer is a long one */
#define CLIENTS_MAX	  1024	      /* connections at once */
#define REQUEST_TIMEOUT_S 30	      /* from connecting, or the last answer, to a whole request */
#define REPLY_TIMEOUT_S	  30	      /* without the client taking a byte of an answer */
/*
 * How long fwctl waits for the daemon to take or answer something. Far longer than the largest list
 * takes; a daemon that hangs is ended by its watchdog, which ends the wait too.
 */
#define CLIENT_WAIT_S 300

/* "code" of an error. Names are stable; the exit status of fwctl follows from them. */
#define ERROR_CODE_INVALID	 "invalid"	 /* the request is malformed or a value is bad */
#define ERROR_CODE_NOT_FOUND	 "not-found"	 /* what was named is not there */
#define ERROR_CODE_FULL		 "full"		 /* a bound is reached */
#define ERROR_CODE_CONFLICT	 "conflict"	 /* it contradicts what is there */
#define ERROR_CODE_LOCKOUT	 "lockout"	 /* it would cut the caller or the host off */
#define ERROR_CODE_NOT_PERMITTED "not-permitted" /* the caller may not; fwctl exits with 4 */
#define ERROR_CODE_BUSY		 "busy"		 /* something else is under way: try again */
#define ERROR_CODE_FAILED	 "failed" /* the kernel or the disk refused; see the message */

/* Name of the errno's code, for the daemon's answers. */
const char *error_code_name(int code);
