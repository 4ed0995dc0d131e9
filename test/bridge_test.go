package test

import (
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// Client and backends on one bridge: the backend would answer the client
// directly, so the host has to rewrite the source.
func TestRootBridge(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewBridged(bed.New(t))
			s := steer(t, r.Bed, r.Host, []string{"br0"})
			stable := netip.AddrPortFrom(f.At(bed.Segment, 3), 8080)
			canary := netip.AddrPortFrom(f.At(bed.Segment, 4), 8080)
			r.Stable.ServeTCP(stable, "stable", bed.Answer)
			r.Canary.ServeTCP(canary, "canary", bed.Answer)
			r.Stable.ServeUDP(stable, "stable")
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			s.Apply(
				bed.Service{Name: "bridge", Proto: "tcp", Frontends: []netip.AddrPort{frontend},
					Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary}},
				bed.Service{Name: "bridge-udp", Proto: "udp", Frontends: []netip.AddrPort{frontend},
					Stable: []netip.AddrPort{stable}},
			)
			for share, want := range map[string]string{"0": "stable", "100%": "canary"} {
				s.Weight("bridge", share)
				for range 10 {
					if got, err := r.Client.AskTCP(netip.AddrPort{}, frontend); err != nil || got != want {
						t.Errorf("at %s: %q, %v, want %s", share, got, err, want)
					}
				}
			}
			if got, err := r.Client.AskUDP(netip.AddrPort{}, frontend, 4000); err != nil || len(got) != 4000 {
				t.Errorf("UDP: %d bytes, %v", len(got), err)
			}
			// What is not ours crosses the bridge as before.
			if got, err := r.Client.AskTCP(netip.AddrPort{}, stable); err != nil || got != "stable" {
				t.Errorf("directly: %q, %v", got, err)
			}
		})
	}
}

// Containers on a bridge of the host, as Docker makes it: clients come by the
// uplink, and one container calls the service that another one serves.
func TestRootContainers(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			caller, server := r.Namespace("caller"), r.Namespace("server")
			for i, n := range []*bed.Namespace{caller, server} {
				r.Connect(bed.End{Space: r.Host, Dev: "port-" + n.Role},
					bed.End{Space: n, Dev: "eth0", Addrs: []string{f.On(bed.Segment, 2+i)}})
			}
			r.Host.Bridge("docker0", "port-caller", "port-server")
			r.Host.Address("docker0", f.On(bed.Segment, 1))
			for _, n := range []*bed.Namespace{caller, server} {
				n.Route(f.Everywhere(), f.At(bed.Segment, 1).String())
			}
			s := steer(t, r.Bed, r.Host, nil) // it has to find docker0
			stable := netip.AddrPortFrom(f.At(bed.Segment, 3), 8081)
			canary := netip.AddrPortFrom(f.At(bed.Segment, 3), 8082)
			server.ServeTCP(stable, "stable", bed.Answer)
			server.ServeTCP(canary, "canary", bed.Answer)
			server.ServeUDP(stable, "stable")
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			s.Apply(
				bed.Service{Name: "contained", Proto: "tcp", Frontends: []netip.AddrPort{frontend},
					Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary}},
				bed.Service{Name: "contained-udp", Proto: "udp", Frontends: []netip.AddrPort{frontend},
					Stable: []netip.AddrPort{stable}},
			)
			for share, want := range map[string]string{"0": "stable", "100%": "canary"} {
				s.Weight("contained", share)
				askAll(t, r.Client, f, frontend, want)
				for range 5 {
					if got, err := caller.AskTCP(netip.AddrPort{}, frontend); err != nil || got != want {
						t.Errorf("the other container at %s: %q, %v, want %s", share, got, err, want)
					}
				}
			}
			for _, from := range []*bed.Namespace{r.Client, caller} {
				if got, err := from.AskUDP(netip.AddrPort{}, frontend, 4000); err != nil || len(got) != 4000 {
					t.Errorf("%s by UDP: %d bytes, %v", from.Role, len(got), err)
				}
			}
			if peer := peerSeen(t, r.Client, f.Visitor(1), frontend); peer.Addr() != f.Visitor(1) {
				t.Errorf("the container sees %v, want the client's own address", peer)
			}
		})
	}
}
