package analysis

import (
	"math"
	"testing"
	"time"
)

// buckets makes a histogram of latencies.
func buckets(latencies ...time.Duration) Histogram {
	h := Histogram{First: -160, Counts: make([]uint64, 216)}
	for _, l := range latencies {
		i := 0
		for i < len(h.Counts)-1 && bound(h.First+i) < l {
			i++
		}
		h.Counts[i]++
	}
	return h
}

func repeat(n int, l time.Duration) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = l
	}
	return out
}

func TestBounds(t *testing.T) {
	for index, want := range map[int]time.Duration{
		0: time.Second, 8: 2 * time.Second, -8: 500 * time.Millisecond, 1: 1_090_507_732, -80: 976_562, -160: 953,
	} {
		if got := bound(index); got != want {
			t.Errorf("bucket %d ends at %d ns, want %d", index, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	if _, ok := (Histogram{}).Quantile(.5); ok {
		t.Error("an empty histogram has a median")
	}
	if _, ok := buckets().Quantile(.5); ok {
		t.Error("a histogram of nothing has a median")
	}
	h := buckets(append(repeat(98, 10*time.Millisecond), 80*time.Millisecond, 200*time.Second)...)
	for q, want := range map[float64]time.Duration{.5: 10 * time.Millisecond, .99: 80 * time.Millisecond} {
		got, ok := h.Quantile(q)
		if off := math.Abs(math.Log(float64(got) / float64(want))); !ok || off > math.Ln2/8 {
			t.Errorf("quantile %v = %v, want %v within a bucket", q, got, want)
		}
	}
	if got, _ := h.Quantile(1); got != bound(54) {
		t.Errorf("the quantile beyond the last bound is %v, want that bound, %v", got, bound(54))
	}
}

func TestEdge(t *testing.T) {
	fast, slow := 10*time.Millisecond, 50*time.Millisecond
	past := func(latencies ...time.Duration) *Past {
		var p Past
		p.Add(buckets(latencies...), time.Second)
		return &p
	}
	up := func(l time.Duration) time.Duration { // the bound of a latency's bucket
		h := buckets(l)
		for i, c := range h.Counts {
			if c > 0 {
				return bound(h.First + i)
			}
		}
		panic("empty")
	}
	tests := []struct {
		name string
		p    *Past
		q    float64
		want time.Duration // 0: none
	}{
		{"nothing known", new(Past), .99, 0},
		{"999 requests", past(repeat(999, fast)...), .99, 0},
		{"1,000 requests", past(repeat(1000, fast)...), .99, up(fast)},
		{"exactly a hundredth is above", past(append(repeat(990, fast), repeat(10, slow)...)...), .99, up(fast)},
		{"exactly a tenth is above", past(append(repeat(900, fast), repeat(100, slow)...)...), .9, up(fast)},
		{"one more than a hundredth", past(append(repeat(989, fast), repeat(11, slow)...)...), .99, up(slow)},
		{"all faster than the first bound", past(repeat(1000, time.Nanosecond)...), .99, bound(-160)},
		{"beyond the last bound", past(repeat(1000, 200*time.Second)...), .99, 0},
	}
	for _, tt := range tests {
		got, ok := tt.p.Edge(tt.q)
		if ok != (tt.want > 0) || ok && got != tt.want {
			t.Errorf("%s: edge %v, %v, want %v", tt.name, got, ok, tt.want)
		}
	}
}

// Old latencies fade in a minute, but never below the thousand that are needed.
func TestPastFades(t *testing.T) {
	var p Past
	p.Add(buckets(repeat(20_000, 10*time.Millisecond)...), time.Second)
	p.Add(buckets(), time.Minute)
	near(t, "after a minute", p.Requests(), 20_000/math.E, 1e-6)
	p.Add(buckets(), time.Hour)
	near(t, "after an hour", p.Requests(), 1000, 1e-6)
	if _, ok := p.Edge(.99); !ok {
		t.Error("the edge is gone after a quiet hour")
	}
	for range 10 {
		p.Add(buckets(repeat(1000, 40*time.Millisecond)...), 30*time.Second)
	}
	if edge, _ := p.Edge(.5); edge < 30*time.Millisecond {
		t.Errorf("the edge is %v after five minutes at 40 ms", edge)
	}
}

func TestTolerated(t *testing.T) {
	for _, tt := range []struct {
		edge      time.Duration
		tolerance float64
		want      time.Duration
	}{
		{100, .2, 120}, {1_090_507_732, .2, 1_308_609_278}, {time.Hour, 9.9999, 39_599_640 * time.Millisecond}, {953, 0, 953},
		{99, .2, 118}, {10_000, .07, 10_700},
	} {
		if got := Tolerated(tt.edge, tt.tolerance); got != tt.want {
			t.Errorf("%d ns and %v is %d, want %d", tt.edge, tt.tolerance, got, tt.want)
		}
	}
}

// What is above a time is what is above it for sure.
func TestAbove(t *testing.T) {
	h := Histogram{First: -16, Counts: []uint64{1, 2, 4, 8}} // up to 2^(-16/8) s, …, and beyond 2^(-14/8) s
	for _, tc := range []struct {
		d    time.Duration
		want uint64
	}{
		{250 * time.Millisecond, 14}, // 2^-2 s is a bound
		{250*time.Millisecond + 1, 12},
		{time.Millisecond, 14}, // the first bucket has no lower bound
		{time.Hour, 0},
	} {
		if got := h.Above(tc.d); got != tc.want {
			t.Errorf("above %v: %d, want %d", tc.d, got, tc.want)
		}
	}
	if n := (Histogram{}).Above(0); n != 0 {
		t.Errorf("%d of an empty histogram", n)
	}
}
