/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * sum.h: incremental Internet checksums (RFC 1624). A difference is the ones'
 * complement sum of the new words and of the old words' complements.
 */
#pragma once

#include "types.h"

/* Fold to 16 bits. */
static __always_inline __u16 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline __u64 sum_diff32(__be32 old, __be32 new)
{
	return (__u64)(__u32)~old + new;
}

static __always_inline __u64 sum_diff16(__be16 old, __be16 new)
{
	return (__u64)(__u16)~old + new;
}

/* Of an address: IPv4 lies in the last word, the rest never changes. */
static __always_inline __u64 sum_diff_addr(const struct addr *old,
					   const struct addr *new, bool v6)
{
	__u64 diff = sum_diff32(old->w[3], new->w[3]);

	if (v6)
		diff += sum_diff32(old->w[0], new->w[0]) +
			sum_diff32(old->w[1], new->w[1]) +
			sum_diff32(old->w[2], new->w[2]);
	return diff;
}

/* A checksum field after the words under it changed by diff. */
static __always_inline __u16 sum_mend(__u16 check, __u64 diff)
{
	return ~sum_fold((__u64)(__u16)~check + diff);
}
