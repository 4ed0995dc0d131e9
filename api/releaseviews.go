package api

import "time"

// ReleaseView is the state of one release.
type ReleaseView struct {
	Name     string   `json:"name"`
	Services []string `json:"services"`
	Version  string   `json:"version"`
	Phase    string   `json:"phase"`           // Pending, Progressing, Paused, Promoting, Succeeded, RollingBack, RolledBack, Aborted
	Cause    string   `json:"cause,omitempty"` // of a rollback, in a word or two: "judged worse", "lease expired"
	Reason   string   `json:"reason,omitempty"`
	Run      int      `json:"run"` // counts starts and retries

	Step        int           `json:"step"` // the one under way, from 1; 0: none
	Steps       []ReleaseStep `json:"steps"`
	HeldSeconds float64       `json:"heldSeconds"`       // of the step's hold
	Waiting     []string      `json:"waiting,omitempty"` // what keeps the step from ending
	// EditsWaiting names fields of the document that were changed while it runs,
	// and take effect at a retry.
	EditsWaiting []string `json:"editsWaiting,omitempty"`

	Weight     Share    `json:"weight"`     // asked
	ShareRatio *float64 `json:"shareRatio"` // achieved; null: no connection yet

	Verdict       string               `json:"verdict,omitempty"` // pass, fail, inconclusive, noData
	Evidence      float64              `json:"evidence"`          // that the version is worse than stable
	EvidenceLimit float64              `json:"evidenceLimit"`     // where it is rolled back: 1/falseAlarm
	MayHide       *float64             `json:"mayHide"`           // the largest rate of bad outcomes not ruled out; null: no data
	Findings      []FindingView        `json:"findings"`
	Versions      []ReleaseVersionView `json:"versions"` // stable first

	FailSafe          bool     `json:"failSafe"`
	LeaseSecondsLeft  *float64 `json:"leaseSecondsLeft"`            // null: it has none
	Breaker           string   `json:"breaker"`                     // closed, open, half-open, off
	ConnectionsLeft   *uint64  `json:"connectionsLeft,omitempty"`   // open ones of the version, after it was taken back
	Started           *Moment  `json:"started,omitempty"`           // of the run
	Changed           *Moment  `json:"changed,omitempty"`           // of the phase or step
	CanBeUndone       bool     `json:"canBeUndone,omitempty"`       // the old backends stand
	HistoryIncomplete bool     `json:"historyIncomplete,omitempty"` // it cannot be read or written

	History []DecisionView `json:"history,omitempty"` // oldest first; not in lists
}

// Moment is a time of day, and the same on CLOCK_MONOTONIC, 0 where that was
// before the host's start.
type Moment struct {
	Time time.Time `json:"time"`
	Ns   int64     `json:"ns,omitempty"`
}

// FindingView is what one check says.
type FindingView struct {
	Check    string   `json:"check"`
	Verdict  string   `json:"verdict"`
	Reason   string   `json:"reason"`
	Evidence float64  `json:"evidence,omitempty"`
	MayHide  *float64 `json:"mayHide,omitempty"`
}

// ReleaseVersionView is what a version has answered since the run began.
type ReleaseVersionView struct {
	Name          string    `json:"name"`
	Requests      uint64    `json:"requests"`
	Errors        uint64    `json:"errors"`
	ErringClients uint64    `json:"erringClients"`
	Response      Quantiles `json:"response"`
}

// DecisionView is one decision about a release, and what it was made by.
type DecisionView struct {
	Time     time.Time       `json:"time"`
	Run      int             `json:"run"`
	Step     int             `json:"step"` // from 1; 0: none
	From     string          `json:"from"` // phases
	To       string          `json:"to"`
	Weight   Share           `json:"weight"`
	Cause    string          `json:"cause,omitempty"`
	Reason   string          `json:"reason"`
	By       string          `json:"by,omitempty"` // the user who asked for it; daemon: nobody did
	Verdict  string          `json:"verdict,omitempty"`
	Evidence float64         `json:"evidence,omitempty"`
	MayHide  *float64        `json:"mayHide,omitempty"`
	Findings []FindingView   `json:"findings,omitempty"`
	Counts   []DecisionCount `json:"counts,omitempty"`
	Actions  []string        `json:"actions,omitempty"`
}

// DecisionCount is what a version had answered when a decision was made.
type DecisionCount struct {
	Version       string `json:"version"`
	Requests      uint64 `json:"requests"`
	Errors        uint64 `json:"errors"`
	ErringClients uint64 `json:"erringClients,omitempty"`
}

// Verbs of releases: what POST …/releases/NAME/VERB does.
const (
	VerbStart   = "start"
	VerbPause   = "pause"
	VerbResume  = "resume"
	VerbPromote = "promote"
	VerbAbort   = "abort"
	VerbRetry   = "retry"
	VerbUndo    = "undo"
)

// ReleaseVerbs are all there are.
func ReleaseVerbs() []string {
	return []string{VerbStart, VerbPause, VerbResume, VerbPromote, VerbAbort, VerbRetry, VerbUndo}
}

// Outcomes are results that only the caller could see: finished tasks, kept
// promises. Each report adds to those before.
type Outcomes struct {
	Success uint64 `json:"success"`
	Failure uint64 `json:"failure"`
}
