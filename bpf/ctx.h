/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ctx.h: what the data path asks of the hook it runs on. Everything above
 * this layer is the same for every hook; a program includes the header of its
 * hook, ctx_tc.h or ctx_xdp.h, before all others, and that gives ctx_t, the
 * type of the context, and
 *
 *   CTX_NEXT, CTX_DROP        verdicts
 *   CTX_RESOLVES              whether the kernel asks for a neighbour that a
 *                             packet is sent to
 *   ctx_at(ctx, off, len)     pointer to packet bytes, or NULL; ends the life
 *                             of every pointer it returned before
 *   ctx_load(ctx, off, to, len)
 *                             copy packet bytes out, wherever they lie
 *   ctx_protocol(ctx, l3)     EtherType of what begins at l3, network order
 *   ctx_tagged(ctx)           a VLAN tag is kept beside the packet
 *   ctx_length(ctx)           bytes from the start of the packet
 *   ctx_segments(ctx)         packets on the wire that this one stands for
 *   ctx_segment_length(ctx, l3, payload)
 *                             bytes of the longest of them, from l3 on
 *   ctx_ifindex(ctx)          interface it is on
 *   ctx_ours(ctx)             the link layer addressed it to this host
 *   ctx_sent_here(ctx, port)  a socket of this host with that port sent it
 *   ctx_seen(ctx)             another hook of ours has dealt with it
 *   ctx_sums(ctx)             who vouches for the L4 checksum: enum sums
 *   ctx_mend(ctx, off, …)     change an L4 checksum where SUMS_KERNEL
 *   ctx_may_redirect(ctx, b)  whether packets may go to a backend past the
 *                             stack, as seen from this hook
 *   ctx_peer(b)               whether it may go right into a backend's
 * namespace ctx_send(ctx, hop)        send it by an interface: the verdict
 *   ctx_send_peer(ctx, index) send it into the namespace behind a veth
 *   CTX_COPIES                whether one packet can become two
 *   ctx_return(ctx, leaving)  send it to where it came from: the verdict
 *   ctx_return_copy(ctx, leaving)  send a copy there
 *   ctx_shrink(ctx, length)   cut its end off
 *   ctx_store(ctx, off, from, len)  write bytes anew, checksums apart
 *   ctx_partial(ctx, off)     the device does the L4 checksum that lies there
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

/* A tick is a jiffy: reading it costs nothing. It wraps, so compare by
 * difference. Limits are written in milliseconds; bpf.Spec converts them to
 * this kernel's ticks. */
static __always_inline __u32 now_ticks(void)
{
	return bpf_jiffies64();
}

/*
 * The verifier knows packet pointers only as what a 32-bit load from the
 * context gives, in a 64-bit register; the compiler would rather copy the low
 * halves about. So the two loads are spelled out.
 */
#define CTX_POINTER(ctx, field)                                                \
	({                                                                     \
		void *__p;                                                     \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                          \
			     : "=r"(__p)                                       \
			     : "r"(ctx),                                       \
			       "i"(__builtin_offsetof(ctx_t, field)));         \
		__p;                                                           \
	})

static __always_inline void *ctx_data(ctx_t *ctx)
{
	return CTX_POINTER(ctx, data);
}

static __always_inline void *ctx_end(ctx_t *ctx)
{
	return CTX_POINTER(ctx, data_end);
}

/* Whether a length is from 1 to `most`, in a way that the verifier follows: up
 * to Linux 6.7 it does not learn from a comparison with 0. */
static __always_inline bool length_within(__u32 *n, __u32 most)
{
	__u32 less = *n - 1;

	asm volatile("" : "+r"(less));
	if (less >= most)
		return false;
	*n = less + 1;
	return true;
}
