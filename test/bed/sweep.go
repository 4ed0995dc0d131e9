package bed

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Attempt is one connection of a sweep.
type Attempt struct {
	From, To netip.AddrPort
}

// Sweep makes one TCP connection for each attempt, to servers that Greet, and
// returns the names they said. Each worker is a thread that blocks in its
// system calls: without the net package a connection costs half as much.
func (n *Namespace) Sweep(attempts []Attempt, workers int) ([]string, error) {
	names := make([]string, len(attempts))
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		group.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends in the namespace
			if errs[w] = netns.Set(n.handle); errs[w] != nil {
				return
			}
			var buf [64]byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(attempts) {
					return
				}
				got, err := attempts[i].make(buf[:])
				if err != nil {
					errs[w] = fmt.Errorf("%v to %v: %w", attempts[i].From, attempts[i].To, err)
					return
				}
				names[i] = string(buf[:got])
			}
		})
	}
	group.Wait()
	return names, errors.Join(errs...)
}

// make connects, reads until the server closes, and closes.
func (a Attempt) make(buf []byte) (int, error) {
	domain := unix.AF_INET6
	if a.To.Addr().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := freeSource(fd, a.To.Addr().Is4()); err != nil {
		return 0, err
	}
	wait := unix.NsecToTimeval(Patience.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &wait); err != nil {
			return 0, fmt.Errorf("set the patience: %w", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(a.From)); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	if err := retry(func() error { return unix.Connect(fd, sockaddr(a.To)) }); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	total := 0
	for {
		var got int
		err := retry(func() (err error) { got, err = unix.Read(fd, buf[total:]); return err })
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if got == 0 {
			return total, nil
		}
		total += got
	}
}

// retry calls again what a signal of the Go runtime interrupted. A connect
// that was interrupted goes on by itself: then EALREADY and EISCONN tell so.
func retry(call func() error) error {
	for {
		err := call()
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EALREADY):
			continue
		case errors.Is(err, unix.EISCONN):
			return nil
		}
		return err
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
