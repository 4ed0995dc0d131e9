// Package rollout is the state machine of releases: what to do next, given the
// plan, the state so far and what is seen of the world. It holds no clock, map,
// file or socket: an executor observes, calls Step, carries the actions out and
// saves the state.
package rollout

import (
	"fmt"
	"strconv"
)

// A Share is a part of the new connections, in steps of 0.01 %.
type Share uint16

// Whole is a share of 100 %.
const Whole Share = 10000

// String writes the share as the documents do: "5%", "0.01%".
func (s Share) String() string {
	return strconv.FormatFloat(float64(s)/100, 'f', -1, 64) + "%"
}

// A Phase is where a release stands.
type Phase int

// Phases of a release. Succeeded, RolledBack and Aborted are final: all of the
// traffic is at stable, which after Succeeded is the new version.
const (
	Pending     Phase = iota // waits for start
	Progressing              // goes up, or holds a step
	Paused                   // holds until a person goes on
	Promoting                // the version becomes stable
	Succeeded
	RollingBack // everything goes to stable
	RolledBack
	Aborted
	phases int = iota
)

func phaseNames() [phases]string {
	return [...]string{"Pending", "Progressing", "Paused", "Promoting", "Succeeded", "RollingBack", "RolledBack", "Aborted"}
}

func (p Phase) String() string {
	if p < 0 || int(p) >= phases {
		return fmt.Sprintf("Phase(%d)", int(p))
	}
	return phaseNames()[p]
}

// Phases are all there are.
func Phases() []Phase {
	var out []Phase
	for p := range phases {
		out = append(out, Phase(p))
	}
	return out
}

// MarshalText writes the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a phase's name.
func (p *Phase) UnmarshalText(b []byte) error {
	for i, name := range phaseNames() {
		if name == string(b) {
			*p = Phase(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not a phase of a release", b)
}

// Final tells whether nothing more happens by itself.
func (p Phase) Final() bool { return p == Succeeded || p == RolledBack || p == Aborted }

// Active tells whether the release owns its services' weights.
func (p Phase) Active() bool { return p != Pending && !p.Final() }

// A Verb is a command that a person gives.
type Verb int

// Verbs.
const (
	Start Verb = iota
	Pause
	Resume
	Promote // ends the step at once
	PromoteFull
	Abort
	Retry
	Undo
	// TakeBack: a person has given everything of its services to stable, by siskin
	// rollback and not by the release.
	TakeBack
	verbs int = iota
)

func (v Verb) String() string {
	names := [verbs]string{"start", "pause", "resume", "promote", "promote --full", "abort", "retry", "undo", "rollback"}
	if v < 0 || int(v) >= verbs {
		return fmt.Sprintf("Verb(%d)", int(v))
	}
	return names[v]
}

// Verbs are all there are.
func Verbs() []Verb {
	var out []Verb
	for v := range verbs {
		out = append(out, Verb(v))
	}
	return out
}

// A Cause says in one word why a release goes, or went, back.
type Cause string

// Causes.
const (
	ByAbort       Cause = "aborted"
	ByHand        Cause = "rolled back by hand"
	ByJudge       Cause = "judged worse"
	ByBreaker     Cause = "breaker tripped"
	ByLease       Cause = "lease expired"
	ByDeadline    Cause = "deadline passed"
	Undecided     Cause = "inconclusive"
	Unfit         Cause = "no healthy backend"
	ByDelete      Cause = "deleted"
	ByUndo        Cause = "undone"
	FoundAtStable Cause = "found at stable"
	LeftOver      Cause = "left over"
)
