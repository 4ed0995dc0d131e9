/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * types_talk.h: the layouts of what is read in connections: part of types.h.
 */
#pragma once

#include <linux/types.h>

enum talk_kind {
	TALK_NONE,  /* nothing was said yet */
	TALK_HTTP1, /* RFC 9112 */
};

/* What the next bytes of one direction are. */
enum reader_state {
	READ_FIRST,    /* a request line or a status line */
	READ_FIELDS,   /* header fields, up to an empty line */
	READ_CHUNK,    /* the size of a chunk */
	READ_TRAILERS, /* fields behind the last chunk */
	READ_REST,     /* a body that ends with the connection */
};

enum reader_flag {
	READER_LONG = 1,    /* of the line in hand only the start is kept */
	READER_BEGUN = 2,   /* the message in hand was counted in */
	READER_CHUNKED = 4, /* of the message in hand: what it says, */
	READER_LENGTH = 8,
	READER_NO_BODY = 16, /* or its status, or the request's method */
	READER_INTERIM = 32, /* 1xx: the answer is still to come */
	READER_UPGRADE = 64, /* what follows is something else */
};

#define LINE 32 /* so much of a line is understood */

/* One direction of a connection, as far as it is read. */
struct reader {
	__u64 left; /* bytes of a body before the next line; in READ_FIELDS as
		     * they are announced */
	__u32 next; /* sequence number of the next byte to read */
	__u8 state; /* enum reader_state */
	__u8 flags; /* enum reader_flag */
	__u8 held;  /* bytes of `line` */
	__u8 steps; /* lines, and pieces of them, of the head in hand */
	__u8 line[LINE]; /* what the last segment had of a line */
};

#define BEGUN 16 /* requests that may wait and have their time measured */

/*
 * What is said on a connection. Requests are numbered: number n has bit n of
 * `bodiless`, and n of `begun`, modulo their length.
 */
struct talk {
	__u64 opened_ns; /* of the flow that it is about */
	__u32 busy;	 /* bit of a direction: a CPU reads it */
	__u16 asked;	 /* requests that have begun */
	__u16 answered;	 /* and those that have a final answer */
	struct reader of[2];
	__u64 bodiless;	    /* HEAD: the answer has no body */
	__u32 begun[BEGUN]; /* when; units of 1,024 ns, monotonic */
	__u32 fresh; /* with `resume`: the server's answer to the last request
		      * begins here, whatever was missed before */
	__u8 kind;   /* enum talk_kind */
	__u8 resume; /* `fresh` counts */
	__u16 connects; /* number of a CONNECT, plus 1 */
};

/* How a request ended. */
enum answer {
	ANSWER_1XX, /* 101: the connection is something else from now on */
	ANSWER_2XX,
	ANSWER_3XX,
	ANSWER_4XX,
	ANSWER_5XX,
	ANSWER_GRPC_OK,
	ANSWER_GRPC_ERROR,
	ANSWER_UNPARSED, /* on a connection that speaks something else */
	ANSWER_LOST, /* on one that speaks HTTP, or was said to: not understood
		      */
	ANSWERS,
};

/* Per backend and CPU. */
struct answers {
	__u64 of[ANSWERS + 1];
};
