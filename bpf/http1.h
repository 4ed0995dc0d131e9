/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * http1.h: HTTP/1.0 and 1.1 (RFC 9112), so much of it that requests and answers
 * can be told apart: request lines, status lines, and what says how long a body
 * is. Nothing is kept of what they say.
 */
#pragma once

#include "http2.h"

#define WORD8(a, b, c, d, e, f, g, h)                                          \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 |  \
	 (__u64)(e) << 32 | (__u64)(f) << 40 | (__u64)(g) << 48 |              \
	 (__u64)(h) << 56)

#define OF_MESSAGE                                                             \
	(READER_BEGUN | READER_CHUNKED | READER_LENGTH | READER_NO_BODY |      \
	 READER_TILL_END | READER_UPGRADE)

static __always_inline bool begins_method(__u8 c)
{
	return c >= 'A' && c <= 'Z';
}

static __always_inline void request_line(struct reading *g)
{
	__u64 word = word_of(g->desk->line);
	struct talk *t = g->t;
	__u16 n = t->asked - 1;

	if (word == WORD8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T') &&
	    (t->asked == 1 || t->kind == TALK_HTTP2)) {
		http2_begins(g);
		return;
	}
	if (t->kind == TALK_HTTP2) {
		g->desk->came.stop = 1;
		return;
	}
	g->r->state = READ_FIELDS;
	talk_bodiless(g, (word & ~0ULL >> 24) ==
				 WORD8('H', 'E', 'A', 'D', ' ', 0, 0, 0));
	if (word == WORD8('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		t->connects = (__u32)n + 1;
}

/* "HTTP/1.x sss". */
static __always_inline void status_line(struct reading *g)
{
	const __u8 *line = g->desk->line;
	struct reader *r = g->r;
	struct talk *t = g->t;
	__u32 a = line[9] - '0', b = line[10] - '0', c = line[11] - '0';
	__u32 status = a * 100 + b * 10 + c;
	__u16 n = t->answered;

	if ((word_of(line) & ~0ULL >> 8) !=
		    WORD8('H', 'T', 'T', 'P', '/', '1', '.', 0) ||
	    line[8] != ' ' || a < 1 || a > 5 || b > 9 || c > 9) {
		g->desk->came.stop = true;
		return;
	}
	r->state = READ_FIELDS;
	if (status < 200 && status != 101) {
		r->flags |= READER_NO_BODY; /* the answer is still to come */
		return;
	}
	if (status == 204 || status == 304 || t->bodiless >> (n & 63) & 1)
		r->flags |= READER_NO_BODY;
	if (t->connects == (__u32)n + 1) {
		t->connects = 0;
		if (status < 300)
			r->flags |= READER_UPGRADE;
	}
	t->agreed = AGREED_NOTHING;
	if (status == 101) { /* answered when it says by what */
		r->flags |= READER_UPGRADE | READER_NO_BODY;
		t->agreed = AGREED_SOMETHING;
	} else {
		talk_answers(g, status);
	}
}

/* Where the value begins of a field whose name ends at `at`; 0: it does not.
 * Space before the colon is not allowed: a server is to refuse it, a proxy to
 * remove it (RFC 9112 5.1). */
static __always_inline __u32 field_value(const __u8 *line, __u32 at)
{
#pragma unroll
	for (int i = 0; i < 4; i++, at++) {
		if (line[at] == ':')
			return at + 1;
		if (line[at] != ' ' && line[at] != '\t')
			break;
	}
	return 0;
}

/* One that says it otherwise than another one is not to be trusted. The server
 * refuses such a request (RFC 9112 6.3), so its answer can be told. */
static __always_inline void content_length(struct reading *g, __u64 n)
{
	struct reader *r = g->r;

	if (n != ~0ULL && (!(r->flags & READER_LENGTH) || r->left == n)) {
		r->left = n;
		r->flags |= READER_LENGTH;
	} else if (g->desk->asks) {
		r->flags |= READER_TILL_END;
	} else {
		g->desk->came.stop = true;
	}
}

/* If "chunked" is not the last coding an answer's body ends with the
 * connection, and a request's is not known to end (RFC 9112 6.3). Where the
 * last one is not to be seen it is taken for what it should be. */
static __always_inline void transfer_encoding(struct reading *g)
{
	__u64 tail = line_tail(g->desk);
	struct reader *r = g->r;

	r->flags &= ~(READER_CHUNKED | READER_TILL_END);
	if (!tail ||
	    (tail | LOWER) >> 8 == WORD8('c', 'h', 'u', 'n', 'k', 'e', 'd', 0))
		r->flags |= READER_CHUNKED;
	else
		r->flags |= READER_TILL_END;
}

/* A field that says how long the body is. */
static __always_inline void field_line(struct reading *g)
{
	const __u8 *line = g->desk->line;
	__u64 first = word_of(line) | LOWER, second = word_of(line + 8) | LOWER;
	__u32 at;

	if (first == WORD8('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
	    (second & ~0ULL >> 16) ==
		    WORD8('l', 'e', 'n', 'g', 't', 'h', 0, 0)) {
		at = field_value(line, 14);
		if (at)
			content_length(g, line_number(g->desk, at, 10));
	} else if (first == WORD8('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') &&
		   second == WORD8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
		   (line[16] | 0x20) == 'g') {
		if (field_value(line, 17))
			transfer_encoding(g);
	} else if (first == WORD8('u', 'p', 'g', 'r', 'a', 'd', 'e', ':')) {
		if ((second & ~0ULL >> 32) ==
			    WORD8(' ', 'h', '2', 'c', 0, 0, 0, 0) &&
		    (line[12] == '\r' || line[12] == '\n') && g->t->agreed)
			g->t->agreed = AGREED_HTTP2;
	}
}

/* Both sides have agreed on something else. */
static __always_inline void upgrade(struct reading *g)
{
	struct reader *r = g->r;

	r->left = 0;
	if (g->t->agreed == AGREED_HTTP2) {
		http2_agreed(g);
		return;
	}
	if (g->t->agreed) /* a CONNECT is answered already */
		talk_answers(g, 101);
	g->f->request_ns = 0;
	g->desk->came.upgraded = 1;
	g->desk->came.stop = 1;
}

/* The empty line: what follows the head? */
static __always_inline void head_ends(struct reading *g)
{
	struct reader *r = g->r;
	__u8 flags = r->flags;

	r->flags &= ~OF_MESSAGE;
	r->steps = 0;
	r->state = READ_FIRST;
	if (flags & READER_UPGRADE) {
		upgrade(g);
		return;
	}
	if (!(flags & READER_LENGTH) ||
	    flags & (READER_NO_BODY | READER_CHUNKED | READER_TILL_END))
		r->left = 0;
	if (flags & READER_NO_BODY)
		return;
	if (flags & READER_TILL_END)
		r->state = READ_REST;
	else if (flags & READER_CHUNKED)
		r->state = READ_CHUNK;
	else if (!(flags & READER_LENGTH) && !g->desk->asks)
		r->state = READ_REST;
}

static __always_inline void chunk_line(struct reading *g)
{
	__u64 n = line_number(g->desk, 0, 16);

	g->r->steps = 0;
	if (n == ~0ULL)
		g->desk->came.stop = true;
	else if (!n)
		g->r->state = READ_TRAILERS;
	else
		g->r->left = n + 2; /* and its line's end */
}

/* A message's first line, or a piece of it, is on the desk. */
static __always_inline void message_begins(struct reading *g)
{
	struct reader *r = g->r;

	if (r->flags & READER_BEGUN ||
	    (r->held == 1 && g->desk->line[0] == '\r'))
		return;
	r->flags |= READER_BEGUN;
	if (!g->desk->asks)
		return;
	if (!begins_method(g->desk->line[0]))
		g->desk->came.stop = true;
	else if (g->t->kind != TALK_HTTP2) /* else it is the preface */
		talk_asks(g);
}

static __always_inline void http1_line(struct reading *g, enum line is)
{
	struct reader *r = g->r;

	switch (r->state) {
	case READ_FIRST:
		if (is == LINE_EMPTY) /* RFC 9112 2.2 */
			break;
		message_begins(g);
		if (is == LINE_SHORT || g->desk->came.stop)
			break;
		if (g->desk->asks)
			request_line(g);
		else
			status_line(g);
		break;
	case READ_FIELDS:
		if (is == LINE_EMPTY)
			head_ends(g);
		else if (is == LINE_WHOLE)
			field_line(g);
		break;
	case READ_CHUNK:
		if (is == LINE_EMPTY)
			g->desk->came.stop = true;
		else if (is == LINE_WHOLE)
			chunk_line(g);
		break;
	case READ_TRAILERS:
		if (is == LINE_EMPTY) {
			r->state = READ_FIRST;
			r->steps = 0;
		}
		break;
	}
}
