package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A dissection is what gopacket makes of a frame: the fuzzer's judge shares no
// code with the programs or with the packets of the other tests.
type dissection struct {
	otherHost bool
	v6        bool
	l3, l4    int // offsets in the frame
	end       int // where the IP packet ends
	src, dst  netip.AddrPort
	proto     layers.IPProtocol
	first     bool // fragment
	later     bool // fragment: it has no ports
	sum       int  // offset of the L4 checksum; 0: none is there
	complaint bool // an ICMP error
	inner     *dissection
}

// dissect returns nil for what nobody could steer: not IP, cut off, malformed,
// with options or extension headers, or of another protocol.
func dissect(frame []byte) *dissection {
	var eth layers.Ethernet
	if eth.DecodeFromBytes(frame, gopacket.NilDecodeFeedback) != nil {
		return nil
	}
	d := &dissection{l3: 14, otherHost: slices.ContainsFunc(eth.DstMAC, func(b byte) bool { return b != 0 })}
	kind, rest := eth.EthernetType, eth.Payload
	for range 2 {
		var tag layers.Dot1Q
		if kind != layers.EthernetTypeDot1Q && kind != layers.EthernetTypeQinQ ||
			tag.DecodeFromBytes(rest, gopacket.NilDecodeFeedback) != nil {
			break
		}
		kind, rest, d.l3 = tag.Type, tag.Payload, d.l3+4
	}
	switch kind {
	case layers.EthernetTypeIPv4:
		if !d.ipv4(frame, false) {
			return nil
		}
	case layers.EthernetTypeIPv6:
		if !d.ipv6(frame, false) {
			return nil
		}
	default:
		return nil
	}
	if d.later || d.transport(frame) {
		return d
	}
	return nil
}

// ipv4 reads an IPv4 header; a quoted one's length may say more than is there.
func (d *dissection) ipv4(frame []byte, quoted bool) bool {
	whole := frame[d.l3:]
	if len(whole) < 20 || whole[0]>>4 != 4 {
		return false
	}
	header := int(whole[0]&15) * 4
	later := binary.BigEndian.Uint16(whole[6:])&0x1fff != 0
	if header != 20 && (!later || quoted) {
		return false // what its options ask for is the stack's business
	}
	if length := int(binary.BigEndian.Uint16(whole[2:])); !quoted && length != 0 && (length > len(whole) || length < header) {
		return false
	}
	// gopacket need not like a later fragment's options, nor what some system
	// wrote over the length of the packet that it quotes.
	var ip layers.IPv4
	plain := slices.Clone(whole)
	plain[0] = 0x45
	if quoted {
		binary.BigEndian.PutUint16(plain[2:], 0)
	}
	if ip.DecodeFromBytes(plain, gopacket.NilDecodeFeedback) != nil {
		return false
	}
	d.addresses(ip.SrcIP, ip.DstIP)
	d.proto, d.later = ip.Protocol, ip.FragOffset != 0
	d.first = !d.later && ip.Flags&layers.IPv4MoreFragments != 0
	d.l4, d.end = d.l3+header, d.l3+20+len(ip.Payload)
	if quoted {
		d.end = len(frame)
		return !d.later
	}
	return !d.later || d.proto == layers.IPProtocolTCP || d.proto == layers.IPProtocolUDP
}

// ipv6 reads an IPv6 header and one fragment header behind it.
func (d *dissection) ipv6(frame []byte, quoted bool) bool {
	whole := frame[d.l3:]
	if len(whole) < 40 || whole[0]>>4 != 6 {
		return false
	}
	d.v6 = true
	d.addresses(whole[8:24], whole[24:40])
	if d.src.Addr().Is4In6() || d.dst.Addr().Is4In6() {
		return false // RFC 4291 2.5.5.2: they are for inside a host
	}
	d.proto, d.l4, d.end = layers.IPProtocol(whole[6]), d.l3+40, len(frame)
	length := int(binary.BigEndian.Uint16(whole[4:]))
	if !quoted && length > len(whole)-40 {
		return false
	}
	switch {
	case length != 0 && !quoted: // what is quoted may be cut short
		d.end = d.l4 + length
	case length == 0 && d.proto == layers.IPProtocolIPv6HopByHop:
		option := frame[d.l4:]
		if len(option) < 8 || option[1] != 0 || option[2] != 0xc2 || option[3] != 4 {
			return false
		}
		d.proto, d.l4 = layers.IPProtocol(option[0]), d.l4+8
		return true
	}
	if d.proto != layers.IPProtocolIPv6Fragment {
		return true
	}
	var f layers.IPv6Fragment
	if f.DecodeFromBytes(frame[d.l4:d.end], gopacket.NilDecodeFeedback) != nil {
		return false
	}
	d.proto, d.l4, d.later = f.NextHeader, d.l4+8, f.FragmentOffset != 0
	d.first = !d.later
	if quoted {
		return d.first
	}
	return !d.later || d.proto == layers.IPProtocolTCP || d.proto == layers.IPProtocolUDP
}

func (d *dissection) addresses(src, dst []byte) {
	a, _ := netip.AddrFromSlice(src)
	b, _ := netip.AddrFromSlice(dst)
	d.src, d.dst = netip.AddrPortFrom(a, 0), netip.AddrPortFrom(b, 0)
}

func (d *dissection) ports(src, dst uint16) {
	d.src, d.dst = netip.AddrPortFrom(d.src.Addr(), src), netip.AddrPortFrom(d.dst.Addr(), dst)
}

// transport reads what lies behind the IP header of a packet that is no later
// fragment.
func (d *dissection) transport(frame []byte) bool {
	if d.l4 > d.end {
		return false
	}
	body := frame[d.l4:d.end]
	switch d.proto {
	case layers.IPProtocolTCP:
		var h layers.TCP
		if h.DecodeFromBytes(body, gopacket.NilDecodeFeedback) != nil {
			return false
		}
		d.ports(uint16(h.SrcPort), uint16(h.DstPort))
		d.sum = d.l4 + 16
		return true
	case layers.IPProtocolUDP:
		var h layers.UDP
		if h.DecodeFromBytes(body, gopacket.NilDecodeFeedback) != nil || h.Length < 8 ||
			int(h.Length) > len(body) && !d.first {
			return false
		}
		d.ports(uint16(h.SrcPort), uint16(h.DstPort))
		d.sum = d.l4 + 6
		return true
	case layers.IPProtocolICMPv4, layers.IPProtocolICMPv6:
		return !d.first && d.isComplaint(body) && d.quoted(frame[:d.end], body)
	}
	return false
}

// isComplaint tells whether an ICMP message is one of the errors.
func (d *dissection) isComplaint(body []byte) bool {
	d.complaint, d.sum = true, d.l4+2
	if !d.v6 {
		var h layers.ICMPv4
		if d.proto != layers.IPProtocolICMPv4 || h.DecodeFromBytes(body, gopacket.NilDecodeFeedback) != nil {
			return false
		}
		kind := h.TypeCode.Type()
		return kind == layers.ICMPv4TypeDestinationUnreachable || kind == layers.ICMPv4TypeTimeExceeded ||
			kind == layers.ICMPv4TypeParameterProblem
	}
	var h layers.ICMPv6
	if d.proto != layers.IPProtocolICMPv6 || h.DecodeFromBytes(body, gopacket.NilDecodeFeedback) != nil {
		return false
	}
	kind := h.TypeCode.Type()
	return kind >= layers.ICMPv6TypeDestinationUnreachable && kind <= layers.ICMPv6TypeParameterProblem
}

// quoted reads the packet that an error is about: eight bytes behind its IP
// header are enough. Its length may be told (RFC 4884); the rest is extensions.
func (d *dissection) quoted(frame, body []byte) bool {
	in := &dissection{l3: d.l4 + 8}
	if in.l3 > len(frame) {
		return false
	}
	told := int(body[5]) * 4
	if d.v6 {
		told = int(body[4]) * 8
		if body[0] != layers.ICMPv6TypeDestinationUnreachable && body[0] != layers.ICMPv6TypeTimeExceeded {
			told = 0
		}
	}
	if told > 0 {
		frame = frame[:min(len(frame), in.l3+told)]
	}
	if d.v6 && !in.ipv6(frame, true) || !d.v6 && !in.ipv4(frame, true) {
		return false
	}
	check := 16
	switch in.proto {
	case layers.IPProtocolTCP:
	case layers.IPProtocolUDP:
		check = 6
	default:
		return false
	}
	if in.l4+8 > len(frame) {
		return false
	}
	in.ports(binary.BigEndian.Uint16(frame[in.l4:]), binary.BigEndian.Uint16(frame[in.l4+2:]))
	if in.l4+check+2 <= len(frame) {
		in.sum = in.l4 + check
	}
	d.inner = in
	return true
}
