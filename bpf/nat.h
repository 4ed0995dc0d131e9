/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* nat.h: write new addresses and ports into a packet and mend its checksums. */
#pragma once

#include "parse.h"
#include "sum.h"

#define STEER 100 /* no verdict yet: write the packet first */

/* How a packet goes on. */
enum way {
	WAY_STACK,
	WAY_BACKEND, /* by the hop of a backend, `where` is its id */
	WAY_CLIENT,  /* by the hop of its flow */
	WAY_PEER,    /* the same, right into the namespace behind its veth */
};

/* What the packet shall say, all four, changed or not, and how it goes on. */
struct rewrite {
	struct addr src, dst;
	__be16 sport, dport;
	__u32 way; /* enum way */
	__u32 where;
};

static __always_inline void rewrite_nothing(struct rewrite *to,
					    const struct packet *p)
{
	to->src = p->src;
	to->dst = p->dst;
	to->sport = p->sport;
	to->dport = p->dport;
	to->way = WAY_STACK;
	to->where = 0;
}

/* hop: who sends it on takes one from its TTL. */
static __always_inline int nat_l3(ctx_t *ctx, const struct packet *p,
				  const struct addr *src,
				  const struct addr *dst, __u64 addrs, bool hop)
{
	if (p->v6) {
		struct ipv6hdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));

		if (!ip)
			return -1;
		__builtin_memcpy(&ip->saddr, src, sizeof(*src));
		__builtin_memcpy(&ip->daddr, dst, sizeof(*dst));
		ip->hop_limit -= hop;
	} else {
		struct iphdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));

		if (!ip)
			return -1;
		ip->saddr = src->w[3];
		ip->daddr = dst->w[3];
		if (hop) {
			/* The word of TTL and protocol becomes less by one. */
			addrs += (__u16)~bpf_htons(0x100);
			ip->ttl--;
		}
		ip->check = sum_mend(ip->check, addrs);
	}
	return 0;
}

/* Mend the checksum at *check, which the packet or the device owns. */
static __always_inline void nat_sum(__u16 *check, enum sums sums, __u64 addrs,
				    __u64 ports, bool udp)
{
	if (sums == SUMS_PARTIAL) {
		*check = sum_fold(*check + addrs);
		return;
	}
	if (udp && !*check)
		return; /* no checksum was sent: none is invented */
	*check = sum_mend(*check, addrs + ports);
	if (udp && !*check)
		*check = 0xffff; /* RFC 768: a computed 0 is sent as ones */
}

static __always_inline int nat_l4(ctx_t *ctx, const struct packet *p,
				  const struct rewrite *to, __u64 addrs,
				  __u64 ports)
{
	enum sums sums = ctx_sums(ctx);
	__u32 check;

	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = ctx_at(ctx, p->l4, sizeof(*tcp));

		if (!tcp)
			return -1;
		tcp->source = to->sport;
		tcp->dest = to->dport;
		if (sums != SUMS_KERNEL) {
			nat_sum(&tcp->check, sums, addrs, ports, false);
			return 0;
		}
		check = p->l4 + __builtin_offsetof(struct tcphdr, check);
	} else {
		struct udphdr *udp = ctx_at(ctx, p->l4, sizeof(*udp));

		if (!udp)
			return -1;
		udp->source = to->sport;
		udp->dest = to->dport;
		if (sums != SUMS_KERNEL) {
			nat_sum(&udp->check, sums, addrs, ports, true);
			return 0;
		}
		check = p->l4 + __builtin_offsetof(struct udphdr, check);
	}
	return ctx_mend(ctx, check, sum_fold(addrs), sum_fold(ports), p->v6,
			p->proto == IPPROTO_UDP);
}

/* Returns 0, or -1 where the packet could not be written (and may be half
 * done: drop it). */
static __always_inline int nat(ctx_t *ctx, const struct packet *p,
			       const struct rewrite *to)
{
	__u64 addrs = sum_diff_addr(&p->src, &to->src, p->v6) +
		      sum_diff_addr(&p->dst, &to->dst, p->v6);
	__u64 ports;

	if (to->way == WAY_STACK && p->sport == to->sport &&
	    p->dport == to->dport && addr_same(&p->src, &to->src) &&
	    addr_same(&p->dst, &to->dst))
		return 0;
	if (nat_l3(ctx, p, &to->src, &to->dst, addrs, to->way != WAY_STACK))
		return -1;
	if (p->fragment == FRAGMENT_LATER)
		return 0;
	ports = sum_diff16(p->sport, to->sport) +
		sum_diff16(p->dport, to->dport);
	return nat_l4(ctx, p, to, addrs, ports);
}

/* Write the link-layer addresses of the way that a packet leaves by. */
static __always_inline int nat_l2(ctx_t *ctx, const struct hop *hop)
{
	struct ethhdr *eth = ctx_at(ctx, 0, sizeof(*eth));

	if (!eth)
		return -1;
	__builtin_memcpy(eth->h_dest, hop->to, sizeof(hop->to));
	__builtin_memcpy(eth->h_source, hop->from, sizeof(hop->from));
	return 0;
}

/* Back to the station that it came from. A tunnel has none. */
static __always_inline int nat_turn(ctx_t *ctx, const struct packet *p)
{
	__u8 station[ETH_ALEN];
	struct ethhdr *eth;

	if (!p->l3)
		return 0;
	eth = ctx_at(ctx, 0, sizeof(*eth));
	if (!eth)
		return -1;
	__builtin_memcpy(station, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, station, ETH_ALEN);
	return 0;
}
