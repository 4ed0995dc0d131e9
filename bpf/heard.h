/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * heard.h: user space tells what it heard on HTTP/2 connections, so that one
 * place counts all answers and one breaker sees all errors. It runs a program
 * with a packet of `struct heard`, behind room for a link-layer header.
 */
#pragma once

#include "age.h"
#include "read.h"

#define HEARD_AT   16
#define HEARD_MOST 64 /* in a packet */

static __always_inline enum answer heard_as(const struct heard *h)
{
	__u32 class = h->status / 100;

	if (h->what != HEARD_ANSWER)
		return ANSWER_LOST;
	if (h->grpc >= 0)
		return h->grpc ? ANSWER_GRPC_ERROR : ANSWER_GRPC_OK;
	return class >= 1 && class <= 5 ? class - 1 : ANSWER_5XX;
}

static __always_inline bool heard_fails(const struct flow *f,
					const struct heard *h)
{
	struct release *r = release_at(f->word);

	if (!r || h->what != HEARD_ANSWER)
		return false;
	if (h->grpc >= 0)
		return h->grpc < 32 && r->fails_grpc >> h->grpc & 1;
	return !h->status || status_fails(r, h->status);
}

/* Whether user space knows all that was said on a connection: what it is behind
 * with, or was lost on the way, may be the answer that it waits for. */
static __always_inline bool heard_all_of(const struct flow *f,
					 const struct heard *h)
{
	struct talk *t = bpf_map_lookup_elem(&talks, &h->slot);

	return t && t->opened_ns == f->opened_ns && t->kind == TALK_HTTP2 &&
	       t->begun[0] == h->heard[0] && t->begun[1] == h->heard[1] &&
	       !server_unread(t, f);
}

/* What an answer is for its flow's release. */
static __always_inline void heard_of(struct slot *s, const struct heard *h,
				     __u64 ns)
{
	struct flow *f = &s->flow;
	bool fails = heard_fails(f, h);
	struct release *r;

	if (fails)
		answers_count(h->backend, ANSWER_FAILED, 1);
	r = release_of(f);
	if (!r || h->what != HEARD_ANSWER)
		return;
	if (fails)
		book(&s->key, f, OUTCOME_ERROR);
	else if (answer_good(r, f, h->began_ns, ns))
		book(&s->key, f, OUTCOME_SLOW);
}

static int heard_step(__u32 i, void *ctx)
{
	struct __sk_buff *skb = *(struct __sk_buff **)ctx;
	struct heard h;
	struct slot *s;
	__u64 ns = 0;

	if (bpf_skb_load_bytes(skb, HEARD_AT + i * sizeof(h), &h, sizeof(h)))
		return 1;
	s = slot_at(h.slot);
	if (s && (s->use != SLOT_LISTED || s->flow.opened_ns != h.opened_ns))
		s = NULL; /* it has another one since */
	if (h.what == HEARD_WAITING) {
		if (s && heard_all_of(&s->flow, &h))
			still_waiting(s, h.began_ns, bpf_ktime_get_ns());
		return 0;
	}
	answers_count(h.backend, heard_as(&h), 1);
	if (h.began_ns && h.ended_ns > h.began_ns) {
		ns = h.ended_ns - h.began_ns;
		observe_ns(h.backend, LATENCY_RESPONSE, ns);
	}
	if (s)
		heard_of(s, &h, ns);
	return 0;
}

static __always_inline int heard_all(struct __sk_buff *skb)
{
	bpf_loop(HEARD_MOST, heard_step, &skb, 0);
	return 0;
}
