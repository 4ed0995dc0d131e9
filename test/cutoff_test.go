package test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/test/bed"
)

// A cutWay is a way that connections take when they are cut off.
type cutWay struct {
	name    string
	place   string // where the backends are
	args    []string
	clients int
	oneEnd  bool // XDP: a server is told when it speaks
}

func cutWays() []cutWay {
	byXDP := []string{"--xdp", "up0"}
	return []cutWay{
		{"past the stack", "near", nil, 1000, false},
		{"by the stack", "near", []string{"--redirect", "never"}, 200, false},
		{"on the host", "host", nil, 200, false},
		{"remote, as the host", "remote", nil, 200, false},
		{"remote, as the host, by the stack", "remote", []string{"--redirect", "never"}, 200, false},
		{"XDP", "near", byXDP, 200, true},
		{"XDP, by the stack", "near", append(byXDP, "--redirect", "never"), 200, true},
	}
}

// Clients on keep-alive would stay with a bad canary for as long as they like.
// Where the service says reset, a rollback ends each of their connections by its
// next request, and the next connection is stable's.
func TestRootResetAtRollback(t *testing.T) {
	for _, f := range bed.Families() {
		for _, way := range cutWays() {
			t.Run(f.String()+"/"+way.name, func(t *testing.T) {
				c := newCutScene(t, f, way, "reset")
				c.rollBack(t, "reset")
				c.finish(t)
				cutoff := c.cutoffs.Load(c.word)
				c.checkBroken(t, int64(cutoff.OpenedNs))
				if cutoff.Resets != uint64(way.clients) {
					t.Errorf("%d connections are counted as reset, want %d", cutoff.Resets, way.clients)
				}
				c.print(t, int64(cutoff.LastNs))
				c.s.Await("the cutoff is over", func() bool { return len(c.cutoffs.InForce()) == 0 })
			})
		}
	}
}

// Checksums that nobody mends on the way must be right by themselves, and those
// that are left to the hardware must be such that it can.
func TestRootResetChecksums(t *testing.T) {
	t.Parallel()
	for _, f := range bed.Families() {
		for _, last := range []bool{false, true} {
			for _, args := range [][]string{nil, {"--redirect", "never"}} {
				t.Run(fmt.Sprintf("%v/last hop only %v/%v", f, last, args), func(t *testing.T) {
					c := newCutScene(t, f, cutWay{place: "near", args: args, clients: 20}, "reset")
					if last {
						c.r.Router.Run("", "ethtool", "-K", "clients", "tx", "off")
						c.r.Host.Run("", "ethtool", "-K", "near", "tx", "off")
					} else {
						c.r.FullSums()
					}
					c.rollBack(t, "reset")
					c.finish(t)
					c.checkBroken(t, int64(c.cutoffs.Load(c.word).OpenedNs))
				})
			}
		}
	}
}

// A connection whose server speaks is cut by what the server says, both ends at
// once.
func TestRootResetByTheServersWord(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		at := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081)
		speak := make(chan struct{})
		server := r.Near.ServeTCP(at, "canary", func(_ *bed.Server, c net.Conn) error {
			<-speak
			if _, err := c.Write([]byte("late\n")); err != nil {
				return err
			}
			_, err := c.Read(make([]byte, 1))
			return err
		})
		to := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		s.Apply(bed.Service{Name: "cut", Proto: "tcp", Frontends: []netip.AddrPort{to}, OnRollback: "reset",
			Stable: []netip.AddrPort{at}, Canary: []netip.AddrPort{at}, Weight: "100%"})
		talk, err := r.Client.TalkTo(netip.AddrPortFrom(f.Visitor(1), 0), to)
		if err != nil {
			t.Fatal(err)
		}
		defer talk.Close()
		s.Await("the connection is there", func() bool { return server.Accepted.Load() == 1 })
		s.Must("rollback", "cut")
		close(speak)
		if err := talk.SetDeadline(time.Now().Add(bed.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := talk.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want a reset", err)
		}
		s.Await("the server has a reset", func() bool { return server.Resets.Load() == 1 })
	})
}

// With a deadline, what is open goes on until then. How long a service's own is
// nobody wants to wait for, so another one is put in its place.
func TestRootDrainAtRollback(t *testing.T) {
	const deadline = 700 * time.Millisecond
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			c := newCutScene(t, f, cutWay{place: "near", clients: 100}, "drain")
			c.rollBack(t, "drain")
			cutoff := c.cutoffs.Load(c.word)
			if got := time.Duration(cutoff.FromNs - cutoff.OpenedNs); got != 30*time.Second {
				t.Errorf("connections are cut off after %v, want 30s", got)
			}
			from := c.cutoffs.Begin(c.word, bpf.NonStable, deadline) + int64(deadline)
			c.finish(t)
			for _, r := range c.regulars {
				if r.brokenAt < from {
					t.Errorf("%v was cut %v before the deadline", r.from, time.Duration(from-r.brokenAt))
				}
			}
			c.checkBroken(t, from)
		})
	}
}

// Where a service says nothing, everything stays.
func TestRootKeepAtRollback(t *testing.T) {
	c := newCutScene(t, bed.V4, cutWay{place: "near", clients: 20}, "")
	c.rollBack(t, "keep")
	asked := c.asked.Load()
	c.s.Await("the clients go on", func() bool { return c.asked.Load() > asked+100 })
	c.stop()
	for _, r := range c.regulars {
		if r.err != nil {
			t.Errorf("%v was broken: %v", r.from, r.err)
		}
	}
	if words := c.cutoffs.InForce(); len(words) > 0 {
		t.Errorf("cutoffs of the words %v are in force", words)
	}
}

// Datagrams of one client go to stable from the rollback on, whatever was said
// before.
func TestRootResteerAtRollback(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		at := f.At(bed.Nearby, 2)
		stable, canary := netip.AddrPortFrom(at, 8081), netip.AddrPortFrom(at, 8082)
		r.Near.ServeUDP(stable, "stable")
		r.Near.ServeUDP(canary, "canary")
		to := netip.AddrPortFrom(f.At(bed.VIPs, 10), 53)
		s.Apply(bed.Service{Name: "cut", Proto: "udp", Frontends: []netip.AddrPort{to}, OnRollback: "reset",
			Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary}, Weight: "100%"})
		for _, want := range []string{"canary", "canary", "stable", "stable"} {
			if want == "stable" {
				s.Must("rollback", "cut")
			}
			for port := range uint16(10) {
				from := netip.AddrPortFrom(f.At(bed.Clients, 2), 3000+port)
				if got, err := r.Client.AskUDP(from, to, 0); err != nil || got != want {
					t.Errorf("from port %d: %q, %v, want %s", from.Port(), got, err, want)
				}
			}
		}
		if n := special(s, "resteered"); n != 10 {
			t.Errorf("%v flows are counted as given to another backend, want 10", n)
		}
	})
}

// special reads a counter of siskin_special_cases_total.
func special(s *bed.Siskin, kind string) (n float64) {
	for _, m := range s.Scrape().Find("siskin_special_cases_total", "kind", kind) {
		n += m.GetCounter().GetValue()
	}
	return n
}
