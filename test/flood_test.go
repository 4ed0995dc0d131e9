package test

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// crowded is a network in which strangers come to the host by a link of their
// own, and a backend that is played by the test.
type crowded struct {
	*bed.Routed
	client map[bed.Family]*bed.Raw // what strangers send
	server map[bed.Family]*bed.Raw // what the played backend sends
	dev    string                  // where strangers come in
}

const playedHost = 77 // of the nearby network; no kernel has this address

func newCrowded(t *testing.T) *crowded {
	t.Helper()
	c := &crowded{bed.NewRouted(bed.New(t)), map[bed.Family]*bed.Raw{}, map[bed.Family]*bed.Raw{}, "crowd"}
	crowd, host := c.Crowd()
	near, gate := bed.End{Space: c.Near, Dev: "eth0"}, bed.End{Space: c.Host, Dev: "near"}
	for _, f := range bed.Families() {
		c.client[f], c.server[f] = c.Raw(crowd, host), c.Raw(near, gate)
		c.Host.Sink("near", f.At(bed.Nearby, playedHost))
		c.Host.Sink(host.Dev, f.At(bed.Crowd, 2))
	}
	return c
}

// stranger is the i-th client of the crowd.
func stranger(f bed.Family, i int) netip.AddrPort {
	return netip.AddrPortFrom(f.Stranger(uint32(i&0xffff)), uint16(1024+i>>16))
}

const clientISN, serverISN = 1000, 2_000_000_000

// shake takes connections of strangers through their handshakes, some at a
// time. Both sides know what the other will say, so neither has to listen.
func (c *crowded) shake(f bed.Family, connections int, vip, backend netip.AddrPort) error {
	const atOnce = 64
	for first := 0; first < connections; first += atOnce {
		last := min(first+atOnce, connections)
		for step := range 3 {
			for i := first; i < last; i++ {
				s, by := bed.Forged{Src: stranger(f, i), Dst: vip, Flags: bed.SYN, Seq: clientISN}, c.client[f]
				switch step {
				case 1:
					s, by = bed.Forged{Src: backend, Dst: s.Src, Flags: bed.SYN | bed.ACK,
						Seq: serverISN, Ack: clientISN + 1}, c.server[f]
				case 2:
					s.Flags, s.Seq, s.Ack = bed.ACK, clientISN+1, serverISN+1
				}
				if err := by.Send(&s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// A million connections are open at a time. All are counted, the commands
// that show them answer, and each of them still leads to its backend.
func TestRootFloodOfConnections(t *testing.T) {
	const connections = 1_000_000
	c := newCrowded(t)
	s := steer(t, c.Bed, c.Host, []string{"up0", c.dev}, "--flows", "1050000")
	small := plain(c.Routed, bed.V4, "small", 9)
	services := []bed.Service{small}
	for _, f := range bed.Families() {
		services = append(services, bed.Service{
			Name: "many-" + f.String(), Proto: "tcp",
			Frontends: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)},
			Stable:    []netip.AddrPort{netip.AddrPortFrom(f.At(bed.Nearby, playedHost), 8080)},
		})
	}
	s.Apply(services...)
	start := time.Now()
	var group errgroup.Group
	for i, f := range bed.Families() {
		group.Go(func() error {
			return bed.OnProcessor(i, func() error {
				return c.shake(f, connections/2, services[i+1].Frontends[0], services[i+1].Stable[0])
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d connections in %v", connections, time.Since(start))
	refused := checkHeld(t, s, connections)
	time.Sleep(3 * time.Second) // the hand goes all the way round: in 2.6 s
	checkHeld(t, s, connections)
	unanswered := 0
	for i, f := range bed.Families() {
		unanswered += c.checkUsable(t, f, connections/2, services[i+1].Frontends[0], services[i+1].Stable[0])
	}
	if unanswered > refused {
		t.Errorf("%d connections are of no use, %d were refused", unanswered, refused)
	}
	askAll(t, c.Client, bed.V4, small.Frontends[0], "small-stable")
}

// checkHeld compares what is counted with what was opened. It returns how many
// were refused: a bucket of the table may be full before the table is, once in
// a million or so.
func checkHeld(t *testing.T, s *bed.Siskin, connections int) (refused int) {
	t.Helper()
	m := s.Scrape()
	n, err := m.Sum("siskin_drops_total", "reason", "table_full")
	refused = int(n)
	if err != nil || refused > 10 {
		t.Errorf("%d connections were refused (%v)", refused, err)
	}
	held := connections - refused
	for _, name := range []string{"siskin_flow_table_entries", "siskin_connections_active"} {
		if n, err := m.Sum(name); err != nil || int(n) != held {
			t.Errorf("%s is %.0f (%v), want %d", name, n, err, held)
		}
	}
	var list api.FlowList
	start := time.Now()
	s.JSON(&list, "get", "flows", "--state", "established", "--limit", "10")
	t.Logf("get flows took %v", time.Since(start))
	if list.Matched != uint64(held) || len(list.Flows) != 10 {
		t.Errorf("get flows shows %d of %d connections, want 10 of %d", len(list.Flows), list.Matched, held)
	}
	return refused
}

// checkUsable sends a byte each way on some of the connections, and returns how
// many of these bytes did not arrive, at most.
func (c *crowded) checkUsable(t *testing.T, f bed.Family, connections int, vip, backend netip.AddrPort) (lost int) {
	t.Helper()
	const step = 997 // of all, so that it is no power of two
	inside, outside := c.Near.Tap("eth0"), c.Namespace("crowd").Tap("eth0")
	sent := 0
	for i := 0; i < connections; i += step {
		client := stranger(f, i)
		question := bed.Forged{Src: client, Dst: vip, Flags: bed.ACK, Seq: clientISN + 1, Ack: serverISN + 1, Payload: []byte("?")}
		answer := bed.Forged{Src: backend, Dst: client, Flags: bed.ACK, Seq: serverISN + 1, Ack: clientISN + 2, Payload: []byte("!")}
		if err := c.client[f].Send(&question); err != nil {
			t.Fatal(err)
		}
		if err := c.server[f].Send(&answer); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	for _, side := range []struct {
		what string
		tap  *bed.Tap
		from func(p bed.Packet) bool
	}{
		{"questions reached the backend", inside, func(p bed.Packet) bool { return p.Dst == backend }},
		{"answers came from the frontend", outside, func(p bed.Packet) bool { return p.Src == vip }},
	} {
		packets, err := side.tap.Stop()
		if err != nil {
			t.Error(err)
		}
		arrived := 0
		for _, p := range packets {
			if !p.Out && p.Payload == 1 && side.from(p) {
				arrived++
			}
		}
		if arrived != sent {
			t.Logf("%v: %d of %d %s", f, arrived, sent, side.what)
		}
		lost = max(lost, sent-arrived)
	}
	return lost
}
