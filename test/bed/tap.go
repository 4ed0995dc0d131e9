package bed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is one TCP segment as an interface saw it.
type Packet struct {
	At       time.Time // when it came in, or was handed to the driver
	Out      bool
	Src, Dst netip.AddrPort
	Flags    byte // as in the TCP header
	Payload  int  // bytes
}

// Flags of a TCP header.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Tap captures the TCP segments that pass an interface, stamped by the kernel.
type Tap struct {
	file  *os.File
	conn  syscall.RawConn // of file; nil: stopped
	group sync.WaitGroup

	// Of the reader while it runs, then of Stop.
	buf, oob []byte
	packets  []Packet
	err      error
}

// Tap starts a capture on an interface of the namespace. Where it is the first
// on the machine, the kernel's stamps begin a moment later: until then they
// are the times of reading.
func (n *Namespace) Tap(dev string) *Tap {
	n.tb.Helper()
	t := &Tap{buf: make([]byte, 1<<17), oob: make([]byte, 128)}
	index := n.Ifindex(dev)
	err := n.Do(func() error {
		proto := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		// SOCK_DGRAM: the link header is cut off.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		t.file = os.NewFile(uintptr(fd), "tap")
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}),
		)
	})
	if err == nil {
		t.conn, err = t.file.SyscallConn()
	}
	if err != nil {
		n.tb.Fatalf("%s: tap %s: %v", n.Role, dev, err)
	}
	t.group.Go(t.read)
	n.tb.Cleanup(func() { _, _ = t.Stop() }) // again, when the test failed before
	return t
}

// Stop ends the capture and returns what was seen, in its order. A packet
// that the capture lost is an error.
func (t *Tap) Stop() ([]Packet, error) {
	if t.conn == nil {
		return t.packets, t.err
	}
	// The deadline ends the reader; what is still queued was seen, too.
	err := t.file.SetReadDeadline(time.Now())
	t.group.Wait()
	var lost *unix.TpacketStats
	err = errors.Join(err, t.conn.Control(func(fd uintptr) {
		for t.receive(int(fd)) {
		}
		lost, t.err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}))
	if t.err == nil && lost.Drops > 0 {
		t.err = fmt.Errorf("the capture lost %d packets", lost.Drops)
	}
	t.err = errors.Join(err, t.err, t.file.Close())
	t.conn = nil
	return t.packets, t.err
}

func (t *Tap) read() {
	for {
		err := t.conn.Read(func(fd uintptr) bool { return t.receive(int(fd)) })
		if err != nil {
			return // Stop
		}
	}
}

// receive takes one packet from the socket; false: there was none.
func (t *Tap) receive(fd int) bool {
	n, oobn, _, from, err := unix.Recvmsg(fd, t.buf, t.oob, 0)
	if err != nil {
		return !errors.Is(err, unix.EAGAIN) // else the interface went down, or a signal
	}
	p, ok := parseTCP(t.buf[:n])
	if !ok {
		return true
	}
	link, _ := from.(*unix.SockaddrLinklayer)
	p.Out = link != nil && link.Pkttype == unix.PACKET_OUTGOING
	p.At = stampOf(t.oob[:oobn])
	t.packets = append(t.packets, p)
	return true
}

func stampOf(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}
	}
	for _, m := range messages {
		if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Time{}
}

// parseTCP reads a packet without options in its IP header, as all of ours.
func parseTCP(b []byte) (Packet, bool) {
	var p Packet
	var src, dst netip.Addr
	var segment []byte
	switch {
	case len(b) >= 40 && b[0] == 0x45 && b[9] == unix.IPPROTO_TCP:
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		segment = b[20:min(len(b), int(binary.BigEndian.Uint16(b[2:])))]
	case len(b) >= 60 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_TCP:
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		segment = b[40:min(len(b), 40+int(binary.BigEndian.Uint16(b[4:])))]
	default:
		return p, false
	}
	if len(segment) < 20 {
		return p, false
	}
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(segment))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(segment[2:]))
	p.Flags = segment[13]
	p.Payload = len(segment) - int(segment[12]>>4)*4
	return p, true
}
