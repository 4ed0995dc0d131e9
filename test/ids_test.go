package test

import (
	"fmt"
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// Backends are replaced by others again and again, while the connections of
// those that went before are open: a flow holds its backend by number, and a
// number given away too early leads it to a stranger.
func TestRootReplacedBackendsKeepConnections(t *testing.T) {
	const rounds, backends = 10, 3
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		var open []*bed.Chat
		for round := range rounds {
			service := bed.Service{Name: "replaced", Proto: "tcp", Frontends: []netip.AddrPort{frontend}}
			mine := map[string]bool{}
			for i := range backends {
				addr := netip.AddrPortFrom(f.At(bed.Nearby, 2), uint16(8100+round*backends+i))
				name := fmt.Sprintf("%d-%d", round, i)
				r.Near.ServeTCP(addr, name, bed.Answer)
				service.Stable = append(service.Stable, addr)
				mine[name] = true
			}
			s.Apply(service)
			if round == rounds/2 {
				s.Kill() // what it remembered is lost
				s.Start()
			}
			for i := range 2 * backends {
				name, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(i), 0), frontend)
				if err != nil || !mine[name] {
					t.Errorf("round %d: %q answers a new connection (%v), want one of %v", round, name, err, mine)
				}
			}
			open = append(open, r.Client.ChatWith(backends, frontend))
			for _, chat := range open {
				goesOn(t, s, chat)
			}
		}
		for round, chat := range open {
			if err := chat.Stop(); err != nil {
				t.Errorf("connections of round %d: %v", round, err)
			}
		}
	})
}
