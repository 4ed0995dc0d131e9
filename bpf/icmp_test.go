package bpf_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// Kinds of ICMP errors by family: too big, port unreachable, time exceeded.
func icmpKinds(f family) [][2]uint8 {
	if f.client.Addr().Is6() {
		return [][2]uint8{{2, 0}, {1, 4}, {3, 0}}
	}
	return [][2]uint8{{3, 4}, {3, 3}, {11, 0}}
}

func router(f family) netip.Addr {
	if f.client.Addr().Is6() {
		return netip.MustParseAddr("2001:db8:ffff::1")
	}
	return netip.MustParseAddr("198.18.255.1")
}

// TestRootICMPToClient sends errors about a client's packet back to it: from
// the host or a router, and from the backend itself; with 8 bytes of the packet
// quoted and with all of it.
func TestRootICMPToClient(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			sent := packet{src: f.client, dst: f.vip, proto: proto, flags: syn, seq: isn, payload: []byte("hello")}
			inner := sent
			inner.dst = f.stable
			r.in("the packet", sent, inner)
			for _, kind := range icmpKinds(f) {
				for _, quoted := range []int{8, 64} {
					r.expect(r.SiskinEgress, "error of a router",
						icmpError(router(f), f.client.Addr(), kind[0], kind[1], inner, quoted),
						icmpError(f.vip.Addr(), f.client.Addr(), kind[0], kind[1], sent, quoted))
					r.expect(r.SiskinEgress, "error of the backend",
						icmpError(f.stable.Addr(), f.client.Addr(), kind[0], kind[1], inner, quoted),
						icmpError(f.vip.Addr(), f.client.Addr(), kind[0], kind[1], sent, quoted))
				}
			}
		}
		if got := r.tally(1); got.Unreachable != 2 {
			t.Fatalf("unreachable counts once a flow: %+v", got)
		}
		stranger := packet{src: f.another, dst: f.stable, flags: syn}
		same := icmpError(router(f), f.another.Addr(), 3, 3, stranger, 8)
		r.expect(r.SiskinEgress, "error about somebody else's packet", same, same)
	})
}

// TestRootICMPFromClient sends an error about a reply to the backend that sent
// it: path MTU discovery towards the client.
func TestRootICMPFromClient(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		r.open(f.client, f.vip, f.stable)
		reply := packet{src: f.vip, dst: f.client, flags: ack, seq: serverISN + 1, ack: isn + 1, payload: []byte("long")}
		inner := reply
		inner.src = f.stable
		for _, kind := range icmpKinds(f) {
			for _, quoted := range []int{8, 64} {
				r.expect(r.SiskinIngress, "error about a reply",
					icmpError(router(f), f.vip.Addr(), kind[0], kind[1], reply, quoted),
					icmpError(router(f), f.stable.Addr(), kind[0], kind[1], inner, quoted))
			}
		}
		if r.reason(bpf.Note, "icmp_translated") != 6 {
			t.Fatal("translations are not counted")
		}
	})
}

// TestRootICMPSourceNAT follows errors in both directions over both hooks of a
// flow whose source is rewritten.
func TestRootICMPSourceNAT(t *testing.T) {
	eachNAT(t, func(t *testing.T, r *rig, f family) {
		port := r.throughHost(f, f.client, unix.IPPROTO_TCP)
		hidden := netip.AddrPortFrom(f.host, port)
		inside := netip.AddrPortFrom(f.client.Addr(), port)
		kind := icmpKinds(f)[0]
		for _, quoted := range []int{8, 64} {
			about := func(src, dst netip.AddrPort) packet {
				return packet{src: src, dst: dst, flags: ack, seq: 9, ack: 8, payload: []byte("abcd")}
			}
			e := func(to netip.Addr, p packet) []byte {
				return icmpError(router(f), to, kind[0], kind[1], p, quoted)
			}
			r.expect(r.SiskinIngress, "from beyond the backend", e(f.host, about(hidden, f.stable)), e(f.client.Addr(), about(inside, f.stable)))
			r.expect(r.SiskinEgress, "on to the client", e(f.client.Addr(), about(inside, f.stable)),
				icmpError(f.vip.Addr(), f.client.Addr(), kind[0], kind[1], about(f.client, f.vip), quoted))
			r.expect(r.SiskinIngress, "from the client's side", e(f.vip.Addr(), about(f.vip, f.client)), e(f.stable.Addr(), about(f.stable, inside)))
			r.expect(r.SiskinEgress, "on to the backend", e(f.stable.Addr(), about(f.stable, inside)), e(f.stable.Addr(), about(f.stable, hidden)))
		}
	})
}
