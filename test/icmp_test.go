package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// Errors that are made on the way to a backend, by the host or beyond it,
// name the backend's address; the client understands only the frontend's.

// A link behind the host takes smaller packets than the client's: the client
// must hear of it, or all it sends at full size is lost for ever.
func TestRootPathMTU(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		for i, c := range []struct {
			name    string
			narrow  *bed.Namespace // where the narrow link begins
			dev     string
			network bed.Network
			space   *bed.Namespace
		}{
			{"made by the host", r.Host, "near", bed.Nearby, r.Near},
			{"made beyond the host", r.Router, "remote", bed.Remotes, r.Remote},
		} {
			t.Run(c.name, func(t *testing.T) {
				backend := netip.AddrPortFrom(f.At(c.network, 2), 8081)
				frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
				server := c.space.ServeTCP(backend, "narrow", swallow)
				s.Apply(bed.Service{
					Name: fmt.Sprintf("narrow-%d", i), Proto: "tcp",
					Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend},
				})
				c.narrow.MTU(c.dev, 1300)
				conn, err := r.Client.Dial("tcp", netip.AddrPortFrom(f.Visitor(i), 0), frontend)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(bed.Patience)); err != nil {
					t.Fatal(err)
				}
				const size = 5 << 20
				if _, err := io.CopyN(conn, stream('m'), size); err != nil {
					t.Errorf("send: %v", err)
				}
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Error(err)
				}
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Errorf("the server did not get all: %v", err)
				}
				if got := server.BytesIn.Load(); got != size {
					t.Errorf("%d of %d bytes arrived", got, size)
				}
			})
		}
	})
}

// swallow reads until the client is done, and closes.
func swallow(_ *bed.Server, c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

// Nobody listens at the backend's UDP port: the client is told, by an error
// that names the frontend.
func TestRootUnreachable(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		for i, place := range r.Places()[:3] {
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
			s.Apply(bed.Service{
				Name: place.Name, Proto: "udp", Frontends: []netip.AddrPort{frontend},
				Stable: []netip.AddrPort{netip.AddrPortFrom(f.At(place.Net, place.N), 8099)},
			})
			conn, err := r.Client.Dial("udp", netip.AddrPortFrom(f.At(bed.Clients, 2), 0), frontend)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(bed.Patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("anybody?")); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v, want refused", place.Name, err)
			}
		}
	})
}
