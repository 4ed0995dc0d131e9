/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * breaker.h: takes a release back by itself when its version's servers fail.
 * Two buckets of errors, the version's and stable's, are drained by successes;
 * when the version's is full and stable's is not, the very next connection goes
 * to stable. analysis/breaker.go has the rule in words, and the reasons.
 *
 * Successes are counted where they happen, per CPU, and drain the buckets only
 * at the next error: a release without errors never gets here. retry.h closes
 * it again where nobody else would.
 */
#pragma once

#include "lease.h"

#define ERROR_FIRST  90	 /* what a client's first two errors add */
#define ERROR_REPEAT 9	 /* and the later ones */
#define ERRORS_MOST  900 /* what a bucket holds */
#define ERRORS_BOTH  180 /* from here on stable fails too */
#define CPUS_MOST    8192
#define TRIPS_DOUBLE                                                           \
	5 /* each of so many makes the next trial wait twice as long */

static __always_inline struct release *release_at(__u32 word)
{
	return bpf_map_lookup_elem(&releases, &word);
}

/* Whose flow it is: 0 stable's, 1 the version's, 2 neither's. */
static __always_inline __u32 side_of(const struct release *r, __u32 version)
{
	return !version ? 0 : version == r->version ? 1 : 2;
}

static __always_inline void success_count(const struct release *r, __u32 side)
{
	__u32 room = r->room;
	struct success *n = bpf_map_lookup_elem(&successes, &room);

	if (n)
		n->of[side & 1]++;
}

struct successes_sum {
	__u32 room;
	__u32 pad;
	__u64 of[2];
};

static int successes_add(__u32 cpu, void *ctx)
{
	struct successes_sum *sum = ctx;
	struct success *n =
		bpf_map_lookup_percpu_elem(&successes, &sum->room, cpu);

	if (!n)
		return 1;
	sum->of[0] += n->of[0];
	sum->of[1] += n->of[1];
	return 0;
}

/* Successes since the last error. The sum may be an older one than that which
 * another CPU has already applied. */
static __always_inline void errors_drain(struct errors *e, __u64 sum,
					 __u32 success)
{
	__u64 n = sum - e->drained, out;

	if ((__s64)n <= 0)
		return;
	e->drained = sum;
	if (n > ERRORS_MOST)
		n = ERRORS_MOST;
	out = n * success;
	e->level = out < e->level ? e->level - out : 0;
}

static __always_inline void errors_add(struct errors *e, __u64 client)
{
	struct erring *who;
	__u64 errors = 0;

#pragma unroll
	for (int i = 0; i < ERRING; i++)
		if (e->ring[i].errors && e->ring[i].client == client)
			errors = ++e->ring[i].errors;
	if (!errors) {
		who = &e->ring[e->next % ERRING];
		who->client = client;
		who->errors = 1;
		e->next = (e->next + 1) % ERRING;
	}
	e->count++;
	e->level += errors > 2 ? ERROR_REPEAT : ERROR_FIRST;
	if (e->level > ERRORS_MOST)
		e->level = ERRORS_MOST;
}

/* It trips: b is locked. */
static __always_inline void breaker_open(struct breaker *b, __u64 boot,
					 __u64 monotonic, __u64 retry)
{
	__u32 trips = b->trips++;

	b->tripped = 1;
	b->boot_ns = boot;
	b->monotonic_ns = monotonic;
	b->look_ns = monotonic +
		     (retry << (trips < TRIPS_DOUBLE ? trips : TRIPS_DOUBLE));
}

/* A server of the version, or of stable, failed a client. */
__noinline int breaker_error(__u32 word, __u32 version, __u64 client)
{
	struct release *r = release_at(word);
	struct successes_sum sum = {};
	__u32 limit, success, side;
	__u64 boot, monotonic, retry, shares;
	bool trips = false;
	struct breaker *b;

	if (!r)
		return 0;
	limit = r->limit;
	success = r->success;
	retry = r->retry_ns;
	side = side_of(r, version);
	sum.room = r->room;
	b = bpf_map_lookup_elem(&breakers, &sum.room);
	if (!b || !limit || side > 1 || b->tripped)
		return 0;
	bpf_loop(CPUS_MOST, successes_add, &sum, 0);
	boot = bpf_ktime_get_boot_ns();
	monotonic = bpf_ktime_get_ns();
	bpf_spin_lock(&b->lock);
	if (!b->tripped) {
		errors_drain(&b->of[0], sum.of[0], success);
		errors_drain(&b->of[1], sum.of[1], success);
		errors_add(&b->of[side & 1], client);
		trips = side && b->of[1].level >= limit &&
			b->of[0].level < ERRORS_BOTH;
		if (trips)
			breaker_open(b, boot, monotonic, retry);
	}
	bpf_spin_unlock(&b->lock);
	if (!trips)
		return 0;
	shares = lease_trip(word);
	if (!b->shares) /* else a trial ends: what it had is no share */
		b->shares = shares;
	return 0;
}
