package bpf_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// portRig has two services, each with one remote backend, and the source ports
// first to last.
type portRig struct {
	*rig
	family
	first, last uint16
}

func newPortRig(t *testing.T, f family, first, last uint16, set map[string]any) *portRig {
	t.Helper()
	all := map[string]any{"port_min": first, "port_max": last}
	for name, value := range set {
		all[name] = value
	}
	r := newRig(t, all)
	backends := []netip.AddrPort{f.stable, f.canary}
	for i, vip := range []netip.AddrPort{f.vip, f.secondVIP} {
		id := uint32(i + 1)
		r.backend(id, backends[i], backendOptions{flags: bpf.BackendRemote, source: f.host, frontend: id})
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			r.frontend(id, vip, proto, 0, id)
		}
	}
	return &portRig{r, f, first, last}
}

// eachPorts runs a test for IPv4 and IPv6 on a rig of its own.
func eachPorts(t *testing.T, first, last uint16, set map[string]any, test func(t *testing.T, r *portRig)) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) { test(t, newPortRig(t, f, first, last, set)) })
	}
}

func (r *portRig) size() int { return int(r.last) - int(r.first) + 1 }

// peer is the i-th client; its own port is outside every range of these tests.
func (r *portRig) peer(i int) netip.AddrPort {
	return netip.AddrPortFrom(r.client.Addr(), uint16(2000+i))
}

// ask lets a client open a connection and returns the source port that it got;
// 0: it was refused.
func (r *portRig) ask(client, vip netip.AddrPort, proto uint8) uint16 {
	r.t.Helper()
	in := packet{src: client, dst: vip, proto: proto, flags: syn, seq: isn}
	verdict, out := r.run(r.SiskinIngress, in.frame())
	if verdict == drop {
		return 0
	}
	l4 := 14 + 20
	if in.v6() {
		l4 = 14 + 40
	}
	port := binary.BigEndian.Uint16(out[l4:])
	if port < r.first || port > r.last {
		r.t.Fatalf("port %d is not of the range %d-%d", port, r.first, r.last)
	}
	return port
}

// fill opens as many connections as there are ports, to the last one.
func (r *portRig) fill(vip netip.AddrPort, proto uint8) map[uint16]netip.AddrPort {
	r.t.Helper()
	owners := make(map[uint16]netip.AddrPort, r.size())
	for i := range r.size() {
		port := r.ask(r.peer(i), vip, proto)
		if port == 0 {
			r.t.Fatalf("refused with %d of %d ports in use", i, r.size())
		}
		if other, given := owners[port]; given {
			r.t.Fatalf("port %d was given to %s and to %s", port, other, r.peer(i))
		}
		owners[port] = r.peer(i)
	}
	return owners
}

// accept takes a connection that was asked for through its handshake.
func (r *portRig) accept(client, vip, backend netip.AddrPort, port uint16) {
	r.t.Helper()
	r.leave(packet{src: netip.AddrPortFrom(client.Addr(), port), dst: backend, flags: syn, seq: isn})
	r.back(packet{src: backend, dst: netip.AddrPortFrom(r.host, port), flags: syn | ack, seq: serverISN, ack: isn + 1})
	r.enter(packet{src: client, dst: vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
}

// enter, leave and back let a packet pass: from a client, to a backend, and
// from a backend over both hooks.
func (r *portRig) enter(p packet) {
	r.t.Helper()
	if verdict, _ := r.run(r.SiskinIngress, p.frame()); verdict != next {
		r.t.Fatalf("verdict %d on the client's packet", int32(verdict))
	}
}

func (r *portRig) leave(p packet) {
	r.t.Helper()
	if verdict, _ := r.run(r.SiskinEgress, p.frame()); verdict != next {
		r.t.Fatalf("verdict %d on the way to the backend", int32(verdict))
	}
}

func (r *portRig) back(p packet) {
	r.t.Helper()
	_, middle := r.run(r.SiskinIngress, p.frame())
	if verdict, _ := r.run(r.SiskinEgress, middle); verdict != next {
		r.t.Fatalf("verdict %d on the backend's packet", int32(verdict))
	}
}

// reset ends a connection by the client's RST.
func (r *portRig) reset(client, vip netip.AddrPort) {
	r.t.Helper()
	r.enter(packet{src: client, dst: vip, flags: rst, seq: isn + 1})
}

// tries sums the histogram of the searches.
func (r *portRig) tries() (sum bpf.PortTries) {
	r.t.Helper()
	var all []bpf.PortTries
	if err := r.Tries.Lookup(uint32(0), &all); err != nil {
		r.t.Fatal(err)
	}
	for _, c := range all {
		for i, n := range c.Found {
			sum.Found[i] += n
		}
		sum.Exhausted += c.Exhausted
		sum.Sum += c.Sum
	}
	return sum
}

func (r *portRig) refused(what string, client, vip netip.AddrPort) {
	r.t.Helper()
	before := r.reason(bpf.Drop, "ports_exhausted")
	if port := r.ask(client, vip, unix.IPPROTO_TCP); port != 0 {
		r.t.Fatalf("%s: got port %d", what, port)
	}
	if r.reason(bpf.Drop, "ports_exhausted") != before+1 {
		r.t.Fatalf("%s: not counted as exhaustion", what)
	}
}

// TestRootEveryPortIsUsed fills ranges to the last port: of one port, where a
// division by the size minus one fails; with the last port of all, which a
// clamp leaves out; more than a probe of a few ports in a row finds. Then all
// is closed, and every port serves again.
func TestRootEveryPortIsUsed(t *testing.T) {
	for _, ports := range [][2]uint16{{61000, 61000}, {65535, 65535}, {64000, 64001}, {61000, 61063}, {61000, 65535}} {
		t.Run(fmt.Sprintf("%d-%d", ports[0], ports[1]), func(t *testing.T) {
			eachPorts(t, ports[0], ports[1], map[string]any{"flows": uint32(32768), "idle_crowded": uint32(1 << 20)}, func(t *testing.T, r *portRig) {
				owners := r.fill(r.vip, unix.IPPROTO_TCP)
				r.refused("every port is in use", r.another, r.vip)
				for _, client := range owners {
					r.reset(client, r.vip)
				}
				again := make(map[uint16]bool, r.size())
				for i := range r.size() {
					port := r.ask(r.peer(10000+i), r.vip, unix.IPPROTO_TCP)
					if port == 0 || again[port] {
						t.Fatalf("connection %d of %d got port %d, given before: %v", i, r.size(), port, again[port])
					}
					again[port] = true
				}
				r.refused("every port is in use again", r.another, r.vip)
				if got := r.tries(); got.Exhausted != 2 || total(got) != uint64(2*r.size()) {
					t.Fatalf("%d found and %d not, want %d and 2: %+v", total(got), got.Exhausted, 2*r.size(), got)
				}
			})
		})
	}
}

func total(t bpf.PortTries) (n uint64) {
	for _, found := range t.Found {
		n += found
	}
	return n
}

// TestRootPortsArePerBackend exhausts one backend: another one has the same
// ports still to give, and to the other protocol they are free, too.
func TestRootPortsArePerBackend(t *testing.T) {
	eachPorts(t, 61000, 61007, nil, func(t *testing.T, r *portRig) {
		busy := r.fill(r.vip, unix.IPPROTO_TCP)
		r.refused("the first backend has no port left", r.another, r.vip)
		for name, other := range map[string]map[uint16]netip.AddrPort{
			"another backend": r.fill(r.secondVIP, unix.IPPROTO_TCP), "UDP": r.fill(r.vip, unix.IPPROTO_UDP),
		} {
			for port := range busy {
				if _, given := other[port]; !given {
					t.Errorf("%s was not given port %d", name, port)
				}
			}
		}
		for port, client := range busy { // nothing of this did them harm
			inside := packet{src: netip.AddrPortFrom(client.Addr(), port), dst: r.stable, flags: syn, seq: isn}
			wire := inside
			wire.src = netip.AddrPortFrom(r.host, port)
			r.out("an old connection", inside, wire)
		}
	})
}

// TestRootFirstPortIsCheap holds what an allocation costs while the range is
// nearly empty: the client's own port of the range none, others one try, two
// where chance has it.
func TestRootFirstPortIsCheap(t *testing.T) {
	eachPorts(t, 61000, 65535, map[string]any{"flows": uint32(1024)}, func(t *testing.T, r *portRig) {
		const own, others = 61234, 40
		if port := r.ask(netip.AddrPortFrom(r.client.Addr(), own), r.vip, unix.IPPROTO_TCP); port != own {
			t.Fatalf("the client's own port %d was free, got %d", own, port)
		}
		for i := range others {
			r.ask(r.peer(i), r.vip, unix.IPPROTO_TCP)
		}
		// Of 4,536 ports at most 40 are in use: that even 10 of the clients
		// meet one of them at first has a chance of 10^-11.
		if got := r.tries(); got.Found[0] != 1 || got.Found[1] < others-10 || got.Sum > 2*others {
			t.Fatalf("%d clients took %d tries: %v", others+1, got.Sum, got.Found)
		}
	})
}

// TestRootExhaustionIsRemembered floods a backend that has nothing to give: the
// range is not searched again and again. What is given back is found at once.
func TestRootExhaustionIsRemembered(t *testing.T) {
	eachPorts(t, 61000, 61255, map[string]any{"flows": uint32(2048), "port_pause": uint32(1 << 20)}, func(t *testing.T, r *portRig) {
		owners := r.fill(r.vip, unix.IPPROTO_TCP)
		r.refused("nothing is left", r.another, r.vip)
		before := r.tries()
		for i := range 1000 {
			r.refused("still nothing", r.peer(5000+i), r.vip)
		}
		after := r.tries()
		if after.Sum != before.Sum || after.Exhausted != before.Exhausted+1000 {
			t.Fatalf("1000 SYNs to a backend without ports cost %d tries", after.Sum-before.Sum)
		}
		for port, client := range owners {
			r.reset(client, r.vip)
			if got := r.ask(r.peer(9000), r.vip, unix.IPPROTO_TCP); got != port {
				t.Fatalf("port %d was given back, but the next client got %d", port, got)
			}
			break
		}
		r.refused("nothing again", r.another, r.vip)
		if got := r.tries(); got.Sum-after.Sum > 80+80 {
			t.Fatalf("one port given back cost %d tries", got.Sum-after.Sum)
		}
	})
}
