package main

import (
	"errors"
	"fmt"
	"slices"

	"siskin.dev/siskin/scripts/bench/lab"
	"siskin.dev/siskin/scripts/bench/traffic"
)

// Metric is one figure that a measurement gives.
type Metric struct {
	Name   string
	Kind   string // of the load that gives it
	Unit   string
	Higher bool // more is better
	of     func(traffic.Sample) float64
}

func metrics() []Metric {
	perSecond := func(s traffic.Sample) float64 { return float64(s.Count) / s.Seconds }
	return []Metric{
		{"keep-alive requests/s", traffic.KeepAlive, "1/s", true, perSecond},
		{"new connections/s", traffic.Connect, "1/s", true, perSecond},
		{"one TCP stream", traffic.Stream, "Gbit/s", true, func(s traffic.Sample) float64 { return float64(s.Bytes) * 8 / s.Seconds / 1e9 }},
		{"connect+GET p50", traffic.Get, "µs", false, func(s traffic.Sample) float64 { return s.P50 }},
		{"connect+GET p99", traffic.Get, "µs", false, func(s traffic.Sample) float64 { return s.P99 }},
	}
}

func kinds() []string {
	return []string{traffic.KeepAlive, traffic.Connect, traffic.Stream, traffic.Get}
}

// conns is how many connections a load has at a time.
func conns(kind string) int { return map[string]int{traffic.KeepAlive: 32, traffic.Connect: 16}[kind] }

// canaryShare is that of all systems, in percent.
const canaryShare = 5

// series are the rounds of one system in one place.
type series struct {
	system System
	by     map[string]Rounds // by metric
	canary uint64            // connections of the Connect loads that the canary answered
	total  uint64
}

// endToEnd measures all systems with the backends in each place.
func (b *bench) endToEnd() (any, error) {
	var rows []Row
	var errs []error
	for _, where := range []lab.Where{lab.Remote, lab.Local} {
		if len(b.Places) > 0 && !slices.Contains(b.Places, string(where)) {
			continue
		}
		all, err := b.place(where)
		if err != nil {
			errs = append(errs, err)
		}
		if len(all) > 0 {
			some := tabulate(where, all)
			printRows(where, some)
			rows = append(rows, some...)
		}
	}
	return rows, errors.Join(errs...)
}

// place runs the rounds for one place. A measurement that fails is an error
// in the end and leaves a gap.
func (b *bench) place(where lab.Where) ([]*series, error) {
	fmt.Printf("\n%s backends: %d rounds of %v\n", where, b.Rounds, b.Each)
	chosen, err := b.chosen(where, true)
	if err != nil {
		return nil, err
	}
	var setups []*setup
	defer func() {
		for _, u := range setups {
			u.Close()
		}
	}()
	all := map[*setup]*series{}
	var out []*series
	for _, s := range chosen {
		u, err := b.setUp(s, where, canaryShare)
		if err != nil {
			return nil, err
		}
		setups = append(setups, u)
		all[u] = &series{system: s, by: map[string]Rounds{}}
		out = append(out, all[u])
	}
	var errs []error
	for round := range b.Rounds {
		for _, kind := range kinds() {
			if len(b.Kinds) > 0 && !slices.Contains(b.Kinds, kind) {
				continue
			}
			b.rand.Shuffle(len(setups), func(i, j int) { setups[i], setups[j] = setups[j], setups[i] })
			for _, u := range setups {
				if err := b.measure(u, kind, round, all[u]); err != nil {
					errs = append(errs, fmt.Errorf("%s, round %d: %w", u.Name, round, err))
				}
			}
		}
	}
	for _, s := range out {
		errs = append(errs, s.split())
	}
	return out, errors.Join(errs...)
}

// measure makes one measurement.
func (b *bench) measure(u *setup, kind string, round int, into *series) error {
	if u.Small && kind == traffic.Stream {
		return nil
	}
	if err := u.Host.FlushConntrack(); err != nil {
		return err
	}
	sample, err := b.runLoad(u.Triple, traffic.Order{Kind: kind, To: u.to, Warm: min(warmUp, b.Each), For: b.Each, Conns: conns(kind)})
	if err != nil {
		return err
	}
	if sample.Failed > 0 {
		err = fmt.Errorf("%s: %d connections failed, the last: %s", kind, sample.Failed, sample.Last)
	}
	for _, m := range metrics() {
		if m.Kind != kind {
			continue
		}
		if into.by[m.Name] == nil {
			into.by[m.Name] = Rounds{}
		}
		into.by[m.Name][round] = m.of(sample)
	}
	if kind == traffic.Connect {
		into.canary += sample.By["canary"]
		into.total += sample.Count
	}
	return err
}

// split makes sure that what was measured did split the connections.
func (s *series) split() error {
	if s.system.Plain || s.total < 2000 {
		return nil
	}
	if got := 100 * float64(s.canary) / float64(s.total); got < canaryShare-2 || got > canaryShare+2 {
		return fmt.Errorf("%s gave the canary %.2f %% of the connections instead of %d %%", s.system.Name, got, canaryShare)
	}
	return nil
}
