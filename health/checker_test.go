package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is a Probe that answers as it is told, and counts.
type script struct {
	mu      sync.Mutex
	failing bool
	hangs   bool
	asked   []time.Time
	out     int // probes that are going on
	most    int
}

func (s *script) Ask(ctx context.Context, _ Backend) error {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	s.out++
	s.most = max(s.most, s.out)
	failing, hangs := s.failing, s.hangs
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.out--
		s.mu.Unlock()
	}()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if failing {
		return errors.New("refused")
	}
	return nil
}

func (s *script) set(failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = failing
}

func (s *script) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time{}, s.asked...)
}

func backend(i int) Backend {
	return Backend{"shop", "stable", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 80)}
}

// bubble runs a Checker by a clock of its own.
func bubble(t *testing.T, f func(t *testing.T, c *Checker)) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		defer c.Close()
		f(t, c)
	})
}

// next waits for changes for at most so long, and returns them as text.
func next(c *Checker, within time.Duration) string {
	select {
	case <-c.Changed():
	case <-time.After(within):
	}
	out := ""
	for _, ch := range c.Take() {
		out += fmt.Sprintf("%s %s %d %s;", ch.Addr, ch.To, ch.Row, ch.Error)
	}
	return out
}

func TestCheckerFallsAndRises(t *testing.T) {
	bubble(t, func(t *testing.T, c *Checker) {
		s := &script{}
		target := map[Backend]Target{backend(1): {s, rules(), Starting}}
		c.Follow(target)
		if got := next(c, time.Millisecond); got != "10.1.0.1:80 up 1 ;" {
			t.Fatalf("what is new is asked at once: %q", got)
		}
		if got := next(c, time.Minute); got != "" {
			t.Fatalf("nothing happened, but %q", got)
		}
		s.set(true)
		start := time.Now()
		if got := next(c, time.Minute); got != "10.1.0.1:80 down -3 refused;" {
			t.Fatalf("it failed: %q", got)
		}
		if took := time.Since(start); took < 1800*time.Millisecond || took > 3300*time.Millisecond {
			t.Errorf("three failures took %v", took)
		}
		s.set(false)
		start = time.Now()
		if got := next(c, time.Minute); got != "10.1.0.1:80 up 2 ;" {
			t.Fatalf("it came back: %q", got)
		}
		if took := time.Since(start); took < 900*time.Millisecond || took > 2200*time.Millisecond {
			t.Errorf("two successes took %v", took)
		}
		c.Follow(nil)
		n := len(s.times())
		time.Sleep(time.Minute)
		if len(s.times()) != n {
			t.Error("it is asked although nobody wants to know")
		}
		if _, ok := c.Report(backend(1)); ok {
			t.Error("there is a report of it still")
		}
	})
}

// A restart knows what was; a change of the rules does, too, and asks by them.
func TestCheckerGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, c *Checker) {
		s := &script{failing: true}
		r := rules()
		r.Rise, r.Fall = 5, 5
		c.Follow(map[Backend]Target{backend(1): {s, r, Up}, backend(2): {&script{}, r, Down}})
		if got := next(c, 1100*time.Millisecond); got != "" {
			t.Fatalf("one result changed something: %q", got)
		}
		r.Fall = 1
		c.Follow(map[Backend]Target{backend(1): {s, r, Starting}})
		if got := next(c, 1100*time.Millisecond); got != "10.1.0.1:80 down -1 refused;" {
			t.Errorf("by the new rules: %q", got)
		}
	})
}

// Probes of many backends are spread over the interval, and stay near it.
func TestCheckerSpreads(t *testing.T) {
	bubble(t, func(t *testing.T, c *Checker) {
		const backends = 1000
		targets := map[Backend]Target{}
		scripts := make([]*script, backends)
		for i := range scripts {
			scripts[i] = &script{}
			targets[backend(i)] = Target{scripts[i], rules(), Up}
		}
		start := time.Now()
		c.Follow(targets)
		time.Sleep(20 * time.Second)
		perTenth := map[int64]int{}
		for i, s := range scripts {
			times := s.times()
			for j := 1; j < len(times); j++ {
				if d := times[j].Sub(times[j-1]); d < 900*time.Millisecond || d > 1100*time.Millisecond {
					t.Fatalf("backend %d was asked after %v", i, d)
				}
			}
			for _, at := range times {
				perTenth[int64(at.Sub(start)/(100*time.Millisecond))]++
			}
		}
		for tenth := range int64(200) {
			// 100 are to be expected; 7 standard deviations of a Poisson count.
			if n := perTenth[tenth]; n < 30 || n > 170 {
				t.Errorf("%d probes in tenth %d of a second", n, tenth)
			}
		}
	})
}

// Thousands that hang hold no more than so many sockets, and do not make one
// that answers fail.
func TestCheckerIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, c *Checker) {
		hanging, fine := &script{hangs: true}, &script{}
		targets := map[Backend]Target{backend(0): {fine, rules(), Up}}
		for i := 1; i < 5000; i++ {
			targets[backend(i)] = Target{hanging, rules(), Up}
		}
		c.Follow(targets)
		time.Sleep(2 * time.Minute)
		hanging.mu.Lock()
		most := hanging.most
		hanging.mu.Unlock()
		if most != Parallel {
			t.Errorf("%d probes were out at a time, want %d", most, Parallel)
		}
		down := map[Backend]bool{}
		for _, ch := range c.Take() {
			down[ch.Backend] = ch.To == Down
			if ch.Error != "no answer in time" {
				t.Fatalf("%s: %s", ch.Addr, ch.Error)
			}
		}
		if down[backend(0)] || len(down) != 4999 {
			t.Errorf("%d are down, and %v of the one that answers", len(down), down[backend(0)])
		}
		if n := len(fine.times()); n < 5 {
			t.Errorf("the one that answers was asked %d times in two minutes", n)
		}
	})
}
