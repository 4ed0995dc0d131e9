package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/analysis/kayenta"
)

// The comparison with the Kayenta-compatible judge: 5 % for an hour, a point a
// minute, looked at from the tenth on. Both judges see the same errors and
// nothing else.
const (
	minutes    = 60
	firstLook  = 10
	usualLevel = 0.98
)

var fivePercent = analysis.Weights{Canary: 500, Stable: 9500}

// hour is one release at 5 %.
type hour struct {
	requests [2][minutes]uint64 // by version
	errors   [2][minutes]uint64
	// rejected is how many requests of the canary our judge needed, 0 where an
	// hour was not enough.
	rejected uint64
}

// newHour draws one, and judges it by clients.
func newHour(s scenario, w *world, rng *rand.Rand) *hour {
	h := &hour{}
	f := newFlows(s, rng)
	reach := 0.0
	for c, t := range w.traffic {
		if uint32(f.hash[c]) < fivePercent.Canary {
			reach += t
		}
	}
	for m := range minutes {
		h.requests[stable][m] = poisson(60*s.perSecond()*(1-reach), rng)
		h.requests[canary][m] = poisson(60*s.perSecond()*reach, rng)
	}
	var tally analysis.Tally
	spoke := make([]bool, s.clients)
	for _, o := range stream(s, w, 60*minutes, true, rng) {
		version := stable
		if uint32(f.hash[o.client]) < fivePercent.Canary {
			version = canary
		}
		if version != int(o.version) {
			continue
		}
		h.errors[version][int(o.at/60)]++
		if spoke[o.client] || h.rejected > 0 {
			continue
		}
		spoke[o.client] = true
		e := analysis.Events{Weights: fivePercent, Step: 1}
		if version == stable {
			e.Stable = 1
			tally.Add(e)
			continue
		}
		e.Canary = 1
		tally.Add(e)
		if analysis.Rejects([]analysis.Evidence{{Log: tally.Log(1), Clients: tally.Clients()}}, falseAlarm) {
			h.rejected = max(1, h.soFar(o.at))
		}
	}
	return h
}

// soFar is how many requests the canary had by then.
func (h *hour) soFar(at float64) uint64 {
	sum := 0.0
	for m := range minutes {
		sum += float64(h.requests[canary][m]) * min(max(at/60-float64(m), 0), 1)
	}
	return uint64(sum)
}

// rejectedByKayenta is how many requests of the canary it took until the
// compatible judge found its error rate High, 0 where an hour was not enough.
func (h *hour) rejectedByKayenta(confidence float64) uint64 {
	m := kayenta.Metric{Name: "error rate", Groups: []string{"errors"}, Direction: kayenta.Increase}
	for minute := range minutes {
		m.Experiment = append(m.Experiment, float64(h.errors[canary][minute])/float64(max(h.requests[canary][minute], 1)))
		m.Control = append(m.Control, float64(h.errors[stable][minute])/float64(max(h.requests[stable][minute], 1)))
		if minute+1 < firstLook {
			continue
		}
		found := kayenta.Judge([]kayenta.Metric{m}, kayenta.Config{Confidence: confidence})
		if found.Metrics[0].Class == kayenta.High {
			return h.soFar(float64(60 * (minute + 1)))
		}
	}
	return 0
}

// compared is both judges on one kind of stream.
type compared struct {
	name              string
	alike             float64 // how many canaries as good as stable ours rejects
	usual, confidence float64 // the same of Kayenta's at 0.98, and what it gets
	rows              []comparison
}

// comparison is how many requests each judge needs for one canary.
type comparison struct {
	errors        float64
	ours, kayenta []uint64
}

// streams are those that both judges are compared on.
func streams() []scenario {
	return []scenario{
		{name: "independent errors", clients: 10_000},
		{name: "Zipf clients", clients: 10_000, zipf: true},
		{name: "a few bad clients", clients: 10_000, zipf: true, bad: .01, badRate: .1},
	}
}

// compare calibrates Kayenta's judge on n hours, then shows both so many of each
// canary that is worse.
func compare(s scenario, n, each int, seed uint64) compared {
	draw := func(s scenario, n int) []*hour {
		return drawn(n, s, seed, func(w *world, rng *rand.Rand) *hour { return newHour(s, w, rng) })
	}
	c := compared{name: s.name}
	same := draw(s, n)
	for _, h := range same {
		if h.rejected > 0 {
			c.alike += 1 / float64(n)
		}
	}
	c.confidence, c.usual = calibrated(same)
	for _, errors := range []float64{2, 5, 20} {
		worse := s
		worse.name, worse.errors = fmt.Sprintf("%s, %g× errors", s.name, errors), errors
		hours := draw(worse, each)
		row := comparison{errors: errors}
		for _, h := range hours {
			row.ours = append(row.ours, h.rejected)
		}
		row.kayenta = inParallel(len(hours), func(i int) uint64 { return hours[i].rejectedByKayenta(c.confidence) })
		c.rows = append(c.rows, row)
	}
	return c
}

// calibrated is the confidence at which no more than falseAlarm of the alike
// hours are ever High, and the share that are at the usual one.
func calibrated(hours []*hour) (confidence, usual float64) {
	// Who is not High at the usual confidence is not at a higher one.
	suspects := filter(hours, usualLevel)
	usual = float64(len(suspects)) / float64(len(hours))
	allowed := int(falseAlarm * float64(len(hours)))
	low, high := math.Sqrt2*math.Erfinv(usualLevel), 8.0
	for range 12 {
		z := (low + high) / 2
		if len(filter(suspects, math.Erf(z/math.Sqrt2))) > allowed {
			low = z
		} else {
			high = z
		}
	}
	return math.Erf(high / math.Sqrt2), usual
}

// filter keeps the hours that are ever High at a confidence.
func filter(hours []*hour, confidence float64) []*hour {
	found := inParallel(len(hours), func(i int) bool { return hours[i].rejectedByKayenta(confidence) > 0 })
	var out []*hour
	for i, high := range found {
		if high {
			out = append(out, hours[i])
		}
	}
	return out
}

// medianOf is the median of the requests until a rejection, where 0 is none in
// time, and the share that has none. ok is false where more than half have none.
func medianOf(requests []uint64) (median uint64, missed float64, ok bool) {
	s := slices.Clone(requests)
	for i, n := range s {
		if n == 0 {
			missed++
			s[i] = math.MaxUint64
		}
	}
	slices.Sort(s)
	median = s[(len(s)-1)/2]
	return median, missed / float64(len(s)), median < math.MaxUint64
}
