/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * redirect.h: past the stack. A flow of which both directions come in by a hook
 * of ours may skip routing, netfilter and the egress hook: the packet is
 * rewritten completely where it comes in and sent by the interface that it
 * leaves by. Either both directions do so or neither, since netfilter calls
 * what it sees only half of invalid; so it is chosen when the flow is made.
 *
 * What the routing table says is kept for a second (struct hop). Packets that
 * the stack has something to say about take its way all the same, rewritten
 * by halves at ingress and egress as those of other flows: it then answers
 * that their time is exceeded, or that they are too big.
 */
#pragma once

#include "count.h"
#include "nat.h"

#ifndef AF_INET
#define AF_INET	 2
#define AF_INET6 10
#endif

const volatile __u32 hop_age = 1000; /* ms between two questions */

/* Ask the routing table for the way from src, that comes in by an interface, to
 * dst. */
__noinline int hop_ask(ctx_t *ctx, struct hop *hop, const struct addr *src,
		       const struct addr *dst, __u32 ifindex)
{
	struct bpf_fib_lookup fib = {};
	int said;

	if (!hop || !src || !dst)
		return -1;
	fib.ifindex = ifindex;
	fib.tot_len = 1; /* so that the answer has the path's MTU */
	if (addr_is4(dst)) {
		fib.family = AF_INET;
		fib.ipv4_src = src->w[3];
		fib.ipv4_dst = dst->w[3];
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, src, sizeof(*src));
		__builtin_memcpy(fib.ipv6_dst, dst, sizeof(*dst));
	}
	said = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	if (said == BPF_FIB_LKUP_RET_SUCCESS) {
		__builtin_memcpy(hop->to, fib.dmac, sizeof(hop->to));
		__builtin_memcpy(hop->from, fib.smac, sizeof(hop->from));
		hop->ifindex = fib.ifindex;
		hop->mtu = fib.mtu_result;
		hop->flags = 0;
	} else if (said == BPF_FIB_LKUP_RET_NO_NEIGH) {
		hop->ifindex = fib.ifindex;
		hop->mtu = 1280; /* not said; every IPv6 link has it */
		hop->flags = HOP_UNRESOLVED;
	} else {
		hop->flags = HOP_NONE;
	}
	/* Last, and the exchange is a barrier: until then another CPU asks for
	 * itself. */
	__sync_lock_test_and_set(&hop->checked, now_ticks());
	return 0;
}

/* The hop, asked for again if it is old. */
static __always_inline void hop_refresh(ctx_t *ctx, struct hop *hop,
					const struct addr *src,
					const struct addr *dst, __u32 ifindex,
					__u32 now)
{
	if (!hop->checked || now - hop->checked > hop_age)
		hop_ask(ctx, hop, src, dst, ifindex);
}

static __always_inline bool hop_leads(const struct hop *hop)
{
	return !hop->flags || (CTX_RESOLVES && hop->flags == HOP_UNRESOLVED);
}

/* Whether the stack would have nothing to say about the packet. */
static __always_inline bool may_send(ctx_t *ctx, const struct packet *p,
				     __u32 mtu)
{
	return p->ttl > 1 && !p->fragment && !p->tagged &&
	       ctx_segment_length(ctx, p->l3, p->payload) <= mtu;
}

static __always_inline struct hop *hop_to(__u32 backend)
{
	return bpf_map_lookup_elem(&hops, &backend);
}

/* Whether a new flow's packets, to a backend and back to its client, can go
 * past the stack. */
static __always_inline bool redirect_chosen(ctx_t *ctx, const struct packet *p,
					    const struct backend *to,
					    __u32 backend, struct hop *home)
{
	struct hop *out = hop_to(backend);
	__u32 now = now_ticks();

	if (!out || !p->l3 || p->tagged || p->proto != IPPROTO_TCP ||
	    !ctx_may_redirect(ctx, to))
		return false;
	hop_refresh(ctx, out, &p->src, &to->addr, ctx_ifindex(ctx), now);
	if (!hop_leads(out) || out->ifindex != to->ifindex)
		return false;
	hop_ask(ctx, home, &p->dst, &p->src, to->ifindex);
	return hop_leads(home);
}

/* Where the client's packet goes on a flow that is redirected. False: the
 * stack's way. */
static __always_inline bool send_to_backend(ctx_t *ctx, const struct packet *p,
					    const struct backend *b,
					    __u32 backend, __u32 now,
					    struct rewrite *to)
{
	struct hop *hop = hop_to(backend);

	if (!hop)
		return false;
	hop_refresh(ctx, hop, &p->src, &b->addr, ctx_ifindex(ctx), now);
	if (!hop_leads(hop) || !may_send(ctx, p, hop->mtu))
		return false;
	to->way = ctx_peer(b) ? WAY_PEER : WAY_BACKEND;
	to->where = backend;
	return true;
}

/* Send a packet that is written by its way. */
static __always_inline int send_on(ctx_t *ctx, const struct rewrite *to,
				   const struct hop *home)
{
	const struct hop *hop = home;

	if (to->way != WAY_CLIENT)
		hop = hop_to(to->where);
	if (!hop || nat_l2(ctx, hop)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	/* With no link-layer address yet, the interface asks for it. */
	if (to->way == WAY_PEER && !hop->flags)
		return ctx_send_peer(ctx, hop->ifindex);
	return ctx_send(ctx, hop);
}
