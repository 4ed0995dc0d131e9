package test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/test/bed"
)

// transferVariable names the bytes that each transfer through a narrow link
// sends each way.
const transferVariable = "SISKIN_TRANSFER"

func narrowTransfer(t *testing.T) int64 {
	t.Helper()
	s := os.Getenv(transferVariable)
	if s == "" {
		return 8 << 20
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", transferVariable, err)
	}
	return n
}

// A bottleneck is a narrow link on the way, and who has to be told of it by errors
// that cross the host.
type bottleneck struct {
	name    string
	at      func(r *bed.Routed) *bed.Namespace // where the narrow link begins; nil: it is the container's own
	client  bool                               // the client is behind it; else the backend
	backend string                             // where the backend is, if it is not behind the narrow link
	sources string                             // sourceNAT, unless it is auto
}

func bottlenecks() []bottleneck {
	host := func(r *bed.Routed) *bed.Namespace { return r.Host }
	router := func(r *bed.Routed) *bed.Namespace { return r.Router }
	return []bottleneck{
		{"client, at the host, to near", host, true, "near", ""},
		{"client, at the host, to near as the host", host, true, "near", "always"},
		{"client, at the host, to remote", host, true, "remote", ""},
		{"client, behind a router, to near", router, true, "near", ""},
		{"client, behind a router, to near as the host", router, true, "near", "always"},
		{"client, behind a router, to remote", router, true, "remote", ""},
		{"backend, at the host", host, false, "", ""},
		{"backend, at the host, source kept", host, false, "", "never"},
		{"backend, behind a router", router, false, "", ""},
		{"backend, in a container", nil, false, "near", ""},
		{"backend, in a container, as the host", nil, false, "near", "always"},
	}
}

// A link in the middle takes smaller packets than those of both ends. Whoever
// sends has to hear of it, or all it sends at full size is lost for ever.
func TestRootPathMTUTransfer(t *testing.T) {
	t.Parallel()
	size := narrowTransfer(t)
	for _, packets := range []string{"large", "sums", "xdp"} {
		for _, b := range bottlenecks() {
			t.Run(packets+"/"+b.name, func(t *testing.T) {
				r := bed.NewRouted(bed.New(t))
				client, place := b.lay(r)
				if packets != "large" {
					r.FullSums() // and so a packet is what it is on a real link
				}
				interfaces := []string{"up0"}
				if b.at != nil && b.client && b.at(r) == r.Host {
					interfaces = append(interfaces, "narrow")
				}
				var args []string
				if packets == "xdp" {
					r.Router.TakeXDP("host")
					if len(interfaces) > 1 {
						r.Namespace("edge").TakeXDP("narrow")
					}
					args, interfaces = []string{"--xdp", strings.Join(interfaces, ",")}, nil
				}
				s := steer(t, r.Bed, r.Host, interfaces, args...)
				for _, f := range bed.Families() {
					t.Run(f.String(), func(t *testing.T) { b.check(t, r, s, f, client, place, size) })
				}
			})
		}
	}
}

// lay puts the narrow link in its place.
func (b bottleneck) lay(r *bed.Routed) (client *bed.Namespace, place bed.Place) {
	client = r.Client
	if b.backend != "" {
		place = placeOf(r, b.backend)
	}
	if b.at == nil {
		// The container knows its link, but not what it tells its clients.
		r.Host.MTU("near", bed.NarrowMTU)
		r.Near.MTU("eth0", bed.NarrowMTU)
		for _, f := range bed.Families() {
			for _, to := range []string{f.Everywhere(), f.Alone(bed.Nearby, 1)} {
				r.Near.Advertise(to, f.At(bed.Nearby, 1).String(), 1440)
			}
		}
		return client, place
	}
	leaf := r.Narrow(b.at(r))
	if b.client {
		return leaf, place
	}
	return client, bed.Place{Name: "leaf", Space: leaf, Net: bed.Behind, N: 2}
}

func (b bottleneck) check(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family, client *bed.Namespace, place bed.Place, size int64) {
	backend := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	learned := make(chan uint32, 1)
	place.Space.ServeTCP(backend, "stable", func(server *bed.Server, c net.Conn) error {
		err := exchange(size)(server, c)
		learned <- pathMTU(c)
		return err
	})
	s.Apply(bed.Service{
		Name: "narrow-" + f.String(), Proto: "tcp", SourceNAT: b.sources,
		Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend},
	})
	conn, err := client.Dial("tcp", netip.AddrPort{}, frontend)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	if err := transfer(conn, size); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f MB/s", 2*float64(size)/1e6/time.Since(start).Seconds())
	// Large packets go through a veth pair of any MTU, so look at what the
	// senders believe.
	if up, down := pathMTU(conn), <-learned; up != bed.NarrowMTU || down != bed.NarrowMTU {
		t.Errorf("the client sends packets of up to %d bytes and the backend of up to %d, want %d", up, down, bed.NarrowMTU)
	}
}

// pathMTU is what the kernel knows of the way to a connection's other end; 0
// if it does not tell.
func pathMTU(c net.Conn) uint32 {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	var mtu uint32
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			mtu = info.Pmtu
		}
	})
	return mtu
}
