package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A success makes the next failure a first one: it is tried again at once.
func TestBackoff(t *testing.T) {
	var b backoff
	now := time.Unix(1000, 0)
	var waits []time.Duration
	for range 8 {
		if !b.due(true, now) {
			t.Fatalf("after %v it is not due at the end of the wait", waits)
		}
		begin := now
		for now = now.Add(beatEvery); !b.due(true, now); now = now.Add(beatEvery) {
			if now.Sub(begin) > time.Hour {
				t.Fatal("it is never due again")
			}
		}
		waits = append(waits, now.Sub(begin))
		now = b.wait
	}
	if waits[0] != 2*time.Second || waits[7] != time.Minute {
		t.Errorf("waits %v, want them from 2 s to a minute", waits)
	}
	if b.due(false, now) {
		t.Error("due without a failure")
	}
	if !b.due(true, now) {
		t.Error("after a success the next failure waits for the end of the last wait")
	}
}

// A network that changes all the time leaves no room for the ticks.
func TestChangesAreSignsOfLife(t *testing.T) {
	var d daemon
	ctx, stop := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}), make(chan struct{})
	d.writing.Lock() // holds the loop up where it follows the network
	go func() {
		defer close(ended)
		d.loop(ctx, changes)
	}()
	changes <- struct{}{}
	for deadline := time.Now().Add(5 * time.Second); d.beat.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a change is no sign of life")
		}
	}
	stop()
	d.writing.Unlock()
	<-ended
}

// What fails each second is told of once for each cause.
func TestSaveFailedIsToldOnce(t *testing.T) {
	d := &daemon{events: newJournal(slog.New(slog.DiscardHandler)), said: make(map[string]string)}
	dir := filepath.Join(t.TempDir(), "missing")
	for range 3 {
		err := writeState(filepath.Join(dir, "state.json"), saved{})
		if err == nil {
			t.Fatal("written to a directory that does not exist")
		}
		d.saveFailed(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "state.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := writeState(filepath.Join(dir, "state.json"), saved{})
		if err == nil {
			t.Fatal("a directory was replaced")
		}
		d.saveFailed(err)
	}
	if events, err := d.events.after(t.Context(), 0, false); err != nil || len(events) != 2 {
		t.Errorf("events %v, %v; want two", events, err)
	}
}
