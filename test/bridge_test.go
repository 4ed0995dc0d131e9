package test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"siskin.dev/siskin/api"
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
// uplink, and one container calls the service that another one serves. Behind
// a firewall the doctor has to be heard first: br_netfilter would spoil the
// second.
func TestRootContainers(t *testing.T) {
	for _, f := range bed.Families() {
		for _, firewall := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/firewall=%v", f, firewall), func(t *testing.T) {
				checkContainers(t, f, firewall)
			})
		}
	}
}

func checkContainers(t *testing.T, f bed.Family, firewall bool) {
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
	if firewall {
		r.Host.Firewall("up0")
		followDoctor(t, r, s)
	}
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
}

// followDoctor does what the doctor says about br_netfilter, where there is
// such a thing.
func followDoctor(t *testing.T, r *bed.Routed, s *bed.Siskin) {
	t.Helper()
	var report api.DoctorReport
	s.JSON(&report, "doctor")
	for _, c := range report.Checks {
		if c.Name == "bridge-netfilter" {
			_, command, _ := strings.Cut(c.Remedy, ": ")
			r.Host.Run(command, "sh", "-e")
		}
	}
}

// Client, host and backend are machines on one link, with a switch between
// them that knows nothing: what comes to the host leaves where it came in.
func TestRootOneLink(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			b := bed.New(t)
			network := b.Namespace("switch")
			var ports []string
			spaces := map[string]*bed.Namespace{}
			for i, role := range []string{"host", "client", "server"} {
				spaces[role] = b.Namespace(role)
				b.Connect(bed.End{Space: network, Dev: role},
					bed.End{Space: spaces[role], Dev: "eth0", Addrs: []string{f.On(bed.Segment, 1+i)}})
				ports = append(ports, role)
			}
			network.Bridge("br0", ports...)
			spaces["host"].Forward(false)
			spaces["client"].Route(f.All(bed.VIPs), f.At(bed.Segment, 1).String())

			s := steer(t, b, spaces["host"], []string{"eth0"})
			backend := netip.AddrPortFrom(f.At(bed.Segment, 3), 8080)
			spaces["server"].ServeTCP(backend, "server", bed.Answer)
			spaces["server"].ServeUDP(backend, "server")
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			for _, proto := range []string{"tcp", "udp"} {
				s.Apply(bed.Service{Name: "link-" + proto, Proto: proto,
					Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend}})
			}
			for range 10 {
				if got, err := spaces["client"].AskTCP(netip.AddrPort{}, frontend); err != nil || got != "server" {
					t.Errorf("TCP: %q, %v", got, err)
				}
				if got, err := spaces["client"].AskUDP(netip.AddrPort{}, frontend, 4000); err != nil || len(got) != 4000 {
					t.Errorf("UDP: %d bytes, %v", len(got), err)
				}
			}
			// A backend that calls its own service from there.
			spaces["server"].Route(f.All(bed.VIPs), f.At(bed.Segment, 1).String())
			if got, err := spaces["server"].AskTCP(netip.AddrPort{}, frontend); err != nil || got != "server" {
				t.Errorf("the server asks itself: %q, %v", got, err)
			}
		})
	}
}

// Interfaces without a link layer, as tunnels have: clients come by one, and
// one of the backends is behind another. Their packets have whole checksums.
func TestRootTunnels(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			roamer, branch := r.Namespace("roamer"), r.Namespace("branch")
			r.ConnectSlowly(bed.End{Space: r.Host, Dev: "tun0", Addrs: []string{f.On(bed.Wired, 1)}},
				bed.End{Space: roamer, Dev: "tun0", Addrs: []string{f.On(bed.Wired, 2)}})
			r.ConnectSlowly(bed.End{Space: r.Host, Dev: "tun1", Addrs: []string{f.On(bed.Late, 1)}},
				bed.End{Space: branch, Dev: "tun0", Addrs: []string{f.On(bed.Late, 2)}})
			for n, network := range map[*bed.Namespace]bed.Network{roamer: bed.Wired, branch: bed.Late} {
				n.Route(f.Everywhere(), f.At(network, 1).String())
			}
			s := steer(t, r.Bed, r.Host, []string{"up0", "tun0"})
			service := plain(r, f, "tunnel", 10)
			away := netip.AddrPortFrom(f.At(bed.Late, 2), 8080)
			branch.ServeTCP(away, "away", bed.Answer)
			service.Canary = []netip.AddrPort{away}
			s.Apply(service)
			for share, want := range map[string]string{"0": "tunnel-stable", "100%": "away"} {
				s.Weight("tunnel", share)
				for from, n := range map[string]*bed.Namespace{"a tunnel": roamer, "the uplink": r.Client} {
					for range 5 {
						if got, err := n.AskTCP(netip.AddrPort{}, service.Frontends[0]); err != nil || got != want {
							t.Errorf("from %s at %s: %q, %v, want %s", from, share, got, err, want)
						}
					}
				}
			}
		})
	}
}
