package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// counted is a service whose only backend's traffic is counted at both ends.
type counted struct {
	name     string
	frontend netip.AddrPort
	server   *bed.Server // nil: nobody listens
	client   tally
}

// tally is what the clients of a service saw.
type tally struct {
	connections, refused, resets int
	in, out                      int64 // payload: to the server, from the server
}

// slam reads a byte and resets the connection before it has answered.
func slam(s *bed.Server, c net.Conn) error {
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return err
	}
	return c.(interface{ SetLinger(int) error }).SetLinger(0)
}

// echo sends back what it gets, until the client is done.
func echo(_ *bed.Server, c net.Conn) error {
	_, err := io.Copy(c, c)
	return err
}

// converse makes a connection, sends so many bytes and reads as many.
func (c *counted) converse(from *bed.Namespace, bytes int) error {
	conn, err := from.Dial("tcp", netip.AddrPort{}, c.frontend)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.client.connections++
	if err := conn.SetDeadline(time.Now().Add(4 * bed.Patience)); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		sent, err := io.CopyN(conn, stream('c'), int64(bytes))
		c.client.in += sent
		failed <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.Copy(io.Discard, conn)
	c.client.out += got
	return errors.Join(err, <-failed)
}

// provoke makes connections that fail, and counts how.
func (c *counted) provoke(from *bed.Namespace, times int) {
	for range times {
		conn, err := from.Dial("tcp", netip.AddrPort{}, c.frontend)
		if err != nil {
			if strings.Contains(err.Error(), "refused") {
				c.client.refused++
			}
			continue
		}
		c.client.connections++
		c.client.in++
		_, _ = conn.Write([]byte{'x'}) // the server resets: the read tells
		if _, err := conn.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "reset") {
			c.client.resets++
		}
		conn.Close()
	}
}

// check compares the kernel's counts with those of client and server. They
// must be equal, not near: a metric that is nearly right hides what it is for.
func (c *counted) check(t *testing.T, s *bed.Siskin) {
	t.Helper()
	s.Await(c.name+" has no open connection", func() bool {
		return s.Version(c.name, "stable").Traffic.Active == 0
	})
	metrics := s.Scrape()
	equal := func(what string, want int64, name string, labels ...string) {
		t.Helper()
		labels = append(labels, "service", c.name)
		if got, err := metrics.Sum(name, labels...); err != nil || got != float64(want) {
			t.Errorf("%s: %s is %.0f (%v), want %d", what, name, got, err, want)
		}
	}
	k := c.client
	equal("connections", int64(k.connections+k.refused), "siskin_connections_total")
	equal("open connections", 0, "siskin_connections_active")
	equal("refused", int64(k.refused), "siskin_connection_errors_total", "reason", "refused")
	equal("resets", int64(k.resets), "siskin_connection_errors_total", "reason", "reset")
	equal("timeouts", 0, "siskin_connection_errors_total", "reason", "timeout")
	equal("bytes to the server", k.in, "siskin_bytes_total", "direction", "in")
	equal("bytes from the server", k.out, "siskin_bytes_total", "direction", "out")
	if c.server == nil {
		return
	}
	equal("connections at the server", c.server.Accepted.Load(), "siskin_connections_total")
	equal("bytes at the server", c.server.BytesIn.Load(), "siskin_bytes_total", "direction", "in")
	equal("bytes from the server itself", c.server.BytesOut.Load(), "siskin_bytes_total", "direction", "out")
}

// Done when 6, the counts.
func TestRootCounts(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	vip := 10
	for _, f := range bed.Families() {
		for _, place := range r.Places()[:3] {
			address := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(f.At(place.Net, place.N), port) }
			add := func(what string, backend netip.AddrPort, server *bed.Server) *counted {
				vip++
				c := &counted{
					name:     fmt.Sprintf("%s-%v-%s", what, f, place.Name),
					frontend: netip.AddrPortFrom(f.At(bed.VIPs, vip), 80), server: server,
				}
				s.Apply(bed.Service{
					Name: c.name, Proto: "tcp", Frontends: []netip.AddrPort{c.frontend},
					Stable: []netip.AddrPort{backend},
				})
				return c
			}
			echoes := add("echo", address(8081), place.Space.ServeTCP(address(8081), "echo", echo))
			slams := add("slam", address(8082), place.Space.ServeTCP(address(8082), "slam", slam))
			nobody := add("nobody", address(8083), nil)
			t.Run(fmt.Sprintf("%v-%s", f, place.Name), func(t *testing.T) {
				// From nothing to what does not fit into any socket buffer.
				for _, size := range []int{0, 1, 100, 1448, 1449, 70_000, 20 << 20} {
					for range 3 {
						if err := echoes.converse(r.Client, size); err != nil {
							t.Fatalf("%d bytes: %v", size, err)
						}
					}
				}
				slams.provoke(r.Client, 20)
				nobody.provoke(r.Client, 20)
				if slams.client.resets != 20 || nobody.client.refused != 20 {
					t.Fatalf("the bed is wrong: %d resets and %d refusals, want 20 of each",
						slams.client.resets, nobody.client.refused)
				}
				for _, c := range []*counted{echoes, slams, nobody} {
					c.check(t, s)
				}
			})
		}
	}
}

// Segments that are sent again count as packets and retransmissions; their
// bytes count once.
func TestRootCountsWithLoss(t *testing.T) {
	const size, transfers = 2 << 20, 5
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		family := map[bed.Family]string{bed.V4: "ip", bed.V6: "ip6"}[f]
		// One packet in fifty is lost behind the host, each way.
		for _, n := range []*bed.Namespace{r.Near, r.Client} {
			n.Run("table "+family+" loss { chain prerouting { type filter hook prerouting priority -400\n"+
				"numgen random mod 50 == 0 drop\n}; }\n", "nft", "-f", "-")
		}
		backend := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081)
		c := &counted{name: "lossy", frontend: netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)}
		c.server = r.Near.ServeTCP(backend, "lossy", echo)
		s.Apply(bed.Service{Name: c.name, Proto: "tcp", Frontends: []netip.AddrPort{c.frontend},
			Stable: []netip.AddrPort{backend}})
		for range transfers {
			if err := c.converse(r.Client, size); err != nil {
				t.Fatal(err)
			}
		}
		c.check(t, s)
		got := s.Version(c.name, "stable").Traffic
		if got.Retransmits.In == 0 || got.Retransmits.Out == 0 {
			t.Errorf("%+v: no retransmissions were counted", got)
		}
	})
}

// A client that gives up is no failure of the server.
func TestRootClientAborts(t *testing.T) {
	const aborts = 20
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		service := plain(r, f, "aborted", 10)
		s.Apply(service)
		for i := range aborts {
			conn, err := r.Client.Dial("tcp", netip.AddrPortFrom(f.Visitor(i), 0), service.Frontends[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		s.Await("no connection is open", func() bool { return s.Version("aborted", "stable").Traffic.Active == 0 })
		got := s.Version("aborted", "stable").Traffic
		if got.Opened != aborts || got.Closed != aborts || got.Errors.Sum() != 0 {
			t.Errorf("%+v, want %d opened and closed, and no error", got, aborts)
		}
	})
}

// Datagrams of UDP are counted as the packets they are.
func TestRootCountsUDP(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	for i, f := range bed.Families() {
		backend := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081)
		server := r.Near.ServeUDP(backend, "stable")
		name := "udp-" + f.String()
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
		s.Apply(bed.Service{
			Name: name, Proto: "udp", Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend},
		})
		for j := range 50 {
			if _, err := r.Client.AskUDP(netip.AddrPortFrom(f.Visitor(j), 0), frontend, 10*j); err != nil {
				t.Fatal(err)
			}
		}
		got := s.Version(name, "stable").Traffic
		if got.Opened != 50 || got.Packets.In != 50 || got.Packets.Out != 50 {
			t.Errorf("%v: %+v, want 50 connections and 50 packets each way", f, got)
		}
		if int64(got.Bytes.In) != server.BytesIn.Load() || int64(got.Bytes.Out) != server.BytesOut.Load() {
			t.Errorf("%v: %+v, the server had %d bytes in and %d out", f, got.Bytes, server.BytesIn.Load(), server.BytesOut.Load())
		}
	}
}
