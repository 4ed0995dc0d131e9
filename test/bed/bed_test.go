package bed

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// Without siskin every place must be reached directly, or a failure of a
// steered connection says nothing.
func TestRootRoutedReachesEveryPlace(t *testing.T) {
	r := NewRouted(New(t))
	for _, f := range Families() {
		for _, p := range r.Places() {
			t.Run(fmt.Sprintf("%v/%s", f, p.Name), func(t *testing.T) {
				addr := netip.AddrPortFrom(f.At(p.Net, p.N), 8080)
				p.Space.ServeTCP(addr, "tcp-"+p.Name, Answer)
				p.Space.ServeUDP(addr, "udp-"+p.Name)
				// The router leads these straight to remote and far, so ask
				// from the host as well.
				for _, from := range []*Namespace{r.Host, r.Client} {
					if from == r.Client && p.Name == "far" {
						continue // only the host knows the way
					}
					name, err := from.AskTCP(netip.AddrPort{}, addr)
					if err != nil || name != "tcp-"+p.Name {
						t.Errorf("%s asks by TCP: %q, %v", from.Role, name, err)
					}
					name, err = from.AskUDP(netip.AddrPort{}, addr, 4000)
					if want := string(Filled("udp-"+p.Name, 4000)); err != nil || name != want {
						t.Errorf("%s asks by UDP: %d bytes, %v", from.Role, len(name), err)
					}
				}
			})
		}
	}
}

func TestRootBridgedReachesEachOther(t *testing.T) {
	r := NewBridged(New(t))
	for _, f := range Families() {
		for i, n := range []*Namespace{r.Stable, r.Canary} {
			addr := netip.AddrPortFrom(f.At(Segment, 3+i), 8080)
			n.ServeTCP(addr, n.Role, Answer)
			if name, err := r.Client.AskTCP(netip.AddrPort{}, addr); err != nil || name != n.Role {
				t.Errorf("%v %s: %q, %v", f, n.Role, name, err)
			}
		}
	}
}

// The firewall must let through what Docker's lets through, and rewrite what
// Docker's rewrites.
func TestRootFirewall(t *testing.T) {
	r := NewRouted(New(t))
	r.Host.Firewall("up0")
	for _, f := range Families() {
		near := netip.AddrPortFrom(f.At(Nearby, 2), 8080)
		r.Near.ServeTCP(near, "near", Answer)
		if name, err := r.Client.AskTCP(netip.AddrPort{}, near); err != nil || name != "near" {
			t.Errorf("%v: accepted connection: %q, %v", f, name, err)
		}
		away := netip.AddrPortFrom(f.At(Clients, 2), 9090)
		r.Client.ServeTCP(away, "client", Answer)
		talk, err := r.Near.TalkTo(netip.AddrPort{}, away)
		if err != nil {
			t.Fatalf("%v: outgoing connection: %v", f, err)
		}
		peer, err := talk.Ask("peer")
		if err != nil {
			t.Fatal(err)
		}
		if got := netip.MustParseAddrPort(peer).Addr(); got != f.At(Uplink, 2) {
			t.Errorf("%v: the client sees %v, want the host's address %v", f, got, f.At(Uplink, 2))
		}
		talk.Close()
	}
}

func TestRootSweep(t *testing.T) {
	r := NewRouted(New(t))
	for _, f := range Families() {
		to := netip.AddrPortFrom(f.At(Nearby, 2), 8080)
		s := r.Near.ServeTCP(to, "near", Greet)
		var attempts []Attempt
		for i := range 4000 {
			from := netip.AddrPortFrom(f.Visitor(i), 2000)
			attempts = append(attempts, Attempt{from, to})
		}
		start := time.Now()
		names, err := r.Client.Sweep(attempts, 16)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %.0f connections/s", f, float64(len(attempts))/time.Since(start).Seconds())
		for i, name := range names {
			if name != "near" {
				t.Fatalf("attempt %d: %q", i, name)
			}
		}
		if got := s.Accepted.Load(); got != int64(len(attempts)) {
			t.Errorf("%v: %d accepted, %d made", f, got, len(attempts))
		}
	}
}

// A wire must take its time, and a tap must see each segment with it.
func TestRootWireAndTap(t *testing.T) {
	b := New(t)
	near, far := b.Namespace("near"), b.Namespace("far")
	on := func(n int) []string { return both(func(f Family) string { return f.On(Wired, n) }) }
	w := b.ConnectSlowly(End{near, "wire", on(1)}, End{far, "wire", on(2)})
	const delay = 20 * time.Millisecond
	w.SetDelay(delay)
	// The kernel begins to stamp packets a moment after the first socket asks
	// for it; until then the stamp is the time of reading.
	near.Tap("lo")
	for _, f := range Families() {
		to := netip.AddrPortFrom(f.At(Wired, 2), 8080)
		far.ServeTCP(to, "far", Answer)
		if _, err := near.AskTCP(netip.AddrPort{}, to); err != nil {
			t.Fatal(err)
		}
		tap := near.Tap("wire")
		if name, err := near.AskTCP(netip.AddrPort{}, to); err != nil || name != "far" {
			t.Fatalf("%v: %q, %v", f, name, err)
		}
		packets, err := tap.Stop()
		if err != nil {
			t.Fatal(err)
		}
		var sent, answered time.Time
		payload := 0
		for _, p := range packets {
			switch {
			case p.Out && p.Dst == to && p.Flags == SYN:
				sent = p.At
			case !p.Out && p.Src == to && p.Flags == SYN|ACK:
				answered = p.At
			}
			payload += p.Payload
		}
		if took := answered.Sub(sent); sent.IsZero() || took < 2*delay {
			t.Errorf("%v: the handshake took %v, want at least %v", f, took, 2*delay)
		}
		if want := len("who\nfar\n"); payload != want {
			t.Errorf("%v: %d bytes of payload, want %d", f, payload, want)
		}
	}
}
