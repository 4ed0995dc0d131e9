/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * select.h: which version and backend a new flow gets: weight word → version
 * → Maglev → backend. steering/hash.go and steering/word.go do the same.
 */
#pragma once

#include "count.h"
#include "lease.h"
#include "parse.h"

#define SEED_BUCKET  0x5151000000000000ULL
#define SEED_BACKEND 0xbac4e4dULL

static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ x >> 32;
}

/* A number below n, even in all values of the key. */
static __always_inline __u32 draw(__u64 seed, const struct packet *p,
				  __u64 connection, __u32 n)
{
	const __be32 *w = p->src.w;
	__u64 h;

	h = mix(seed ^ ((__u64)w[1] << 32 | w[0]));
	h = mix(h ^ ((__u64)w[3] << 32 | w[2]));
	h = mix(h ^ connection);
	return (h >> 32) * n >> 32;
}

/* What tells this connection from the client's others; 0 by client. */
static __always_inline __u64 connection_of(const struct packet *p,
					   const struct frontend *fe)
{
	if (!(fe->flags & FRONTEND_BY_CONNECTION))
		return 0;
	return bpf_ntohs(p->dport) | (__u64)bpf_ntohs(p->sport) << 16 |
	       (__u64)p->proto << 32 | (__u64)fe->id << 40;
}

/* The version slot that owns a bucket: slot 1 from the bottom of the range, 2
 * from its top, 3 above 1, 4 below 2; stable the rest. */
static __always_inline __u32 owner(__u64 word, __u32 bucket)
{
	const __u32 mask = (1 << WEIGHT_BITS) - 1;
	__u32 w1 = word & mask, w2 = word >> WEIGHT_BITS & mask;
	__u32 w3 = word >> 2 * WEIGHT_BITS & mask;
	__u32 w4 = word >> 3 * WEIGHT_BITS & mask;

	if (bucket < w1)
		return 1;
	if (bucket + w2 >= BUCKETS)
		return 2;
	if (bucket < w1 + w3)
		return 3;
	if (bucket + w2 + w4 >= BUCKETS)
		return 4;
	return 0;
}

static __always_inline __u32 version_of(const struct packet *p,
					const struct frontend *fe, __u64 word)
{
	return owner(word, draw(SEED_BUCKET | fe->salt, p, connection_of(p, fe),
				BUCKETS));
}

/* Choose for a new flow. False: there is no backend at all. */
static __always_inline bool choose(const struct packet *p,
				   const struct frontend *fe, struct choice *c)
{
	__u64 word = word_now(fe->word);
	__u32 version = version_of(p, fe, word);
	bool weighed = word & WORD_SHARES;
	const struct table *table;
	__u32 index, *id;

	if (version >= VERSIONS) /* for the verifier */
		return false;
	table = &fe->tables[version];
	if (!table->length && version) {
		count_reason(NOTE_FALLBACK);
		version = 0;
		weighed = false;
		table = &fe->tables[0];
	}
	if (!table->length)
		return false;
	index = table->offset +
		draw(SEED_BACKEND, p, connection_of(p, fe), table->length);
	id = bpf_map_lookup_elem(&maglev, &index);
	if (!id)
		return false;
	c->backend = *id;
	c->version = version;
	c->epoch = word >> 4 * WEIGHT_BITS;
	c->weighed = weighed;
	return true;
}
