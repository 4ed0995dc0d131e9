package test

import (
	"fmt"
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// steered is one row of the case table: a service and who serves it.
type steered struct {
	service  bed.Service
	family   bed.Family
	place    bed.Place
	frontend netip.AddrPort
	// masqueraded: netfilter rewrites sources, whatever siskin does.
	masqueraded bool
}

// caseTable makes a service for every family, protocol and place of backends,
// and starts its servers: "stable" and "canary", on two ports of one address.
func caseTable(r *bed.Routed) []steered {
	var rows []steered
	for _, f := range bed.Families() {
		for _, place := range r.Places() {
			at := f.At(place.Net, place.N)
			stable, canary := netip.AddrPortFrom(at, 8081), netip.AddrPortFrom(at, 8082)
			place.Space.ServeTCP(stable, "stable", bed.Answer)
			place.Space.ServeTCP(canary, "canary", bed.Answer)
			place.Space.ServeUDP(stable, "stable")
			place.Space.ServeUDP(canary, "canary")
			for _, proto := range []string{"tcp", "udp"} {
				frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+len(rows)), 80)
				rows = append(rows, steered{
					service: bed.Service{
						Name:  fmt.Sprintf("%s-%v-%s", proto, f, place.Name),
						Proto: proto, Frontends: []netip.AddrPort{frontend},
						Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary},
					},
					family: f, place: place, frontend: frontend,
				})
			}
		}
	}
	return rows
}

// ask asks once from an address; the client takes a new port each time.
func (c steered) ask(from *bed.Namespace, client netip.Addr, size int) (string, error) {
	source := netip.AddrPortFrom(client, 0)
	if c.service.Proto == "udp" {
		return from.AskUDP(source, c.frontend, size)
	}
	return from.AskTCP(source, c.frontend)
}

// answers asks from several addresses and counts who answered.
func (c steered) answers(t *testing.T, from *bed.Namespace, clients int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for i := range clients {
		name, err := c.ask(from, c.family.Visitor(i), 0)
		if err != nil {
			t.Fatalf("client %v: %v", c.family.Visitor(i), err)
		}
		got[name]++
	}
	return got
}

func servicesOf(rows []steered) []bed.Service {
	services := make([]bed.Service, len(rows))
	for i, c := range rows {
		services[i] = c.service
	}
	return services
}

const clientsPerCase = 20

// check goes through the shares nothing, everything, half and nothing again.
func (c steered) check(t *testing.T, r *bed.Routed, s *bed.Siskin) {
	want := func(share, name string, got map[string]int) {
		t.Helper()
		if got[name] != clientsPerCase {
			t.Errorf("canary at %s: answers %v, want only %s", share, got, name)
		}
	}
	want("0", "stable", c.answers(t, r.Client, clientsPerCase))
	s.Weight(c.service.Name, "100%")
	want("100%", "canary", c.answers(t, r.Client, clientsPerCase))
	s.Weight(c.service.Name, "50%")
	// All on one side has a chance of 2 in a million; the addresses and the
	// hash are the same in every run.
	if got := c.answers(t, r.Client, clientsPerCase); got["stable"] == 0 || got["canary"] == 0 {
		t.Errorf("canary at 50%%: answers %v, want both", got)
	}
	s.Weight(c.service.Name, "0")
	want("0", "stable", c.answers(t, r.Client, clientsPerCase))

	if c.service.Proto == "udp" {
		c.checkFragments(t, r)
	} else {
		c.checkSource(t, r)
	}
}

// checkFragments asks for an answer that does not fit into one packet.
func (c steered) checkFragments(t *testing.T, r *bed.Routed) {
	for i := range 3 {
		got, err := c.ask(r.Client, c.family.Visitor(i), 4000)
		if want := string(bed.Filled("stable", 4000)); err != nil || got != want {
			t.Errorf("an answer of 4000 bytes: %d bytes, %v", len(got), err)
		}
	}
}

// checkSource looks at the client's address as the backend sees it: `auto`
// keeps it for backends on this host and must rewrite it for all others.
func (c steered) checkSource(t *testing.T, r *bed.Routed) {
	client := c.family.Visitor(1)
	want := map[string]netip.Addr{
		"host": client, "near": client,
		"remote": c.family.At(bed.Uplink, 2), "far": c.family.At(bed.Side, 1),
	}[c.place.Name]
	if c.masqueraded && c.place.Name == "near" {
		want = c.family.At(bed.Nearby, 1)
	}
	if got := peerSeen(t, r.Client, client, c.frontend); got.Addr() != want {
		t.Errorf("the backend sees %v, want %v", got.Addr(), want)
	}
}

// peerSeen is the client of a connection as its backend sees it.
func peerSeen(t *testing.T, from *bed.Namespace, client netip.Addr, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	talk, err := from.TalkTo(netip.AddrPortFrom(client, 0), to)
	if err != nil {
		t.Fatal(err)
	}
	defer talk.Close()
	peer, err := talk.Ask("peer")
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(peer)
}

func TestRootCases(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		sums bool     // whole checksums, as real links carry them
		xdp  bool     // the uplink's other end takes what XDP sends
		tc   []string // interfaces with hooks of tc
	}{
		{"tcx", nil, false, false, []string{"up0"}},
		{"clsact", []string{"--clsact"}, false, false, []string{"up0"}},
		{"sums", nil, true, false, []string{"up0"}},
		{"stack", []string{"--redirect", "never"}, false, false, []string{"up0"}},
		{"XDP", []string{"--xdp", "up0"}, true, true, nil},
		{"XDP on both sides", []string{"--xdp", "up0,side0"}, true, true, nil},
		{"XDP, all by the stack", []string{"--xdp", "up0", "--redirect", "never"}, true, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			if c.sums {
				r.FullSums()
			}
			if c.xdp {
				r.Router.TakeXDP("host")
				r.Gate.TakeXDP("host")
			}
			rows := caseTable(r)
			s := steer(t, r.Bed, r.Host, c.tc, c.args...)
			s.Apply(servicesOf(rows)...)
			for _, row := range rows {
				t.Run(row.service.Name, func(t *testing.T) { row.check(t, r, s) })
			}
		})
	}
}

// A host as Docker leaves it drops what conntrack calls invalid, so all of a
// connection has to look right to it. Where it also masquerades all it
// forwards, netfilter rewrites sources before siskin can.
func TestRootFirewalledHost(t *testing.T) {
	for _, h := range []struct {
		masquerade bool
		redirect   string
	}{{false, "auto"}, {true, "auto"}, {true, "never"}} {
		t.Run(fmt.Sprintf("masquerade=%v,redirect=%s", h.masquerade, h.redirect), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			r.Host.Firewall("up0")
			if h.masquerade {
				r.Host.Masquerade()
			}
			rows := caseTable(r)
			s := steer(t, r.Bed, r.Host, []string{"up0"}, "--redirect", h.redirect)
			s.Apply(servicesOf(rows)...)
			for _, c := range rows {
				t.Run(c.service.Name, func(t *testing.T) {
					// Past the stack netfilter rewrites nothing.
					c.masqueraded = h.masquerade && h.redirect == "never"
					c.check(t, r, s)
				})
			}
		})
	}
}
