/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * types_release.h: the layouts of releases, and of what becomes of their flows:
 * part of types.h.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

/*
 * A lease: until when a weight word's weights count, in nanoseconds of boot
 * time; 0: for ever. User space moves the deadline on with a compare-and-swap.
 * When the kernel has taken the word back it sets one of these, and then nobody
 * can move it on any more.
 */
#define LEASE_TRIPPED (1ULL << 62) /* the breaker did */
#define LEASE_EXPIRED (1ULL << 63) /* nobody renewed it */
#define LEASE_OVER    (LEASE_TRIPPED | LEASE_EXPIRED)
#define LEASE_TRYING  (1ULL << 61) /* it did, and tries the version again */

enum event_kind {
	EVENT_EXPIRED = 1, /* a lease is over */
	EVENT_TRIPPED,	   /* a breaker is open */
};

/* What the kernel did by itself, told once. */
struct event {
	__u32 kind; /* enum event_kind */
	__u32 word;
	__u64 boot_ns;
	__u64 monotonic_ns; /* flows opened later were given to stable */
};

/*
 * What is watched on a weight word while a release runs. User space writes each
 * field with one store, started_ns last.
 */
struct release {
	__u64 started_ns; /* monotonic: flows that were opened before it carry
			   * no evidence. 0: no release runs */
	__u64 slow_ns[2]; /* an answer that takes longer is slow: stable's, the
			   * version's; 0: not watched */
	__u32 room;	  /* of its cells and breaker */
	__u32 step;	  /* 1 to 255 */
	__u32 version;	  /* slot */
	__u32 by_connection; /* a connection is a client of its own; else an
			      * IPv4 address or an IPv6 /64 is one */
	__u32 limit;	     /* the breaker's level that trips; 0: it is off */
	__u32 success;	     /* what a success takes out of its buckets */
	__u64 fails[4];	  /* bit n: an answer of status 400 + n is an error */
	__u32 fails_grpc; /* bit n: one of grpc-status n */
	__u32 pad;
	__u64 retry_ns; /* the breaker tries again after this; 0: never */
};

enum outcome_kind {
	OUTCOME_ERROR, /* the server failed */
	OUTCOME_SLOW,  /* an answer took too long, or is missing for too long */
	OUTCOME_SEEN,  /* none: the client's first flow in the release */
	OUTCOME_KINDS,
};

/* Key of `outcomes`: what clients met. */
struct outcome {
	__u32 word;
	__u16 segment; /* of the flow, like the next two */
	__u8 version;  /* slot */
	__u8 epoch;
	__u8 kind; /* enum outcome_kind */
	__u8 prev; /* the step in which the client met it last; 0: never */
	__u8 step; /* now */
	__u8 pad;
};

/* Answers to flows of a release, per CPU: stable's, the version's. */
struct success {
	__u64 of[2];
};

#define ERRING 8 /* clients that a bucket remembers */

struct erring {
	__u64 client;
	__u64 errors; /* since it is remembered; 0: the place is free */
};

/* A bucket of errors that successes drain (analysis/breaker.go). */
struct errors {
	__u64 drained; /* successes that it knows of */
	__u64 count;   /* errors, of all clients */
	__u32 level;
	__u32 next; /* place in the ring that is taken next */
	struct erring ring[ERRING];
};

/* The breaker of a release. */
struct breaker {
	struct bpf_spin_lock lock; /* of all that is below */
	__u32 tripped;		   /* it is open; else closed, or tries */
	__u64 boot_ns;		   /* when it tripped last */
	__u64 monotonic_ns;
	__u64 lost;	     /* outcomes for which there was no room */
	struct errors of[2]; /* stable, the version */
	__u32 trips;	     /* how often it has tripped */
	__u32 closed;	     /* and has closed again by itself */
	__u64 shares;	     /* of the word, before it tripped first */
	__u64 look_ns;	     /* monotonic: not tried, or judged, before */
	__u64 errors;	     /* of[1].count when the trial began */
	__u64 successes;     /* the version's, likewise */
};

/*
 * What becomes of the open flows of a weight word's versions, once the word was
 * taken back. The time from which they are cut is written first and last: while
 * the rest changes it is at the end of all days.
 */
struct cutoff {
	__u64 from_ns;	 /* monotonic: from then on they are cut */
	__u64 opened_ns; /* monotonic: it began then, and flows opened later are
			  * not meant */
	__u32 versions;	 /* bits of slots; 0: not in force */
	__u32 armed;	/* versions that the kernel cuts by itself when it takes
			 * the word back; 0: it keeps them all */
	__u64 grace_ns; /* how long it waits then */
	/* Of the cutoff in force, or the last one. */
	__u64 resets;	 /* TCP flows cut */
	__u64 resteered; /* UDP flows chosen again */
	__u64 last_ns;	 /* when the last of them was; 0: none yet */
	__u64 pad;
};
