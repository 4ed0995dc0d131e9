package test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// Services do not know of each other, and a rollback of all is one command.
func TestRootSeveralServices(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	var services []bed.Service
	for i, name := range []string{"one", "two", "three"} {
		services = append(services, plain(r, f, name, 10+i))
	}
	s.Apply(services...)
	s.Weight("two", "100%")
	expect := func(canaries ...string) {
		t.Helper()
		for _, service := range services {
			want := service.Name + "-stable"
			if slices.Contains(canaries, service.Name) {
				want = service.Name + "-canary"
			}
			askAll(t, r.Client, f, service.Frontends[0], want)
		}
	}
	expect("two")
	s.Weight("three", "100%")
	expect("two", "three")
	// The document is the same, so the weights set by hand stay.
	s.Apply(services...)
	expect("two", "three")
	s.Must("rollback", "three")
	expect("two")
	s.Weight("one", "100%")
	s.Must("rollback", "--all")
	expect()
	s.Must("delete", "service", "two")
	if r := s.CLI("weight", "two"); r.Code != 1 {
		t.Errorf("a deleted service still has a weight: %v", r)
	}
}

// Backends come and go under traffic, and no request fails.
func TestRootBackendsComeAndGo(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	servers := map[string]*bed.Server{}
	var addrs []netip.AddrPort
	for i, name := range []string{"a", "b", "c"} {
		addr := netip.AddrPortFrom(f.At(bed.Nearby, 2), uint16(8081+i))
		servers[name] = r.Near.ServeTCP(addr, name, bed.Greet)
		addrs = append(addrs, addr)
	}
	with := func(backends ...netip.AddrPort) bed.Service {
		return bed.Service{Name: "changing", Proto: "tcp", Affinity: "connection",
			Frontends: []netip.AddrPort{frontend}, Stable: backends}
	}
	s.Apply(with(addrs[0]))
	load := r.Client.Drive(4, frontend)
	for range 5 {
		for _, backends := range [][]netip.AddrPort{addrs[:2], addrs, addrs[1:], addrs[2:], addrs[:1]} {
			s.Apply(with(backends...))
			if err := load.Await(100); err != nil {
				t.Fatal(err)
			}
		}
	}
	names := load.Stop()
	t.Logf("answers %v", names)
	if failed := load.Failed.Load(); failed > 0 {
		t.Errorf("%d connections failed: %v", failed, load.Err())
	}
	for name, server := range servers {
		if names[name] == 0 || server.Accepted.Load() != names[name] {
			t.Errorf("%s answered %d and accepted %d", name, names[name], server.Accepted.Load())
		}
	}
}

// With affinity to the client, all its connections go to one backend, also
// after another backend of the version has gone.
func TestRootStickyClients(t *testing.T) {
	const clients = 60
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		var backends []netip.AddrPort
		for i, name := range []string{"a", "b", "c"} {
			addr := netip.AddrPortFrom(f.At(bed.Nearby, 2), uint16(8081+i))
			r.Near.ServeTCP(addr, name, bed.Answer)
			backends = append(backends, addr)
		}
		with := func(backends []netip.AddrPort) {
			s.Apply(bed.Service{Name: "sticky", Proto: "tcp", Affinity: "client",
				Frontends: []netip.AddrPort{frontend}, Stable: backends})
		}
		ask := func() []string {
			names := make([]string, clients)
			for i := range names {
				var err error
				if names[i], err = r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(i), 0), frontend); err != nil {
					t.Fatal(err)
				}
			}
			return names
		}
		with(backends)
		first, second := ask(), ask()
		if !slices.Equal(first, second) {
			t.Errorf("clients changed their backend:\n%v\n%v", first, second)
		}
		for _, name := range []string{"a", "b", "c"} {
			if !slices.Contains(first, name) {
				t.Errorf("none of %d clients got backend %s", clients, name)
			}
		}
		with(backends[:2])
		moved := 0
		for i, name := range ask() {
			if first[i] != "c" && name != first[i] {
				moved++
			}
		}
		// Maglev moves a few more than it has to.
		if moved > clients/10 {
			t.Errorf("%d of %d clients moved although their backend stayed", moved, clients)
		}
	})
}

// `get flows` and `get backends` tell the truth about an open connection.
func TestRootFlows(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		service := plain(r, f, "shown", 10)
		service.Weight = "100%"
		s.Apply(service)
		client := netip.AddrPortFrom(f.At(bed.Clients, 2), 3000)
		talk, err := r.Client.TalkTo(client, service.Frontends[0])
		if err != nil {
			t.Fatal(err)
		}
		defer talk.Close()
		if _, err := talk.Ask("who"); err != nil {
			t.Fatal(err)
		}
		var list api.FlowList
		s.JSON(&list, "get", "flows", "shown")
		if len(list.Flows) != 1 {
			t.Fatalf("%d flows, want 1", len(list.Flows))
		}
		got := list.Flows[0]
		want := api.FlowView{
			Client: client.String(), Frontend: service.Frontends[0].String() + "/tcp", Service: "shown",
			Version: "canary", Backend: service.Canary[0].String(), State: api.FlowEstablished, SourcePort: 3000,
			AgeSeconds: got.AgeSeconds, IdleSeconds: got.IdleSeconds, OpenedNs: got.OpenedNs,
		}
		if got != want {
			t.Errorf("the flow is\n%+v, want\n%+v", got, want)
		}
		if got.OpenedNs == 0 || got.AgeSeconds > 60 {
			t.Errorf("the flow was opened at %d and is %g s old", got.OpenedNs, got.AgeSeconds)
		}
		active := func() uint64 { return s.Version("shown", "canary").Traffic.Active }
		if n := active(); n != 1 {
			t.Errorf("%d connections are active, want 1", n)
		}
		talk.Close()
		s.Await("the connection is closed", func() bool { return active() == 0 })
		var backends []api.BackendView
		s.JSON(&backends, "get", "backends", "shown")
		for _, b := range backends {
			opened := map[string]uint64{"stable": 0, "canary": 1}[b.Version]
			if b.Traffic.Opened != opened || b.Path != "local" || b.State != "active" {
				t.Errorf("backend %s: %+v, want %d connections on a local path", b.Address, b, opened)
			}
		}
		if len(backends) != 2 {
			t.Errorf("%d backends, want 2", len(backends))
		}
	})
}

// Connections of a deleted service, and of a removed backend, go on; there are
// no new ones, and what is applied again is there again.
func TestRootDeletedServiceKeepsConnections(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		service := plain(r, f, "deleted", 10)
		s.Apply(service)
		open := r.Client.ChatWith(5, service.Frontends[0])
		s.Must("delete", "service", "deleted")
		goesOn(t, s, open)
		if name, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(1), 0), service.Frontends[0]); err == nil {
			t.Errorf("%s answered a new connection to a deleted service", name)
		}
		goesOn(t, s, open)
		s.Apply(service)
		askAll(t, r.Client, f, service.Frontends[0], "deleted-stable")

		service.Stable, service.Canary = service.Canary, nil
		s.Apply(service)
		askAll(t, r.Client, f, service.Frontends[0], "deleted-canary")
		goesOn(t, s, open)
		if err := open.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// A client may use a port again as soon as it is free, wherever the backend is
// and whoever closed first.
func TestRootPortsAreUsedAgain(t *testing.T) {
	const clients, rounds = 200, 4
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		for i, place := range r.Places()[:3] {
			backend := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
			talkative := netip.AddrPortFrom(f.At(place.Net, place.N), 8082)
			place.Space.ServeTCP(backend, "closes first", bed.Greet)
			place.Space.ServeTCP(talkative, "closes last", bed.Answer)
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
			other := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 81)
			s.Apply(
				bed.Service{Name: place.Name, Proto: "tcp",
					Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend}},
				bed.Service{Name: place.Name + "-talk", Proto: "tcp",
					Frontends: []netip.AddrPort{other}, Stable: []netip.AddrPort{talkative}},
			)
			var attempts []bed.Attempt
			for c := range clients {
				attempts = append(attempts, bed.Attempt{From: netip.AddrPortFrom(f.Visitor(c), firstPort), To: frontend})
			}
			for round := range rounds {
				if _, err := r.Client.Sweep(attempts, 4); err != nil {
					t.Errorf("%s, round %d: %v", place.Name, round, err)
				}
				for c := range clients / 4 {
					name, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(c), firstPort+1), other)
					if err != nil || name != "closes last" {
						t.Errorf("%s, round %d, client %d: %q, %v", place.Name, round, c, name, err)
					}
				}
			}
		}
	})
}

// Behind a rewritten source there is one port a connection, and a few thousand
// in all: closed connections must give theirs back to new ones. Where the
// backend remembers the port it refuses it once, and the client tries again.
func TestRootManyShortConnections(t *testing.T) {
	const connections = 12_000 // of 4,536 source ports
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	backend := netip.AddrPortFrom(f.At(bed.Remotes, 2), 8081)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	r.Remote.ServeTCP(backend, "remote", bed.Greet)
	s.Apply(bed.Service{Name: "short", Proto: "tcp",
		Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend}})
	attempts := make([]bed.Attempt, connections)
	for i := range attempts {
		attempts[i] = bed.Attempt{From: netip.AddrPortFrom(f.Visitor(i), firstPort), To: frontend}
	}
	start := time.Now()
	if _, err := r.Client.Sweep(attempts, sweepWorkers); err != nil {
		t.Error(err)
	}
	t.Logf("%.0f connections/s", connections/time.Since(start).Seconds())
	if n, err := s.Scrape().Sum("siskin_drops_total", "reason", "ports_exhausted"); err != nil || n > 0 {
		t.Errorf("siskin_drops_total{reason=ports_exhausted} is %v (%v)", n, err)
	}
}
