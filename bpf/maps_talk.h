/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * maps_talk.h: the maps of what is read in connections: part of maps.h.
 */
#pragma once

#include "types.h"

#include <bpf/bpf_helpers.h>

/* Index: a flow's slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144); /* at load: as flows */
	__type(key, __u32);
	__type(value, struct talk);
} talks SEC(".maps");

#define SCAN 64	 /* bytes that are searched for a line's end at a time */
#define TEXT 512 /* and that are copied */

/* What a segment came to. */
struct came {
	__u32 failed;  /* answers that count as errors, */
	__u32 slow;    /* and that were slow */
	__u8 stop;     /* what follows is nothing that we know, */
	__u8 upgraded; /* as both sides have agreed */
	__u8 pad[6];
	__u64 now; /* 0: not asked yet */
};

/* Where a segment is read, with the line in hand. */
struct desk {
	__u8 line[2 * LINE]; /* its first LINE bytes */
	__u8 text[TEXT + SCAN];
	struct came came;
	__u32 base, have; /* the text: begins at, length */
	__u32 at, end;	  /* of the payload that is left, in the packet */
	__u32 ack;
	__u32 asks; /* it is the client's */
	__u32 slot;
	__u32 seq;  /* number of the byte at `end` */
	__u32 page; /* place of the kept segment that is read, plus 1; 0: the
		     * packet is */
	__u32 line_end; /* line.h */
	__u32 length;	/* of the line; ~0: more than is known */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct desk);
} desks SEC(".maps");

#define KEPT	 65536
#define KEPT_ADD 2048 /* the longest segment that is put behind another one */

/* A segment that came too early, and those that came behind it. */
struct kept {
	__u64 opened_ns; /* with slot and way: whose */
	__u32 slot;
	__u32 way;
	__u32 seq;
	__u32 length; /* 0: the place is free */
	__u32 since;  /* tick */
	__u32 busy;   /* a CPU has it */
	__u8 data[KEPT + KEPT_ADD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256); /* a power of two */
	__type(key, __u32);
	__type(value, struct kept);
} kept SEC(".maps");

/* Where a piece is put together. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct piece);
} envelopes SEC(".maps");

/* To user space, which decodes them and tells what it heard (heard.h). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} pieces SEC(".maps");
