package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	fin = 1
	syn = 2
	rst = 4
	ack = 16
)

// A packet is one IP packet in an Ethernet frame, as fields. The tests write
// what goes in and what must come out in the same form, so every byte between
// is compared, checksums included.
type packet struct {
	src, dst netip.AddrPort
	proto    uint8 // default TCP
	flags    uint8
	seq, ack uint32
	payload  []byte

	ttl      uint8 // default 64
	ident    uint32
	fragment uint16 // offset in bytes, plus 1 when more fragments follow
	whole    int    // UDP length of the whole datagram, for a first fragment
	noSum    bool   // UDP over IPv4 without a checksum
	options  int    // bytes of IPv4 options
}

func (p packet) v6() bool { return p.src.Addr().Is6() }

// frame returns the packet's bytes with right checksums.
func (p packet) frame() []byte {
	if p.proto == 0 {
		p.proto = unix.IPPROTO_TCP
	}
	body := p.l4()
	if p.fragment&^1 != 0 {
		body = p.payload
	}
	return ethernet(p.v6(), ip(p, body))
}

func ethernet(v6 bool, packet []byte) []byte {
	frame := make([]byte, 14, 14+len(packet))
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	if v6 {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
	}
	return append(frame, packet...)
}

func ip(p packet, body []byte) []byte {
	ttl := p.ttl
	if ttl == 0 {
		ttl = 64
	}
	if p.v6() {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, p.proto, ttl
		src, dst := p.src.Addr().As16(), p.dst.Addr().As16()
		copy(h[8:], src[:])
		copy(h[24:], dst[:])
		if p.fragment != 0 || p.ident != 0 {
			h[6] = unix.IPPROTO_FRAGMENT
			f := make([]byte, 8)
			f[0] = p.proto
			binary.BigEndian.PutUint16(f[2:], p.fragment)
			binary.BigEndian.PutUint32(f[4:], p.ident)
			h = append(h, f...)
		}
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+len(body)))
		return append(h, body...)
	}
	h := make([]byte, 20+p.options)
	h[0], h[8], h[9] = 0x40|byte(len(h)/4), ttl, p.proto
	for i := 20; i < len(h); i++ {
		h[i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
	binary.BigEndian.PutUint16(h[4:], uint16(p.ident))
	binary.BigEndian.PutUint16(h[6:], p.fragment>>3|p.fragment&1<<13)
	src, dst := p.src.Addr().As4(), p.dst.Addr().As4()
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	binary.BigEndian.PutUint16(h[10:], ^sum(h))
	return append(h, body...)
}

func (p packet) l4() []byte {
	var h []byte
	check := 0
	switch p.proto {
	case unix.IPPROTO_TCP:
		h = make([]byte, 20)
		binary.BigEndian.PutUint32(h[4:], p.seq)
		binary.BigEndian.PutUint32(h[8:], p.ack)
		h[12], h[13] = 5<<4, p.flags
		check = 16
	case unix.IPPROTO_UDP:
		h = make([]byte, 8)
		check = 6
	default:
		return p.payload
	}
	binary.BigEndian.PutUint16(h[0:], p.src.Port())
	binary.BigEndian.PutUint16(h[2:], p.dst.Port())
	h = append(h, p.payload...)
	length := len(h)
	if p.proto == unix.IPPROTO_UDP {
		if p.whole != 0 {
			length = p.whole
		}
		binary.BigEndian.PutUint16(h[4:], uint16(length))
	}
	if p.noSum {
		return h
	}
	// A first fragment's checksum covers bytes that are not here; zeros stand
	// in for them on both sides of the comparison.
	s := ^sum(pseudo(p.src.Addr(), p.dst.Addr(), p.proto, length), h)
	if s == 0 && p.proto == unix.IPPROTO_UDP {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(h[check:], s)
	return h
}

func pseudo(src, dst netip.Addr, proto uint8, length int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	return append(b, 0, proto, byte(length>>8), byte(length))
}

// sum is the ones' complement sum of 16-bit words (RFC 1071).
func sum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			word := uint32(b[i]) << 8
			if i+1 < len(b) {
				word |= uint32(b[i+1])
			}
			s += word
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSumKnownAnswer(t *testing.T) {
	// RFC 1071 section 3: 0001 f203 f4f5 f6f7 sum to ddf2.
	if got := sum([]byte{0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7}); got != 0xddf2 {
		t.Fatalf("sum = %#04x, want 0xddf2", got)
	}
}
