/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * age.h: a bpf_timer walks over the slots like the hand of a clock and forgets
 * the flows that are over. It also looks at the leases of the releases. It
 * lives in a pinned map and needs no daemon.
 */
#pragma once

#include "flow.h"
#include "retry.h"

#define TICK_NS	      10000000ULL  /* 10 ms */
#define TICK_IDLE_NS  100000000ULL /* while the table is empty */
#define TICKS_A_ROUND 256	   /* so that a round takes 2.6 s */
#define TICKS_A_RUSH  32	   /* 0.3 s, while a quota is full */

struct walk {
	struct clockwork *clock;
	__u32 now;
	enum crowding crowding[2]; /* of the quotas: TCP, UDP */
	__u64 now_ns; /* 0: no release cares how long requests wait */
};

static __always_inline enum crowding crowding(const struct clockwork *c,
					      bool udp)
{
	__s64 n = c->unproven[udp], full = quota(udp);

	return n >= full - full / 8 ? CROWDED : n > full / 2 ? PRESSED : ROOMY;
}

/* The flow is over: book what its end means. */
static __always_inline void expire(const struct flow_key *key, struct flow *f)
{
	const __u32 known = FLOW_ANSWERED | FLOW_CLOSED | FLOW_FAILED;
	struct tally *t = tally_of(f->backend);

	if (!t)
		return;
	if (key->proto == IPPROTO_TCP && !(f->flags & known) && !f->heard &&
	    flow_fails(f))
		t->timeout++;
	flow_closed(f, t);
}

/* Whether the server is known to owe an answer for longer than the limit: the
 * client has said all, and the server nothing that was missed. */
static __always_inline bool owes_answer(struct flow *f, __u64 now, __u64 since,
					__u64 limit)
{
	__u64 ns = now - since;
	struct talk *t;

	if ((__s64)ns <= (__s64)limit)
		return false;
	t = talk_of(f);
	return !t || (talk_unanswered(t, f) && talk_waited(t, now, ns) > limit);
}

/* A request that is not answered yet is slow already when it waits for too
 * long: the answer may never come. */
static __always_inline void still_waiting(struct slot *s, __u64 since,
					  __u64 now)
{
	struct flow *f = &s->flow;
	__u64 opened = f->opened_ns, limit;
	struct release *r;
	__u32 side;

	if (!since || f->late == (__u32)since || f->flags & FLOW_CLOSED)
		return;
	r = release_of(f);
	if (!r)
		return;
	side = side_of(r, f->version);
	limit = side > 1 ? 0 : r->slow_ns[side];
	if (!limit || !owes_answer(f, now, since, limit))
		return;
	if (!flow_claim(s))
		return; /* a SYN is replacing it on another CPU */
	if (*(volatile __u64 *)&f->opened_ns == opened) {
		f->late = since;
		book(&s->key, f, OUTCOME_SLOW);
	}
	flow_release(f);
}

static int age_slot(__u32 step, void *ctx)
{
	struct walk *w = ctx;
	struct clockwork *c = w->clock;
	__u32 index = c->hand, idle, limit;
	struct slot *s;
	struct flow *f;

	c->hand = index + 1 < capacity() ? index + 1 : 0;
	s = slot_at(index);
	if (!s || !s->use)
		return 0;
	if (w->now_ns && s->use == SLOT_LISTED)
		still_waiting(s, s->flow.request_ns, w->now_ns);
	if ((__s32)(w->now - s->check) < 0)
		return 0;
	f = &s->flow;
	if (s->use != SLOT_LISTED) {
		slot_free(c, s, index); /* its flow was never made */
		return 0;
	}
	idle = w->now - f->seen;
	limit = idle_limit(f, w->crowding[!!(f->flags & FLOW_UDP)]);
	if ((__s32)idle < (__s32)limit) {
		/* Crowding may come at any time, so look at handshakes often.
		 */
		s->check =
			w->now + (limit - idle > idle_crowded ? idle_crowded :
								limit - idle);
		if (f->flags & FLOW_ESTABLISHED && !(f->flags & FLOW_CLOSED) &&
		    limit == idle_established)
			s->check = f->seen + limit;
		return 0;
	}
	if (!flow_set(f, FLOW_CLAIMED))
		return 0; /* a SYN is replacing it on another CPU */
	if ((__s32)(w->now - f->seen) < (__s32)limit) {
		flow_release(f); /* one just has */
		return 0;
	}
	expire(&s->key, f);
	flow_forget(&s->key, f);
	table_remove(s, index);
	slot_free(c, s, index);
	return 0;
}

/* Look at the release in a room. */
static int age_release(__u32 room, void *ctx)
{
	__u64 *holder = bpf_map_lookup_elem(&rooms, &room);
	struct walk *w = ctx;
	struct release *r;
	__u32 word;

	if (!holder)
		return 1;
	word = *(volatile __u64 *)holder - 1;
	r = release_at(word);
	if (!r)
		return 0; /* nobody is there */
	lease_look(word);
	breaker_retry(word);
	if (r->started_ns && (r->slow_ns[0] || r->slow_ns[1]) && !w->now_ns)
		w->now_ns = bpf_ktime_get_ns();
	return 0;
}

static int age(void *map, __u32 *zero, struct clockwork *c)
{
	__u32 size = capacity(), round = TICKS_A_ROUND;
	struct walk w = { .clock = c, .now = now_ticks() };
	bool empty = c->taken == c->freed;

	w.crowding[0] = crowding(c, false);
	w.crowding[1] = crowding(c, true);
	if (w.crowding[0] == CROWDED || w.crowding[1] == CROWDED)
		round = TICKS_A_RUSH;
	c->ticks++;
	c->now = w.now;
	bpf_loop(((struct bpf_map *)&rooms)->max_entries, age_release, &w, 0);
	if (!empty)
		bpf_loop(size / round + 1, age_slot, &w, 0);
	bpf_timer_start(&c->timer, empty ? TICK_IDLE_NS : TICK_NS, 0);
	return 0;
}

/* Start the timer, or after an upgrade give it this build's callback. */
static __always_inline int age_start(void)
{
	struct clockwork *c = clockwork();

	if (!c)
		return 1;
	bpf_timer_init(&c->timer, &aging, 1 /* CLOCK_MONOTONIC */);
	if (bpf_timer_set_callback(&c->timer, age))
		return 2;
	return bpf_timer_start(&c->timer, 0, 0) ? 3 : 0;
}
