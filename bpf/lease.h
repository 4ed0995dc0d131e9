/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * lease.h: the kernel takes a weight word back. The weights of a release count
 * while its lease lasts; somebody must renew it, or they are zeroed here, by
 * whoever notices first: a new flow, or the timer, which needs no traffic.
 *
 * That the lease is over is latched in the lease itself before the word is
 * zeroed. Renewing and latching are compare-and-swaps of one another, so one of
 * them wins; and a word that was given weights while its lease was latched is
 * zeroed by the next who looks. So who wakes up later cannot bring back what
 * nobody has judged.
 */
#pragma once

#include "cutoff.h"
#include "maps.h"

#include <stdbool.h>

#define WORD_SHARES ((1ULL << 4 * WEIGHT_BITS) - 1)

/* The word that follows: all to stable, in an epoch of its own. */
static __always_inline __u64 word_zeroed(__u64 word)
{
	return (word & ~WORD_SHARES) + WORD_SHARES + 1;
}

static __always_inline bool lease_lasts(__u64 lease)
{
	if (!(lease & ~LEASE_TRYING))
		return true;
	return !(lease & LEASE_OVER) && bpf_ktime_get_boot_ns() < lease;
}

/* Tell it. What finds no room is lost: the maps say the same. */
static __always_inline void event_send(__u32 kind, __u32 word)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return;
	e->kind = kind;
	e->word = word;
	e->boot_ns = bpf_ktime_get_boot_ns();
	e->monotonic_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(e, 0);
}

/*
 * Latch the end of a word's lease, and zero the word. `seen` is the word as it
 * was read before the lease was: weights of a later time are not touched, since
 * they may have another lease. Returns whether the lease is over; it may have
 * been renewed meanwhile.
 */
__noinline int lease_end(__u32 index, __u64 seen)
{
	__u64 *lease = bpf_map_lookup_elem(&leases, &index);
	__u64 *word = bpf_map_lookup_elem(&words, &index), old;
	bool mine = false;

	if (!lease || !word)
		return false;
	for (int i = 0; i < 4 && !mine; i++) {
		/* Not before the word was: a fetching atomic is a barrier. */
		old = __sync_fetch_and_add(lease, 0);
		if (lease_lasts(old))
			return false;
		if (old & LEASE_OVER)
			break;
		mine = __sync_val_compare_and_swap(lease, old,
						   old | LEASE_EXPIRED) == old;
	}
	if (seen & WORD_SHARES)
		__sync_val_compare_and_swap(word, seen, word_zeroed(seen));
	if (mine)
		event_send(EVENT_EXPIRED, index);
	return true;
}

/* The same at once, whatever the word and its lease are: the breaker says so.
 * Only then are open connections cut off, if that was armed: of a version whose
 * lease is over nobody has said that it is bad. Returns the shares that it
 * took.
 */
static __always_inline __u64 lease_trip(__u32 index)
{
	__u64 *lease = bpf_map_lookup_elem(&leases, &index);
	__u64 *word = bpf_map_lookup_elem(&words, &index), seen;

	if (!lease || !word)
		return 0;
	seen = __sync_fetch_and_or(lease, LEASE_TRIPPED);
	if (seen & LEASE_TRIPPED)
		return 0;
	__sync_fetch_and_and(lease, ~LEASE_TRYING);
	for (int i = 0; i < 8; i++) {
		seen = *(volatile __u64 *)word;
		if (!(seen & WORD_SHARES) ||
		    __sync_val_compare_and_swap(word, seen,
						word_zeroed(seen)) == seen)
			break;
	}
	cutoff_start(index);
	event_send(EVENT_TRIPPED, index);
	return seen & WORD_SHARES;
}

/* The weight word as it counts now: its shares are zero when its lease is over.
 */
static __always_inline __u64 word_now(__u32 index)
{
	__u64 *word = bpf_map_lookup_elem(&words, &index), *lease, seen;

	if (!word)
		return 0;
	seen = *(volatile __u64 *)word;
	if (!(seen & WORD_SHARES))
		return seen;
	lease = bpf_map_lookup_elem(&leases, &index);
	if (!lease || lease_lasts(*(volatile __u64 *)lease) ||
	    !lease_end(index, seen))
		return seen;
	return word_zeroed(seen);
}

/* The timer's look at one word under release, whatever its weights are. */
static __always_inline void lease_look(__u32 index)
{
	__u64 *word = bpf_map_lookup_elem(&words, &index), seen;
	__u64 *lease = bpf_map_lookup_elem(&leases, &index);

	if (!word || !lease)
		return;
	seen = *(volatile __u64 *)word;
	if (lease_lasts(*(volatile __u64 *)lease))
		return;
	if (!(*(volatile __u64 *)lease & LEASE_OVER) || seen & WORD_SHARES)
		lease_end(index, seen);
}
