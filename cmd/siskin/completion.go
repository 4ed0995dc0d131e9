package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print a script that completes commands in a shell",
		Long: `Completion prints a script that teaches a shell to complete commands, flags and
the names of services, which it asks the daemon for.`,
		Example: `  source <(siskin completion bash)                       in this shell
  siskin completion bash > /etc/bash_completion.d/siskin in all, with bash-completion
  siskin completion zsh > "${fpath[1]}/_siskin"
  siskin completion fish > ~/.config/fish/completions/siskin.fish`,
		Args:      takes(1, 1),
		ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usage("%q is not a shell: write one of %s", args[0], strings.Join(shells, ", "))
		},
	}
}
