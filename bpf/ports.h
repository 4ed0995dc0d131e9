/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ports.h: which source port a backend sees, and the lock on it. Part of
 * flow.h, which has the alias that is the lock, and includes this between
 * finding flows and making them.
 */
#pragma once

#define PORT_TRIES 64

/* Whether inside the host this client's port already means another flow. */
__noinline int port_taken(const struct flow_key *key, const struct endpoint *ep,
			  __be16 port)
{
	struct found other;

	if (!key || !ep)
		return true;
	find_reply(&other, ep, &key->client, port, key->proto);
	return other.flow &&
	       (other.key.id != key->id || other.key.port != key->port);
}

/*
 * Take over the alias of a connection that is over. Its port is still held for
 * late packets, but a new connection matters more: at worst the backend is in
 * TIME_WAIT and answers with an ACK, the client resets that, and its next SYN
 * gets through.
 */
__noinline int port_take_over(const struct flow_key *callers_alias,
			      const struct flow_key *callers_key)
{
	struct flow_key alias, key;
	struct found old;
	bool over;

	if (!callers_alias || !callers_key)
		return false;
	/* Linux 6.1 takes no key from a caller's memory. */
	alias = *callers_alias;
	key = *callers_key;
	find_alias(&old, &alias);
	if (!old.flow || !flow_claim(&old.key, old.flow))
		return false;
	over = old.flow->port == alias.port &&
	       !(old.flow->flags & FLOW_TAKEN) &&
	       (old.flow->flags & FLOW_CLOSED ||
		(key.proto == IPPROTO_UDP &&
		 now_ticks() - old.flow->seen >= idle_pressed)) &&
	       !bpf_map_update_elem(&aliases, &alias, &key, BPF_EXIST);
	if (over)
		flow_set(old.flow, FLOW_TAKEN);
	flow_release(old.flow);
	return over;
}

/* Lock a port of the range for a flow whose source is rewritten, or whose own
 * tuple is taken; the client's own port first. */
static __always_inline bool port_lock(const struct flow_key *key,
				      const struct endpoint *ep, bool snat,
				      __be16 *port)
{
	__u32 range = (__u32)port_max - port_min + 1;
	__u32 start = bpf_get_prandom_u32() % range;
	struct flow_key alias =
		key_of(&key->client, ep->id, key->port, key->proto);

	if (snat)
		__builtin_memset(&alias.client, 0, sizeof(alias.client));
	for (__u32 i = 0; i < 2 * PORT_TRIES; i++) {
		if (i || !port_ours(key->port))
			alias.port = bpf_htons(
				port_min + (start + i % PORT_TRIES) % range);
		if (i < PORT_TRIES ?
			    port_taken(key, ep, alias.port) ||
				    bpf_map_update_elem(&aliases, &alias, key,
							BPF_NOEXIST) :
			    !port_take_over(&alias, key))
			continue;
		*port = alias.port;
		return true;
	}
	return false;
}

/*
 * Decide how the backend sees the flow, and lock that tuple. Fills port and
 * flags of *f; false when no port is free.
 */
static __always_inline bool tuple_lock(const struct flow_key *key, __u32 flags,
				       const struct backend *to, __u32 ifindex,
				       struct flow *f)
{
	struct endpoint *ep;
	struct flow_key alias;
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
		return port_lock(key, ep, true, &f->port);
	}
	alias = key_of(&key->client, ep->id, key->port, key->proto);
	if (!port_taken(key, ep, key->port) &&
	    !bpf_map_update_elem(&aliases, &alias, key, BPF_NOEXIST))
		return true;
	count_reason(NOTE_PORT_MOVED);
	return port_lock(key, ep, false, &f->port);
}
