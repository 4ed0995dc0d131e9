// Package daemon wires the rooms together: it loads the programs, makes the
// maps follow the documents, attaches to interfaces, keeps all of that true
// and answers on a socket. Stopping it changes nothing in the kernel.
package daemon

import (
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"siskin.dev/siskin/loader"
)

// Defaults of the options that are paths and addresses.
const (
	DefaultStateDir = "/var/lib/siskin"
	DefaultListen   = "127.0.0.1:9464"
)

// Options say how the daemon runs.
type Options struct {
	// Files hold documents that are applied at the start, as `siskin apply`
	// would. Where they are wrong, what was applied before goes on without
	// them; without such, Run fails.
	Files []string
	// Interfaces are those that clients come by. Empty: those with a default
	// route. Interfaces that lead to backends are added by themselves.
	Interfaces []string
	// XDP are interfaces that clients come by and that are attached to by XDP.
	// They need not be in Interfaces. Where either names one, default routes
	// are not asked.
	XDP []string
	// StateDir holds the lock and what was applied. Default: DefaultStateDir.
	StateDir string
	// BPFFS is the directory for pins. Default: loader.DefaultBPFFS.
	BPFFS string
	// Socket is the path of the API's socket, and SocketGroup who may read by
	// it. Default: api.DefaultSocket and root's group.
	Socket, SocketGroup string
	// Writers are the users beside root who may change things by the socket.
	Writers []uint32
	// Listen is the address that serves /metrics, /healthz and /readyz;
	// "none": nothing is served. Default: DefaultListen.
	Listen string
	// Sizes are those of the maps, where they are not pinned yet.
	Sizes loader.Sizes
	// PortMin and PortMax bound the source ports for NAT, both inclusive.
	// Default: 61000 to 65535.
	PortMin, PortMax uint16
	// Clsact uses filters instead of tcx links.
	Clsact bool
	// NeverRedirect sends every packet through the stack, past its FORWARD
	// rules and connection tracking, also where ours could send it on.
	NeverRedirect bool
	// Version is the build's version.
	Version string
	// Logger is where the daemon logs. Default: slog.Default().
	Logger *slog.Logger
	// Stdout gets the one line that says that the daemon steers.
	Stdout io.Writer
}

func (o Options) withDefaults() Options {
	if o.StateDir == "" {
		o.StateDir = DefaultStateDir
	}
	if o.BPFFS == "" {
		o.BPFFS = loader.DefaultBPFFS
	}
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	if o.PortMin == 0 && o.PortMax == 0 {
		o.PortMin, o.PortMax = 61000, 65535
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	return o
}

// named lists the interfaces that clients come by, each once; empty: those with
// default routes.
func (o Options) named() []string {
	out := slices.Clone(o.Interfaces)
	for _, name := range o.XDP {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (o Options) lockPath() string    { return filepath.Join(o.StateDir, "lock") }
func (o Options) historyPath() string { return filepath.Join(o.StateDir, "history.db") }

func (o Options) statePath() string { return filepath.Join(o.StateDir, "state.json") }
