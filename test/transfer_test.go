package test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

const transferSize = 200 << 20

// stream is the same endless bytes for the same seed.
func stream(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// exchange is a server that takes bytes until the client is done, says their
// hash, and sends size of its own. So the whole answer comes after the
// client's FIN.
func exchange(size int64) bed.Handler {
	return func(_ *bed.Server, c net.Conn) error {
		hash := sha256.New()
		if _, err := io.Copy(hash, c); err != nil {
			return err
		}
		if _, err := c.Write(hash.Sum(nil)); err != nil {
			return err
		}
		_, err := io.Copy(c, io.LimitReader(stream('b'), size))
		return err
	}
}

// transfer is the client's side of exchange.
func transfer(conn net.Conn, size int64) error {
	patience := 20*time.Second + time.Duration(size/5_000_000)*time.Second
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := sha256.New()
	if _, err := io.Copy(conn, io.TeeReader(io.LimitReader(stream('a'), size), sent)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	var arrived [sha256.Size]byte
	if _, err := io.ReadFull(conn, arrived[:]); err != nil {
		return fmt.Errorf("read the server's hash: %w", err)
	}
	if !bytes.Equal(arrived[:], sent.Sum(nil)) {
		return errors.New("what arrived at the server is not what was sent")
	}
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, conn)
	if err != nil || n != size {
		return fmt.Errorf("%d bytes came back of %d: %w", n, size, err)
	}
	if _, err := io.CopyN(want, stream('b'), size); err != nil {
		return err
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return errors.New("what came back is not what the server sent")
	}
	return nil
}

// Done when 5: 200 MB each way arrive as they were sent, in the large packets
// that offloads make and in those that fit a real link; and the kernel counts
// each byte once.
func TestRootTransfer(t *testing.T) {
	t.Parallel()
	for _, packets := range []string{"large", "sums"} {
		t.Run(packets, func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			if packets == "sums" {
				r.FullSums() // and so no packet is larger than the MTU
			}
			s := steer(t, r.Bed, r.Host, []string{"up0"})
			for _, f := range bed.Families() {
				for _, place := range r.Places()[:3] {
					name := fmt.Sprintf("%v-%s", f, place.Name)
					t.Run(name, func(t *testing.T) { checkTransfer(t, r, s, name, f, place) })
				}
			}
		})
	}
}

func checkTransfer(t *testing.T, r *bed.Routed, s *bed.Siskin, name string, f bed.Family, place bed.Place) {
	backend := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+int(place.Net)), 80)
	server := place.Space.ServeTCP(backend, "stable", exchange(transferSize))
	s.Apply(bed.Service{
		Name: name, Proto: "tcp", Frontends: []netip.AddrPort{frontend},
		Stable: []netip.AddrPort{backend},
	})
	conn, err := r.Client.Dial("tcp", netip.AddrPortFrom(f.At(bed.Clients, 2), 0), frontend)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	if err := transfer(conn, transferSize); err != nil {
		t.Error(err)
	}
	t.Logf("%.0f MB/s", 2*transferSize/1e6/time.Since(start).Seconds())
	if in := server.BytesIn.Load(); in != transferSize {
		t.Errorf("the server took %d bytes", in)
	}
	conn.Close()
	s.Await("the connection is closed", func() bool { return s.Version(name, "stable").Traffic.Active == 0 })
	got := s.Version(name, "stable").Traffic.Bytes
	if want := (api.Direction{In: transferSize, Out: transferSize + sha256.Size}); got != want {
		t.Errorf("the kernel counts %+v bytes, want %+v", got, want)
	}
}
