/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* count.h: per-CPU counters and histograms. */
#pragma once

#include "maps.h"

static __always_inline void count_reason(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&reasons, &reason);

	if (n)
		*n += 1;
}

static __always_inline struct tally *tally_of(__u32 backend)
{
	return bpf_map_lookup_elem(&counters, &backend);
}

/* Atomically, since a packet may come in the middle of it: user space runs
 * siskin_heard with softirqs on before Linux 6.11. */
static __always_inline void answers_count(__u32 backend, enum answer how,
					  __u32 n)
{
	struct answers *all = bpf_map_lookup_elem(&requests, &backend);

	if (all && how < ANSWERS)
		__sync_fetch_and_add(&all->of[how], n);
}

/* 2^(63 + j/8), rounded down: where seven of the eight buckets of one power of
 * two end. */
static const volatile __u64 bucket_bounds[7] = {
	10058158527438640870ULL, 10968499650544839023ULL,
	11961233684655323370ULL, 13043817825332782212ULL,
	14224384202002324189ULL, 15511800964685064948ULL,
	16915738899553466670ULL,
};

/* The index of the schema-3 bucket of a duration: 2^((i-1)/8) s < d <= 2^(i/8)
 * s. */
static __always_inline __u32 bucket_index(__u64 ns)
{
	__u64 units, mantissa;
	__s32 index, exponent = 63;
	__u32 above = 0; /* so many bounds are below it */

	if (ns > 1ULL << 40) /* 18 minutes: the last bucket anyhow */
		ns = 1ULL << 40;
	units = (ns * 9007199) >> 23; /* of 2^-30 s */
	if (!units)
		return 0;
	mantissa = units;
#pragma unroll
	for (int step = 32; step; step >>= 1)
		if (!(mantissa >> (64 - step))) {
			mantissa <<= step;
			exponent -= step;
		}
	index = 8 * (exponent - 30) + (mantissa > 1ULL << 63);
	if (bucket_bounds[3] < mantissa)
		above = 4;
	if (bucket_bounds[above + 1] < mantissa)
		above += 2;
	if (bucket_bounds[above] < mantissa)
		above++;
	index += (__s32)above - HISTOGRAM_MIN;
	if (index < 0)
		return 0;
	return index < HISTOGRAM_BUCKETS ? index : HISTOGRAM_BUCKETS - 1;
}

enum latency_kind { LATENCY_CONNECT, LATENCY_RESPONSE };

/* Put a duration into a histogram of a backend's version. The bucket comes
 * first: it needs registers that would be spilled later. */
static __always_inline void observe_ns(__u32 backend, __u32 kind, __u64 ns)
{
	__u32 i = bucket_index(ns);
	struct backend *b = bpf_map_lookup_elem(&backends, &backend);
	struct latency *l;
	struct histogram *h;

	l = b ? bpf_map_lookup_elem(&latencies, &b->version) : NULL;
	if (!l || i >= HISTOGRAM_BUCKETS) /* for the verifier */
		return;
	h = kind == LATENCY_CONNECT ? &l->connect : &l->response;
	h->bucket[i]++;
	h->sum_ns += ns;
}

/* The same for what began at `since` and is over now. Returns it. */
__noinline __u64 observe(__u32 backend, __u32 kind, __u64 since)
{
	__u64 ns = bpf_ktime_get_ns() - since;

	observe_ns(backend, kind, ns);
	return ns;
}
