/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * find.h: the keys of flows, and how each kind of packet finds its flow.
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
 */
#pragma once

#include "gate.h"
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
