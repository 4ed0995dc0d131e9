/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * talk.h: requests and their answers, whatever they are written in. A request
 * begins with its first byte, and its answer is counted when its status is
 * known: on the flow's backend, for its release and its breaker.
 */
#pragma once

#include "outcome.h"
#include "parse.h"
#include "table.h"
#include "track.h"

/* A segment while it is read; the rest of it is on the desk. */
struct reading {
	ctx_t *ctx;
	struct flow *f;
	struct talk *t;
	struct reader *r;
	struct desk *desk;
};

static __always_inline __u64 reading_now(struct reading *g)
{
	if (!g->desk->came.now)
		g->desk->came.now = bpf_ktime_get_ns();
	return g->desk->came.now;
}

/* The client is through with its last request. */
static __always_inline void talk_sent(struct reading *g)
{
	struct talk *t = g->t;
	__u16 n = t->asked - 1;

	if (!t->sending)
		return;
	t->sent[n % BEGUN] = reading_now(g) >> 10;
	barrier();
	t->sending = 0;
}

/* A request begins. */
static __always_inline void talk_asks(struct reading *g)
{
	struct talk *t = g->t;
	__u64 now = reading_now(g);
	__u16 n = t->asked;

	talk_sent(g);
	t->begun[n % BEGUN] = now >> 10;
	if (g->desk->ack == g->f->server_next &&
	    t->of[1].next != g->desk->ack &&
	    !(t->resume && t->fresh == g->desk->ack)) {
		/* The client has everything, and we have missed something:
		 * from here on we know again what comes. */
		t->fresh = g->desk->ack;
		t->first = n;
		t->resume = 1;
	}
	t->sending = 1;
	barrier();
	t->asked = n + 1;
	/* Atomic, so that it comes behind: see talk_next. */
	__sync_val_compare_and_swap(&g->f->request_ns, 0, now);
}

/* What the last request says of its answer's body. Its bit may still be that of
 * a request far in front of it, which must not be told something else. */
static __always_inline void talk_bodiless(struct reading *g, bool bodiless)
{
	struct talk *t = g->t;
	__u16 n = t->asked - 1, waiting = n - *(volatile __u16 *)&t->answered;

	if ((t->bodiless >> (n & 63) & 1) == bodiless)
		return;
	if (waiting >= 64)
		g->desk->came.stop = 1;
	else
		t->bodiless ^= 1ULL << (n & 63);
}

/* When the request began that is answered next; 0: that is not known, or there
 * is none. */
static __always_inline __u64 talk_since(const struct talk *t, __u64 now)
{
	__u16 waiting = *(volatile __u16 *)&t->asked - t->answered;
	__u32 ago;

	if (!waiting || waiting > BEGUN)
		return 0;
	ago = (__u32)(now >> 10) - t->begun[t->answered % BEGUN];
	return now - ((__u64)ago << 10);
}

/* Requests were answered: the next one waits. It may begin just now, on another
 * CPU, which then sees that none waits, or is seen here. */
static __always_inline void talk_next(struct reading *g, __u16 n)
{
	struct talk *t = g->t;
	__u64 since;

	t->answered += n;
	since = talk_since(t, reading_now(g));
	__sync_lock_test_and_set(&g->f->request_ns, since);
	if (since)
		return;
	since = talk_since(t, reading_now(g));
	if (since)
		g->f->request_ns = since;
}

/* Requests that were answered while we did not hear it. */
static __always_inline void talk_forget(struct reading *g, __u16 n)
{
	answers_count(g->f->backend, ANSWER_LOST, n);
	talk_next(g, n);
}

/* Whether an answer counts as an error of a release. */
static __always_inline bool status_fails(const struct release *r, __u32 status)
{
	__u32 n = status - 400;

	return r && n < 256 && r->fails[n >> 6 & 3] >> (n & 63) & 1;
}

/* The status of the next request's final answer is here. */
static __always_inline void talk_answers(struct reading *g, __u32 status)
{
	struct flow *f = g->f;
	struct talk *t = g->t;
	__u64 since = f->request_ns, ns = 0;
	__u32 class = status / 100;
	struct release *r;
	bool fails;

	if (!(f->flags & FLOW_RESPONDED))
		flow_set(f, FLOW_RESPONDED | FLOW_REQUESTS);
	answers_count(f->backend, class - 1, 1);
	if (since) {
		ns = observe(f->backend, LATENCY_RESPONSE, since);
		ns = talk_waited(t, since + ns, ns);
	}
	if (t->asked != t->answered) /* else nobody asked: a timeout */
		talk_next(g, 1);
	fails = status_fails(release_at(f->word), status);
	if (fails)
		answers_count(f->backend, ANSWER_FAILED, 1);
	r = release_of(f);
	if (!r)
		return;
	if (fails)
		g->desk->came.failed++;
	else if (answer_good(r, f, since, ns))
		g->desk->came.slow++;
}
