package bed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a client waits for one thing to happen. What works at
// all takes milliseconds; a lost SYN is repeated after a second.
const Patience = 5 * time.Second

// Dial connects from an address and port (zero: any) to another. The source
// may be any address that is routed to the namespace.
func (n *Namespace) Dial(network string, from, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: Patience, Control: controlSource(to.Addr().Is4())}
	if from.IsValid() {
		switch network {
		case "tcp":
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		case "udp":
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = d.DialContext(context.Background(), network, to.String())
		return err
	})
	return conn, err
}

// controlSource lets a socket bind to addresses that are on no interface, and
// to a port that was used a moment ago.
func controlSource(v4 bool) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) { serr = freeSource(int(fd), v4) })
		return errors.Join(err, serr)
	}
}

func freeSource(fd int, v4 bool) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if v4 {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
}

// Talk is a connection to a server that answers lines with its name.
type Talk struct {
	net.Conn
	lines *bufio.Reader
}

// TalkTo opens a connection that stays open.
func (n *Namespace) TalkTo(from, to netip.AddrPort) (*Talk, error) {
	c, err := n.Dial("tcp", from, to)
	if err != nil {
		return nil, err
	}
	return &Talk{c, bufio.NewReader(c)}, nil
}

// Ask sends a line and returns the name of the server that answers.
func (t *Talk) Ask(line string) (string, error) {
	if err := t.SetDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(t, line+"\n"); err != nil {
		return "", err
	}
	name, err := t.lines.ReadString('\n')
	return strings.TrimSuffix(name, "\n"), err
}

// AskTCP makes a connection for one line.
func (n *Namespace) AskTCP(from, to netip.AddrPort) (string, error) {
	t, err := n.TalkTo(from, to)
	if err != nil {
		return "", err
	}
	defer t.Close()
	return t.Ask("who")
}

// Ports of clients' datagrams: below those that the kernel chooses.
const firstFresh, freshPorts = 10_000, 20_000

// freshPort is a port that freshPort has not named in this namespace before.
func (n *Namespace) freshPort() uint16 {
	return firstFresh + uint16((n.asked.Add(1)-1)%freshPorts)
}

// AskUDP sends a datagram that asks for an answer of size bytes (0: the name)
// and returns the answer. An answer from anywhere but the address asked, or
// to another port, is an error. From port 0 it takes one that no earlier
// datagram of the namespace came from: the kernel's choice may repeat one, and
// its flow would stay with its backend.
func (n *Namespace) AskUDP(from, to netip.AddrPort, size int) (string, error) {
	var conn *net.UDPConn
	err := n.Do(func() error {
		lc := net.ListenConfig{Control: controlSource(to.Addr().Is4())}
		if !from.IsValid() {
			from = netip.AddrPortFrom(unspecified(to.Addr()), 0)
		}
		if from.Port() == 0 {
			from = netip.AddrPortFrom(from.Addr(), n.freshPort())
		}
		pc, err := lc.ListenPacket(context.Background(), "udp", from.String())
		if err == nil {
			conn = pc.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	if _, err := conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%d", size), to); err != nil {
		return "", err
	}
	buf := make([]byte, 1<<16)
	got, back, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return "", err
	}
	if back = netip.AddrPortFrom(back.Addr().Unmap(), back.Port()); back != to {
		return "", fmt.Errorf("asked %v, but %v answered", to, back)
	}
	return string(buf[:got]), nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
