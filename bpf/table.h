/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * table.h: the flow table. Flows lie in slots; a flow's hash leads to a bucket
 * of the index, one cache line of cells, of which one has the slot's number and
 * eight bits of the hash. So an established packet costs two cold lines and no
 * call, where the kernel's own hash map costs four and three calls.
 *
 * There is a bucket for every three slots, so that even when all slots are in
 * use hardly one in a hundred million is full (16 cells); a flow is then
 * refused like in a full table. The hash has a secret seed, or somebody could
 * fill a bucket.
 *
 * A cell is set and cleared with one atomic operation, when its slot is whole.
 * Two CPUs that make the same flow at a time both see it at their second look:
 * who does takes its own away.
 */
#pragma once

#include "slot.h"

/* Set once for a table: the loader keeps it with the pinned maps. */
const volatile __u64 flow_seed = 0x2b992ddfa23249d6ULL;

/* Of a key: the bucket, and the tag in the place that it has in a cell. */
struct place {
	__u32 bucket;
	__u32 tag;
};

static __always_inline bool key_same(const struct flow_key *a,
				     const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) |
		 (x[4] ^ y[4]));
}

static __always_inline struct place place_of(const struct flow_key *key)
{
	const __u64 *w = (const __u64 *)key;
	const __u64 factor = 0xd6e8feb86659fd93ULL;
	__u64 a = flow_seed ^ w[0], b = flow_seed ^ w[1], h;
	struct place at;

	/* Two lanes, so that the multiplications overlap. */
	a *= factor;
	b *= 0x9e3779b97f4a7c15ULL;
	a = (a ^ a >> 32 ^ w[2]) * factor;
	b = (b ^ b >> 29 ^ w[3]) * 0x9e3779b97f4a7c15ULL;
	h = (a ^ a >> 32) + (b ^ b >> 29) + w[4];
	h *= factor;
	h ^= h >> 32;
	h *= factor;
	at.bucket = ((h >> 32) * buckets()) >> 32;
	at.tag = (__u32)h & 0xff000000;
	return at;
}

#define NO_SLOT ~0U

/* The slot of a flow that a bucket lists, but for `mine`; or -1. */
static __always_inline __s64 bucket_find(struct bucket *b,
					 const struct flow_key *key, __u32 tag,
					 __u32 mine)
{
	__u32 cell, index;
	struct slot *s;

#pragma clang loop unroll(disable)
	for (int i = 0; i < CELLS; i++) {
		cell = *(volatile __u32 *)&b->cell[i];
		if (!cell || (cell & 0xff000000) != tag)
			continue;
		index = (cell & 0xffffff) - 1;
		if (index == mine)
			continue;
		s = bpf_map_lookup_elem(&flows, &index);
		if (s && key_same(&s->key, key))
			return index;
	}
	return -1;
}

/* The slot of a flow, or -1. */
static __always_inline __s64 table_find(const struct flow_key *key)
{
	struct place at = place_of(key);
	struct bucket *b = bpf_map_lookup_elem(&flow_index, &at.bucket);

	return b ? bucket_find(b, key, at.tag, NO_SLOT) : -1;
}

static __always_inline struct slot *slot_at(__u32 index)
{
	return bpf_map_lookup_elem(&flows, &index);
}

static __always_inline struct slot *slot_of(struct flow *f)
{
	return (void *)f - __builtin_offsetof(struct slot, flow);
}

static __always_inline struct flow *flow_find(const struct flow_key *key)
{
	__s64 index = table_find(key);
	struct slot *s = index < 0 ? NULL : slot_at(index);

	if (!s)
		return NULL;
	/* The verifier wants the check before the addition. */
	asm volatile("" : "+r"(s));
	return &s->flow;
}

/* Take the slot out of the index. */
static __always_inline void table_remove(struct slot *s, __u32 index)
{
	struct place at = place_of(&s->key);
	struct bucket *b = bpf_map_lookup_elem(&flow_index, &at.bucket);
	__u32 cell = at.tag | (index + 1);

	if (!b)
		return;
#pragma clang loop unroll(disable)
	for (int i = 0; i < CELLS; i++)
		if (*(volatile __u32 *)&b->cell[i] == cell)
			__sync_lock_test_and_set(&b->cell[i], 0);
}

enum put { PUT_DONE, PUT_EXISTS, PUT_FULL };

/* List a slot that is whole. PUT_EXISTS: there is another one of its key. */
static __always_inline enum put table_put(struct slot *s, __u32 index)
{
	struct place at = place_of(&s->key);
	struct bucket *b = bpf_map_lookup_elem(&flow_index, &at.bucket);
	__u32 cell = at.tag | (index + 1);
	bool done = false;

	if (!b)
		return PUT_FULL;
#pragma clang loop unroll(disable)
	for (int i = 0; i < CELLS; i++) {
		if (*(volatile __u32 *)&b->cell[i])
			continue;
		/* It publishes the slot: an atomic operation is a barrier. */
		if (__sync_val_compare_and_swap(&b->cell[i], 0, cell))
			continue;
		done = true;
		break;
	}
	if (!done)
		return PUT_FULL;
	if (bucket_find(b, &s->key, at.tag, index) < 0) {
		s->use = SLOT_LISTED;
		return PUT_DONE;
	}
	table_remove(s, index);
	return PUT_EXISTS;
}
