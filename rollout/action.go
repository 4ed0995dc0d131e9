package rollout

import (
	"errors"
	"fmt"
	"time"
)

// An Action is what the executor does. Each can be repeated without harm, and
// is, until what is observed shows that it was done.
type Action interface {
	String() string
	// traffic tells the actions that move traffic from those that tell of it.
	traffic() bool
}

type (
	// Arm makes the kernel watch the release, while the word is zero: cells,
	// counts and breaker are new, nothing is latched, the salt is another one, and
	// the lease begins. The word and its epoch stay. Kernel.Armed then shows the
	// run.
	Arm struct {
		Run   int
		Lease time.Duration // 0: none
	}
	// SetWeight stores the version's weight for a step, only if the word still
	// has the epoch From and nothing is latched.
	SetWeight struct {
		Step  int
		Share Share
		From  uint8
	}
	// Rollback stores zero, and then deals with the version's connections as the
	// policy says; Kernel.Cut then shows that. Nothing may come before it. The
	// kernel may have done it already, and need not watch the release any more.
	Rollback struct {
		Cut    Cut
		Cause  Cause
		Reason string
	}
	// RetargetStable makes stable lead to the version's backends, or with Back to
	// those it had, and writes that down for good: Kernel.Retargeted shows the
	// record, and Settled that the tables were filled and flipped. With Back it
	// undoes only what this run has done.
	RetargetStable struct{ Back bool }
	// Zero stores zero after stable leads to the same backends; open
	// connections are not touched.
	Zero struct{}
	// End makes the kernel watch the release no more, and drops its lease: the
	// weights are nobody's. Open connections go on as the policy said.
	End struct{}

	// RunHook calls a hook, unless one with its key runs or has ended. The key
	// stays the same over repeats and restarts.
	RunHook struct {
		Key    string
		Hook   Hook
		Moment Moment
		Before bool
	}
	// Answer ends a command. Err is nil where it was taken.
	Answer struct {
		ID  string
		Err error
	}
	// Note is an event for people.
	Note struct {
		Warn    bool
		Reason  string // one word, CamelCase
		Message string
	}
	// Book adds to the history.
	Book struct{ Decision Decision }
	// Forget drops the release and its state: its document is gone.
	Forget struct{}
)

func (Arm) traffic() bool            { return true }
func (SetWeight) traffic() bool      { return true }
func (Rollback) traffic() bool       { return true }
func (RetargetStable) traffic() bool { return true }
func (Zero) traffic() bool           { return true }
func (End) traffic() bool            { return true }
func (RunHook) traffic() bool        { return false }
func (Answer) traffic() bool         { return false }
func (Note) traffic() bool           { return false }
func (Book) traffic() bool           { return false }
func (Forget) traffic() bool         { return false }

func (a Arm) String() string       { return fmt.Sprintf("watch run %d under a lease of %s", a.Run, a.Lease) }
func (a SetWeight) String() string { return "set the weight to " + a.Share.String() }
func (a Rollback) String() string {
	return fmt.Sprintf("roll back, connections: %s (%s)", a.Cut.orKeep(), a.Cause)
}
func (a RetargetStable) String() string {
	if a.Back {
		return "retarget stable to its old backends"
	}
	return "retarget stable to the version's backends"
}
func (Zero) String() string      { return "set the weight to zero" }
func (End) String() string       { return "watch it no more" }
func (a RunHook) String() string { return "call hook " + a.Key }
func (a Answer) String() string  { return fmt.Sprintf("answer %s: %v", a.ID, a.Err) }
func (a Note) String() string    { return a.Reason + ": " + a.Message }
func (a Book) String() string    { return "book " + a.Decision.Reason }
func (Forget) String() string    { return "forget the release" }

// Execute carries actions out: traffic first, then the save, then what tells of
// it. Where an action on traffic fails, those after it are left for the next
// look: an order half kept is worse than a late one. The rest is done all the
// same. save gets the state that Step returned; it must not wait for a disk.
func Execute(actions []Action, do func(Action) error, save func() error) error {
	var errs []error
	stopped := false
	step := func(a Action) {
		if err := do(a); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a, err))
			stopped = stopped || a.traffic()
		}
	}
	for _, a := range actions {
		if a.traffic() && !stopped {
			step(a)
		}
	}
	if err := save(); err != nil {
		errs = append(errs, fmt.Errorf("save the release: %w", err))
	}
	for _, a := range actions {
		if !a.traffic() {
			step(a)
		}
	}
	return errors.Join(errs...)
}
