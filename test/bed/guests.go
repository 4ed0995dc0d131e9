package bed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"

	"siskin.dev/siskin/bpf"
)

// Guests are clients of a web server. Each opens one connection, asks a few
// times over it, and goes; the next one is somebody else.
type Guests struct {
	to       netip.AddrPort
	requests int
	think    time.Duration
	patient  bool // it goes on after an answer of 500
	family   Family
	next     atomic.Int64
	answers  atomic.Int64
	stop     chan struct{}
	group    sync.WaitGroup

	mu     sync.Mutex
	visits []Visit
}

// A Visit is what one guest met.
type Visit struct {
	From         netip.AddrPort
	By           string // who answered; "": nobody
	Answers      int
	Failures     int   // answers of 500, of a guest who goes on
	Began, Ended int64 // on the clock of bpf.Now
	Err          error
}

// Guests lets clients come, so many at a time. Each thinks before it asks.
func (n *Namespace) Guests(atATime, requests int, think time.Duration, to netip.AddrPort) *Guests {
	n.tb.Helper()
	return n.guests(atATime, &Guests{to: to, requests: requests, think: think})
}

// Regulars are guests who stay, whatever they are answered, until their
// connection ends.
func (n *Namespace) Regulars(atATime int, think time.Duration, to netip.AddrPort) *Guests {
	n.tb.Helper()
	return n.guests(atATime, &Guests{to: to, requests: math.MaxInt, think: think, patient: true})
}

func (n *Namespace) guests(atATime int, g *Guests) *Guests {
	n.tb.Helper()
	g.family, g.stop = familyOf(g.to.Addr()), make(chan struct{})
	for range atATime {
		g.group.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends in the namespace
			if err := netns.Set(n.handle); err != nil {
				g.add(Visit{Err: err})
				return
			}
			for !g.stopped() {
				g.add(g.visit())
			}
		})
	}
	n.tb.Cleanup(func() { g.Stop() })
	return g
}

func (g *Guests) stopped() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

func (g *Guests) add(v Visit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.visits = append(g.visits, v)
}

func (g *Guests) visit() (v Visit) {
	i := g.next.Add(1) - 1
	v.From = netip.AddrPortFrom(g.family.Guest(int(i%16383)), uint16(10000+i/16383))
	v.Began = bpf.Now()
	defer func() { v.Ended = bpf.Now() }()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(v.From), Timeout: Patience, Control: controlSource(g.family == V4)}
	c, err := d.DialContext(context.Background(), "tcp", g.to.String())
	if err != nil {
		v.Err = err
		return v
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range g.requests {
		time.Sleep(g.think)
		name, err := ask(c, in)
		if g.patient && errors.Is(err, errStatus) {
			v.Failures++
			err = nil
		}
		switch {
		case err != nil:
			v.Err = err
			return v
		case v.By != "" && name != v.By:
			v.Err = fmt.Errorf("%s answered, after %s", name, v.By)
			return v
		}
		v.By = name
		v.Answers++
		g.answers.Add(1)
		if g.stopped() {
			break
		}
	}
	return v
}

// errStatus is an answer that is no 200.
var errStatus = errors.New("the answer is")

func ask(c net.Conn, in *bufio.Reader) (string, error) {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w %s", errStatus, resp.Status)
	}
	return string(body), err
}

// Visits are those that are over.
func (g *Guests) Visits() []Visit {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.visits)
}

// Answers is how many requests were answered.
func (g *Guests) Answers() int64 { return g.answers.Load() }

// Await waits until so many more visits of a kind are over.
func (g *Guests) Await(more int, kind func(Visit) bool) error {
	from := len(g.Visits())
	for end := time.Now().Add(4 * Patience); ; time.Sleep(5 * time.Millisecond) {
		found := 0
		all := g.Visits()
		for _, v := range all[from:] {
			if kind(v) {
				found++
			}
		}
		switch {
		case found >= more:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("after %v %d of %d guests, want %d", 4*Patience, found, len(all)-from, more)
		}
	}
}

// Stop lets nobody come any more, and returns all visits.
func (g *Guests) Stop() []Visit {
	if !g.stopped() {
		close(g.stop)
	}
	g.group.Wait()
	return g.Visits()
}

// Anybody is every visit.
func Anybody(Visit) bool { return true }

// By is a visit that was answered by a server.
func By(name string) func(Visit) bool { return func(v Visit) bool { return v.By == name } }
