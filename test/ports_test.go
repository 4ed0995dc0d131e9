package test

import (
	"fmt"
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

const (
	sourcePorts    = 64
	sourcePortsArg = "61000-61063"
)

// ported is a service with one remote backend, whose source is rewritten.
func ported(r *bed.Routed, f bed.Family, name string, vip int) (bed.Service, *bed.Server) {
	backend := netip.AddrPortFrom(f.At(bed.Remotes, 2), uint16(8000+vip))
	return bed.Service{
		Name: name, Proto: "tcp", Frontends: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.VIPs, vip), 80)},
		Stable: []netip.AddrPort{backend},
	}, r.Remote.ServeTCP(backend, name, bed.Answer)
}

// talkFromAll opens a connection for each source port, and checks that the
// backend sees a port of its own with each.
func talkFromAll(t *testing.T, r *bed.Routed, f bed.Family, to netip.AddrPort) []*bed.Talk {
	t.Helper()
	seen := map[netip.AddrPort]bool{}
	var talks []*bed.Talk
	for i := range sourcePorts {
		talk, err := r.Client.TalkTo(netip.AddrPortFrom(f.Visitor(i), 0), to)
		if err != nil {
			t.Fatalf("connection %d of %d: %v", i+1, sourcePorts, err)
		}
		t.Cleanup(func() { talk.Close() })
		peer, err := talk.Ask("peer")
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		seen[netip.MustParseAddrPort(peer)] = true
		talks = append(talks, talk)
	}
	for peer := range seen {
		if peer.Addr() != f.At(bed.Uplink, 2) || peer.Port() < 61000 || peer.Port() > 61063 {
			t.Errorf("the backend sees %v, want the host and a port of %s", peer, sourcePortsArg)
		}
	}
	if len(seen) != sourcePorts {
		t.Errorf("the backend sees %d different clients, want %d", len(seen), sourcePorts)
	}
	return talks
}

func closeAll(talks []*bed.Talk) {
	for _, talk := range talks {
		talk.Close()
	}
}

// All source ports towards a backend are in use: further connections are
// refused and counted, those that are open never notice, those to another
// backend have ports of their own, and every port is used again when it is
// free, also where the backend remembers the last connection from it.
func TestRootPortExhaustion(t *testing.T) {
	const refused = 3
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			s := steer(t, r.Bed, r.Host, []string{"up0"}, "--source-ports", sourcePortsArg)
			busy, server := ported(r, f, "busy", 10)
			other, _ := ported(r, f, "other", 11)
			s.Apply(busy, other)
			to := busy.Frontends[0]

			open := r.Client.ChatWith(sourcePorts, to)
			late := make(chan error)
			for i := range refused {
				go func() {
					name, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(100+i), 0), to)
					if err == nil {
						err = fmt.Errorf("%s answers although all ports are in use", name)
					} else {
						err = nil
					}
					late <- err
				}()
			}
			s.Await("all further connections are counted", func() bool {
				n, err := s.Scrape().Sum("siskin_drops_total", "reason", "ports_exhausted")
				return err == nil && n >= refused
			})
			elsewhere := r.Client.ChatWith(sourcePorts, other.Frontends[0])
			goesOn(t, s, elsewhere)
			goesOn(t, s, open)
			for range refused {
				if err := <-late; err != nil {
					t.Error(err)
				}
			}
			if err := open.Stop(); err != nil {
				t.Errorf("open connections: %v", err)
			}
			closed := func() bool { return s.Version("busy", "stable").Traffic.Active == 0 }
			s.Await("all connections are closed", closed)

			// The client has closed first; now the server does, and so the
			// backend holds each port in TIME_WAIT.
			talks := talkFromAll(t, r, f, to)
			server.Stop()
			closeAll(talks)
			s.Await("all connections are closed", closed)
			r.Remote.ServeTCP(server.Addr, "busy", bed.Answer)
			closeAll(talkFromAll(t, r, f, to))

			if err := elsewhere.Stop(); err != nil {
				t.Errorf("connections to the other backend: %v", err)
			}
		})
	}
}
