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

func (a *app) releaseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "release start|status|pause|resume|promote|abort|retry|undo NAME",
		Short: "Drive a release, or watch it",
		Long: `A release takes a version from its first share of new connections to all of
them, step by step, as long as its checks find nothing; and back, by itself, as
soon as they do. These commands start and steer one that was applied. Abort
takes everything back to stable, at once; after a success it is undo that does.`,
		Example: `  siskin release start checkout-v2
  siskin release status checkout-v2 --watch
  siskin release abort checkout-v2`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("release what? Write start, status, pause, resume, promote, abort, retry or undo, and the name")
			}
			return usage("%q is nothing that a release can do: write start, status, pause, resume, promote, abort, retry or undo", args[0])
		},
	}
	c.AddCommand(a.statusCommand())
	for _, v := range []struct{ verb, short, long string }{
		{api.VerbStart, "Start a release that waits", "Start begins the first step of a release that is Pending."},
		{api.VerbPause, "Hold the present step until resume", "Pause keeps the weight as it is. The checks go on, and may still roll back."},
		{api.VerbResume, "Go on after a pause", "Resume goes on with the step that was paused, or past one that waits for a person."},
		{api.VerbPromote, "End the present step at once", `Promote goes to the next step without waiting for the hold or the checks, and
from the last one on to the promotion. With --full the version takes
everything, and becomes stable, now.`},
		{api.VerbAbort, "Everything back to stable, now", "Abort rolls back from any phase. After a success it is undo that goes back."},
		{api.VerbRetry, "Start again after a rollback or an abort", "Retry begins at the first step, by the document as it is now."},
		{api.VerbUndo, "Go back after a success", "Undo makes the old backends stable again, while they stand and are healthy."},
	} {
		c.AddCommand(a.driveCommand(v.verb, v.short, v.long))
	}
	return c
}

func (a *app) driveCommand(verb, short, long string) *cobra.Command {
	full := false
	c := &cobra.Command{
		Use:               verb + " NAME",
		Short:             short,
		Long:              long,
		Example:           "  siskin release " + verb + " checkout-v2",
		Args:              takes(1, 1),
		ValidArgsFunction: a.releaseNames,
		RunE: func(c *cobra.Command, args []string) error {
			v, err := a.client().DriveRelease(c.Context(), args[0], verb, full)
			if err != nil {
				return err
			}
			if done, err := a.structured(v); done {
				return err
			}
			a.printf("release/%s %s\n", v.Name, releaseLine(v))
			return nil
		},
	}
	if verb == api.VerbPromote {
		c.Flags().BoolVar(&full, "full", false, "past all steps that are left")
	}
	return c
}

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "status NAME",
		Short: "Show how a release goes, and why",
		Long: `Status shows the steps of a release, what was asked for and what was achieved,
how both versions answer, and the evidence so far. What may still hide is the
largest rate of bad answers that the counts do not rule out.

With --watch it stays until the release has ended, and exits 0 when it has
succeeded, 3 when it was rolled back or aborted, and 4 when --timeout came
first. On a terminal the view is drawn again in its place; in a pipe there is
one line for each change, and at least one a minute.`,
		Example: `  siskin release status checkout-v2
  siskin release status checkout-v2 --watch --timeout 30m && deploy-the-next`,
		Args:              takes(1, 1),
		ValidArgsFunction: a.releaseNames,
		RunE: func(c *cobra.Command, args []string) error {
			if timeout != 0 && !watch {
				return usage("--timeout belongs to --watch: add that")
			}
			if watch {
				return a.watchRelease(c.Context(), args[0], timeout)
			}
			v, err := a.client().Release(c.Context(), args[0])
			if err != nil {
				return err
			}
			if done, err := a.structured(v); done {
				return err
			}
			_, columns := a.size()
			return a.draw(releaseTree(v, time.Now(), a.wide(), columns), 0)
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "stay until the release has ended")
	c.Flags().DurationVar(&timeout, "timeout", 0, "how long to watch; without, for ever")
	return c
}

// errRolledBack ends the watch of a release that is back at stable.
var errRolledBack = errors.New("rolled back")

// errWatched ends the watch of a release that has succeeded.
var errWatched = errors.New("succeeded")

func (a *app) watchRelease(ctx context.Context, name string, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	show, last := a.painter(), ""
	err := ended(ctx, a.client().WatchRelease(ctx, name, func(v api.ReleaseView) error {
		last = releaseLine(v)
		if err := show(v); err != nil {
			return err
		}
		switch {
		case v.Phase == "Succeeded":
			return errWatched
		case over(v):
			return errRolledBack
		}
		return nil
	}))
	switch {
	case errors.Is(err, errWatched):
		return nil
	case errors.Is(err, context.DeadlineExceeded) && last != "":
		return stillError(fmt.Sprintf("release %s is still %s; it was watched for %s", name, last, timeout))
	}
	return err
}

// stillError is a watch that ended before its release.
type stillError string

func (e stillError) Error() string { return string(e) }
func (stillError) Unwrap() error   { return context.DeadlineExceeded }

// over tells whether a release has ended.
func over(v api.ReleaseView) bool {
	return slices.Contains([]string{"Succeeded", "RolledBack", "Aborted"}, v.Phase)
}

// saidAgain is how long a watch in a pipe is silent at most.
const saidAgain = time.Minute

// painter returns what shows each state of a watch.
func (a *app) painter() func(api.ReleaseView) error {
	drawn, last, said := 0, "", time.Time{}
	return func(v api.ReleaseView) error {
		switch {
		case a.output == "json" || a.output == "yaml":
			_, err := a.line(v)
			return err
		case a.terminal():
			_, columns := a.size()
			lines := releaseTree(v, time.Now(), a.wide(), columns)
			if !over(v) { // the last one stays, and may take all the room it needs
				lines = a.fit(lines)
			}
			err := a.draw(lines, drawn)
			drawn = len(lines)
			return err
		}
		if line := releaseLine(v); line != last || time.Since(said) >= saidAgain {
			last, said = line, time.Now()
			a.printf("%s %s\n", said.Format(time.TimeOnly), watchLine(v))
		}
		return nil
	}
}

// releaseNames completes the names of releases from the daemon.
func (a *app) releaseNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	releases, err := a.client().Releases(ctx)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, r := range releases {
		names = append(names, r.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) getReleases(watch *bool) *cobra.Command {
	return &cobra.Command{
		Use:     "releases [NAME]",
		Aliases: []string{"release"},
		Short:   "Where releases stand, and why",
		Long: `Releases shows the phase and step of each release, the weight that was asked
for and the share that was achieved, the evidence that the version is worse
than stable, and what may still hide. siskin release status shows one in full.`,
		Example:           "  siskin get releases -w",
		Args:              takes(0, 1),
		ValidArgsFunction: a.releaseNames,
		RunE: shows(a, watch, "release", func(r api.ReleaseView) string { return r.Name },
			api.Client.Releases, api.Client.WatchReleases, releasesTable),
	}
}
