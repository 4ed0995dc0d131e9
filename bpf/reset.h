/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * reset.h: end a TCP connection for both ends, by one packet of either.
 *
 * The packet becomes two: a RST back to who sent it, and a RST that goes on in
 * its place and is rewritten like any other of its flow. So both find their
 * ends by the ways that the flow's packets take anyhow:
 *
 *   hook      packet of   back                         on
 *   ingress   client      out by the same interface    to the backend
 *   ingress   backend *   out by the same interface    to the client
 *   egress    backend     in by the same interface,    to the client
 *                         by the stack's way
 *                                   * on a flow that goes past the stack
 *
 * XDP cannot make two of one: there the client has its RST at once, whoever
 * sent the packet, and the backend has one when it sends the next. From then on
 * a RST goes back to who sends still more.
 *
 * The numbers are those that the ends expect (RFC 9293 3.10.7, RFC 5961): who
 * sent the packet says so in it; what the other one expects the flow knows.
 * Where packets were lost behind us that is too much, and the end asks back
 * ("challenge ACK"), which is a packet like any other. RSTs are not answered.
 */
#pragma once

#include "cutoff.h"
#include "nat.h"
#include "track.h"

#define RESET_TTL 64

/* Which packet is met, and where: a client's or a backend's as they come in, a
 * backend's as it leaves. */
enum cut_at { CUT_REQUEST, CUT_REPLY, CUT_LEAVING };

struct reset4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct reset6 {
	struct ipv6hdr ip;
	struct tcphdr tcp;
};

/* The sum of a RST's pseudo-header, which is the same in both directions. */
static __always_inline __u64 reset_pseudo(const struct packet *p)
{
	__u64 sum = bpf_htons(IPPROTO_TCP) + bpf_htons(sizeof(struct tcphdr));

	sum += (__u64)p->src.w[3] + p->dst.w[3];
	if (p->v6)
		sum += (__u64)p->src.w[0] + p->src.w[1] + p->src.w[2] +
		       p->dst.w[0] + p->dst.w[1] + p->dst.w[2];
	return sum;
}

static __always_inline void reset_tcp(struct tcphdr *tcp,
				      const struct packet *p, __u32 seq,
				      bool back, bool partial)
{
	const __u32 *w = (const __u32 *)tcp;
	__u64 sum = reset_pseudo(p);

	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = back ? p->dport : p->sport;
	tcp->dest = back ? p->sport : p->dport;
	tcp->seq = bpf_htonl(seq);
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	tcp->check = partial ?
			     sum_fold(sum) :
			     ~sum_fold(sum + w[0] + w[1] + w[2] + w[3] + w[4]);
}

static __always_inline int reset_write4(ctx_t *ctx, const struct packet *p,
					__u32 seq, bool back, bool partial)
{
	struct reset4 r = {};
	const __u32 *w = (const __u32 *)&r.ip;

	r.ip.version = 4;
	r.ip.ihl = sizeof(r.ip) / 4;
	r.ip.tot_len = bpf_htons(sizeof(r));
	r.ip.frag_off = bpf_htons(IP4_DF);
	r.ip.ttl = RESET_TTL;
	r.ip.protocol = IPPROTO_TCP;
	r.ip.saddr = back ? p->dst.w[3] : p->src.w[3];
	r.ip.daddr = back ? p->src.w[3] : p->dst.w[3];
	r.ip.check = ~sum_fold((__u64)w[0] + w[1] + w[2] + w[3] + w[4]);
	reset_tcp(&r.tcp, p, seq, back, partial);
	return ctx_store(ctx, p->l3, &r, sizeof(r));
}

static __always_inline int reset_write6(ctx_t *ctx, const struct packet *p,
					__u32 seq, bool back, bool partial)
{
	struct reset6 r = {};

	r.ip.version = 6;
	r.ip.payload_len = bpf_htons(sizeof(r.tcp));
	r.ip.nexthdr = IPPROTO_TCP;
	r.ip.hop_limit = RESET_TTL;
	__builtin_memcpy(&r.ip.saddr, back ? &p->dst : &p->src,
			 sizeof(r.ip.saddr));
	__builtin_memcpy(&r.ip.daddr, back ? &p->src : &p->dst,
			 sizeof(r.ip.daddr));
	reset_tcp(&r.tcp, p, seq, back, partial);
	return ctx_store(ctx, p->l3, &r, sizeof(r));
}

/* Make the packet a RST: back to who sent it, or in its own direction. Options
 * and extension headers go. */
__noinline int reset_write(ctx_t *ctx, struct packet *p, __u32 seq, __u32 back)
{
	bool partial;

	if (!p)
		return -1;
	p->l4 = p->l3 + (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	if (ctx_shrink(ctx, p->l4 + sizeof(struct tcphdr)))
		return -1;
	partial = ctx_partial(ctx,
			      p->l4 + __builtin_offsetof(struct tcphdr, check));
	if (p->v6 ? reset_write6(ctx, p, seq, back, partial) :
		    reset_write4(ctx, p, seq, back, partial))
		return -1;
	return back ? nat_turn(ctx, p) : 0;
}

/* What the packet says of itself once it is a RST. */
static __always_inline void reset_reread(struct packet *p, __u32 seq)
{
	p->payload = 0;
	p->seq = seq;
	p->ack = 0;
	p->tcp = TCP_RST;
	p->fragment = FRAGMENT_NONE;
	p->options = 0;
	p->ttl = RESET_TTL;
}

/* Whether the segment is one that a RST may answer: no RST, nothing of a
 * handshake, and no guess in a client's name (RFC 5961). */
static __always_inline bool answerable(const struct packet *p,
				       const struct flow *f, __u32 at)
{
	if ((p->tcp & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK ||
	    !(f->flags & FLOW_ANSWERED))
		return false;
	return at != CUT_REQUEST || near(p->ack, f->server_next, STREAM_WINDOW);
}

/* Whether the flow is cut by this segment. What the server has closed itself
 * waits for no more requests, and a RST could spoil the end of its answer. */
static __always_inline bool cut_now(struct cutoff *c, struct flow *f,
				    const struct packet *p, __u32 at)
{
	if (f->flags & (FLOW_CLOSED | FLOW_FIN_SERVER) ||
	    (at != CUT_REQUEST && p->tcp & TCP_FIN))
		return false;
	return cutoff_meant(c, f);
}

static __always_inline void cut_count(struct cutoff *c, struct flow *f,
				      __u32 now)
{
	struct tally *t = tally_of(f->backend);

	__sync_fetch_and_add(&c->resets, 1);
	c->last_ns = bpf_ktime_get_ns();
	count_reason(NOTE_CUT);
	if (t)
		flow_closed(f, t);
	slot_of(f)->check = now + slot_grace;
}

/* What the receiver of the packet expects next: the flow knows, if not the
 * packet is ahead of it. */
static __always_inline __u32 expected(const struct packet *p, __u32 next)
{
	return p->seq - next < STREAM_WINDOW ? p->seq : next;
}

/*
 * A segment of a flow that may be meant. Returns STEER where it goes on, maybe
 * as a RST by now, of which *p tells then; or the verdict.
 */
__noinline int cut(ctx_t *ctx, struct packet *p, struct slot *s, __u32 at)
{
	bool leaving = at == CUT_LEAVING, first = false;
	__u32 now = now_ticks(), on;
	struct cutoff *c;
	struct flow *f;

	if (!p || !s)
		return CTX_DROP;
	asm volatile("" : "+r"(s)); /* the check before the addition */
	f = &s->flow;
	c = cutoff_of(f);
	if (!c || p->proto != IPPROTO_TCP || !answerable(p, f, at))
		return STEER;
	if (!(f->flags & FLOW_CUT)) {
		if (!cut_now(c, f, p, at))
			return STEER;
		first = flow_set(f, FLOW_CUT);
		if (first)
			cut_count(c, f, now);
	}
	f->seen = now;
	on = expected(p, at == CUT_REQUEST ? f->client_next : f->server_next);
	if (!first)
		count_reason(NOTE_CUT_AGAIN);
	if (!first || (!CTX_COPIES && at == CUT_REQUEST)) {
		if (!reset_write(ctx, p, p->ack, true))
			return ctx_return(ctx, leaving);
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	if (CTX_COPIES && !reset_write(ctx, p, p->ack, true)) {
		ctx_return_copy(ctx, leaving);
		nat_turn(ctx, p);
	}
	if (reset_write(ctx, p, on, false)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	reset_reread(p, on);
	return STEER;
}
