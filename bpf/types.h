/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * types.h: every layout that the kernel programs and the Go side share.
 *
 * This file is the only definition: the Go types are generated from its BTF,
 * and layout_test.go compares sizes, offsets and names. Padding is explicit.
 * Addresses and ports are in network byte order; everything else is native.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#define VERSIONS	  5 /* version slots of a service; slot 0 is stable */
#define BUCKETS		  10000 /* shares are basis points: one bucket is 0.01 % */
#define WEIGHT_BITS	  14	/* of each of the four weights in a word */
#define HISTOGRAM_MIN	  -160 /* schema 3: index of the first bucket, 2^-20 s */
#define HISTOGRAM_BUCKETS 216  /* up to 2^7 s; the last one takes the rest */

/* An address: IPv6, or IPv4 as ::ffff:a.b.c.d, so that one path serves both. */
struct addr {
	__be32 w[4];
};

/* Who listens: key of `frontends` and `endpoints`. */
struct tuple {
	struct addr addr;
	__be16 port;
	__u8 proto; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};

/* A Maglev table: a run of `maglev` that holds backend ids. */
struct table {
	__u32 offset;
	__u32 length; /* 0: the version has no backend of this family */
};

enum frontend_flag {
	FRONTEND_BY_CONNECTION = 1, /* affinity: 5-tuple, not client address */
	FRONTEND_SNAT_ALWAYS = 2,
	FRONTEND_SNAT_NEVER = 4,
	FRONTEND_REAL = 8,	/* a real server's or the host's own address:
				 * what has no flow passes, it was there before us */
	FRONTEND_RETIRED = 16,	/* deleted: its flows go on, no new ones */
	FRONTEND_READ = 32,	/* requests are looked for in its connections */
	FRONTEND_REQUESTS = 64, /* and nothing else is expected */
};

struct frontend {
	__u32 id; /* part of the flow key */
	__u32 service;
	__u32 word;  /* index into `words` */
	__u32 salt;  /* of the bucket hash; changes with the release */
	__u32 flags; /* enum frontend_flag */
	__u32 pad;
	struct table tables[VERSIONS];
};

enum backend_flag {
	BACKEND_HOST = 1,   /* an address of this host itself */
	BACKEND_REMOTE = 2, /* another machine: `auto` rewrites the source */
	BACKEND_SHARED =
		4, /* several frontends lead here: flows need aliases */
	BACKEND_RETIRED = 8,   /* in no table any more; its flows go on */
	BACKEND_REDIRECT = 16, /* its interface has our hook and carries
				* Ethernet: packets may go past the stack */
	BACKEND_PEER = 32,     /* that interface is a veth into a namespace */
	BACKEND_XDP = 64,      /* an XDP program may send by that interface */
};

/* The way to a backend: one per service, version and address. */
struct backend {
	struct addr addr;
	struct addr source; /* the host's address towards it, for source NAT */
	__be16 port;
	__u8 slot;  /* version slot in its service */
	__u8 flags; /* enum backend_flag */
	__u32 service;
	__u32 version;	/* index into `latencies` */
	__u32 endpoint; /* id of its address: same for all backends that share
			   it */
	__u32 ifindex;	/* where the route to it leaves; 0: the host itself */
	__u32 weight;	/* this and the next: for user space, after a restart */
	__u32 state;
	__u32 pad;
};

/* The way back from a backend's address. */
struct endpoint {
	__u32 id;
	__u32 frontend; /* the first frontend that leads here, while it lives:
			 * its flows need no alias unless BACKEND_SHARED; 0:
			 * none, ask `aliases` */
	struct addr source; /* as in struct backend */
};

/* Key of `flows`: the connection as its client sees it, so that its packets
 * find it at once. */
struct flow_key {
	struct addr client;
	struct addr vip; /* the frontend's address */
	__be16 port;	 /* the client's */
	__be16 vport;
	__u8 proto;
	__u8 pad[3];
} __attribute__((aligned(8))); /* it is compared by words of 64 bits */

/*
 * Key of `aliases`, which finds a flow from what the backend sees: (client,
 * port) when the client's address was kept, (::, port) when the source was
 * rewritten.
 */
struct alias {
	struct addr client;
	__u32 endpoint; /* id */
	__be16 port;
	__u8 proto;
	__u8 pad;
};

/* Set with atomic OR, so the first to set a bit is the one who counts it. */
enum flow_flag {
	FLOW_ANSWERED = 1,    /* SYN-ACK seen; UDP: a reply was seen */
	FLOW_ESTABLISHED = 2, /* the client acknowledged the server's number;
			       * UDP: it spoke again after a reply */
	FLOW_FIN_CLIENT = 4,
	FLOW_FIN_SERVER = 8,
	FLOW_CLOSED = 16,	/* both FINs, a RST, or too long idle */
	FLOW_FAILED = 32,	/* counted as an error, whichever */
	FLOW_SNAT = 64,		/* the source address is rewritten */
	FLOW_ALIAS = 128,	/* has an entry in `aliases` */
	FLOW_MASQUERADED = 256, /* netfilter rewrote it before we could */
	FLOW_HIDDEN = 512,	/* we rewrote it, so nobody else did */
	FLOW_CLAIMED = 1024,	/* being replaced or removed, by who set this */
	FLOW_RESPONDED = 2048,	/* the server has sent payload */
	FLOW_SERVER_FIRST =
		4096,	   /* the server closed first: TIME_WAIT is there */
	FLOW_TAKEN = 8192, /* its alias is somebody else's now, or gone */
	FLOW_UDP = 16384,
	FLOW_REDIRECT = 32768,	 /* both directions go past the stack */
	FLOW_CUT = 65536,	 /* ended by a cutoff */
	FLOW_READ = 131072,	 /* its requests are looked for, unless */
	FLOW_UNREAD = 262144,	 /* it says something else */
	FLOW_REQUESTS = 524288,	 /* it speaks HTTP, or should */
	FLOW_UPGRADED = 1048576, /* what it says now are no requests */
	FLOW_TLS = 2097152,	 /* it is encrypted */
};

/*
 * Where a packet goes that is sent past the stack, as the routing table said at
 * `checked`. It is asked again about once a second.
 */
struct hop {
	__u8 to[6];    /* link-layer addresses: the next hop's, */
	__u8 from[6];  /* and the interface's own */
	__u32 ifindex; /* 0: not known */
	__u32 checked; /* tick */
	__u16 mtu;
	__u16 flags; /* enum hop_flag */
};

enum hop_flag {
	HOP_UNRESOLVED = 1, /* no link-layer address yet: the kernel asks */
	HOP_NONE = 2,	    /* no way that we could use */
};

/* One connection and what was decided for it. What every packet needs is in
 * front. */
struct flow {
	__u32 flags; /* enum flow_flag */
	__u32 backend;
	__u32 seen;	   /* tick of the last packet */
	__u32 client_next; /* TCP: next number expected from the client */
	__u32 server_next;
	__be16 port;	  /* the source port the backend sees */
	__u8 version;	  /* version slot; this and epoch: the decision */
	__u8 epoch;	  /* of the weight word */
	__u64 request_ns; /* start of the request that waits for its answer; 0
			   */
	struct hop hop;	  /* FLOW_REDIRECT: the way to the client */
	__u32 late;	  /* low half of the request_ns that was booked as slow
			   * while it waited */
	__u32 heard;	  /* tick of the server's last packet; 0: none yet */
	__u64 opened_ns;  /* monotonic; taken before the weight word was read */
	__u32 word;
	__u16 segment; /* 0: none */
	__u16 pad2;
};

#define PORT_BACKS 12

/* An endpoint's source ports, while they are short. */
struct shortage {
	__u32 searched;	 /* tick at which the whole range was seen in vain */
	__u16 exhausted; /* and none of it could be taken over either */
	__u16 backs;	 /* of what was given back since */
	__be16 back[PORT_BACKS];
};

enum slot_use {
	SLOT_VACANT,
	SLOT_TAKEN,  /* a flow is being made, or was not needed after all */
	SLOT_LISTED, /* the index leads to it */
};

/* A place of the flow table: two cache lines. One hand goes round them. */
struct slot {
	struct flow_key key;
	__u32 check; /* tick at which the hand looks at the flow */
	__u32 use;   /* enum slot_use */
	struct flow flow;
};

#define CELLS 16

/* Of the index: where the flows of one hash may be. A cache line. A cell is
 * (tag << 24 | slot + 1), or 0. */
struct bucket {
	__u32 cell[CELLS];
};

/* The clockwork of the flow table. Only the timer frees. */
struct clockwork {
	struct bpf_timer timer;
	__u64 taken;	   /* slots handed out so far */
	__u64 freed;	   /* slots given back; taken - freed are in use */
	__s64 unproven[2]; /* TCP handshakes; UDP flows: each has a quota */
	__u64 ticks;	   /* runs of the timer: it lives */
	__u32 hand;
	__u32 now;  /* tick of the last run */
	__u64 seed; /* of the hash of flow keys, kept here for later builds */
};

/* Per backend and CPU. [0] client to server, [1] server to client. */
struct tally {
	__u64 opened;
	__u64 closed;
	__u64 forgotten; /* flow records removed: opened - forgotten still exist
			  */
	__u64 established;
	__u64 packets[2];
	__u64 bytes[2]; /* payload, each byte of a TCP stream once */
	__u64 retransmits[2];
	__u64 refused;	   /* RST to the SYN */
	__u64 timeout;	   /* no answer to three SYNs */
	__u64 reset;	   /* RST by the server before it answered */
	__u64 unreachable; /* ICMP unreachable to the handshake */
	__u64 selected_ns; /* when it was last given a new flow (monotonic) */
	__u64 tls;	   /* TLS handshakes that an alert ended, where the
			    * server is to blame */
};

/* Buckets of a Prometheus native histogram, schema 3. */
struct histogram {
	__u64 bucket[HISTOGRAM_BUCKETS];
	__u64 sum_ns;
};

/* Per version and CPU. */
struct latency {
	struct histogram connect;  /* SYN to SYN-ACK */
	struct histogram response; /* request to first byte of the response */
};

#define PORT_TRIES_BUCKETS 17

/* How many ports were looked at until one was found, per CPU. Bucket 0: none,
 * the client's own was kept; bucket b: 2^(b-1) to 2^b - 1; the last one takes
 * the rest. */
struct port_tries {
	__u64 found[PORT_TRIES_BUCKETS];
	__u64 exhausted; /* searches that found none */
	__u64 sum;	 /* tries of all of them */
};

/* Where later fragments of a datagram go: as the first did. */
struct fragment_key {
	struct addr src, dst;
	__be32 id;
	__u8 proto;
	__u8 egress;
	__u8 pad[2];
};

struct fragment {
	struct addr src, dst;
	__u32 backend;
	__u32 direction;
	__u32 seen; /* tick */
	__u32 pad;
};

/*
 * Every verdict that is not "steered" has a name: index into `reasons`. What is
 * refused is dropped at a virtual address and passed on at a real one, so those
 * reasons come in pairs: PASS_ is DROP_ + 1.
 */
enum reason {
	REASON_NONE,
	DROP_NO_FLOW, /* not a SYN and no flow */
	PASS_NO_FLOW,
	DROP_NO_BACKEND, /* no version has a backend */
	PASS_NO_BACKEND,
	DROP_TABLE_FULL, /* the flow table has no room */
	PASS_TABLE_FULL,
	DROP_QUOTA, /* too many handshakes, or UDP flows, at once */
	PASS_QUOTA,
	DROP_PORTS, /* no source port is free */
	PASS_PORTS,
	/* dropped everywhere */
	DROP_BUSY,	/* the flow was being replaced on another CPU */
	DROP_PORT_HELD, /* the host's own connection, from a flow's port */
	DROP_REWRITE,	/* the packet could not be written */
	/* passed on untouched */
	PASS_RETIRED,	 /* new connection to a deleted frontend */
	PASS_IP_OPTIONS, /* IPv4 options on a packet to us */
	PASS_EXTENSION,	 /* IPv6 extension headers */
	PASS_FRAGMENT,	 /* a later fragment whose first we never saw */
	PASS_TRUNCATED,	 /* shorter than its headers say */
	PASS_MALFORMED,	 /* its headers contradict each other */
	PASS_PROTOCOL,	 /* neither TCP, UDP nor ICMP */
	PASS_ICMP,	 /* an ICMP error about no flow of ours */
	/* steered, and worth a number */
	NOTE_RECHOSEN,	 /* a repeated SYN was given another backend */
	NOTE_REOPENED,	 /* a SYN on a closed flow made a new one */
	NOTE_PORT_MOVED, /* the source port was taken: another one was used */
	NOTE_PORT_OVER,	 /* it was taken over from a connection that is over */
	NOTE_FALLBACK,	 /* the version was empty: stable instead */
	NOTE_ICMP,	 /* an ICMP error was translated */
	NOTE_ECHO,	 /* a ping to a virtual address was answered */
	NOTE_LAST_HOP,	 /* it came with a TTL of 1 */
	NOTE_CUT,	 /* a connection was reset, by policy */
	NOTE_CUT_AGAIN,	 /* a late packet of such a one was answered by a RST */
	NOTE_RESTEERED,	 /* a UDP flow was given another backend, by policy */
	NOTE_UNHEARD,	 /* an HTTP/2 frame that user space had no room for */
	REASONS,
};

#include "types_release.h"
#include "types_talk.h"
