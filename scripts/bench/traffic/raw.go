// Package traffic is the benchmark's server and client: one thread each that
// waits in epoll and does nothing else, so that what is measured is the
// network's way and not the ends of it.
package traffic

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls are made raw: Go's scheduler is not told, since there is
// nothing else for it to run. A call that is interrupted is made again.

func read(fd int, b []byte) (int, unix.Errno) {
	return again(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
}

func write(fd int, b []byte) (int, unix.Errno) {
	return again(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
}

func closeFD(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func again(call, a, b, c uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(call, a, b, c)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// wait is epoll_wait; a negative timeout waits for ever.
func wait(epoll int, events []unix.EpollEvent, milliseconds int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
			uintptr(len(events)), uintptr(milliseconds), 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func watch(epoll, op, fd int, events uint32) unix.Errno {
	e := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// address is a socket address as the kernel reads it.
type address struct {
	family int
	raw    unix.RawSockaddrInet6 // large enough for IPv4 too
	size   uintptr
}

func newAddress(a netip.AddrPort) *address {
	port := a.Port()<<8 | a.Port()>>8 // network order; only little-endian machines run this
	out := &address{family: unix.AF_INET6, size: unix.SizeofSockaddrInet6}
	if a.Addr().Is4() {
		out.family, out.size = unix.AF_INET, unix.SizeofSockaddrInet4
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&out.raw)) = unix.RawSockaddrInet4{
			Family: unix.AF_INET, Port: port, Addr: a.Addr().As4(),
		}
		return out
	}
	out.raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.Addr().As16()}
	return out
}

// connect opens a socket and connects it. With unix.SOCK_NONBLOCK the
// connection may not be there yet.
func (a *address) connect(flags int) (int, unix.Errno) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(a.family), uintptr(unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags), 0)
	if errno != 0 {
		return -1, errno
	}
	_, errno = again(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&a.raw)), a.size)
	if errno != 0 && errno != unix.EINPROGRESS {
		closeFD(int(fd))
		return -1, errno
	}
	return int(fd), 0
}

func failed(step string, errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", step, errno)
}
