/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ctx.h: what the data path asks of the hook it runs on. Everything above
 * this layer is the same for every hook; a hook is one header that gives
 *
 *   ctx_t                     the context type
 *   CTX_NEXT, CTX_DROP        verdicts
 *   ctx_at(ctx, off, len)     pointer to packet bytes, or NULL; ends the life
 *                             of every pointer it returned before
 *   ctx_protocol(ctx)         EtherType, network order
 *   ctx_length(ctx)           bytes from the start of the packet
 *   ctx_segments(ctx)         packets on the wire that this one stands for
 *   ctx_ifindex(ctx)          interface it is on
 *   ctx_ours(ctx)             the link layer addressed it to this host
 *   ctx_sums(ctx)             who vouches for the L4 checksum: enum sums
 *   ctx_mend(ctx, off, …)     change an L4 checksum where SUMS_KERNEL
 */
#pragma once

#include "types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

enum sums {
	SUMS_FULL,    /* the packet's own checksum: mend address and ports */
	SUMS_PARTIAL, /* pseudo-header only, the device does the rest: mend
		       * addresses, not complemented */
	SUMS_KERNEL, /* the kernel keeps a sum beside the packet: let it mend */
};

#include "ctx_tc.h"

#define TICK_SHIFT 20 /* a tick is 2^20 ns, about a millisecond */

/* Coarse time is 3 ns where the exact clock is 30. Wraps after 52 days, so
 * compare by difference. */
static __always_inline __u32 now_ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}
