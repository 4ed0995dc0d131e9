package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

func (a *app) weightCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "weight SERVICE [VERSION=PERCENT...]",
		Short: "Show the weights of a service, or set them at once",
		Long: `Weight shows what share of new connections each version of a service gets, or
sets it. The versions that are not named keep theirs; stable gets the rest. All
that are named change at one instant, by one 64-bit store. Open connections
stay where they are.

Shares go in steps of 0.01 %. The percent sign may be left out here.`,
		Example: `  siskin weight checkout
  siskin weight checkout canary=5%
  siskin weight checkout canary=0.01% baseline=0.01%
  siskin weight checkout canary=0`,
		Args: takes(1, -1),
		ValidArgsFunction: func(c *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.serviceNames(c, args, s)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.showWeights(c, args[0])
			}
			shares, err := parseShares(args[1:])
			if err != nil {
				return err
			}
			result, err := a.client().SetWeights(c.Context(), args[0], shares)
			if err != nil {
				return err
			}
			if done, err := a.structured(result); done {
				return err
			}
			var changes []string
			for _, v := range versionsOf(result.New) {
				changes = append(changes, fmt.Sprintf("%s %s → %s", v, result.Old[v], result.New[v]))
			}
			a.printf("%s: %s (stored in %s)\n", result.Service, strings.Join(changes, ", "), micros(result.StoreMicros))
			return nil
		},
	}
}

func (a *app) showWeights(c *cobra.Command, service string) error {
	v, err := a.client().Service(c.Context(), service)
	if err != nil {
		return err
	}
	if a.output == "json" || a.output == "yaml" {
		w := api.Weights{Weights: map[string]api.Share{}}
		for _, version := range v.Versions {
			w.Weights[version.Name] = version.Weight
		}
		_, err := a.structured(w)
		return err
	}
	t := table{head: []string{"VERSION", "WEIGHT", "SHARE"}}
	for _, version := range v.Versions {
		t.row(version.Name, version.Weight.String(), ratio(version.ShareRatio))
	}
	return t.write(a.out)
}

// parseShares reads VERSION=PERCENT arguments.
func parseShares(args []string) (map[string]steering.Share, error) {
	out := map[string]steering.Share{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, usage("%q is not a weight: write VERSION=PERCENT, as in canary=5%%", arg)
		}
		if _, twice := out[name]; twice {
			return nil, usage("%s is named twice: name each version once", name)
		}
		share, err := api.ParseShare(strings.TrimSuffix(text, "%") + "%")
		if err != nil {
			return nil, usage("%s: %w", name, err)
		}
		out[name] = steering.Share(share)
	}
	return out, nil
}

// versionsOf returns the names with stable first.
func versionsOf(shares map[string]api.Share) []string {
	names := slices.Sorted(maps.Keys(shares))
	if i := slices.Index(names, steering.Stable); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, steering.Stable)
	}
	return names
}

func micros(us float64) string { return human(time.Duration(us * float64(time.Microsecond))) }

func (a *app) rollbackCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "rollback SERVICE... | --all",
		Short: "Everything to stable, now",
		Long: `Rollback gives all new connections of the named services to stable, by one
64-bit store each. Open connections go on, unless the service's
connectionsOnRollback says reset, or drain. It changes no document: siskin weight
brings a version back.`,
		Example: `  siskin rollback checkout
  siskin rollback --all`,
		ValidArgsFunction: a.serviceNames,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usage("either name services or say --all, not both")
			case !all && len(args) == 0:
				return usage("which services? %s", a.wouldRollBack(c))
			}
			result, err := a.client().Rollback(c.Context(), args, all)
			if err != nil {
				return err
			}
			if done, err := a.structured(result); done {
				return err
			}
			for _, s := range result.Services {
				a.printf("%s: everything to stable (%s)%s\n", s.Service, had(s.Before), openConnections(s.Connections))
			}
			a.printf("stored %s after the request\n", micros(result.TookMicros))
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all services")
	return c
}

// openConnections says what becomes of them, if they do not simply go on.
func openConnections(policy string) string {
	switch policy {
	case "reset":
		return ", open connections are reset"
	case "drain":
		return ", open connections are reset after a while"
	}
	return ""
}

// wouldRollBack says what rollback --all would do.
func (a *app) wouldRollBack(c *cobra.Command) string {
	services, err := a.client().Services(c.Context())
	if err != nil || len(services) == 0 {
		return "name them, or say --all"
	}
	var list []string
	for _, s := range services {
		shares := map[string]api.Share{}
		for _, v := range s.Versions {
			shares[v.Name] = v.Weight
		}
		list = append(list, fmt.Sprintf("%s (%s)", s.Name, had(shares)))
	}
	return "name them, or say --all, which gives these to stable: " + strings.Join(list, ", ")
}

// had tells what the versions beside stable got.
func had(shares map[string]api.Share) string {
	var list []string
	for _, v := range versionsOf(shares) {
		if v != steering.Stable && shares[v] > 0 {
			list = append(list, v+" had "+shares[v].String())
		}
	}
	if len(list) == 0 {
		return "it had all"
	}
	return strings.Join(list, ", ")
}
