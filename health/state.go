// Package health probes backends and says which of them answer.
//
// Its middle is pure: the standing of a backend and one result give its next
// standing (state.go), and what may be told of a version at a time follows from
// the standings of its backends (board.go). Around it are the probes, which are
// thin, and the Checker, which runs them by the clock.
package health

import "time"

// State is what is known of a backend.
type State uint8

const (
	// Starting: it is new, and has not answered yet.
	Starting State = iota
	// Up: it answers.
	Up
	// Down: it does not.
	Down
)

func (s State) String() string {
	switch s {
	case Starting:
		return "starting"
	case Up:
		return "up"
	}
	return "down"
}

// Rules say how often a backend is asked, and how many answers change what is
// known of it. All are above zero.
type Rules struct {
	Interval time.Duration // from probe to probe
	Timeout  time.Duration // of one probe
	Rise     int           // successes in a row after which what was down is up
	Fall     int           // failures in a row after which what was up is down
	// StartInterval and StartFailures are Interval and Fall while it is
	// starting. Its first success ends that.
	StartInterval time.Duration
	StartFailures int
}

// A Standing is where a backend stands.
type Standing struct {
	State State
	// Row counts the latest results that were all alike: successes above zero,
	// failures below.
	Row int
}

// After returns the standing after one more result.
func (s Standing) After(ok bool, r Rules) Standing {
	switch {
	case ok && s.Row > 0:
		s.Row++
	case ok:
		s.Row = 1
	case s.Row < 0:
		s.Row--
	default:
		s.Row = -1
	}
	switch s.State {
	case Starting:
		if ok {
			s.State = Up
		} else if -s.Row >= r.StartFailures {
			s.State = Down
		}
	case Up:
		if -s.Row >= r.Fall {
			s.State = Down
		}
	case Down:
		if s.Row >= r.Rise {
			s.State = Up
		}
	}
	return s
}

// interval is how long the next probe comes after the last.
func (r Rules) interval(s State) time.Duration {
	if s == Starting {
		return r.StartInterval
	}
	return r.Interval
}
