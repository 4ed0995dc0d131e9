package bpf_test

import (
	"fmt"
	"testing"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// serverErrors are the statuses from 500 on.
func serverErrors(t *testing.T) bpf.Failures {
	t.Helper()
	var all []int
	for s := 500; s < 600; s++ {
		all = append(all, s)
	}
	f, err := bpf.FailuresOf(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestRootHTTP1Outcomes lets the canary answer with errors, and compares what is
// booked: once for each client and step, whatever the number of errors.
func TestRootHTTP1Outcomes(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		r := w.releases()
		w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{time.Hour, time.Hour}})
		w.shares(steering.Whole, 3)
		for i := range 3 {
			d := hold(w, plain())
			for range 4 {
				d.say(asking, httpGET())
				d.say(answering, status([]int{500, 404, 599}[i], "Content-Length: 0"))
			}
		}
		w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 2})
		w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{})
	})
}

// TestRootHTTP1Slow takes an answer that was a day in coming for slow, also when
// it was asked for behind another one.
func TestRootHTTP1Slow(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		r := w.releases()
		w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{1, 1}})
		w.shares(steering.Whole, 3)
		d := hold(w, plain())
		d.say(asking, httpGET()+httpGET())
		d.say(answering, status(500, "Content-Length: 0"))
		w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{})
		d.say(answering, httpOK(""))
		w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 1})
		if f := w.flow(flowKey(d.from, w.vip, tcp)); f.RequestNs != 0 {
			t.Errorf("a request is said to wait: %d", f.RequestNs)
		}
	})
}

// TestRootHTTP1Breaker lets the canary answer 500 to everything on connections
// that are kept: the fifth error of distinct clients opens the breaker.
func TestRootHTTP1Breaker(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		r := w.releases()
		w.begin(r, bpf.Watch{Failures: serverErrors(t), Limit: 450, Success: 10})
		w.shares(steering.Whole, 3)
		var all []*dialogue
		for range 8 {
			all = append(all, hold(w, plain()))
			all[len(all)-1].say(asking, httpGET())
		}
		for i, d := range all {
			b, err := r.Breaker(0)
			if err != nil {
				t.Fatal(err)
			}
			if want := i >= 5; b.Tripped != want {
				t.Fatalf("after %d errors the breaker is open: %v", i, b.Tripped)
			}
			d.say(answering, status(503, "Content-Length: 0"))
		}
		if f := w.connect(w.newcomer()); f.Version != 0 {
			t.Errorf("a new client was given version %d", f.Version)
		}
		if got := w.answersOf(2).Of[bpf.Answer5xx]; got != 8 {
			t.Errorf("%d answers were counted, want 8", got)
		}
	})
}

func TestFailures(t *testing.T) {
	f, err := bpf.FailuresOf([]int{400, 463, 464, 599}, []int{1, 16})
	if err != nil {
		t.Fatal(err)
	}
	for s := range 1000 {
		if want := s == 400 || s == 463 || s == 464 || s == 599; f.Status(s) != want {
			t.Errorf("status %d: %v", s, f.Status(s))
		}
	}
	for code := -1; code < 40; code++ {
		if want := code == 1 || code == 16; f.GRPC(code) != want {
			t.Errorf("grpc-status %d: %v", code, f.GRPC(code))
		}
	}
	for _, bad := range [][2][]int{{{399}, nil}, {{600}, nil}, {nil, {0}}, {nil, {17}}} {
		if _, err := bpf.FailuresOf(bad[0], bad[1]); err == nil {
			t.Errorf("%v was taken", fmt.Sprint(bad))
		}
	}
}
