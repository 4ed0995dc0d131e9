/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * admit.h: a client's packet that is not simply the next one of its flow: it
 * opens one, is given another backend, or is refused.
 */
#pragma once

#include "cutoff.h"
#include "flow.h"

#define AGAIN	   101 /* no verdict yet: the tables changed meanwhile */
#define OTHER	   102 /* no verdict yet: there is no such frontend */

#define LOOK_AGAIN -2

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

static __always_inline int pass(__u32 reason)
{
	count_reason(reason);
	return CTX_NEXT;
}

static __always_inline bool is_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP &&
	       (p->tcp & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline bool stale(const struct flow *f, __u32 now)
{
	return (__s32)(now - f->seen) > (__s32)idle_limit(f, ROOMY);
}

/* Whether the flow would be given another backend if it came now. */
static __always_inline bool rechosen(const struct packet *p,
				     const struct frontend *fe, struct draft *d,
				     const struct flow *f)
{
	return choose(p, fe, &d->choice) && d->choice.backend != f->backend;
}

/* Whether a datagram's flow must be made anew, and why. One that nobody answers
 * is not established: it goes where it would go now. */
static __always_inline __u32 outdated_udp(const struct packet *p,
					  const struct frontend *fe,
					  struct draft *d, const struct flow *f,
					  __u32 now)
{
	if (f->flags & FLOW_TAKEN || stale(f, now))
		return NOTE_REOPENED;
	if (cutoff_resteers(f))
		return NOTE_RESTEERED;
	if (!(f->flags & FLOW_ANSWERED) || now - f->heard > idle_udp_answered)
		return rechosen(p, fe, d, f) ? NOTE_RECHOSEN : 0;
	return 0;
}

/* The same for a SYN. */
static __always_inline __u32 outdated_tcp(const struct packet *p,
					  const struct frontend *fe,
					  struct draft *d, struct flow *f,
					  __u32 now)
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
	return rechosen(p, fe, d, f) ? NOTE_RECHOSEN : 0;
}

/* Whether a packet goes the way of its flow, and nothing about that is to be
 * judged: a segment of any connection, a datagram of one that is talking. */
static __always_inline bool settled(const struct packet *p,
				    const struct flow *f, __u32 now)
{
	if (f->flags & FLOW_TAKEN)
		return false;
	if (p->proto == IPPROTO_TCP)
		return !is_syn(p);
	return f->flags & FLOW_ANSWERED && now - f->seen <= idle_udp &&
	       now - f->heard <= idle_udp && !cutoff_near(f);
}

/*
 * A client's packet to a frontend that is not settled: it opens a flow, or is
 * refused. Returns STEER when it has one, whose slot is in the draft, else the
 * verdict. found: the slot of the flow that it has now, -1 or LOOK_AGAIN.
 */
__noinline int admit(ctx_t *ctx, const struct packet *p, __s64 found)
{
	__u32 now = now_ticks(), why = 0;
	struct slot *s = NULL;
	struct frontend *fe;
	struct draft *d;
	struct flow *f;
	bool syn, whole;

	if (!p)
		return CTX_NEXT;
	syn = is_syn(p);
	d = draft();
	if (!d)
		return CTX_NEXT;
	key_write(&d->key, &p->src, p->sport, &p->dst, p->dport, p->proto);
	fe = frontend_at(&p->dst, p->dport, p->proto, &whole);
	if (!fe)
		return OTHER;
	if (!whole)
		return AGAIN;
	if (p->options)
		return pass(PASS_IP_OPTIONS);
	if (found == LOOK_AGAIN)
		found = table_find(&d->key);
	if (found >= 0) {
		d->slot = found;
		s = slot_at(d->slot);
		if (!s)
			return CTX_DROP;
		f = &s->flow;
		d->judged = f->opened_ns;
		if (p->proto == IPPROTO_UDP)
			why = outdated_udp(p, fe, d, f, now);
		else if (syn)
			why = outdated_tcp(p, fe, d, f, now);
		if (!why)
			return f->flags & FLOW_TAKEN ?
				       refuse(fe, DROP_NO_FLOW) :
				       STEER;
		count_reason(why);
	} else if (p->proto == IPPROTO_TCP && !syn) {
		return refuse(fe, DROP_NO_FLOW);
	}
	if (fe->flags & FRONTEND_RETIRED)
		return pass(PASS_RETIRED);
	why = flow_open(ctx, p, fe, d, s);
	if (why)
		return why == DROP_BUSY ? AGAIN : refuse(fe, why);
	return STEER;
}
