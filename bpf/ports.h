/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ports.h: which source port a backend sees, and the lock on it: the alias
 * (find.h).
 *
 * The client's own port is kept where it lies in the range and is free. Else
 * the range is probed from a random place in steps of a random prime above 2^16
 * (double hashing): since such a prime shares no factor with any range, a cycle
 * meets every port once, and unlike with a step of 1 the ports in use do not
 * gather into runs, so that at a share u in use it takes 1 / (1 - u) tries. The
 * first few are made in line; they are nearly always enough.
 *
 * Where no port is free, that of a connection which is over is taken over; it
 * was only held for late packets. Of two the one that matters less goes first
 * (enum port_hold), of equals the one that is silent for longer.
 */
#pragma once

#include "find.h"
#include "shortage.h"

#define PORT_FIRST   4	/* tries in line */
#define PORT_SAMPLE  32 /* tries at most while ports are short: shortage.h */
#define PORT_ENOUGH  8	/* of them, when one in TIME_WAIT can be had */
#define PORT_DENIALS 16 /* free ports in a search that are of no use here */

/* Why a port is held, by what it would cost to take it over. */
enum port_hold {
	PORT_IN_USE,	/* a connection: never */
	PORT_HANDSHAKE, /* one that has stopped in its midst: the client's next
			 * SYN is given another port */
	PORT_TIME_WAIT, /* closed by the server first: at worst it answers the
			 * SYN with an ACK, the client resets that, and its next
			 * SYN gets through */
	PORT_OVER,
};

static __always_inline enum port_hold port_hold(const struct flow *f, __u32 now)
{
	__u32 flags = f->flags;

	if (flags & FLOW_CLOSED)
		return flags & FLOW_SERVER_FIRST ? PORT_TIME_WAIT : PORT_OVER;
	if (!(flags & FLOW_UDP) && flags & FLOW_ESTABLISHED)
		return PORT_IN_USE;
	/* As little patience as when a quota is full. */
	if ((__s32)(now - f->seen) < (__s32)idle_limit(f, CROWDED))
		return PORT_IN_USE;
	return flags & FLOW_UDP ? PORT_OVER : PORT_HANDSHAKE;
}

static __always_inline bool port_means_another(const struct draft *d,
					       __s64 index)
{
	struct slot *s = index < 0 ? NULL : slot_at(index);

	return s && !key_same(&s->key, &d->key);
}

/* Whether inside the host the port of the draft's alias already means another
 * flow of its client: it is asked for all that find_reply would ask for. */
__noinline int port_taken(void)
{
	struct draft *d = draft();
	struct alias *a;
	struct slot *s;

	if (!d)
		return true;
	a = &d->alias;
	alias_write(&d->other_alias, &d->key.client, d->ep.id, a->port,
		    a->proto);
	if (port_means_another(d, alias_look(&d->other_alias)))
		return true;
	if (d->ep.frontend) {
		s = find_direct(&d->other, &d->ep, &d->key.client, a->port,
				a->proto);
		if (s && !key_same(&s->key, &d->key))
			return true;
	}
	if (!port_ours(a->port))
		return false;
	alias_write(&d->other_alias, NULL, d->ep.id, a->port, a->proto);
	return port_means_another(d, alias_look(&d->other_alias));
}

/* Whether a socket of the host itself talks to the draft's backend from the
 * port: what answers it would look like an answer to the flow. */
__noinline int port_has_socket(ctx_t *ctx)
{
	struct draft *d = draft();
	struct bpf_sock_tuple *back;
	struct backend *to;
	struct bpf_sock *sk;
	bool udp, has;
	__u32 size;

	if (!d)
		return false;
	back = &d->back;
	to = bpf_map_lookup_elem(&backends, &d->choice.backend);
	if (!to)
		return false;
	udp = d->key.proto == IPPROTO_UDP;
	if (addr_is4(&to->addr)) {
		back->ipv4.saddr = to->addr.w[3];
		back->ipv4.daddr = to->source.w[3];
		back->ipv4.sport = to->port;
		back->ipv4.dport = d->alias.port;
		size = sizeof(back->ipv4);
	} else {
		__builtin_memcpy(back->ipv6.saddr, &to->addr, sizeof(to->addr));
		__builtin_memcpy(back->ipv6.daddr, &to->source,
				 sizeof(to->source));
		back->ipv6.sport = to->port;
		back->ipv6.dport = d->alias.port;
		size = sizeof(back->ipv6);
	}
	sk = udp ? bpf_sk_lookup_udp(ctx, back, size, BPF_F_CURRENT_NETNS, 0) :
		   bpf_skc_lookup_tcp(ctx, back, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	/* A listener waits for other peers. */
	has = udp || sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return has;
}

static __always_inline bool port_snat(const struct draft *d)
{
	return d->flow.flags & FLOW_SNAT;
}

/* Lock the draft's alias if it is free. Whoever opens a socket at this moment
 * meets the lock, or it is given back for the socket. */
static __always_inline bool port_try(ctx_t *ctx, struct draft *d)
{
	if (port_taken() ||
	    bpf_map_update_elem(&aliases, &d->alias, &d->key, BPF_NOEXIST))
		return false;
	if (!port_snat(d) || !port_has_socket(ctx))
		return true;
	bpf_map_delete_elem(&aliases, &d->alias);
	return false;
}

/* Take the draft's alias over from a connection that is over. */
__noinline int port_take_over(void)
{
	struct draft *d = draft();
	struct slot *s;
	struct flow *f;
	__s64 index;
	bool over;

	if (!d)
		return false;
	index = alias_look(&d->alias);
	s = index < 0 ? NULL : slot_at(index);
	if (!s)
		return false;
	f = &s->flow;
	if (!flow_claim(s))
		return false;
	over = f->port == d->alias.port && !(f->flags & FLOW_TAKEN) &&
	       port_hold(f, now_ticks()) != PORT_IN_USE &&
	       !bpf_map_update_elem(&aliases, &d->alias, &d->key, BPF_EXIST);
	if (over) {
		flow_set(f, FLOW_TAKEN);
		count_reason(NOTE_PORT_OVER);
	}
	flow_release(f);
	return over;
}

/* Give a flow's port up to the host itself, if it can be spared. */
static __always_inline bool port_give_up(struct slot *s)
{
	bool over;

	if (!flow_claim(s))
		return false;
	over = port_hold(&s->flow, now_ticks()) != PORT_IN_USE;
	if (over)
		alias_delete(&s->key, &s->flow);
	flow_release(&s->flow);
	return over;
}

/* Look at the port of the draft's alias: whether it is free; else remember it
 * if it is the best one to take over so far. */
__noinline int port_look(void)
{
	struct draft *d = draft();
	struct search *search;
	struct flow_key *owner;
	enum port_hold hold;
	struct slot *s;
	__s64 index;
	__s32 idle;
	__u32 now;

	if (!d)
		return false;
	search = &d->search;
	owner = bpf_map_lookup_elem(&aliases, &d->alias);
	search->tries++;
	if (!owner)
		return true;
	index = table_find(owner);
	s = index < 0 ? NULL : slot_at(index);
	if (!s || s->flow.port != d->alias.port)
		return false; /* is being made, or goes at this moment */
	now = now_ticks();
	hold = port_hold(&s->flow, now);
	idle = now - s->flow.seen;
	if (hold < search->hold ||
	    (hold == search->hold && idle <= search->idle))
		return false;
	search->hold = hold;
	search->idle = idle;
	search->best = d->alias.port;
	return false;
}

static __always_inline __u32 port_range(void)
{
	return (__u32)port_max - port_min + 1;
}

/* The port of the next try. */
static __always_inline __be16 port_next(struct search *s)
{
	__u64 at = (__u64)s->at++ * s->step + s->start;

	return bpf_htons(port_min + at % port_range());
}

/* Ends the loop at a port that is free. */
static int port_visit(__u32 i, void *data)
{
	struct draft *d = draft();

	if (!d)
		return 1;
	d->alias.port = port_next(&d->search);
	if (!port_look())
		return 0;
	d->search.free = true;
	return 1;
}

/* The same of a sample, which also ends where looking on brings little. */
static int port_taste(__u32 i, void *data)
{
	struct draft *d = draft();

	if (!d || port_visit(i, data))
		return 1;
	return d->search.hold == PORT_OVER ||
	       (d->search.hold == PORT_TIME_WAIT && i + 1 >= PORT_ENOUGH);
}

/* Go on along the range for a sample of it, or all of it. */
static __always_inline bool port_scan(ctx_t *ctx, struct draft *d, bool sample)
{
	__u32 end = d->search.at + (sample ? PORT_SAMPLE : port_range());

	d->search.hold = PORT_IN_USE;
	d->search.idle = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < PORT_DENIALS; i++) {
		__u32 left = end - d->search.at;

		d->search.free = false;
		if (sample)
			bpf_loop(left, port_taste, NULL, 0);
		else
			bpf_loop(left, port_visit, NULL, 0);
		if (!d->search.free)
			return false;
		if (port_try(ctx, d))
			return true;
	}
	return false;
}

/* Take over the best port that was seen. */
static __always_inline bool port_take_best(ctx_t *ctx, struct draft *d)
{
	if (d->search.hold == PORT_IN_USE)
		return false;
	d->alias.port = d->search.best;
	return !(port_snat(d) && port_has_socket(ctx)) && port_take_over();
}

/* The ports that were given back, of an endpoint that is exhausted. */
static __always_inline bool port_find_back(ctx_t *ctx, struct draft *d,
					   struct shortage *memory)
{
	bool locked = false;

#pragma clang loop unroll(disable)
	for (int i = 0; i < PORT_BACKS && !locked; i++) {
		d->alias.port = shortage_back(memory);
		if (!port_ours(d->alias.port))
			break;
		d->search.hold = PORT_IN_USE;
		locked =
			port_look() ? port_try(ctx, d) : port_take_best(ctx, d);
	}
	return locked;
}

/* A free port of a sample, or the best one to take over. */
static __always_inline bool port_sample(ctx_t *ctx, struct draft *d)
{
	return port_scan(ctx, d, true) || port_take_best(ctx, d);
}

/* The tries in line. */
static __always_inline bool port_first(ctx_t *ctx, struct draft *d)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < PORT_FIRST; i++) {
		d->alias.port = port_next(&d->search);
		d->search.tries++;
		if (port_try(ctx, d))
			return true;
	}
	return false;
}

/* The client's own port, then the tries in line, or a sample where those are
 * known to be in vain; then the whole range. */
static __always_inline bool port_probe(ctx_t *ctx, struct draft *d,
				       struct shortage *memory)
{
	bool lasts = shortage_lasts(memory);

	if (port_ours(d->key.port) && port_try(ctx, d))
		return true;
	if (lasts ? port_sample(ctx, d) : port_first(ctx, d))
		return true;
	/* Without source NAT it is one client that is short of ports. */
	if (lasts && !port_snat(d))
		return false;
	if (port_scan(ctx, d, false))
		return true;
	shortage_begin(memory, d->search.hold == PORT_IN_USE && port_snat(d));
	/* Another CPU may be quicker; it does not take all of a sample. */
	return port_take_best(ctx, d) ||
	       (d->search.hold != PORT_IN_USE && port_sample(ctx, d));
}

static __always_inline void port_count(__u32 made, bool locked)
{
	__u32 zero = 0, bucket = 0;
	struct port_tries *t = bpf_map_lookup_elem(&tries, &zero);

	if (!t)
		return;
	t->sum += made;
	if (!locked) {
		t->exhausted++;
		return;
	}
#pragma clang loop unroll(disable)
	for (; made && bucket < PORT_TRIES_BUCKETS - 1; made >>= 1)
		bucket++;
	if (bucket < PORT_TRIES_BUCKETS) /* for the verifier */
		t->found[bucket]++;
}

/* Lock a port of the range for the draft's flow, whose source is rewritten, or
 * whose own tuple is taken. */
__noinline int port_lock(ctx_t *ctx)
{
	/* Any primes above 2^16 would do. */
	static const volatile __u32 primes[8] = {
		65537, 68447, 71917, 75011, 78193, 81373, 84551, 87721,
	};
	__u32 random = bpf_get_prandom_u32();
	struct draft *d = draft();
	struct shortage *memory;
	bool locked;

	if (!d)
		return false;
	memory = shortage_of(d->ep.id, d->key.proto == IPPROTO_UDP);
	if (!memory)
		return false;
	alias_write(&d->alias, port_snat(d) ? NULL : &d->key.client, d->ep.id,
		    d->key.port, d->key.proto);
	__builtin_memset(&d->search, 0, sizeof(d->search));
	d->search.start = random % port_range();
	d->search.step = primes[random >> 29] % port_range();
	if (port_snat(d) && memory->exhausted && shortage_lasts(memory))
		locked = port_find_back(ctx, d, memory);
	else
		locked = port_probe(ctx, d, memory);
	port_count(d->search.tries, locked);
	d->flow.port = d->alias.port;
	return locked;
}

/*
 * Decide how the backend sees the draft's flow, and lock that tuple. Fills port
 * and flags; false when no port is free.
 */
static __always_inline bool tuple_lock(ctx_t *ctx, struct draft *d, __u32 flags,
				       const struct backend *to)
{
	struct flow_key *key = &d->key;
	struct flow *f = &d->flow;
	struct endpoint *ep;
	bool snat;

	/* The host's own sockets answer the client directly. */
	snat = !(to->flags & BACKEND_HOST) && !(flags & FRONTEND_SNAT_NEVER) &&
	       (to->source.w[0] | to->source.w[2]) &&
	       (flags & FRONTEND_SNAT_ALWAYS || to->flags & BACKEND_REMOTE ||
		to->ifindex == ctx_ifindex(ctx));
	f->port = key->port;
	if (!snat && !(to->flags & BACKEND_SHARED))
		return true;
	ep = endpoint_at(&to->addr, to->port, key->proto);
	if (!ep)
		return false;
	d->ep = *ep;
	f->flags |= FLOW_ALIAS;
	if (snat) {
		f->flags |= FLOW_SNAT;
		return port_lock(ctx);
	}
	alias_write(&d->alias, &key->client, ep->id, key->port, key->proto);
	if (!port_taken() &&
	    !bpf_map_update_elem(&aliases, &d->alias, key, BPF_NOEXIST))
		return true;
	count_reason(NOTE_PORT_MOVED);
	return port_lock(ctx);
}
