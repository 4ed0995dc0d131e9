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
 */
#pragma once

#include "select.h"
#include "track.h"

#define PORT_TRIES 64

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

static __always_inline struct flow_key key_of(const struct addr *client,
					      __u32 id, __be16 port, __u8 proto)
{
	struct flow_key key = {
		.client = *client, .id = id, .port = port, .proto = proto
	};
	return key;
}

static __always_inline struct flow_key alias_of(const struct flow_key *key,
						__u32 endpoint,
						const struct flow *f)
{
	struct flow_key alias = *key;

	if (f->flags & FLOW_SNAT)
		__builtin_memset(&alias.client, 0, sizeof(alias.client));
	alias.id = endpoint;
	alias.port = f->port;
	return alias;
}

/* Whoever sets FLOW_TAKEN may dispose of the flow's alias. */
static __always_inline void alias_delete(const struct flow_key *key,
					 struct flow *f)
{
	struct backend *b;
	struct flow_key alias;

	if (!(f->flags & FLOW_ALIAS) || !flow_set(f, FLOW_TAKEN))
		return;
	b = bpf_map_lookup_elem(&backends, &f->backend);
	if (!b)
		return;
	alias = alias_of(key, b->endpoint, f);
	bpf_map_delete_elem(&aliases, &alias);
}

/* The flow behind an alias. */
static __always_inline void find_alias(struct found *out,
				       const struct flow_key *alias)
{
	struct flow_key *key = bpf_map_lookup_elem(&aliases, alias);

	out->flow = NULL;
	if (!key)
		return;
	out->key = *key;
	out->flow = bpf_map_lookup_elem(&flows, &out->key);
}

/* The flow of which the wire between host and backend shows the rewritten
 * source (::, port). */
static __always_inline void find_rewritten(struct found *out,
					   const struct endpoint *ep,
					   __be16 port, __u8 proto)
{
	struct addr any = {};
	struct flow_key alias = key_of(&any, ep->id, port, proto);

	find_alias(out, &alias);
	if (out->flow && out->flow->port != port)
		out->flow = NULL;
}

/* The flow that an endpoint's packet to (client, port) answers. */
static __always_inline void find_reply(struct found *out,
				       const struct endpoint *ep,
				       const struct addr *client, __be16 port,
				       __u8 proto)
{
	struct flow_key alias;

	if (port_ours(port)) {
		find_rewritten(out, ep, port, proto);
		if (out->flow && addr_same(&out->key.client, client))
			return;
	}
	if (ep->frontend) {
		struct backend *b;

		out->key = key_of(client, ep->frontend, port, proto);
		out->flow = bpf_map_lookup_elem(&flows, &out->key);
		if (out->flow && out->flow->port == port) {
			b = bpf_map_lookup_elem(&backends, &out->flow->backend);
			if (b && b->endpoint == ep->id)
				return;
		}
	}
	alias = key_of(client, ep->id, port, proto);
	find_alias(out, &alias);
	if (out->flow && out->flow->port != port)
		out->flow = NULL;
}

/* Whether a source port of the range already means another flow of this client
 * inside the host. */
static __always_inline bool port_taken_inside(const struct flow_key *key,
					      const struct backend *to,
					      __be16 port)
{
	struct flow_key other =
		key_of(&key->client, to->endpoint, port, key->proto);

	return bpf_map_lookup_elem(&aliases, &other) != NULL;
}

/*
 * Take over the alias of a connection that is over. Its port is still held for
 * late packets, but a new connection matters more: at worst the backend is in
 * TIME_WAIT and answers with an ACK, the client resets that, and its next SYN
 * gets through.
 */
static __always_inline bool port_take_over(const struct flow_key *alias,
					   const struct flow_key *key)
{
	struct found old;

	find_alias(&old, alias);
	if (!old.flow)
		return false;
	if (!(old.flow->flags & FLOW_CLOSED) &&
	    (key->proto != IPPROTO_UDP ||
	     now_ticks() - old.flow->seen < idle_pressed))
		return false;
	return flow_set(old.flow, FLOW_TAKEN) &&
	       !bpf_map_update_elem(&aliases, alias, key, BPF_EXIST);
}

/* Lock a port of the range for a flow whose source is rewritten, or whose own
 * tuple is taken; the client's own port first. */
static __always_inline bool port_lock(const struct flow_key *key,
				      const struct backend *to, bool snat,
				      __be16 *port)
{
	__u32 range = (__u32)port_max - port_min + 1;
	__u32 start = bpf_get_prandom_u32() % range;
	struct flow_key alias =
		key_of(&key->client, to->endpoint, key->port, key->proto);

	if (snat)
		__builtin_memset(&alias.client, 0, sizeof(alias.client));
	for (__u32 i = 0; i < 2 * PORT_TRIES; i++) {
		if (i || !port_ours(key->port))
			alias.port = bpf_htons(
				port_min + (start + i % PORT_TRIES) % range);
		if (snat && port_taken_inside(key, to, alias.port))
			continue;
		if (i < PORT_TRIES ? !bpf_map_update_elem(&aliases, &alias, key,
							  BPF_NOEXIST) :
				     port_take_over(&alias, key)) {
			*port = alias.port;
			return true;
		}
	}
	return false;
}

/*
 * Decide how the backend sees the flow, and lock that tuple. Fills port and
 * flags of *f; false when no port is free.
 */
static __always_inline bool tuple_lock(const struct flow_key *key,
				       const struct frontend *fe,
				       const struct backend *to, __u32 ifindex,
				       struct flow *f)
{
	struct flow_key alias;
	struct found other;
	bool snat;

	/* The host's own sockets answer the client directly. */
	snat = !(to->flags & BACKEND_HOST) &&
	       !(fe->flags & FRONTEND_SNAT_NEVER) &&
	       (to->source.w[0] | to->source.w[2]) &&
	       (fe->flags & FRONTEND_SNAT_ALWAYS ||
		to->flags & BACKEND_REMOTE || to->ifindex == ifindex);
	f->port = key->port;
	if (snat) {
		f->flags |= FLOW_SNAT | FLOW_ALIAS;
		return port_lock(key, to, true, &f->port);
	}
	if (!(to->flags & BACKEND_SHARED))
		return true;
	f->flags |= FLOW_ALIAS;
	alias = key_of(&key->client, to->endpoint, key->port, key->proto);
	/* A rewritten flow of the same client may look the same inside. */
	find_rewritten(&other, &(struct endpoint){ .id = to->endpoint },
		       key->port, key->proto);
	if (!(other.flow && addr_same(&other.key.client, &key->client)) &&
	    !bpf_map_update_elem(&aliases, &alias, key, BPF_NOEXIST))
		return true;
	count_reason(NOTE_PORT_MOVED);
	return port_lock(key, to, false, &f->port);
}

/* A flow record is done with: its backend has one less. */
static __always_inline void flow_forget(const struct flow_key *key,
					struct flow *f)
{
	struct tally *t = tally_of(f->backend);

	if (t)
		t->forgotten++;
	alias_delete(key, f);
}

static __always_inline bool embryonic_full(void)
{
	struct clockwork *c = clockwork();

	return !c || c->embryonic > capacity() / 2;
}

/*
 * Make the flow of a packet, in the record `old` where a closed one or one to
 * be chosen again is there. Returns NULL and a drop reason in *why.
 */
static __always_inline struct flow *flow_open(ctx_t *ctx,
					      const struct packet *p,
					      const struct frontend *fe,
					      const struct flow_key *key,
					      struct flow *old, __u32 *why)
{
	struct flow f = { .opened_ns = bpf_ktime_get_ns() };
	struct choice c = {};
	struct tally *t;

	/* The barrier keeps the time before the read of the weight word. */
	barrier();
	*why = DROP_NO_BACKEND;
	if (!choose(p, fe, &c))
		return NULL;
	*why = DROP_EMBRYONIC;
	if (!old && embryonic_full())
		return NULL;
	*why = DROP_PORTS;
	if (old)
		alias_delete(key, old);
	if (!tuple_lock(key, fe, c.to, ctx_ifindex(ctx), &f))
		return NULL;
	f.backend = c.backend;
	f.version = c.version;
	f.epoch = c.epoch;
	f.word = fe->word;
	f.seen = now_ticks();
	f.client_next = p->seq + 1;
	if (old) {
		struct tally *was = tally_of(old->backend);

		if (was)
			flow_closed(old, was); /* if it was not yet */
		flow_forget(key, old);
		f.slot = old->slot;
		*old = f;
	} else {
		*why = DROP_TABLE_FULL;
		if (!slot_take(key, &f.slot) ||
		    bpf_map_update_elem(&flows, key, &f, BPF_NOEXIST)) {
			alias_delete(key, &f);
			/* Another CPU may have just made the same flow. */
			return bpf_map_lookup_elem(&flows, key);
		}
		old = bpf_map_lookup_elem(&flows, key);
	}
	embryonic_add(1);
	t = tally_of(f.backend);
	if (t) {
		t->opened++;
		t->selected_ns = f.opened_ns;
	}
	return old;
}
