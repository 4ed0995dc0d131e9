/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* parse.h: from bytes to struct packet, one shape for IPv4 and IPv6. */
#pragma once

#include "ctx.h"

#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define IP4_DF		 0x4000
#define IP4_MF		 0x2000
#define IP4_OFFSET	 0x1fff
#define NEXTHDR_FRAGMENT 44
#define TCP_FIN		 1
#define TCP_SYN		 2
#define TCP_RST		 4
#define TCP_ACK		 16

enum fragment_part { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	struct addr src, dst;
	__u32 payload;	/* bytes after the L4 header, of all segments; between
			 * peek and peek_l4: where the IP packet ends */
	__u32 seq, ack; /* TCP, host order */
	__be32 fragment_id;
	__be16 sport, dport;
	__u8 l3, l4; /* offsets of the headers */
	__u8 proto;
	__u8 v6;
	__u8 tcp;      /* flag bits */
	__u8 fragment; /* enum fragment_part */
	__u8 options;  /* IPv4 options lie between */
	__u8 tagged;   /* a VLAN tag lies before l3, or beside the packet */
	__u8 ttl;
	__u8 data; /* TCP: offset of the payload */
};

enum parsed {
	PARSED,
	PARSED_FOREIGN,	  /* not IP */
	PARSED_PROTOCOL,  /* one that we do not steer */
	PARSED_ICMP,	  /* l4 is the ICMP header */
	PARSED_EXTENSION, /* IPv6 extension headers other than one fragment */
	PARSED_TRUNCATED, /* the frame ends before the packet does */
	PARSED_MALFORMED, /* its headers contradict each other */
	PARSED_ODD,	  /* of peek: ask parse */
};

static __always_inline void addr_from4(struct addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline void addr_from6(struct addr *a,
				       const struct in6_addr *v6)
{
	__builtin_memcpy(a, v6, sizeof(*a));
}

static __always_inline bool addr_same(const struct addr *a,
				      const struct addr *b)
{
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) |
		 (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

/* As an IPv6 packet's address it is for inside a host only (RFC 4291 2.5.5.2),
 * and would be taken for the IPv4 address here. */
static __always_inline bool addr_is4(const struct addr *a)
{
	return !(a->w[0] | a->w[1]) && a->w[2] == bpf_htonl(0xffff);
}

struct ip6_fragment {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset; /* in units of 8, and the more-fragments bit */
	__be32 id;
};

/* *end: offset behind the IP packet; 0 where its header does not say (jumbo).
 */
static __always_inline enum parsed parse_ip4(ctx_t *ctx, struct packet *p,
					     __u32 *end)
{
	struct iphdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));
	__u32 frag, header;

	if (!ip)
		return PARSED_TRUNCATED;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return PARSED_MALFORMED;
	addr_from4(&p->src, ip->saddr);
	addr_from4(&p->dst, ip->daddr);
	p->proto = ip->protocol;
	p->ttl = ip->ttl;
	p->options = header != sizeof(*ip);
	p->l4 = p->l3 + header;
	*end = ip->tot_len ? p->l3 + bpf_ntohs(ip->tot_len) : 0;
	frag = bpf_ntohs(ip->frag_off) & (IP4_MF | IP4_OFFSET);
	if (frag) {
		p->fragment =
			frag & IP4_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
		p->fragment_id = ip->id;
	}
	return PARSED;
}

static __always_inline enum parsed parse_ip6(ctx_t *ctx, struct packet *p,
					     __u32 *end)
{
	struct ipv6hdr *ip = ctx_at(ctx, p->l3, sizeof(*ip));
	struct ip6_fragment *frag;

	if (!ip)
		return PARSED_TRUNCATED;
	if (ip->version != 6)
		return PARSED_MALFORMED;
	addr_from6(&p->src, &ip->saddr);
	addr_from6(&p->dst, &ip->daddr);
	if (addr_is4(&p->src) || addr_is4(&p->dst))
		return PARSED_FOREIGN;
	p->proto = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->v6 = 1;
	p->l4 = p->l3 + sizeof(*ip);
	*end = ip->payload_len ? p->l4 + bpf_ntohs(ip->payload_len) : 0;
	if (p->proto == IPPROTO_HOPOPTS && !ip->payload_len) {
		/* Inside a host a large aggregate has a jumbo payload option
		 * (RFC 2675) and nothing else. */
		__u8 *jumbo = ctx_at(ctx, p->l4, 8);

		if (!jumbo || jumbo[1] || jumbo[2] != 0xc2 || jumbo[3] != 4)
			return PARSED_EXTENSION;
		p->proto = jumbo[0];
		p->l4 += 8;
		return PARSED;
	}
	if (p->proto != NEXTHDR_FRAGMENT)
		return PARSED;
	frag = ctx_at(ctx, p->l4, sizeof(*frag));
	if (!frag)
		return PARSED_TRUNCATED;
	p->proto = frag->nexthdr;
	p->fragment_id = frag->id;
	p->fragment = frag->offset & bpf_htons(0xfff8) ? FRAGMENT_LATER :
							 FRAGMENT_FIRST;
	p->l4 += sizeof(*frag);
	return PARSED;
}

static __always_inline enum parsed parse_tcp(ctx_t *ctx, struct packet *p,
					     __u32 end)
{
	struct tcphdr *tcp = ctx_at(ctx, p->l4, sizeof(*tcp));
	__u32 header;

	if (!tcp)
		return PARSED_MALFORMED;
	header = p->l4 + tcp->doff * 4;
	if (tcp->doff < 5 || header > end)
		return PARSED_MALFORMED;
	p->sport = tcp->source;
	p->dport = tcp->dest;
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->tcp = ((__u8 *)tcp)[13];
	p->payload = end - header;
	p->data = header;
	return PARSED;
}

static __always_inline enum parsed parse_udp(ctx_t *ctx, struct packet *p,
					     __u32 end)
{
	struct udphdr *udp = ctx_at(ctx, p->l4, sizeof(*udp));
	__u32 length;

	if (!udp)
		return PARSED_MALFORMED;
	length = bpf_ntohs(udp->len);
	/* The first fragment's header counts the whole datagram. */
	if (length < sizeof(*udp) ||
	    p->l4 + (p->fragment ? sizeof(*udp) : length) > end)
		return PARSED_MALFORMED;
	p->sport = udp->source;
	p->dport = udp->dest;
	p->payload = length - sizeof(*udp);
	return PARSED;
}

/* Step over VLAN tags that lie in the packet: QinQ has two. */
static __always_inline __be16 parse_tags(ctx_t *ctx, struct packet *p)
{
	__be16 type = ctx_protocol(ctx, p->l3);

	p->tagged = ctx_tagged(ctx);
	for (int i = 0; i < 2 && p->l3; i++) {
		if (type != bpf_htons(ETH_P_8021Q) &&
		    type != bpf_htons(ETH_P_8021AD))
			break;
		p->l3 += 4;
		p->tagged = 1;
		type = ctx_protocol(ctx, p->l3);
	}
	return type;
}

/*
 * Fill *p (zero at first) from the packet whose IP header, or a VLAN tag before
 * it, is at l3. A later fragment has no ports. A global function: the verifier
 * looks at it once and then forgets by which of the many ways it came to its
 * answer.
 */
__noinline int parse(ctx_t *ctx, __u32 l3, struct packet *p)
{
	__be16 ethertype;
	enum parsed is;
	__u32 end = 0;

	if (!p)
		return PARSED_FOREIGN;
	p->l3 = l3;
	ethertype = parse_tags(ctx, p);
	if (ethertype == bpf_htons(ETH_P_IP))
		is = parse_ip4(ctx, p, &end);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		is = parse_ip6(ctx, p, &end);
	else
		return PARSED_FOREIGN;
	if (is != PARSED)
		return is;
	if (!end)
		end = ctx_length(ctx);
	if (end > ctx_length(ctx))
		return PARSED_TRUNCATED;
	if (end < p->l4)
		return PARSED_MALFORMED;
	if (p->fragment == FRAGMENT_LATER)
		return p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP ?
			       PARSED :
			       PARSED_PROTOCOL;
	switch (p->proto) {
	case IPPROTO_TCP:
		return parse_tcp(ctx, p, end);
	case IPPROTO_UDP:
		return parse_udp(ctx, p, end);
	case IPPROTO_ICMP:
		return p->v6 ? PARSED_PROTOCOL : PARSED_ICMP;
	case IPPROTO_ICMPV6:
		return p->v6 ? PARSED_ICMP : PARSED_PROTOCOL;
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return p->v6 ? PARSED_EXTENSION : PARSED_PROTOCOL;
	default:
		return PARSED_PROTOCOL;
	}
}

static __always_inline bool peek_ports(void *at, void *end, struct packet *p)
{
	__be16 *ports = at;

	if (at + 8 > end)
		return false;
	p->sport = ports[0];
	p->dport = ports[1];
	return true;
}

/*
 * The commonest packets at once: IPv4 without options or IPv6, and TCP or UDP
 * in one piece. Fills addresses and ports, which tell whether it is ours;
 * peek_l4 does the rest. Whatever is not as simple is PARSED_ODD.
 */
static __always_inline enum parsed peek(ctx_t *ctx, __u32 l3, struct packet *p)
{
	void *data = ctx_data(ctx), *end = ctx_end(ctx);
	__be16 ethertype = ctx_protocol(ctx, l3);

	p->l3 = l3;
	p->tagged = ctx_tagged(ctx);
	if (ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + l3;

		if ((void *)(ip + 1) > end || *(__u8 *)ip != 0x45 ||
		    ip->frag_off & bpf_htons(IP4_MF | IP4_OFFSET))
			return PARSED_ODD;
		p->proto = ip->protocol;
		if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
			return PARSED_ODD;
		addr_from4(&p->src, ip->saddr);
		addr_from4(&p->dst, ip->daddr);
		p->ttl = ip->ttl;
		p->v6 = 0;
		p->l4 = l3 + sizeof(*ip);
		p->payload = ip->tot_len ? l3 + bpf_ntohs(ip->tot_len) : 0;
		return peek_ports(ip + 1, end, p) ? PARSED : PARSED_ODD;
	}
	if (ethertype == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + l3;

		if ((void *)(ip + 1) > end || *(__u8 *)ip >> 4 != 6)
			return PARSED_ODD;
		p->proto = ip->nexthdr;
		if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
			return PARSED_ODD;
		addr_from6(&p->src, &ip->saddr);
		addr_from6(&p->dst, &ip->daddr);
		if (addr_is4(&p->src) || addr_is4(&p->dst))
			return PARSED_FOREIGN;
		p->ttl = ip->hop_limit;
		p->v6 = 1;
		p->l4 = l3 + sizeof(*ip);
		p->payload = ip->payload_len ?
				     p->l4 + bpf_ntohs(ip->payload_len) :
				     0;
		return peek_ports(ip + 1, end, p) ? PARSED : PARSED_ODD;
	}
	return ethertype == bpf_htons(ETH_P_8021Q) ||
			       ethertype == bpf_htons(ETH_P_8021AD) ?
		       PARSED_ODD :
		       PARSED_FOREIGN;
}

/* What a packet that peek knew says at layer 4. */
static __always_inline enum parsed peek_l4(ctx_t *ctx, struct packet *p)
{
	__u32 end = p->payload;

	if (!end || end > ctx_length(ctx)) /* a large aggregate says 0 */
		return PARSED_ODD;
	return p->proto == IPPROTO_TCP ? parse_tcp(ctx, p, end) :
					 parse_udp(ctx, p, end);
}
