package bed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Raw puts segments on a link that no socket would send: in the name of
// strangers, and more in a second than a kernel's own clients could.
type Raw struct {
	fd    int
	frame []byte // its first 14 bytes are the link's header for IPv4 or IPv6
}

// Raw opens the end of a link for sending to the other end.
func (b *Bed) Raw(from, to End) *Raw {
	b.tb.Helper()
	r := &Raw{frame: make([]byte, 14, 2048)}
	for i, end := range []End{to, from} {
		link, err := end.Space.link.LinkByName(end.Dev)
		if err != nil {
			b.tb.Fatalf("%s: find %s: %v", end.Space.Role, end.Dev, err)
		}
		copy(r.frame[6*i:], link.Attrs().HardwareAddr)
	}
	index := from.Space.Ifindex(from.Dev)
	err := from.Space.Do(func() (err error) {
		// Protocol 0: it receives nothing.
		r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		return errors.Join(
			unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
			unix.Bind(r.fd, &unix.SockaddrLinklayer{Ifindex: index}),
		)
	})
	if err != nil {
		b.tb.Fatalf("%s: send on %s: %v", from.Space.Role, from.Dev, err)
	}
	b.tb.Cleanup(func() { unix.Close(r.fd) })
	return r
}

// OnProcessor runs f on one processor of this machine, the i-th of those that
// may be used: what one processor sends on veth pairs is received in its order.
func OnProcessor(i int, f func() error) error {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("list the processors: %w", err)
	}
	i %= all.Count()
	for cpu := 0; ; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if i--; i < 0 {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on one processor: %w", err)
	}
	return f()
}

// Send puts one segment on the link.
func (r *Raw) Send(s *Forged) error {
	proto := uint16(unix.ETH_P_IPV6)
	if s.Src.Addr().Is4() {
		proto = unix.ETH_P_IP
	}
	binary.BigEndian.PutUint16(r.frame[12:], proto)
	r.frame = s.append(r.frame[:14])
	for {
		_, err := unix.Write(r.fd, r.frame)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ENOBUFS):
			// The processor's queue of packets is full.
			time.Sleep(10 * time.Microsecond)
			continue
		}
		return fmt.Errorf("send a segment from %v to %v: %w", s.Src, s.Dst, err)
	}
}
