package bpf_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// Kinds of ICMP errors by family: too big, port unreachable, time exceeded,
// parameter problem.
func icmpKinds(f family) [][2]uint8 {
	if f.client.Addr().Is6() {
		return [][2]uint8{{2, 0}, {1, 4}, {3, 0}, {4, 0}}
	}
	return [][2]uint8{{3, 4}, {3, 3}, {11, 0}, {12, 0}}
}

func router(f family) netip.Addr {
	if f.client.Addr().Is6() {
		return netip.MustParseAddr("2001:db8:ffff::1")
	}
	return netip.MustParseAddr("198.18.255.1")
}

// An icmpMessage is an ICMP error as fields, in a frame with right checksums.
type icmpMessage struct {
	from, to netip.Addr
	kind     [2]uint8
	about    packet // whose frame is quoted
	quoted   int    // bytes of it behind the fixed IP header
	padded   int    // the quote is filled up to this, and its length is told (RFC 4884)
	jumbo    bool   // IPv6: it has the option of aggregates over 64 KiB
	behind   []byte // the quote: an extension
	trailer  []byte // the packet, in the frame
	ttl      uint8  // default 64
	by       bpf.Hop
}

func (m icmpMessage) frame() []byte {
	whole := m.about.frame()[14:]
	if m.jumbo && m.about.v6() {
		option := []byte{whole[6], 0, 0xc2, 4, 0, 1, 0, 0}
		whole[4], whole[5], whole[6] = 0, 0, 0
		whole = slices.Insert(whole, 40, option...)
	}
	header, proto, lengthAt, unit := 20, uint8(unix.IPPROTO_ICMP), 5, 4
	if m.about.v6() {
		header, proto, lengthAt, unit = 40, unix.IPPROTO_ICMPV6, 4, 8
	}
	quote := whole[:min(len(whole), header+m.quoted)]
	body := []byte{m.kind[0], m.kind[1], 0, 0, 0, 0, 0x05, 0}
	if m.padded > 0 {
		quote = append(bytes.Clone(quote), make([]byte, m.padded-len(quote))...)
		body[lengthAt] = byte(m.padded / unit)
	}
	body = append(append(body, quote...), m.behind...)
	if m.about.v6() {
		binary.BigEndian.PutUint16(body[2:], ^sum(pseudo(m.from, m.to, proto, len(body)), body))
	} else {
		binary.BigEndian.PutUint16(body[2:], ^sum(body))
	}
	outer := packet{
		src: netip.AddrPortFrom(m.from, 0), dst: netip.AddrPortFrom(m.to, 0),
		proto: proto, payload: body, ttl: m.ttl,
	}
	frame := append(outer.frame(), m.trailer...)
	copy(frame, append(m.by.To[:], m.by.From[:]...))
	return frame
}

// icmpError returns an ICMP error from one address to another that quotes a
// packet, cut to `quoted` bytes behind its IP header.
func icmpError(from, to netip.Addr, kind, code uint8, about packet, quoted int) []byte {
	return icmpMessage{from: from, to: to, kind: [2]uint8{kind, code}, about: about, quoted: quoted}.frame()
}

// A natMode is a way in which the backend sees the client.
type natMode struct {
	name string
	rig  func(*testing.T, family) *rig
	// open makes a flow of the client: what the stack between the hooks sees
	// as its source, and what the backend sees.
	open func(r *rig, f family, proto uint8) (inside, wire netip.AddrPort)
}

func natModes() []natMode {
	ask := func(r *rig, f family, vip netip.AddrPort, proto uint8) netip.AddrPort {
		r.t.Helper()
		sent := packet{src: f.client, dst: vip, proto: proto, flags: syn, seq: isn, payload: []byte("hello")}
		if verdict, _ := r.run(r.SiskinIngress, sent.frame()); verdict != next {
			r.t.Fatalf("open: verdict %d", int32(verdict))
		}
		if vip != f.vip {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(f.client.Addr(), r.port(f.client, vip, proto))
	}
	shared := func(t *testing.T, f family) *rig {
		r := newRig(t, nil)
		r.backend(1, f.stable, backendOptions{flags: bpf.BackendShared})
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			r.frontend(1, f.vip, proto, 0, 1)
			r.frontend(2, f.secondVIP, proto, 0, 1)
		}
		return r
	}
	return []natMode{
		{"kept", shared, func(r *rig, f family, proto uint8) (inside, wire netip.AddrPort) {
			inside = ask(r, f, f.vip, proto)
			return inside, inside
		}},
		// The client's port is taken by its flow to another frontend.
		{"moved", shared, func(r *rig, f family, proto uint8) (inside, wire netip.AddrPort) {
			ask(r, f, f.secondVIP, proto)
			inside = ask(r, f, f.vip, proto)
			if inside == f.client {
				r.t.Fatal("the port was not moved")
			}
			return inside, inside
		}},
		{"rewritten", natRig, func(r *rig, f family, proto uint8) (inside, wire netip.AddrPort) {
			inside = ask(r, f, f.vip, proto)
			return inside, netip.AddrPortFrom(f.host, inside.Port())
		}},
		// Between the hooks netfilter undoes and does its own work.
		{"masqueraded", natRig, func(r *rig, f family, proto uint8) (inside, wire netip.AddrPort) {
			inside = ask(r, f, f.vip, proto)
			wire = netip.AddrPortFrom(f.host, inside.Port())
			sent := packet{src: wire, dst: f.stable, proto: proto, flags: syn, seq: isn}
			r.out("netfilter has rewritten it", sent, sent)
			return inside, wire
		}},
	}
}

// TestRootICMP sends errors in all four directions: over both hooks to the
// client, and over both hooks to the backend; of every kind, with the 8 bytes
// that are sure, with a whole TCP header, and with all of the packet.
func TestRootICMP(t *testing.T) {
	for _, f := range families() {
		for _, mode := range natModes() {
			t.Run(f.name+"/"+mode.name, func(t *testing.T) {
				r := mode.rig(t, f)
				for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
					inside, wire := mode.open(r, f, proto)
					for _, kind := range icmpKinds(f) {
						for _, quoted := range []int{8, 20, 64} {
							icmpWays(r, f, mode.name, inside, wire, func(from, to netip.Addr, about packet) []byte {
								about.proto, about.flags, about.seq, about.payload = proto, ack, isn+9, []byte("abcde")
								return icmpError(from, to, kind[0], kind[1], about, quoted)
							})
						}
					}
				}
			})
		}
	}
}

func icmpWays(r *rig, f family, mode string, inside, wire netip.AddrPort, e func(from, to netip.Addr, about packet) []byte) {
	r.t.Helper()
	vip, client, host, stable := f.vip, f.client.Addr(), f.host, f.stable.Addr()
	before := r.reason(bpf.Note, "icmp_translated")
	translated := uint64(3) // of five; the others already say what they must

	fromBackend := e(router(f), wire.Addr(), packet{src: wire, dst: f.stable})
	middle := fromBackend
	if mode == "rewritten" {
		middle = e(router(f), client, packet{src: inside, dst: f.stable})
		translated++
	}
	r.expect(r.SiskinIngress, "from beyond the backend", fromBackend, middle)
	r.expect(r.SiskinEgress, "on to the client",
		e(router(f), client, packet{src: inside, dst: f.stable}),
		e(vip.Addr(), client, packet{src: f.client, dst: vip}))
	r.expect(r.SiskinEgress, "made by the host, to the client",
		e(host, client, packet{src: inside, dst: f.stable}),
		e(vip.Addr(), client, packet{src: f.client, dst: vip}))

	r.expect(r.SiskinIngress, "from the client's side",
		e(router(f), vip.Addr(), packet{src: vip, dst: f.client}),
		e(router(f), stable, packet{src: f.stable, dst: inside}))
	toBackend := e(router(f), stable, packet{src: f.stable, dst: inside})
	last := toBackend
	switch mode {
	case "rewritten":
		last = e(host, stable, packet{src: f.stable, dst: wire})
		translated++
	case "masqueraded":
		toBackend = e(host, stable, packet{src: f.stable, dst: wire})
		last = toBackend
	}
	r.expect(r.SiskinEgress, "on to the backend", toBackend, last)
	if got := r.reason(bpf.Note, "icmp_translated") - before; got != translated {
		r.t.Fatalf("%d translations are counted, want %d", got, translated)
	}
}

// TestRootICMPQuotes sends errors that quote in unusual ways. The message and
// all that lies around it must come out right, or the client drops it.
func TestRootICMPQuotes(t *testing.T) {
	extension := []byte{0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 1, 2, 3, 4}
	long := bytes.Repeat([]byte("long "), 60)
	each(t, nil, func(t *testing.T, r *rig, f family) {
		for i, c := range []struct {
			name  string
			about packet
			how   icmpMessage
			told  bool // only where the header has a length (RFC 4884)
		}{
			{"padding behind 8 bytes", packet{}, icmpMessage{quoted: 8, trailer: bytes.Repeat([]byte{0xaa}, 30)}, false},
			{"an odd number of bytes", packet{payload: long}, icmpMessage{quoted: 83}, false},
			{"a whole quote and an extension", packet{}, icmpMessage{quoted: 20, padded: 128, behind: extension}, true},
			{"a long quote and an extension", packet{payload: long}, icmpMessage{quoted: 108, padded: 152, behind: extension}, true},
			{"an extension after 8 bytes", packet{}, icmpMessage{quoted: 8, padded: -1, behind: extension}, true},
			{"UDP", packet{proto: unix.IPPROTO_UDP, payload: long}, icmpMessage{quoted: 8}, false},
			{"UDP without a checksum", packet{proto: unix.IPPROTO_UDP, noSum: true}, icmpMessage{quoted: 8}, false},
			{"first fragment", packet{proto: unix.IPPROTO_UDP, ident: 77, fragment: 1, whole: 4008, payload: long}, icmpMessage{quoted: 64}, false},
			{"an aggregate of the host's own", packet{payload: long}, icmpMessage{quoted: 64, jumbo: true}, false},
		} {
			sent := c.about
			sent.flags, sent.seq, sent.dst = syn, isn, f.vip
			sent.src = netip.AddrPortFrom(f.client.Addr(), uint16(30000+i))
			inner, open := sent, sent
			inner.dst = f.stable
			open.fragment, open.ident, open.whole = 0, 0, 0
			r.run(r.SiskinIngress, open.frame())
			for i, kind := range icmpKinds(f) {
				if c.told && sent.v6() && (i == 0 || i == 3) {
					continue
				}
				in := c.how
				in.kind, in.from, in.to, in.about = kind, router(f), f.client.Addr(), inner
				if in.padded < 0 {
					in.padded = in.quoted + len(ip(packet{src: f.client, dst: f.vip}, nil))
				}
				out := in
				out.from, out.about = f.vip.Addr(), sent
				r.expect(r.SiskinEgress, fmt.Sprintf("%s, kind %v", c.name, kind), in.frame(), out.frame())
			}
		}
	})
}

// TestRootICMPNotOurs sends errors that must pass with not a bit changed.
func TestRootICMPNotOurs(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		r.open(f.client, f.vip, f.stable)
		kind := icmpKinds(f)[1]
		about := packet{src: f.client, dst: f.stable, flags: ack, seq: isn, payload: []byte("abcd")}
		change := func(change func(*packet)) packet {
			p := about
			change(&p)
			return p
		}
		for _, c := range []struct {
			name string
			m    icmpMessage
		}{
			{"somebody else's packet", icmpMessage{about: change(func(p *packet) { p.src = f.another }), to: f.another.Addr()}},
			{"sent to another than the quoted sender", icmpMessage{about: about, to: f.another.Addr()}},
			{"later fragment", icmpMessage{about: change(func(p *packet) { p.fragment, p.ident = 1480|1, 5 })}},
			{"fewer than 8 bytes", icmpMessage{about: about, quoted: 6}},
			{"fewer than 8 bytes, and padding", icmpMessage{about: about, quoted: 6, trailer: make([]byte, 40)}},
			{"another protocol", icmpMessage{about: change(func(p *packet) { p.proto = unix.IPPROTO_SCTP })}},
			{"a redirect", icmpMessage{about: about, kind: map[bool][2]uint8{false: {5, 1}, true: {137, 0}}[about.v6()]}},
		} {
			if c.m.kind == [2]uint8{} {
				c.m.kind = kind
			}
			if !c.m.to.IsValid() {
				c.m.to = f.client.Addr()
			}
			if c.m.quoted == 0 {
				c.m.quoted = 28
			}
			c.m.from = router(f)
			r.expect(r.SiskinEgress, c.name, c.m.frame(), c.m.frame())
		}
		if !about.v6() {
			options := icmpMessage{
				from: router(f), to: f.client.Addr(), kind: kind, quoted: 28,
				about: change(func(p *packet) { p.options = 8 }),
			}.frame()
			r.expect(r.SiskinEgress, "a packet with options, which is not steered", options, options)
		}
		if r.reason(bpf.Note, "icmp_translated") != 0 || r.reason(bpf.Pass, "icmp_no_flow") == 0 {
			t.Fatal("what was passed is not counted as such")
		}
	})
}

// TestRootICMPGuesses sends unreachables in the name of others: they are passed
// on, since the client checks them itself, but they must not count against a
// backend unless their sender saw the packet.
func TestRootICMPGuesses(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		kind := icmpKinds(f)[1]
		sent := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		inner := sent
		inner.dst = f.stable
		r.in("SYN", sent, inner)
		tell := func(seq uint32, want uint64) {
			t.Helper()
			sent.seq, inner.seq = seq, seq
			r.expect(r.SiskinEgress, "unreachable",
				icmpError(router(f), f.client.Addr(), kind[0], kind[1], inner, 8),
				icmpError(f.vip.Addr(), f.client.Addr(), kind[0], kind[1], sent, 8))
			if got := r.tally(1).Unreachable; got != want {
				t.Fatalf("sequence number SYN%+d: %d counted, want %d", int32(seq-isn), got, want)
			}
		}
		for _, off := range []uint32{1, 1 << 16, 1 << 31, ^uint32(1460)} {
			tell(isn+off, 0)
		}
		for i, other := range icmpKinds(f) {
			if i == 1 {
				continue
			}
			r.run(r.SiskinEgress, icmpError(router(f), f.client.Addr(), other[0], other[1], inner, 8))
		}
		tell(isn, 1)
		tell(isn, 1) // once a flow
		r.open(f.another, f.vip, f.stable)
		inner.src, inner.seq = f.another, isn
		r.run(r.SiskinEgress, icmpError(router(f), f.another.Addr(), kind[0], kind[1], inner, 8))
		if got := r.tally(1).Unreachable; got != 1 {
			t.Fatal("a connection that was answered is not unreachable")
		}
	})
}
