package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/scripts/bench/lab"
	"siskin.dev/siskin/scripts/bench/traffic"
	"siskin.dev/siskin/steering"
)

// Switch is one switch from half of the connections to none, as the client
// saw it. Times are in milliseconds.
type Switch struct {
	Command float64 `json:"command"` // how long it took
	// Last is when the last connection began that the canary answered, after
	// the command began.
	Last  float64 `json:"last"`
	After int     `json:"after"` // canary connections that began after the command had ended
	Made  int     `json:"made"`  // connections after the command had begun
}

// judgeSwitch reads a client's log. began and ended enclose the command.
func judgeSwitch(log []traffic.Entry, began, ended int64) (Switch, error) {
	s := Switch{Command: millis(ended - began)}
	before := 0
	last := int64(0)
	for _, e := range log {
		canary := e.By == "canary"
		if e.Start > began {
			s.Made++
		} else if canary {
			before++
		}
		if !canary {
			continue
		}
		last = max(last, e.Start)
		if e.Start > ended {
			s.After++
		}
	}
	s.Last = millis(last - began)
	switch {
	case before == 0:
		return s, errors.New("the canary had no connections before the switch")
	case s.Made == 0:
		return s, errors.New("no connection was made after the switch")
	}
	return s, nil
}

func millis(ns int64) float64 { return float64(ns) / 1e6 }

// SwitchResult is what the switch part reports.
type SwitchResult struct {
	Switches map[string][]Switch `json:"switches"`
	Flips    *Flips              `json:"flips,omitempty"`
}

// half is the canary's share before a switch, in percent.
const half = 50

// switched is one way to switch.
type switched struct {
	name  string
	on    *setup
	shift func(canary int) error
}

// switching measures how long each system takes to take the canary's
// connections back.
func (b *bench) switching() (any, error) {
	fmt.Printf("\nTime to switch from %d %% to none: %d times each\n", half, b.Rounds)
	chosen, err := b.chosen(lab.Remote, false)
	if err != nil {
		return nil, err
	}
	var ways []switched
	for _, s := range chosen {
		if strings.HasPrefix(s.Name, "siskin-") {
			continue // the same command and the same word
		}
		u, err := b.setUp(s, lab.Remote, half)
		if err != nil {
			return nil, err
		}
		defer u.Close()
		ways = append(ways, switched{s.Name, u, u.shift})
		if d, ok := u.balancer.(steerer); ok {
			ways = append(ways, switched{s.Name + " (API)", u, d.ask})
		}
	}
	result := SwitchResult{Switches: map[string][]Switch{}}
	var errs []error
	for range b.Rounds {
		b.rand.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
		for _, w := range ways {
			s, err := b.switchOnce(w)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
				continue
			}
			result.Switches[w.name] = append(result.Switches[w.name], s)
		}
	}
	printSwitches(ways, result.Switches)
	for _, w := range ways {
		if d, ok := w.on.balancer.(steerer); ok && w.name == "siskin" {
			result.Flips, err = b.flips(d)
			errs = append(errs, err)
		}
	}
	return result, errors.Join(errs...)
}

func (b *bench) switchOnce(w switched) (Switch, error) {
	if err := w.on.Host.FlushConntrack(); err != nil {
		return Switch{}, err
	}
	const before, after = 400 * time.Millisecond, time.Second
	l, err := b.startLoad(w.on.Triple, traffic.Order{
		Kind: traffic.Connect, To: w.on.to, Warm: warmUp, For: before + after, Conns: conns(traffic.Connect), Log: true,
	})
	if err != nil {
		return Switch{}, err
	}
	time.Sleep(before) // the canary must have connections
	began := bpf.Now()
	err = w.shift(0)
	ended := bpf.Now()
	sample, lerr := l.wait()
	back := w.on.shift(half)
	if err := errors.Join(err, lerr, back); err != nil {
		return Switch{}, err
	}
	return judgeSwitch(sample.Log, began, ended)
}

// ask changes the weight by the API, without a process of its own.
func (s steerer) ask(canary int) error {
	_, err := s.daemon.api.SetWeights(s.bench.ctx, serviceName, map[string]steering.Share{"canary": steering.Share(canary * 100)})
	return err
}

func printSwitches(ways []switched, by map[string][]Switch) {
	t := newTable("Switch, ms", "system", "last canary connection", "min–max", "command", "min–max", "canary after it")
	printed := map[string]bool{}
	for _, name := range namesOf(ways) {
		if printed[name] || len(by[name]) == 0 {
			continue
		}
		printed[name] = true
		var last, command []float64
		after := 0
		for _, s := range by[name] {
			last, command, after = append(last, s.Last), append(command, s.Command), after+s.After
		}
		l, c := summarize(last), summarize(command)
		t.row(name, number(l.Median), spread(l), number(c.Median), spread(c), fmt.Sprint(after))
	}
	t.flush()
}
