/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * maps.h: every map; those of what is read are in maps_talk.h.
 * docs/architecture.md has the map of the maps. Sizes marked "at load" are set
 * by the loader.
 */
#pragma once

#include "types.h"

#include <bpf/bpf_helpers.h>

/* What is in use, by hashes of (address, port, protocol): one half for the
 * frontends, one for the endpoints. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2048); /* at load: eight bits for each of them */
	__type(key, __u32);
	__type(value, __u64);
} gate SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* at load */
	__type(key, struct tuple);
	__type(value, struct frontend);
} frontends SEC(".maps");

/* Frontend id to its address, for replies. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024); /* at load */
	__type(key, __u32);
	__type(value, struct tuple);
} vips SEC(".maps");

/* Virtual addresses: they answer echo requests. The value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* at load: as frontends */
	__type(key, struct addr);
	__type(value, __u32);
} echoes SEC(".maps");

/* The weight words. User space writes them through mmap: one aligned store. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* at load */
	__type(key, __u32);
	__type(value, __u64);
} words SEC(".maps");

/* By weight word. User space and the kernel change them by compare-and-swap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* at load: as words */
	__type(key, __u32);
	__type(value, __u64);
} leases SEC(".maps");

/* Who has the cells and the breaker of each room: the word under release, plus
 * 1. The timer looks at their leases. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16); /* at load */
	__type(key, __u32);
	__type(value, __u64);
} rooms SEC(".maps");

/* Who waits for them is woken; who does not finds the same in the maps. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} events SEC(".maps");

/* By weight word. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* at load: as words */
	__type(key, __u32);
	__type(value, struct release);
} releases SEC(".maps");

#define CELLS_SHIFT 18			     /* clients of a room and kind */
#define CELLS_WORDS (1 << (CELLS_SHIFT - 3)) /* eight in a value */

/* The step in which each client, by a hash, met each kind of outcome last. One
 * byte a client; index: (room, kind, hash). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16 * OUTCOME_KINDS * CELLS_WORDS); /* at load */
	__type(key, __u32);
	__type(value, __u64);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16 * 1024); /* at load */
	__type(key, struct outcome);
	__type(value, __u64);
} outcomes SEC(".maps");

/* By room, like the next. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16); /* at load */
	__type(key, __u32);
	__type(value, struct success);
} successes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16); /* at load */
	__type(key, __u32);
	__type(value, struct breaker);
} breakers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 20); /* at load */
	__type(key, __u32);
	__type(value, __u32);
} maglev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096); /* at load */
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* The next hop to each backend, for packets that go past the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096); /* at load: as backends */
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192); /* at load: two protocols a backend */
	__type(key, struct tuple);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/* By weight word. User space changes them through mmap, too. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* at load: as words */
	__type(key, __u32);
	__type(value, struct cutoff);
} cutoffs SEC(".maps");

/* How many of them are in force: while none is, nobody looks at them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} cutting SEC(".maps");

/* What a packet would be given. */
struct choice {
	__u32 backend;
	__u8 version;
	__u8 epoch;
	__u16 weighed; /* by a weight word that is not zero, and nothing else */
};

/* A search for a source port. */
struct search {
	__u32 start;
	__u32 step;
	__u32 at; /* tries in the range */
	__u32 tries;
	__u32 hold; /* enum port_hold: of the best port to take over */
	__s32 idle; /* ticks: for so long its flow has been silent */
	__be16 best;
	__u8 free; /* where the search stands */
	__u8 pad[5];
};

/* What is booked when the stack has room for it again: see book_due. */
enum due { DUE_ERROR = 1, DUE_SEEN = 2 };

/* Where a new flow is put together: more than fits on the stack. Programs run
 * with softirqs off, so one packet at a time on a CPU. */
struct draft {
	struct flow_key key;
	struct flow_key other; /* room to look for one that has its port */
	struct alias other_alias;
	struct alias alias;
	struct choice choice;
	__u32 slot;   /* of the flow that was made or found */
	__u64 judged; /* opened_ns of the one that is to be replaced */
	__u32 due;    /* enum due */
	__u32 pad2;
	struct slot failed; /* DUE_ERROR: as the flow was */
	struct flow flow;
	struct endpoint ep; /* of the backend, where it has an alias */
	struct search search;
	struct bpf_sock_tuple back; /* room to look for a socket */
	__u32 pad3;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct draft);
} drafts SEC(".maps");

/* How often user space has changed frontends and endpoints: it counts after
 * each change. What is remembered of them (gate.h) is good while it is the
 * same. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} changes SEC(".maps");

#define MEMOS 256 /* on each CPU */

struct frontend_memo {
	struct frontend fe;
	struct tuple at;
	__u32 change;
};

struct endpoint_memo {
	struct endpoint ep;
	struct tuple at;
	__u32 change;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MEMOS);
	__type(key, __u32);
	__type(value, struct frontend_memo);
} frontend_memos SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MEMOS);
	__type(key, __u32);
	__type(value, struct endpoint_memo);
} endpoint_memos SEC(".maps");

/* All flows, and all room for them: a flood must not push out an idle
 * connection. Mmapable only so that it begins at a cache line. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144); /* at load */
	__type(key, __u32);
	__type(value, struct slot);
} flows SEC(".maps");

/* Finds them: see table.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 87382); /* at load: a third of flows */
	__type(key, __u32);
	__type(value, struct bucket);
} flow_index SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144); /* at load: as flows */
	__type(key, struct alias);
	__type(value, struct flow_key);
} aliases SEC(".maps");

/* Index: twice an endpoint's id; and 1 for UDP. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192); /* at load: as endpoints */
	__type(key, __u32);
	__type(value, struct shortage);
} shortages SEC(".maps");

/* Free slots in the order they came back; 0 means "the slot of this index",
 * so a new map needs no filling. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144); /* at load: as flows */
	__type(key, __u32);
	__type(value, __u32);
} vacant SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clockwork);
} aging SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096); /* at load: as backends */
	__type(key, __u32);
	__type(value, struct tally);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096); /* at load: as backends */
	__type(key, __u32);
	__type(value, struct answers);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 512); /* at load */
	__type(key, __u32);
	__type(value, struct latency);
} latencies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct port_tries);
} tries SEC(".maps");

/*
 * What user space must find again after a restart, and the programs never
 * read: the names behind the ids. Index: service id.
 */
struct service_name {
	__u32 used;
	__u32 word;
	char name[64];
	char group[64]; /* of services that share the weight word */
	char versions[VERSIONS][64];
	__u32 latency[VERSIONS]; /* index into `latencies` by version slot */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 512); /* at load */
	__type(key, __u32);
	__type(value, struct service_name);
} services SEC(".maps");

#include "maps_talk.h"

struct bpf_map {
	__u32 max_entries;
} __attribute__((preserve_access_index));

/* The pinned map's size, which may differ from what this build would make. */
#define size_of_map(map) (((struct bpf_map *)(map))->max_entries)
