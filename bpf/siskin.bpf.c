//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "maps.h"

SEC("tc")
int siskin_ingress(struct __sk_buff *skb)
{
	return -1;
}

SEC("tc")
int siskin_egress(struct __sk_buff *skb)
{
	return -1;
}

SEC("syscall")
int siskin_start(void *ctx)
{
	return 0;
}

const volatile enum frontend_flag frontend_flags_type;
const volatile enum backend_flag backend_flags_type;
const volatile enum flow_flag flow_flags_type;
const volatile enum reason reason_type;
const volatile __be16 port_min = 0;
char LICENSE[] SEC("license") = "Dual BSD/GPL";
