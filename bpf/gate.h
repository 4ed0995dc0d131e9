/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * gate.h: what is in use. A bitmap is asked before anything is looked up: a bit
 * that is set may be another tuple's, one that is clear is sure.
 *
 * A look-up in a hash map costs three calls, so each CPU remembers what it
 * found, until user space changes something. A hash map also gives a replaced
 * element's memory to the next update, so that it may turn into another's while
 * it is read; but user space counts each change before it makes the next one,
 * so what was copied under one count is whole.
 */
#pragma once

#include "maps.h"
#include "parse.h"

enum gate_side { GATE_FRONTENDS, GATE_ENDPOINTS };

/* bpf/layout.go has the same. */
static __always_inline __u64 tuple_hash(const struct addr *addr, __be16 port,
					__u8 proto)
{
	const __be32 *w = addr->w;
	__u64 h = ((__u64)w[1] << 32 | w[0]) * 0x9e3779b97f4a7c15ULL;

	h ^= ((__u64)w[3] << 32 | w[2]) + ((__u32)port << 8 | proto);
	return h * 0xd6e8feb86659fd93ULL;
}

static __always_inline bool gate_bit(enum gate_side side, __u64 hash)
{
	__u32 words = size_of_map(&gate) / 2;
	__u64 at = (hash >> 32) * words >> 26; /* below words * 64 */
	__u32 index = side * words + (at >> 6);
	__u64 *word = bpf_map_lookup_elem(&gate, &index);

	return word && *word >> (at & 63) & 1;
}

static __always_inline bool gate_open(enum gate_side side,
				      const struct addr *addr, __be16 port,
				      __u8 proto)
{
	return gate_bit(side, tuple_hash(addr, port, proto));
}

static __always_inline __u32 changes_now(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&changes, &zero);

	return n ? *(volatile __u64 *)n : 0;
}

static __always_inline bool tuple_is(const struct tuple *t,
				     const struct addr *addr, __be16 port,
				     __u8 proto)
{
	return t->port == port && t->proto == proto &&
	       addr_same(&t->addr, addr);
}

static __always_inline void tuple_write(struct tuple *t,
					const struct addr *addr, __be16 port,
					__u8 proto)
{
	t->addr = *addr;
	t->port = port;
	t->proto = proto;
	t->pad = 0;
}

/* The endpoint of a tuple that the gate has let through. */
static __always_inline struct endpoint *endpoint_behind(const struct addr *addr,
							__be16 port, __u8 proto)
{
	__u32 slot = (__u32)tuple_hash(addr, port, proto) % MEMOS, change;
	struct endpoint_memo *memo;
	struct endpoint *ep;
	struct tuple at;

	change = changes_now();
	memo = bpf_map_lookup_elem(&endpoint_memos, &slot);
	if (!memo)
		return NULL;
	if (memo->change == change && tuple_is(&memo->at, addr, port, proto))
		return &memo->ep;
	tuple_write(&at, addr, port, proto);
	ep = bpf_map_lookup_elem(&endpoints, &at);
	if (!ep)
		return NULL;
	memo->ep = *ep;
	memo->at = at;
	barrier(); /* one that is not whole is no longer good */
	memo->change = change;
	return &memo->ep;
}

static __always_inline struct endpoint *endpoint_at(const struct addr *addr,
						    __be16 port, __u8 proto)
{
	return gate_open(GATE_ENDPOINTS, addr, port, proto) ?
		       endpoint_behind(addr, port, proto) :
		       NULL;
}

/* NULL: there is none. *whole is false where it changed while it was read. */
static __always_inline struct frontend *frontend_at(const struct addr *addr,
						    __be16 port, __u8 proto,
						    bool *whole)
{
	__u32 slot = (__u32)tuple_hash(addr, port, proto) % MEMOS, change;
	struct frontend_memo *memo;
	struct frontend *fe;
	struct tuple at;

	*whole = true;
	change = changes_now();
	memo = bpf_map_lookup_elem(&frontend_memos, &slot);
	if (!memo)
		return NULL;
	if (memo->change == change && tuple_is(&memo->at, addr, port, proto))
		return &memo->fe;
	tuple_write(&at, addr, port, proto);
	fe = bpf_map_lookup_elem(&frontends, &at);
	if (!fe)
		return NULL;
	memo->fe = *fe;
	memo->at = at;
	memo->change = change;
	barrier();
	*whole = changes_now() == change;
	return &memo->fe;
}
