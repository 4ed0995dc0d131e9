/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * flow.h: make flows, and replace them. A record is replaced (a SYN on a closed
 * flow) or removed (age.h) only by who has set FLOW_CLAIMED on it.
 */
#pragma once

#include "ports.h"
#include "redirect.h"
#include "select.h"

/* A flow record is done with: its backend has one less. */
static __always_inline void flow_forget(const struct flow_key *key,
					struct flow *f)
{
	struct tally *t = tally_of(f->backend);

	if (t)
		t->forgotten++;
	talk_ends(f);
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
 * or one to be chosen again is there; d->judged is its opened_ns at that
 * judgement. Returns 0, or the reason why there is none.
 */
static __always_inline __u32 flow_open(ctx_t *ctx, const struct packet *p,
				       const struct frontend *fe,
				       struct draft *d, struct slot *old)
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
	if (!udp && flags & FRONTEND_READ)
		f->flags |= flags & FRONTEND_REQUESTS ?
				    FLOW_READ | FLOW_REQUESTS :
				    FLOW_READ;
	if (old && !flow_claim(old))
		return DROP_BUSY;
	if (old && !key_same(&old->key, key)) {
		flow_release(&old->flow); /* another's by now */
		return DROP_BUSY;
	}
	if (old && old->flow.opened_ns != d->judged) {
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
	if (c->weighed && release_of(f))
		d->due |= DUE_SEEN;
	return 0;
}
