/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * owed.h: which answers a server owes on a connection that speaks HTTP/1, as
 * far as that is known: not to half a request, and not where something that it
 * has said was missed.
 */
#pragma once

#include "table.h"

static __always_inline __u32 slot_index(const struct slot *s)
{
	return ((__u64)s - (__u64)slot_at(0)) / sizeof(*s);
}

/* Whether a flow's payload is read: then requests and answers are found there.
 */
static __always_inline bool reads(const struct flow *f)
{
	return (f->flags & (FLOW_READ | FLOW_UNREAD)) == FLOW_READ;
}

/* What is read of a flow that speaks HTTP/1; NULL: it does not. */
static __always_inline struct talk *talk_of(struct flow *f)
{
	__u32 index;
	struct talk *t;

	if (!reads(f))
		return NULL;
	index = slot_index(slot_of(f));
	t = bpf_map_lookup_elem(&talks, &index);
	return t && t->opened_ns == f->opened_ns && t->kind == TALK_HTTP1 ?
		       t :
		       NULL;
}

/* Whether the server has said what was not read. */
static __always_inline bool server_unread(const struct talk *t,
					  const struct flow *f)
{
	return (__s32)(f->server_next - t->of[1].next) > 0;
}

/* Whether it is known that requests of a talk are not answered: what the server
 * has said was read, and is not one body up to the end. */
static __always_inline bool talk_unanswered(const struct talk *t,
					    const struct flow *f)
{
	return t->of[1].state != READ_REST && !server_unread(t, f);
}

/* For how much of the ns since its first byte the request that is answered next
 * has waited for the server: not while the client was sending it. 0 where that
 * is not known. */
static __always_inline __u64 talk_waited(const struct talk *t, __u64 now,
					 __u64 ns)
{
	__u16 at = t->answered, waiting = *(volatile __u16 *)&t->asked - at;
	__u32 sent;

	if (!waiting || waiting > BEGUN || (waiting == 1 && t->sending))
		return 0;
	at %= BEGUN;
	sent = t->sent[at];
	return sent == t->begun[at] ? ns :
				      (__u64)((__u32)(now >> 10) - sent) << 10;
}

/* The flow is over, and what comes late has come. An answer that was missed is
 * lost. Where none was, and it was the server who went away first, there was
 * none to the request that was to be answered next; to those behind it nobody
 * owes one (RFC 9112 9.3.2). */
static __always_inline void talk_ends(struct flow *f)
{
	struct talk *t = talk_of(f);
	__u16 n;

	if (!t)
		return;
	n = t->asked - t->answered - !!t->sending;
	if (!n || n >> 15)
		return;
	if (t->of[1].state != READ_REST && server_unread(t, f))
		answers_count(f->backend, ANSWER_LOST, n);
	else if ((f->flags & (FLOW_SERVER_FIRST | FLOW_FAILED)) ==
		 FLOW_SERVER_FIRST)
		answers_count(f->backend, ANSWER_LOST, 1);
}
