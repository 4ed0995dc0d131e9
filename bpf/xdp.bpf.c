//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs for XDP: ingress at the driver, before the kernel has made a
 * packet of it. Maps and verdicts are those of siskin.bpf.c, whose egress
 * program goes with them: what is not sent past the stack leaves by that.
 */
#include "ctx_xdp.h"

#include "steer.h"

SEC("xdp")
int siskin_xdp(struct xdp_md *ctx)
{
	return ingress(ctx, ETH_HLEN);
}

/* What an empty program costs: the floor that benchmarks subtract. It also
 * lets a veth's peer receive what is redirected to it. */
SEC("xdp")
int siskin_xdp_empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
