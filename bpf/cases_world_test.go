package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf/btf"

	"siskin.dev/siskin/bpf"
)

// A world is what a case finds: the services and the state of the tables.
type world uint8

const (
	wide      world = iota // room for all
	full                   // the flow table is full
	crowded                // so is the quota of handshakes
	exhausted              // no source port is free towards remote
	spared                 // and the only one is of a connection that is over
	routed                 // with links and routes, to redirect by
	undone                 // the same, where versions are taken back
)

func worlds() []world { return []world{wide, full, crowded, exhausted, spared, routed, undone} }

const (
	backends  = 8
	bystander = 20000 // first port of clients that fill a world
)

// A stage is a world with everybody in place but the client of a case.
func newStage(t *testing.T, w world, f family) *scene {
	set := map[string]any{"flows": uint32(4096)}
	switch w {
	case full, crowded:
		set["flows"] = uint32(8)
	case exhausted, spared:
		set["port_min"], set["port_max"] = uint16(50000), uint16(50000)
	}
	s := &scene{rig: newRig(t, set), family: f, at: roles(f)}
	if w == routed || w == undone {
		s.enter = enterRouted(t)
		s.connect(t)
		if w == routed {
			s.settleRouted()
		} else {
			s.settleUndone()
		}
		return s
	}
	s.settle()
	crowd := func(i int) netip.AddrPort { return netip.AddrPortFrom(f.another.Addr(), uint16(bystander+i)) }
	switch w {
	case full:
		for i := range 8 {
			s.open(crowd(i), s.at[vip], s.at[stable])
		}
	case crowded:
		for i := range 2 { // a quarter of the table
			s.at[client] = crowd(i)
			s.send(ingress, sketch{client, vip, packet{flags: syn, seq: isn}})
		}
	case exhausted:
		s.at[client] = crowd(0)
		opened(remoteVIP, remote)(s)
	case spared:
		s.at[client] = crowd(0)
		closed(remoteVIP, remote)(s)
	}
	return s
}

func roles(f family) map[role]netip.AddrPort {
	on := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	return map[role]netip.AddrPort{
		elsewhere: f.elsewhere, elsewhereOnVIP: on(f.vip.Addr(), 99), vip: f.vip, secondVIP: f.secondVIP,
		realVIP: on(f.vip.Addr(), 81), deletedVIP: on(f.vip.Addr(), 82), deletedReal: on(f.vip.Addr(), 83),
		emptyVIP: on(f.vip.Addr(), 84), emptyRealVIP: on(f.vip.Addr(), 85), canaryVIP: on(f.vip.Addr(), 86),
		remoteVIP: on(f.vip.Addr(), 87), remoteRealVIP: on(f.vip.Addr(), 88), firstVIP: on(f.vip.Addr(), 89),
		identityVIP: on(f.canary.Addr(), 9003), identity: on(f.canary.Addr(), 9003),
		stable: f.stable, canary: f.canary, remote: on(f.canary.Addr(), 9001), shared: on(f.stable.Addr(), 9002),
		nearVIP: on(f.vip.Addr(), 91), farVIP: on(f.vip.Addr(), 92), stackVIP: on(f.vip.Addr(), 93), peerVIP: on(f.vip.Addr(), 94),
		near1: on(f.stable.Addr(), 9101), far1: on(f.canary.Addr(), 9102), stack1: on(f.stable.Addr(), 9103), peer1: on(f.stable.Addr(), 9104),
		host: on(f.host, 0), middle: on(router(f), 0),
	}
}

// settle brings the services up.
func (s *scene) settle() {
	const toStable, toCanary, toRemote, toShared, toItself = 1, 2, 3, 4, 5
	s.backend(toStable, s.at[stable], backendOptions{frontend: 1})
	s.backend(toCanary, s.at[canary], backendOptions{slot: 1, frontend: 1})
	s.backend(toRemote, s.at[remote], backendOptions{flags: bpf.BackendRemote, source: s.family.host, frontend: 7})
	s.backend(toShared, s.at[shared], backendOptions{flags: bpf.BackendShared})
	s.backend(toItself, s.at[identity], backendOptions{frontend: 12})

	s.put(s.Echoes, bpf.AddrFrom(s.at[vip].Addr()), uint32(1))
	for _, proto := range []uint8{tcp, udp} {
		s.frontend(1, s.at[vip], proto, 0, toStable, toCanary)
		s.frontend(7, s.at[remoteVIP], proto, 0, toRemote)
	}
	s.frontend(2, s.at[realVIP], tcp, bpf.FrontendReal, toStable)
	s.frontend(3, s.at[deletedVIP], tcp, bpf.FrontendRetired, toStable)
	s.frontend(4, s.at[deletedReal], tcp, bpf.FrontendRetired|bpf.FrontendReal, toStable)
	s.frontend(5, s.at[emptyVIP], tcp, 0)
	s.frontend(6, s.at[emptyRealVIP], tcp, bpf.FrontendReal)
	s.frontend(8, s.at[remoteRealVIP], tcp, bpf.FrontendReal, toRemote)
	s.frontend(9, s.at[firstVIP], tcp, 0, toShared)
	s.frontend(10, s.at[secondVIP], tcp, 0, toShared)
	s.frontend(11, s.at[canaryVIP], tcp, 0, toStable)
	s.frontend(12, s.at[identityVIP], tcp, bpf.FrontendReal, toItself)
	// Its weight word of its own gives everything to the canary.
	key := bpf.TupleFrom(s.at[canaryVIP], tcp)
	var fe bpf.Frontend
	if err := s.Frontends.Lookup(key, &fe); err != nil {
		s.t.Fatal(err)
	}
	fe.Word = 1
	s.put(s.Frontends, key, fe)
	s.put(s.Words, uint32(1), uint64(bpf.Buckets))
}

// asked is a scene in which the client's first packet has gone to a backend.
func asked(to role, p packet) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		s.send(ingress, sketch{client, to, p})
	}
}

// opened is a scene with an established connection.
func opened(to, by role) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		s.send(ingress, sketch{client, to, packet{flags: syn, seq: isn}})
		s.send(egress, sketch{by, between, packet{flags: syn | ack, seq: serverISN, ack: isn + 1}})
		s.send(ingress, sketch{client, to, packet{flags: ack, seq: isn + 1, ack: serverISN + 1}})
	}
}

// closed is a scene in which the client has reset its connection.
func closed(to, by role) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		opened(to, by)(s)
		s.send(ingress, sketch{client, to, packet{flags: rst, seq: isn + 1, ack: serverISN + 1}})
	}
}

// claimed is a scene in which another CPU is replacing the client's closed
// record.
func claimed(s *scene) {
	s.t.Helper()
	closed(vip, stable)(s)
	var index uint32
	var slot bpf.Slot
	for all := s.Flows.Iterate(); all.Next(&index, &slot); {
		key := slot.Key
		if key.Client == bpf.AddrFrom(s.at[client].Addr()) && key.Port == bpf.Port(s.at[client].Port()) {
			slot.Flow.Flags |= enumerator(s.t, "flow_flag", "FLOW_CLAIMED")
			s.put(s.Flows, index, slot)
			return
		}
	}
	s.t.Fatal("the closed connection has no record")
}

// takenBack is a scene in which the client's SYN went to a canary that has lost
// its weight since.
func takenBack(s *scene) {
	s.t.Helper()
	s.weight(bpf.Buckets)
	s.send(ingress, sketch{client, vip, packet{flags: syn, seq: isn}})
	s.weight(0)
}

// enumerator reads a constant of the C.
func enumerator(t testing.TB, enum, name string) uint32 {
	t.Helper()
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	var e *btf.Enum
	if err := spec.Types.TypeByName(enum, &e); err != nil {
		t.Fatalf("enum %s: %v", enum, err)
	}
	for _, v := range e.Values {
		if v.Name == name {
			return uint32(v.Value)
		}
	}
	t.Fatalf("enum %s has no %s", enum, name)
	return 0
}
