package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/daemon"
	"siskin.dev/siskin/loader"
)

// runFlags are the flags of run that are no field of daemon.Options as such.
type runFlags struct {
	ports     string
	flows     uint32
	services  uint32
	backends  uint32
	writers   []uint
	redirect  string
	cgroup    string
	logFormat string
	logLevel  string
}

func (a *app) runCommand() *cobra.Command {
	var o daemon.Options
	var f runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Steer connections: the daemon",
		Long: `Run loads the programs into the kernel, attaches them to the interfaces that
clients come by, and keeps the kernel's tables as the documents say. It prints
one line when it steers, and logs to the standard error.

Without --interface or --xdp it takes those with default routes; interfaces that
lead to backends are added by themselves. What was applied before is remembered in the
state directory; -f applies more at the start.

When it is stopped or killed, the kernel goes on steering by the last weights;
a new daemon, also of another build, takes over. siskin uninstall ends it.`,
		Example: `  sudo siskin run -f checkout.yaml
  sudo siskin run --interface eth0,eth1 --listen 0.0.0.0:9464
  sudo siskin run --xdp eth0`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.complete(&o, f); err != nil {
				return err
			}
			return daemon.Run(c.Context(), o)
		},
	}
	flags := c.Flags()
	flags.StringSliceVarP(&o.Files, "file", "f", nil, "documents to apply at the start; repeat it, or separate with commas")
	flags.StringSliceVar(&o.Interfaces, "interface", nil, "the interfaces that clients come by (default those with default routes)")
	flags.StringSliceVar(&o.XDP, "xdp", nil, "interfaces that clients come by, to attach to by XDP in native mode")
	flags.StringVar(&o.StateDir, "state-dir", daemon.DefaultStateDir, "where to remember what was applied")
	flags.StringVar(&o.BPFFS, "bpffs", loader.DefaultBPFFS, "where to pin maps and links")
	flags.StringVar(&o.SocketGroup, "socket-group", "", "the group that may read by the socket (default root's)")
	flags.UintSliceVar(&f.writers, "writer", nil, "a user id that may change things by the socket, beside root")
	flags.StringVar(&o.Listen, "listen", daemon.DefaultListen, "where to serve /metrics, /healthz and /readyz; none for nowhere")
	flags.Uint32Var(&f.flows, "flows", 0, "how many connections the table holds (default 262144; a pinned table keeps its size)")
	flags.Uint32Var(&f.services, "services", 0, "how many services the tables hold, with two versions each (default 511 services and versions; pinned tables keep their size)")
	flags.Uint32Var(&f.backends, "backends", 0, "how many backends the tables hold (default 4095; pinned tables keep their size)")
	flags.StringVar(&f.ports, "source-ports", defaultPorts, "source ports for NAT; must not overlap net.ipv4.ip_local_port_range")
	flags.BoolVar(&o.Clsact, "clsact", false, "attach by filters, as on kernels before 6.6, although tcx is there")
	flags.StringVar(&f.redirect, "redirect", "auto", "whether packets may pass by the stack, with its FORWARD rules and connection tracking: auto, never")
	flags.StringVar(&f.logFormat, "log-format", "text", "how to log: text, json")
	flags.StringVar(&f.logLevel, "log-level", "info", "what to log: debug, info, warn, error")
	flags.StringVar(&f.cgroup, "cgroup", "", "steer clients on this host in this cgroup (not in this version)")
	return c
}

// complete fills in what the flags cannot write themselves.
func (a *app) complete(o *daemon.Options, f runFlags) error {
	if f.cgroup != "" {
		return usage("--cgroup comes in a later version of siskin: clients on this host itself are not steered yet")
	}
	switch f.redirect {
	case "auto":
	case "never":
		o.NeverRedirect = true
	default:
		return usage("--redirect %s is not known: write auto or never", f.redirect)
	}
	var err error
	if o.PortMin, o.PortMax, err = portRange(f.ports); err != nil {
		return err
	}
	for _, uid := range f.writers {
		o.Writers = append(o.Writers, uint32(uid))
	}
	if o.Logger, err = logger(a.err, f.logFormat, f.logLevel); err != nil {
		return err
	}
	if o.Sizes, err = loader.SizesFor(f.services, f.backends); err != nil {
		return usage("--services, --backends: %w", err)
	}
	o.Sizes.Flows = f.flows
	o.Socket = a.socket
	o.Version = buildVersion()
	o.Stdout = a.out
	return nil
}

func logger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("--log-level %s is not known: write debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, usage("--log-format %s is not known: write text or json", format)
}
