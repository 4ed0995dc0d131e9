/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ctx_xdp.h: the context layer on XDP: frames as the driver received them. */
#pragma once

#include <linux/bpf.h>

typedef struct xdp_md ctx_t;

#include "ctx.h"

#include <linux/if_ether.h>

#define CTX_NEXT     XDP_PASS
#define CTX_DROP     XDP_DROP

#define CTX_RESOLVES false
#define CTX_COPIES   false

/* Everything is in one piece: the program does not take frames of several. */
static __always_inline void *ctx_at(ctx_t *ctx, __u32 off, __u32 len)
{
	__u64 at = off;
	void *p;

	asm volatile("%0 &= 0xff" : "+r"(at));
	p = ctx_data(ctx) + at;
	return p + len <= ctx_end(ctx) ? p : NULL;
}

static __always_inline long ctx_load(ctx_t *ctx, __u32 off, void *to, __u32 len)
{
	return bpf_xdp_load_bytes(ctx, off, to, len);
}

/* VLAN tags lie in the frame. */
static __always_inline __be16 ctx_protocol(ctx_t *ctx, __u32 l3)
{
	__be16 *type = ctx_at(ctx, l3 - 2, 2);

	return type ? *type : 0;
}

static __always_inline bool ctx_tagged(ctx_t *ctx)
{
	return false;
}

static __always_inline __u32 ctx_length(ctx_t *ctx)
{
	return ctx_end(ctx) - ctx_data(ctx);
}

static __always_inline __u32 ctx_segments(ctx_t *ctx)
{
	return 1;
}

static __always_inline __u32 ctx_segment_length(ctx_t *ctx, __u32 l3,
						__u32 payload)
{
	return ctx_length(ctx) - l3;
}

static __always_inline __u32 ctx_ifindex(ctx_t *ctx)
{
	return ctx->ingress_ifindex;
}

/* A card hands over what is addressed to it and to groups; one that listens to
 * everything, a bridge's port, needs the hook on the bridge. */
static __always_inline bool ctx_ours(ctx_t *ctx)
{
	__u8 *to = ctx_at(ctx, 0, ETH_HLEN);

	return to && !(to[0] & 1);
}

static __always_inline bool ctx_sent_here(ctx_t *ctx, __be16 port)
{
	return false;
}

static __always_inline bool ctx_seen(ctx_t *ctx)
{
	return false;
}

static __always_inline int ctx_return(ctx_t *ctx, bool leaving)
{
	return XDP_TX;
}

static __always_inline void ctx_return_copy(ctx_t *ctx, bool leaving)
{
}

static __always_inline int ctx_shrink(ctx_t *ctx, __u32 length)
{
	return bpf_xdp_adjust_tail(ctx, (int)(length - ctx_length(ctx)));
}

static __always_inline int ctx_store(ctx_t *ctx, __u32 off, const void *from,
				     __u32 len)
{
	return bpf_xdp_store_bytes(ctx, off, (void *)from, len);
}

static __always_inline bool ctx_partial(ctx_t *ctx, __u32 off)
{
	return false;
}

/* The wire has whole checksums. */
static __always_inline enum sums ctx_sums(ctx_t *ctx)
{
	return SUMS_FULL;
}

static __always_inline int ctx_mend(ctx_t *ctx, __u32 off, __u32 addrs,
				    __u32 ports, bool v6, bool udp)
{
	return -1;
}

static __always_inline bool ctx_may_redirect(ctx_t *ctx,
					     const struct backend *b)
{
	return b->flags & BACKEND_XDP;
}

static __always_inline bool ctx_peer(const struct backend *b)
{
	return false;
}

static __always_inline int ctx_send(ctx_t *ctx, const struct hop *hop)
{
	return hop->ifindex == ctx->ingress_ifindex ?
		       XDP_TX :
		       (int)bpf_redirect(hop->ifindex, 0);
}

static __always_inline int ctx_send_peer(ctx_t *ctx, __u32 ifindex)
{
	return XDP_DROP;
}
