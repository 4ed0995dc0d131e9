package bpf_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// natRig has one remote backend, so sources are rewritten; ports are few.
func natRig(t *testing.T, f family) *rig {
	r := newRig(t, map[string]any{"port_min": uint16(50000), "port_max": uint16(50003)})
	r.backend(1, f.stable, backendOptions{flags: bpf.BackendRemote, source: f.host, frontend: 1})
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		r.frontend(1, f.vip, proto, 0, 1)
	}
	return r
}

func eachNAT(t *testing.T, test func(t *testing.T, r *rig, f family)) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) { test(t, natRig(t, f), f) })
	}
}

func flowKey(client, vip netip.AddrPort, proto uint8) bpf.FlowKey {
	return bpf.FlowKey{Client: bpf.AddrFrom(client.Addr()), Port: bpf.Port(client.Port()),
		Vip: bpf.AddrFrom(vip.Addr()), Vport: bpf.Port(vip.Port()), Proto: proto}
}

// port tells which source port the kernel gave the client's flow.
func (r *rig) port(client, vip netip.AddrPort, proto uint8) uint16 {
	r.t.Helper()
	key := flowKey(client, vip, proto)
	flow := r.flow(key)
	return bpf.Port(flow.Port)
}

// throughHost follows a packet over both hooks, ways there and back.
func (r *rig) throughHost(f family, client netip.AddrPort, proto uint8) uint16 {
	r.t.Helper()
	in := packet{src: client, dst: f.vip, proto: proto, flags: syn, seq: isn, payload: []byte("abc")}
	_, middle := r.run(r.SiskinIngress, in.frame())
	port := r.port(client, f.vip, proto)
	if port < 50000 || port > 50003 {
		r.t.Fatalf("source port %d is not of the range", port)
	}
	inside := in
	inside.src, inside.dst = netip.AddrPortFrom(client.Addr(), port), f.stable
	if string(middle) != string(inside.frame()) {
		r.t.Fatal("between the hooks a packet has its new port and still the client's address")
	}
	wire := inside
	wire.src = netip.AddrPortFrom(f.host, port)
	r.out("to the backend", inside, wire)
	back := packet{src: f.stable, dst: wire.src, proto: proto, flags: syn | ack, seq: serverISN, ack: isn + 4, payload: []byte("de")}
	backInside := back
	backInside.dst = inside.src
	r.in("from the backend", back, backInside)
	home := back
	home.src, home.dst = f.vip, client
	r.out("to the client", backInside, home)
	return port
}

func TestRootSourceNAT(t *testing.T) {
	eachNAT(t, func(t *testing.T, r *rig, f family) {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			seen := map[uint16]bool{}
			for i := range 4 {
				client := netip.AddrPortFrom(f.client.Addr(), uint16(30000+i))
				port := r.throughHost(f, client, proto)
				if seen[port] {
					t.Fatalf("port %d was given twice", port)
				}
				seen[port] = true
			}
		}
		late := packet{src: netip.AddrPortFrom(f.client.Addr(), 30009), dst: f.vip, flags: syn, seq: isn}
		r.dropped("no port is left", late)
		if r.reason(bpf.Drop, "ports_exhausted") != 1 {
			t.Fatal("exhaustion is not counted")
		}
		got := r.tally(1)
		if got.Opened != 8 || got.Packets != [2]uint64{8, 8} || got.Bytes != [2]uint64{24, 16} {
			t.Fatalf("each packet passes two hooks and counts once: %+v", got)
		}
	})
}

// TestRootPortOfAClosedFlowIsTakenOver fills the range; a connection that is
// over must make room, and its late packets must not hit its successor.
func TestRootPortOfAClosedFlowIsTakenOver(t *testing.T) {
	eachNAT(t, func(t *testing.T, r *rig, f family) {
		at := func(i int) netip.AddrPort { return netip.AddrPortFrom(f.client.Addr(), uint16(30000+i)) }
		var ports []uint16
		for i := range 4 {
			ports = append(ports, r.throughHost(f, at(i), unix.IPPROTO_TCP))
		}
		r.dropped("all are in use", packet{src: at(9), dst: f.vip, flags: syn, seq: isn})
		bye := packet{src: at(2), dst: f.vip, flags: rst, seq: isn + 1}
		r.run(r.SiskinIngress, bye.frame())
		if port := r.throughHost(f, at(9), unix.IPPROTO_TCP); port != ports[2] {
			t.Fatalf("port %d, want %d of the closed connection", port, ports[2])
		}
		r.dropped("a late packet of the closed connection", bye)
		r.dropped("all are in use again", packet{src: at(8), dst: f.vip, flags: syn, seq: isn})
	})
}

func TestRootClientPortOfTheRangeIsKept(t *testing.T) {
	eachNAT(t, func(t *testing.T, r *rig, f family) {
		client := netip.AddrPortFrom(f.client.Addr(), 50002)
		if port := r.throughHost(f, client, unix.IPPROTO_TCP); port != 50002 {
			t.Fatalf("port 50002 was free, got %d", port)
		}
	})
}

func TestRootMasqueradeCameFirst(t *testing.T) {
	eachNAT(t, func(t *testing.T, r *rig, f family) {
		in := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		r.run(r.SiskinIngress, in.frame())
		port := r.port(f.client, f.vip, unix.IPPROTO_TCP)
		masqueraded := packet{src: netip.AddrPortFrom(f.host, port), dst: f.stable, flags: syn, seq: isn}
		r.out("netfilter has rewritten it", masqueraded, masqueraded)
		back := packet{src: f.stable, dst: masqueraded.src, flags: syn | ack, ack: isn + 1}
		r.in("netfilter undoes it itself", back, back)
		undone := back
		undone.dst = netip.AddrPortFrom(f.client.Addr(), port)
		home := undone
		home.src, home.dst = f.vip, f.client
		r.out("to the client", undone, home)
	})
}

// TestRootSharedBackend sends one client port to two frontends that lead to
// one backend: the second flow needs another port.
func TestRootSharedBackend(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.backend(1, f.stable, backendOptions{flags: bpf.BackendShared})
			r.frontend(1, f.vip, unix.IPPROTO_TCP, 0, 1)
			r.frontend(2, f.secondVIP, unix.IPPROTO_TCP, 0, 1)
			r.open(f.client, f.vip, f.stable)
			in := packet{src: f.client, dst: f.secondVIP, flags: syn, seq: isn}
			_, out := r.run(r.SiskinIngress, in.frame())
			offset := 14 + 20
			if in.v6() {
				offset = 14 + 40
			}
			port := uint16(out[offset])<<8 | uint16(out[offset+1])
			if port < 61000 {
				t.Fatalf("second flow goes out from port %d: it collides with the first", port)
			}
			want := in
			want.src, want.dst = netip.AddrPortFrom(f.client.Addr(), port), f.stable
			if string(out) != string(want.frame()) {
				t.Fatal("second flow was not rewritten right")
			}
			answer := packet{src: f.stable, dst: want.src, flags: syn | ack, ack: isn + 1}
			home := answer
			home.src, home.dst = f.secondVIP, f.client
			r.out("answer to the second", answer, home)
			first := packet{src: f.stable, dst: f.client, flags: ack, seq: serverISN + 1}
			firstHome := first
			firstHome.src = f.vip
			r.out("answer on the first", first, firstHome)
		})
	}
}

func TestRootFragments(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		ask := packet{src: f.client, dst: f.vip, proto: unix.IPPROTO_UDP, payload: []byte("?")}
		to := ask
		to.dst = f.stable
		r.in("question", ask, to)
		// 4,000 bytes in three fragments; checksums only over what is here.
		body := make([]byte, 1472)
		first := packet{src: f.stable, dst: f.client, proto: unix.IPPROTO_UDP, payload: body, whole: 4008, ident: 77, fragment: 1}
		firstOut := first
		firstOut.src = f.vip
		r.out("first fragment", first, firstOut)
		for _, fragment := range []uint16{1480 | 1, 2960} {
			later := packet{src: f.stable, dst: f.client, proto: unix.IPPROTO_UDP, payload: body[:1040], ident: 77, fragment: fragment}
			laterOut := later
			laterOut.src = f.vip
			r.out("later fragment", later, laterOut)
		}
		other := packet{src: f.stable, dst: f.client, proto: unix.IPPROTO_UDP, payload: body[:8], ident: 78, fragment: 1480}
		r.out("later fragment of another datagram", other, other)
		if r.reason(bpf.Pass, "fragment") != 1 {
			t.Fatal("a lost fragment is not counted")
		}
		if got := r.tally(1); got.Bytes[1] != 4000 || got.Packets[1] != 3 {
			t.Fatalf("4000 bytes in 3 packets: %+v", got)
		}
	})
}
