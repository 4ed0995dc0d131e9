/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ctx_tc.h: the context layer on tc: tcx, and clsact before Linux 6.6. */
#pragma once

#include <linux/bpf.h>

typedef struct __sk_buff ctx_t;

#include "ctx.h"

#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>

#define CTX_NEXT     -1 /* TCX_NEXT, and TC_ACT_UNSPEC: ask the next program */
#define CTX_DROP     2	/* TCX_DROP, TC_ACT_SHOT */

#define CTX_RESOLVES true
#define CTX_COPIES   true

/* Of the kernel's sk_buff, only what is read; offsets are relocated. */
struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

/* Linux 6.2; before that the helpers mend the checksums. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

static __always_inline void *ctx_at(ctx_t *ctx, __u32 off, __u32 len)
{
	__u64 at = off;
	void *p;

	/* Headers end within 255 bytes; the mask is for the verifier. */
	asm volatile("%0 &= 0xff" : "+r"(at));
	p = CTX_POINTER(ctx, data) + at;
	if (p + len <= CTX_POINTER(ctx, data_end))
		return p;
	/* The header may lie in a fragment of the buffer: pull it in. */
	if (at + len > ctx->len || bpf_skb_pull_data(ctx, at + len))
		return NULL;
	p = CTX_POINTER(ctx, data) + at;
	return p + len <= CTX_POINTER(ctx, data_end) ? p : NULL;
}

static __always_inline long ctx_load(ctx_t *ctx, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes(ctx, off, to, len);
}

/* What the kernel says of a tagged frame is the type of the tag that is left in
 * the packet; the outermost one lies beside it. */
static __always_inline __be16 ctx_protocol(ctx_t *ctx, __u32 l3)
{
	__be16 *type;

	if (l3 <= ETH_HLEN)
		return ctx->protocol;
	type = ctx_at(ctx, l3 - 2, 2);
	return type ? *type : 0;
}

static __always_inline bool ctx_tagged(ctx_t *ctx)
{
	return ctx->vlan_present;
}

static __always_inline __u32 ctx_length(ctx_t *ctx)
{
	return ctx->len;
}

static __always_inline __u32 ctx_segments(ctx_t *ctx)
{
	return ctx->gso_segs ?: 1;
}

static __always_inline __u32 ctx_segment_length(ctx_t *ctx, __u32 l3,
						__u32 payload)
{
	__u32 length = ctx->len - l3;

	return ctx->gso_size ? length - payload + ctx->gso_size : length;
}

static __always_inline __u32 ctx_ifindex(ctx_t *ctx)
{
	return ctx->ifindex;
}

static __always_inline bool ctx_ours(ctx_t *ctx)
{
	return ctx->pkt_type == 0; /* PACKET_HOST */
}

static __always_inline bool ctx_sent_here(ctx_t *ctx, __be16 port)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->src_port == bpf_ntohs(port); /* host order */
}

/*
 * A packet that was sent past the stack meets the hook at the egress of the
 * interface it leaves by, and is done with already.
 */
#define CTX_SEEN 0x5153

static __always_inline bool ctx_seen(ctx_t *ctx)
{
	if (ctx->tc_index != CTX_SEEN)
		return false;
	ctx->tc_index = 0;
	return true;
}

static __always_inline bool ctx_may_redirect(ctx_t *ctx,
					     const struct backend *b)
{
	return b->flags & BACKEND_REDIRECT && !ctx->vlan_present;
}

static __always_inline bool ctx_peer(const struct backend *b)
{
	return b->flags & BACKEND_PEER;
}

static __always_inline int ctx_send(ctx_t *ctx, const struct hop *hop)
{
	ctx->tc_index = CTX_SEEN;
	if (hop->flags & HOP_UNRESOLVED)
		return bpf_redirect_neigh(hop->ifindex, NULL, 0, 0);
	return bpf_redirect(hop->ifindex, 0);
}

static __always_inline int ctx_send_peer(ctx_t *ctx, __u32 ifindex)
{
	return bpf_redirect_peer(ifindex, 0);
}

/* Back to where it came from: out by the interface that it came in by, or, at
 * egress, in by the one that it leaves by. */
static __always_inline int ctx_return(ctx_t *ctx, bool leaving)
{
	if (leaving)
		return bpf_redirect(ctx->ifindex, BPF_F_INGRESS);
	ctx->tc_index = CTX_SEEN;
	return bpf_redirect(ctx->ifindex, 0);
}

static __always_inline void ctx_return_copy(ctx_t *ctx, bool leaving)
{
	if (leaving) {
		bpf_clone_redirect(ctx, ctx->ifindex, BPF_F_INGRESS);
		return;
	}
	ctx->tc_index = CTX_SEEN;
	bpf_clone_redirect(ctx, ctx->ifindex, 0);
	ctx->tc_index = 0;
}

/* Cut off what lies behind `length`. A large aggregate becomes one packet. */
static __always_inline int ctx_shrink(ctx_t *ctx, __u32 length)
{
	return bpf_skb_change_tail(ctx, length, 0);
}

/* Write, and keep a sum that the kernel has beside the packet. */
static __always_inline int ctx_store(ctx_t *ctx, __u32 off, const void *from,
				     __u32 len)
{
	return bpf_skb_store_bytes(ctx, off, from, len, BPF_F_RECOMPUTE_CSUM);
}

/*
 * Whether the device does the L4 checksum at `off`: then the helper changes it
 * for addresses only. Asked like this since ctx_sums needs Linux 6.2.
 */
static __always_inline bool ctx_partial(ctx_t *ctx, __u32 off)
{
	__u16 *check = ctx_at(ctx, off, 2), before;

	if (!check)
		return false;
	before = *check;
	if (bpf_l4_csum_replace(ctx, off, 0, 1, 2))
		return false;
	check = ctx_at(ctx, off, 2);
	if (check && *check == before)
		return true;
	bpf_l4_csum_replace(ctx, off, 1, 0, 2);
	return false;
}

static __always_inline enum sums ctx_sums(ctx_t *ctx)
{
	struct sk_buff *skb;

	if (!bpf_cast_to_kern_ctx)
		return SUMS_KERNEL;
	skb = bpf_cast_to_kern_ctx(ctx);
	switch (BPF_CORE_READ_BITFIELD(skb, ip_summed)) {
	case 3: /* CHECKSUM_PARTIAL */
		return SUMS_PARTIAL;
	case 2: /* CHECKSUM_COMPLETE */
		return SUMS_KERNEL;
	default:
		return SUMS_FULL;
	}
}

/*
 * Apply ones' complement differences to the L4 checksum at `off`. With the
 * pseudo-header flag the helper takes the addresses out of a sum kept beside
 * the packet, which over IPv6 must stay as it is: there nothing but the
 * checksum itself balances the addresses. So they are put back.
 */
static __always_inline int ctx_mend(ctx_t *ctx, __u32 off, __u32 addrs,
				    __u32 ports, bool v6, bool udp)
{
	__u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;

	if (addrs &&
	    bpf_l4_csum_replace(ctx, off, 0, addrs, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (addrs && v6)
		bpf_csum_update(ctx, addrs);
	if (ports && bpf_l4_csum_replace(ctx, off, 0, ports, flags))
		return -1;
	return 0;
}
