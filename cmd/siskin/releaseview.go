package main

import (
	"fmt"
	"strings"
	"time"

	"siskin.dev/siskin/api"
)

func releasesTable(releases []api.ReleaseView, wide bool) table {
	t := table{head: []string{"RELEASE", "SERVICES", "VERSION", "PHASE", "STEP", "WEIGHT", "SHARE", "EVIDENCE", "MAY HIDE"}}
	if wide {
		t.head = append(t.head, "LEASE", "BREAKER", "RUN", "REASON")
	}
	t.tint = func(column int, cell string) string {
		if column == 3 {
			return phaseColor(cell)
		}
		return ""
	}
	for _, r := range releases {
		row := []string{r.Name, strings.Join(r.Services, ","), r.Version, r.Phase, fmt.Sprintf("%d/%d", r.Step, len(r.Steps)),
			r.Weight.String(), ratio(r.ShareRatio), evidence(r), ratio(r.MayHide)}
		if wide {
			row = append(row, seconds(r.LeaseSecondsLeft), orDash(r.Breaker), fmt.Sprint(r.Run), orDash(r.Reason))
		}
		t.row(row...)
	}
	return t
}

func phaseColor(phase string) string {
	switch phase {
	case "Succeeded":
		return green
	case "RollingBack", "RolledBack", "Aborted":
		return red
	case "Paused":
		return yellow
	}
	return ""
}

// evidence is how far the case against the version has come.
func evidence(r api.ReleaseView) string {
	if r.EvidenceLimit == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g of %.4g", r.Evidence, r.EvidenceLimit)
}

// releaseLine is a release in one line: the plain form of the live view.
func releaseLine(r api.ReleaseView) string {
	out := r.Phase
	if r.Step > 0 {
		out += fmt.Sprintf(", step %d of %d, %s", r.Step, len(r.Steps), r.Weight)
	}
	if r.Reason != "" {
		out += ": " + r.Reason
	}
	return out
}

// releaseTree is a release in full, in lines that may be cut on the right.
func releaseTree(r api.ReleaseView, wide bool) []string {
	out := []string{fmt.Sprintf("%s %s: %s of %s", mark(r.Phase), r.Name, r.Version, strings.Join(r.Services, ", "))}
	branch := func(format string, args ...any) { out = append(out, "├ "+fmt.Sprintf(format, args...)) }
	phase := r.Phase
	if r.Reason != "" {
		phase += ": " + r.Reason
	}
	branch("%s", phase)
	branch("weight %s asked, %s achieved", r.Weight, ratio(r.ShareRatio))
	for i, s := range r.Steps {
		branch("  %s", stepLine(r, i+1, s))
	}
	for _, w := range r.Waiting {
		branch("waits for: %s", w)
	}
	if len(r.Versions) > 0 {
		for _, line := range versionLines(r.Versions) {
			branch("  %s", line)
		}
	}
	if r.Verdict != "" {
		branch("%s; evidence against %s: %s", r.Verdict, r.Version, evidence(r))
	}
	if r.MayHide != nil {
		branch("may still hide: up to %.2g %% errors", *r.MayHide*100)
	}
	for _, f := range r.Findings {
		branch("  %s %s: %s", mark(f.Verdict), f.Check, f.Reason)
	}
	if r.ConnectionsLeft != nil {
		branch("connections of %s left: %s", r.Version, count(*r.ConnectionsLeft))
	}
	for _, e := range r.EditsWaiting {
		branch("edited, and waits for a retry: %s", e)
	}
	if wide {
		for _, d := range r.History {
			branch("  %s %s → %s: %s", d.Time.Local().Format(time.DateTime), d.From, d.To, d.Reason)
		}
	}
	return append(out, "└ "+guards(r))
}

// guards says what takes the version back when nobody watches.
func guards(r api.ReleaseView) string {
	lease := "no lease"
	switch {
	case r.LeaseSecondsLeft != nil:
		lease = "lease " + seconds(r.LeaseSecondsLeft) + " left"
	case !r.FailSafe:
		lease = "no lease: failSafe is false"
	}
	return lease + ", breaker " + orDash(r.Breaker)
}

func stepLine(r api.ReleaseView, n int, s api.ReleaseStep) string {
	sign := "·"
	switch {
	case n < r.Step, r.Phase == "Succeeded":
		sign = "✔"
	case n == r.Step:
		sign = mark(r.Phase)
	}
	var parts []string
	if s.Weight > 0 {
		parts = append(parts, s.Weight.String())
	}
	if s.Hold > 0 {
		hold := "hold " + short(time.Duration(s.Hold))
		if n == r.Step && (r.Phase == "Progressing" || r.Phase == "Paused") {
			hold += fmt.Sprintf(" (%s held)", short(time.Duration(r.HeldSeconds)*time.Second))
		}
		parts = append(parts, hold)
	}
	if s.Pause {
		parts = append(parts, "pause for a person")
	}
	return fmt.Sprintf("%s %d  %s", sign, n, strings.Join(parts, ", "))
}

// short writes 2m instead of 2m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// versionLines is a small table of how the versions answer.
func versionLines(versions []api.ReleaseVersionView) []string {
	t := table{head: []string{"VERSION", "REQUESTS", "ERRORS", "RATE", "P50", "P99", "ERRING CLIENTS"}}
	for _, v := range versions {
		rate := "-"
		if v.Requests > 0 {
			rate = fmt.Sprintf("%.2f%%", float64(v.Errors)/float64(v.Requests)*100)
		}
		t.row(v.Name, count(v.Requests), count(v.Errors), rate, seconds(v.Response.P50), seconds(v.Response.P99), count(v.ErringClients))
	}
	var b strings.Builder
	_ = t.write(&b) // a Builder takes everything
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// mark is the sign of a phase or a verdict.
func mark(what string) string {
	switch what {
	case "Succeeded", "pass":
		return "✔"
	case "RollingBack", "RolledBack", "Aborted", "fail":
		return "✖"
	case "Paused":
		return "॥"
	case "Progressing", "Promoting":
		return "◌"
	}
	return "·"
}
