package bed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Stations are the ends of an Ethernet link, by their link-layer addresses.
type Stations struct{ Here, There net.HardwareAddr }

// Station returns the link-layer address of an interface.
func (n *Namespace) Station(dev string) net.HardwareAddr {
	n.tb.Helper()
	link, err := n.link.LinkByName(dev)
	if err != nil {
		n.tb.Fatalf("%s: find %s: %v", n.Role, dev, err)
	}
	return link.Attrs().HardwareAddr
}

// PingTagged pings in a frame with VLAN tags, outermost first, and returns the
// tags and the stations of the answer. The kernel needs no VLAN devices.
func (n *Namespace) PingTagged(dev string, via Stations, from, to netip.Addr, tags ...uint16) ([]uint16, Stations, error) {
	n.tb.Helper()
	var back Stations
	index := n.Ifindex(dev)
	var fd int
	err := n.Do(func() (err error) {
		proto := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto)); err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		wait := unix.NsecToTimeval(int64(Patience))
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}),
		)
	})
	if err != nil {
		return nil, back, err
	}
	defer unix.Close(fd)
	frame := slices.Concat(via.There, via.Here)
	for _, tag := range tags {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x81, 0), tag)
	}
	if err := unix.Sendto(fd, append(frame, echoRequest(from, to)...), 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
		return nil, back, fmt.Errorf("send a frame: %w", err)
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		size, oobSize, _, sender, err := unix.Recvmsg(fd, buf, oob, 0)
		if err != nil {
			return nil, back, fmt.Errorf("wait for the echo: %w", err)
		}
		if link, ok := sender.(*unix.SockaddrLinklayer); !ok || link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		got, packet := untag(buf[:size], oob[:oobSize])
		if isEchoReply(packet, to) {
			back = Stations{Here: slices.Clone(buf[:6]), There: slices.Clone(buf[6:12])}
			return got, back, nil
		}
	}
}

// untag returns the tags of a frame, of which the kernel keeps the outermost
// beside it, and the IP packet behind them.
func untag(frame, oob []byte) (tags []uint16, packet []byte) {
	messages, _ := unix.ParseSocketControlMessage(oob) // none: no tag is there
	for _, m := range messages {
		// struct tpacket_auxdata of linux/if_packet.h.
		if m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 18 &&
			binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			tags = append(tags, binary.NativeEndian.Uint16(m.Data[16:]))
		}
	}
	at := 12
	for len(frame) >= at+4 && binary.BigEndian.Uint16(frame[at:]) == unix.ETH_P_8021Q {
		tags = append(tags, binary.BigEndian.Uint16(frame[at+2:]))
		at += 4
	}
	return tags, frame[min(at+2, len(frame)):]
}

func isEchoReply(b []byte, from netip.Addr) bool {
	if from.Is4() {
		return len(b) >= 28 && b[0] == 0x45 && b[9] == unix.IPPROTO_ICMP && b[20] == 0 && netip.AddrFrom4([4]byte(b[12:16])) == from
	}
	return len(b) >= 48 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_ICMPV6 && b[40] == 129 && netip.AddrFrom16([16]byte(b[8:24])) == from
}

// echoRequest is what comes behind the stations and tags of a frame.
func echoRequest(from, to netip.Addr) []byte {
	if from.Is4() {
		icmp := []byte{8, 0, 0, 0, 0, 7, 0, 1}
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		ip := []byte{0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, unix.IPPROTO_ICMP, 0, 0}
		ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], checksum(ip))
		return slices.Concat([]byte{8, 0}, ip, icmp)
	}
	icmp := []byte{128, 0, 0, 0, 0, 7, 0, 1}
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 0, 0, 8, 0, 0, 0, unix.IPPROTO_ICMPV6}, icmp)
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudo))
	ip := []byte{0x60, 0, 0, 0, 0, 8, unix.IPPROTO_ICMPV6, 64}
	return slices.Concat([]byte{0x86, 0xdd}, ip, from.AsSlice(), to.AsSlice(), icmp)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
