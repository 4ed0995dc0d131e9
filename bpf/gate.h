/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * gate.h: what is in use, asked before anything is looked up. A bit that is set
 * may be another tuple's, then the look-up finds nothing; one that is clear is
 * sure. bpf/layout.go has the same hash.
 */
#pragma once

#include "maps.h"
#include "parse.h"

enum gate_side { GATE_FRONTENDS, GATE_ENDPOINTS };

static __always_inline bool gate_open(enum gate_side side,
				      const struct addr *addr, __be16 port,
				      __u8 proto)
{
	const __be32 *w = addr->w;
	__u64 h = ((__u64)w[1] << 32 | w[0]) * 0x9e3779b97f4a7c15ULL;
	__u64 *word;
	__u32 at, index;

	h ^= ((__u64)w[3] << 32 | w[2]) + ((__u32)port << 8 | proto);
	h *= 0xd6e8feb86659fd93ULL;
	at = h >> (64 - GATE_SHIFT);
	index = side * GATE_WORDS + (at >> 6);
	word = bpf_map_lookup_elem(&gate, &index);
	return word && *word >> (at & 63) & 1;
}

static __always_inline struct endpoint *endpoint_at(const struct addr *addr,
						    __be16 port, __u8 proto)
{
	struct tuple at = { .addr = *addr, .port = port, .proto = proto };

	if (!gate_open(GATE_ENDPOINTS, addr, port, proto))
		return NULL;
	return bpf_map_lookup_elem(&endpoints, &at);
}
