package bed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is a UDP socket that hears what becomes of its datagrams.
type Probe struct {
	fd     int
	family Family
}

// Complaint is an ICMP error as the socket heard it that it was sent to: only
// one about a datagram of its own, with right checksums, gets there.
type Complaint struct {
	Err   syscall.Errno
	By    netip.Addr     // the error's sender
	About netip.AddrPort // the receiver of the datagram that it quotes
	MTU   int            // of too big
}

// Probe opens a socket at an address (port 0: any). It ends with the test.
func (n *Namespace) Probe(from netip.AddrPort) *Probe {
	n.tb.Helper()
	p := &Probe{family: familyOf(from.Addr())}
	err := n.Do(func() (err error) {
		p.fd, err = p.open(unix.SOCK_DGRAM, 0)
		return err
	})
	if err == nil {
		n.tb.Cleanup(p.Close)
		err = unix.Bind(p.fd, sockaddr(from))
	}
	if err != nil {
		n.tb.Fatalf("%s: open a probe at %v: %v", n.Role, from, err)
	}
	return p
}

// open makes a socket that may have any address, hears errors, and never waits
// for longer than Patience.
func (p *Probe) open(kind, proto int) (int, error) {
	domain, level, hear, discover, ttl := unix.AF_INET, unix.SOL_IP, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_RECVTTL
	if p.family == V6 {
		domain, level, hear, discover, ttl = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVHOPLIMIT
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	wait := unix.NsecToTimeval(int64(Patience))
	err = errors.Join(
		freeSource(fd, p.family == V4),
		unix.SetsockoptInt(fd, level, hear, 1),
		unix.SetsockoptInt(fd, level, ttl, 1),
		// Never in fragments, and never smaller because of an earlier error.
		unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_PROBE),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set up a socket: %w", err)
	}
	return fd, nil
}

// Close frees the port: what is still sent there is refused.
func (p *Probe) Close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
	p.fd = -1
}

// Send sends a datagram of size bytes with a time to live.
func (p *Probe) Send(to netip.AddrPort, ttl, size int) error {
	level, option := unix.SOL_IP, unix.IP_TTL
	if p.family == V6 {
		level, option = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS
	}
	if err := unix.SetsockoptInt(p.fd, level, option, ttl); err != nil {
		return fmt.Errorf("set the time to live: %w", err)
	}
	return unix.Sendto(p.fd, make([]byte, size), 0, sockaddr(to))
}

// Receive waits for a datagram and returns its sender.
func (p *Probe) Receive() (netip.AddrPort, error) {
	_, from, err := unix.Recvfrom(p.fd, make([]byte, 1<<16), 0)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("receive: %w", err)
	}
	return addrPort(from), nil
}

// Complaint waits for an ICMP error.
func (p *Probe) Complaint(patience time.Duration) (Complaint, error) {
	var c Complaint
	ready, err := p.poll(patience)
	if err != nil {
		return c, err
	}
	if !ready {
		return c, fmt.Errorf("no complaint after %v", patience)
	}
	oob := make([]byte, 512)
	_, size, _, about, err := unix.Recvmsg(p.fd, make([]byte, 1<<16), oob, unix.MSG_ERRQUEUE)
	if err != nil {
		return c, fmt.Errorf("read the error queue: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:size])
	if err != nil {
		return c, fmt.Errorf("read the error queue: %w", err)
	}
	c.About = addrPort(about)
	for _, m := range messages {
		hear := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if hear {
			c.read(m.Data)
			return c, nil
		}
	}
	return c, errors.New("the error queue says nothing")
}

func (p *Probe) poll(patience time.Duration) (bool, error) {
	end := time.Now().Add(patience)
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd)}} // an error is always told
		n, err := unix.Poll(fds, int(max(0, time.Until(end).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// read takes a struct sock_extended_err (linux/errqueue.h) apart. Behind it is
// the address of the error's sender.
func (c *Complaint) read(b []byte) {
	const size = 16
	if len(b) < size {
		return
	}
	c.Err = syscall.Errno(binary.NativeEndian.Uint32(b))
	if c.Err == unix.EMSGSIZE {
		c.MTU = int(binary.NativeEndian.Uint32(b[8:]))
	}
	by := b[size:]
	if len(by) < 8 {
		return
	}
	switch family := binary.NativeEndian.Uint16(by); {
	case family == unix.AF_INET:
		c.By = netip.AddrFrom4([4]byte(by[4:8]))
	case family == unix.AF_INET6 && len(by) >= 24:
		c.By = netip.AddrFrom16([16]byte(by[8:24]))
	}
}

// Ping asks an address for an echo of size bytes, waits for it, and returns the
// time to live that it came with. An ICMP error is an error.
func (n *Namespace) Ping(from, to netip.Addr, size int) (ttl int, err error) {
	n.tb.Helper()
	n.Sysctl("net.ipv4.ping_group_range", "0 2147483647")
	p := &Probe{family: familyOf(to)}
	proto, kind := unix.IPPROTO_ICMP, byte(8)
	if p.family == V6 {
		proto, kind = unix.IPPROTO_ICMPV6, 128
	}
	err = n.Do(func() (err error) {
		p.fd, err = p.open(unix.SOCK_DGRAM, proto)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if from.IsValid() {
		if err := unix.Bind(p.fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
			return 0, fmt.Errorf("bind to %v: %w", from, err)
		}
	}
	// Type, code, and what the kernel fills in: checksum, identifier.
	ask := append([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, Filled("ping", size)[:size]...)
	if err := unix.Sendto(p.fd, ask, 0, sockaddr(netip.AddrPortFrom(to, 0))); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	return p.echo(to, ask[8:])
}

func (p *Probe) echo(from netip.Addr, data []byte) (ttl int, err error) {
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	size, oobSize, _, sender, err := unix.Recvmsg(p.fd, buf, oob, 0)
	if err != nil {
		return 0, fmt.Errorf("wait for the echo: %w", err)
	}
	if got := addrPort(sender).Addr(); got != from {
		return 0, fmt.Errorf("pinged %v, but %v answered", from, got)
	}
	if size < 8 || string(buf[8:size]) != string(data) {
		return 0, fmt.Errorf("an echo of %d bytes, not the %d that were sent", size-8, len(data))
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobSize])
	if err != nil {
		return 0, fmt.Errorf("read the time to live: %w", err)
	}
	for _, m := range messages {
		if len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data)), nil
		}
	}
	return 0, errors.New("an echo without a time to live")
}

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return V4
	}
	return V6
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch a := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
