package test

import (
	"errors"
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// askAll asks from several addresses and fails the test unless all answers
// have the name.
func askAll(t *testing.T, from *bed.Namespace, f bed.Family, to netip.AddrPort, name string) {
	t.Helper()
	for i := range 10 {
		got, err := from.AskTCP(netip.AddrPortFrom(f.Visitor(i), 0), to)
		if err != nil || got != name {
			t.Errorf("client %v to %v: %q, %v, want %s", f.Visitor(i), to, got, err, name)
		}
	}
}

// each runs a test for both families on a routed bed with a daemon each.
func each(t *testing.T, f func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family)) {
	for _, family := range bed.Families() {
		t.Run(family.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			f(t, r, steer(t, r.Bed, r.Host, []string{"up0"}), family)
		})
	}
}

// A share is taken away from a running server, under its own address: what
// was open before siskin came goes on with the server, new connections follow
// the weights, and the server without siskin is what is left at the end.
func TestRootRealAddress(t *testing.T) {
	for _, f := range bed.Families() {
		for _, where := range []string{"near", "host", "far"} {
			t.Run(f.String()+"/"+where, func(t *testing.T) {
				r := bed.NewRouted(bed.New(t))
				place := placeOf(r, where)
				stable := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
				canary := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8082)
				place.Space.ServeTCP(stable, "stable", bed.Answer)
				r.Near.ServeTCP(canary, "canary", bed.Answer)
				// Far is reached through the host here, and answers through it.
				r.Router.Route(f.All(bed.Beyond), f.At(bed.Uplink, 2).String())
				r.Far.Route(f.Everywhere(), f.At(bed.Beyond, 1).String())
				before := r.Client.ChatWith(5, stable)

				s := steer(t, r.Bed, r.Host, []string{"up0"})
				s.Apply(bed.Service{
					Name: "real", Proto: "tcp", Frontends: []netip.AddrPort{stable},
					Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary},
				})
				askAll(t, r.Client, f, stable, "stable")
				during := r.Client.ChatWith(5, stable)
				s.Weight("real", "100%")
				askAll(t, r.Client, f, stable, "canary")
				s.Weight("real", "0")
				askAll(t, r.Client, f, stable, "stable")
				goesOn(t, s, during)
				if where == "far" {
					// Its source is rewritten, so it ends with siskin.
					if err := during.Stop(); err != nil {
						t.Error(err)
					}
				}
				s.Must("delete", "service", "real")
				askAll(t, r.Client, f, stable, "stable")
				s.Stop()
				s.Must("uninstall", "--bpffs", s.BPFFS())
				askAll(t, r.Client, f, stable, "stable")
				goesOn(t, s, before)
				if where != "far" {
					goesOn(t, s, during)
				}
				if err := errors.Join(before.Stop(), during.Stop()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// goesOn fails the test unless open connections are still answered.
func goesOn(t *testing.T, s *bed.Siskin, chat *bed.Chat) {
	t.Helper()
	asked := chat.Asked.Load()
	s.Await("open connections go on", func() bool { return chat.Asked.Load() > asked })
}

func placeOf(r *bed.Routed, name string) bed.Place {
	for _, p := range r.Places() {
		if p.Name == name {
			return p
		}
	}
	panic("no place " + name)
}

// `always` and `never` say what the backend sees, wherever it is.
func TestRootSourceNAT(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		// Far sends its answers back through the host here.
		r.Far.Route(f.Everywhere(), f.At(bed.Beyond, 1).String())
		client := f.At(bed.Clients, 2)
		for i, c := range []struct {
			name, sourceNAT string
			space           *bed.Namespace
			backend         netip.Addr
			want            netip.Addr
		}{
			{"always-near", "always", r.Near, f.At(bed.Nearby, 2), f.At(bed.Nearby, 1)},
			{"always-far", "always", r.Far, f.At(bed.Beyond, 2), f.At(bed.Side, 1)},
			{"never-near", "never", r.Near, f.At(bed.Nearby, 2), client},
			{"never-far", "never", r.Far, f.At(bed.Beyond, 2), client},
		} {
			backend := netip.AddrPortFrom(c.backend, uint16(8081+i))
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
			c.space.ServeTCP(backend, c.name, bed.Answer)
			s.Apply(bed.Service{
				Name: c.name, Proto: "tcp", SourceNAT: c.sourceNAT,
				Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend},
			})
			if got := peerSeen(t, r.Client, client, frontend); got.Addr() != c.want {
				t.Errorf("%s: the backend sees %v, want %v", c.name, got.Addr(), c.want)
			}
			name, err := r.Client.AskTCP(netip.AddrPortFrom(client, 0), frontend)
			if err != nil || name != c.name {
				t.Errorf("%s: %q, %v", c.name, name, err)
			}
		}
	})
}

// The frontend is the host's own address, once with the backends elsewhere
// and once with both of them on the host.
func TestRootHostsOwnAddress(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		own := f.At(bed.Uplink, 2)
		for i, place := range r.Places()[:3] {
			frontend := netip.AddrPortFrom(own, uint16(80+i))
			stable := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
			canary := netip.AddrPortFrom(f.At(place.Net, place.N), 8082)
			if place.Name == "host" {
				stable, canary = netip.AddrPortFrom(own, 8081), netip.AddrPortFrom(own, 8082)
			}
			place.Space.ServeTCP(stable, "stable", bed.Answer)
			place.Space.ServeTCP(canary, "canary", bed.Answer)
			s.Apply(bed.Service{
				Name: place.Name, Proto: "tcp", Frontends: []netip.AddrPort{frontend},
				Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary},
			})
			askAll(t, r.Client, f, frontend, "stable")
			s.Weight(place.Name, "100%")
			askAll(t, r.Client, f, frontend, "canary")
		}
		// Other ports of the host's address are nobody's business.
		other := netip.AddrPortFrom(own, 9000)
		r.Host.ServeTCP(other, "other", bed.Answer)
		askAll(t, r.Client, f, other, "other")
	})
}

// A backend that calls its own service may get itself, and another backend
// on the same link.
func TestRootBackendCallsItsService(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		near := f.At(bed.Nearby, 2)
		stable, canary := netip.AddrPortFrom(near, 8081), netip.AddrPortFrom(near, 8082)
		r.Near.ServeTCP(stable, "stable", bed.Answer)
		r.Near.ServeTCP(canary, "canary", bed.Answer)
		r.Near.ServeUDP(stable, "stable")
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		s.Apply(
			bed.Service{Name: "own", Proto: "tcp", Frontends: []netip.AddrPort{frontend},
				Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary}},
			bed.Service{Name: "own-udp", Proto: "udp", Frontends: []netip.AddrPort{frontend},
				Stable: []netip.AddrPort{stable}},
		)
		ask := func(want string) {
			t.Helper()
			for range 10 {
				if got, err := r.Near.AskTCP(netip.AddrPortFrom(near, 0), frontend); err != nil || got != want {
					t.Errorf("the backend asks its service: %q, %v, want %s", got, err, want)
				}
			}
		}
		ask("stable")
		s.Weight("own", "100%")
		ask("canary")
		if got, err := r.Near.AskUDP(netip.AddrPortFrom(near, 0), frontend, 4000); err != nil || len(got) != 4000 {
			t.Errorf("the backend asks its service by UDP: %d bytes, %v", len(got), err)
		}
	})
}

// One client port may be used to two frontends at once. Where both lead to
// one backend it would see the same connection twice, so one has to get
// another source port.
func TestRootSharedBackend(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		for i, place := range r.Places()[:3] {
			backend := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
			place.Space.ServeTCP(backend, "shared", bed.Answer)
			one := netip.AddrPortFrom(f.At(bed.VIPs, 10+2*i), 80)
			two := netip.AddrPortFrom(f.At(bed.VIPs, 11+2*i), 80)
			s.Apply(
				bed.Service{Name: place.Name, Proto: "tcp", Frontends: []netip.AddrPort{one, two},
					Stable: []netip.AddrPort{backend}},
				bed.Service{Name: place.Name + "-too", Proto: "tcp",
					Frontends: []netip.AddrPort{netip.AddrPortFrom(one.Addr(), 81)}, Stable: []netip.AddrPort{backend}},
			)
			client := netip.AddrPortFrom(f.At(bed.Clients, 2), 3000)
			peers := map[string]netip.AddrPort{}
			for _, to := range []netip.AddrPort{one, two, netip.AddrPortFrom(one.Addr(), 81)} {
				talk, err := r.Client.TalkTo(client, to)
				if err != nil {
					t.Fatalf("%s: from %v to %v: %v", place.Name, client, to, err)
				}
				defer talk.Close() // all of them are open at once
				for range 3 {
					peer, err := talk.Ask("peer")
					if err != nil {
						t.Fatalf("%s: from %v to %v: %v", place.Name, client, to, err)
					}
					if other, seen := peers[peer]; seen && other != to {
						t.Errorf("%s: %v and %v are both %s to the backend", place.Name, other, to, peer)
					}
					peers[peer] = to
				}
			}
		}
	})
}
