/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * retry.h: a breaker that has tripped tries the version again. A release
 * latches it, since somebody rolls back; where it says that nobody need be
 * there (failSafe: false), the version would be out for good. So after a while
 * it gets a trickle of new connections, and twice as much each time that this
 * shows too little. When enough of them were answered and none failed, the
 * shares are what they were. At an error it is out again, for twice as long as
 * before.
 *
 * The timer comes by: no packet pays for it.
 */
#pragma once

#include "breaker.h"

#define TRICKLE	     (BUCKETS / 100)
#define GOOD_ANSWERS 20

struct trial {
	struct release *release;
	struct breaker *breaker;
	__u64 *lease, *word;
	__u32 index;
	__u64 now;
};

static __always_inline __u64 share_of(__u64 word, __u32 version)
{
	return word >> (version - 1) * WEIGHT_BITS & ((1 << WEIGHT_BITS) - 1);
}

static __always_inline bool word_share(__u64 *word, __u64 seen, __u64 shares)
{
	return __sync_val_compare_and_swap(word, seen,
					   word_zeroed(seen) | shares) == seen;
}

/* Begin: an error at first trips. */
static __always_inline void trial_begin(const struct trial *t,
					const struct successes_sum *sum)
{
	__u64 seen = *(volatile __u64 *)t->word, share;
	__u32 version = t->release->version, limit = t->release->limit;
	struct breaker *b = t->breaker;

	share = share_of(b->shares, version);
	if (share > TRICKLE)
		share = TRICKLE;
	if (seen & WORD_SHARES || !share || !limit)
		return;
	bpf_spin_lock(&b->lock);
	b->tripped = 0;
	b->of[0].drained = sum->of[0];
	b->of[1].drained = sum->of[1];
	b->of[1].level = limit - 1;
	b->errors = b->of[1].count;
	b->successes = sum->of[1];
	bpf_spin_unlock(&b->lock);
	if (__sync_val_compare_and_swap(t->lease, LEASE_TRIPPED,
					LEASE_TRYING) == LEASE_TRIPPED)
		word_share(t->word, seen, share << (version - 1) * WEIGHT_BITS);
}

/* It shows too little: give it more. */
static __always_inline void trial_grow(const struct trial *t, __u64 seen)
{
	__u32 version = t->release->version;
	__u64 share = share_of(seen, version) * 2;
	__u64 most = share_of(t->breaker->shares, version);

	if (share > most)
		share = most;
	if (share != share_of(seen, version))
		word_share(t->word, seen, share << (version - 1) * WEIGHT_BITS);
}

static __always_inline void trial_judge(const struct trial *t,
					const struct successes_sum *sum)
{
	__u64 seen = *(volatile __u64 *)t->word, boot;
	__u64 retry = t->release->retry_ns;
	struct breaker *b = t->breaker;

	if (!(seen & WORD_SHARES))
		return; /* somebody has taken it back */
	if (b->of[1].count != b->errors) {
		boot = bpf_ktime_get_boot_ns();
		bpf_spin_lock(&b->lock);
		breaker_open(b, boot, t->now, retry);
		bpf_spin_unlock(&b->lock);
		lease_trip(t->index);
	} else if ((__s64)(sum->of[1] - b->successes) < GOOD_ANSWERS) {
		trial_grow(t, seen);
	} else if (word_share(t->word, seen, b->shares)) {
		b->shares = 0;
		b->of[1].level = 0;
		b->closed++;
		__sync_val_compare_and_swap(t->lease, LEASE_TRYING, 0);
	}
}

/* The timer's look at the breaker of a word under release. */
__noinline int breaker_retry(__u32 index)
{
	struct successes_sum sum = {};
	struct trial t = { .index = index, .release = release_at(index) };
	__u64 state;

	t.lease = bpf_map_lookup_elem(&leases, &index);
	t.word = bpf_map_lookup_elem(&words, &index);
	if (!t.release || !t.lease || !t.word)
		return 0;
	state = *(volatile __u64 *)t.lease;
	if (!t.release->retry_ns ||
	    (state != LEASE_TRIPPED && state != LEASE_TRYING))
		return 0;
	sum.room = t.release->room;
	t.breaker = bpf_map_lookup_elem(&breakers, &sum.room);
	t.now = bpf_ktime_get_ns();
	if (!t.breaker || (__s64)(t.now - t.breaker->look_ns) < 0)
		return 0;
	t.breaker->look_ns = t.now + t.release->retry_ns;
	bpf_loop(CPUS_MOST, successes_add, &sum, 0);
	if (state == LEASE_TRIPPED)
		trial_begin(&t, &sum);
	else
		trial_judge(&t, &sum);
	return 0;
}
