package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/daemon"
	"siskin.dev/siskin/loader"
)

// uninstalled is what uninstall prints as JSON.
type uninstalled struct {
	Links   int `json:"links"`
	Filters int `json:"filters"`
	Maps    int `json:"maps"`
	Files   int `json:"files"` // of the state directory
}

func (a *app) uninstallCommand() *cobra.Command {
	var bpffs, state string
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Detach and remove every trace",
		Long: `Uninstall detaches our programs from every interface and removes the pinned
links and maps, and then what the daemon remembers. Steered connections end
then: stop the daemon and wait for them first. What is not ours stays. It needs
no daemon, refuses to work under a running one, and may be run again.

With --bpffs alone, the state directory is left: it may belong to another
daemon. Name it with --state-dir.`,
		Example: `  sudo systemctl stop siskin && sudo siskin uninstall
  sudo siskin uninstall --bpffs /sys/fs/bpf/trial --state-dir /tmp/trial`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("bpffs") && !c.Flags().Changed("state-dir") {
				state = ""
			}
			result, err := uninstall(bpffs, state)
			if err != nil {
				return err
			}
			if done, err := a.structured(result); done {
				return err
			}
			a.printf("removed %d links, %d filters, %d maps and %d state files\n", result.Links, result.Filters, result.Maps, result.Files)
			return nil
		},
	}
	c.Flags().StringVar(&bpffs, "bpffs", loader.DefaultBPFFS, "where the daemon pins its maps and links")
	c.Flags().StringVar(&state, "state-dir", daemon.DefaultStateDir, "where it remembers what was applied")
	return c
}

// uninstall holds the daemon's lock meanwhile, so that none starts. The kernel
// comes first: what it steers without a daemon matters more than files.
func uninstall(bpffs, state string) (uninstalled, error) {
	var out uninstalled
	if _, err := os.Stat(state); state != "" && err == nil {
		lock, err := loader.AcquireLock(filepath.Join(state, "lock"))
		if err != nil {
			return out, fmt.Errorf("uninstall: %w", err)
		}
		defer func() { _ = lock.Release() }()
	}
	removed, err := loader.Uninstall(bpffs)
	out.Links, out.Filters, out.Maps = removed.Links, removed.Filters, removed.Maps
	if err != nil || state == "" {
		return out, err
	}
	out.Files, err = removeState(state)
	return out, err
}

// removeState removes the daemon's files, and its directory when nothing else
// is in it.
func removeState(dir string) (removed int, err error) {
	var files []string
	for _, pattern := range []string{"state.json*", "history.db*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return 0, fmt.Errorf("look for state files: %w", err)
		}
		files = append(files, found...)
	}
	var errs []error
	for _, f := range append(files, filepath.Join(dir, "lock")) {
		switch err := os.Remove(f); {
		case err == nil && filepath.Base(f) != "lock":
			removed++
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("remove a state file: %w", err))
		}
	}
	if rest, err := os.ReadDir(dir); err == nil && len(rest) == 0 {
		errs = append(errs, os.Remove(dir))
	}
	return removed, errors.Join(errs...)
}
