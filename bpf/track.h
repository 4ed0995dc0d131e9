/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * track.h: what a packet means for its flow: the states, and the counters that
 * follow from them. States are bits that are only ever set, atomically; who
 * sets one first counts it, so nothing is counted twice on two CPUs.
 */
#pragma once

#include "slot.h"
#include "parse.h"

/* Idle ticks after which a flow is forgotten. */
const volatile __u32 idle_syn = 20000;	  /* above the gap to the fourth SYN */
const volatile __u32 idle_pressed = 3000; /* while handshakes crowd the table */
const volatile __u32 idle_established = 10300000; /* 3 h: above the 2 h 11 min
						   * of TCP keepalive */
const volatile __u32 idle_fin = 300000;		  /* half closed */
const volatile __u32 idle_closed = 10000;	  /* for late retransmissions */
const volatile __u32 idle_closed_snat = 60000; /* the backend's TIME_WAIT holds
						* the port */
const volatile __u32 idle_udp = 30000;	       /* no answer yet */
const volatile __u32 idle_udp_answered = 120000;

#define RST_WINDOW                                                             \
	(1 << 20) /* how far from the expected number a RST counts             \
		   */
#define STREAM_WINDOW (1 << 30) /* the largest TCP window (RFC 7323) */

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
	if (!(old & FLOW_CLOSED))
		embryonic_add(-1);
}

static __always_inline void flow_closed(struct flow *f, struct tally *t)
{
	__u32 old = __sync_fetch_and_or(&f->flags, FLOW_CLOSED);

	if (old & FLOW_CLOSED)
		return;
	t->closed++;
	if (!(old & FLOW_ESTABLISHED))
		embryonic_add(-1);
}

/* Whether this is the flow's first failure: a flow counts one error, by the
 * reason that came first. */
static __always_inline bool flow_fails(struct flow *f)
{
	return !(__sync_fetch_and_or(&f->flags, FLOW_FAILED) & FLOW_FAILED);
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

static __always_inline void count_packet(struct tally *t, ctx_t *ctx,
					 const struct packet *p,
					 __u32 direction)
{
	t->packets[direction] += ctx_segments(ctx);
	if (p->proto == IPPROTO_UDP)
		t->bytes[direction] += p->payload;
}

/* One FIN, two FINs. */
static __always_inline void track_fin(struct flow *f, struct tally *t,
				      __u32 now, __u32 fin)
{
	const __u32 both = FLOW_FIN_CLIENT | FLOW_FIN_SERVER;

	if (flow_set(f, fin)) {
		if (fin == FLOW_FIN_SERVER && !(f->flags & FLOW_FIN_CLIENT))
			flow_set(f, FLOW_SERVER_FIRST);
		slot_check(f->slot, now + SLOT_GRACE);
	}
	if ((f->flags & both) == both)
		flow_closed(f, t);
}

/* A packet of the client, on a flow it belongs to. */
static __always_inline void track_client(struct flow *f, struct tally *t,
					 const struct packet *p, __u32 now)
{
	__u32 fresh = p->payload;

	f->seen = now;
	if (p->proto == IPPROTO_TCP) {
		if (p->tcp & TCP_RST) {
			if (near(p->seq, f->client_next, RST_WINDOW)) {
				flow_closed(f, t);
				slot_check(f->slot, now + SLOT_GRACE);
			}
			return;
		}
		if ((f->flags & (FLOW_ANSWERED | FLOW_ESTABLISHED)) ==
			    FLOW_ANSWERED &&
		    p->tcp & TCP_ACK &&
		    near(p->ack, f->server_next, RST_WINDOW))
			flow_established(f, t);
		if (p->payload) {
			fresh = stream_advance(&f->client_next,
					       p->seq + p->payload +
						       !!(p->tcp & TCP_SYN));
			t->bytes[0] += fresh;
			t->retransmits[0] += !fresh;
		}
		if (p->tcp & TCP_FIN)
			track_fin(f, t, now, FLOW_FIN_CLIENT);
	} else if (f->flags & FLOW_ANSWERED && !(f->flags & FLOW_ESTABLISHED)) {
		flow_established(f, t);
	}
	if (fresh && !f->request_ns)
		f->request_ns = bpf_ktime_get_ns();
}

static __always_inline void track_answered(struct flow *f)
{
	struct latency *l;

	if (!flow_set(f, FLOW_ANSWERED))
		return;
	l = latency_of(f->backend);
	if (l)
		observe(&l->connect, bpf_ktime_get_ns() - f->opened_ns);
}

static __always_inline void track_responded(struct flow *f)
{
	struct latency *l;
	__u64 since = f->request_ns;

	if (!(f->flags & FLOW_RESPONDED))
		flow_set(f, FLOW_RESPONDED);
	if (!since)
		return;
	f->request_ns = 0;
	l = latency_of(f->backend);
	if (l)
		observe(&l->response, bpf_ktime_get_ns() - since);
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
		if (!(f->flags & FLOW_CLOSED) &&
		    (f->request_ns || !(f->flags & FLOW_RESPONDED)) &&
		    flow_fails(f))
			t->reset++;
	}
	flow_closed(f, t);
	slot_check(f->slot, now + SLOT_GRACE);
}

/* A packet of the server. */
static __always_inline void track_server(struct flow *f, struct tally *t,
					 const struct packet *p, __u32 now)
{
	__u32 fresh;

	f->seen = now;
	if (p->proto == IPPROTO_UDP) {
		if (!(f->flags & FLOW_ANSWERED))
			flow_set(f, FLOW_ANSWERED);
		track_responded(f);
		return;
	}
	if (p->tcp & TCP_RST) {
		track_server_rst(f, t, p, now);
		return;
	}
	if (p->tcp & TCP_SYN && !(f->flags & FLOW_ANSWERED)) {
		f->server_next = p->seq + 1;
		track_answered(f);
	}
	if (p->payload) {
		fresh = stream_advance(&f->server_next,
				       p->seq + p->payload +
					       !!(p->tcp & TCP_SYN));
		t->bytes[1] += fresh;
		t->retransmits[1] += !fresh;
		if (fresh)
			track_responded(f);
	}
	if (p->tcp & TCP_FIN)
		track_fin(f, t, now, FLOW_FIN_SERVER);
}

/* How long a flow in this state may be idle. */
static __always_inline __u32 idle_limit(const struct flow *f, __u8 proto,
					bool pressed)
{
	__u32 flags = f->flags;

	if (flags & FLOW_CLOSED)
		return flags & FLOW_SNAT && flags & FLOW_SERVER_FIRST ?
			       idle_closed_snat :
			       idle_closed;
	if (proto == IPPROTO_UDP) {
		if (flags & FLOW_ESTABLISHED)
			return idle_udp_answered;
		return pressed ? idle_pressed : idle_udp;
	}
	if (flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER))
		return idle_fin;
	if (flags & FLOW_ESTABLISHED)
		return idle_established;
	return pressed ? idle_pressed : idle_syn;
}
