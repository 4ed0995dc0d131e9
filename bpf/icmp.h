/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * icmp.h: ICMP errors about steered packets. The packet that an error quotes
 * (quote.h) is translated back to what its sender knows, and so is the error's
 * own address; else path MTU discovery and "connection refused" do not work.
 */
#pragma once

#include "echo.h"
#include "flow.h"
#include "gate.h"
#include "quote.h"

#define SYN_DATA 1460 /* at most, with TCP Fast Open */

/* The work on one error: more than fits on the stack. */
struct icmp_work {
	struct packet in; /* what it quotes */
	struct icmp_rewrite to;
	struct hop home; /* WAY_CLIENT: the way to the client */
	struct flow_key key;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct icmp_work);
} icmp_works SEC(".maps");

static __always_inline bool icmp_is_error(const struct packet *p, __u8 type)
{
	if (p->v6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 11 || type == 12;
}

static __always_inline bool icmp_is_unreachable(const struct packet *p,
						__u8 type, __u8 code)
{
	if (p->v6)
		return type == 1;
	return type == 3 && code != 4; /* 4: fragmentation needed */
}

/* Whether an error can be about the flow's SYN: anybody can send errors, but
 * only who saw the SYN knows its number (RFC 5927). A datagram has nothing of
 * the kind. */
static __always_inline bool icmp_plausible(const struct flow *f,
					   const struct packet *in)
{
	/* With TCP Fast Open the SYN had data, and its retry may have none. */
	return in->proto != IPPROTO_TCP ||
	       f->client_next - (in->seq + 1) <= SYN_DATA;
}

/* An error about a client's packet becomes the frontend's. Whoever made it:
 * behind the frontend nothing shows, and a router in between would take its own
 * address for a martian. */
static __always_inline void icmp_of_frontend(const struct packet *in,
					     bool unreachable, struct slot *s,
					     struct icmp_rewrite *to)
{
	struct tally *t;

	to->outer.src = s->key.vip;
	to->inner.dst = s->key.vip;
	to->inner.dport = s->key.vport;
	to->inner.sport = s->key.port;
	if (unreachable && !(s->flow.flags & FLOW_ANSWERED) &&
	    icmp_plausible(&s->flow, in) && flow_fails_due(&s->flow)) {
		t = tally_of(s->flow.backend);
		if (t)
			t->unreachable++;
	}
}

/* An error about a client's packet, on its way to the client. */
static __always_inline bool icmp_to_client(const struct packet *p,
					   struct icmp_work *work,
					   bool unreachable)
{
	const struct packet *in = &work->in;
	struct endpoint *ep = endpoint_at(&in->dst, in->dport, in->proto);
	struct slot *s;

	if (!ep || !addr_same(&p->dst, &in->src))
		return false;
	s = find_reply(&work->key, ep, &in->src, in->sport, in->proto);
	if (!s)
		return false;
	icmp_of_frontend(in, unreachable, s, &work->to);
	return true;
}

/* An error about a reply, leaving for a backend that knows the host's address
 * as the client's. */
static __always_inline bool icmp_to_backend(const struct packet *p,
					    const struct packet *in,
					    struct icmp_rewrite *to)
{
	struct endpoint *ep;
	struct slot *s;

	if (!port_ours(in->dport) || !addr_same(&p->dst, &in->src))
		return false;
	ep = endpoint_at(&in->src, in->sport, in->proto);
	if (!ep)
		return false;
	s = find_rewritten(ep, in->dport, in->proto);
	if (!s || !(s->flow.flags & FLOW_SNAT) ||
	    !addr_same(&s->key.client, &in->dst))
		return false;
	/* Whoever made it: the backend's network may let only the host's own
	 * addresses come from the host. */
	to->outer.src = ep->source;
	to->inner.dst = ep->source;
	return true;
}

/*
 * An error from the backends' side about a client's packet. On a flow that is
 * redirected it goes past the stack like all of that flow: netfilter would take
 * it for an error about a connection that it never saw. On another one it is
 * for the egress hook, but if it came to the host, which hid the client, it
 * belongs to the client.
 */
static __always_inline bool icmp_from_backend(ctx_t *ctx,
					      const struct packet *p,
					      struct icmp_work *work,
					      bool unreachable)
{
	const struct packet *in = &work->in;
	struct icmp_rewrite *to = &work->to;
	struct endpoint *ep;
	struct slot *s;
	__u32 flags;
	bool hidden;

	if (!addr_same(&p->dst, &in->src))
		return false;
	ep = endpoint_at(&in->dst, in->dport, in->proto);
	if (!ep)
		return false;
	s = find_reply(&work->key, ep, &in->src, in->sport, in->proto);
	if (!s)
		return false;
	flags = s->flow.flags;
	hidden = flags & FLOW_SNAT && !(flags & FLOW_MASQUERADED) &&
		 addr_same(&in->src, &ep->source);
	if (flags & FLOW_REDIRECT && hidden == !!(flags & FLOW_SNAT)) {
		work->home = s->flow.hop;
		if (hop_leads(&work->home) &&
		    may_send(ctx, p, work->home.mtu)) {
			icmp_of_frontend(in, unreachable, s, to);
			to->outer.dst = s->key.client;
			to->inner.src = s->key.client;
			to->outer.way = WAY_CLIENT;
			return true;
		}
	}
	if (!hidden)
		return false;
	to->outer.dst = s->key.client;
	to->inner.src = s->key.client;
	return true;
}

/* Where an error goes on a flow that is redirected: as its last packet did. A
 * way is not asked for anew, the stack has no room for that. False: the way of
 * the others. */
static __always_inline bool icmp_way_to_backend(ctx_t *ctx,
						const struct packet *p,
						const struct backend *b,
						__u32 backend,
						struct rewrite *to)
{
	struct hop *hop = hop_to(backend);

	if (!hop || !hop->checked || !hop_leads(hop) ||
	    !may_send(ctx, p, hop->mtu))
		return false;
	to->way = ctx_peer(b) ? WAY_PEER : WAY_BACKEND;
	to->where = backend;
	return true;
}

/* An error from the client's side about a reply of the frontend. */
static __always_inline bool icmp_from_client(ctx_t *ctx, const struct packet *p,
					     const struct packet *in,
					     struct icmp_rewrite *to)
{
	struct flow_key key;
	struct backend *b;
	struct flow *f;
	__u32 backend;

	if (!addr_same(&p->dst, &in->src))
		return false;
	key_write(&key, &in->dst, in->dport, &in->src, in->sport, in->proto);
	f = flow_find(&key);
	if (!f)
		return false;
	backend = f->backend;
	b = bpf_map_lookup_elem(&backends, &backend);
	if (!b)
		return false;
	to->outer.dst = b->addr;
	to->inner.src = b->addr;
	to->inner.sport = b->port;
	to->inner.dport = f->port;
	if (f->flags & FLOW_REDIRECT &&
	    icmp_way_to_backend(ctx, p, b, backend, &to->outer) &&
	    f->flags & FLOW_SNAT) {
		to->outer.src = b->source;
		to->inner.dst = b->source;
	}
	return true;
}

__noinline int icmp(ctx_t *ctx, const struct packet *p, __u32 egress)
{
	struct icmp_rewrite *to;
	struct icmp_work *work;
	struct packet *in;
	__u8 *header, type, code;
	__u32 quoted, zero = 0;
	bool ours, unreachable;

	work = bpf_map_lookup_elem(&icmp_works, &zero);
	if (!p || !work)
		return CTX_NEXT;
	in = &work->in;
	to = &work->to;
	header = ctx_at(ctx, p->l4, ICMP_HEADER);
	if (!header || p->options || p->fragment)
		return CTX_NEXT;
	type = header[0];
	code = header[1];
	quoted = icmp_quoted(p, header);
	if (!icmp_is_error(p, type))
		return egress ? CTX_NEXT : echo(ctx, p, type, code);
	if (!icmp_inner(ctx, p, icmp_quote_end(ctx, p, quoted), in))
		return CTX_NEXT;
	rewrite_nothing(&to->outer, p);
	to->inner.src = in->src;
	to->inner.dst = in->dst;
	to->inner.sport = in->sport;
	to->inner.dport = in->dport;
	unreachable = icmp_is_unreachable(p, type, code);
	if (egress)
		ours = icmp_to_client(p, work, unreachable) ||
		       icmp_to_backend(p, in, to);
	else
		ours = icmp_from_backend(ctx, p, work, unreachable) ||
		       icmp_from_client(ctx, p, in, to);
	if (!ours) {
		if (egress ? gate_open(GATE_ENDPOINTS, &in->dst, in->dport,
				       in->proto) :
			     gate_open(GATE_FRONTENDS, &in->src, in->sport,
				       in->proto))
			count_reason(PASS_ICMP);
		return CTX_NEXT;
	}
	if (icmp_translate(ctx, p, in, to)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	count_reason(NOTE_ICMP);
	return to->outer.way == WAY_STACK ?
		       CTX_NEXT :
		       send_on(ctx, &to->outer, &work->home);
}
