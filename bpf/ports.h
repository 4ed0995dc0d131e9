/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ports.h: which source port a backend sees, and the lock on it. Part of
 * flow.h, which has the alias that is the lock, and includes this between
 * finding flows and making them.
 */
#pragma once

#define PORT_TRIES 64

static __always_inline bool port_means_another(const struct draft *d,
					       __s64 index)
{
	struct slot *s = index < 0 ? NULL : slot_at(index);

	return s && !key_same(&s->key, &d->key);
}

/* Whether inside the host the port of the draft's alias already means another
 * flow of its client: it is asked for all that find_reply would ask for. */
__noinline int port_taken(const struct endpoint *ep)
{
	struct draft *d = draft();
	struct alias *a;
	struct slot *s;

	if (!d || !ep)
		return true;
	a = &d->alias;
	alias_write(&d->other_alias, &d->key.client, ep->id, a->port, a->proto);
	if (port_means_another(d, alias_look(&d->other_alias)))
		return true;
	if (ep->frontend) {
		s = find_direct(&d->other, ep, &d->key.client, a->port,
				a->proto);
		if (s && !key_same(&s->key, &d->key))
			return true;
	}
	if (!port_ours(a->port))
		return false;
	alias_write(&d->other_alias, NULL, ep->id, a->port, a->proto);
	return port_means_another(d, alias_look(&d->other_alias));
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
	struct slot *s;
	struct flow *f;
	bool over;

	if (!d)
		return false;
	s = find_alias(&d->alias);
	if (!s)
		return false;
	f = &s->flow;
	if (!flow_claim(s))
		return false;
	over = f->port == d->alias.port && !(f->flags & FLOW_TAKEN) &&
	       (f->flags & FLOW_CLOSED ||
		(d->alias.proto == IPPROTO_UDP &&
		 now_ticks() - f->seen >= idle_pressed)) &&
	       !bpf_map_update_elem(&aliases, &d->alias, &d->key, BPF_EXIST);
	if (over)
		flow_set(f, FLOW_TAKEN);
	flow_release(f);
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
			    port_taken(ep) ||
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
	if (!port_taken(ep) &&
	    !bpf_map_update_elem(&aliases, &d->alias, key, BPF_NOEXIST))
		return true;
	count_reason(NOTE_PORT_MOVED);
	return port_lock(d, ep, false);
}
