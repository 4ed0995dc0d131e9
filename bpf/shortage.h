/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * shortage.h: what is remembered of an endpoint that runs short of source
 * ports, so that searching for one costs no more than it brings.
 *
 * A search over the whole range takes a millisecond for 4,536 ports. Where
 * nothing is free, which is the ordinary state of a backend that opens and
 * closes more connections in a minute than there are ports, and of any under a
 * flood, that must not happen for each SYN. So:
 *
 *   - Once the whole range was seen in vain, a free port is looked for in a
 *     sample of it only, until port_pause is over. Among the ports of the
 *     sample there is nearly always one to take over, mostly the first.
 *   - Where in the whole range there was not even one of those, nothing is
 *     looked at but the ports that were given back since. When more of them
 *     come than are remembered, a search is worth its while again.
 *
 * So between two pauses a search of the whole range either finds a port, or
 * follows a dozen that were given back. And in a second the programs look in
 * vain at no more ports than there are flows, since there is one behind each
 * port: however many backends are short, and however long the range is.
 *
 * It is kept by endpoint and protocol, so that a busy backend does not keep
 * another one from searching. CPUs write it without a lock: what is lost is
 * found when the pause is over.
 */
#pragma once

#include "count.h"
#include "ctx.h"

/* ms, once loaded ticks, between two searches over the whole range. A client
 * repeats its SYN after a second. */
const volatile __u32 port_pause = 1000;

static __always_inline struct shortage *shortage_of(__u32 endpoint, bool udp)
{
	__u32 index = 2 * endpoint + udp;

	return bpf_map_lookup_elem(&shortages, &index);
}

/* Whether the whole range was seen in vain a moment ago. */
static __always_inline bool shortage_lasts(const struct shortage *s)
{
	return s->searched && now_ticks() - s->searched < port_pause;
}

/* The whole range was seen in vain. */
static __always_inline void shortage_begin(struct shortage *s, bool exhausted)
{
	s->searched = now_ticks() ?: 1;
	s->exhausted = exhausted;
	s->backs = 0;
}

/* A port can be had again. */
static __always_inline void shortage_ease(__u32 endpoint, bool udp, __be16 port)
{
	struct shortage *s = shortage_of(endpoint, udp);
	__u32 n;

	if (!s || !s->exhausted)
		return;
	n = s->backs;
	if (n < PORT_BACKS) {
		s->back[n] = port;
		s->backs = n + 1;
	} else {
		s->exhausted = false;
	}
}

/* A port that was given back; 0: none. */
static __always_inline __be16 shortage_back(struct shortage *s)
{
	__u32 n = s->backs - 1;

	if (n >= PORT_BACKS)
		return 0;
	s->backs = n;
	return s->back[n];
}
