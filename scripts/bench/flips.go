package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/scripts/bench/traffic"
	"siskin.dev/siskin/steering"
)

// Flips is what many weight changes under load came to.
type Flips struct {
	Flips int `json:"flips"`
	// Late are flips after which the canary was selected once more, by the
	// kernel's own clock; LateFlows are flow records that say so.
	Late        int     `json:"late"`
	LateFlows   int     `json:"lateFlows"`
	FlowsRead   int     `json:"flowsRead"`
	Connections uint64  `json:"connections"` // made meanwhile
	PerSecond   float64 `json:"perSecond"`
	Store       Figure  `json:"storeMicroseconds"` // the store, in the daemon
	Call        Figure  `json:"callMicroseconds"`  // the API call around it
}

const (
	// between is how many connections a flip waits for.
	between = 20
	// flowsEach is after how many flips the flow records are read: a list is
	// thousands of them.
	flowsEach = 25
)

// flips takes the canary's half away and gives it back under load. The kernel
// takes a flow's time before it reads the weight word, so a selection that is
// younger than the store is one that an old word made.
func (b *bench) flips(s steerer) (*Flips, error) {
	fmt.Printf("\n%d weight changes of siskin under load\n", b.Flips)
	l, err := b.startLoad(s.Triple, traffic.Order{
		Kind: traffic.Connect, To: s.to, Warm: warmUp, For: time.Hour, Conns: conns(traffic.Connect),
	})
	if err != nil {
		return nil, err
	}
	f := flipper{steerer: s, out: &Flips{Flips: b.Flips}}
	first, err := f.opened(b.ctx)
	began := time.Now()
	for i := 0; i < b.Flips && err == nil; i++ {
		err = f.flip(b.ctx, (i+1)%min(flowsEach, b.Flips) == 0)
	}
	took := time.Since(began)
	l.cancel() // it would go on for an hour
	_, _ = l.wait()
	if err != nil {
		return nil, fmt.Errorf("flip weights: %w", err)
	}
	last, err := f.opened(b.ctx)
	if err != nil {
		return nil, err
	}
	f.out.Connections = last - first
	f.out.PerSecond = float64(f.out.Connections) / took.Seconds()
	f.out.Store, f.out.Call = summarize(f.stores), summarize(f.calls)
	f.print()
	if f.out.Late > 0 || f.out.LateFlows > 0 {
		return f.out, fmt.Errorf("%d of %d flips and %d flows were late", f.out.Late, f.out.Flips, f.out.LateFlows)
	}
	return f.out, nil
}

type flipper struct {
	steerer
	out           *Flips
	stores, calls []float64
}

func (f *flipper) flip(ctx context.Context, flows bool) error {
	change, err := f.set(ctx, 0)
	if err != nil {
		return err
	}
	stored := uint64(change.StoredAfterNs)
	if err := f.await(ctx, steering.Stable); err != nil {
		return err
	}
	canary, err := f.version(ctx, "canary")
	if err != nil {
		return err
	}
	if canary.LastSelectedNs > stored {
		f.out.Late++
	}
	if flows {
		list, err := f.daemon.api.Flows(ctx, api.FlowFilter{Service: serviceName, Version: "canary"}, 100_000)
		if err != nil {
			return err
		}
		f.out.FlowsRead += len(list.Flows)
		for _, flow := range list.Flows {
			if flow.OpenedNs > stored {
				f.out.LateFlows++
			}
		}
	}
	if _, err := f.set(ctx, half); err != nil {
		return err
	}
	return f.await(ctx, "canary")
}

func (f *flipper) set(ctx context.Context, percent int) (api.WeightResult, error) {
	began := time.Now()
	change, err := f.daemon.api.SetWeights(ctx, serviceName, map[string]steering.Share{"canary": steering.Share(percent * 100)})
	f.calls = append(f.calls, micros(time.Since(began)))
	f.stores = append(f.stores, change.StoreMicros)
	return change, err
}

// await returns when a version has had some more connections.
func (f *flipper) await(ctx context.Context, version string) error {
	first, err := f.version(ctx, version)
	if err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		v, err := f.version(ctx, version)
		if err != nil {
			return err
		}
		if v.Traffic.Opened >= first.Traffic.Opened+between {
			return nil
		}
		time.Sleep(500 * time.Microsecond) // the daemon shares the CPUs with the load
	}
	return fmt.Errorf("%s gets no connections", version)
}

func (f *flipper) version(ctx context.Context, name string) (api.VersionView, error) {
	service, err := f.daemon.api.Service(ctx, serviceName)
	if err != nil {
		return api.VersionView{}, err
	}
	for _, v := range service.Versions {
		if v.Name == name {
			return v, nil
		}
	}
	return api.VersionView{}, errors.New("the service has no version " + name)
}

// opened is how many connections both versions were given.
func (f *flipper) opened(ctx context.Context) (uint64, error) {
	service, err := f.daemon.api.Service(ctx, serviceName)
	var n uint64
	for _, v := range service.Versions {
		n += v.Traffic.Opened
	}
	return n, err
}

func (f *flipper) print() {
	o := f.out
	t := newTable("Flips", "flips", "connections", "1/s", "selected after the store", "flow records read", "of them late", "store µs, median", "max", "API call µs, median", "max")
	t.row(fmt.Sprint(o.Flips), fmt.Sprint(o.Connections), number(o.PerSecond), fmt.Sprint(o.Late), fmt.Sprint(o.FlowsRead), fmt.Sprint(o.LateFlows),
		number(o.Store.Median), number(o.Store.Max), number(o.Call.Median), number(o.Call.Max))
	t.flush()
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
