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
	// Arm makes the kernel's record of the release new, while the word is zero:
	// client cells, counts, breaker, latches, connection policy back to keep, and
	// another salt. The word and its epoch stay. Run then shows as Kernel.Armed.
	Arm struct{ Run int }
	// GrantLease gives the release a lease. It is not renewal, which is the
	// executor's own loop, and is refused where one has ended.
	GrantLease struct{ Lease time.Duration }
	// SetWeight stores the version's weight, only if the word still has the
	// epoch From.
	SetWeight struct {
		Share Share
		From  uint8
	}
	// Unlatch stores the weight and then, last, clears the latch of an ended
	// lease: only for releases without failSafe.
	Unlatch struct{ Share Share }
	// Rollback stores zero and puts the connection policy in force. Nothing may
	// come before it.
	Rollback struct {
		Cut    Cut
		Cause  Cause
		Reason string
	}
	// RetargetStable makes stable lead to the version's backends, or with Back to
	// those it had, and writes that down for good: tables are filled, then
	// flipped. With Back it undoes only what this run has done.
	RetargetStable struct{ Back bool }
	// Zero stores zero after stable leads to the same backends; open
	// connections are not touched.
	Zero struct{}
	// DropLease ends the lease of a release that needs none any more.
	DropLease struct{}

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
func (GrantLease) traffic() bool     { return true }
func (SetWeight) traffic() bool      { return true }
func (Unlatch) traffic() bool        { return true }
func (Rollback) traffic() bool       { return true }
func (RetargetStable) traffic() bool { return true }
func (Zero) traffic() bool           { return true }
func (DropLease) traffic() bool      { return true }
func (RunHook) traffic() bool        { return false }
func (Answer) traffic() bool         { return false }
func (Note) traffic() bool           { return false }
func (Book) traffic() bool           { return false }
func (Forget) traffic() bool         { return false }

func (a Arm) String() string        { return fmt.Sprintf("arm run %d", a.Run) }
func (a GrantLease) String() string { return fmt.Sprintf("grant a lease of %s", a.Lease) }
func (a SetWeight) String() string  { return "set the weight to " + a.Share.String() }
func (a Unlatch) String() string    { return "take up " + a.Share.String() + " again" }
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
func (DropLease) String() string { return "drop the lease" }
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
