package bpf_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// TestRootReleases begins and ends releases in two rooms.
func TestRootReleases(t *testing.T) {
	r := newRig(t, map[string]any{"rooms": uint32(2)})
	w := watch(t, r, families()[0], r.SiskinIngress)
	rel := w.releases()
	watch := bpf.Watch{
		Version: 3, ByConnection: true, Step: 2, Slow: [2]time.Duration{time.Second, time.Minute},
		Limit: 450, Success: 10,
	}
	for _, word := range []uint32{1000, 7} {
		before := bpf.Now()
		begun, err := rel.Begin(word, watch)
		if err != nil || begun.Started < before || begun.Started > bpf.Now() {
			t.Fatalf("begin: %+v, %v", begun, err)
		}
		watch.Started = begun.Started
		got, err := w.releases().Load(word) // as after a restart
		if d := cmp.Diff(watch, got, cmp.AllowUnexported(bpf.Failures{})); d != "" || err != nil {
			t.Errorf("loaded: %v\n%s", err, d)
		}
	}
	if got := rel.Running(); !slices.Equal(got, []uint32{1000, 7}) {
		t.Errorf("there run %v", got)
	}
	if _, err := rel.Begin(7, watch); !errors.Is(err, bpf.ErrReleaseRuns) {
		t.Errorf("beginning twice: %v", err)
	}
	if _, err := rel.Begin(8, watch); !errors.Is(err, bpf.ErrNoRoom) {
		t.Errorf("beginning a third one: %v", err)
	}
	for range 2 {
		if err := rel.End(1000); err != nil {
			t.Error(err)
		}
	}
	if _, err := rel.Load(1000); !errors.Is(err, bpf.ErrNoRelease) {
		t.Errorf("loading what has ended: %v", err)
	}
	if _, err := rel.Breaker(1000); !errors.Is(err, bpf.ErrNoRelease) {
		t.Errorf("the breaker of what has ended: %v", err)
	}
	if _, err := rel.Begin(8, watch); err != nil {
		t.Errorf("in the room that was left: %v", err)
	}
}

// TestRootReleaseBeginsAnew: nothing of a release is left for the next one.
func TestRootReleaseBeginsAnew(t *testing.T) {
	each(t, map[string]any{"flows": uint32(512), "rooms": uint32(1)}, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		rel := w.releases()
		rule := analysis.BreakerRuleFor(0, 1)
		client := w.newcomer()
		for epoch := range uint8(3) {
			w.shares(0, 10+epoch)
			w.begin(rel, bpf.Watch{Limit: uint32(rule.Limit), Success: uint32(rule.Success)})
			w.shares(steering.Whole, 10+epoch)
			if b, err := rel.Breaker(0); err != nil || b != (bpf.Breaker{}) {
				t.Fatalf("the breaker begins as %+v: %v", b, err)
			}
			client = nextPort(client)
			w.connect(client)
			refuse(w, client, w.canary)
			want := map[bpf.Outcome]uint64{{Version: 1, Epoch: 10 + epoch, Step: 1}: 1}
			w.wantBooked(rel, bpf.OutcomeError, want)
			w.wantBooked(rel, bpf.OutcomeSeen, want)
			if b, err := rel.Breaker(0); err != nil || !b.Tripped {
				t.Fatalf("the breaker is %+v: %v", b, err)
			}
		}
	})
}
