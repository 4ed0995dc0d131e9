package bpf_test

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// An oddity turns a frame into an odd one: bytes more, bytes less, a wrong
// checksum. A case applies the same ones to what goes in and to what must come
// out, so what is odd about a packet must survive its rewriting.
type oddity func(frame []byte) []byte

func odd(frame []byte, oddities ...oddity) []byte {
	for _, o := range oddities {
		frame = o(slices.Clone(frame))
	}
	return frame
}

const atL3 = 14 // of a frame

func isV6(frame []byte) bool { return binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 }

// l4Of returns where the L4 header of a frame begins, and its
// protocol: behind IPv4 options, or behind all extension headers.
func l4Of(frame []byte) (int, uint8) {
	if !isV6(frame) {
		return atL3 + int(frame[atL3]&15)*4, frame[atL3+9]
	}
	at, proto := atL3+40, frame[atL3+6]
	for {
		switch proto {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			proto, at = frame[at], at+8+int(frame[at+1])*8
		case unix.IPPROTO_FRAGMENT:
			proto, at = frame[at], at+8
		case unix.IPPROTO_AH:
			proto, at = frame[at], at+8+int(frame[at+1])*4
		default:
			return at, proto
		}
	}
}

// sumAt returns where the L4 checksum lies, or 0.
func sumAt(frame []byte) int {
	at, proto := l4Of(frame)
	switch proto {
	case unix.IPPROTO_TCP:
		return at + 16
	case unix.IPPROTO_UDP:
		return at + 6
	}
	return 0
}

// resummed computes the IPv4 header's checksum anew.
func resummed(frame []byte) []byte {
	if !isV6(frame) {
		header := frame[atL3:min(len(frame), atL3+int(frame[atL3]&15)*4)]
		binary.BigEndian.PutUint16(header[10:], 0)
		binary.BigEndian.PutUint16(header[10:], ^sum(header))
	}
	return frame
}

// otherHost gives the frame the MAC address of another machine: it is here
// because the interface is promiscuous, or the network has flooded it.
func otherHost(frame []byte) []byte {
	copy(frame, []byte{2, 0, 0, 0, 0, 9})
	return frame
}

// trailed appends what is no part of the packet, as Ethernet does to short
// ones.
func trailed(n int) oddity {
	return func(frame []byte) []byte { return append(frame, make([]byte, n)...) }
}

// cut takes bytes off the end, and leaves the headers as they were.
func cut(n int) oddity {
	return func(frame []byte) []byte { return frame[:len(frame)-n] }
}

// l3Set changes bytes of the IP header, with the checksum that belongs there.
func l3Set(off int, value ...byte) oddity {
	return func(frame []byte) []byte {
		copy(frame[atL3+off:], value)
		return resummed(frame)
	}
}

// l4Set changes bytes behind the IP header, with the checksum that belongs
// there.
func l4Set(off int, value ...byte) oddity {
	return func(frame []byte) []byte {
		at, proto := l4Of(frame)
		copy(frame[at+off:], value)
		length := len(frame) - at
		if proto == unix.IPPROTO_UDP {
			length = int(binary.BigEndian.Uint16(frame[at+4:]))
		}
		addrs := frame[atL3+12 : atL3+20]
		if isV6(frame) {
			addrs = frame[atL3+8 : atL3+40]
		}
		pseudo := append(slices.Clone(addrs), 0, proto, byte(length>>8), byte(length))
		check := sumAt(frame)
		binary.BigEndian.PutUint16(frame[check:], 0)
		binary.BigEndian.PutUint16(frame[check:], ^sum(pseudo, frame[at:min(len(frame), at+length)]))
		return frame
	}
}

// wrongBy adds to the 16-bit checksum at an offset, in ones' complement.
func wrongBy(at, n int) oddity {
	return func(frame []byte) []byte {
		check := int(binary.BigEndian.Uint16(frame[at:]))
		binary.BigEndian.PutUint16(frame[at:], uint16(((check+n)%0xffff+0xffff)%0xffff))
		return frame
	}
}

// l4SumWrong and l3SumWrong let a checksum be off.
func l4SumWrong(frame []byte) []byte { return wrongBy(sumAt(frame), 0x1234)(frame) }

func l3SumWrong(frame []byte) []byte { return wrongBy(atL3+10, 0x1234)(frame) }

// lengthPlus adds to the length that the IP header says.
func lengthPlus(n int) oddity {
	return func(frame []byte) []byte {
		off := atL3 + 2
		if isV6(frame) {
			off = atL3 + 4
		}
		binary.BigEndian.PutUint16(frame[off:], uint16(int(binary.BigEndian.Uint16(frame[off:]))+n))
		return resummed(frame)
	}
}

// udpLength sets what the UDP header says, with the checksum that belongs
// there.
func udpLength(n uint16) oddity { return l4Set(4, byte(n>>8), byte(n)) }

// extended puts IPv6 extension headers of 8 bytes between the header and what
// follows, the first one first.
func extended(kinds ...uint8) oddity {
	return func(frame []byte) []byte {
		for _, kind := range slices.Backward(kinds) {
			// Its options are one PadN of 4 bytes; a routing header of type 0
			// would look the same but for its segments left.
			header := []byte{frame[atL3+6], 0, 1, 4, 0, 0, 0, 0}
			if kind == unix.IPPROTO_ROUTING {
				header = []byte{frame[atL3+6], 0, 0, 0, 0, 0, 0, 0}
			}
			frame[atL3+6] = kind
			frame = slices.Insert(frame, atL3+40, header...)
		}
		return lengthPlus(8 * len(kinds))(frame)
	}
}

// jumbo makes an IPv6 packet of the form that a host has inside for large
// aggregates: no length, and a hop-by-hop option with it (RFC 2675).
func jumbo(frame []byte) []byte {
	length := uint32(len(frame) - atL3 - 40 + 8)
	header := binary.BigEndian.AppendUint32([]byte{frame[atL3+6], 0, 0xc2, 4}, length)
	frame[atL3+6] = unix.IPPROTO_HOPOPTS
	frame[atL3+4], frame[atL3+5] = 0, 0
	return slices.Insert(frame, atL3+40, header...)
}

// tagged puts VLAN tags in front, the outermost first.
func tagged(kinds ...uint16) oddity {
	return func(frame []byte) []byte {
		for i, kind := range slices.Backward(kinds) {
			tag := binary.BigEndian.AppendUint16(nil, kind)
			tag = binary.BigEndian.AppendUint16(tag, uint16(100+i))
			frame = slices.Insert(frame, 12, tag...)
		}
		return frame
	}
}
