package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Backend is what is probed: one address in one version of a service.
type Backend struct {
	Service, Version string
	Addr             netip.AddrPort
}

// A Probe asks a backend once. The context bounds it. It is comparable with
// reflect.DeepEqual, by which a changed one is known.
type Probe interface {
	Ask(context.Context, Backend) error
}

// TCP connects, and no more.
type TCP struct{}

// Ask implements Probe.
func (TCP) Ask(ctx context.Context, b Backend) error {
	conn, err := dial(ctx, b.Addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dial connects to a backend. The host's own packets are not steered: they leave
// by egress, where only what comes from a backend is rewritten, so this reaches
// the backend itself also where its address is a frontend.
//
// Closing the connection resets it, so that neither side is left with one in
// TIME_WAIT for each probe. Without quick ACKs a probe that only connects does
// so before the handshake is over: the backend's program never sees it.
func dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			serr = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0),
				unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			)
		})
		return errors.Join(err, serr)
	}}
	return d.DialContext(ctx, "tcp", to.String())
}

// reason shortens an error to what is worth a line: which operation failed on
// which address is known.
func reason(ctx context.Context, err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return line(err.Error())
}

// lineLimit bounds what a backend can write into a log by answering nonsense.
const lineLimit = 160

// line makes one short line of a text.
func line(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if len(text) > lineLimit {
		text = text[:lineLimit] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}
