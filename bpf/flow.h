/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * flow.h: find and make flows.
 *
 * A flow's key is what the client sees: (client, port, frontend). What the
 * backend sees leads back to it in one of two ways: through the endpoint's
 * only frontend, or through an alias. An alias mirrors the tuple on the
 * backend's side of the wire, so inserting it with BPF_NOEXIST is the lock on
 * that tuple:
 *
 *   (client, port)  source kept, but several frontends lead to the endpoint
 *   (::, port)      source rewritten; the port is ours, from the range
 *
 * Between our two hooks a rewritten flow already has its new port but still the
 * client's address (the stack would take the host's own for a martian), so a
 * port of the range must also be free for that client there.
 *
 *   where                  the packet says          found by
 *   ingress, from client   client:port → frontend   flows
 *   ingress, from backend  backend → host:port      aliases (::, port)
 *   egress, to backend     client:port → backend    aliases (::, port)
 *   egress, to client      backend → client:port    find_reply: either way
 *
 * A record is replaced (a SYN on a closed flow) or removed (age.h) only by who
 * has set FLOW_CLAIMED on it.
 */
#pragma once

#include "gate.h"
#include "redirect.h"
#include "select.h"
#include "track.h"

/* Source ports that are ours to give, host order; the loader checks that the
 * host's own range does not overlap. */
const volatile __u16 port_min = 61000;
const volatile __u16 port_max = 65535;

static __always_inline bool port_ours(__be16 port)
{
	__u16 p = bpf_ntohs(port);

	return p >= port_min && p <= port_max;
}

/* Written in place: a copy would cost room on the stack. */
static __always_inline void key_write(struct flow_key *key,
				      const struct addr *client, __be16 port,
				      const struct addr *vip, __be16 vport,
				      __u8 proto)
{
	key->client = *client;
	key->vip = *vip;
	key->port = port;
	key->vport = vport;
	*(__u32 *)&key->proto = proto; /* and the padding */
}

/* client NULL: the source is rewritten. */
static __always_inline void alias_write(struct alias *alias,
					const struct addr *client,
					__u32 endpoint, __be16 port, __u8 proto)
{
	if (client)
		alias->client = *client;
	else
		__builtin_memset(&alias->client, 0, sizeof(alias->client));
	alias->endpoint = endpoint;
	alias->port = port;
	alias->proto = proto;
	alias->pad = 0;
}

/* Give a claimed record back. The result is used, or it would be no barrier. */
static __always_inline void flow_release(struct flow *f)
{
	__u32 old = __sync_fetch_and_and(&f->flags, ~FLOW_CLAIMED);

	asm volatile("" ::"r"(old));
}

static __always_inline struct draft *draft(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&drafts, &zero);
}

/* Become the only one who may replace or remove the flow of a slot. What was
 * removed meanwhile is another's by now, or nobody's: the caller looks at its
 * key again. */
static __always_inline bool flow_claim(struct slot *s)
{
	if (!flow_set(&s->flow, FLOW_CLAIMED))
		return false;
	if (s->use == SLOT_LISTED)
		return true;
	flow_release(&s->flow);
	return false;
}

static __always_inline void alias_delete(const struct flow_key *key,
					 struct flow *f)
{
	struct backend *b;
	struct alias alias;

	if (!(f->flags & FLOW_ALIAS) || !flow_set(f, FLOW_TAKEN))
		return;
	b = bpf_map_lookup_elem(&backends, &f->backend);
	if (!b)
		return;
	alias_write(&alias, f->flags & FLOW_SNAT ? NULL : &key->client,
		    b->endpoint, f->port, key->proto);
	bpf_map_delete_elem(&aliases, &alias);
	if (f->flags & FLOW_SNAT)
		shortage_ease(b->endpoint, f->flags & FLOW_UDP, f->port);
}

/* The slot of the flow behind an alias, if the backend sees it with the alias's
 * port, or -1. */
static __always_inline __s64 alias_look(const struct alias *alias)
{
	struct flow_key *key = bpf_map_lookup_elem(&aliases, alias);
	__s64 index = key ? table_find(key) : -1;
	struct slot *s = index < 0 ? NULL : slot_at(index);

	return s && s->flow.port == alias->port ? index : -1;
}

/* The same as a function of its own. */
__noinline __s64 alias_find(const struct alias *callers)
{
	struct alias alias;

	if (!callers)
		return -1;
	alias = *callers; /* Linux 6.1 takes no key from a caller's memory */
	return alias_look(&alias);
}

static __always_inline struct slot *find_alias(const struct alias *alias)
{
	__s64 index = alias_find(alias);

	return index < 0 ? NULL : slot_at(index);
}

/* The flow of which the wire between host and backend shows the rewritten
 * source (::, port). */
static __always_inline struct slot *find_rewritten(const struct endpoint *ep,
						   __be16 port, __u8 proto)
{
	struct alias alias;

	alias_write(&alias, NULL, ep->id, port, proto);
	return find_alias(&alias);
}

/* The flow of which the only frontend that leads to the endpoint is a part.
 * *key is room to work in. */
static __always_inline struct slot *find_direct(struct flow_key *key,
						const struct endpoint *ep,
						const struct addr *client,
						__be16 port, __u8 proto)
{
	__u32 id = ep->frontend, backend;
	struct tuple *vip = bpf_map_lookup_elem(&vips, &id);
	struct backend *b;
	struct slot *s;
	__s64 index;

	if (!vip)
		return NULL;
	key_write(key, client, port, &vip->addr, vip->port, proto);
	index = table_find(key);
	if (index < 0)
		return NULL;
	s = slot_at(index);
	if (!s || s->flow.port != port)
		return NULL;
	backend = s->flow.backend;
	b = bpf_map_lookup_elem(&backends, &backend);
	return b && b->endpoint == ep->id ? s : NULL;
}

/* The flow that an endpoint's packet to (client, port) answers, or to the host,
 * which hid the client from it. */
static __always_inline struct slot *find_reply(struct flow_key *key,
					       const struct endpoint *ep,
					       const struct addr *client,
					       __be16 port, __u8 proto)
{
	struct alias alias;
	struct slot *s;

	if (port_ours(port)) {
		s = find_rewritten(ep, port, proto);
		if (s && (addr_same(&s->key.client, client) ||
			  addr_same(&ep->source, client)))
			return s;
	}
	if (ep->frontend) {
		s = find_direct(key, ep, client, port, proto);
		if (s)
			return s;
	}
	alias_write(&alias, client, ep->id, port, proto);
	return find_alias(&alias);
}

#include "ports.h"

/* A flow record is done with: its backend has one less. */
static __always_inline void flow_forget(const struct flow_key *key,
					struct flow *f)
{
	struct tally *t = tally_of(f->backend);

	if (t)
		t->forgotten++;
	alias_delete(key, f);
}

/* Put *f in the place of *old, which is claimed. */
static __always_inline void flow_replace(const struct flow_key *key,
					 struct flow *old, struct flow *f)
{
	struct tally *t = tally_of(old->backend);

	if (t)
		flow_closed(old, t); /* if it was not yet */
	flow_forget(key, old);
	f->flags |= FLOW_CLAIMED;
	*old = *f;
	flow_release(old);
}

/* Make a record of the draft's flow. The caller of an equal packet on another
 * CPU may have been quicker. */
static __always_inline enum put flow_create(struct draft *d)
{
	struct slot *s = slot_take(&d->slot);
	enum put put = PUT_FULL;

	if (s) {
		s->key = d->key;
		s->flow = d->flow;
		/* What is not listed in the end is the hand's to free. */
		s->check = d->flow.seen + slot_grace;
		s->use = SLOT_TAKEN;
		put = table_put(s, d->slot);
	}
	if (put != PUT_DONE)
		alias_delete(&d->key, &d->flow);
	return put;
}

/*
 * Make the draft's flow for a packet, in the place of `old` where a closed one
 * or one to be chosen again is there; `judged` is its opened_ns at that
 * judgement. Returns 0, or the reason why there is none.
 */
static __always_inline __u32 flow_open(ctx_t *ctx, const struct packet *p,
				       const struct frontend *fe,
				       struct draft *d, struct slot *old,
				       __u64 judged)
{
	bool udp = p->proto == IPPROTO_UDP;
	struct flow_key *key = &d->key;
	struct choice *c = &d->choice;
	struct flow *f = &d->flow;
	struct backend *to;
	struct tally *t;
	__u32 flags;

	__builtin_memset(f, 0, sizeof(*f));
	f->opened_ns = bpf_ktime_get_ns();
	/* The barrier keeps the time before the read of the weight word. */
	barrier();
	if (!choose(p, fe, c))
		return DROP_NO_BACKEND;
	to = bpf_map_lookup_elem(&backends, &c->backend);
	if (!to)
		return DROP_NO_BACKEND;
	flags = fe->flags;
	f->word = fe->word;
	if (old && !flow_claim(old))
		return DROP_BUSY;
	if (old && !key_same(&old->key, key)) {
		flow_release(&old->flow); /* another's by now */
		return DROP_BUSY;
	}
	if (old && old->flow.opened_ns != judged) {
		flow_release(&old->flow); /* another CPU has just replaced it */
		return 0;
	}
	if (!old && quota_full(udp))
		return DROP_QUOTA;
	if (old)
		alias_delete(key, &old->flow);
	if (!tuple_lock(ctx, d, flags, to)) {
		if (old)
			flow_release(&old->flow);
		return DROP_PORTS;
	}
	f->flags |= udp ? FLOW_UDP : 0;
	if (redirect_chosen(ctx, p, to, c->backend, &f->hop))
		f->flags |= FLOW_REDIRECT;
	f->backend = c->backend;
	f->version = c->version;
	f->epoch = c->epoch;
	f->seen = now_ticks();
	f->client_next = p->seq + 1;
	if (old) {
		flow_replace(key, &old->flow, f);
	} else {
		enum put put = flow_create(d);

		if (put != PUT_DONE)
			return put == PUT_EXISTS ? DROP_BUSY : DROP_TABLE_FULL;
	}
	unproven_add(udp, 1);
	t = tally_of(c->backend);
	if (t) {
		t->opened++;
		t->selected_ns = f->opened_ns;
	}
	return 0;
}
