package bed

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Forged is a TCP segment that a test writes itself, without options.
type Forged struct {
	Src, Dst netip.AddrPort
	Flags    byte
	Seq, Ack uint32
	Payload  []byte
}

// append adds the IP packet to a buffer, with all checksums whole.
func (s *Forged) append(b []byte) []byte {
	start, length := len(b), 20+len(s.Payload)
	// What the checksum covers besides the segment: addresses, protocol, length.
	sum := uint32(unix.IPPROTO_TCP + length)
	if s.Src.Addr().Is4() {
		src, dst := s.Src.Addr().As4(), s.Dst.Addr().As4()
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+length))
		b = append(b, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0) // don't fragment
		b = append(append(b, src[:]...), dst[:]...)
		sum += addUp(b[start+12:])
		binary.BigEndian.PutUint16(b[start+10:], folded(addUp(b[start:])))
	} else {
		src, dst := s.Src.Addr().As16(), s.Dst.Addr().As16()
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(length))
		b = append(b, unix.IPPROTO_TCP, 64)
		b = append(append(b, src[:]...), dst[:]...)
		sum += addUp(b[start+8:])
	}
	tcp := len(b)
	b = binary.BigEndian.AppendUint16(b, s.Src.Port())
	b = binary.BigEndian.AppendUint16(b, s.Dst.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, 5<<4, s.Flags, 0xff, 0xff, 0, 0, 0, 0)
	b = append(b, s.Payload...)
	binary.BigEndian.PutUint16(b[tcp+16:], folded(sum+addUp(b[tcp:])))
	return b
}

// addUp adds the 16-bit words of what is shorter than 128 kB (RFC 1071).
func addUp(b []byte) (sum uint32) {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
