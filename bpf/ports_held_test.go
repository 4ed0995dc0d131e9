package bpf_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/test/netns"
)

// never is in ticks, and longer than any test.
const never = uint32(1 << 20)

// close ends a connection that was accepted by a FIN of each end.
func (r *portRig) close(client, vip, backend netip.AddrPort, port uint16, serverFirst bool) {
	r.t.Helper()
	byClient := func() {
		r.enter(packet{src: client, dst: vip, flags: fin | ack, seq: isn + 1, ack: serverISN + 1})
	}
	byServer := func() {
		r.back(packet{src: backend, dst: netip.AddrPortFrom(r.host, port), flags: fin | ack, seq: serverISN + 1, ack: isn + 1})
	}
	if serverFirst {
		byServer()
		byClient()
		return
	}
	byClient()
	byServer()
}

// await repeats a client's SYN until it is given a port.
func (r *portRig) await(client, vip netip.AddrPort, proto uint8) uint16 {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if port := r.ask(client, vip, proto); port != 0 {
			return port
		}
	}
	r.t.Fatalf("%s was given no port within 10 s", client)
	return 0
}

// TestRootTimeWaitIsRespected closes connections of a full range. The port of
// one that the server closed first is in TIME_WAIT there: it is taken last,
// and not at all while another port is free.
func TestRootTimeWaitIsRespected(t *testing.T) {
	eachPorts(t, 61000, 61003, nil, func(t *testing.T, r *portRig) {
		var ports []uint16
		for i := range 3 {
			ports = append(ports, r.ask(r.peer(i), r.vip, unix.IPPROTO_TCP))
			r.accept(r.peer(i), r.vip, r.stable, ports[i])
		}
		r.close(r.peer(0), r.vip, r.stable, ports[0], true)
		r.close(r.peer(1), r.vip, r.stable, ports[1], false)
		free := r.ask(r.peer(3), r.vip, unix.IPPROTO_TCP)
		for i, port := range ports {
			if free == port {
				t.Fatalf("the port of connection %d was taken over while another one was free", i)
			}
		}
		if got := r.ask(r.peer(4), r.vip, unix.IPPROTO_TCP); got != ports[1] {
			t.Fatalf("got port %d, want %d, which the client closed first", got, ports[1])
		}
		if got := r.ask(r.peer(5), r.vip, unix.IPPROTO_TCP); got != ports[0] {
			t.Fatalf("got port %d, want %d in TIME_WAIT, the only one left", got, ports[0])
		}
		r.refused("one is in use and three are young", r.peer(6), r.vip)
		r.enter(packet{src: r.peer(2), dst: r.vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
		if got := r.reason(bpf.Note, "port_taken_over"); got != 2 {
			t.Fatalf("%d ports were taken over, want 2", got)
		}
	})
}

// TestRootHandshakeGivesItsPortUp fills the range by a connection and a SYN
// that nobody completes. New clients may have the SYN's port after a while,
// never the connection's.
func TestRootHandshakeGivesItsPortUp(t *testing.T) {
	set := map[string]any{"flows": uint32(1024), "idle_crowded": uint32(2), "port_pause": uint32(1)}
	eachPorts(t, 61000, 61001, set, func(t *testing.T, r *portRig) {
		held := r.ask(r.peer(0), r.vip, unix.IPPROTO_TCP)
		r.accept(r.peer(0), r.vip, r.stable, held)
		for i := range 50 {
			if got := r.await(r.peer(1+i), r.vip, unix.IPPROTO_TCP); got == held {
				t.Fatalf("client %d was given the port of a connection", i)
			}
		}
		r.enter(packet{src: r.peer(0), dst: r.vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
		r.dropped("the first SYN's client is too late", packet{src: r.peer(1), dst: r.vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
	})
}

// TestRootDatagramsKeepTheirPort has a client and a server that talk, and one
// that nobody answers, in a range of two.
func TestRootDatagramsKeepTheirPort(t *testing.T) {
	set := map[string]any{"idle_pressed": uint32(2), "idle_udp": never, "idle_udp_answered": never, "port_pause": uint32(1)}
	eachPorts(t, 61000, 61001, set, func(t *testing.T, r *portRig) {
		held := r.ask(r.peer(0), r.vip, unix.IPPROTO_UDP)
		r.back(packet{src: r.stable, dst: netip.AddrPortFrom(r.host, held), proto: unix.IPPROTO_UDP})
		r.ask(r.peer(0), r.vip, unix.IPPROTO_UDP)
		for i := range 20 {
			if got := r.await(r.peer(1+i), r.vip, unix.IPPROTO_UDP); got == held {
				t.Fatalf("client %d was given the port of two that talk", i)
			}
		}
	})
}

// TestRootHostAsksForAHeldPort sends the host's own SYN from a port that a flow
// has: it waits while the flow is in use, and has the port when it is over.
func TestRootHostAsksForAHeldPort(t *testing.T) {
	eachPorts(t, 61000, 61000, nil, func(t *testing.T, r *portRig) {
		own := packet{src: netip.AddrPortFrom(r.host, 61000), dst: r.stable, flags: syn, seq: 7}
		r.out("nobody has the port", own, own)
		r.ask(r.peer(0), r.vip, unix.IPPROTO_TCP)
		r.accept(r.peer(0), r.vip, r.stable, 61000)
		for range 2 {
			if verdict, _ := r.run(r.SiskinEgress, own.frame()); verdict != drop {
				t.Fatal("the backend cannot tell the host's connection from the client's")
			}
		}
		if got := r.reason(bpf.Drop, "host_port"); got != 2 {
			t.Fatalf("%d SYNs of the host were counted, want 2", got)
		}
		older := own
		older.flags = ack
		r.out("not a SYN: it was there before", older, older)
		r.enter(packet{src: r.peer(0), dst: r.vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
		r.reset(r.peer(0), r.vip)
		r.out("the client's connection is over", own, own)
		answer := packet{src: r.stable, dst: own.src, flags: syn | ack, seq: 9, ack: 8}
		r.in("the answer is the host's", answer, answer)
		r.dropped("a late packet of the client", packet{src: r.peer(0), dst: r.vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
	})
}

// TestRootPortOfASocketIsLeftAlone has sockets of the host in the range.
func TestRootPortOfASocketIsLeftAlone(t *testing.T) {
	eachPorts(t, 61000, 61002, nil, func(t *testing.T, r *portRig) {
		netns.Enter(t)
		suffix := map[bool]string{true: "4", false: "6"}[r.host.Is4()]
		datagrams, err := net.ListenPacket("udp"+suffix, ":61001")
		if err != nil {
			t.Fatal(err)
		}
		defer datagrams.Close()
		listener, err := net.Listen("tcp"+suffix, ":61001")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		for i := range 2 {
			if port := r.ask(r.peer(i), r.vip, unix.IPPROTO_UDP); port == 0 || port == 61001 {
				t.Fatalf("datagrams from port %d; a socket has 61001", port)
			}
		}
		if port := r.ask(r.peer(2), r.vip, unix.IPPROTO_UDP); port != 0 {
			t.Fatalf("got port %d: every other one is in use", port)
		}
		own := netip.AddrPortFrom(r.client.Addr(), 61001)
		if port := r.ask(own, r.secondVIP, unix.IPPROTO_UDP); port == 61001 {
			t.Fatal("a client kept its port 61001, which a socket has")
		}
		answer := packet{src: r.stable, dst: netip.AddrPortFrom(r.host, 61001), proto: unix.IPPROTO_UDP}
		r.in("the backend answers the socket", answer, answer)
		// Who listens for TCP there waits for others than a backend's port.
		r.fill(r.vip, unix.IPPROTO_TCP)
	})
}
