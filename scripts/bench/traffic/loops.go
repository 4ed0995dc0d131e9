package traffic

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// stalled is how long nothing may happen before a load is given up. A lost SYN
// is repeated after a second.
const stalled = 5 * time.Second

// conn is what the client knows of a socket, by its number.
type conn struct {
	got   int // bytes of the answer
	asked bool
	start time.Duration
}

// keepAlive asks again over each connection as soon as it has the answer.
func (c *client) keepAlive() error {
	conns := make([]conn, 1024)
	for range c.Conns {
		fd, errno := c.to.connect(0)
		if errno != 0 {
			return failed("connect", errno)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		if errno := watch(c.epoll, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); errno != 0 {
			return failed("watch", errno)
		}
		if _, errno := write(fd, c.ask); errno != 0 {
			return failed("ask", errno)
		}
	}
	events := make([]unix.EpollEvent, c.Conns)
	for c.going() {
		n, errno := wait(c.epoll, events, int(stalled.Milliseconds()))
		if errno != 0 {
			return failed("wait", errno)
		}
		if n == 0 {
			return errors.New("nothing answers any more")
		}
		for _, e := range events[:n] {
			fd := int(e.Fd)
			k := &conns[fd]
			got, errno := read(fd, c.in[k.got:c.answer])
			if errno != 0 || got == 0 {
				return errors.Join(errors.New("a connection ended"), failed("read", errno))
			}
			if k.got += got; k.got < c.answer {
				continue
			}
			k.got = 0
			c.answered()
			if _, errno := write(fd, c.ask); errno != 0 {
				return failed("ask", errno)
			}
		}
	}
	return nil
}

// connect keeps a number of connections on their way, one request each.
func (c *client) connect() error {
	conns := make([]conn, 1<<16)
	open := 0
	events := make([]unix.EpollEvent, c.Conns)
	for c.going() {
		for open < c.Conns {
			start := time.Since(c.begin)
			fd, errno := c.to.connect(unix.SOCK_NONBLOCK)
			if errno != 0 {
				c.fail("connect", errno)
				break
			}
			conns[fd] = conn{start: start}
			// Edges: one that it is connected, one that the answer is there.
			if errno := watch(c.epoll, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET&0xffffffff); errno != 0 {
				return failed("watch", errno)
			}
			open++
		}
		n, errno := wait(c.epoll, events, int(stalled.Milliseconds()))
		if errno != 0 {
			return failed("wait", errno)
		}
		if n == 0 {
			return errors.New("nothing answers any more")
		}
		for _, e := range events[:n] {
			if c.move(int(e.Fd), &conns[e.Fd], e.Events) {
				closeFD(int(e.Fd))
				open--
			}
		}
	}
	return nil
}

// move takes a connection on, and tells whether it is over.
func (c *client) move(fd int, k *conn, events uint32) bool {
	if !k.asked && events&unix.EPOLLOUT != 0 {
		if _, errno := write(fd, c.ask); errno != 0 {
			c.fail("ask", errno)
			return true
		}
		k.asked = true
	}
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return false
	}
	got, errno := read(fd, c.in[k.got:c.answer])
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0 || got == 0:
		c.fail("read", errno)
		return true
	}
	if k.got += got; k.got < c.answer {
		return false
	}
	c.answered()
	if c.Log {
		c.log = append(c.log, entry{k.start, time.Since(c.begin), c.in[c.answer-NameLength]})
	}
	return true
}

// get makes one connection after the other, and times each from before the
// connect to the whole answer.
func (c *client) get() error {
	for c.going() {
		start := time.Now()
		fd, errno := c.to.connect(0)
		if errno != 0 {
			c.fail("connect", errno)
			continue
		}
		if _, errno := write(fd, c.ask); errno != 0 {
			c.fail("ask", errno)
			closeFD(fd)
			continue
		}
		for got := 0; got < c.answer; {
			n, errno := read(fd, c.in[got:c.answer])
			if errno != 0 || n == 0 {
				c.fail("read", errno)
				break
			}
			if got += n; got == c.answer {
				c.answered()
				c.timings = append(c.timings, time.Since(start))
			}
		}
		closeFD(fd)
	}
	return nil
}

// stream asks once and receives until the time is over.
func (c *client) stream() error {
	fd, errno := c.to.connect(0)
	if errno != 0 {
		return failed("connect", errno)
	}
	if _, errno := write(fd, []byte(askStream)); errno != 0 {
		return failed("ask", errno)
	}
	for c.going() {
		n, errno := read(fd, c.in)
		if errno != 0 || n == 0 {
			return errors.Join(errors.New("the stream ended"), failed("read", errno))
		}
		c.sample.Bytes += uint64(n)
	}
	return nil
}
