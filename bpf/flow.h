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

struct found {
	struct flow_key key;
	struct flow *flow; /* NULL: none */
};

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

static __always_inline bool key_same(const struct flow_key *a,
				     const struct flow_key *b)
{
	return a->port == b->port && a->vport == b->vport &&
	       a->proto == b->proto && addr_same(&a->client, &b->client) &&
	       addr_same(&a->vip, &b->vip);
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

/* The frontend that the packet of a draft talks to. */
static __always_inline struct frontend *frontend_of(struct draft *d)
{
	d->at.addr = d->key.vip;
	d->at.port = d->key.vport;
	d->at.proto = d->key.proto;
	d->at.pad = 0;
	return bpf_map_lookup_elem(&frontends, &d->at);
}

/* Become the only one who may replace or remove a record. */
static __always_inline bool flow_claim(const struct flow_key *key,
				       struct flow *f)
{
	if (!flow_set(f, FLOW_CLAIMED))
		return false;
	if (bpf_map_lookup_elem(&flows, key) == f)
		return true;
	flow_release(f); /* removed meanwhile, and another's now */
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
}

/* The flow behind an alias, if the backend sees it with the alias's port. */
static __always_inline void find_alias(struct found *out,
				       const struct alias *alias)
{
	struct flow_key *key = bpf_map_lookup_elem(&aliases, alias);

	out->flow = NULL;
	if (!key)
		return;
	out->key = *key;
	out->flow = bpf_map_lookup_elem(&flows, &out->key);
	if (out->flow && out->flow->port != alias->port)
		out->flow = NULL;
}

/* The flow of which the wire between host and backend shows the rewritten
 * source (::, port). */
static __always_inline void find_rewritten(struct found *out,
					   const struct endpoint *ep,
					   __be16 port, __u8 proto)
{
	struct alias alias;

	alias_write(&alias, NULL, ep->id, port, proto);
	find_alias(out, &alias);
}

/* The flow of which the only frontend that leads to the endpoint is a part. */
static __always_inline void find_direct(struct found *out,
					const struct endpoint *ep,
					const struct addr *client, __be16 port,
					__u8 proto)
{
	__u32 id = ep->frontend;
	struct tuple *vip = bpf_map_lookup_elem(&vips, &id);
	struct backend *b;

	out->flow = NULL;
	if (!vip)
		return;
	key_write(&out->key, client, port, &vip->addr, vip->port, proto);
	out->flow = bpf_map_lookup_elem(&flows, &out->key);
	if (!out->flow)
		return;
	b = bpf_map_lookup_elem(&backends, &out->flow->backend);
	if (out->flow->port != port || !b || b->endpoint != ep->id)
		out->flow = NULL;
}

/* The flow that an endpoint's packet to (client, port) answers, or to the host,
 * which hid the client from it. */
static __always_inline void find_reply(struct found *out,
				       const struct endpoint *ep,
				       const struct addr *client, __be16 port,
				       __u8 proto)
{
	struct alias alias;

	if (port_ours(port)) {
		find_rewritten(out, ep, port, proto);
		if (out->flow && (addr_same(&out->key.client, client) ||
				  addr_same(&ep->source, client)))
			return;
	}
	if (ep->frontend) {
		find_direct(out, ep, client, port, proto);
		if (out->flow)
			return;
	}
	alias_write(&alias, client, ep->id, port, proto);
	find_alias(out, &alias);
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
static __always_inline struct flow *flow_replace(const struct flow_key *key,
						 struct flow *old,
						 struct flow *f)
{
	struct tally *t = tally_of(old->backend);

	if (t)
		flow_closed(old, t); /* if it was not yet */
	flow_forget(key, old);
	f->slot = old->slot;
	f->flags |= FLOW_CLAIMED;
	*old = *f;
	flow_release(old);
	return old;
}

/* Make a record for *f. The caller of an equal packet on another CPU may have
 * been quicker: then there is one, and it is not ours to count. */
static __always_inline struct flow *flow_create(const struct flow_key *key,
						struct flow *f, bool *ours)
{
	*ours = slot_take(key, &f->slot) &&
		!bpf_map_update_elem(&flows, key, f, BPF_NOEXIST);
	if (!*ours)
		alias_delete(key, f);
	return bpf_map_lookup_elem(&flows, key);
}

/*
 * Make the flow of a packet, of which d has the key, in the place of `old`
 * where a closed one or one to be chosen again is there; `judged` is its
 * opened_ns at that judgement. Returns NULL and the reason in *why.
 */
static __always_inline struct flow *flow_open(ctx_t *ctx,
					      const struct packet *p,
					      const struct frontend *fe,
					      struct draft *d, struct flow *old,
					      __u64 judged, __u32 *why)
{
	bool udp = p->proto == IPPROTO_UDP, ours = true;
	struct flow_key *key = &d->key;
	struct flow *f = &d->flow, *made;
	struct choice *c = &d->choice;
	struct backend *to;
	struct tally *t;
	__u32 flags;

	__builtin_memset(f, 0, sizeof(*f));
	f->opened_ns = bpf_ktime_get_ns();
	/* The barrier keeps the time before the read of the weight word. */
	barrier();
	*why = DROP_NO_BACKEND;
	if (!choose(p, fe, c))
		return NULL;
	to = bpf_map_lookup_elem(&backends, &c->backend);
	if (!to)
		return NULL;
	flags = fe->flags;
	f->word = fe->word;
	/* A hash map gives a replaced element's memory to the next update, so
	 * fe may have become another frontend while it was read. */
	*why = DROP_BUSY;
	if (frontend_of(d) != fe)
		return NULL;
	if (old && !flow_claim(key, old))
		return NULL;
	if (old && old->opened_ns != judged) {
		flow_release(old); /* another CPU has just replaced it */
		return old;
	}
	*why = DROP_QUOTA;
	if (!old && quota_full(udp))
		return NULL;
	*why = DROP_PORTS;
	if (old)
		alias_delete(key, old);
	if (!tuple_lock(d, flags, to, ctx_ifindex(ctx))) {
		if (old)
			flow_release(old);
		return NULL;
	}
	f->flags |= udp ? FLOW_UDP : 0;
	if (redirect_chosen(ctx, p, to, c->backend, &f->hop))
		f->flags |= FLOW_REDIRECT;
	f->backend = c->backend;
	f->version = c->version;
	f->epoch = c->epoch;
	f->seen = now_ticks();
	f->client_next = p->seq + 1;
	*why = DROP_TABLE_FULL;
	made = old ? flow_replace(key, old, f) : flow_create(key, f, &ours);
	if (!made || !ours)
		return made;
	unproven_add(udp, 1);
	t = tally_of(c->backend);
	if (t) {
		t->opened++;
		t->selected_ns = f->opened_ns;
	}
	return made;
}
