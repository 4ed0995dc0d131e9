package api

import "time"

// The views are what the HTTP API serves. Shares that were asked for are
// written as in the documents ("5%"); what was achieved is a ratio (0.0497).
// Fields that end in Ns are CLOCK_MONOTONIC nanoseconds, the kernel programs'
// own clock, 0 where it never happened; durations are in seconds.

// ServiceView is the state of one service.
type ServiceView struct {
	Name                  string        `json:"name"`
	Group                 string        `json:"group,omitempty"` // services that share a weight word
	Frontends             []Frontend    `json:"frontends"`
	Affinity              string        `json:"affinity"`
	SourceNAT             string        `json:"sourceNAT"`
	Observe               string        `json:"observe"` // what is read in its connections
	ConnectionsOnRollback string        `json:"connectionsOnRollback"`
	Epoch                 uint8         `json:"epoch"`                      // of the weight word
	WeightsChanged        *time.Time    `json:"weightsChanged,omitempty"`   // shareRatio counts from here; null: from the start
	WeightsChangedNs      int64         `json:"weightsChangedNs,omitempty"` // the same, monotonic
	Versions              []VersionView `json:"versions"`                   // stable first
	Problems              []string      `json:"problems,omitempty"`         // what keeps it from working, and what to do
}

// VersionView is one version of a service.
type VersionView struct {
	Name           string        `json:"name"`
	Weight         Share         `json:"weight"`     // asked
	ShareRatio     *float64      `json:"shareRatio"` // of the service's connections; null: it had none
	Traffic        Traffic       `json:"traffic"`
	Connect        Quantiles     `json:"connect"`  // SYN to SYN-ACK
	Response       Quantiles     `json:"response"` // request to first response byte
	LastSelectedNs uint64        `json:"lastSelectedNs"`
	Backends       []BackendView `json:"backends"`
}

// Traffic is what was counted for a backend, or summed over a version. The
// counters never go back while the service exists, also not over restarts.
type Traffic struct {
	Opened      uint64    `json:"opened"`
	Active      uint64    `json:"active"` // open now
	Established uint64    `json:"established"`
	Closed      uint64    `json:"closed"`
	Errors      Errors    `json:"errors"`
	Packets     Direction `json:"packets"`
	Bytes       Direction `json:"bytes"` // payload, each byte of a TCP stream once
	Retransmits Direction `json:"retransmits"`
}

// Errors counts failed connections by their reason.
type Errors struct {
	Refused     uint64 `json:"refused"`     // RST to the SYN
	Timeout     uint64 `json:"timeout"`     // no answer to three SYNs
	Reset       uint64 `json:"reset"`       // RST by the server before it answered
	Unreachable uint64 `json:"unreachable"` // ICMP unreachable to the handshake
	TLS         uint64 `json:"tls"`         // a fatal alert in the TLS handshake, where the server is to blame
}

// Sum is the number of failed connections.
func (e Errors) Sum() uint64 { return e.Refused + e.Timeout + e.Reset + e.Unreachable + e.TLS }

// Direction is a count each way: in is from the client to the server.
type Direction struct {
	In  uint64 `json:"in"`
	Out uint64 `json:"out"`
}

// Quantiles are read from a latency histogram, in seconds.
type Quantiles struct {
	Count uint64   `json:"count"`
	P50   *float64 `json:"p50"` // null: no data
	P99   *float64 `json:"p99"`
}

// BackendView is one backend of one version.
type BackendView struct {
	Service        string     `json:"service"`
	Version        string     `json:"version"`
	Address        string     `json:"address"`             // ip:port
	ID             uint32     `json:"id"`                  // in the kernel's maps
	Weight         uint32     `json:"weight"`              // relative, inside its version
	State          string     `json:"state"`               // active, starting (it has not answered yet), draining, down; retired: removed, its connections go on
	Path           string     `json:"path"`                // host, local (a namespace or container here), remote, unknown (no route)
	Interface      string     `json:"interface,omitempty"` // by which it is reached
	Shared         bool       `json:"shared,omitempty"`    // several frontends lead to its address
	Traffic        Traffic    `json:"traffic"`
	LastSelectedNs uint64     `json:"lastSelectedNs"`
	LastCheck      *CheckView `json:"lastCheck,omitempty"` // null: it is not checked, or was not yet
}

// CheckView is what the last health check of a backend came to.
type CheckView struct {
	Time    time.Time `json:"time"`
	Error   string    `json:"error,omitempty"` // "": a success
	Row     int       `json:"row"`             // results in a row that were alike: successes above zero, failures below
	Seconds float64   `json:"seconds"`         // that it took
}

// FlowView is one connection.
type FlowView struct {
	Client      string  `json:"client"` // ip:port
	Frontend    string  `json:"frontend"`
	Service     string  `json:"service"`
	Version     string  `json:"version"`
	Backend     string  `json:"backend"` // ip:port
	State       string  `json:"state"`   // one of the Flow… constants
	AgeSeconds  float64 `json:"ageSeconds"`
	IdleSeconds float64 `json:"idleSeconds"`
	OpenedNs    uint64  `json:"openedNs"`
	SourcePort  uint16  `json:"sourcePort"` // the source port the backend sees
	SourceNAT   bool    `json:"sourceNAT"`  // it sees the host's address, too
}

// States of a flow.
const (
	FlowSyn         = "syn" // the handshake is going on; UDP: no reply yet
	FlowEstablished = "established"
	FlowClosing     = "closing" // one side is done
	FlowClosed      = "closed"
)

// FlowFilter says which flows are wanted; an empty field takes all.
type FlowFilter struct {
	Service string `json:"service,omitempty"`
	Version string `json:"version,omitempty"`
	Backend string `json:"backend,omitempty"` // ip:port
	Client  string `json:"client,omitempty"`  // ip, without the port
	State   string `json:"state,omitempty"`
}

// FlowList is a part of the flow table.
type FlowList struct {
	Flows     []FlowView `json:"flows"`
	Matched   uint64     `json:"matched"`  // flows that matched, also those beyond the limit
	Entries   uint64     `json:"entries"`  // in the whole table
	Capacity  uint64     `json:"capacity"` // of the table
	Truncated bool       `json:"truncated"`
}

// Event is something that happened and that a person may want to know.
type Event struct {
	Seq     uint64    `json:"seq"` // counts up from 1 since the daemon's start
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`   // EventNormal or EventWarning
	Reason  string    `json:"reason"` // one word, CamelCase: WeightsChanged, LinkReattached
	Object  string    `json:"object"` // service/checkout, interface/eth0
	Message string    `json:"message"`
}

// Types of events.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

// ApplyResult says what an apply did, or in a dry run would do.
type ApplyResult struct {
	DryRun  bool           `json:"dryRun"`
	Objects []ObjectResult `json:"objects"` // in the order of the documents
}

// ObjectResult is what happened to one document.
type ObjectResult struct {
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Outcome  string   `json:"outcome"`            // one of the Outcome… constants
	Diff     []string `json:"diff,omitempty"`     // lines that begin with "- " or "+ "
	Warnings []string `json:"warnings,omitempty"` // applied, but the user should know
}

// What an apply does to an object.
const (
	OutcomeCreated   = "created"
	OutcomeChanged   = "changed"
	OutcomeUnchanged = "unchanged"
)

// WeightResult says what a change of weights did.
type WeightResult struct {
	Service string           `json:"service"`
	Old     map[string]Share `json:"old"` // every version, also stable
	New     map[string]Share `json:"new"`
	// Taken just before and just after the 64-bit store: a connection whose
	// openedNs is above StoredAfterNs was chosen by the new weights.
	StoredBeforeNs int64   `json:"storedBeforeNs"`
	StoredAfterNs  int64   `json:"storedAfterNs"`
	StoreMicros    float64 `json:"storeMicroseconds"` // between the two
}

// RollbackResult says what a rollback did.
type RollbackResult struct {
	Services []RolledBack `json:"services"`
	// RequestedNs is when the daemon began to read the request, StoredNs when
	// the last word was written.
	RequestedNs int64   `json:"requestedNs"`
	StoredNs    int64   `json:"storedNs"`
	TookMicros  float64 `json:"tookMicroseconds"` // between the two
}

// RolledBack is one service of a rollback.
type RolledBack struct {
	Service        string           `json:"service"`
	Before         map[string]Share `json:"before"` // every version, also stable
	StoredBeforeNs int64            `json:"storedBeforeNs"`
	StoredAfterNs  int64            `json:"storedAfterNs"`
	Connections    string           `json:"connections"` // what becomes of open ones: keep, drain, reset
}

// DoctorReport lists what was checked on a host.
type DoctorReport struct {
	Checks []Check `json:"checks"`
}

// Check is one finding of the doctor.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warn, fail, info
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"` // what to do, as a command where there is one
}

// VersionInfo says which build is running.
type VersionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Layout  int    `json:"layout"` // of the pinned maps
	Kernel  string `json:"kernel,omitempty"`
}
