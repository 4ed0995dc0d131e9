/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * slot.h: the room of the flow table. Every flow lies in a slot. Any CPU takes
 * slots; only the timer's hand (age.h) gives them back, so the queue of vacant
 * ones has many consumers and one producer and needs no lock.
 */
#pragma once

#include "count.h"
#include "ctx.h"

#define SLOT_TRIES 64

/* ms, once loaded ticks, until a slot without its flow counts as lost. */
const volatile __u32 slot_grace = 500;

static __always_inline __u32 capacity(void)
{
	return size_of_map(&flows);
}

static __always_inline __u32 buckets(void)
{
	return size_of_map(&flow_index);
}

static __always_inline struct clockwork *clockwork(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&aging, &zero);
}

/* Flows that may be somebody's flood: they have a quota, so that there is
 * always room for those that are proven. */
static __always_inline void unproven_add(bool udp, __s64 n)
{
	struct clockwork *c = clockwork();

	if (c)
		__sync_fetch_and_add(&c->unproven[udp], n);
}

static __always_inline __s64 quota(bool udp)
{
	return capacity() / (udp ? 2 : 4);
}

static __always_inline bool quota_full(bool udp)
{
	struct clockwork *c = clockwork();

	return !c || c->unproven[udp] >= quota(udp);
}

/* Take a vacant slot; NULL when the table is full. */
static __always_inline struct slot *slot_take(__u32 *out)
{
	struct clockwork *c = clockwork();
	__u32 size = capacity(), index, *vacancy;
	__u64 taken;

	if (!c || !size)
		return NULL;
	for (int i = 0; i < SLOT_TRIES; i++) {
		taken = *(volatile __u64 *)&c->taken;
		/* A fetching atomic is a barrier: `vacant` is read after it. */
		if (taken - __sync_fetch_and_add(&c->freed, 0) >= size)
			return NULL;
		index = taken % size;
		vacancy = bpf_map_lookup_elem(&vacant, &index);
		if (!vacancy)
			return NULL;
		if (*(volatile __u32 *)vacancy)
			index = *(volatile __u32 *)vacancy - 1;
		if (__sync_val_compare_and_swap(&c->taken, taken, taken + 1) ==
		    taken)
			goto taken;
	}
	return NULL;
taken:
	*out = index;
	return bpf_map_lookup_elem(&flows, &index);
}

/* Give a slot back. Only the hand may. */
static __always_inline void slot_free(struct clockwork *c, struct slot *s,
				      __u32 index)
{
	__u32 size = capacity(), at, *vacancy;

	if (!size)
		return;
	at = c->freed % size;
	vacancy = bpf_map_lookup_elem(&vacant, &at);
	if (!vacancy)
		return;
	*(volatile __u32 *)&s->use = SLOT_VACANT;
	*(volatile __u32 *)vacancy = index + 1;
	/* Publishes what is above it. The exchange is a barrier, which a plain
	 * add is not on arm64. */
	__sync_lock_test_and_set(&c->freed, c->freed + 1);
}
