package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
)

func (a *app) getCommand() *cobra.Command {
	var watch bool
	get := &cobra.Command{
		Use:   "get services|releases|backends|requests|flows|events [NAME]",
		Short: "Show services, releases, backends, requests, flows or events",
		Long: `Get shows what the daemon knows. It never changes anything.

With -w it stays and shows again what changed; -o json then prints one line
for each state or event, to be read by another program.`,
		Example: `  siskin get services
  siskin get services checkout -o json
  siskin get backends -w
  siskin get requests checkout -w
  siskin get flows checkout --version canary
  siskin get events -w`,
		RunE: func(_ *cobra.Command, args []string) error {
			const nouns = "services, releases, backends, requests, flows or events"
			if len(args) == 0 {
				return usage("get what? Write one of %s", nouns)
			}
			return usage("%q cannot be shown: write one of %s", args[0], nouns)
		},
	}
	get.PersistentFlags().BoolVarP(&watch, "watch", "w", false, "stay, and show again what changed")
	get.AddCommand(a.getServices(&watch), a.getReleases(&watch), a.getBackends(&watch), a.getRequests(&watch), a.getFlows(&watch), a.getEvents(&watch))
	return get
}

func (a *app) getServices(watch *bool) *cobra.Command {
	return &cobra.Command{
		Use:     "services [NAME]",
		Aliases: []string{"service"},
		Short:   "Weights asked and shares achieved, connections, errors, latencies",
		Long: `Services shows, for each version of each service, the weight that was asked
for, the share of new connections it really got since the weights changed last,
connections and failures, and the time to connect (SYN to SYN-ACK) and to the
first byte of the response, as the 50th and 99th of 100.`,
		Example:           "  siskin get services checkout -o wide",
		Args:              takes(0, 1),
		ValidArgsFunction: a.serviceNames,
		RunE: shows(a, watch, "service", func(s api.ServiceView) string { return s.Name }, api.Client.Services, api.Client.WatchServices,
			func(services []api.ServiceView, wide bool) table {
				for _, s := range services {
					for _, p := range s.Problems {
						a.warnf("service/%s: %s", s.Name, p)
					}
				}
				return servicesTable(services, wide)
			}),
	}
}

func (a *app) getBackends(watch *bool) *cobra.Command {
	return &cobra.Command{
		Use:     "backends [SERVICE]",
		Aliases: []string{"backend"},
		Short:   "Where connections go, and how they fare there",
		Long: `Backends shows each backend of each version. Its path tells how this host
reaches it: an address of the host itself, local (a namespace or container
here), remote, or unknown when there is no route. A retired backend was removed
and still has connections.`,
		Example:           "  siskin get backends checkout -w",
		Args:              takes(0, 1),
		ValidArgsFunction: a.serviceNames,
		RunE: shows(a, watch, "service", func(b api.BackendView) string { return b.Service },
			api.Client.Backends, api.Client.WatchBackends, backendsTable),
	}
}

func (a *app) getFlows(watch *bool) *cobra.Command {
	var filter api.FlowFilter
	limit := 1000
	c := &cobra.Command{
		Use:     "flows [SERVICE]",
		Aliases: []string{"flow"},
		Short:   "The connections that are steered now",
		Long: `Flows shows connections and the backends that they were given. The table may
hold hundreds of thousands: filter them, or raise --limit.`,
		Example: `  siskin get flows checkout --version canary --state established
  siskin get flows --client 198.18.0.7`,
		Args:              takes(0, 1),
		ValidArgsFunction: a.serviceNames,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				filter.Service = args[0]
			}
			states := []string{"", api.FlowSyn, api.FlowEstablished, api.FlowClosing, api.FlowClosed}
			if !slices.Contains(states, filter.State) {
				return usage("--state %s is not known: write syn, established, closing or closed", filter.State)
			}
			show := func() error {
				list, err := a.client().Flows(c.Context(), filter, limit)
				if err != nil {
					return err
				}
				if list.Truncated {
					a.warnf("%d of %d flows are shown: filter them, or raise --limit", len(list.Flows), list.Matched)
				}
				return a.show(*watch, list, flowsTable(list, a.wide()))
			}
			if *watch {
				return ended(c.Context(), every(c.Context(), time.Second, show))
			}
			return show()
		},
	}
	f := c.Flags()
	f.StringVar(&filter.Version, "version", "", "only flows of this version")
	f.StringVar(&filter.Backend, "backend", "", "only flows to this backend, as ip:port")
	f.StringVar(&filter.Client, "client", "", "only flows of this client address")
	f.StringVar(&filter.State, "state", "", "only flows in this state: syn, established, closing, closed")
	f.IntVar(&limit, "limit", limit, "show at most this many")
	return c
}

func (a *app) getEvents(watch *bool) *cobra.Command {
	return &cobra.Command{
		Use:     "events",
		Aliases: []string{"event"},
		Short:   "What happened since the daemon started",
		Long: `Events shows the last things that happened: objects applied, weights changed,
what releases did and why, links re-attached, interfaces gone, mistakes. The
daemon keeps a thousand; releases keep their own history over restarts, which
siskin release status NAME -o wide shows.`,
		Example: "  siskin get events -w -o json",
		Args:    takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if *watch {
				return ended(c.Context(), a.client().WatchEvents(c.Context(), 0, func(e api.Event) error {
					if done, err := a.line(e); done && a.output != "table" && a.output != "wide" {
						return err
					}
					_, err := fmt.Fprintln(a.out, eventLine(e))
					return err
				}))
			}
			events, err := a.client().Events(c.Context(), 0)
			if err != nil {
				return err
			}
			if done, err := a.structured(events); done {
				return err
			}
			for _, e := range events {
				a.printf("%s\n", eventLine(e))
			}
			return nil
		},
	}
}

// shows makes what a command does that shows a list, or what in it belongs to
// the object of a kind that is named.
func shows[T any](a *app, watch *bool, kind string, name func(T) string, list func(api.Client, context.Context) ([]T, error),
	follow func(api.Client, context.Context, func([]T) error) error, draw func([]T, bool) table,
) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		show := func(all []T) error {
			all, err := named(kind, all, args, name)
			if err != nil {
				return err
			}
			return a.show(*watch, all, draw(all, a.wide()))
		}
		if *watch {
			return ended(c.Context(), follow(a.client(), c.Context(), show))
		}
		all, err := list(a.client(), c.Context())
		if err != nil {
			return err
		}
		return show(all)
	}
}

// show prints one state: as JSON or YAML, or as a table, which in a watch on
// a terminal takes the place of the one before.
func (a *app) show(watch bool, v any, t table) error {
	if a.output == "json" || a.output == "yaml" {
		print := a.structured
		if watch {
			print = a.line
		}
		_, err := print(v)
		return err
	}
	if watch && a.terminal() {
		a.printf("\x1b[H\x1b[2J")
	}
	if !a.colors() {
		t.tint = nil
	}
	return t.write(a.out)
}

// named keeps what belongs to the object in args, if one is named.
func named[T any](kind string, list []T, args []string, name func(T) string) ([]T, error) {
	if len(args) == 0 {
		return list, nil
	}
	list = slices.DeleteFunc(list, func(v T) bool { return name(v) != args[0] })
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no %s %q: %w; siskin get %ss lists them", kind, args[0], api.ErrNotFound, kind)
	}
	return list, nil
}

// every calls do at once and then each interval, until it fails or ctx ends.
func every(ctx context.Context, interval time.Duration, do func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := do(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// ended makes a watch that the user ended a success.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
