package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"siskin.dev/siskin/api"
)

// eventsKept bounds the events in memory; older ones are forgotten.
const eventsKept = 1000

// journal keeps the last events and wakes who waits for new ones.
type journal struct {
	log *slog.Logger

	mu   sync.Mutex
	ring []api.Event
	last uint64        // sequence number of the newest
	more chan struct{} // closed when the next one comes
}

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, more: make(chan struct{})}
}

func (j *journal) normal(object, reason, message string) {
	j.add(api.EventNormal, object, reason, message)
}

func (j *journal) warn(object, reason, message string) {
	j.add(api.EventWarning, object, reason, message)
}

func (j *journal) add(kind, object, reason, message string) {
	level := slog.LevelInfo
	if kind == api.EventWarning {
		level = slog.LevelWarn
	}
	j.log.Log(context.Background(), level, message, "object", object, "reason", reason)

	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	if len(j.ring) == eventsKept {
		j.ring = j.ring[1:]
	}
	j.ring = append(j.ring, api.Event{
		Seq: j.last, Time: time.Now(), Type: kind, Reason: reason, Object: object, Message: message,
	})
	close(j.more)
	j.more = make(chan struct{})
}

// after returns the events after seq, oldest first; with wait it blocks until
// there is one or ctx ends.
func (j *journal) after(ctx context.Context, seq uint64, wait bool) ([]api.Event, error) {
	for {
		j.mu.Lock()
		// Sequence numbers are dense, so the place follows from the number.
		// One from before a restart may lie ahead of ours: then all is new.
		if seq > j.last {
			seq = 0
		}
		fresh := min(j.last-seq, uint64(len(j.ring)))
		out := append([]api.Event{}, j.ring[uint64(len(j.ring))-fresh:]...)
		more := j.more
		j.mu.Unlock()
		if len(out) > 0 || !wait {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-more:
		}
	}
}
