package test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/test/bed"
)

// thinking is how long a client waits at most before it asks again.
const thinking = 300 * time.Millisecond

// A cutScene is a service of which the canary has everything, and clients that
// talk to it all the time.
type cutScene struct {
	s        *bed.Siskin
	r        *bed.Routed
	to       netip.AddrPort
	canary   *bed.Server
	cutoffs  *bpf.Cutoffs
	word     uint32
	regulars []*regular
	oneEnd   bool
	asked    atomic.Int64
	quit     chan struct{}
	group    sync.WaitGroup
	broken   chan *regular
	comers   sync.WaitGroup
	result   api.RollbackResult
}

// A regular is a client that keeps its connection, until that breaks.
type regular struct {
	from     netip.AddrPort
	lastAsk  int64 // when the last request that was answered began
	err      error // what broke the connection
	brokenAt int64
	next     string // who answered on the next one
	nextErr  error
	nextAt   int64
}

func newCutScene(t *testing.T, f bed.Family, way cutWay, policy string) *cutScene {
	t.Helper()
	r := bed.NewRouted(bed.New(t))
	interfaces := []string{"up0"}
	if way.oneEnd {
		interfaces = nil
		r.Router.TakeXDP("host")
	}
	place := placeOf(r, way.place)
	at := f.At(place.Net, place.N)
	c := &cutScene{
		r: r, s: steer(t, r.Bed, r.Host, interfaces, way.args...), to: netip.AddrPortFrom(f.At(bed.VIPs, 10), 80),
		canary: place.Space.ServeTCP(netip.AddrPortFrom(at, 8082), "canary", bed.Answer),
		oneEnd: way.oneEnd, quit: make(chan struct{}), broken: make(chan *regular, way.clients),
	}
	stable := place.Space.ServeTCP(netip.AddrPortFrom(at, 8081), "stable", bed.Answer)
	c.s.Apply(bed.Service{Name: "cut", Proto: "tcp", Frontends: []netip.AddrPort{c.to}, OnRollback: policy,
		Stable: []netip.AddrPort{stable.Addr}, Canary: []netip.AddrPort{c.canary.Addr}, Weight: "100%"})
	t.Cleanup(c.stop)
	talks := make([]*bed.Talk, way.clients)
	for i := range talks {
		from := netip.AddrPortFrom(f.Visitor(i), 0)
		talk, err := c.r.Client.TalkTo(from, c.to)
		if err != nil {
			t.Fatalf("open a connection from %v: %v", from, err)
		}
		talks[i] = talk
		c.regulars = append(c.regulars, &regular{from: from})
	}
	for range 4 {
		c.comers.Add(1)
		go c.comeBack()
	}
	for i, talk := range talks {
		c.converse(talk, c.regulars[i])
	}
	c.s.Await("every client has been answered", func() bool { return c.asked.Load() >= int64(2*way.clients) })
	c.openCutoffs(t)
	return c
}

// converse lets a client ask until its connection breaks.
func (c *cutScene) converse(talk *bed.Talk, who *regular) {
	thought := rand.New(rand.NewPCG(c.r.Rand.Uint64(), 0))
	c.group.Go(func() {
		defer talk.Close()
		if !c.ask(talk, who, thought) {
			return
		}
		who.brokenAt = bpf.Now()
		c.broken <- who
	})
}

// comeBack lets those ask on a new connection whose old one broke. There are few
// who do it, since each has a thread.
func (c *cutScene) comeBack() {
	defer c.comers.Done()
	for who := range c.broken {
		who.next, who.nextErr = c.r.Client.AskTCP(who.from, c.to)
		who.nextAt = bpf.Now()
	}
}

// ask asks until the connection breaks; false: until the end.
func (c *cutScene) ask(talk *bed.Talk, who *regular, thought *rand.Rand) bool {
	for {
		began := bpf.Now()
		name, err := talk.Ask("who")
		if err == nil && name != "canary" {
			err = fmt.Errorf("%s answered", name)
		}
		if who.err = err; err != nil {
			return true
		}
		who.lastAsk = began
		c.asked.Add(1)
		select {
		case <-c.quit:
			return false
		case <-time.After(time.Duration(thought.Int64N(int64(thinking)))): // people read
		}
	}
}

// stop ends the talk.
func (c *cutScene) stop() {
	select {
	case <-c.quit:
	default:
		close(c.quit)
		c.group.Wait()
		close(c.broken)
	}
	c.comers.Wait()
}

// finish waits until every client has lost its connection and made another.
func (c *cutScene) finish(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		c.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(2 * bed.Patience):
		t.Errorf("some clients still talk to the canary %v after the rollback", 2*bed.Patience)
	}
	c.stop()
}

func (c *cutScene) rollBack(t *testing.T, policy string) {
	t.Helper()
	c.s.JSON(&c.result, "rollback", "cut")
	if len(c.result.Services) != 1 || c.result.Services[0].Connections != policy {
		t.Fatalf("the rollback says %+v, want the policy %s", c.result.Services, policy)
	}
}

// openCutoffs finds the pinned cutoffs, and the word that the flows have.
func (c *cutScene) openCutoffs(t *testing.T) {
	t.Helper()
	pinned := func(name string) *ebpf.Map {
		path := filepath.Join(c.s.BPFFS(), fmt.Sprintf("v%d", loader.LayoutVersion), "maps", name)
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	var err error
	if c.cutoffs, err = bpf.NewCutoffs(pinned("cutoffs"), pinned("cutting")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.cutoffs.Close(); err != nil {
			t.Error(err)
		}
	})
	err = bpf.EachFlow(pinned("flows"), func(_ bpf.FlowKey, f bpf.Flow) bool {
		c.word = f.Word
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkBroken holds each client to one request that failed after `from`, by a
// RST, at both ends.
func (c *cutScene) checkBroken(t *testing.T, from int64) {
	t.Helper()
	for _, r := range c.regulars {
		if !errors.Is(r.err, syscall.ECONNRESET) {
			t.Errorf("%v: the connection ended by %v, want a reset", r.from, r.err)
		}
		if r.lastAsk > from {
			t.Errorf("%v: a request was answered that began %v after the cut", r.from, time.Duration(r.lastAsk-from))
		}
		if r.next != "stable" || r.nextErr != nil {
			t.Errorf("%v: %q answered on the next connection, %v, want stable", r.from, r.next, r.nextErr)
		}
	}
	clients := len(c.regulars)
	c.s.Await("no connection of the canary is open", func() bool {
		v := c.s.Version("cut", "canary").Traffic
		return v.Active == 0 && v.Opened == uint64(clients) && v.Errors.Sum() == 0
	})
	if n := special(c.s, "cut_off"); n != float64(clients) {
		t.Errorf("%v connections are counted as cut off, want %d", n, clients)
	}
	if !c.oneEnd {
		c.s.Await("the server has a reset for each", func() bool { return c.canary.Resets.Load() == int64(clients) })
	}
}

// print tells how long it took.
func (c *cutScene) print(t *testing.T, last int64) {
	first := slices.MinFunc(c.regulars, func(a, b *regular) int { return cmp.Compare(a.nextAt, b.nextAt) })
	t.Logf("%d connections, each asks every %v at most: decision to the store %.0f µs, to the first answer of stable on a new connection %.1f ms, to the end of the last canary flow %.1f ms",
		len(c.regulars), thinking, c.result.TookMicros, float64(first.nextAt-c.result.RequestedNs)/1e6, float64(last-c.result.RequestedNs)/1e6)
}
