/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* gate.h: the ports in use, asked before anything is looked up. */
#pragma once

#include "maps.h"
#include "parse.h"

enum gate_side { GATE_FRONTENDS, GATE_ENDPOINTS };

static __always_inline bool gate_open(enum gate_side side, __u8 proto,
				      __be16 port)
{
	__u32 p = bpf_ntohs(port);
	__u32 index =
		(2 * side + (proto == IPPROTO_UDP)) * GATE_WORDS + (p >> 6);
	__u64 *word = bpf_map_lookup_elem(&gate, &index);

	return word && *word >> (p & 63) & 1;
}

static __always_inline struct frontend *frontend_at(const struct addr *addr,
						    __be16 port, __u8 proto)
{
	struct tuple at = { .addr = *addr, .port = port, .proto = proto };

	if (!gate_open(GATE_FRONTENDS, proto, port))
		return NULL;
	return bpf_map_lookup_elem(&frontends, &at);
}

static __always_inline struct endpoint *endpoint_at(const struct addr *addr,
						    __be16 port, __u8 proto)
{
	struct tuple at = { .addr = *addr, .port = port, .proto = proto };

	if (!gate_open(GATE_ENDPOINTS, proto, port))
		return NULL;
	return bpf_map_lookup_elem(&endpoints, &at);
}
