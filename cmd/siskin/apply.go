package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
)

func (a *app) applyCommand() *cobra.Command {
	var files []string
	var dryRun bool
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the documents in a file part of the desired state",
		Long: `Apply makes the documents of one or more files part of what the daemon keeps.
All of them, or none: a mistake anywhere is told with its file and line, and
nothing is changed. Objects that no file names stay as they are.

Weights set by hand (siskin weight) stay, too, unless the document's own
weights have changed since it was applied last.`,
		Example: `  siskin apply -f checkout.yaml
  siskin apply -f checkout.yaml,cart.yaml --dry-run
  generate | siskin apply -f -`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			docs, err := a.read(files)
			if err != nil {
				return err
			}
			result, err := a.client().Apply(c.Context(), docs, dryRun)
			if err != nil {
				return err
			}
			return a.showApplied(result)
		},
	}
	c.Flags().StringSliceVarP(&files, "file", "f", nil, "a file with documents, - for the standard input; repeat it, or separate with commas")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	return c
}

func (a *app) showApplied(result api.ApplyResult) error {
	for _, o := range result.Objects {
		for _, w := range o.Warnings {
			a.warnf("%s/%s: %s", strings.ToLower(o.Kind), o.Name, w)
		}
	}
	if done, err := a.structured(result); done {
		return err
	}
	for _, o := range result.Objects {
		note := ""
		if result.DryRun {
			note = " (dry run)"
		}
		a.printf("%s/%s %s%s\n", strings.ToLower(o.Kind), o.Name, o.Outcome, note)
		if result.DryRun || a.wide() {
			for _, d := range o.Diff {
				a.printf("  %s\n", d)
			}
		}
	}
	return nil
}

// read reads and checks the documents of files.
func (a *app) read(files []string) ([]api.Document, error) {
	if len(files) == 0 {
		return nil, usage("no file is named: add -f FILE, or -f - for the standard input")
	}
	var sources []api.Source
	for _, name := range files {
		data, err := a.load(name)
		if err != nil {
			return nil, fmt.Errorf("read the documents: %w", err)
		}
		sources = append(sources, api.Source{Name: name, Data: data})
	}
	return api.Read(sources...)
}

func (a *app) load(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(name)
}

func (a *app) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Remove an object; its open connections go on",
		Long: `Delete removes an object from the desired state. Connections that are open go
on to their backends until they end. New ones are not steered any more: one to
a real server's own address reaches that server, one to a virtual address is
answered by nobody.

A release that runs is rolled back first, whatever it was doing.`,
		Example: `  siskin delete service checkout
  siskin delete release checkout-v2`,
		Args: takes(2, 2),
		ValidArgsFunction: func(c *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"service", "release"}, cobra.ShellCompDirectiveNoFileComp
			}
			if kind, err := kindNamed(args[0]); err == nil && kind == api.KindRelease {
				return a.releaseNames(c, args[1:], s)
			}
			return a.serviceNames(c, nil, s)
		},
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := kindNamed(args[0])
			if err != nil {
				return err
			}
			if err := a.client().Delete(c.Context(), kind, args[1]); err != nil {
				return err
			}
			a.printf("%s/%s deleted\n", strings.ToLower(kind), args[1])
			return nil
		},
	}
}

// kindNamed finds the kind that a person means.
func kindNamed(s string) (string, error) {
	switch strings.TrimSuffix(strings.ToLower(s), "s") {
	case "service":
		return api.KindService, nil
	case "release":
		return api.KindRelease, nil
	}
	return "", usage("%q is not a kind: write service or release", s)
}

// lintResult is what lint prints as JSON.
type lintResult struct {
	Documents []string      `json:"documents"` // "service/checkout"
	Problems  []api.Problem `json:"problems"`
	Warnings  []api.Problem `json:"warnings"`
}

func (a *app) lintCommand() *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Check documents; needs no daemon and no root",
		Long: `Lint reads documents as apply does and says all that is wrong with them, one
line each: the file, the line and column, the field, what is wrong and what to
do. It exits 1 when anything is. Warnings are about what is accepted but may
not do what you think.

What only the host can know (routes, interfaces, addresses), siskin doctor
checks: siskin doctor -f FILE.`,
		Example: `  siskin lint checkout.yaml
  siskin lint -o json *.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.lint(append(files, args...))
		},
	}
	c.Flags().StringSliceVarP(&files, "file", "f", nil, "a file with documents, - for the standard input")
	return c
}

func (a *app) lint(files []string) error {
	docs, err := a.read(files)
	result := lintResult{Documents: []string{}, Problems: []api.Problem{}, Warnings: []api.Problem{}}
	var ps api.Problems
	if err != nil && !errors.As(err, &ps) {
		return err
	}
	result.Problems = append(result.Problems, ps...)
	result.Warnings = append(result.Warnings, api.Warnings(docs)...)
	for _, d := range docs {
		result.Documents = append(result.Documents, strings.ToLower(d.Kind())+"/"+d.Name())
	}
	if done, failed := a.structured(result); done {
		if failed == nil && err != nil {
			return errSilent
		}
		return failed
	}
	for _, w := range result.Warnings {
		w.Problem = "warning: " + w.Problem
		_, _ = fmt.Fprintln(a.err, w)
	}
	if err != nil {
		return err
	}
	for _, name := range result.Documents {
		a.printf("%s ok\n", name)
	}
	return nil
}
