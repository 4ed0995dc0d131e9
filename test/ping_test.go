package test

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// answered returns how many pings the kernel programs have answered.
func answered(t *testing.T, s *bed.Siskin) float64 {
	t.Helper()
	n, err := s.Scrape().Sum("siskin_special_cases_total", "kind", "echo_answered")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pingTTL pings and fails the test unless an answer with the time to live of
// who has to answer comes back.
func pingTTL(t *testing.T, from *bed.Namespace, source, to netip.Addr, want int) {
	t.Helper()
	for _, size := range []int{0, 56, 1400} {
		if ttl, err := from.Ping(source, to, size); err != nil || ttl != want {
			t.Errorf("ping %v from %v with %d bytes: ttl %d, %v, want %d", to, source, size, ttl, err, want)
		}
	}
}

// A virtual address answers ping as long as it is served here, with a daemon or
// without; other addresses are left to their owners.
func TestRootPing(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		virtual, own, real := f.At(bed.VIPs, 10), f.At(bed.OwnAddrs, 1), f.At(bed.Nearby, 2)
		stable := []netip.AddrPort{netip.AddrPortFrom(real, 8081)}
		service := func(name string, addr netip.Addr) bed.Service {
			return bed.Service{Name: name, Proto: "tcp", Frontends: []netip.AddrPort{netip.AddrPortFrom(addr, 8081)}, Stable: stable}
		}
		s.Apply(service("virtual", virtual), service("own", own), service("real", real))
		// Behind the router one is taken off, and another one behind the host.
		pingTTL(t, r.Client, f.At(bed.Clients, 2), virtual, 63)
		pingTTL(t, r.Client, f.Visitor(1), virtual, 63)
		if got := answered(t, s); got != 6 {
			t.Errorf("%v pings are counted, want 6", got)
		}
		pingTTL(t, r.Client, f.Visitor(1), own, 63)
		pingTTL(t, r.Client, f.Visitor(1), real, 62)
		if got := answered(t, s); got != 6 {
			t.Errorf("%v pings are counted, other addresses with them", got)
		}
		s.Kill()
		pingTTL(t, r.Client, f.Visitor(2), virtual, 63)
		s.Start()
		pingTTL(t, r.Client, f.Visitor(3), virtual, 63)
		s.Must("delete", "service", "virtual")
		// Nobody has the address: its packets go round until they die.
		if _, err := r.Client.Ping(f.Visitor(1), virtual, 8); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("ping after the end: %v, want unreachable", err)
		}
	})
}

// A tunnel has no link layer: there are no stations to exchange.
func TestRootPingByTunnel(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			roamer := r.Namespace("roamer")
			r.ConnectSlowly(bed.End{Space: r.Host, Dev: "tun0", Addrs: []string{f.On(bed.Wired, 1)}},
				bed.End{Space: roamer, Dev: "tun0", Addrs: []string{f.On(bed.Wired, 2)}})
			roamer.Route(f.All(bed.VIPs), f.At(bed.Wired, 1).String())
			s := steer(t, r.Bed, r.Host, []string{"tun0"})
			s.Apply(plain(r, f, "tunnel", 10))
			pingTTL(t, roamer, f.At(bed.Wired, 2), f.At(bed.VIPs, 10), 64)
		})
	}
}

// A frame with VLAN tags is answered by one with the same tags, to the station
// that sent it.
func TestRootPingTagged(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		s.Apply(plain(r, f, "tagged", 10))
		via := bed.Stations{Here: r.Router.Station("host"), There: r.Host.Station("up0")}
		for _, tags := range [][]uint16{nil, {7}, {7, 8}} {
			got, back, err := r.Router.PingTagged("host", via, f.At(bed.Uplink, 1), f.At(bed.VIPs, 10), tags...)
			if err != nil || !slices.Equal(got, tags) || !reflect.DeepEqual(back, via) {
				t.Errorf("tags %v: answer with tags %v by %v, %v, want %v", tags, got, back, err, via)
			}
		}
	})
}
