package conduct

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// renewals is how often a lease is renewed while it lasts once.
const renewals = 5

// leases renews those of the releases that run. The loop waits for nothing:
// neither for a disk nor for a hook, a query or an executor.
type leases struct {
	traffic Traffic
	log     *slog.Logger

	mu   sync.Mutex
	held map[string]leased
	wake chan struct{}
}

type leased struct {
	target Target
	lease  time.Duration
	due    time.Time // of the next renewal; monotonic
}

func newLeases(t Traffic, log *slog.Logger) *leases {
	return &leases{traffic: t, log: log, held: map[string]leased{}, wake: make(chan struct{}, 1)}
}

// keep renews a lease from now on, or with 0 no longer.
func (l *leases) keep(t Target, lease time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lease == 0 {
		delete(l.held, t.Release)
		return
	}
	if h, ok := l.held[t.Release]; ok && h.lease == lease {
		return
	}
	l.held[t.Release] = leased{t, lease, time.Now()}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run renews until ctx ends.
func (l *leases) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		timer.Reset(l.renew(time.Now()))
	}
}

// renew renews what is due, and says when to look again.
func (l *leases) renew(now time.Time) time.Duration {
	next := time.Minute
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, h := range l.held {
		if !now.Before(h.due) {
			// One that has ended stays so: the executor sees it in the kernel.
			if err := l.traffic.Renew(h.target, h.lease); err != nil {
				l.log.Warn("a lease was not renewed", "release", name, "error", err)
			}
			h.due = now.Add(h.lease / renewals)
			l.held[name] = h
		}
		next = min(next, time.Until(h.due))
	}
	return max(next, time.Millisecond)
}

// handover gives every lease the time that a planned restart takes.
func (l *leases) handover(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, h := range l.held {
		if err := l.traffic.Renew(h.target, max(d, h.lease)); err != nil {
			l.log.Warn("a lease was not handed over", "release", name, "error", err)
		}
	}
}
