/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * http2.h: HTTP/2 (RFC 9113) up to its frames. What fields say is compressed
 * against a table that a connection builds up (RFC 7541), which is too much to
 * hold here: the server's frames with fields and ends of streams are handed to
 * user space byte for byte; it understands them, and tells (heard.h). So who
 * waits is known there alone: such a flow has no request_ns. Of the client only
 * heads are handed over, and payload is stepped over where it lies.
 */
#pragma once

#include "line.h"

#define FRAME_HEAD    9
#define PREFACE_REST  8 /* "\r\nSM\r\n\r\n", behind "PRI * HTTP/2.0\r\n" */
#define FRAME_HEADERS 1
#define FRAME_RESET   3

/* Of the server: HEADERS, RST_STREAM, PUSH_PROMISE, GOAWAY, CONTINUATION. */
#define HANDED_OVER (1 << 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 9)

/* While user space is behind, no flow may have more of the room that is left
 * than SHARE bytes a PERIOD: then only who says very much is lost. */
#define PERIOD_BITS 28 /* 0.27 s */
#define SHARE	    (1 << 16)

static __always_inline bool piece_fair(struct reading *g, __u32 bytes)
{
	__u32 period = reading_now(g) >> PERIOD_BITS;
	__u32 room = size_of_map(&pieces);
	struct talk *t = g->t;

	if (t->period != period) {
		t->period = period;
		t->spent = 0;
	}
	t->spent += bytes;
	return t->spent <= SHARE ||
	       bpf_ringbuf_query(&pieces, BPF_RB_AVAIL_DATA) <= room - room / 4;
}

/* Hand over the piece in the envelope. */
static __always_inline void piece_send(struct reading *g, struct piece *e,
				       __u32 length, __u32 flags)
{
	__u32 way = g->desk->asks ? 0 : 1;

	if (length > PIECE) /* for the verifier */
		return;
	if (!piece_fair(g, sizeof(*e) - PIECE + length) && !flags) {
		g->desk->came.stop = 1;
		return;
	}
	e->opened_ns = g->f->opened_ns;
	e->ns = reading_now(g);
	e->slot = g->desk->slot;
	e->backend = g->f->backend;
	e->serial = g->t->begun[way]++;
	e->length = length;
	e->way = way;
	e->flags = flags;
	if (bpf_ringbuf_output(&pieces, e,
			       __builtin_offsetof(struct piece, data) + length,
			       0))
		count_reason(NOTE_UNHEARD);
}

static __always_inline struct piece *envelope(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&envelopes, &zero);
}

/* Both sides speak in frames from now on. */
static __always_inline void http2_starts(struct reading *g)
{
	struct talk *t = g->t;

	t->kind = TALK_HTTP2;
	t->asked = 0;
	t->answered = 0;
	t->begun[0] = 0;
	t->begun[1] = 0;
	t->stream = 0;
	t->spent = 0;
	g->f->request_ns = 0;
	flow_set(g->f, FLOW_REQUESTS);
}

/* The client's preface. The server has said nothing yet, or it has agreed to
 * this before. */
static __always_inline void http2_begins(struct reading *g)
{
	if (g->t->kind != TALK_HTTP2) {
		http2_starts(g);
		g->t->of[1].state = READ_FRAME;
	}
	g->r->flags &= READER_KEPT;
	g->r->left = PREFACE_REST;
	g->r->state = READ_FRAME;
}

/* The server agrees: the request that asked for it is stream 1. */
static __always_inline void http2_agreed(struct reading *g)
{
	struct piece *e = envelope();

	g->desk->came.now = g->f->request_ns;
	http2_starts(g);
	g->r->state = READ_FRAME;
	g->t->stream = 1;
	if (e)
		piece_send(g, e, 0, PIECE_UPGRADED);
	g->desk->came.now = 0;
}

/* Nothing more of this direction will be understood. Of the other one requests
 * are still counted, or answers, though not how they ended. */
static __always_inline void http2_lost(struct reading *g)
{
	struct piece *e = envelope();

	if (e)
		piece_send(g, e, 0, PIECE_LOST);
	g->r->state = READ_REST;
	if (g->t->of[0].state == READ_REST && g->t->of[1].state == READ_REST)
		flow_set(g->f, FLOW_UNREAD | FLOW_UPGRADED);
}

/* One side ends the connection. Where the server has said what was not read,
 * nobody knows who was answered. */
static __always_inline void http2_over(struct reading *g)
{
	struct piece *e = envelope();
	__u32 flags = PIECE_OVER;

	if (server_unread(g->t, g->f))
		flags |= PIECE_LOST;
	if (e)
		piece_send(g, e, 0, flags);
}

/* A client's frame that begins a stream, or gives one up. */
static __always_inline bool client_asks(struct reading *g, __u32 type)
{
	const __u8 *id = g->desk->line + 5;
	__u32 stream = (__u32)(id[0] & 0x7f) << 24 | (__u32)id[1] << 16 |
		       (__u32)id[2] << 8 | id[3];

	if (type == FRAME_RESET)
		return stream <= g->t->stream;
	if (type != FRAME_HEADERS || stream <= g->t->stream)
		return false; /* or trailers */
	g->t->stream = stream;
	return true;
}

/* The server speaks: that a connection ends later is no failure. */
static __always_inline void server_heard(struct reading *g)
{
	if (!g->desk->asks && !(g->f->flags & FLOW_RESPONDED))
		flow_set(g->f, FLOW_RESPONDED);
}

/* A frame's head, or a piece of it, is next. */
static __always_inline void frame_head(struct reading *g)
{
	struct desk *k = g->desk;
	struct reader *r = g->r;
	struct piece *e;
	__u32 type;

	if (!gather(g, FRAME_HEAD))
		return;
	server_heard(g);
	r->left = (__u32)k->line[0] << 16 | k->line[1] << 8 | k->line[2];
	type = k->line[3];
	if (k->asks ? !client_asks(g, type) :
		      type > 9 || !(HANDED_OVER >> type & 1))
		return;
	e = envelope();
	if (!e)
		return;
	__builtin_memcpy(e->data, k->line, FRAME_HEAD);
	piece_send(g, e, FRAME_HEAD, 0);
	if (!k->asks)
		r->state = READ_PAYLOAD;
}

/* The payload of a frame that is handed over, or a piece of it, is next. */
static __always_inline void frame_payload(struct reading *g)
{
	struct desk *k = g->desk;
	struct reader *r = g->r;
	__u32 n = r->left; /* 24 bits */
	struct piece *e = envelope();

	if (!n) {
		r->state = READ_FRAME;
		return;
	}
	if (n > k->end - k->at)
		n = k->end - k->at;
	if (n > PIECE)
		n = PIECE;
	if (!e || !length_within(&n, PIECE) || page_load(g, e->data, n)) {
		k->came.stop = 1;
		return;
	}
	piece_send(g, e, n, 0);
	k->at += n;
	r->left -= n;
	if (!r->left)
		r->state = READ_FRAME;
}
