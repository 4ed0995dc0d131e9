/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* quote.h: the packet that an ICMP error quotes: where it is, what it says, and
 * how to make it say something else. */
#pragma once

#include "nat.h"

#define ICMP_HEADER 8

struct icmp_rewrite {
	struct rewrite outer; /* of the error itself; it has no ports */
	struct {
		struct addr src, dst;
		__be16 sport, dport;
	} inner;
};

/* How many bytes of the quoted packet the header speaks of (RFC 4884); 0: it
 * says nothing, and all the rest is quoted. */
static __always_inline __u32 icmp_quoted(const struct packet *p,
					 const __u8 *header)
{
	if (!p->v6)
		return header[5] * 4;
	/* The other two have a number there that is no length. */
	return header[0] == 1 || header[0] == 3 ? header[4] * 8 : 0;
}

/* Where the quoted packet ends. What lies behind that in the frame is padding
 * or an extension, and not ours to mend. */
static __always_inline __u32 icmp_quote_end(ctx_t *ctx, const struct packet *p,
					    __u32 quoted)
{
	__u32 end;

	if (p->v6) {
		struct ipv6hdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));

		if (!ip)
			return 0;
		end = p->l4 + bpf_ntohs(ip->payload_len);
	} else {
		struct iphdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));

		if (!ip)
			return 0;
		end = p->l3 + bpf_ntohs(ip->tot_len);
	}
	quoted += p->l4 + ICMP_HEADER;
	return quoted > (__u32)p->l4 + ICMP_HEADER && quoted < end ? quoted :
								     end;
}

/* Behind the quoted IPv6 header: what parse() lets through, too. */
static __always_inline bool icmp_inner_ip6(ctx_t *ctx, struct packet *in)
{
	struct ip6_fragment *next = ctx_at(ctx, in->l4, sizeof(*next));
	__u8 *option = (__u8 *)next;

	if (!next)
		return false;
	if (in->proto == NEXTHDR_FRAGMENT) {
		if (next->offset & bpf_htons(0xfff8))
			return false; /* it has no ports */
	} else if (option[1] || option[2] != 0xc2 || option[3] != 4) {
		return false; /* not the host's own: a jumbo aggregate */
	}
	in->proto = next->nexthdr;
	in->l4 += sizeof(*next);
	return true;
}

/*
 * The quoted packet. Only 8 bytes behind its IP header are sure to be there
 * (RFC 792): the ports, and TCP's sequence number. in->payload is how many
 * there are. Later fragments have no ports, and packets with options are not
 * steered, so neither is ours.
 */
static __always_inline bool icmp_inner(ctx_t *ctx, const struct packet *p,
				       __u32 end, struct packet *in)
{
	__be16 *l4;

	__builtin_memset(in, 0, sizeof(*in));
	in->l3 = p->l4 + ICMP_HEADER;
	in->v6 = p->v6;
	if (p->v6) {
		struct ipv6hdr *ip = ctx_at(ctx, in->l3, sizeof(*ip));

		if (!ip || ip->version != 6)
			return false;
		addr_from6(&in->src, &ip->saddr);
		addr_from6(&in->dst, &ip->daddr);
		in->proto = ip->nexthdr;
		in->l4 = in->l3 + sizeof(*ip);
	} else {
		struct iphdr *ip = ctx_at(ctx, in->l3, sizeof(*ip));

		if (!ip || ip->version != 4 || ip->ihl != 5 ||
		    ip->frag_off & bpf_htons(IP4_OFFSET))
			return false;
		addr_from4(&in->src, ip->saddr);
		addr_from4(&in->dst, ip->daddr);
		in->proto = ip->protocol;
		in->l4 = in->l3 + sizeof(*ip);
	}
	if (p->v6 &&
	    (in->proto == NEXTHDR_FRAGMENT || in->proto == IPPROTO_HOPOPTS) &&
	    !icmp_inner_ip6(ctx, in))
		return false;
	if (in->proto != IPPROTO_TCP && in->proto != IPPROTO_UDP)
		return false;
	l4 = ctx_at(ctx, in->l4, 8);
	if (!l4 || in->l4 + 8 > end)
		return false;
	in->payload = end - in->l4;
	in->sport = l4[0];
	in->dport = l4[1];
	in->seq = bpf_ntohl(*(__be32 *)(l4 + 2));
	return true;
}

/* Mend the quoted L4 checksum if it is there; returns how the sum over the
 * bytes changed. */
static __always_inline __u64 icmp_inner_sum(ctx_t *ctx, const struct packet *in,
					    __u64 diff)
{
	bool udp = in->proto == IPPROTO_UDP;
	__u32 off = udp ? 6 : 16;
	__u16 *check = ctx_at(ctx, in->l4 + off, 2);
	__u16 old;

	if (!check || off + 2 > in->payload || (udp && !*check))
		return 0;
	old = *check;
	*check = sum_mend(old, diff);
	if (udp && !*check)
		*check = 0xffff; /* as it was sent: RFC 768 */
	return sum_diff16(old, *check);
}

static __always_inline int icmp_translate(ctx_t *ctx, const struct packet *p,
					  const struct packet *in,
					  const struct icmp_rewrite *to)
{
	const struct rewrite *outer = &to->outer;
	__u64 moved, addrs, ports, diff;
	__be16 *at;

	moved = sum_diff_addr(&p->src, &outer->src, p->v6) +
		sum_diff_addr(&p->dst, &outer->dst, p->v6);
	addrs = sum_diff_addr(&in->src, &to->inner.src, p->v6) +
		sum_diff_addr(&in->dst, &to->inner.dst, p->v6);
	ports = sum_diff16(in->sport, to->inner.sport) +
		sum_diff16(in->dport, to->inner.dport);

	/* The quoted IP header: its checksum balances its addresses. */
	if (nat_l3(ctx, in, &to->inner.src, &to->inner.dst, addrs, false))
		return -1;
	diff = p->v6 ? addrs : 0;
	at = ctx_at(ctx, in->l4, 4);
	if (!at)
		return -1;
	at[0] = to->inner.sport;
	at[1] = to->inner.dport;
	diff += ports + icmp_inner_sum(ctx, in, addrs + ports);
	if (p->v6)
		diff += moved; /* ICMPv6 covers a pseudo-header (RFC 4443) */
	at = ctx_at(ctx, p->l4, 4);
	if (!at)
		return -1;
	at[1] = sum_mend(at[1], diff);
	return nat_l3(ctx, p, &outer->src, &outer->dst, moved,
		      outer->way != WAY_STACK);
}
