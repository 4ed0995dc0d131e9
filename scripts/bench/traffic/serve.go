package traffic

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Requests and responses have one size each, so neither side parses much. The
// names of servers must be equally long.
const (
	askOnce   = "GET / HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: siskin-bench\r\nAccept: */*\r\n\r\n"
	askStream = "GET /stream HTTP/1.1\r\nHost: bench.example\r\n\r\n"
)

// NameLength is the length of every server's name.
const NameLength = 6

func response(name string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: siskin-bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
}

// Serve answers each request on an address with the server's name, and one
// for /stream with bytes without end. It writes a line when it listens, and
// returns only on failure.
func Serve(at netip.AddrPort, name string, ready io.Writer) error {
	if len(name) != NameLength {
		return fmt.Errorf("serve: the name %q must have %d bytes", name, NameLength)
	}
	runtime.LockOSThread()
	listener, err := listen(at)
	if err != nil {
		return fmt.Errorf("listen on %v: %w", at, err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	if errno := watch(epoll, unix.EPOLL_CTL_ADD, listener, unix.EPOLLIN); errno != 0 {
		return fmt.Errorf("watch the listener: %w", errno)
	}
	if _, err := fmt.Fprintln(ready, "listening"); err != nil {
		return fmt.Errorf("say that the server is ready: %w", err)
	}
	s := server{epoll: epoll, answer: []byte(response(name)), in: make([]byte, 4096), flood: make([]byte, 256<<10)}
	events := make([]unix.EpollEvent, 256)
	for {
		n, errno := wait(epoll, events, -1)
		if errno != 0 {
			return fmt.Errorf("wait for clients: %w", errno)
		}
		for _, e := range events[:n] {
			switch fd := int(e.Fd); {
			case fd == listener:
				s.accept(listener)
			case e.Events&unix.EPOLLIN != 0:
				s.request(fd)
			case e.Events&unix.EPOLLOUT != 0:
				s.stream(fd)
			default:
				closeFD(fd)
			}
		}
	}
}

func listen(at netip.AddrPort) (int, error) {
	a := newAddress(at)
	fd, err := unix.Socket(a.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 65535)
}

type server struct {
	epoll             int
	answer, in, flood []byte
}

func (s *server) accept(listener int) {
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != 0 {
			return // EAGAIN; else the client sees it
		}
		if watch(s.epoll, unix.EPOLL_CTL_ADD, int(fd), unix.EPOLLIN) != 0 {
			closeFD(int(fd))
		}
	}
}

// request answers what was asked. What is no request of ours in one piece ends
// the connection, and so fails the measurement.
func (s *server) request(fd int) {
	n, errno := read(fd, s.in)
	if errno == unix.EAGAIN {
		return
	}
	if errno == 0 && n == len(askOnce) {
		if _, errno := write(fd, s.answer); errno == 0 {
			return
		}
	} else if errno == 0 && n == len(askStream) && strings.HasPrefix(askStream, string(s.in[:11])) {
		if watch(s.epoll, unix.EPOLL_CTL_MOD, fd, unix.EPOLLOUT) == 0 {
			return
		}
	}
	closeFD(fd)
}

func (s *server) stream(fd int) {
	if _, errno := write(fd, s.flood); errno != 0 && errno != unix.EAGAIN {
		closeFD(fd)
	}
}
