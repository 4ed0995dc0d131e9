package main

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// kind is what was bad about a request.
type kind uint8

const (
	failed kind = iota
	slow
	kinds
)

// outcome is a request that may have been bad: it is if its flow has the version
// that it was drawn for.
type outcome struct {
	at      float64 // seconds since the release began
	client  int32
	kind    kind
	version int8 // stable, canary, or both
	retry   bool
}

const both = int8(2)

// stream draws the outcomes of one release, in the order of time, for so many
// seconds. Bad ones are rare: nothing else needs to be drawn one by one.
func stream(s scenario, w *world, seconds float64, onlyErrors bool, rng *rand.Rand) []outcome {
	var out []outcome
	add := func(k kind, version int8, from *sampler, rate, begin, end float64) {
		for at := begin + rng.ExpFloat64()/rate; at < end; at += rng.ExpFloat64() / rate {
			out = append(out, outcome{at: at, client: int32(from.draw(rng)), kind: k, version: version})
		}
	}
	for v := range 2 {
		add(failed, int8(v), &w.errors[v], s.perSecond()*w.errors[v].mass, 0, seconds)
		if !onlyErrors {
			add(slow, int8(v), &w.slow[v], s.perSecond()*w.slow[v].mass, 0, seconds)
		}
	}
	if s.burst > 0 {
		begin := rng.Float64() * (seconds - s.lasts)
		add(failed, both, &w.any, s.perSecond()*s.burst, begin, begin+s.lasts)
	}
	slices.SortFunc(out, func(a, b outcome) int { return cmp.Compare(a.at, b.at) })
	return out
}

// retries are the further failures of a client that has failed, a second or so
// apart, in order.
func retries(s scenario, o outcome, rng *rand.Rand) []outcome {
	if s.retries == 0 || o.retry || o.kind != failed {
		return nil
	}
	var out []outcome
	for more := s.retries / (1 + s.retries); rng.Float64() < more; {
		o.at += rng.ExpFloat64()
		o.retry = true
		out = append(out, o)
	}
	return out
}

// flows says which version a client's request gets, and when the connection that
// it is on was made.
type flows struct {
	keepAlive  float64
	hash       []uint16 // by client, 0 to 9999
	begin, end []float64
	known      []bool
}

func newFlows(s scenario, rng *rand.Rand) *flows {
	f := &flows{keepAlive: s.keepAlive, hash: make([]uint16, s.clients)}
	for c := range f.hash {
		f.hash[c] = uint16(rng.IntN(10_000))
	}
	if s.keepAlive > 0 {
		f.begin, f.end = make([]float64, s.clients), make([]float64, s.clients)
		f.known = make([]bool, s.clients)
	}
	return f
}

// made is when the connection of a client's request was made; before 0 it is
// older than the release. at never goes back.
func (f *flows) made(client int32, at float64, rng *rand.Rand) float64 {
	if f.keepAlive == 0 {
		return at
	}
	if !f.known[client] || at > f.end[client] {
		age := rng.ExpFloat64() * f.keepAlive
		if f.known[client] {
			age = min(age, at-f.end[client])
		}
		f.known[client] = true
		f.begin[client], f.end[client] = at-age, at+rng.ExpFloat64()*f.keepAlive
	}
	return f.begin[client]
}
