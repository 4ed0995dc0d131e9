package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	yaml "github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/api"
)

// app holds what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer

	socket  string // of the daemon
	output  string // table, wide, json, yaml
	noColor bool

	started bool // the command line was understood
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "siskin",
		Short: "Give a new version a share of real connections, and take them back",
		Long: `Siskin gives a new version of a service a small share of real connections,
inside the Linux kernel, and takes them back within a millisecond.

One daemon on the host (siskin run) keeps the kernel's tables as the documents
say. The other commands talk to it over a Unix socket.

Exit codes: 1 failed, 2 wrong usage, 3 rolled back, 4 timed out, 5 no daemon answers,
6 another daemon holds this host.`,
		Example: `  siskin lint checkout.yaml             check a document, without a daemon
  sudo siskin run -f checkout.yaml      steer
  siskin get services                   who gets what, and how it goes
  sudo siskin weight checkout canary=5% give 5 % of new connections to canary
  sudo siskin rollback checkout         everything to stable, now`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			if !slices.Contains(outputs(), a.output) {
				return usage("-o %s is not known: write one of %s", a.output, strings.Join(outputs(), ", "))
			}
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.socket, "socket", api.DefaultSocket, "the daemon's Unix socket")
	flags.StringVarP(&a.output, "output", "o", "table", "how to print: "+strings.Join(outputs(), ", "))
	flags.BoolVar(&a.noColor, "no-color", false, "print without colours (as NO_COLOR in the environment does)")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs(), cobra.ShellCompDirectiveNoFileComp))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, c.CommandPath())
	})
	root.AddCommand(a.runCommand(), a.applyCommand(), a.deleteCommand(), a.lintCommand(), a.getCommand(), a.weightCommand(),
		a.rollbackCommand(), a.releaseCommand(), a.reportCommand(), a.doctorCommand(), a.uninstallCommand(), a.versionCommand(), completionCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

func outputs() []string { return []string{"table", "wide", "json", "yaml"} }

func (a *app) client() api.Client { return api.Client{Socket: a.socket} }

// structured prints v where JSON or YAML is wanted, and tells whether it did.
func (a *app) structured(v any) (done bool, err error) {
	if a.output != "json" && a.output != "yaml" {
		return false, nil
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil && a.output == "yaml" {
		b, err = yaml.JSONToYAML(b)
	}
	if err != nil {
		return true, fmt.Errorf("write %s: %w", a.output, err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", strings.TrimRight(string(b), "\n"))
	return true, err
}

// line prints one value of a stream: a JSON line, or a YAML document.
func (a *app) line(v any) (done bool, err error) {
	if a.output == "yaml" {
		if _, err := io.WriteString(a.out, "---\n"); err != nil {
			return true, err
		}
	}
	if a.output != "json" {
		return a.structured(v)
	}
	return true, json.NewEncoder(a.out).Encode(v)
}

func (a *app) wide() bool { return a.output == "wide" }

// terminal tells whether the output is one.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (a *app) colors() bool { return !a.noColor && os.Getenv("NO_COLOR") == "" && a.terminal() }

// printf writes to the output; that it cannot be written is nobody's problem
// but that of who closed it.
func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format, args...) }

// warnf writes a warning to the error output.
func (a *app) warnf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, "siskin: warning: "+format+"\n", args...)
}

// takes checks the number of arguments; most below 0 is any number.
func takes(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usage("%d arguments do not fit: write %s", len(args), c.UseLine())
		}
		return nil
	}
}

// serviceNames completes the names of services from the daemon.
func (a *app) serviceNames(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	services, err := a.client().Services(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range services {
		if !slices.Contains(args, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
