//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs for XDP: ingress at the driver, before the kernel has made a
 * packet of it. The maps are those of siskin.bpf.c.
 */
#include "maps.h"

#include <bpf/bpf_helpers.h>

const volatile __u16 port_min = 61000;
const volatile __u16 port_max = 65535;

SEC("xdp")
int siskin_xdp(struct xdp_md *ctx)
{
	__u32 first = 0;

	/* So far only what tells whether it was loaded as it should be. */
	if (port_min > port_max || !bpf_map_lookup_elem(&gate, &first))
		return XDP_ABORTED;
	return XDP_PASS;
}

/* What an empty program costs: the floor that benchmarks subtract. It also
 * lets a veth's peer receive what is redirected to it. */
SEC("xdp")
int siskin_xdp_empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
