package bpf_test

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// redirected puts the client's flow past the stack: the way to the backend and
// the one back.
func (r *rig) redirected(f family, proto uint8, out, home bpf.Hop) {
	r.t.Helper()
	index, slot := r.slot(flowKey(f.client, f.vip, proto))
	slot.Flow.Flags |= bpf.FlowRedirect
	slot.Flow.Hop = home
	r.put(r.Flows, index, slot)
	r.put(r.Hops, uint32(1), out)
}

// TestRootICMPPastTheStack sends errors about flows that netfilter never saw: it
// would call them invalid. They are translated where they come in and go the
// way of their flow, or by the stack, in halves, where that has to say no.
func TestRootICMPPastTheStack(t *testing.T) {
	home := bpf.Hop{To: [6]uint8{2, 0, 0, 0, 0, 1}, From: [6]uint8{2, 0, 0, 0, 0, 2}, Ifindex: 1, Checked: 1, Mtu: 1500}
	out := bpf.Hop{To: [6]uint8{2, 0, 0, 0, 0, 3}, From: [6]uint8{2, 0, 0, 0, 0, 4}, Ifindex: 1, Checked: 1, Mtu: 1500}
	for _, f := range families() {
		for i, mode := range natModes()[:3] {
			t.Run(f.name+"/"+mode.name, func(t *testing.T) {
				r := mode.rig(t, f)
				for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
					inside, wire := mode.open(r, f, proto)
					r.redirected(f, proto, out, home)
					p := pastTheStack{rig: r, f: f, out: out, home: home, proto: proto, inside: inside, wire: wire, hidden: i == 2}
					for _, kind := range icmpKinds(f) {
						for _, quoted := range []int{8, 64} {
							p.kind, p.quoted = kind, quoted
							p.sent()
						}
					}
					p.notSent()
				}
			})
		}
	}
}

type pastTheStack struct {
	*rig
	f            family
	out, home    bpf.Hop
	proto        uint8
	inside, wire netip.AddrPort
	hidden       bool // the backend does not know the client
	kind         [2]uint8
	quoted       int
}

func (p pastTheStack) message(from, to netip.Addr, about packet) icmpMessage {
	about.proto, about.flags, about.seq, about.payload = p.proto, ack, isn+9, []byte("abcde")
	return icmpMessage{from: from, to: to, kind: p.kind, about: about, quoted: p.quoted}
}

// toClient is an error as it comes from beyond the backend, as it lies between
// the hooks where it must take the stack's way, and as the client gets it.
func (p pastTheStack) toClient() (in, middle, last icmpMessage) {
	in = p.message(router(p.f), p.wire.Addr(), packet{src: p.wire, dst: p.f.stable})
	middle = p.message(router(p.f), p.f.client.Addr(), packet{src: p.inside, dst: p.f.stable})
	last = p.message(p.f.vip.Addr(), p.f.client.Addr(), packet{src: p.f.client, dst: p.f.vip})
	last.ttl, last.by = 63, p.home
	return in, middle, last
}

func (p pastTheStack) toBackend() (in, middle, last icmpMessage) {
	in = p.message(router(p.f), p.f.vip.Addr(), packet{src: p.f.vip, dst: p.f.client})
	middle = p.message(router(p.f), p.f.stable.Addr(), packet{src: p.f.stable, dst: p.inside})
	last = p.message(router(p.f), p.f.stable.Addr(), packet{src: p.f.stable, dst: p.wire})
	if p.hidden {
		last.from = p.f.host
	}
	last.ttl, last.by = 63, p.out
	return in, middle, last
}

func (p pastTheStack) sent() {
	p.t.Helper()
	for what, way := range map[string]func() (in, middle, last icmpMessage){"to the client": p.toClient, "to the backend": p.toBackend} {
		in, _, last := way()
		verdict, got := p.run(p.SiskinIngress, in.frame())
		if verdict != redirect || !bytes.Equal(got, last.frame()) {
			p.t.Fatalf("%s: verdict %d\n got  %x\n want %x", what, int32(verdict), got, last.frame())
		}
	}
}

// notSent lets the stack judge: about a packet whose time is exceeded, one that
// is too long, and ways that are not there.
func (p pastTheStack) notSent() {
	p.t.Helper()
	narrow := func(h bpf.Hop) bpf.Hop { h.Mtu = 40; return h }
	none := func(h bpf.Hop) bpf.Hop { h.Flags = 2; return h } // HOP_NONE
	for _, c := range []struct {
		what      string
		ttl       uint8
		out, home bpf.Hop
	}{{"time to live", 1, p.out, p.home}, {"too long", 0, narrow(p.out), narrow(p.home)}, {"no way", 0, none(p.out), none(p.home)}} {
		p.redirected(p.f, p.proto, c.out, c.home)
		for _, way := range []func() (in, middle, last icmpMessage){p.toClient, p.toBackend} {
			in, middle, _ := way()
			in.ttl, middle.ttl = c.ttl, c.ttl
			p.expect(p.SiskinIngress, c.what, in.frame(), middle.frame())
		}
	}
	p.redirected(p.f, p.proto, p.out, p.home)
}
