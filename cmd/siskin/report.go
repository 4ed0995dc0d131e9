package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
)

func (a *app) reportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "report SERVICE VERSION success=N failure=N",
		Short: "Tell of outcomes that only you can see",
		Long: `Report adds outcomes of a version to those that are known: tasks done, orders
kept, answers that were right. A release with a check "reported: {}" judges by
them, with the same test as by errors. Report both versions: without stable's,
nothing can be compared.`,
		Example: "  siskin report checkout canary success=120 failure=3",
		Args:    takes(3, 4),
		ValidArgsFunction: func(c *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return a.serviceNames(c, nil, s)
			case 1:
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"success=", "failure="}, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			o, err := outcomes(args[2:])
			if err != nil {
				return err
			}
			if err := a.client().Report(c.Context(), args[0], args[1], o); err != nil {
				return err
			}
			a.printf("%s/%s: %s and %s counted\n", args[0], args[1], plural(o.Success, "success", "successes"), plural(o.Failure, "failure", "failures"))
			return nil
		},
	}
}

// outcomes reads success=N and failure=N, in any order.
func outcomes(args []string) (api.Outcomes, error) {
	var o api.Outcomes
	seen := map[string]bool{}
	for _, arg := range args {
		name, text, _ := strings.Cut(arg, "=")
		to, ok := map[string]*uint64{"success": &o.Success, "failure": &o.Failure}[name]
		if !ok || seen[name] {
			return o, usage("%q does not fit: write success=120 failure=3", arg)
		}
		seen[name] = true
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return o, usage("%q is not a number of outcomes: write %s=120", text, name)
		}
		*to = n
	}
	return o, nil
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}
