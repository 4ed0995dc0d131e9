/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * types_talk.h: the layouts of what is read in connections: part of types.h.
 */
#pragma once

#include <linux/types.h>

enum talk_kind {
	TALK_NONE,  /* nothing was said yet */
	TALK_HTTP1, /* RFC 9112 */
	TALK_HTTP2, /* RFC 9113 */
	TALK_TLS,   /* RFC 8446: until there is application data */
};

/* What the next bytes of one direction are. */
enum reader_state {
	READ_FIRST,    /* a request line or a status line */
	READ_FIELDS,   /* header fields, up to an empty line */
	READ_CHUNK,    /* the size of a chunk */
	READ_TRAILERS, /* fields behind the last chunk */
	READ_REST,     /* a body that ends with the connection */
	READ_FRAME,    /* the head of an HTTP/2 frame */
	READ_PAYLOAD,  /* of a frame that is handed over */
	READ_RECORD,   /* the head of a TLS record */
	READ_ALERT,    /* what one says that is an alert */
};

enum reader_flag {
	READER_LONG = 1,    /* of the line in hand only the start is kept */
	READER_BEGUN = 2,   /* the message in hand was counted in */
	READER_CHUNKED = 4, /* of the message in hand: what it says, */
	READER_LENGTH = 8,
	READER_NO_BODY = 16,  /* or its status, or the request's method */
	READER_TILL_END = 32, /* its body's end is the connection's */
	READER_UPGRADE = 64,  /* what follows is something else */
	READER_KEPT = 128,    /* segments that came too early are kept */
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

/* What the server's 101 agrees to. */
enum agreed { AGREED_NOTHING, AGREED_SOMETHING, AGREED_HTTP2 };

#define BEGUN 8 /* requests that may wait and have their times measured */

/*
 * What is said on a connection. Requests are numbered: number n has bit n of
 * `bodiless`, and n of `begun` and `sent`, modulo their length.
 */
struct talk {
	__u64 opened_ns; /* of the flow that it is about */
	__u32 busy;	 /* bit of a direction: a CPU reads it */
	__u16 asked;	 /* requests that have begun */
	__u16 answered;	 /* and those that have a final answer */
	struct reader of[2];
	__u64 bodiless;	    /* HEAD: the answer has no body */
	__u32 begun[BEGUN]; /* when; units of 1,024 ns, monotonic. HTTP/2:
			     * pieces handed over of each direction */
	__u32 sent[BEGUN];  /* when the client was through with it */
	__u32 fresh;  /* with `resume`: the server's answer to the last request
		       * begins here, whatever was missed before */
	__u8 kind;    /* enum talk_kind */
	__u8 resume;  /* `fresh` counts */
	__u16 first;  /* number of the request that is answered at `fresh` */
	__u32 acked;  /* what the server has of the client, as it said last */
	__u8 agreed;  /* enum agreed */
	__u8 sending; /* the client is not through with its last request */
	__u8 pad2[2];
	__u32 connects; /* number of a CONNECT that waits, plus 1; 0: none */
	__u32 stream;	/* HTTP/2: the last that the client opened, */
	__u32 spent;	/* and what was handed over of it, bytes, */
	__u32 period;	/* in this time: see piece_fair */
};

#define PIECE 1024

enum piece_flag {
	PIECE_LOST = 1, /* the kernel lost the thread: of this direction nothing
			 * more can be understood */
	PIECE_UPGRADED = 2, /* the connection was HTTP/1: the request that asked
			     * for this is stream 1 */
	PIECE_OVER = 4,	    /* this direction's side has ended the connection */
};

/*
 * What user space is handed of an HTTP/2 connection. Of the server the frames
 * that carry fields and ends of streams, in the order of their bytes, cut
 * anywhere. Of the client the heads of those that begin a stream or end it,
 * each by itself: nothing of what it says.
 */
struct piece {
	__u64 opened_ns; /* with the slot: which flow */
	__u64 ns;	 /* monotonic: when it came by */
	__u32 slot;
	__u32 backend;
	__u32 serial; /* of its direction, from 0 on: a gap is a loss */
	__u16 length; /* of data */
	__u8 way;     /* 0: to the server */
	__u8 flags;   /* enum piece_flag */
	__u8 data[PIECE];
};

enum heard_what {
	HEARD_ANSWER,
	HEARD_LOST,    /* one whose status could not be known */
	HEARD_WAITING, /* one that is still waited for */
};

/* What user space understood: an answer on an HTTP/2 connection. */
struct heard {
	__u64 opened_ns;
	__u64 began_ns; /* monotonic; 0: not known */
	__u64 ended_ns; /* the answer's first bytes */
	__u32 heard[2]; /* HEARD_WAITING: pieces of each direction that it
			 * knows */
	__u32 slot;
	__u32 backend;
	__u16 status; /* HTTP; 0: the stream was reset instead */
	__s16 grpc;   /* -1: it is no gRPC */
	__u32 what;   /* enum heard_what */
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
	ANSWER_TLS,	 /* on one that is encrypted */
	ANSWER_LOST, /* on one that speaks HTTP, or was said to: not understood
		      */
	ANSWER_FAILED, /* those of the above that count as errors, by the
			* list of the release that runs or ran last */
	ANSWERS,
};

/* Per backend and CPU. */
struct answers {
	__u64 of[ANSWERS + 1];
};
