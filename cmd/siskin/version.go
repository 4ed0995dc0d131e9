package main

import (
	"errors"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/loader"
)

// versionResult is what version prints as JSON.
type versionResult struct {
	Client api.VersionInfo  `json:"client"`
	Daemon *api.VersionInfo `json:"daemon,omitempty"` // null: none answers, or it may not be asked
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this build, and of the daemon that runs",
		Long: `Version prints this build's version, that of Go, and the layout of the pinned
maps: builds of one layout can take over from each other without losing a
connection. If a daemon answers, its version follows.`,
		Example: "  siskin version -o json",
		Args:    takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			result := versionResult{Client: buildInfo()}
			daemon, err := a.client().Version(c.Context())
			switch {
			case err == nil:
				result.Daemon = &daemon
			case !errors.Is(err, api.ErrNoDaemon) && !errors.Is(err, api.ErrForbidden):
				a.warnf("the daemon does not say its version: %v", err)
			}
			if done, err := a.structured(result); done {
				return err
			}
			a.printf("siskin %s, %s, layout %d\n", result.Client.Version, result.Client.Go, result.Client.Layout)
			if d := result.Daemon; d != nil {
				a.printf("daemon %s, %s, layout %d, Linux %s\n", d.Version, d.Go, d.Layout, d.Kernel)
			}
			return nil
		},
	}
}

// buildInfo describes this binary.
func buildInfo() api.VersionInfo {
	return api.VersionInfo{Version: buildVersion(), Go: runtime.Version(), Layout: loader.LayoutVersion}
}

// buildVersion is what the build was given, or what Go wrote into it.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
