package main

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummarize(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   Figure
	}{
		{"nothing", nil, Figure{}},
		{"one", []float64{3}, Figure{3, 3, 3, 1}},
		{"odd", []float64{9, 1, 5}, Figure{5, 1, 9, 3}},
		{"even, between the two in the middle", []float64{4, 1, 2, 100}, Figure{3, 1, 100, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, summarize(tt.values)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	sorted := []float64{10, 20, 30, 40, 50}
	for q, want := range map[float64]float64{0: 10, 0.5: 30, 0.99: 49.6, 1: 50, 0.125: 15} {
		if got := quantile(sorted, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// A round counts only where both were measured: the rounds of a run that
// failed in between must not shift against each other.
func TestPair(t *testing.T) {
	system := Rounds{0: 90, 1: 50, 3: 200}
	floor := Rounds{0: 100, 2: 100, 3: 100, 1: 0}
	if diff := cmp.Diff(Rounds{0: 0.9, 3: 2}, pair(system, floor)); diff != "" {
		t.Error(diff)
	}
}

func TestBest(t *testing.T) {
	r := Rounds{0: 3, 1: 7, 2: 5}
	if got := r.best(true); got != 7 {
		t.Errorf("the best of what should be high is %v", got)
	}
	if got := r.best(false); got != 3 {
		t.Errorf("the best of what should be low is %v", got)
	}
	if got := (Rounds{}).best(true); got != 0 {
		t.Errorf("the best of nothing is %v", got)
	}
}

func TestSlope(t *testing.T) {
	if got := slope([]float64{1, 2, 4}, []float64{15, 25, 45}); math.Abs(got-10) > 1e-9 {
		t.Errorf("slope is %v, want 10", got)
	}
}
