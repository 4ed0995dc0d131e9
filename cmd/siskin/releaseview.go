package main

import (
	"fmt"
	"strings"

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
	if r.EvidenceLimit == 0 || r.Verdict == "" {
		return "-"
	}
	return fmt.Sprintf("%.3g of %.4g", r.Evidence, r.EvidenceLimit)
}

// releaseLine is a release in one line.
func releaseLine(r api.ReleaseView) string {
	out, step := r.Phase, fmt.Sprintf("step %d of %d", r.Step, len(r.Steps))
	switch {
	case over(r) && r.Phase != "Succeeded" && r.Step > 0:
		out += " in " + step
	case active(r) && r.Step > 0:
		out += ", " + step + ", " + r.Weight.String()
	}
	if says := reason(r); says != "" {
		out += ": " + says
	}
	return out
}

// reason is why a release is where it is, where its step and weight do not say
// so already.
func reason(r api.ReleaseView) string {
	if r.Reason == fmt.Sprintf("step %d of %d: %s", r.Step, len(r.Steps), r.Weight) {
		return ""
	}
	return r.Reason
}

// watchLine is releaseLine with what was seen so far.
func watchLine(r api.ReleaseView) string {
	out := releaseLine(r)
	if !active(r) || r.Verdict == "" {
		return out
	}
	for i := len(r.Versions) - 1; i >= 0; i-- {
		v := r.Versions[i]
		out += fmt.Sprintf("; %s %s of %s failed", v.Name, count(v.Errors), count(v.Requests))
	}
	return out + "; evidence " + evidence(r)
}

// active tells whether a release holds its services' weights.
func active(r api.ReleaseView) bool { return r.Phase != "Pending" && !over(r) }
