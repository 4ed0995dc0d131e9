package test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"siskin.dev/siskin/test/bed"
)

// besieged is a service of each family, with idle connections whose source is
// rewritten, while strangers send SYNs that the backends answer.
type besieged struct {
	*crowded
	s        *bed.Siskin
	services map[bed.Family]bed.Service
	idle     []*bed.Talk
	halfway  chan struct{} // closed when half of the SYNs are sent
	over     chan struct{} // closed when all are
	group    errgroup.Group
}

const (
	idleConnections = 1000
	floodSYNs       = 2_000_000
)

// besiege opens the idle connections.
func besiege(t *testing.T) *besieged {
	t.Helper()
	b := &besieged{crowded: newCrowded(t), services: map[bed.Family]bed.Service{},
		halfway: make(chan struct{}), over: make(chan struct{})}
	// So there are more source ports than handshakes may be: 16,384.
	b.Host.Sysctl("net.ipv4.ip_local_port_range", "1024 9999")
	b.s = steer(t, b.Bed, b.Host, []string{"up0", b.dev}, "--flows", "65536", "--source-ports", "10000-65535")
	for _, f := range bed.Families() {
		service := plain(b.Routed, f, "besieged-"+f.String(), 10)
		service.SourceNAT = "always"
		b.services[f] = service
		b.s.Apply(service)
	}
	for i := range idleConnections {
		f := bed.Families()[i%2]
		talk, err := b.Client.TalkTo(netip.AddrPortFrom(f.Visitor(i), 0), b.services[f].Frontends[0])
		if err != nil {
			t.Fatalf("open connection %d: %v", i, err)
		}
		t.Cleanup(func() { talk.Close() })
		b.idle = append(b.idle, talk)
	}
	b.checkIdle(t)
	return b
}

// checkIdle exchanges a question and an answer on each idle connection.
func (b *besieged) checkIdle(t *testing.T) {
	t.Helper()
	failed := 0
	var first error
	for i, talk := range b.idle {
		f := bed.Families()[i%2]
		name, err := talk.Ask("who")
		if want := b.services[f].Name + "-stable"; err == nil && name != want {
			err = fmt.Errorf("%s answers, want %s", name, want)
		}
		if err == nil {
			continue
		}
		if failed++; first == nil {
			first = fmt.Errorf("connection %d: %w", i, err)
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d idle connections do not go on: %v", failed, len(b.idle), first)
	}
}

// storm sends the SYNs, from sources and with numbers that are drawn.
func (b *besieged) storm() {
	seeds := map[bed.Family]uint64{}
	for _, f := range bed.Families() {
		seeds[f] = b.Rand.Uint64()
	}
	var sent atomic.Int64
	for i, f := range bed.Families() {
		b.group.Go(func() error {
			return bed.OnProcessor(i, func() error {
				draw := rand.New(rand.NewPCG(seeds[f], 0))
				syn := bed.Forged{Dst: b.services[f].Frontends[0], Flags: bed.SYN}
				for range floodSYNs / 2 {
					syn.Src = netip.AddrPortFrom(f.Stranger(draw.Uint32()), uint16(draw.Uint32()|1024))
					syn.Seq = draw.Uint32()
					if err := b.client[f].Send(&syn); err != nil {
						return err
					}
					if sent.Add(1) == floodSYNs/2 {
						close(b.halfway)
					}
				}
				return nil
			})
		})
	}
	go func() {
		_ = b.group.Wait() // asked again by who waits for it to be over
		close(b.over)
	}()
}

// A visit is what a new client met.
type visit struct {
	took time.Duration
	err  error
}

// synRetry is when a SYN that was lost is sent again.
const synRetry = time.Second

// atOnce tells whether the client's first SYN got through.
func (v visit) atOnce() bool { return v.err == nil && v.took < synRetry }

// visits lets new clients come from several places, one after the other, until
// done is closed.
func (b *besieged) visits(done <-chan struct{}) []visit {
	const places, addresses = 8, 256
	var group sync.WaitGroup
	var mu sync.Mutex
	var all []visit
	for place := range places {
		group.Go(func() {
			f := bed.Families()[place%2]
			pace := time.NewTicker(20 * time.Millisecond) // they are no flood of their own
			defer pace.Stop()
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-pace.C:
				}
				from := f.Visitor(4096 + place*addresses + i%addresses)
				start := time.Now()
				_, err := b.Client.AskTCP(netip.AddrPortFrom(from, 0), b.services[f].Frontends[0])
				mu.Lock()
				all = append(all, visit{time.Since(start), err})
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return all
}

func howMany(all []visit, is func(visit) bool) (n int) {
	for _, v := range all {
		if is(v) {
			n++
		}
	}
	return n
}

// withstand goes through a flood. What is done in its midst happens when half
// of the SYNs are sent.
func (b *besieged) withstand(t *testing.T, midst func()) {
	t.Helper()
	start := time.Now()
	b.storm()
	during := make(chan []visit)
	go func() { during <- b.visits(b.over) }()
	<-b.halfway
	midst()
	<-b.over
	if err := b.group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d SYNs in %v", floodSYNs, time.Since(start))
	time.Sleep(time.Second) // by then it must be over for everybody
	calm := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(calm) })
	after := b.visits(calm)

	seen := <-during
	served := howMany(seen, func(v visit) bool { return v.err == nil })
	t.Logf("of %d new clients in the flood %d were served, %d of them at once", len(seen), served, howMany(seen, visit.atOnce))
	if served == 0 {
		t.Error("no new client was served in the flood")
	}
	if n := howMany(after, visit.atOnce); n < len(after) || n == 0 {
		t.Errorf("a second after the flood %d of %d new clients were served at once", n, len(after))
	}
	b.checkIdle(t)
}

// Strangers send two million SYNs that the backends answer. The connections
// that stand idle meanwhile all go on, though the weights have changed since
// they were opened, so that no other way of finding their backend could save
// them. New clients have to share the quota with the flood, until it is over.
// None of it needs a daemon.
func TestRootFloodOfSYNs(t *testing.T) {
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprintf("daemon dead=%v", dead), func(t *testing.T) {
			b := besiege(t)
			toCanary := func() {
				for _, service := range b.services {
					b.s.Weight(service.Name, "100%")
				}
			}
			if dead {
				toCanary()
				b.s.Kill()
				b.withstand(t, func() {})
				b.s.Start()
			} else {
				b.withstand(t, toCanary)
			}
			b.checkCounts(t)
			for _, f := range bed.Families() {
				askAll(t, b.Client, f, b.services[f].Frontends[0], b.services[f].Name+"-canary")
			}
		})
	}
}

// checkCounts looks for what the flood must and must not have done.
func (b *besieged) checkCounts(t *testing.T) {
	t.Helper()
	m := b.s.Scrape()
	for reason, expected := range map[string]bool{
		"quota": true, "ports_exhausted": false, "table_full": false, "no_backend": false,
	} {
		n, err := m.Sum("siskin_drops_total", "reason", reason)
		if err != nil || expected != (n > 0) {
			t.Errorf("siskin_drops_total{reason=%s} is %.0f (%v)", reason, n, err)
		}
		t.Logf("%.0f packets were dropped by %s", n, reason)
	}
}
