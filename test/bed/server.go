package bed

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// Server is a TCP or UDP server that counts what it sees, to be compared with
// what the kernel counted.
type Server struct {
	Name string
	Addr netip.AddrPort

	Accepted atomic.Int64 // TCP connections; UDP datagrams
	BytesIn  atomic.Int64 // payload
	BytesOut atomic.Int64
	Resets   atomic.Int64 // connections that the other side reset

	closer io.Closer
	done   sync.WaitGroup
	mu     sync.Mutex
	open   map[net.Conn]struct{}
}

// Handler serves one TCP connection, which is closed when it returns.
type Handler func(s *Server, c net.Conn) error

// Greet writes the server's name and closes.
func Greet(s *Server, c net.Conn) error {
	_, err := io.WriteString(c, s.Name)
	return err
}

// Answer answers each line with the server's name, as a line, until the
// client closes. The line "peer" asks for the client's address as the server
// sees it.
func Answer(s *Server, c net.Conn) error {
	lines := bufio.NewReaderSize(c, 512)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		answer := s.Name
		if string(line) == "peer\n" {
			answer = c.RemoteAddr().String()
		}
		if _, err := io.WriteString(c, answer+"\n"); err != nil {
			return err
		}
	}
}

// Listen listens by TCP in the namespace. Whoever serves there closes it.
func (n *Namespace) Listen(addr netip.AddrPort) (l *net.TCPListener) {
	n.tb.Helper()
	err := n.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		n.tb.Fatalf("%s: listen on %v: %v", n.Role, addr, err)
	}
	return l
}

// ServeTCP starts a TCP server; it ends with the test.
func (n *Namespace) ServeTCP(addr netip.AddrPort, name string, handle Handler) *Server {
	n.tb.Helper()
	s := &Server{Name: name, Addr: addr, open: map[net.Conn]struct{}{}}
	listener := n.Listen(addr)
	s.closer = listener
	s.done.Go(func() { s.accept(listener, handle) })
	n.tb.Cleanup(s.Stop)
	return s
}

func (s *Server) accept(listener *net.TCPListener, handle Handler) {
	for {
		c, err := listener.AcceptTCP()
		if err != nil {
			return // closed: Stop
		}
		s.Accepted.Add(1)
		s.mu.Lock()
		s.open[c] = struct{}{}
		s.mu.Unlock()
		s.done.Go(func() {
			if err := handle(s, counted{c, s}); errors.Is(err, syscall.ECONNRESET) {
				s.Resets.Add(1)
			}
			c.Close()
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		})
	}
}

// Stop closes the listener and every connection, and waits for the handlers.
// A connection with unread data is reset by that, as when a process dies.
func (s *Server) Stop() {
	s.closer.Close() // closing twice is no harm: a test may stop it early
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// counted adds payload to the server's counts.
type counted struct {
	*net.TCPConn
	s *Server
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.s.BytesIn.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.s.BytesOut.Add(int64(n))
	return n, err
}

// ReadFrom and WriteTo hide those of TCPConn, which would not be counted.
func (c counted) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func (c counted) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// ServeUDP starts a UDP server that answers every datagram: with its name,
// filled up to the size that the datagram asks for in decimal ("4000").
func (n *Namespace) ServeUDP(addr netip.AddrPort, name string) *Server {
	n.tb.Helper()
	s := &Server{Name: name, Addr: addr}
	var conn *net.UDPConn
	err := n.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		n.tb.Fatalf("%s: start the server %s on %v: %v", n.Role, name, addr, err)
	}
	s.closer = conn
	s.done.Go(func() { s.answer(conn) })
	n.tb.Cleanup(s.Stop)
	return s
}

func (s *Server) answer(conn *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		s.Accepted.Add(1)
		s.BytesIn.Add(int64(n))
		size := 0
		if _, err := fmt.Sscanf(string(buf[:n]), "%d", &size); err != nil {
			size = 0 // it asks for nothing: the name only
		}
		sent, err := conn.WriteToUDPAddrPort(Filled(s.Name, size), from)
		if err == nil {
			s.BytesOut.Add(int64(sent))
		}
	}
}

// Filled is the answer of a UDP server: the name, repeated up to size bytes.
func Filled(name string, size int) []byte {
	b := []byte(name)
	for len(b) < size {
		b = append(b, name...)
	}
	return b[:max(size, len(name))]
}
