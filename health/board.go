package health

import (
	"slices"
	"time"
)

// A Report is what the last probes of a backend came to.
type Report struct {
	State   State     // as it was told
	Row     int       // as in Standing
	Error   string    // of the last probe; "": it was a success
	At      time.Time // of the last probe; zero: there was none yet
	Latency time.Duration
}

// A Change is a backend that has another state.
type Change struct {
	Backend
	From, To State
	Row      int       // results in a row that led to it, as in Standing
	Error    string    // the last one's
	At       time.Time // of the last result: from here on it could be known
}

// entry is one backend on the board.
type entry struct {
	backend  Backend
	standing Standing
	report   Report
	held     bool // it is up, and that is not told yet
	waited   bool // and was up at another probe since
}

// A board holds the backends of one family of a version: what shares a table.
type board struct{ entries []*entry }

// settle tells what has become of the entries. A fall is told at once, and so is
// a rise beside one that is up. Where nothing is up and others are about to rise
// as well, they are told together, so that not all clients are given to whoever
// was asked first. One that is up at its next probe still waits no longer.
func (b *board) settle() []Change {
	together := true
	for _, e := range b.entries {
		if e.report.State == Up && e.standing.State == Up || e.waited {
			together = false
		}
	}
	together = together && slices.ContainsFunc(b.entries, (*entry).coming)
	var out []Change
	for _, e := range b.entries {
		switch {
		case e.report.State == e.standing.State:
		case e.standing.State == Up && together:
			e.held = true
		default:
			out = append(out, e.tell())
		}
	}
	return out
}

// tell makes the present standing what was told.
func (e *entry) tell() Change {
	from := e.report.State
	e.report.State, e.held, e.waited = e.standing.State, false, false
	return Change{Backend: e.backend, From: from, To: e.standing.State, Row: e.report.Row, Error: e.report.Error, At: e.report.At}
}

// coming tells whether the next result may make a backend rise.
func (e *entry) coming() bool {
	return e.standing.State != Up && (e.standing.Row > 0 || e.standing.State == Starting && e.report.At.IsZero())
}

// hear takes in one result.
func (e *entry) hear(err string, at time.Time, took time.Duration, r Rules) (changed bool) {
	before := e.standing.State
	e.standing = e.standing.After(err == "", r)
	e.report.Row, e.report.Error, e.report.At, e.report.Latency = e.standing.Row, err, at, took
	switch {
	case e.standing.State != Up:
		e.held, e.waited = false, false
	case e.held:
		e.waited = true
	}
	return e.standing.State != before || e.held
}
