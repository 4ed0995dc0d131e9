package test

import (
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// What is open stays with its version, whatever the weights do.
func TestRootOpenConnectionsKeepTheirVersion(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		service := plain(r, f, "kept", 10)
		s.Apply(service)
		to := service.Frontends[0]
		stable := r.Client.ChatWith(3, to)
		goesOn(t, s, stable)
		s.Weight("kept", "100%")
		canary := r.Client.ChatWith(3, to)
		goesOn(t, s, canary)
		goesOn(t, s, stable)
		s.Must("rollback", "kept")
		askAll(t, r.Client, f, to, "kept-stable")
		goesOn(t, s, canary)
		for _, chat := range []*bed.Chat{stable, canary} {
			if err := chat.Stop(); err != nil {
				t.Error(err)
			}
		}
		if n := s.Version("kept", "canary").Traffic.Opened; n != 3 {
			t.Errorf("the canary had %d connections, want 3", n)
		}
	})
}

// A pseudo-connection of UDP stays, too: it is what answers belong to.
func TestRootDatagramsKeepTheirVersion(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		at := f.At(bed.Nearby, 2)
		stable, canary := netip.AddrPortFrom(at, 8081), netip.AddrPortFrom(at, 8082)
		r.Near.ServeUDP(stable, "stable")
		r.Near.ServeUDP(canary, "canary")
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 53)
		s.Apply(bed.Service{Name: "kept", Proto: "udp", Frontends: []netip.AddrPort{frontend},
			Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary}})
		ask := func(port uint16, want string) {
			t.Helper()
			from := netip.AddrPortFrom(f.At(bed.Clients, 2), port)
			if got, err := r.Client.AskUDP(from, frontend, 0); err != nil || got != want {
				t.Errorf("from port %d: %q, %v, want %s", port, got, err, want)
			}
		}
		ask(3000, "stable")
		s.Weight("kept", "100%")
		ask(3000, "stable")
		ask(3001, "canary")
		s.Weight("kept", "0")
		ask(3001, "canary")
		ask(3002, "stable")
	})
}

// A client that tries in vain to reach a dead canary is given to stable by its
// next try, once the canary is taken back.
func TestRootRetryAfterRollback(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		service := plain(r, f, "dead", 10)
		service.Canary = []netip.AddrPort{netip.AddrPortFrom(f.At(bed.Nearby, 2), 8999)}
		service.Weight = "100%"
		family := map[bed.Family]string{bed.V4: "ip", bed.V6: "ip6"}[f]
		r.Near.Run("table "+family+" hole { chain input { type filter hook input priority 0; tcp dport 8999 drop; }; }\n", "nft", "-f", "-")
		s.Apply(service)
		type result struct {
			name string
			err  error
		}
		done := make(chan result)
		start := time.Now()
		go func() {
			name, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(1), 0), service.Frontends[0])
			done <- result{name, err}
		}()
		s.Await("the canary has got the first SYN", func() bool {
			return s.Version("dead", "canary").Traffic.Opened == 1
		})
		s.Must("rollback", "--all")
		if got := <-done; got.err != nil || got.name != "dead-stable" {
			t.Errorf("%q, %v after %v, want dead-stable", got.name, got.err, time.Since(start))
		}
		if n := s.Version("dead", "canary").Traffic.Active; n != 0 {
			t.Errorf("%d connections of the canary are active, want 0", n)
		}
	})
}
