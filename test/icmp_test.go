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

// A narrowing is a link on the way that takes smaller packets than both ends
// think.
type narrowing struct {
	name  string
	space *bed.Namespace // where the link begins
	dev   string
	place string
	down  bool // the server sends
}

// Whoever sends must hear that a packet was too big, or all it sends at full
// size is lost for ever.
func TestRootPathMTU(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		for i, c := range []narrowing{
			{"to the backend, made by the host", r.Host, "near", "near", false},
			{"to the backend, made beyond the host", r.Router, "remote", "remote", false},
			{"to the backend, made beyond another way", r.Gate, "far", "far", false},
			{"to the client, source kept", r.Router, "clients", "near", true},
			{"to the client, from the host itself", r.Router, "clients", "host", true},
			{"to the client, source rewritten", r.Router, "clients", "remote", true},
			{"to the client, made by the host", r.Host, "up0", "far", true},
		} {
			t.Run(c.name, func(t *testing.T) {
				place := placeOf(r, c.place)
				backend := netip.AddrPortFrom(f.At(place.Net, place.N), uint16(8081+i))
				frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
				serve := swallow
				if c.down {
					serve = pour
				}
				server := place.Space.ServeTCP(backend, "narrow", serve)
				s.Apply(bed.Service{
					Name: fmt.Sprintf("narrow-%d", i), Proto: "tcp",
					Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend},
				})
				c.space.MTU(c.dev, 1300)
				c.transfer(t, r.Client, netip.AddrPortFrom(f.Visitor(i), 0), frontend, server)
				c.space.MTU(c.dev, 1500)
			})
		}
	})
}

// transfer sends one way, and looks whether all of it arrived.
func (c narrowing) transfer(t *testing.T, client *bed.Namespace, from, to netip.AddrPort, server *bed.Server) {
	t.Helper()
	conn, err := client.Dial("tcp", from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(bed.Patience)); err != nil {
		t.Fatal(err)
	}
	up, down := int64(plenty), int64(0)
	if c.down {
		up, down = 0, plenty
	}
	if _, err := io.CopyN(conn, stream('m'), up); err != nil {
		t.Errorf("send: %v", err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Error(err)
	}
	got, err := io.Copy(io.Discard, conn)
	if err != nil {
		t.Errorf("the other end did not get all: %v", err)
	}
	if server.BytesIn.Load() != up || got != down {
		t.Errorf("%d of %d bytes came to the server, %d of %d to the client", server.BytesIn.Load(), up, got, down)
	}
}

const plenty = 5 << 20

// pour sends plenty, and closes.
func pour(_ *bed.Server, c net.Conn) error {
	_, err := io.CopyN(c, stream('m'), plenty)
	return err
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
		for i, place := range r.Places() {
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
