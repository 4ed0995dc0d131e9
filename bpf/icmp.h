/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * icmp.h: ICMP errors about steered packets. The packet that an error quotes
 * is translated back to what its sender knows, and so is the error's own
 * address; else path MTU discovery and "connection refused" do not work.
 */
#pragma once

#include "echo.h"
#include "flow.h"
#include "gate.h"
#include "nat.h"

#define ICMP_HEADER 8
#define SYN_DATA    1460 /* at most, with TCP Fast Open */

struct icmp_rewrite {
	struct addr src, dst; /* of the error itself */
	struct {
		struct addr src, dst;
		__be16 sport, dport;
	} inner;
};

/* The work on one error: more than fits on the stack. */
struct icmp_work {
	struct packet in; /* what it quotes */
	struct icmp_rewrite to;
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
	__u64 moved, addrs, ports, diff;
	__be16 *at;

	moved = sum_diff_addr(&p->src, &to->src, p->v6) +
		sum_diff_addr(&p->dst, &to->dst, p->v6);
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
	return nat_l3(ctx, p, &to->src, &to->dst, moved, false);
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

/* An error about a client's packet, on its way to the client. */
static __always_inline bool icmp_to_client(const struct packet *p,
					   const struct packet *in,
					   bool unreachable,
					   struct icmp_rewrite *to)
{
	struct endpoint *ep = endpoint_at(&in->dst, in->dport, in->proto);
	struct found found;
	struct tally *t;

	if (!ep || !addr_same(&p->dst, &in->src))
		return false;
	find_reply(&found, ep, &in->src, in->sport, in->proto);
	if (!found.flow)
		return false;
	/* Whoever made it: behind the frontend nothing shows, and a router in
	 * between would take its own address for a martian. */
	to->src = found.key.vip;
	to->inner.dst = found.key.vip;
	to->inner.dport = found.key.vport;
	to->inner.sport = found.key.port;
	if (unreachable && !(found.flow->flags & FLOW_ANSWERED) &&
	    icmp_plausible(found.flow, in) && flow_fails(found.flow)) {
		t = tally_of(found.flow->backend);
		if (t)
			t->unreachable++;
	}
	return true;
}

/* An error about a reply, leaving for a backend that knows the host's address
 * as the client's. */
static __always_inline bool icmp_to_backend(const struct packet *p,
					    const struct packet *in,
					    struct icmp_rewrite *to)
{
	struct endpoint *ep;
	struct found found;

	if (!port_ours(in->dport) || !addr_same(&p->dst, &in->src))
		return false;
	ep = endpoint_at(&in->src, in->sport, in->proto);
	if (!ep)
		return false;
	find_rewritten(&found, ep, in->dport, in->proto);
	if (!found.flow || !(found.flow->flags & FLOW_SNAT) ||
	    !addr_same(&found.key.client, &in->dst))
		return false;
	/* Whoever made it: the backend's network may let only the host's own
	 * addresses come from the host. */
	to->src = ep->source;
	to->inner.dst = ep->source;
	return true;
}

/* An error from the backends' side about a packet whose source was rewritten:
 * it came to the host and belongs to the client. */
static __always_inline bool icmp_from_backend(const struct packet *p,
					      const struct packet *in,
					      struct icmp_rewrite *to)
{
	struct endpoint *ep;
	struct found found;

	if (!port_ours(in->sport) || !addr_same(&p->dst, &in->src))
		return false;
	ep = endpoint_at(&in->dst, in->dport, in->proto);
	if (!ep || !addr_same(&in->src, &ep->source))
		return false;
	find_rewritten(&found, ep, in->sport, in->proto);
	if (!found.flow || !(found.flow->flags & FLOW_SNAT) ||
	    found.flow->flags & FLOW_MASQUERADED)
		return false;
	to->inner.src = found.key.client;
	to->dst = found.key.client;
	return true;
}

/* An error from the client's side about a reply of the frontend. */
static __always_inline bool icmp_from_client(const struct packet *p,
					     const struct packet *in,
					     struct icmp_rewrite *to)
{
	struct flow_key key;
	struct backend *b;
	struct flow *f;

	if (!addr_same(&p->dst, &in->src))
		return false;
	key_write(&key, &in->dst, in->dport, &in->src, in->sport, in->proto);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return false;
	b = bpf_map_lookup_elem(&backends, &f->backend);
	if (!b)
		return false;
	to->dst = b->addr;
	to->inner.src = b->addr;
	to->inner.sport = b->port;
	to->inner.dport = f->port;
	return true;
}

__noinline int icmp(ctx_t *ctx, const struct packet *p, __u32 egress)
{
	struct icmp_rewrite *to;
	struct icmp_work *work;
	struct packet *in;
	__u8 *header, type, code;
	__u32 quoted, zero = 0;
	bool ours;

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
	to->src = p->src;
	to->dst = p->dst;
	to->inner.src = in->src;
	to->inner.dst = in->dst;
	to->inner.sport = in->sport;
	to->inner.dport = in->dport;
	if (egress)
		ours = icmp_to_client(p, in, icmp_is_unreachable(p, type, code),
				      to) ||
		       icmp_to_backend(p, in, to);
	else
		ours = icmp_from_backend(p, in, to) ||
		       icmp_from_client(p, in, to);
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
	return CTX_NEXT;
}
