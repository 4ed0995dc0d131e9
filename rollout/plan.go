package rollout

import (
	"fmt"
	"slices"
	"time"
)

// A Plan is what a release shall do. It is made from the release's document;
// while a release runs, the plan it began with is part of its State.
type Plan struct {
	Release  string   `json:"release"`
	Services []string `json:"services"`
	Version  string   `json:"version"`
	Steps    []Hold   `json:"steps"`

	// What may change while the release runs.
	AbortAfter time.Duration `json:"abortAfter,omitempty"` // inconclusive so long beyond a hold; 0: holds on
	Cut        Cut           `json:"cut"`
	Deadline   time.Duration `json:"deadline,omitempty"` // of the whole run, pauses not counted; 0: none
	Hooks      []Hook        `json:"hooks,omitempty"`
	AutoStart  bool          `json:"autoStart,omitempty"`

	// What may not.
	FailSafe bool          `json:"failSafe"` // the weights count only under a lease
	Lease    time.Duration `json:"lease"`
	// Judge is the executor's: checks, breaker and limits. It is carried in the
	// state, so that a run is judged by one rule from end to end.
	Judge string `json:"judge,omitempty"`
	// Target stands for the version's own backends. When it changes, and nothing
	// else of the services counts, a finished release may start again. What it has
	// promoted stays stable, and can be undone no more: the new run is compared
	// with it. The old backends come back as a version that is released.
	Target string `json:"target,omitempty"`
}

// A Hold is one step: a weight, for how long, and whether a person ends it.
type Hold struct {
	Weight Share         `json:"weight,omitempty"` // 0: as in the step before
	For    time.Duration `json:"for,omitempty"`
	Pause  bool          `json:"pause,omitempty"`
}

// A Cut is what becomes of the version's connections at a rollback.
type Cut struct {
	Connections string        `json:"connections,omitempty"` // keep, drain, reset; "" is keep
	Deadline    time.Duration `json:"deadline,omitempty"`    // of drain
}

// orKeep is the policy with its default.
func (c Cut) orKeep() string {
	if c.Connections == "" {
		return "keep"
	}
	return c.Connections
}

// A Moment is a transition that hooks are called at.
type Moment string

// Moments. Only the first three can be waited for.
const (
	AtStart    Moment = "start"
	AtStep     Moment = "step"
	AtPromote  Moment = "promote"
	AtPause    Moment = "pause"
	AtRollback Moment = "rollback"
	AtAbort    Moment = "abort"
	AtUndo     Moment = "undo"
)

// A Hook is called at moments. What it does, the executor knows by its name.
type Hook struct {
	Name   string   `json:"name"`
	Before []Moment `json:"before,omitempty"`
	After  []Moment `json:"after,omitempty"`
	Call   string   `json:"call,omitempty"` // the executor's: URL or command, and its timeout
}

// weight is what step i gives to the version.
func (p Plan) weight(i int) Share {
	for i = min(i, len(p.Steps)-1); i >= 0; i-- {
		if w := p.Steps[i].Weight; w > 0 {
			return min(w, Whole)
		}
	}
	return 0
}

// clone keeps the plan of a state from sharing memory with another's.
func (p Plan) clone() Plan {
	p.Services, p.Steps, p.Hooks = slices.Clone(p.Services), slices.Clone(p.Steps), slices.Clone(p.Hooks)
	return p
}

// edited returns the plan of a run after its document changed: only what does
// not change what is under way takes effect. waits names the fields that wait
// for a retry.
func (p Plan) edited(now Plan) (next Plan, waits []string) {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"services", slices.Equal(p.Services, now.Services)},
		{"version", p.Version == now.Version},
		{"strategy", slices.Equal(p.Steps, now.Steps)},
		{"failSafe", p.FailSafe == now.FailSafe},
		{"lease", p.Lease == now.Lease},
		{"checks, breaker or limits", p.Judge == now.Judge},
		{"the version's backends", p.Target == now.Target},
	} {
		if !f.same {
			waits = append(waits, f.name)
		}
	}
	next = p.clone()
	now = now.clone()
	next.AbortAfter, next.Cut, next.Deadline = now.AbortAfter, now.Cut, now.Deadline
	next.Hooks, next.AutoStart = now.Hooks, now.AutoStart
	return next, waits
}

// A Claim is a release and what it holds.
type Claim struct {
	Release  string
	Phase    Phase
	Services []string
}

// Claimed returns the active release, other than the one named, that holds one
// of the services, and the service; "" when there is none.
func Claimed(release string, services []string, others []Claim) (holder, service string) {
	for _, c := range others {
		if c.Release == release || !c.Phase.Active() {
			continue
		}
		for _, s := range services {
			if slices.Contains(c.Services, s) {
				return c.Release, s
			}
		}
	}
	return "", ""
}

// WeightsFree returns an error that says what to do while a release holds the
// weights of a service.
func WeightsFree(service string, releases []Claim) error {
	holder, _ := Claimed("", []string{service}, releases)
	if holder == "" {
		return nil
	}
	return fmt.Errorf("the weights of %s belong to release %s while it runs: siskin release abort %s takes everything back to stable, "+
		"siskin release promote %s goes on to its next step", service, holder, holder, holder)
}
