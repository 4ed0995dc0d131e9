/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * echo.h: answers to ping. A virtual address is on no interface, so nobody else
 * would answer; who pings it wants to know that it is served here. The address
 * answers, not a backend, and whether there are backends does not matter.
 */
#pragma once

#include "count.h"
#include "nat.h"

#define ECHO_TTL	   64
#define ICMP4_ECHO_REPLY   0
#define ICMP4_ECHO_REQUEST 8
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY   129

/* Whether a sender may be answered. The stack, which judges its senders, does
 * not see a request that is answered here. */
static __always_inline bool echo_unicast(const struct addr *a, bool v6)
{
	const __u8 *b = (const __u8 *)a;

	if (!v6)
		return b[12] && b[12] != 127 && b[12] < 224;
	/* Not multicast, unspecified, the loopback or IPv4 in disguise. */
	return b[0] != 0xff && (a->w[0] | a->w[1]);
}

/* Make the request its own answer. */
static __always_inline int echo_turn(ctx_t *ctx, const struct packet *p)
{
	__u16 old, *at;

	if (p->v6) {
		struct ipv6hdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));

		if (!ip)
			return -1;
		ip->hop_limit = ECHO_TTL;
	} else {
		struct iphdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));

		if (!ip)
			return -1;
		at = (__u16 *)&ip->ttl;
		old = *at;
		ip->ttl = ECHO_TTL;
		ip->check = sum_mend(ip->check, sum_diff16(old, *at));
	}
	/* Exchanging the addresses changes no sum. */
	if (nat_l3(ctx, p, &p->dst, &p->src, 0, false))
		return -1;
	at = ctx_at(ctx, p->l4, 4);
	if (!at)
		return -1;
	old = at[0];
	at[0] = p->v6 ? bpf_htons(ICMP6_ECHO_REPLY << 8) : ICMP4_ECHO_REPLY;
	at[1] = sum_mend(at[1], sum_diff16(old, at[0]));
	return nat_turn(ctx, p);
}

/* An ICMP packet that is not about another one. */
static __always_inline int echo(ctx_t *ctx, const struct packet *p, __u8 type,
				__u8 code)
{
	struct addr to = p->dst; /* Linux 6.1 takes no key from a caller */

	if (type != (p->v6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST) || code)
		return CTX_NEXT;
	if (!bpf_map_lookup_elem(&echoes, &to) || !echo_unicast(&p->src, p->v6))
		return CTX_NEXT;
	if (echo_turn(ctx, p)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	count_reason(NOTE_ECHO);
	return ctx_return(ctx, false);
}
