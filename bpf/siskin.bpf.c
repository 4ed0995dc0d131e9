//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs. At ingress a destination is rewritten, at egress a source:
 *
 *            ingress                       egress
 *   client → frontend becomes backend      client becomes the host (source NAT)
 *   client ← the host becomes the client   backend becomes frontend
 *            (source NAT)
 *
 * A packet that the stack was given with one of the host's own addresses as
 * its source would be a martian, so sources wait until the stack is done.
 * Whatever is not ours goes on untouched.
 */
#include "age.h"
#include "fragment.h"
#include "icmp.h"

#define REFUSED_BUT_REAL (PASS_NO_FLOW - DROP_NO_FLOW)
#define STEER		 100 /* no verdict yet: write the packet first */

/* No flow for a packet to a frontend: a virtual address has nobody else to
 * answer; at a real one the server may know what we do not. */
static __always_inline int refuse(const struct frontend *fe, __u32 why)
{
	if (fe->flags & FRONTEND_REAL) {
		count_reason(why + REFUSED_BUT_REAL);
		return CTX_NEXT;
	}
	count_reason(why);
	return CTX_DROP;
}

/* Write what was decided. */
static __always_inline int finish(ctx_t *ctx, const struct packet *p,
				  const struct rewrite *to)
{
	if (nat(ctx, p, to)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	return CTX_NEXT;
}

static __always_inline bool is_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP &&
	       (p->tcp & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline bool stale(const struct flow *f, __u8 proto, __u32 now)
{
	return f->flags & FLOW_EXPIRED ||
	       (__s32)(now - f->seen) > (__s32)idle_limit(f, proto, false);
}

/* The client's SYN came again on a handshake that has no answer. */
static __always_inline void count_retry(struct flow *f)
{
	struct tally *t;

	if (flow_set(f, FLOW_RETRIED) || f->flags & FLOW_ANSWERED)
		return;
	if (!flow_fails(f))
		return;
	t = tally_of(f->backend);
	if (t)
		t->timeout++;
}

/* Whether a flow may no longer keep what was chosen for it, and why. */
static __always_inline __u32 outdated(const struct packet *p,
				      const struct frontend *fe, struct flow *f,
				      bool syn, __u32 now)
{
	const __u32 over =
		FLOW_CLOSED | FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_TAKEN;
	struct backend *b;

	if (!syn)
		return p->proto == IPPROTO_UDP && (f->flags & FLOW_TAKEN ||
						   stale(f, p->proto, now)) ?
			       NOTE_REOPENED :
			       0;
	if (f->flags & over || stale(f, p->proto, now))
		return NOTE_REOPENED;
	if (f->flags & FLOW_ESTABLISHED)
		return 0; /* the server's challenge ACK settles it (RFC 5961) */
	if (p->seq + 1 != f->client_next && !p->payload)
		return NOTE_REOPENED; /* another connection from the same port
				       */
	count_retry(f);
	/* Not entitled any more: else a client's own retries would pin it to a
	 * canary that was taken back. */
	if (f->version && version_of(p, fe, word_of(fe)) != f->version)
		return NOTE_RECHOSEN;
	b = bpf_map_lookup_elem(&backends, &f->backend);
	return b && b->flags & BACKEND_RETIRED ? NOTE_RECHOSEN : 0;
}

/* A client's packet, leaving for a backend that shall see the host as its
 * source. */
static __always_inline int hide_client(const struct packet *p,
				       struct rewrite *to)
{
	struct endpoint *ep;
	struct found found;

	if (!port_ours(p->sport))
		return CTX_NEXT;
	ep = endpoint_at(&p->dst, p->dport, p->proto);
	if (!ep)
		return CTX_NEXT;
	find_rewritten(&found, ep, p->sport, p->proto);
	if (!found.flow || !(found.flow->flags & FLOW_SNAT))
		return CTX_NEXT;
	if (!addr_same(&p->src, &found.key.client)) {
		/* Netfilter was here first; it will undo its own work, too. */
		if (addr_same(&p->src, &ep->source))
			flow_set(found.flow, FLOW_MASQUERADED);
		return CTX_NEXT;
	}
	to->src = ep->source;
	if (p->fragment)
		fragment_remember(p, to, true, found.flow->backend, 2);
	return STEER;
}

/*
 * A client's packet to a frontend. Like its siblings below it only decides: it
 * fills *to and returns STEER, or gives the verdict. They are global functions
 * for the verifier's sake and do not write packets themselves for the stack's.
 */
__noinline int forward(ctx_t *ctx, const struct packet *p,
		       const struct frontend *fe, struct rewrite *to)
{
	__u32 now = now_ticks(), why = 0;
	struct flow_key key;
	struct backend *b;
	struct tally *t;
	struct flow *f;
	bool syn;

	if (!p || !fe || !to)
		return CTX_NEXT;
	syn = is_syn(p);
	key = key_of(&p->src, fe->id, p->sport, p->proto);
	f = bpf_map_lookup_elem(&flows, &key);
	if (f)
		why = outdated(p, fe, f, syn, now);
	if (f && !why && f->flags & FLOW_TAKEN)
		return refuse(fe, DROP_NO_FLOW); /* a late packet */
	if (!f || why) {
		if (!f && p->proto == IPPROTO_TCP && !syn)
			return refuse(fe, DROP_NO_FLOW);
		if (fe->flags & FRONTEND_RETIRED) {
			count_reason(PASS_RETIRED);
			return CTX_NEXT;
		}
		if (why)
			count_reason(why);
		f = flow_open(ctx, p, fe, &key, f, &why);
		if (!f)
			return refuse(fe, why);
	}
	b = bpf_map_lookup_elem(&backends, &f->backend);
	t = tally_of(f->backend);
	if (!b || !t)
		return refuse(fe, DROP_NO_BACKEND);
	count_packet(t, ctx, p, 0);
	track_client(f, t, p, now);
	to->dst = b->addr;
	to->dport = b->port;
	to->sport = f->port;
	if (p->fragment)
		fragment_remember(p, to, false, f->backend, 0);
	return STEER;
}

/* A packet that leaves: a backend's for the client, or a client's for a backend
 * that shall see the host as its source. */
__noinline int leave(ctx_t *ctx, const struct packet *p, struct rewrite *to)
{
	struct endpoint *ep;
	struct found found;
	struct tuple *vip;
	struct tally *t;

	if (!p || !to)
		return CTX_NEXT;
	ep = endpoint_at(&p->src, p->sport, p->proto);
	if (!ep)
		return hide_client(p, to);
	find_reply(&found, ep, &p->dst, p->dport, p->proto);
	if (!found.flow)
		return hide_client(p, to);
	vip = bpf_map_lookup_elem(&vips, &found.key.id);
	t = tally_of(found.flow->backend);
	if (!vip || !t)
		return CTX_NEXT;
	count_packet(t, ctx, p, 1);
	track_server(found.flow, t, p, now_ticks());
	to->src = vip->addr;
	to->sport = vip->port;
	to->dport = found.key.port;
	if (p->fragment)
		fragment_remember(p, to, true, found.flow->backend, 1);
	return STEER;
}

/* A backend's packet to the host, which hid the client from it. */
__noinline int find_client(const struct packet *p, struct rewrite *to)
{
	struct endpoint *ep;
	struct found found;

	if (!p || !to || !port_ours(p->dport))
		return CTX_NEXT;
	ep = endpoint_at(&p->src, p->sport, p->proto);
	if (!ep || !addr_same(&p->dst, &ep->source))
		return CTX_NEXT;
	find_rewritten(&found, ep, p->dport, p->proto);
	if (!found.flow || !(found.flow->flags & FLOW_SNAT) ||
	    found.flow->flags & FLOW_MASQUERADED)
		return CTX_NEXT;
	to->dst = found.key.client;
	if (p->fragment)
		fragment_remember(p, to, false, found.flow->backend, 2);
	return STEER;
}

static __always_inline int pass(__u32 reason)
{
	count_reason(reason);
	return CTX_NEXT;
}

static __always_inline int ingress(ctx_t *ctx, __u32 l3)
{
	struct packet p = {};
	struct frontend *fe;
	struct rewrite to;
	int verdict;

	if (!ctx_ours(ctx))
		return CTX_NEXT;
	switch (parse(ctx, l3, &p)) {
	case PARSED:
		break;
	case PARSED_ICMP:
		return icmp(ctx, &p, false);
	case PARSED_EXTENSION:
		return pass(PASS_EXTENSION);
	case PARSED_TRUNCATED:
		return pass(PASS_TRUNCATED);
	default:
		return CTX_NEXT;
	}
	if (p.fragment == FRAGMENT_LATER)
		return fragment_follow(ctx, &p, false);
	to = rewrite_none(&p);
	fe = frontend_at(&p.dst, p.dport, p.proto);
	if (fe && p.options)
		return pass(PASS_IP_OPTIONS);
	verdict = fe ? forward(ctx, &p, fe, &to) : find_client(&p, &to);
	return verdict == STEER ? finish(ctx, &p, &to) : verdict;
}

static __always_inline int egress(ctx_t *ctx, __u32 l3)
{
	struct packet p = {};
	struct rewrite to;
	int verdict;

	switch (parse(ctx, l3, &p)) {
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
	to = rewrite_none(&p);
	verdict = leave(ctx, &p, &to);
	return verdict == STEER ? finish(ctx, &p, &to) : verdict;
}

SEC("tc")
int siskin_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ETH_HLEN);
}

SEC("tc")
int siskin_egress(struct __sk_buff *skb)
{
	return egress(skb, ETH_HLEN);
}

/* For interfaces without a link-layer header: tunnels, WireGuard. */
SEC("tc")
int siskin_ingress_l3(struct __sk_buff *skb)
{
	return ingress(skb, 0);
}

SEC("tc")
int siskin_egress_l3(struct __sk_buff *skb)
{
	return egress(skb, 0);
}

/* What an empty program costs: the floor that benchmarks subtract. */
SEC("tc")
int siskin_empty(struct __sk_buff *skb)
{
	return CTX_NEXT;
}

/* Run once after loading, by BPF_PROG_TEST_RUN: starts the timer. Of type tc,
 * since a timer's callback may call what its program's type may, and syscall
 * programs have no coarse clock. */
SEC("tc")
int siskin_start(struct __sk_buff *skb)
{
	return age_start();
}

/* For the generated Go constants. */
const volatile enum frontend_flag frontend_flag_type;
const volatile enum backend_flag backend_flag_type;
const volatile enum flow_flag flow_flag_type;
const volatile enum reason reason_type;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
