package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"siskin.dev/siskin/api"
)

// The tables of the views: pure, from a view to rows.

func servicesTable(services []api.ServiceView, wide bool) table {
	t := table{head: []string{"SERVICE", "VERSION", "WEIGHT", "SHARE", "CONNECTIONS", "ACTIVE", "ERRORS", "CONNECT P50/P99", "FIRST BYTE P50/P99"}}
	if wide {
		t.head = append(t.head, "REFUSED", "TIMEOUT", "RESET", "UNREACHABLE", "TLS FAILED", "BYTES IN/OUT", "BACKENDS", "AFFINITY", "SOURCE NAT", "FRONTENDS")
	}
	t.tint = func(column int, cell string) string {
		if column == 6 && cell != "0" {
			return red
		}
		return ""
	}
	for _, s := range services {
		for _, v := range s.Versions {
			e := v.Traffic.Errors
			row := []string{s.Name, v.Name, v.Weight.String(), ratio(v.ShareRatio), count(v.Traffic.Opened), count(v.Traffic.Active),
				count(e.Sum()), quantiles(v.Connect), quantiles(v.Response)}
			if wide {
				row = append(row, count(e.Refused), count(e.Timeout), count(e.Reset), count(e.Unreachable), count(e.TLS),
					both(v.Traffic.Bytes), strconv.Itoa(len(v.Backends)), s.Affinity, s.SourceNAT, frontends(s.Frontends))
			}
			t.row(row...)
		}
	}
	return t
}

func backendsTable(backends []api.BackendView, wide bool) table {
	t := table{head: []string{"SERVICE", "VERSION", "BACKEND", "WEIGHT", "STATE", "PATH", "CONNECTIONS", "ACTIVE", "ERRORS", "BYTES IN/OUT"}}
	if wide {
		t.head = append(t.head, "REFUSED", "TIMEOUT", "RESET", "UNREACHABLE", "TLS FAILED", "RETRANSMITS IN/OUT", "INTERFACE", "ID")
	}
	t.head = append(t.head, "LAST CHECK")
	t.tint = func(column int, cell string) string {
		switch {
		case column == 4 && cell == "down", column == 5 && cell == "unknown", column == 8 && cell != "0":
			return red
		}
		return ""
	}
	for _, b := range backends {
		e := b.Traffic.Errors
		row := []string{b.Service, b.Version, b.Address, strconv.Itoa(int(b.Weight)), b.State, b.Path, count(b.Traffic.Opened),
			count(b.Traffic.Active), count(e.Sum()), both(b.Traffic.Bytes)}
		if wide {
			row = append(row, count(e.Refused), count(e.Timeout), count(e.Reset), count(e.Unreachable), count(e.TLS),
				fmt.Sprintf("%d/%d", b.Traffic.Retransmits.In, b.Traffic.Retransmits.Out), orDash(b.Interface), strconv.Itoa(int(b.ID)))
		}
		t.row(append(row, lastCheck(b.LastCheck))...)
	}
	return t
}

// lastCheck is an error, ok, or - where there was no check.
func lastCheck(c *api.CheckView) string {
	switch {
	case c == nil:
		return "-"
	case c.Error == "":
		return "ok"
	}
	return c.Error
}

func flowsTable(list api.FlowList, wide bool) table {
	t := table{head: []string{"CLIENT", "FRONTEND", "SERVICE", "VERSION", "BACKEND", "STATE", "AGE", "IDLE"}}
	if wide {
		t.head = append(t.head, "SOURCE PORT", "SOURCE NAT")
	}
	for _, f := range list.Flows {
		row := []string{f.Client, f.Frontend, f.Service, f.Version, f.Backend, f.State,
			seconds(&f.AgeSeconds), seconds(&f.IdleSeconds)}
		if wide {
			row = append(row, strconv.Itoa(int(f.SourcePort)), strconv.FormatBool(f.SourceNAT))
		}
		t.row(row...)
	}
	return t
}

// eventLine is one event; events come one by one, so nothing aligns them.
func eventLine(e api.Event) string {
	return fmt.Sprintf("%-20s  %-7s  %-18s  %-20s  %s", e.Time.Local().Format(time.DateTime), e.Type, e.Reason, e.Object, e.Message)
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

func both(d api.Direction) string { return size(d.In) + "/" + size(d.Out) }

func quantiles(q api.Quantiles) string {
	if q.P50 == nil && q.P99 == nil {
		return "-"
	}
	return seconds(q.P50) + "/" + seconds(q.P99)
}

func frontends(list []api.Frontend) string {
	texts := make([]string, len(list))
	for i, f := range list {
		texts[i] = f.String()
	}
	return strings.Join(texts, ",")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
