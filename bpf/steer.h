/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * steer.h: what becomes of a packet. The hooks call ingress and egress. What a
 * packet of a known connection needs lies in line; what is rare (a new
 * connection, the end of one, an odd packet) lies in functions of its own,
 * which the verifier looks at one by one.
 */
#pragma once

#include "fragment.h"
#include "icmp.h"
#include "redirect.h"

#define STEER	   100 /* no verdict yet: write the packet first */
#define AGAIN	   101 /* no verdict yet: the tables changed meanwhile */
#define OTHER	   102 /* no verdict yet: there is no such frontend */

#define LOOK_AGAIN -2

/* No flow for a packet to a frontend: a virtual address has nobody else to
 * answer; at a real one the server may know what we do not. */
static __always_inline int refuse(const struct frontend *fe, __u32 why)
{
	if (why < DROP_BUSY && fe->flags & FRONTEND_REAL) {
		count_reason(why + 1); /* its PASS_ */
		return CTX_NEXT;
	}
	count_reason(why);
	return CTX_DROP;
}

static __always_inline int pass(__u32 reason)
{
	count_reason(reason);
	return CTX_NEXT;
}

/* Write what was decided, and send it where it goes. */
static __always_inline int finish(ctx_t *ctx, const struct packet *p,
				  const struct rewrite *to,
				  const struct hop *home, int verdict,
				  bool egress)
{
	if (verdict != STEER) {
		if (p->fragment)
			fragment_forget(p, egress);
		return verdict;
	}
	if (nat(ctx, p, to)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	if (!egress && p->ttl <= 1)
		count_reason(NOTE_LAST_HOP);
	return to->way == WAY_STACK ? CTX_NEXT : send_on(ctx, to, home);
}

static __always_inline bool is_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP &&
	       (p->tcp & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline bool stale(const struct flow *f, __u32 now)
{
	return (__s32)(now - f->seen) > (__s32)idle_limit(f, ROOMY);
}

/* Whether the flow would be given another backend if it came now. */
static __always_inline bool rechosen(const struct packet *p,
				     const struct frontend *fe, struct draft *d,
				     const struct flow *f)
{
	return choose(p, fe, &d->choice) && d->choice.backend != f->backend;
}

/* Whether a datagram's flow must be made anew, and why. One that nobody answers
 * is not established: it goes where it would go now. */
static __always_inline __u32 outdated_udp(const struct packet *p,
					  const struct frontend *fe,
					  struct draft *d, const struct flow *f,
					  __u32 now)
{
	if (f->flags & FLOW_TAKEN || stale(f, now))
		return NOTE_REOPENED;
	if (!(f->flags & FLOW_ANSWERED) || now - f->heard > idle_udp_answered)
		return rechosen(p, fe, d, f) ? NOTE_RECHOSEN : 0;
	return 0;
}

/* The same for a SYN. */
static __always_inline __u32 outdated_tcp(const struct packet *p,
					  const struct frontend *fe,
					  struct draft *d, struct flow *f,
					  __u32 now)
{
	const __u32 over =
		FLOW_CLOSED | FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_TAKEN;

	if (f->flags & over || stale(f, now))
		return NOTE_REOPENED;
	if (f->flags & FLOW_ESTABLISHED)
		return 0; /* the server's challenge ACK settles it (RFC 5961) */
	/* With TCP Fast Open a retry may come without its data. */
	if (f->client_next - (p->seq + 1) > 1460 && !p->payload)
		return NOTE_REOPENED; /* another connection from this port */
	track_retry(f);
	/* Else a client's own retries would pin it to a backend that is gone,
	 * or to a canary that was taken back. */
	return rechosen(p, fe, d, f) ? NOTE_RECHOSEN : 0;
}

/* Whether a packet goes the way of its flow, and nothing about that is to be
 * judged: a segment of any connection, a datagram of one that is talking. */
static __always_inline bool settled(const struct packet *p,
				    const struct flow *f, __u32 now)
{
	if (f->flags & FLOW_TAKEN)
		return false;
	if (p->proto == IPPROTO_TCP)
		return !is_syn(p);
	return f->flags & FLOW_ANSWERED && now - f->seen <= idle_udp &&
	       now - f->heard <= idle_udp;
}

/* A client's packet on its flow: count it, and say what it becomes. */
static __always_inline int carry(ctx_t *ctx, const struct packet *p,
				 struct flow *f, __u32 now, struct rewrite *to)
{
	__u32 backend = f->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &backend);
	struct tally *t = tally_of(backend);

	if (!b || !t)
		return CTX_DROP;
	track_client(f, t, ctx, p, now);
	to->dst = b->addr;
	to->dport = b->port;
	to->sport = f->port;
	if (f->flags & FLOW_REDIRECT &&
	    send_to_backend(ctx, p, b, backend, now, to) &&
	    f->flags & FLOW_SNAT)
		to->src = b->source;
	if (p->fragment)
		fragment_remember(p, to, false, backend, TO_SERVER);
	return STEER;
}

/*
 * A client's packet to a frontend that is not settled: it opens a flow, or is
 * refused. Returns STEER when it has one, whose slot is in the draft, else the
 * verdict. found: the slot of the flow that it has now, -1 or LOOK_AGAIN.
 */
__noinline int admit(ctx_t *ctx, const struct packet *p, __s64 found)
{
	__u32 now = now_ticks(), why = 0;
	struct slot *s = NULL;
	struct frontend *fe;
	struct draft *d;
	struct flow *f;
	__u64 judged = 0;
	bool syn, whole;

	if (!p)
		return CTX_NEXT;
	syn = is_syn(p);
	d = draft();
	if (!d)
		return CTX_NEXT;
	key_write(&d->key, &p->src, p->sport, &p->dst, p->dport, p->proto);
	fe = frontend_at(&p->dst, p->dport, p->proto, &whole);
	if (!fe)
		return OTHER;
	if (!whole)
		return AGAIN;
	if (p->options)
		return pass(PASS_IP_OPTIONS);
	if (found == LOOK_AGAIN)
		found = table_find(&d->key);
	if (found >= 0) {
		d->slot = found;
		s = slot_at(d->slot);
		if (!s)
			return CTX_DROP;
		f = &s->flow;
		judged = f->opened_ns;
		if (p->proto == IPPROTO_UDP)
			why = outdated_udp(p, fe, d, f, now);
		else if (syn)
			why = outdated_tcp(p, fe, d, f, now);
		if (!why)
			return f->flags & FLOW_TAKEN ?
				       refuse(fe, DROP_NO_FLOW) :
				       STEER;
		count_reason(why);
	} else if (p->proto == IPPROTO_TCP && !syn) {
		return refuse(fe, DROP_NO_FLOW);
	}
	if (fe->flags & FRONTEND_RETIRED)
		return pass(PASS_RETIRED);
	why = flow_open(ctx, p, fe, d, s, judged);
	if (why)
		return why == DROP_BUSY ? AGAIN : refuse(fe, why);
	return STEER;
}

/* A packet to what may be a frontend. */
static __always_inline int request(ctx_t *ctx, const struct packet *p,
				   struct flow_key *key, struct rewrite *to)
{
	__u32 now = now_ticks();
	struct slot *s = NULL;
	struct draft *d;
	__s64 found;
	int verdict;

	key_write(key, &p->src, p->sport, &p->dst, p->dport, p->proto);
	found = table_find(key);
	if (found >= 0)
		s = slot_at(found);
	if (s && !p->options && settled(p, &s->flow, now))
		return carry(ctx, p, &s->flow, now, to);
	verdict = admit(ctx, p, found);
	if (verdict == AGAIN)
		verdict = admit(ctx, p, LOOK_AGAIN);
	if (verdict != STEER && verdict != AGAIN)
		return verdict;
	d = draft();
	s = d ? slot_at(d->slot) : NULL;
	if (s && verdict == STEER)
		return carry(ctx, p, &s->flow, now, to);
	count_reason(DROP_BUSY); /* the client repeats it */
	return CTX_DROP;
}

/* The answer that a flow's packet from its backend is for the client. */
static __always_inline int answer(ctx_t *ctx, const struct packet *p,
				  struct slot *s, __u32 now, struct rewrite *to)
{
	struct tally *t = tally_of(s->flow.backend);

	if (!t)
		return CTX_NEXT;
	track_server(&s->flow, t, ctx, p, now);
	to->src = s->key.vip;
	to->sport = s->key.vport;
	to->dport = s->key.port;
	return STEER;
}

/*
 * From the host's own address a packet leaves for a backend, by the source port
 * of a flow. Either netfilter has rewritten the flow's packet before we could,
 * and will undo its own work, too. Or somebody has bound a socket to a port of
 * our range, or masquerades to one, and the backend cannot tell the two
 * connections apart: then the younger one has to wait, unless the flow's port
 * can be spared.
 */
__noinline int meet_host(ctx_t *ctx, const struct packet *p)
{
	struct endpoint *ep;
	struct slot *s;
	bool sent_here;
	__u32 flags;

	if (!p)
		return CTX_NEXT;
	ep = endpoint_at(&p->dst, p->dport, p->proto);
	s = ep ? find_rewritten(ep, p->sport, p->proto) : NULL;
	if (!s)
		return CTX_NEXT;
	flags = s->flow.flags;
	if (flags & FLOW_MASQUERADED)
		return CTX_NEXT;
	sent_here = ctx_sent_here(ctx, p->sport);
	if (!sent_here && !(flags & (FLOW_HIDDEN | FLOW_REDIRECT))) {
		flow_set(&s->flow, FLOW_MASQUERADED);
		return CTX_NEXT;
	}
	if (p->proto == IPPROTO_TCP ? !is_syn(p) : !sent_here)
		return CTX_NEXT; /* it was there before the flow */
	if (port_give_up(s))
		return CTX_NEXT;
	count_reason(DROP_PORT_HELD);
	return CTX_DROP;
}

/* A client's packet, leaving for a backend that shall see the host as its
 * source. */
static __always_inline int hide_client(ctx_t *ctx, const struct packet *p,
				       struct rewrite *to)
{
	struct endpoint *ep;
	struct slot *s;
	struct flow *f;

	if (!port_ours(p->sport))
		return CTX_NEXT;
	ep = endpoint_at(&p->dst, p->dport, p->proto);
	if (!ep)
		return CTX_NEXT;
	s = find_rewritten(ep, p->sport, p->proto);
	if (!s || !(s->flow.flags & FLOW_SNAT))
		return CTX_NEXT;
	f = &s->flow;
	if (addr_same(&p->src, &ep->source))
		return meet_host(ctx, p);
	if (!addr_same(&p->src, &s->key.client))
		return CTX_NEXT;
	if (!(f->flags & FLOW_HIDDEN))
		flow_set(f, FLOW_HIDDEN);
	to->src = ep->source;
	if (p->fragment)
		fragment_remember(p, to, true, f->backend, COUNTED_ELSEWHERE);
	return STEER;
}

/* A packet that leaves by the stack's way: a backend's for the client, or a
 * client's for a backend that shall see the host as its source. */
static __always_inline int leave(ctx_t *ctx, const struct packet *p,
				 struct rewrite *to)
{
	struct endpoint *ep = endpoint_at(&p->src, p->sport, p->proto);
	struct flow_key key;
	struct slot *s;
	int verdict;

	if (!ep)
		return hide_client(ctx, p, to);
	s = find_reply(&key, ep, &p->dst, p->dport, p->proto);
	if (!s)
		return hide_client(ctx, p, to);
	verdict = answer(ctx, p, s, now_ticks(), to);
	if (verdict == STEER && p->fragment)
		fragment_remember(p, to, true, s->flow.backend, TO_CLIENT);
	return verdict;
}

/*
 * A backend's packet as it comes in. On a flow that is redirected it becomes
 * the frontend's answer here and now. On another one it waits for the egress
 * hook, but a source that was rewritten is put right, so that the stack knows
 * where it goes.
 */
static __always_inline int reply(ctx_t *ctx, const struct packet *p,
				 struct flow_key *key, struct rewrite *to,
				 const struct hop **way)
{
	struct endpoint *ep = endpoint_at(&p->src, p->sport, p->proto);
	__u32 now = now_ticks(), flags;
	struct slot *s;
	bool hidden;

	if (!ep)
		return CTX_NEXT;
	s = find_reply(key, ep, &p->dst, p->dport, p->proto);
	if (!s)
		return CTX_NEXT;
	flags = s->flow.flags;
	hidden = flags & FLOW_SNAT && !(flags & FLOW_MASQUERADED) &&
		 addr_same(&p->dst, &ep->source);
	if (flags & FLOW_REDIRECT && hidden == !!(flags & FLOW_SNAT)) {
		struct hop *home = &s->flow.hop;

		hop_refresh(ctx, home, &s->key.vip, &s->key.client,
			    ctx_ifindex(ctx), now);
		if (hop_leads(home) && may_send(ctx, p, home->mtu)) {
			*way = home;
			to->way = WAY_CLIENT;
			to->dst = s->key.client;
			return answer(ctx, p, s, now, to);
		}
	}
	if (!hidden)
		return CTX_NEXT;
	to->dst = s->key.client;
	if (p->fragment)
		fragment_remember(p, to, false, s->flow.backend,
				  COUNTED_ELSEWHERE);
	return STEER;
}

/* Whether the packet may be ours: from a backend, or to what clients, or on
 * egress the host in their place, talk to. */
static __always_inline bool concerns(const struct packet *p, bool egress)
{
	if (gate_open(GATE_ENDPOINTS, &p->src, p->sport, p->proto))
		return true;
	if (!egress)
		return gate_open(GATE_FRONTENDS, &p->dst, p->dport, p->proto);
	return port_ours(p->sport) &&
	       gate_open(GATE_ENDPOINTS, &p->dst, p->dport, p->proto);
}

/* Fill *p. What peek and the gate have not let through is no business of ours,
 * or odd. */
static __always_inline enum parsed look(ctx_t *ctx, __u32 l3, struct packet *p,
					bool egress)
{
	enum parsed is = peek(ctx, l3, p);

	if (is == PARSED) {
		if (!concerns(p, egress))
			return PARSED_FOREIGN;
		is = peek_l4(ctx, p);
	}
	if (is != PARSED_ODD)
		return is;
	__builtin_memset(p, 0, sizeof(*p));
	return parse(ctx, l3, p);
}

static __always_inline int ingress(ctx_t *ctx, __u32 l3)
{
	struct packet p = {};
	const struct hop *home = NULL;
	struct flow_key key;
	struct rewrite to;
	int verdict = OTHER;

	if (!ctx_ours(ctx))
		return CTX_NEXT;
	switch (look(ctx, l3, &p, false)) {
	case PARSED:
		break;
	case PARSED_ICMP:
		return icmp(ctx, &p, false);
	case PARSED_EXTENSION:
		return pass(PASS_EXTENSION);
	case PARSED_TRUNCATED:
		return pass(PASS_TRUNCATED);
	case PARSED_MALFORMED:
		return pass(PASS_MALFORMED);
	case PARSED_PROTOCOL:
		return pass(PASS_PROTOCOL);
	default:
		return CTX_NEXT;
	}
	if (p.fragment == FRAGMENT_LATER)
		return fragment_follow(ctx, &p, false);
	rewrite_nothing(&to, &p);
	if (gate_open(GATE_FRONTENDS, &p.dst, p.dport, p.proto))
		verdict = request(ctx, &p, &key, &to);
	/* The gate's bit may be another's, and this a backend's answer. */
	if (verdict == OTHER)
		verdict = reply(ctx, &p, &key, &to, &home);
	return finish(ctx, &p, &to, home, verdict, false);
}

static __always_inline int egress(ctx_t *ctx, __u32 l3)
{
	struct packet p = {};
	struct rewrite to;

	if (ctx_seen(ctx))
		return CTX_NEXT;
	switch (look(ctx, l3, &p, true)) {
	case PARSED:
		break;
	case PARSED_ICMP:
		return icmp(ctx, &p, true);
	default:
		return CTX_NEXT;
	}
	if (p.fragment == FRAGMENT_LATER)
		return fragment_follow(ctx, &p, true);
	if (p.options)
		return CTX_NEXT;
	rewrite_nothing(&to, &p);
	return finish(ctx, &p, &to, NULL, leave(ctx, &p, &to), true);
}
