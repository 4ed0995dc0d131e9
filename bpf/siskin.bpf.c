//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs at tc. At ingress a destination is rewritten, at egress a
 * source:
 *
 *            ingress                       egress
 *   client → frontend becomes backend      client becomes the host (source NAT)
 *   client ← the host becomes the client   backend becomes frontend
 *            (source NAT)
 *
 * A packet that the stack was given with one of the host's own addresses as
 * its source would be a martian, so sources wait until the stack is done.
 * Whatever is not ours goes on untouched.
 */
#include "ctx_tc.h"

#include "age.h"
#include "heard.h"
#include "steer.h"

SEC("tc")
int siskin_ingress(struct __sk_buff *skb)
{
	return ingress(skb, ETH_HLEN);
}

SEC("tc")
int siskin_egress(struct __sk_buff *skb)
{
	return egress(skb, ETH_HLEN);
}

/* For interfaces without a link-layer header: tunnels, WireGuard. */
SEC("tc")
int siskin_ingress_l3(struct __sk_buff *skb)
{
	return ingress(skb, 0);
}

SEC("tc")
int siskin_egress_l3(struct __sk_buff *skb)
{
	return egress(skb, 0);
}

/* What an empty program costs: the floor that benchmarks subtract. */
SEC("tc")
int siskin_empty(struct __sk_buff *skb)
{
	return CTX_NEXT;
}

/* Run once after loading, by BPF_PROG_TEST_RUN: starts the timer. Of type tc,
 * since a timer's callback may call what its program's type may, and syscall
 * programs have no coarse clock. */
SEC("tc")
int siskin_start(struct __sk_buff *skb)
{
	return age_start();
}

/* Run by user space with what it heard. */
SEC("tc")
int siskin_heard(struct __sk_buff *skb)
{
	return heard_all(skb);
}

/* For the generated Go types and constants. */
const volatile enum frontend_flag frontend_flag_type;
const volatile enum backend_flag backend_flag_type;
const volatile enum flow_flag flow_flag_type;
const volatile enum slot_use slot_use_type;
const volatile struct event event_type;
const volatile enum event_kind event_kind_type;
const volatile enum outcome_kind outcome_kind_type;
const volatile enum reason reason_type;
const volatile enum answer answer_type;
const volatile enum talk_kind talk_kind_type;
const volatile enum piece_flag piece_flag_type;
const volatile struct heard heard_type;
const volatile enum heard_what heard_what_type;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
