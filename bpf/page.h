/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * page.h: what is read: the packet, and after it the segments that came too
 * early and were kept until it came. A segment has eight places where it may be
 * kept; who finds none of them free, or another's that has waited for longer
 * than a segment takes to be sent again, is missed. So nobody holds all places
 * for long, and what clients send early takes none of the servers'.
 */
#pragma once

#include "talk.h"

#define PLACES 8

const volatile __u32 kept_age = 100; /* ms; once loaded in ticks */

/* A place that a direction of a flow's may have, of PLACES. */
static __always_inline struct kept *kept_at(const struct desk *k, __u32 place)
{
	__u32 at = (k->slot * 0x9e3779b1) >> 8, half = size_of_map(&kept) / 2;

	at = ((at + place) & (half - 1)) + (k->asks ? half : 0);
	return bpf_map_lookup_elem(&kept, &at);
}

static __always_inline bool kept_mine(const struct reading *g,
				      const struct kept *e)
{
	return e->length && e->opened_ns == g->f->opened_ns &&
	       e->slot == g->desk->slot && e->way == g->desk->asks;
}

/* It is this direction's and was read to its end. */
static __always_inline bool kept_read(const struct reading *g,
				      const struct kept *e)
{
	return kept_mine(g, e) &&
	       (__s32)(g->r->next - e->seq) >= (__s32)e->length;
}

/* It is another's and waits for too long: whoever needs its place has it. */
static __always_inline bool kept_old(const struct reading *g,
				     const struct kept *e)
{
	return now_ticks() - e->since >= kept_age && !kept_mine(g, e);
}

/* One CPU at a time writes into a place, or reads there. */
static __always_inline bool kept_take(struct kept *e)
{
	return !__sync_val_compare_and_swap(&e->busy, 0, 1);
}

static __always_inline void kept_give(struct kept *e)
{
	__sync_lock_test_and_set(&e->busy, 0);
}

enum keep {
	KEEP_NOWHERE,
	KEEP_OLD,  /* in the place of another's that waits for too long */
	KEEP_NEW,  /* in a free place */
	KEEP_ADD,  /* behind the segment that ends where this one begins */
	KEEP_HAVE, /* it is there already */
};

/* Where a segment is to be kept: *place. */
static __always_inline enum keep kept_place(const struct reading *g, __u32 seq,
					    __u32 length, __u32 *place)
{
	enum keep keep = KEEP_NOWHERE;
	struct kept *e;

	for (int i = 0; i < PLACES; i++) {
		e = kept_at(g->desk, i);
		if (!e)
			return KEEP_NOWHERE;
		if (!e->length || kept_read(g, e)) {
			if (keep < KEEP_NEW) {
				*place = i;
				keep = KEEP_NEW;
			}
		} else if (kept_mine(g, e) && seq - e->seq < e->length &&
			   seq - e->seq + length <= e->length) {
			return KEEP_HAVE;
		} else if (kept_mine(g, e) && seq - e->seq == e->length &&
			   length <= KEPT_ADD && e->length < KEPT) {
			*place = i;
			keep = KEEP_ADD;
		} else if (keep == KEEP_NOWHERE && kept_old(g, e)) {
			*place = i;
			keep = KEEP_OLD;
		}
	}
	return keep;
}

/* Copy the packet's segment to a kept one's end, or into a new one. */
static __always_inline bool kept_write(struct reading *g, struct kept *e,
				       enum keep keep, __u32 seq)
{
	struct desk *k = g->desk;
	__u32 n = k->end - k->at, at = e->length & (KEPT - 1);

	/* It was another CPU's until now. */
	if (keep == KEEP_ADD && (!kept_mine(g, e) || seq - e->seq != e->length))
		return false;
	if (keep != KEEP_ADD && e->length && !kept_read(g, e) &&
	    !kept_old(g, e))
		return false;
	if (keep == KEEP_ADD) {
		if (!length_within(&n, KEPT_ADD) ||
		    ctx_load(g->ctx, k->at, e->data + at, n))
			return false;
		e->length += n;
		return true;
	}
	e->opened_ns = g->f->opened_ns;
	e->slot = k->slot;
	e->way = k->asks;
	e->seq = seq;
	e->since = now_ticks();
	e->length = 0;
	if (!length_within(&n, KEPT) || ctx_load(g->ctx, k->at, e->data, n))
		return false;
	e->length = n;
	return true;
}

/* Keep the packet's segment. */
static __always_inline bool page_keep(struct reading *g, __u32 seq)
{
	struct desk *k = g->desk;
	__u32 length = k->end - k->at, place = 0;
	struct kept *e;
	enum keep keep;
	bool kept;

	if (length > KEPT)
		return false;
	keep = kept_place(g, seq, length, &place);
	if (keep == KEEP_HAVE)
		return true;
	e = keep ? kept_at(k, place) : NULL;
	if (!e || !kept_take(e))
		return false;
	kept = kept_write(g, e, keep, seq);
	kept_give(e);
	g->r->flags |= READER_KEPT;
	return kept;
}

/* Give back the kept segment that is read. */
static __always_inline void page_close(struct reading *g)
{
	struct desk *k = g->desk;
	struct kept *e;

	if (!k->page)
		return;
	e = kept_at(k, k->page - 1);
	if (e)
		kept_give(e);
	k->page = 0;
}

/* Turn to a kept segment that has the next byte. False: there is none. */
static __always_inline bool page_turn(struct reading *g)
{
	struct desk *k = g->desk;
	__u32 next = g->r->next;
	bool waits = false;
	struct kept *e;
	__s32 skip;

	page_close(g);
	if (!(g->r->flags & READER_KEPT))
		return false;
	for (int i = 0; i < PLACES; i++) {
		e = kept_at(k, i);
		if (!e || !kept_mine(g, e))
			continue;
		if (!kept_take(e)) {
			waits = true; /* or is just lost to another */
			continue;
		}
		skip = next - e->seq;
		if (!kept_mine(g, e)) {
			; /* it was taken over just now */
		} else if (skip >= (__s32)e->length) {
			e->length = 0; /* an old one */
		} else if (skip < 0) {
			waits = true;
		} else {
			k->page = i + 1;
			k->have = 0;
			k->at = skip;
			k->end = e->length;
			k->seq = e->seq + e->length;
			return true;
		}
		kept_give(e);
	}
	if (!waits)
		g->r->flags &= ~READER_KEPT;
	return false;
}

/* The page is read to its end. False: there is no other one to read. */
static __always_inline bool page_end(struct reading *g)
{
	g->r->next = g->desk->seq;
	return page_turn(g);
}

/* Copy what is at `at` on the page. */
static __always_inline long page_load(struct reading *g, void *to, __u32 n)
{
	struct desk *k = g->desk;
	struct kept *e;
	__u32 at;

	if (!k->page)
		return ctx_load(g->ctx, k->at, to, n);
	e = kept_at(k, k->page - 1);
	at = k->at;
	asm volatile("" : "+r"(at));
	if (!e || !kept_mine(g, e) || at >= KEPT + KEPT_ADD)
		return -1;
	return bpf_probe_read_kernel(to, n, e->data + at);
}
