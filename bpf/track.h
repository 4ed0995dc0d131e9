/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * track.h: what a packet means for its flow: the states, and the counters that
 * follow from them. States are bits that are only ever set, atomically; who
 * sets one first counts it, so nothing is counted twice on two CPUs.
 */
#pragma once

#include "outcome.h"
#include "owed.h"
#include "parse.h"
#include "shortage.h"
#include "table.h"

/* Idle time after which a flow is forgotten, in ms; once loaded in ticks. */
const volatile __u32 idle_syn = 20000;	  /* above the gap to the fourth SYN */
const volatile __u32 idle_pressed = 3000; /* while handshakes crowd the table */
/* While they fill their quota. With the hand's round it is less than a second,
 * so a flood keeps nobody out for longer than it lasts, and above the way to a
 * client and back. */
const volatile __u32 idle_crowded = 500;
const volatile __u32 idle_established = 10800000; /* 3 h: above the 2 h 11 min
						   * of TCP keepalive */
const volatile __u32 idle_fin = 300000;		  /* half closed */
const volatile __u32 idle_closed = 10000;	  /* for late retransmissions */
const volatile __u32 idle_closed_snat = 60000; /* the backend's TIME_WAIT holds
						* the port */
const volatile __u32 idle_udp = 30000;	       /* no answer yet */
const volatile __u32 idle_udp_answered = 120000;

/* The third SYN of a patient client comes 3 s after its first. */
const volatile __u64 timeout_ns = 2500000000;

#define HANDSHAKE_WINDOW                                                       \
	(1 << 16) /* what a server sends before it is heard                    \
		   */
#define RST_WINDOW                                                             \
	(1 << 20) /* from the expected number; so guesses rarely hit */
#define STREAM_WINDOW (1 << 24) /* what may be missing before a segment */

enum direction { TO_SERVER, TO_CLIENT, COUNTED_ELSEWHERE };

/* Set bits; returns those that were not set before. */
static __always_inline __u32 flow_set(struct flow *f, __u32 bits)
{
	return bits & ~__sync_fetch_and_or(&f->flags, bits);
}

static __always_inline void flow_established(struct flow *f, struct tally *t)
{
	__u32 old = __sync_fetch_and_or(&f->flags, FLOW_ESTABLISHED);

	if (old & FLOW_ESTABLISHED)
		return;
	t->established++;
	/* A datagram proves nothing: UDP keeps its place in the quota. */
	if (!(old & (FLOW_CLOSED | FLOW_UDP)))
		unproven_add(false, -1);
}

/* The flow's source port can be taken over from now on. */
static __always_inline void port_eased(const struct flow *f)
{
	__u32 backend = f->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &backend);

	if (b)
		shortage_ease(b->endpoint, f->flags & FLOW_UDP, f->port);
}

static __always_inline void flow_closed(struct flow *f, struct tally *t)
{
	__u32 old = __sync_fetch_and_or(&f->flags, FLOW_CLOSED);

	if (old & FLOW_CLOSED)
		return;
	t->closed++;
	if (old & FLOW_UDP)
		unproven_add(true, -1);
	else if (!(old & FLOW_ESTABLISHED))
		unproven_add(false, -1);
	if (old & FLOW_SNAT)
		port_eased(f);
}

/* The server failed. Whether this is the flow's first failure: a flow counts
 * one error, by the reason that came first. */
static __always_inline bool flow_fails(struct flow *f)
{
	if (!flow_set(f, FLOW_FAILED))
		return false;
	book(&slot_of(f)->key, f, OUTCOME_ERROR);
	return true;
}

static __always_inline bool near(__u32 a, __u32 b, __u32 window)
{
	return a - b + window <= 2 * window;
}

/* Payload up to number `end`. Returns how much of it is new; 0 is a
 * retransmission. Several CPUs may have packets of one stream in hand: each
 * counts the part by which it moved the number on. */
static __always_inline __u32 stream_advance(__u32 *next, __u32 end)
{
	for (int i = 0; i < 8; i++) {
		__u32 old = *(volatile __u32 *)next, fresh = end - old;

		if (!fresh || fresh > STREAM_WINDOW)
			return 0;
		if (__sync_val_compare_and_swap(next, old, end) == old)
			return fresh;
	}
	return 0;
}

/* One FIN, two FINs. */
static __always_inline void track_fin(struct flow *f, struct tally *t,
				      __u32 now, __u32 fin)
{
	const __u32 both = FLOW_FIN_CLIENT | FLOW_FIN_SERVER;

	if (flow_set(f, fin)) {
		if (fin == FLOW_FIN_SERVER && !(f->flags & FLOW_FIN_CLIENT))
			flow_set(f, FLOW_SERVER_FIRST);
		slot_of(f)->check = now + slot_grace;
	}
	if ((f->flags & both) == both)
		flow_closed(f, t);
}

/* A request begins, unless one is waiting for its answer. */
static __always_inline void track_request(struct flow *f)
{
	if (!f->request_ns)
		f->request_ns = bpf_ktime_get_ns();
}

/* Whether its requests and answers are told apart by whose turn it is. */
static __always_inline bool by_turns(const struct flow *f)
{
	return !reads(f) && !(f->flags & FLOW_UPGRADED);
}

/* An answer was found, and how it ended is not known. */
static __always_inline void answer_unparsed(const struct flow *f)
{
	enum answer how =
		f->flags & FLOW_REQUESTS ? ANSWER_LOST : ANSWER_UNPARSED;

	if (f->flags & FLOW_READ)
		answers_count(f->backend,
			      f->flags & FLOW_TLS ? ANSWER_TLS : how, 1);
}

/* The first bytes of an answer. */
static __always_inline void track_response(struct flow *f)
{
	__u64 since = f->request_ns, ns = 0;
	bool first = false;

	if (!(f->flags & FLOW_RESPONDED))
		first = flow_set(f, FLOW_RESPONDED);
	if (since) {
		f->request_ns = 0;
		ns = observe(f->backend, LATENCY_RESPONSE, since);
		answer_unparsed(f);
	} else if (!first) {
		return;
	}
	if (release_of(f))
		answered(&slot_of(f)->key, f, since, ns);
}

static __always_inline void track_answered(struct flow *f)
{
	if (flow_set(f, FLOW_ANSWERED))
		observe(f->backend, LATENCY_CONNECT, f->opened_ns);
}

/* A client's segment. What it claims is checked against what the server said,
 * since anybody can send in a client's name (RFC 5961). */
static __always_inline void track_client_tcp(struct flow *f, struct tally *t,
					     const struct packet *p, __u32 now)
{
	__u32 state = f->flags & (FLOW_ANSWERED | FLOW_ESTABLISHED), fresh;

	if (p->tcp & TCP_RST) {
		if (near(p->seq, f->client_next, RST_WINDOW)) {
			flow_closed(f, t);
			slot_of(f)->check = now + slot_grace;
		}
		return;
	}
	if (state == FLOW_ANSWERED && p->tcp & TCP_ACK &&
	    near(p->ack, f->server_next, HANDSHAKE_WINDOW))
		flow_established(f, t);
	if (state & FLOW_ESTABLISHED &&
	    !near(p->ack, f->server_next, STREAM_WINDOW))
		return; /* a guess */
	if (p->payload) {
		fresh = stream_advance(&f->client_next,
				       p->seq + p->payload +
					       !!(p->tcp & TCP_SYN));
		t->bytes[TO_SERVER] += fresh;
		t->retransmits[TO_SERVER] += !fresh;
		if (fresh && by_turns(f))
			track_request(f);
	}
	if (p->tcp & TCP_FIN &&
	    near(p->seq + p->payload, f->client_next, RST_WINDOW))
		track_fin(f, t, now, FLOW_FIN_CLIENT);
}

static __always_inline void track_client(struct flow *f, struct tally *t,
					 ctx_t *ctx, const struct packet *p,
					 __u32 now)
{
	if (f->seen != now) /* the line may be another CPU's */
		f->seen = now;
	t->packets[TO_SERVER] += ctx_segments(ctx);
	if (p->proto == IPPROTO_TCP) {
		track_client_tcp(f, t, p, now);
		return;
	}
	t->bytes[TO_SERVER] += p->payload;
	track_request(f);
	if (f->flags & FLOW_ANSWERED)
		flow_established(f, t);
}

/* Whether a server that ends the connection leaves a request without an answer,
 * or a client that it has never told anything. */
static __always_inline bool leaves_request(struct flow *f)
{
	struct talk *t;

	if (f->flags & FLOW_RESPONDED && !f->request_ns)
		return false;
	t = talk_of(f);
	return !t || talk_unanswered(t, f);
}

static __always_inline void track_server_rst(struct flow *f, struct tally *t,
					     const struct packet *p, __u32 now)
{
	if (!(f->flags & FLOW_ANSWERED)) {
		/* RFC 9293 3.5.2: it must acknowledge our SYN. */
		if (!(p->tcp & TCP_ACK) ||
		    !near(p->ack, f->client_next, RST_WINDOW))
			return;
		if (!(f->flags & FLOW_CLOSED) && flow_fails(f))
			t->refused++;
	} else {
		if (!near(p->seq, f->server_next, RST_WINDOW))
			return;
		if (!(f->flags & FLOW_CLOSED) && leaves_request(f) &&
		    flow_fails(f))
			t->reset++;
	}
	flow_closed(f, t);
	slot_of(f)->check = now + slot_grace;
}

static __always_inline void track_server_tcp(struct flow *f, struct tally *t,
					     const struct packet *p, __u32 now)
{
	__u32 fresh;

	if (p->tcp & TCP_RST) {
		track_server_rst(f, t, p, now);
		return;
	}
	/* Until the client is heard the server may begin anew: a SYN cookie of
	 * the next minute, a restarted listener. */
	if (p->tcp & TCP_SYN && !(f->flags & FLOW_ESTABLISHED)) {
		f->server_next = p->seq + 1;
		track_answered(f);
	} else if (p->tcp & TCP_ACK && f->flags & FLOW_ESTABLISHED &&
		   (__s32)(p->ack - f->client_next) > 0) {
		f->client_next = p->ack; /* the server knows best */
	}
	if (p->payload) {
		fresh = stream_advance(&f->server_next,
				       p->seq + p->payload +
					       !!(p->tcp & TCP_SYN));
		t->bytes[TO_CLIENT] += fresh;
		t->retransmits[TO_CLIENT] += !fresh;
		if (fresh && by_turns(f))
			track_response(f);
	}
	if (p->tcp & TCP_FIN)
		track_fin(f, t, now, FLOW_FIN_SERVER);
}

static __always_inline void track_server(struct flow *f, struct tally *t,
					 ctx_t *ctx, const struct packet *p,
					 __u32 now)
{
	if (f->heard != now) {
		f->seen = now;
		f->heard = now;
	}
	t->packets[TO_CLIENT] += ctx_segments(ctx);
	if (p->proto == IPPROTO_TCP) {
		track_server_tcp(f, t, p, now);
		return;
	}
	t->bytes[TO_CLIENT] += p->payload;
	if (!(f->flags & FLOW_ANSWERED))
		flow_set(f, FLOW_ANSWERED);
	track_response(f);
}

/* The same where there is no stack to book it: book_due does. */
static __always_inline bool flow_fails_due(struct flow *f)
{
	__u32 zero = 0;
	struct draft *d;

	if (!flow_set(f, FLOW_FAILED))
		return false;
	d = release_of(f) ? bpf_map_lookup_elem(&drafts, &zero) : NULL;
	if (d) {
		d->failed = *slot_of(f);
		d->due |= DUE_ERROR;
	}
	return true;
}

/* The client's SYN came again: the third one of a handshake that the server
 * said nothing to is a timeout. */
static __always_inline void track_retry(struct flow *f)
{
	struct tally *t;

	if (f->heard || bpf_ktime_get_ns() - f->opened_ns < timeout_ns ||
	    !flow_fails_due(f))
		return;
	t = tally_of(f->backend);
	if (t)
		t->timeout++;
}

/* How full a quota is: the fuller, the less patience for whom it is made. */
enum crowding { ROOMY, PRESSED, CROWDED };

/* How long a flow in this state may be idle. */
static __always_inline __u32 idle_limit(const struct flow *f,
					enum crowding crowding)
{
	__u32 flags = f->flags;

	if (flags & FLOW_CLOSED)
		return flags & FLOW_SNAT && flags & FLOW_SERVER_FIRST ?
			       idle_closed_snat :
			       idle_closed;
	if (flags & FLOW_UDP) {
		if (!(flags & FLOW_ESTABLISHED))
			return crowding ? idle_pressed : idle_udp;
		return crowding ? idle_udp : idle_udp_answered;
	}
	if (!(flags & FLOW_ESTABLISHED))
		return crowding == CROWDED ? idle_crowded :
		       crowding == PRESSED ? idle_pressed :
					     idle_syn;
	return flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER) ? idle_fin :
							     idle_established;
}
