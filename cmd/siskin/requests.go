package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"siskin.dev/siskin/api"
)

func (a *app) getRequests(watch *bool) *cobra.Command {
	interval := api.RequestsInterval
	c := &cobra.Command{
		Use:     "requests [SERVICE]",
		Aliases: []string{"request"},
		Short:   "Requests by version: rate, status, time to answer, errors",
		Long: `Requests shows what was asked and answered in an interval of a second: it waits
for one, since what was counted before says nothing of how it goes now. With -w
it shows each interval as it ends.

Shares are of all answers. ERRORS counts those with 5xx or a gRPC error, and
connections that failed. Times are from a request's first byte to that of its
answer. UNPARSED are answers on connections that do not speak HTTP in the clear, of
these TLS, and those that were LOST: HTTP that could not be followed. -o wide shows each
backend below its version; -o json has the counts since the start, too.`,
		Example: `  siskin get requests checkout -w
  siskin get requests --interval 10s -o json`,
		Args:              takes(0, 1),
		ValidArgsFunction: a.serviceNames,
		RunE: func(c *cobra.Command, args []string) error {
			if interval < api.MinRequestsInterval || interval > api.MaxRequestsInterval {
				return usage("--interval %v: write a time from %v to %v", interval, api.MinRequestsInterval, api.MaxRequestsInterval)
			}
			service := ""
			if len(args) == 1 {
				service = args[0]
			}
			show := func(v api.RequestsView) error { return a.show(*watch, v, requestsTable(v, a.wide())) }
			if *watch {
				return ended(c.Context(), a.client().WatchRequests(c.Context(), service, interval, show))
			}
			v, err := a.client().Requests(c.Context(), service, interval)
			if err != nil {
				return err
			}
			return show(v)
		},
	}
	c.Flags().DurationVar(&interval, "interval", interval, "how long to count")
	return c
}

// A column of requests; one that is rare is shown where it has something.
type requestsColumn struct {
	head string
	rare bool
	of   func(api.Answers) uint64
}

func requestsColumns() []requestsColumn {
	return []requestsColumn{
		{"1XX", true, func(a api.Answers) uint64 { return a.Code1xx }},
		{"2XX", false, func(a api.Answers) uint64 { return a.Code2xx }},
		{"3XX", false, func(a api.Answers) uint64 { return a.Code3xx }},
		{"4XX", false, func(a api.Answers) uint64 { return a.Code4xx }},
		{"5XX", false, func(a api.Answers) uint64 { return a.Code5xx }},
		{"GRPC OK", true, func(a api.Answers) uint64 { return a.GRPCOK }},
		{"GRPC ERROR", true, func(a api.Answers) uint64 { return a.GRPCError }},
		{"UNPARSED", false, func(a api.Answers) uint64 { return a.Unparsed }},
		{"TLS", true, func(a api.Answers) uint64 { return a.TLS }},
		{"LOST", false, func(a api.Answers) uint64 { return a.Lost }},
	}
}

func requestsTable(view api.RequestsView, wide bool) table {
	columns := slices.DeleteFunc(requestsColumns(), func(c requestsColumn) bool {
		return c.rare && !slices.ContainsFunc(view.Versions, func(v api.VersionRequests) bool {
			return c.of(v.Answers) > 0 || c.head != "1XX" && c.of(v.Total) > 0
		})
	})
	t := table{head: []string{"SERVICE", "VERSION"}}
	if wide {
		t.head = append(t.head, "BACKEND")
	}
	t.head = append(t.head, "WEIGHT", "RATE")
	for _, c := range columns {
		t.head = append(t.head, c.head)
	}
	t.head = append(t.head, "ERRORS", "P50", "P95", "P99")
	if wide {
		t.head = append(t.head, "REFUSED", "TIMEOUT", "RESET", "UNREACHABLE", "TLS FAILED")
	}
	t.tint = func(column int, cell string) string {
		switch head := t.head[column]; {
		case head == "ERRORS" && cell != "0", (head == "5XX" || head == "GRPC ERROR") && cell != "-":
			return red
		case head == "LOST" && cell != "-":
			return yellow
		}
		return ""
	}
	row := func(names []string, weight string, c api.RequestCounts, times api.ResponseTimes) {
		cells := append(slices.Clone(names), weight, perSecond(c.Rate))
		for _, column := range columns {
			cells = append(cells, part(column.of(c.Answers), c.Answers.Sum()))
		}
		cells = append(cells, count(c.Failures()), seconds(times.P50), seconds(times.P95), seconds(times.P99))
		if wide {
			e := c.ConnectionErrors
			cells = append(cells, count(e.Refused), count(e.Timeout), count(e.Reset), count(e.Unreachable), count(e.TLS))
		}
		t.row(cells...)
	}
	for _, v := range view.Versions {
		names := []string{v.Service, v.Version}
		if !wide {
			row(names, v.Weight.String(), v.RequestCounts, v.Response)
			continue
		}
		row(append(names, "all"), v.Weight.String(), v.RequestCounts, v.Response)
		for _, b := range v.Backends {
			row(append(slices.Clone(names), b.Address), "-", b.RequestCounts, api.ResponseTimes{})
		}
	}
	return t
}

// part is a share in percent: - for none, and never 0.0% for some.
func part(n, of uint64) string {
	percent := 100 * float64(n) / float64(max(of, 1))
	switch {
	case n == 0:
		return "-"
	case percent < 0.1:
		return "<0.1%"
	case n < of && percent > 99.9:
		return ">99.9%"
	}
	return strconv.FormatFloat(percent, 'f', 1, 64) + "%"
}

func perSecond(rate float64) string {
	if rate > 0 && rate < 9.95 {
		return fmt.Sprintf("%.1f/s", rate)
	}
	return fmt.Sprintf("%.0f/s", rate)
}
