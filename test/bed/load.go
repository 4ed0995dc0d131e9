package bed

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"
)

// Load makes new connections all the time, to servers that Greet, until it is
// stopped. Every connection comes from another address and port.
type Load struct {
	Made   atomic.Int64 // connections that were answered
	Failed atomic.Int64

	stop  chan struct{}
	group sync.WaitGroup
	start time.Time

	mu     sync.Mutex
	byName map[string]int64 // who answered
	errs   []error          // the first few
}

// Drive starts workers that connect to one of the frontends each; worker i
// takes frontend i modulo their number.
func (n *Namespace) Drive(workers int, to ...netip.AddrPort) *Load {
	n.tb.Helper()
	l := &Load{stop: make(chan struct{}), start: time.Now(), byName: map[string]int64{}}
	for w := range workers {
		l.group.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends in the namespace
			if err := netns.Set(n.handle); err != nil {
				l.fail(err)
				return
			}
			l.work(w, to[w%len(to)])
		})
	}
	n.tb.Cleanup(func() { l.Stop() })
	return l
}

// work is one worker. It has 256 addresses of its own and takes a new port
// each time it has been through them.
func (l *Load) work(worker int, to netip.AddrPort) {
	family := V6
	if to.Addr().Is4() {
		family = V4
	}
	var buf [64]byte
	names := map[string]int64{}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for name, count := range names {
			l.byName[name] += count
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		default:
		}
		from := netip.AddrPortFrom(family.Visitor(worker*256+i%256), uint16(2000+i/256%60000))
		got, err := Attempt{from, to}.make(buf[:])
		if err == nil && got == 0 {
			err = errors.New("closed without an answer")
		}
		if err != nil {
			l.fail(fmt.Errorf("%v to %v: %w", from, to, err))
			continue
		}
		names[string(buf[:got])]++
		l.Made.Add(1)
	}
}

func (l *Load) fail(err error) {
	l.Failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) < 5 {
		l.errs = append(l.errs, err)
	}
}

// Await returns when so many more connections have been made, or the load
// makes none any more.
func (l *Load) Await(more int64) error {
	target := l.Made.Load() + more
	last, since := int64(-1), time.Now()
	for l.Made.Load() < target {
		if made := l.Made.Load(); made != last {
			last, since = made, time.Now()
		} else if time.Since(since) > 2*Patience {
			return fmt.Errorf("the load made no connection for %v: %w", 2*Patience, l.Err())
		}
		time.Sleep(time.Millisecond) // polls: a channel would slow the workers
	}
	return nil
}

// Stop ends the load and returns how many connections each server answered.
func (l *Load) Stop() map[string]int64 {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.group.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.byName)
}

// Rate is the number of connections a second since the start.
func (l *Load) Rate() float64 {
	return float64(l.Made.Load()) / time.Since(l.start).Seconds()
}

// Err returns the first failures, or nil.
func (l *Load) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
