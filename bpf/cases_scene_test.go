package bpf_test

import (
	"net/netip"
	"testing"

	"siskin.dev/siskin/bpf"
)

// A scene is where a case plays: a rig, the addresses, and a client of its own.
type scene struct {
	*rig
	family
	at    map[role]netip.AddrPort
	enter func(*testing.T) // the world's network namespace, if it has one
	index map[byte]int     // of the interfaces towards clients and backends
}

// A role is an address that a case speaks of by its part.
type role uint8

const (
	nobody role = iota
	client
	another // client of the same service
	elsewhere
	elsewhereOnVIP // a port of a virtual address that is no frontend
	vip            // served by stable, the canary beside it
	realVIP        // a real server's address
	deletedVIP     // retired
	deletedReal    // retired, a real server's address
	emptyVIP       // no backend
	emptyRealVIP   // no backend, at a real server's address
	canaryVIP      // all to the canary, which has no backend: stable
	remoteVIP      // served by remote
	remoteRealVIP  // the same at a real server's address
	firstVIP       // with secondVIP before one backend
	secondVIP
	identityVIP // a real server's address that is served by itself
	stable
	canary
	remote
	shared
	identity
	nearVIP // in the routed world: redirected to, as the client
	farVIP  // as the host
	stackVIP
	peerVIP // into a namespace
	near1
	far1
	stack1
	peer1
	host    // its address towards remote
	onHost  // the client of remoteVIP as remote sees it
	between // the same between the hooks: the client, from the port it was given
	middle  // a router
)

// A shape is a packet of a case, before its oddities.
type shape interface {
	bytes(s *scene) []byte
}

// A sketch is a packet between two roles.
type sketch struct {
	from, to role
	packet
}

func (k sketch) of(s *scene) packet {
	p := k.packet
	p.src, p.dst = s.addr(k.from), s.addr(k.to)
	return p
}

func (k sketch) bytes(s *scene) []byte { return k.of(s).frame() }

// fromTo is the same packet between others.
func (k sketch) fromTo(from, to role) sketch {
	k.from, k.to = from, to
	return k
}

// A complaint is an ICMP error about a packet.
type complaint struct {
	from, to role
	kind     int // index of icmpKinds
	about    sketch
	quoted   int // bytes behind the quoted IP header
}

func (c complaint) bytes(s *scene) []byte {
	kind := icmpKinds(s.family)[c.kind]
	return icmpError(s.addr(c.from).Addr(), s.addr(c.to).Addr(), kind[0], kind[1], c.about.of(s), c.quoted)
}

// A ping is an echo request, or its answer.
type ping struct {
	from, to role
	answer   bool
}

func (p ping) bytes(s *scene) []byte {
	return echoPacket{from: s.addr(p.from).Addr(), to: s.addr(p.to).Addr(), answer: p.answer}.frame()
}

// A mapped sketch is IPv6 between IPv4 addresses (::ffff:a.b.c.d).
type mapped sketch

func (m mapped) bytes(s *scene) []byte {
	p := sketch(m).of(s)
	as6 := func(at netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
	}
	p.src, p.dst = as6(p.src), as6(p.dst)
	return p.frame()
}

// raw is a frame as it is.
type raw []byte

func (b raw) bytes(*scene) []byte { return b }

// addr resolves a role. The client's port under source NAT is the kernel's
// choice: it is read from the flow.
func (s *scene) addr(who role) netip.AddrPort {
	s.t.Helper()
	at, ok := s.at[who]
	switch {
	case ok:
		return at
	case who == onHost:
		return netip.AddrPortFrom(s.host, s.natPort(s.at[client]))
	case who == between:
		return netip.AddrPortFrom(s.at[client].Addr(), s.natPort(s.at[client]))
	}
	s.t.Fatalf("nobody plays role %d", who)
	return at
}

// natPort is the source port that a client's flow was given, or the client's
// own where none was.
func (s *scene) natPort(client netip.AddrPort) uint16 {
	s.t.Helper()
	port := uint16(0)
	err := bpf.EachFlow(s.Flows, func(key bpf.FlowKey, flow bpf.Flow) bool {
		if key.Client != bpf.AddrFrom(client.Addr()) || key.Port != bpf.Port(client.Port()) {
			return true
		}
		port = bpf.Port(flow.Port)
		return port == client.Port()
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if port == 0 {
		s.t.Fatalf("%s has no flow", client)
	}
	return port
}

// send runs a packet on tc before a case; what comes of it is other tests'
// concern.
func (s *scene) send(h hook, in shape, oddities ...oddity) {
	s.t.Helper()
	program := s.SiskinIngress
	if h == egress {
		program = s.SiskinEgress
	}
	s.run(program, odd(in.bytes(s), oddities...))
}
