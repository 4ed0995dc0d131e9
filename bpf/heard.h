/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * heard.h: user space tells what it heard on HTTP/2 connections, so that one
 * place counts all answers and one breaker sees all errors. It runs a program
 * with a packet of `struct heard`, behind room for a link-layer header.
 */
#pragma once

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

static __always_inline bool heard_fails(__u32 word, const struct heard *h)
{
	struct release *r = release_at(word);

	if (!r || h->what != HEARD_ANSWER)
		return false;
	if (h->grpc >= 0)
		return h->grpc < 32 && r->fails_grpc >> h->grpc & 1;
	return !h->status || status_fails(word, h->status);
}

/* What an answer is for its flow's release. */
static __always_inline void heard_of(struct slot *s, const struct heard *h,
				     __u64 ns)
{
	struct flow *f = &s->flow;
	bool fails = heard_fails(f->word, h);
	struct release *r;

	if (fails)
		answers_count(h->backend, ANSWER_FAILED, 1);
	f->request_ns = h->oldest_ns;
	if (h->what == HEARD_WAITING)
		return;
	if (!(f->flags & FLOW_RESPONDED))
		flow_set(f, FLOW_RESPONDED);
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
	if (h.what != HEARD_WAITING)
		answers_count(h.backend, heard_as(&h), 1);
	if (h.began_ns && h.ended_ns > h.began_ns) {
		ns = h.ended_ns - h.began_ns;
		observe_ns(h.backend, LATENCY_RESPONSE, ns);
	}
	s = slot_at(h.slot);
	if (s && s->use == SLOT_LISTED && s->flow.opened_ns == h.opened_ns)
		heard_of(s, &h, ns);
	return 0;
}

static __always_inline int heard_all(struct __sk_buff *skb)
{
	bpf_loop(HEARD_MOST, heard_step, &skb, 0);
	return 0;
}
