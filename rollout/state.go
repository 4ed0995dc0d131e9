package rollout

import (
	"math"
	"slices"
	"time"

	"siskin.dev/siskin/analysis"
)

// State is all that is remembered of a release between two looks. Its zero
// value is a release that waits for its start.
type State struct {
	Phase Phase `json:"phase"`
	Run   int   `json:"run"`  // counts starts and retries
	Step  int   `json:"step"` // of Plan.Steps; -1 before the first
	Plan  Plan  `json:"plan"` // of the run

	// Target is the plan's target that was seen last, also by a run that goes on
	// with the one it began with.
	Target string `json:"target,omitempty"`

	// Lost: what it did before is not known, and it may have been rolled back. So
	// it starts by command only.
	Lost bool `json:"lost,omitempty"`

	// Armed: the kernel's record was seen to be ready for this run.
	Armed bool `json:"armed,omitempty"`
	// Base is the word as it was last seen to be this release's. A word that
	// differs, and is not what the release wants, is another hand's.
	Base Word `json:"base"`
	// Confirmed: the present step's weight was seen in the kernel.
	Confirmed bool `json:"confirmed,omitempty"`

	// Closed is Kernel.Closed as it was last seen.
	Closed int `json:"closed,omitempty"`

	// Promoted: the promotion began, so stable's backends may be others. Turned:
	// stable was seen to lead to the version's.
	Promoted bool `json:"promoted,omitempty"`
	Turned   bool `json:"turned,omitempty"`

	// Times are sums of what was counted between looks, so that no jump of a
	// clock and no restart can skip or lengthen them by more than a look.
	Held time.Duration `json:"held,omitempty"` // of the present step's hold
	Over time.Duration `json:"over,omitempty"` // beyond it, without a pass
	Age  time.Duration `json:"age,omitempty"`  // of the run, pauses not counted
	Last Time          `json:"last"`           // the last look

	ByStep bool     `json:"byStep,omitempty"` // Paused by a step, not by a person
	Gate   *Gate    `json:"gate,omitempty"`   // a way up that hooks are asked about
	Tries  int      `json:"tries,omitempty"`  // of gates, over the run
	Outbox []Call   `json:"outbox,omitempty"` // hooks to tell
	Waits  []string `json:"waits,omitempty"`  // edited fields that wait for a retry

	End    Phase  `json:"end,omitempty"`    // of RollingBack: what it ends as
	Cause  Cause  `json:"cause,omitempty"`  // of the last way back
	Reason string `json:"reason,omitempty"` // of the phase, for a person
	// Waiting is what keeps the present step from ending.
	Waiting []string `json:"waiting,omitempty"`
}

// Word is a weight and the epoch of the word that held it.
type Word struct {
	Share Share `json:"share"`
	Epoch uint8 `json:"epoch"`
}

// A Gate is a transition that hooks may refuse.
type Gate struct {
	Moment  Moment        `json:"moment"`
	Next    int           `json:"next"` // the step to enter
	Try     int           `json:"try"`
	Refused string        `json:"refused,omitempty"`
	Waited  time.Duration `json:"waited,omitempty"` // since the refusal
}

// A Call is a hook that has yet to be told.
type Call struct {
	Key    string `json:"key"`
	Hook   Hook   `json:"hook"`
	Moment Moment `json:"moment"`
}

// Weight is what the release wants its version to have now.
func (s State) Weight() Share {
	switch s.Phase {
	case Progressing, Paused:
		return s.Plan.weight(s.Step)
	case Promoting:
		return Whole
	}
	return 0
}

// Claim is what the release holds.
func (s State) Claim() Claim {
	return Claim{Release: s.Plan.Release, Phase: s.Phase, Services: s.Plan.Services}
}

func (s State) clone() State {
	s.Plan = s.Plan.clone()
	s.Outbox, s.Waits, s.Waiting = slices.Clone(s.Outbox), slices.Clone(s.Waits), slices.Clone(s.Waiting)
	if s.Gate != nil {
		g := *s.Gate
		s.Gate = &g
	}
	return s
}

// Daemon is who decides what nobody asked for.
const Daemon = "daemon"

// A Decision is one change of a release, with what it was made by.
type Decision struct {
	Time     time.Time `json:"time"`
	Run      int       `json:"run"`
	Step     int       `json:"step"`
	From     Phase     `json:"from"`
	To       Phase     `json:"to"`
	Weight   Share     `json:"weight"`
	Cause    Cause     `json:"cause,omitempty"`
	Reason   string    `json:"reason"`
	By       string    `json:"by,omitempty"` // the person who asked for it, or Daemon
	Verdict  string    `json:"verdict,omitempty"`
	Evidence float64   `json:"evidence,omitempty"`
	MayHide  float64   `json:"mayHide,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
	Counts   []Count   `json:"counts,omitempty"`
	Actions  []string  `json:"actions,omitempty"`
}

// A Finding is an analysis.Finding as it is kept.
type Finding struct {
	Check    string  `json:"check"`
	Verdict  string  `json:"verdict"`
	Reason   string  `json:"reason"`
	Evidence float64 `json:"evidence,omitempty"`
	MayHide  float64 `json:"mayHide,omitempty"`
}

// judged adds what the judge said.
func (d *Decision) judged(j *Judgment) {
	if j == nil {
		return
	}
	d.Verdict, d.Evidence, d.MayHide = j.Verdict.String(), finite(j.Evidence), finite(j.MayHide)
	d.Findings, d.Counts = FindingsOf(j.Findings), slices.Clone(j.Counts)
}

// FindingsOf writes findings as they are kept.
func FindingsOf(in []analysis.Finding) []Finding {
	var out []Finding
	for _, f := range in {
		out = append(out, Finding{f.Check, f.Verdict.String(), f.Reason, finite(f.Evidence), finite(f.MayHide)})
	}
	return out
}

// finite is the number that JSON can hold: evidence grows beyond any bound.
func finite(f float64) float64 {
	switch {
	case math.IsNaN(f):
		return 0
	case math.IsInf(f, 0):
		return math.Copysign(math.MaxFloat64, f)
	}
	return f
}
