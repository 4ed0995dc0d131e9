/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * outcome.h: what the clients of a release met, as evidence for or against its
 * version. What was randomised is the client, so it speaks once: with its first
 * error and its first slow answer in the release, and again in each later step,
 * booked apart. An outcome belongs to the epoch of its flow. Flows that are
 * older than the release say nothing about it.
 *
 * A client has a cell for each kind, found by a hash that has nothing to do
 * with the one that gave it its version. Two clients may share one: then the
 * second is not heard, whatever its version is.
 */
#pragma once

#include "breaker.h"
#include "select.h"
#include "table.h"

#define SEED_CELL  0xce115eedULL
#define CELL_TRIES 16
#define ONCE	   255 /* above all steps but the last */

static __always_inline struct release *release_of(const struct flow *f)
{
	__u32 index = f->word;
	struct release *r = bpf_map_lookup_elem(&releases, &index);
	__u64 started = r ? *(volatile __u64 *)&r->started_ns : 0;

	return started && f->opened_ns >= started ? r : NULL;
}

/* A hash of who the client is. */
static __always_inline __u64 client_of(const struct flow_key *key,
				       const struct release *r)
{
	const __be32 *w = key->client.w;
	__u64 h = flow_seed ^ SEED_CELL;

	if (!(w[0] | w[1]) && w[2] == bpf_htonl(0xffff))
		h = mix(h ^ w[3]);
	else
		h = mix(h ^ ((__u64)w[1] << 32 | w[0]));
	if (r->by_connection) {
		const __u64 *rest = (const __u64 *)key;

		h = mix(h ^ rest[1]);
		h = mix(h ^ rest[2]);
		h = mix(h ^ rest[3]);
		h = mix(h ^ rest[4]);
	}
	return h;
}

/* Write a step into a client's cell unless there is a later one, and return
 * what was there. */
static __always_inline __u32 cell_mark(__u32 index, __u32 at, __u32 step)
{
	__u64 *cells8 = bpf_map_lookup_elem(&cells, &index), old, new;
	__u32 shift = (at & 7) * 8, prev;

	if (!cells8)
		return ONCE;
	for (int i = 0; i < CELL_TRIES; i++) {
		old = *(volatile __u64 *)cells8;
		prev = old >> shift & 255;
		if (prev >= step)
			return prev;
		new = old ^ (__u64)(prev ^ step) << shift;
		if (__sync_val_compare_and_swap(cells8, old, new) == old)
			return prev;
	}
	return ONCE; /* the neighbours do not let it speak */
}

static __always_inline void outcome_count(const struct outcome *key, __u32 room)
{
	__u64 *n = bpf_map_lookup_elem(&outcomes, key), none = 0;
	struct breaker *b;

	if (!n) {
		bpf_map_update_elem(&outcomes, key, &none, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&outcomes, key);
	}
	if (n) {
		__sync_fetch_and_add(n, 1);
		return;
	}
	b = bpf_map_lookup_elem(&breakers, &room);
	if (b)
		__sync_fetch_and_add(&b->lost, 1);
}

/* Book what a flow's client met. The flow may be a draft. */
__noinline int book(const struct flow_key *key, const struct flow *f,
		    __u32 kind)
{
	__u32 room, step, prev;
	struct outcome o = {};
	struct release *r;
	__u64 client;

	if (!key || !f)
		return 0;
	r = release_of(f);
	if (!r)
		return 0;
	room = r->room;
	step = r->step & 255;
	client = client_of(key, r);
	if (kind == OUTCOME_ERROR)
		breaker_error(f->word, f->version, client);
	prev = cell_mark((room * OUTCOME_KINDS + kind) * CELLS_WORDS +
				 (client >> 3) % CELLS_WORDS,
			 client, kind == OUTCOME_SEEN ? ONCE : step);
	if (prev >= step)
		return 0;
	o.word = f->word;
	o.segment = f->segment;
	o.version = f->version;
	o.epoch = f->epoch;
	o.kind = kind;
	o.prev = prev;
	o.step = step;
	outcome_count(&o, room);
	return 0;
}

/* Book what the deeper functions left: they have no stack for it. */
__noinline int book_due(void)
{
	__u32 zero = 0, due;
	struct draft *d = bpf_map_lookup_elem(&drafts, &zero);

	if (!d || !d->due)
		return 0;
	due = d->due;
	d->due = 0;
	if (due & DUE_ERROR)
		book(&d->failed.key, &d->failed.flow, OUTCOME_ERROR);
	if (due & DUE_SEEN)
		book(&d->key, &d->flow, OUTCOME_SEEN);
	return 0;
}

/* Whether an answer to what began at `since` was slow to come. One that was
 * waited for too long is booked already. */
static __always_inline bool answer_slow(const struct release *r, __u32 side,
					const struct flow *f, __u64 since,
					__u64 ns)
{
	__u64 limit = r->slow_ns[side & 1];

	return limit && ns > limit && f->late != (__u32)since;
}

/* An answer that is no error: count it as a success, and say whether it was
 * slow. */
static __always_inline bool answer_good(const struct release *r,
					const struct flow *f, __u64 since,
					__u64 ns)
{
	__u32 side = side_of(r, f->version);

	if (side > 1)
		return false;
	success_count(r, side);
	return answer_slow(r, side, f, since, ns);
}

/* A flow's server answered: a request that began at `since` after ns, or with
 * neither, by itself. */
__noinline int answered(const struct flow_key *key, const struct flow *f,
			__u64 since, __u64 ns)
{
	struct release *r;

	if (!key || !f)
		return 0;
	r = release_of(f);
	if (!r)
		return 0;
	if (answer_good(r, f, since, ns))
		book(key, f, OUTCOME_SLOW);
	return 0;
}
