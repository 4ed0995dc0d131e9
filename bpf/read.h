/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * read.h: from segments to what was said. Bytes are read in their order and
 * once, so a retransmission says nothing. A segment that comes too early is
 * skipped where it is all body, and missed where it is not: what was missed is
 * over with the client's next request, since its acknowledgement says where the
 * server's answer to that begins.
 *
 * A peer may say anything: what it costs is bounded by STEPS a head and
 * STEPS_MOST a segment, and what it breaks is its own connection's reading.
 */
#pragma once

#include "http1.h"
#include "tls.h"
#include "track.h"

/* Lines, and pieces of long ones, of a head and of a segment. */
#define STEPS		  255
#define STEPS_MOST	  4096

#define BUSY_TRIES	  64
#define ERRORS_OF_SEGMENT 8

/* One direction is read by one CPU at a time. */
static __always_inline bool talk_take(struct talk *t, __u32 bit)
{
	for (int i = 0; i < BUSY_TRIES; i++)
		if (!(__sync_fetch_and_or(&t->busy, bit) & bit))
			return true;
	return false;
}

static __always_inline void talk_give(struct talk *t, __u32 bit)
{
	__sync_fetch_and_and(&t->busy, ~bit);
}

/* The connection's first bytes, or bytes of its: nothing was read before. */
static __always_inline bool talk_open(struct talk *t, struct flow *f)
{
	if (t->opened_ns == f->opened_ns)
		return true;
	if ((f->flags & (FLOW_ANSWERED | FLOW_RESPONDED)) != FLOW_ANSWERED)
		return false; /* the server speaks first, or is not there yet */
	__builtin_memset(t->of, 0, sizeof(t->of));
	t->asked = 0;
	t->answered = 0;
	t->bodiless = 0;
	t->connects = 0;
	t->resume = 0;
	t->sending = 0;
	t->acked = f->client_next;
	t->of[TO_SERVER].next = f->client_next;
	t->of[TO_CLIENT].next = f->server_next;
	t->kind = TALK_NONE;
	/* Published last: the exchange is a barrier. */
	__sync_lock_test_and_set(&t->opened_ns, f->opened_ns);
	return true;
}

/* A message begins here, whatever was before. */
static __always_inline void reader_begin(struct reader *r, __u32 seq)
{
	r->next = seq;
	r->left = 0;
	r->held = 0;
	r->flags &= READER_KEPT;
	r->steps = 0;
	r->state = READ_FIRST;
}

/* A request's answer begins at `fresh`: go there if this is it. */
static __always_inline void talk_resume(struct reading *g, __u32 seq)
{
	struct talk *t = g->t;
	__u16 missed;

	if (!t->resume || seq != t->fresh)
		return;
	t->resume = 0;
	if ((__s32)(seq - g->r->next) <= 0)
		return;
	reader_begin(g->r, seq);
	missed = t->first - t->answered;
	if (missed && missed < 1 << 15)
		talk_forget(g, missed);
}

/* The same for the client's side, which missed something: every request was
 * answered, each side has what the other said, and the client says something
 * new. */
static __always_inline void request_resume(struct reading *g, __u32 seq)
{
	struct reader *r = g->r;

	if (r->state == READ_REST || g->t->asked != g->t->answered ||
	    g->desk->ack != g->f->server_next || seq != g->t->acked)
		return;
	reader_begin(r, seq);
}

/* Whether what is left of a body may be stepped over. */
static __always_inline bool skippable(const struct reader *r)
{
	return r->state != READ_FIELDS && r->state != READ_PAYLOAD &&
	       r->state != READ_ALERT;
}

static int read_step(__u32 i, void *data)
{
	struct reading *g = data;
	struct reader *r = g->r;
	__u32 rest = g->desk->end - g->desk->at;
	enum line is;

	if (!rest)
		return page_end(g) ? 0 : 1;
	if (r->state == READ_REST)
		return 1;
	if (r->left && skippable(r)) {
		if (r->left >= rest) {
			r->left -= rest;
			g->desk->at = g->desk->end;
			return page_end(g) ? 0 : 1;
		}
		g->desk->at += r->left;
		r->left = 0;
	}
	if (r->state == READ_PAYLOAD) {
		frame_payload(g);
	} else if (r->state == READ_FRAME) {
		frame_head(g);
	} else if (r->state == READ_RECORD) {
		record_head(g);
	} else if (r->state == READ_ALERT) {
		alert_body(g);
	} else {
		if (r->state == READ_FIELDS && r->steps < STEPS - FIELDS)
			for (int f = 0; f < FIELDS; f++)
				if (!field_skip(g))
					break;
		if (g->desk->at == g->desk->end)
			return 0;
		is = line_next(g);
		if (is == LINE_AGAIN)
			return 0;
		if (is == LINE_BAD || r->steps == STEPS) {
			g->desk->came.stop = 1;
			return 1;
		}
		r->steps += is != LINE_SHORT || rest >= SCAN;
		http1_line(g, is);
	}
	return g->desk->came.stop ? 1 : 0;
}

/* The client's first byte says what the connection speaks. */
static __always_inline void talk_recognise(struct reading *g)
{
	struct desk *k = g->desk;

	g->t->kind = TALK_HTTP1;
	if (page_load(g, k->line, 1) || k->line[0] != RECORD_HANDSHAKE)
		return;
	tls_begins(g->t);
	flow_set(g->f, FLOW_TLS);
}

/* A segment comes too early, and what is missing is no body: it waits. One that
 * is further ahead than what can be kept before it is of no use, and may be
 * anybody's guess. */
static __always_inline void read_early(struct reading *g, __u32 seq)
{
	if (seq - g->r->next > PLACES * KEPT)
		return;
	if (!page_keep(g, seq) && g->t->kind == TALK_HTTP2)
		g->desk->came.stop = 1;
}

/* What one side acknowledges of the other one and we have not read never comes
 * again, and frames are not found behind it. */
static __always_inline void other_missed(struct reading *g)
{
	struct reader *mine = g->r, *other;
	struct desk *k = g->desk;
	__u32 asks = k->asks & 1, said;

	other = &g->t->of[asks];
	said = asks ? g->f->server_next : g->f->client_next;
	if (other->state == READ_REST || (__s32)(k->ack - other->next) <= 0 ||
	    (__s32)(said - k->ack) < 0 || !talk_take(g->t, 1 << asks))
		return;
	g->r = other;
	k->asks = !asks;
	http2_lost(g);
	g->r = mine;
	k->asks = asks;
	talk_give(g->t, 1 << asks);
}

/* Read the bytes that are new of the segment on the desk. */
static __always_inline void read_bytes(struct reading *g)
{
	struct reader *r = g->r;
	struct desk *k = g->desk;
	__u32 length = k->end - k->at, seq = k->seq - length;
	__s32 skip;

	if (!k->asks && (__s32)(k->ack - g->t->acked) > 0)
		g->t->acked = k->ack;
	if (g->t->kind <= TALK_HTTP1) {
		if (!k->asks)
			talk_resume(g, seq);
		else if ((__s32)(seq - r->next) > 0)
			request_resume(g, seq);
	}
	if (g->t->kind == TALK_HTTP2)
		other_missed(g);
	skip = r->next - seq;
	if (skip >= (__s32)length || length > STREAM_WINDOW ||
	    -skip > STREAM_WINDOW || r->state == READ_REST)
		return;
	if (skip >= 0) {
		k->at += skip;
	} else if (skippable(r) && r->left >= (__u32)-skip) {
		r->left -= (__u32)-skip;
	} else {
		read_early(g, seq);
		return;
	}
	length = k->end - k->at;
	if (skippable(r) && r->left >= length && !(r->flags & READER_KEPT)) {
		r->left -= length; /* it is all body */
		r->next = k->seq;
		return;
	}
	if (r->held)
		copy_line(k->line, r->line);
	if (g->t->kind == TALK_NONE)
		talk_recognise(g);
	bpf_loop(STEPS_MOST, read_step, g, 0);
	page_close(g);
	if (r->held)
		copy_line(r->line, k->line);
	if (r->next != k->seq && r->state != READ_REST)
		k->came.stop = 1; /* more than there is time for */
}

/* Whether the client's last request is here to its end. */
static __always_inline bool request_whole(const struct reader *r)
{
	return r->state == READ_FIRST && !r->left && !(r->flags & READER_BEGUN);
}

static __always_inline void read_new(struct reading *g)
{
	read_bytes(g);
	if (g->desk->asks && request_whole(g->r))
		talk_sent(g);
}

/* It is not read any more. What the client has just said waits for an answer,
 * whatever it was. */
static __always_inline void read_stop(struct reading *g)
{
	if (g->t->kind == TALK_HTTP2 && g->t->opened_ns == g->f->opened_ns) {
		http2_lost(g);
		return;
	}
	if (g->desk->came.upgraded)
		flow_set(g->f, FLOW_UNREAD | FLOW_UPGRADED);
	else
		flow_set(g->f, FLOW_UNREAD);
	if (g->desk->asks && !g->desk->came.upgraded)
		track_request(g->f);
}

/*
 * Whether a server that speaks first does it as HTTP/2's may (RFC 9113 3.4):
 * with a SETTINGS frame. Then that is where its direction begins. Anything else
 * may be an older connection's.
 */
static __always_inline bool server_greets(struct reading *g)
{
	struct desk *k = g->desk;
	struct talk *t = g->t;
	__u8 *head = k->line;

	if (k->asks || k->seq - (k->end - k->at) != g->f->server_next ||
	    page_load(g, head, FRAME_HEAD) || head[0] || head[3] != 4 ||
	    head[5] | head[6] | head[7] | head[8] || !talk_take(t, 1))
		return false;
	if (t->opened_ns != g->f->opened_ns && talk_open(t, g->f)) {
		http2_starts(g);
		g->r->state = READ_FRAME;
	}
	talk_give(t, 1);
	return t->opened_ns == g->f->opened_ns;
}

/* What the client says that fits nothing that the server has said is a guess. A
 * RST need not acknowledge anything. */
static __always_inline bool is_guess(const struct reading *g,
				     const struct packet *p)
{
	return g->desk->asks && !(p->tcp & TCP_RST) &&
	       !near(g->desk->ack, g->f->server_next, STREAM_WINDOW);
}

/* A RST: what is believed of it, track.h says too. */
static __always_inline void read_rst(struct reading *g, __u32 seq)
{
	__u32 next = g->desk->asks ? g->f->client_next : g->f->server_next;

	if (g->t->kind == TALK_HTTP2 && g->t->opened_ns == g->f->opened_ns &&
	    near(seq, next, RST_WINDOW))
		http2_over(g);
}

/*
 * Read a segment of a flow, before it is counted. What is due to the flow's
 * release afterwards is left on the desk: this has no stack for it.
 */
__noinline int read_segment(ctx_t *ctx, const struct packet *p, __u32 index,
			    __u32 way)
{
	struct reading g = { .ctx = ctx };
	__u32 zero = 0;
	struct desk *k = bpf_map_lookup_elem(&desks, &zero);
	struct slot *s;

	if (!p || !k)
		return 0;
	k->came.failed = 0;
	k->came.slow = 0;
	k->came.stop = 0;
	k->came.upgraded = 0;
	k->came.now = 0;
	k->at = p->data;
	k->end = p->data + p->payload;
	k->seq = p->seq + !!(p->tcp & TCP_SYN) + p->payload;
	k->ack = p->ack;
	k->asks = way == TO_SERVER;
	k->slot = index;
	k->page = 0;
	k->have = 0;
	s = bpf_map_lookup_elem(&flows, &index);
	g.t = bpf_map_lookup_elem(&talks, &index);
	if (!s || !g.t)
		return 0;
	g.desk = k;
	g.f = &s->flow;
	g.r = &g.t->of[way & 1];
	if (is_guess(&g, p) || !talk_take(g.t, 1 << (way & 1)))
		return 0;
	if (p->tcp & TCP_RST)
		read_rst(&g, p->seq);
	else if (way == TO_SERVER ?
			 talk_open(g.t, g.f) :
			 g.t->opened_ns == g.f->opened_ns || server_greets(&g))
		read_new(&g);
	else if (way == TO_SERVER || g.f->flags & FLOW_ANSWERED)
		k->came.stop = 1; /* else it may be an older connection's */
	if (k->came.stop)
		read_stop(&g);
	talk_give(g.t, 1 << (way & 1));
	return k->came.failed | k->came.slow;
}

/* Book what read_segment left on the desk. */
__noinline int book_answers(__u32 index)
{
	struct slot *s = bpf_map_lookup_elem(&flows, &index);
	__u32 zero = 0, failed;
	struct desk *k = bpf_map_lookup_elem(&desks, &zero);

	if (!s || !k)
		return 0;
	failed = k->came.failed;
	for (__u32 i = 0; i < ERRORS_OF_SEGMENT; i++)
		if (i < failed)
			book(&s->key, &s->flow, OUTCOME_ERROR);
	if (k->came.slow)
		book(&s->key, &s->flow, OUTCOME_SLOW);
	return 0;
}

/* Whether a packet is read: a segment with payload, in one piece, and a RST,
 * whose payload is a text for people. What a client says on a connection that
 * is over is heard by nobody. */
static __always_inline bool is_read(const struct packet *p,
				    const struct slot *s, enum direction way)
{
	bool rst = p->tcp & TCP_RST;

	return p->proto == IPPROTO_TCP && (p->payload || rst) && !p->fragment &&
	       reads(&s->flow) &&
	       !((way == TO_SERVER || rst) && s->flow.flags & FLOW_CLOSED);
}

static __always_inline void read_packet(ctx_t *ctx, const struct packet *p,
					const struct slot *s,
					enum direction way)
{
	if (is_read(p, s, way) && read_segment(ctx, p, slot_index(s), way))
		book_answers(slot_index(s));
}
