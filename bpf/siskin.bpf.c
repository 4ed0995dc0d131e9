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

#define STEER 100 /* no verdict yet: write the packet first */
#define AGAIN 101 /* no verdict yet: the frontend changed meanwhile */

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

/* Write what was decided. */
static __always_inline int finish(ctx_t *ctx, const struct packet *p,
				  const struct rewrite *to, int verdict,
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
	return CTX_NEXT;
}

static __always_inline bool is_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP &&
	       (p->tcp & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline bool stale(const struct flow *f, __u32 now)
{
	return (__s32)(now - f->seen) > (__s32)idle_limit(f, false);
}

/* Whether the flow would be given another backend if it came now. */
static __always_inline bool rechosen(const struct packet *p,
				     const struct frontend *fe,
				     const struct flow *f)
{
	struct choice c = {};

	return choose(p, fe, &c) && c.backend != f->backend;
}

/* Whether a datagram's flow must be made anew, and why. One that nobody answers
 * is not established: it goes where it would go now. */
static __always_inline __u32 outdated_udp(const struct packet *p,
					  const struct frontend *fe,
					  const struct flow *f, __u32 now)
{
	if (f->flags & FLOW_TAKEN || stale(f, now))
		return NOTE_REOPENED;
	if (!(f->flags & FLOW_ANSWERED) || now - f->heard > idle_udp_answered)
		return rechosen(p, fe, f) ? NOTE_RECHOSEN : 0;
	return 0;
}

/* The same for a SYN. */
static __always_inline __u32 outdated_tcp(const struct packet *p,
					  const struct frontend *fe,
					  struct flow *f, __u32 now)
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
	return rechosen(p, fe, f) ? NOTE_RECHOSEN : 0;
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
		if (addr_same(&p->src, &ep->source) &&
		    !(found.flow->flags & FLOW_HIDDEN))
			flow_set(found.flow, FLOW_MASQUERADED);
		return CTX_NEXT;
	}
	if (!(found.flow->flags & FLOW_HIDDEN))
		flow_set(found.flow, FLOW_HIDDEN);
	to->src = ep->source;
	if (p->fragment)
		fragment_remember(p, to, true, found.flow->backend,
				  COUNTED_ELSEWHERE);
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
	__u64 judged;
	struct backend *b;
	struct tally *t;
	struct flow *f;
	bool syn;

	if (!p || !fe || !to)
		return CTX_NEXT;
	syn = is_syn(p);
	key = key_of(&p->src, fe->id, p->sport, p->proto);
	f = bpf_map_lookup_elem(&flows, &key);
	judged = f ? f->opened_ns : 0;
	if (f && p->proto == IPPROTO_UDP)
		why = outdated_udp(p, fe, f, now);
	else if (f && syn)
		why = outdated_tcp(p, fe, f, now);
	if (!why && f ? f->flags & FLOW_TAKEN : !syn && p->proto == IPPROTO_TCP)
		return refuse(fe, DROP_NO_FLOW);
	if (!f || why) {
		if (fe->flags & FRONTEND_RETIRED) {
			count_reason(PASS_RETIRED);
			return CTX_NEXT;
		}
		if (why)
			count_reason(why);
		f = flow_open(ctx, p, fe, &key, f, judged, &why);
		if (!f)
			return why == DROP_BUSY ? AGAIN : refuse(fe, why);
	}
	b = bpf_map_lookup_elem(&backends, &f->backend);
	t = tally_of(f->backend);
	if (!b || !t)
		return refuse(fe, DROP_NO_BACKEND);
	track_client(f, t, ctx, p, now);
	to->dst = b->addr;
	to->dport = b->port;
	to->sport = f->port;
	if (p->fragment)
		fragment_remember(p, to, false, f->backend, TO_SERVER);
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
	track_server(found.flow, t, ctx, p, now_ticks());
	to->src = vip->addr;
	to->sport = vip->port;
	to->dport = found.key.port;
	if (p->fragment)
		fragment_remember(p, to, true, found.flow->backend, TO_CLIENT);
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
		fragment_remember(p, to, false, found.flow->backend,
				  COUNTED_ELSEWHERE);
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
	if (verdict == AGAIN) {
		fe = frontend_at(&p.dst, p.dport, p.proto);
		verdict = fe ? forward(ctx, &p, fe, &to) : CTX_NEXT;
	}
	if (verdict == AGAIN) {
		count_reason(DROP_BUSY); /* the client repeats it */
		verdict = CTX_DROP;
	}
	return finish(ctx, &p, &to, verdict, false);
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
	return finish(ctx, &p, &to, verdict, true);
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
