package test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/test/bed"
)

// narrow is a link's MTU, and big a datagram for which it is too small.
const (
	narrow = 1300
	big    = 1350
	hops   = 64 // a time to live that reaches everything
)

// A farther is a backend with so many routers between it and the host, and the
// links that lead to it.
type farther struct {
	name      string
	space     *bed.Namespace
	net       bed.Network
	n         int
	sourceNAT string
	sees      bed.Network // whose address the backend sees; Clients: the client's own
	seesN     int
	routers   int
	links     []link // towards the backend, the host's first
	oneWay    bool   // the first of them is where the client's packets come in, too
}

type link struct {
	space *bed.Namespace
	dev   string
}

func farthers(r *bed.Routed) []farther {
	near, far, gate := link{r.Host, "near"}, link{r.Host, "side0"}, link{r.Gate, "far"}
	return []farther{
		{"host", r.Host, bed.OwnAddrs, 1, "", bed.Clients, 2, 0, nil, false},
		{"near", r.Near, bed.Nearby, 2, "", bed.Clients, 2, 0, []link{near}, false},
		{"near-always", r.Near, bed.Nearby, 2, "always", bed.Nearby, 1, 0, []link{near}, false},
		{"remote", r.Remote, bed.Remotes, 2, "", bed.Uplink, 2, 1, []link{{r.Host, "up0"}, {r.Router, "remote"}}, true},
		{"far", r.Far, bed.Beyond, 2, "", bed.Side, 1, 1, []link{far, gate}, false},
		{"far-never", r.Far, bed.Beyond, 2, "never", bed.Clients, 2, 1, []link{far, gate}, false},
	}
}

// masqueraded: netfilter rewrites the source of what is forwarded, whatever
// siskin would do.
func (b *farther) masqueraded() {
	switch b.name {
	case "near":
		b.sees, b.seesN = bed.Nearby, 1
	case "far-never":
		b.sees, b.seesN = bed.Side, 1
	}
}

// complaints runs a test for every backend, each with a frontend of its own, on
// hosts that send everything through the stack, and past it what they can.
func complaints(t *testing.T, f func(t *testing.T, c *complaining)) {
	for _, c := range []struct {
		name, redirect string
		masquerade     bool
	}{{"stack", "never", false}, {"past the stack", "auto", false}, {"masquerade", "never", true}} {
		for _, family := range bed.Families() {
			t.Run(fmt.Sprintf("%s/%v", c.name, family), func(t *testing.T) {
				r := bed.NewRouted(bed.New(t))
				for _, n := range []*bed.Namespace{r.Client, r.Router, r.Host, r.Near, r.Remote, r.Gate, r.Far} {
					n.Sysctl("net.ipv4.icmp_ratelimit", "0")
					n.Sysctl("net.ipv6.icmp.ratelimit", "0")
				}
				// What comes from elsewhere than the way back leads to is a martian.
				for _, dir := range []string{"all", "default", "eth0", "eth1"} {
					r.Far.Sysctl("net.ipv4.conf."+dir+".rp_filter", "1")
				}
				// Past the stack nothing is invalid, and through it nothing may be.
				r.Host.DropInvalid()
				if c.masquerade {
					r.Host.Masquerade()
				}
				s := steer(t, r.Bed, r.Host, []string{"up0"}, "--redirect", c.redirect)
				for i, b := range farthers(r) {
					if c.masquerade {
						b.masqueraded()
					}
					t.Run(b.name, func(t *testing.T) {
						f(t, newComplaining(r, s, family, i, b, c.redirect == "auto"))
					})
				}
			})
		}
	}
}

type complaining struct {
	farther
	r                         *bed.Routed
	family                    bed.Family
	client, frontend, backend netip.AddrPort
	redirect                  bool
}

func newComplaining(r *bed.Routed, s *bed.Siskin, family bed.Family, i int, b farther, redirect bool) *complaining {
	if b.sourceNAT == "never" {
		r.Far.Route(family.Everywhere(), family.At(bed.Beyond, 1).String())
	}
	c := &complaining{
		farther: b, r: r, family: family, redirect: redirect,
		client:   netip.AddrPortFrom(family.At(bed.Clients, 2), 0),
		frontend: netip.AddrPortFrom(family.At(bed.VIPs, 10+i), 80),
		backend:  netip.AddrPortFrom(family.At(b.net, b.n), uint16(8081+i)),
	}
	s.Apply(bed.Service{Name: b.name, Proto: "udp", SourceNAT: b.sourceNAT,
		Frontends: []netip.AddrPort{c.frontend}, Stable: []netip.AddrPort{c.backend}})
	return c
}

// hears sends a datagram and fails the test unless the complaint about it
// comes, as it would if the receiver were what the sender thinks.
func (c *complaining) hears(t *testing.T, what string, p *bed.Probe, to netip.AddrPort, ttl, size int, want bed.Complaint) {
	t.Helper()
	want.About = to
	if err := p.Send(to, ttl, size); err != nil {
		t.Errorf("%s: send: %v", what, err)
		return
	}
	if got, err := p.Complaint(bed.Patience); err != nil || got != want {
		t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
	}
}

// hearsTooBig makes a link narrow for a while. Past the stack the ways are asked
// for once a second, so it may take that long until one is known as narrow.
func (c *complaining) hearsTooBig(t *testing.T, l link, p *bed.Probe, to netip.AddrPort, by netip.Addr) {
	t.Helper()
	want := bed.Complaint{Err: unix.EMSGSIZE, By: by, About: to, MTU: narrow}
	l.space.MTU(l.dev, narrow)
	defer l.space.MTU(l.dev, 1500)
	var got bed.Complaint
	var err error
	for end := time.Now().Add(bed.Patience); got != want && time.Now().Before(end); {
		if err = p.Send(to, hops, big); err != nil {
			break
		}
		got, err = p.Complaint(500 * time.Millisecond)
	}
	if got != want {
		t.Errorf("too big for %s of the %s: %+v, %v, want %+v", l.dev, l.space.Role, got, err, want)
	}
}

// Whatever a client's datagram dies of on its way to a backend, its sender is
// told by an error of the frontend's about a datagram to the frontend.
func TestRootComplaintsToTheClient(t *testing.T) {
	complaints(t, func(t *testing.T, c *complaining) {
		p := c.r.Client.Probe(c.client)
		by := c.frontend.Addr()
		c.hears(t, "nobody listens", p, c.frontend, hops, 10, bed.Complaint{Err: unix.ECONNREFUSED, By: by})
		for i := range c.links {
			// One more router is on the way to each of the links, and before all
			// of them the one of the clients.
			c.hears(t, fmt.Sprintf("time exceeded at router %d", i), p, c.frontend, 2+i, 10,
				bed.Complaint{Err: unix.EHOSTUNREACH, By: by})
		}
		for i, l := range c.links {
			if c.oneWay && i == 0 {
				continue // a veth takes in no more than it lets out
			}
			if c.redirect && l.space == c.r.Host {
				continue // it goes right through the pair, which has no MTU then
			}
			c.hearsTooBig(t, l, p, c.frontend, by)
		}
	})
}

// The same for a backend's answers: the errors are about a datagram to what
// the backend takes for the client.
func TestRootComplaintsToTheBackend(t *testing.T) {
	complaints(t, func(t *testing.T, c *complaining) {
		server := c.space.Probe(c.backend)
		p := c.r.Client.Probe(c.client)
		if err := p.Send(c.frontend, hops, 10); err != nil {
			t.Fatal(err)
		}
		peer, err := server.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if want := c.family.At(c.sees, c.seesN); peer.Addr() != want {
			t.Fatalf("the backend sees %v, want %v", peer, want)
		}
		// Where the client is hidden nothing but the host shows; else the
		// errors come from whoever made them.
		by := func(n bed.Network, i int) netip.Addr {
			if c.sees != bed.Clients {
				return peer.Addr()
			}
			return c.family.At(n, i)
		}
		c.fromRouters(t, server, peer, by)
		p.Close()
		c.hears(t, "the client is gone", server, peer, hops, 10, bed.Complaint{Err: unix.ECONNREFUSED, By: by(bed.Clients, 2)})
	})
}

// fromRouters lets the host and the client's router complain.
func (c *complaining) fromRouters(t *testing.T, server *bed.Probe, peer netip.AddrPort, by func(bed.Network, int) netip.Addr) {
	t.Helper()
	uplink := by(bed.Uplink, 1)
	if c.space != c.r.Host {
		// The host's own errors come from its address on the backend's side.
		host := by(map[string]bed.Network{"near": bed.Nearby, "far-never": bed.Side}[c.name], 1)
		c.hears(t, "time exceeded at the host", server, peer, 1+c.routers, 10, bed.Complaint{Err: unix.EHOSTUNREACH, By: host})
		if !c.oneWay {
			c.hearsTooBig(t, link{c.r.Host, "up0"}, server, peer, host)
		}
	}
	routers := c.routers + 1
	if c.space == c.r.Host {
		routers = 0
	}
	c.hears(t, "time exceeded at the client's router", server, peer, 1+routers, 10, bed.Complaint{Err: unix.EHOSTUNREACH, By: uplink})
	c.hearsTooBig(t, link{c.r.Router, "clients"}, server, peer, uplink)
}
