/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * fragment.h: only the first fragment of a datagram has ports. What was done
 * to its addresses is remembered for the others.
 */
#pragma once

#include "count.h"
#include "nat.h"
#include "track.h"

/* ms, once loaded ticks: numbers come round, RFC 791 waits 15 s. */
const volatile __u32 fragment_age = 30000;

static __always_inline struct fragment_key fragment_key_of(
	const struct packet *p, bool egress)
{
	struct fragment_key key = {
		.src = p->src,
		.dst = p->dst,
		.id = p->fragment_id,
		.proto = p->proto,
		.egress = egress,
	};
	return key;
}

__noinline int fragment_remember(const struct packet *p,
				 const struct rewrite *to, __u32 egress,
				 __u32 backend, __u32 direction)
{
	struct fragment_key key;
	struct fragment as = {};

	if (!p || !to)
		return 0;
	key = fragment_key_of(p, egress);
	as.src = to->src;
	as.dst = to->dst;
	as.backend = backend;
	as.direction = direction;
	as.seen = now_ticks();
	bpf_map_update_elem(&fragments, &key, &as, BPF_ANY);
	return 0;
}

/* A first fragment that is not ours ends what its number stood for. */
__noinline int fragment_forget(const struct packet *p, __u32 egress)
{
	struct fragment_key key;

	if (!p)
		return 0;
	key = fragment_key_of(p, egress);
	bpf_map_delete_elem(&fragments, &key);
	return 0;
}

/* A later fragment: as the first one. */
__noinline int fragment_follow(ctx_t *ctx, const struct packet *p, __u32 egress)
{
	struct fragment_key key;
	struct fragment *as;
	struct rewrite to;
	struct tally *t;

	if (!p)
		return CTX_NEXT;
	key = fragment_key_of(p, egress);
	as = bpf_map_lookup_elem(&fragments, &key);
	if (!as || now_ticks() - as->seen > fragment_age) {
		count_reason(PASS_FRAGMENT);
		return CTX_NEXT;
	}
	rewrite_nothing(&to, p);
	to.src = as->src;
	to.dst = as->dst;
	/* Each packet is counted once: at the hook that counted the first. */
	if (as->direction != COUNTED_ELSEWHERE) {
		t = tally_of(as->backend);
		if (t)
			t->packets[as->direction & 1]++;
	}
	if (nat(ctx, p, &to)) {
		count_reason(DROP_REWRITE);
		return CTX_DROP;
	}
	return CTX_NEXT;
}
