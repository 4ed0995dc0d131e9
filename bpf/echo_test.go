package bpf_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

const redirect = 7 // TC_ACT_REDIRECT

// An echoPacket is an echo request or its answer.
type echoPacket struct {
	from, to netip.Addr
	answer   bool
	code     uint8
	data     []byte
	as       packet // the rest of its IP header
	station  byte   // of the sender's or, in an answer, the receiver's MAC address
}

func (e echoPacket) frame() []byte {
	kind, proto := map[bool]byte{false: 8, true: 0}[e.answer], uint8(unix.IPPROTO_ICMP)
	if e.to.Is6() {
		kind, proto = map[bool]byte{false: 128, true: 129}[e.answer], unix.IPPROTO_ICMPV6
	}
	body := append([]byte{kind, e.code, 0, 0, 0x12, 0x34, 0, 7}, e.data...)
	if e.to.Is6() {
		binary.BigEndian.PutUint16(body[2:], ^sum(pseudo(e.from, e.to, proto, len(body)), body))
	} else {
		binary.BigEndian.PutUint16(body[2:], ^sum(body))
	}
	p := e.as
	p.src, p.dst, p.proto, p.payload = netip.AddrPortFrom(e.from, 0), netip.AddrPortFrom(e.to, 0), proto, body
	frame := p.frame()
	// The loopback's own MAC address is zero.
	mac := frame[6:12]
	if e.answer {
		mac = frame[0:6]
	}
	if e.station != 0 {
		copy(mac, []byte{2, 0, 0, 0, 0, e.station})
	}
	return frame
}

// TestRootEcho pings a virtual address: the answer goes back to the station
// that asked, as if the address were on an interface.
func TestRootEcho(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		vip, client := f.vip.Addr(), f.client.Addr()
		r.put(r.Echoes, bpf.AddrFrom(vip), uint32(1))
		asked := uint64(0)
		for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{0xff, 0xff}, 28), make([]byte, 1400)} {
			for _, ttl := range []uint8{1, 2, 64, 255} {
				ask := echoPacket{from: client, to: vip, data: data, as: packet{ttl: ttl}, station: 9}
				answer := echoPacket{from: vip, to: client, data: data, answer: true, station: 9}
				verdict, out := r.run(r.SiskinIngress, ask.frame())
				if verdict != redirect || !bytes.Equal(out, answer.frame()) {
					t.Fatalf("%d bytes, ttl %d: verdict %d\n got  %s\n want %s", len(data), ttl, int32(verdict),
						hex.EncodeToString(out), hex.EncodeToString(answer.frame()))
				}
				asked++
			}
		}
		if got := r.reason(bpf.Note, "echo_answered"); got != asked {
			t.Fatalf("%d answers are counted, want %d", got, asked)
		}
	})
}

// TestRootEchoNotOurs sends what the stack, or nobody, must answer.
func TestRootEchoNotOurs(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		vip, client := f.vip.Addr(), f.client.Addr()
		r.put(r.Echoes, bpf.AddrFrom(vip), uint32(1))
		for _, c := range []struct {
			name string
			ask  echoPacket
		}{
			{"the address of a backend", echoPacket{from: client, to: f.stable.Addr()}},
			{"an answer", echoPacket{from: client, to: vip, answer: true}},
			{"another code", echoPacket{from: client, to: vip, code: 1}},
			{"first fragment", echoPacket{from: client, to: vip, as: packet{ident: 7, fragment: 1}}},
			{"last fragment", echoPacket{from: client, to: vip, as: packet{ident: 7, fragment: 1480}}},
		} {
			r.expect(r.SiskinIngress, c.name, c.ask.frame(), c.ask.frame())
		}
		forbidden := []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"}
		if vip.Is6() {
			forbidden = []string{"::", "::1", "ff02::1", "::ffff:198.18.1.7"}
		} else {
			options := echoPacket{from: client, to: vip, as: packet{options: 4}}.frame()
			r.expect(r.SiskinIngress, "options", options, options)
		}
		for _, from := range forbidden {
			ask := echoPacket{from: netip.MustParseAddr(from), to: vip}.frame()
			r.expect(r.SiskinIngress, "sender "+from, ask, ask)
		}
		ask := echoPacket{from: client, to: vip}.frame()
		r.expect(r.SiskinEgress, "leaving", ask, ask)
		if got := r.reason(bpf.Note, "echo_answered"); got != 0 {
			t.Fatalf("%d answers are counted", got)
		}
	})
}
