package test

import (
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

const (
	sweepWorkers = 16
	// The first port of a sweep's connections. Which connection goes where
	// depends on addresses and ports only, so each run is the same.
	firstPort = 2000
)

// greeters starts one stable and one canary server in the near namespace.
func greeters(r *bed.Routed, f bed.Family) (stable, canary *bed.Server) {
	at := f.At(bed.Nearby, 2)
	return r.Near.ServeTCP(netip.AddrPortFrom(at, 8081), "stable", bed.Greet),
		r.Near.ServeTCP(netip.AddrPortFrom(at, 8082), "canary", bed.Greet)
}

// sweep makes connections and returns which of them the canary answered.
func sweep(t *testing.T, r *bed.Routed, attempts []bed.Attempt) []bool {
	t.Helper()
	start := time.Now()
	names, err := r.Client.Sweep(attempts, sweepWorkers)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f connections/s", float64(len(names))/time.Since(start).Seconds())
	canary := make([]bool, len(names))
	for i, name := range names {
		if name != "stable" && name != "canary" {
			t.Fatalf("%v was answered by %q", attempts[i].From, name)
		}
		canary[i] = name == "canary"
	}
	return canary
}

func count(of []bool) int {
	n := 0
	for _, is := range of {
		if is {
			n++
		}
	}
	return n
}

// Done when 2, connections: 100,000 real ones at 5 %, and as many at 0.01 %.
func TestRootShareOfConnections(t *testing.T) {
	t.Parallel()
	const connections, addresses = 100_000, 10
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	stable, canary := greeters(r, f)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	s.Apply(bed.Service{
		Name: "share", Proto: "tcp", Affinity: "connection",
		Frontends: []netip.AddrPort{frontend},
		Stable:    []netip.AddrPort{stable.Addr}, Canary: []netip.AddrPort{canary.Addr},
		Weight: "5%",
	})
	attempts := make([]bed.Attempt, connections)
	for i := range attempts {
		from := netip.AddrPortFrom(f.Visitor(i%addresses), uint16(firstPort+i/addresses))
		attempts[i] = bed.Attempt{From: from, To: frontend}
	}
	before := count(sweep(t, r, attempts))
	checkShare(t, "5%", before, connections, 0.05)
	if got := s.Version("share", "canary").Traffic.Opened; got != uint64(before) {
		t.Errorf("the kernel counts %d connections of the canary, the clients %d", got, before)
	}

	s.Weight("share", "0.01%")
	rare := count(sweep(t, r, attempts))
	checkShare(t, "0.01%", rare, connections, 0.0001)
	if got := s.Version("share", "canary").Traffic.Opened; got != uint64(before+rare) {
		t.Errorf("the kernel counts %d connections of the canary, the clients %d", got, before+rare)
	}
	if got := canary.Accepted.Load(); got != int64(before+rare) {
		t.Errorf("the canary accepted %d connections, %d were answered by it", got, before+rare)
	}
}

// Done when 2, clients: 20,000 addresses, of both families. A change of the
// weight moves clients between stable and canary one way only.
func TestRootShareOfClients(t *testing.T) {
	t.Parallel()
	const perFamily = 10_000
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	service := bed.Service{Name: "share", Proto: "tcp", Affinity: "client", Weight: "5%"}
	var attempts []bed.Attempt
	for _, f := range bed.Families() {
		stable, canary := greeters(r, f)
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		service.Frontends = append(service.Frontends, frontend)
		service.Stable = append(service.Stable, stable.Addr)
		service.Canary = append(service.Canary, canary.Addr)
		for i := range perFamily {
			attempts = append(attempts, bed.Attempt{From: netip.AddrPortFrom(f.Visitor(i), firstPort), To: frontend})
		}
	}
	s.Apply(service)

	at5 := sweep(t, r, attempts)
	checkShare(t, "5%", count(at5), len(attempts), 0.05)
	s.Weight("share", "25%")
	at25 := sweep(t, r, anew(attempts))
	checkShare(t, "25%", count(at25), len(attempts), 0.25)
	s.Weight("share", "5%")
	again := sweep(t, r, attempts)

	for i, a := range attempts {
		if at5[i] && !at25[i] {
			t.Errorf("%v left the canary when its weight grew", a.From.Addr())
		}
		if again[i] != at5[i] {
			t.Errorf("%v: canary %v at 5%%, %v when it came back to it", a.From.Addr(), at5[i], again[i])
		}
	}
}

// anew gives the connections other ports; the clients stay the same.
func anew(attempts []bed.Attempt) []bed.Attempt {
	other := make([]bed.Attempt, len(attempts))
	for i, a := range attempts {
		other[i] = bed.Attempt{From: netip.AddrPortFrom(a.From.Addr(), a.From.Port()+1), To: a.To}
	}
	return other
}
