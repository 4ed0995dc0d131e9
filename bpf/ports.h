/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ports.h: which source port a backend sees, and the lock on it. Part of
 * flow.h, which has the alias that is the lock, and includes this between
 * finding flows and making them.
 */
#pragma once

#define PORT_TRIES 64

/* Whether inside the host this port of the draft's client already means another
 * flow. */
__noinline int port_taken(const struct endpoint *ep, __be16 port)
{
	struct draft *d = draft();
	struct found other;

	if (!d || !ep)
		return true;
	find_reply(&other, ep, &d->key.client, port, d->key.proto);
	return other.flow && !key_same(&other.key, &d->key);
}

/*
 * Take over the draft's alias from a connection that is over. Its port is still
 * held for late packets, but a new connection matters more: at worst the
 * backend is in TIME_WAIT and answers with an ACK, the client resets that, and
 * its next SYN gets through.
 */
__noinline int port_take_over(void)
{
	struct draft *d = draft();
	struct found old;
	bool over;

	if (!d)
		return false;
	find_alias(&old, &d->alias);
	if (!old.flow || !flow_claim(&old.key, old.flow))
		return false;
	over = old.flow->port == d->alias.port &&
	       !(old.flow->flags & FLOW_TAKEN) &&
	       (old.flow->flags & FLOW_CLOSED ||
		(d->alias.proto == IPPROTO_UDP &&
		 now_ticks() - old.flow->seen >= idle_pressed)) &&
	       !bpf_map_update_elem(&aliases, &d->alias, &d->key, BPF_EXIST);
	if (over)
		flow_set(old.flow, FLOW_TAKEN);
	flow_release(old.flow);
	return over;
}

/* Lock a port of the range for a flow whose source is rewritten, or whose own
 * tuple is taken; the client's own port first. */
static __always_inline bool port_lock(struct draft *d,
				      const struct endpoint *ep, bool snat)
{
	struct flow_key *key = &d->key;
	struct alias *alias = &d->alias;
	__u32 range = (__u32)port_max - port_min + 1;
	__u32 start = bpf_get_prandom_u32() % range;

	alias_write(alias, snat ? NULL : &key->client, ep->id, key->port,
		    key->proto);
	for (__u32 i = 0; i < 2 * PORT_TRIES; i++) {
		if (i || !port_ours(key->port))
			alias->port = bpf_htons(
				port_min + (start + i % PORT_TRIES) % range);
		if (i < PORT_TRIES ?
			    port_taken(ep, alias->port) ||
				    bpf_map_update_elem(&aliases, alias, key,
							BPF_NOEXIST) :
			    !port_take_over())
			continue;
		d->flow.port = alias->port;
		return true;
	}
	return false;
}

/*
 * Decide how the backend sees the draft's flow, and lock that tuple. Fills port
 * and flags; false when no port is free.
 */
static __always_inline bool tuple_lock(struct draft *d, __u32 flags,
				       const struct backend *to, __u32 ifindex)
{
	struct flow_key *key = &d->key;
	struct flow *f = &d->flow;
	struct endpoint *ep;
	bool snat;

	/* The host's own sockets answer the client directly. */
	snat = !(to->flags & BACKEND_HOST) && !(flags & FRONTEND_SNAT_NEVER) &&
	       (to->source.w[0] | to->source.w[2]) &&
	       (flags & FRONTEND_SNAT_ALWAYS || to->flags & BACKEND_REMOTE ||
		to->ifindex == ifindex);
	f->port = key->port;
	if (!snat && !(to->flags & BACKEND_SHARED))
		return true;
	ep = endpoint_at(&to->addr, to->port, key->proto);
	if (!ep)
		return false;
	f->flags |= FLOW_ALIAS;
	if (snat) {
		f->flags |= FLOW_SNAT;
		return port_lock(d, ep, true);
	}
	alias_write(&d->alias, &key->client, ep->id, key->port, key->proto);
	if (!port_taken(ep, key->port) &&
	    !bpf_map_update_elem(&aliases, &d->alias, key, BPF_NOEXIST))
		return true;
	count_reason(NOTE_PORT_MOVED);
	return port_lock(d, ep, false);
}
