/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * cutoff.h: open connections of a version that was taken back. They keep their
 * backend, unless a cutoff is in force for their weight word: then the next
 * packet of a TCP flow, from either end, ends it (reset.h), and a client's next
 * datagram chooses again (admit.h). What is silent stays until it speaks.
 */
#pragma once

#include "maps.h"

#include <bpf/bpf_helpers.h>
#include <stdbool.h>

/* Whether the flow may be meant by a cutoff: what every packet asks. Stable's
 * never are. */
static __always_inline bool cutoff_near(const struct flow *f)
{
	__u32 zero = 0;
	__u64 *n;

	if (!f->version)
		return false;
	n = bpf_map_lookup_elem(&cutting, &zero);
	return f->flags & FLOW_CUT || (n && *(volatile __u64 *)n);
}

/* Whether it is. */
static __always_inline bool cutoff_meant(struct cutoff *c, const struct flow *f)
{
	if (!(*(volatile __u32 *)&c->versions >> (f->version & 31) & 1) ||
	    f->opened_ns >= *(volatile __u64 *)&c->opened_ns)
		return false;
	/* Read last: a fetching atomic is a barrier. */
	return bpf_ktime_get_ns() >= __sync_fetch_and_add(&c->from_ns, 0);
}

static __always_inline struct cutoff *cutoff_of(const struct flow *f)
{
	__u32 word = f->word;

	return bpf_map_lookup_elem(&cutoffs, &word);
}

/* Whether a datagram's flow is to be chosen again. */
static __always_inline bool cutoff_resteers(const struct flow *f)
{
	struct cutoff *c = cutoff_near(f) ? cutoff_of(f) : NULL;

	if (!c || !cutoff_meant(c, f))
		return false;
	__sync_fetch_and_add(&c->resteered, 1);
	c->last_ns = bpf_ktime_get_ns();
	return true;
}

/*
 * Begin a cutoff of what was armed for a word, after the word was zeroed: for
 * when nobody but the kernel takes it back. bpf/cutoffs.go does the same.
 */
__noinline int cutoff_start(__u32 word)
{
	struct cutoff *c = bpf_map_lookup_elem(&cutoffs, &word);
	__u32 zero = 0, armed, old;
	__u64 *n, now;

	n = bpf_map_lookup_elem(&cutting, &zero);
	armed = c ? *(volatile __u32 *)&c->armed : 0;
	if (!n || !armed)
		return 0;
	now = bpf_ktime_get_ns();
	__sync_lock_test_and_set(&c->from_ns, ~0ULL);
	c->opened_ns = now;
	c->resets = 0;
	c->resteered = 0;
	c->last_ns = 0;
	old = __sync_fetch_and_or(&c->versions, armed);
	if (!old)
		__sync_fetch_and_add(n, 1);
	__sync_lock_test_and_set(&c->from_ns, now + c->grace_ns);
	return 1;
}
