package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

func (a *app) doctorCommand() *cobra.Command {
	var files, interfaces, xdp []string
	var bpffs, ports string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "What this host can do, what blocks, and what to do about it",
		Long: `Doctor checks the kernel, its settings, the interfaces, and how frontends and
backends are reached. A running daemon is asked about what it steers; without
one, doctor looks for itself. With -f it checks what the documents in a file
would need here, with --xdp whether interfaces can be attached to by XDP; nothing
is attached for that. It exits 1 when something does not work.`,
		Example: `  siskin doctor
  siskin doctor -f checkout.yaml --interface eth0`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			var report api.DoctorReport
			err := error(api.ErrNoDaemon)
			asked := len(files) == 0 && len(xdp) == 0
			if asked {
				report, err = a.client().Doctor(c.Context())
			}
			if errors.Is(err, api.ErrNoDaemon) {
				report, err = a.diagnose(files, interfaces, xdp, bpffs, ports)
				if asked {
					report.Checks = append([]api.Check{{Name: "daemon", Status: string(host.Info), Detail: "none answers on " + a.socket,
						Remedy: "siskin run"}}, report.Checks...)
				}
			}
			if err != nil {
				return err
			}
			return a.showReport(report)
		},
	}
	c.Flags().StringSliceVarP(&files, "file", "f", nil, "check what the documents in this file need, not what a daemon steers")
	c.Flags().StringSliceVar(&interfaces, "interface", nil, "the interfaces to look at (default those with default routes)")
	c.Flags().StringSliceVar(&xdp, "xdp", nil, "check whether these interfaces can be attached to by XDP")
	c.Flags().StringVar(&bpffs, "bpffs", loader.DefaultBPFFS, "where the daemon would pin its maps and links")
	c.Flags().StringVar(&ports, "source-ports", defaultPorts, "the source ports that it would use for NAT")
	return c
}

// diagnose looks at the host from this process.
func (a *app) diagnose(files, interfaces, xdp []string, bpffs, ports string) (api.DoctorReport, error) {
	low, high, err := portRange(ports)
	if err != nil {
		return api.DoctorReport{}, err
	}
	q := host.Question{BPFFS: bpffs, Ports: [2]uint16{low, high}, Interfaces: interfaces, XDP: xdp}
	if len(files) > 0 {
		docs, err := a.read(files)
		if err != nil {
			return api.DoctorReport{}, err
		}
		q.Services = services(docs)
	}
	var report api.DoctorReport
	for _, c := range host.Diagnose(host.Gather(q)) {
		report.Checks = append(report.Checks, api.Check{Name: c.Name, Status: string(c.Status), Detail: c.Detail, Remedy: c.Remedy})
	}
	return report, nil
}

func services(docs []api.Document) []steering.Service {
	var out []steering.Service
	for _, s := range api.Services(docs) {
		out = append(out, s.Steering())
	}
	return out
}

func (a *app) showReport(report api.DoctorReport) error {
	failed := slices.ContainsFunc(report.Checks, func(c api.Check) bool { return c.Status == string(host.Fail) })
	done, err := a.structured(report)
	if !done {
		t := table{head: []string{"CHECK", "STATUS", "DETAIL"}}
		if a.colors() {
			t.tint = statusColor
		}
		for _, c := range report.Checks {
			t.row(c.Name, c.Status, c.Detail)
			if c.Remedy != "" && c.Status != string(host.OK) {
				t.row("", "", "→ "+c.Remedy)
			}
		}
		err = t.write(a.out)
	}
	if err == nil && failed {
		return errSilent
	}
	return err
}

func statusColor(column int, cell string) string {
	if column != 1 {
		return ""
	}
	return map[string]string{string(host.OK): green, string(host.Warn): yellow, string(host.Fail): red}[cell]
}

// defaultPorts lies above Linux's own ip_local_port_range, which ends at 60999.
const defaultPorts = "61000-65535"

// portRange reads "61000-65535".
func portRange(s string) (low, high uint16, err error) {
	from, to, ok := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(from, 10, 16)
	b, err2 := strconv.ParseUint(to, 10, 16)
	if !ok || err1 != nil || err2 != nil || a == 0 || a > b {
		return 0, 0, usage("--source-ports %s is not a range: write it as in %s", s, defaultPorts)
	}
	return uint16(a), uint16(b), nil
}
