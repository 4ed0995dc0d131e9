/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * steer.h: what becomes of a packet. The hooks call ingress and egress. What a
 * packet of a known connection needs lies in line; what is rare (a new
 * connection, the end of one, an odd packet) lies in functions of its own,
 * which the verifier looks at one by one.
 */
#pragma once

#include "admit.h"
#include "fragment.h"
#include "icmp.h"
#include "read.h"
#include "redirect.h"
#include "reset.h"

/* Who a packet seems to be from. The gate's bit may be another's. */
enum sender { NOBODY, CLIENT, BACKEND };

/* A client talks to a frontend, or on egress the host in its place to a
 * backend. */
static __always_inline enum sender sender_of(const struct packet *p,
					     bool egress)
{
	if (!egress && gate_open(GATE_FRONTENDS, &p->dst, p->dport, p->proto))
		return CLIENT;
	if (gate_open(GATE_ENDPOINTS, &p->src, p->sport, p->proto))
		return BACKEND;
	if (egress && port_ours(p->sport) &&
	    gate_open(GATE_ENDPOINTS, &p->dst, p->dport, p->proto))
		return CLIENT;
	return NOBODY;
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

/* A client's packet on its flow: count it, and say what it becomes. */
static __always_inline int carry(ctx_t *ctx, const struct packet *p,
				 struct slot *s, __u32 now, struct rewrite *to)
{
	struct flow *f = &s->flow;
	__u32 backend;
	struct backend *b;
	struct tally *t;

	read_packet(ctx, p, s, TO_SERVER);
	backend = f->backend;
	b = bpf_map_lookup_elem(&backends, &backend);
	t = tally_of(backend);
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

/* The flow of a client's packet that is not settled, made if it must be; NULL:
 * what becomes of the packet is in *verdict. */
static __always_inline struct slot *admitted(ctx_t *ctx, const struct packet *p,
					     __s64 found, int *verdict)
{
	struct draft *d;

	*verdict = admit(ctx, p, found);
	if (*verdict == AGAIN)
		*verdict = admit(ctx, p, LOOK_AGAIN);
	d = draft();
	if (d && d->due)
		book_due();
	if (d && *verdict == STEER)
		return slot_at(d->slot);
	if (*verdict == AGAIN || *verdict == STEER) {
		count_reason(DROP_BUSY); /* the client repeats it */
		*verdict = CTX_DROP;
	}
	return NULL;
}

/* A packet to what may be a frontend. */
static __always_inline int request(ctx_t *ctx, struct packet *p,
				   struct flow_key *key, struct rewrite *to)
{
	struct slot *s = NULL;
	__s64 found;
	int verdict = CTX_DROP;

	key_write(key, &p->src, p->sport, &p->dst, p->dport, p->proto);
	found = table_find(key);
	if (found >= 0)
		s = slot_at(found);
	if (!s || p->options || !settled(p, &s->flow, now_ticks())) {
		s = admitted(ctx, p, found, &verdict);
	} else if (cutoff_near(&s->flow)) {
		verdict = cut(ctx, p, s, CUT_REQUEST);
		if (verdict != STEER)
			return verdict;
	}
	return s ? carry(ctx, p, s, now_ticks(), to) : verdict;
}

/* The answer that a flow's packet from its backend is for the client. */
static __always_inline int answer(ctx_t *ctx, struct packet *p, struct slot *s,
				  enum cut_at at, __u32 now, struct rewrite *to)
{
	struct tally *t;
	int verdict;

	if (cutoff_near(&s->flow)) {
		verdict = cut(ctx, p, s, at);
		if (verdict != STEER)
			return verdict;
	}
	read_packet(ctx, p, s, TO_CLIENT);
	t = tally_of(s->flow.backend);
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
	ep = endpoint_behind(&p->dst, p->dport, p->proto);
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
static __always_inline int leave(ctx_t *ctx, struct packet *p, enum sender from,
				 struct rewrite *to)
{
	struct endpoint *ep = NULL;
	struct flow_key key;
	struct slot *s;
	int verdict;

	if (from == BACKEND)
		ep = endpoint_behind(&p->src, p->sport, p->proto);
	if (!ep)
		return hide_client(ctx, p, to);
	s = find_reply(&key, ep, &p->dst, p->dport, p->proto);
	if (!s)
		return hide_client(ctx, p, to);
	verdict = answer(ctx, p, s, CUT_LEAVING, now_ticks(), to);
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
static __always_inline int reply(ctx_t *ctx, struct packet *p,
				 struct flow_key *key, struct rewrite *to,
				 const struct hop **way)
{
	struct endpoint *ep = endpoint_behind(&p->src, p->sport, p->proto);
	__u32 now, flags;
	struct slot *s;
	bool hidden;

	if (!ep)
		return CTX_NEXT;
	s = find_reply(key, ep, &p->dst, p->dport, p->proto);
	if (!s)
		return CTX_NEXT;
	now = now_ticks();
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
			return answer(ctx, p, s, CUT_REPLY, now, to);
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

/* Fill *p, and say who it is from. What peek and the gate have not let through
 * is no business of ours, or odd. */
static __always_inline enum parsed look(ctx_t *ctx, __u32 l3, struct packet *p,
					enum sender *from, bool egress)
{
	enum parsed is = peek(ctx, l3, p);

	if (is == PARSED) {
		*from = sender_of(p, egress);
		if (*from == NOBODY)
			return PARSED_FOREIGN;
		is = peek_l4(ctx, p);
	}
	if (is != PARSED_ODD)
		return is;
	__builtin_memset(p, 0, sizeof(*p));
	is = parse(ctx, l3, p);
	*from = is == PARSED ? sender_of(p, egress) : NOBODY;
	return is;
}

static __always_inline int ingress(ctx_t *ctx, __u32 l3)
{
	struct packet p = {};
	const struct hop *home = NULL;
	enum sender from = NOBODY;
	struct flow_key key;
	struct rewrite to;
	int verdict = OTHER;

	if (!ctx_ours(ctx))
		return CTX_NEXT;
	switch (look(ctx, l3, &p, &from, false)) {
	case PARSED:
		break;
	case PARSED_ICMP:
		verdict = icmp(ctx, &p, false);
		book_due();
		return verdict;
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
	if (from == NOBODY)
		verdict = CTX_NEXT;
	else if (from == CLIENT)
		verdict = request(ctx, &p, &key, &to);
	if (verdict == OTHER) /* a backend's answer, it may be all the same */
		verdict = reply(ctx, &p, &key, &to, &home);
	return finish(ctx, &p, &to, home, verdict, false);
}

static __always_inline int egress(ctx_t *ctx, __u32 l3)
{
	struct packet p = {};
	enum sender from = NOBODY;
	struct rewrite to;
	int verdict = CTX_NEXT;

	if (ctx_seen(ctx))
		return CTX_NEXT;
	switch (look(ctx, l3, &p, &from, true)) {
	case PARSED:
		break;
	case PARSED_ICMP:
		verdict = icmp(ctx, &p, true);
		book_due();
		return verdict;
	default:
		return CTX_NEXT;
	}
	if (p.fragment == FRAGMENT_LATER)
		return fragment_follow(ctx, &p, true);
	if (p.options)
		return CTX_NEXT;
	rewrite_nothing(&to, &p);
	if (from != NOBODY)
		verdict = leave(ctx, &p, from, &to);
	return finish(ctx, &p, &to, NULL, verdict, true);
}
