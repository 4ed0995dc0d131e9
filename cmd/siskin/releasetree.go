package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"siskin.dev/siskin/api"
)

// A tree is lines that hang on a trunk, each with a label.
type tree struct {
	lines   []string
	columns int // at most; 0: any
}

// labels is how many columns they take.
const labels = 11

// branch adds a line. A label that is said once stands for those after it.
func (t *tree) branch(label, text string) {
	lead, under := "├ "+label+strings.Repeat(" ", max(0, labels-utf8.RuneCountInString(label))), "│ "+strings.Repeat(" ", labels)
	if label == "" {
		lead = under
	}
	for i, part := range wrapped(text, t.columns-labels-2) {
		if i > 0 {
			lead = under
		}
		t.lines = append(t.lines, strings.TrimRight(lead+part, " "))
	}
}

func (t *tree) branches(label string, texts ...string) {
	for i, text := range texts {
		if i > 0 {
			label = ""
		}
		t.branch(label, text)
	}
}

// wrapped breaks a text between words; a width of less than 20 is none.
func wrapped(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	var out []string
	for utf8.RuneCountInString(text) > width {
		runes := []rune(text)
		cut := width
		for cut > 0 && runes[cut] != ' ' {
			cut--
		}
		if cut == 0 { // one long word
			cut = width
		}
		out = append(out, strings.TrimRight(string(runes[:cut]), " "))
		text = strings.TrimLeft(string(runes[cut:]), " ")
	}
	return append(out, text)
}

// releaseTree is a release in full: what matters first at the top.
func releaseTree(r api.ReleaseView, now time.Time, wide bool, columns int) []string {
	t := &tree{columns: columns}
	head := fmt.Sprintf("%s %s  %s  ", mark(r.Phase), r.Name, r.Phase)
	if active(r) && r.Step > 0 {
		head += fmt.Sprintf("step %d of %d  ", r.Step, len(r.Steps))
	}
	t.lines = append(t.lines, head+r.Version+" of "+strings.Join(r.Services, ", "))
	if why := reason(r); why != "" {
		t.branch("why", why)
	}
	if r.Changed != nil {
		t.branch("since", fmt.Sprintf("%s (%s ago), run %d", r.Changed.Time.Local().Format(time.DateTime), human(now.Sub(r.Changed.Time).Truncate(time.Second)), r.Run))
	}
	if active(r) {
		t.branch("weight", fmt.Sprintf("%s asked, %s achieved", r.Weight, ratio(r.ShareRatio)))
	}
	for i, s := range r.Steps {
		t.branch(map[int]string{0: "steps"}[i], stepLine(r, i+1, s))
	}
	if r.Verdict != "" {
		t.lines = append(t.lines, indented("│ ", versionLines(r.Versions))...)
		t.branch("evidence", fmt.Sprintf("%s against %s: %s", evidence(r), r.Version, r.Verdict))
	}
	if r.MayHide != nil {
		t.branch("may hide", fmt.Sprintf("up to %.2g %% errors of %s", *r.MayHide*100, r.Version))
	}
	t.branches("waits for", waits(r)...)
	if len(r.EditsWaiting) > 0 {
		t.branch("edited", strings.Join(r.EditsWaiting, ", ")+": after siskin release retry "+r.Name)
	}
	if r.ConnectionsLeft != nil {
		t.branch("left", count(*r.ConnectionsLeft)+" connections of "+r.Version)
	}
	if active(r) {
		t.branch("guards", guards(r))
	}
	t.branch("next", nextCommand(r))
	var checks []string
	for _, f := range r.Findings {
		checks = append(checks, fmt.Sprintf("%s %s: %s", mark(f.Verdict), f.Check, f.Reason))
	}
	t.branches("checks", checks...)
	if wide {
		var history []string
		for _, d := range r.History {
			history = append(history, historyLine(d))
		}
		t.branches("history", history...)
	}
	return t.ended()
}

// historyLine says who decided where that was a person.
func historyLine(d api.DecisionView) string {
	line := fmt.Sprintf("%s %s → %s: %s", d.Time.Local().Format(time.DateTime), d.From, d.To, d.Reason)
	if d.By != "" && d.By != "daemon" {
		line += " (" + d.By + ")"
	}
	return line
}

// ended ends the trunk at its last branch.
func (t *tree) ended() []string {
	for i, line := range slices.Backward(t.lines) {
		if rest, ok := strings.CutPrefix(line, "├"); ok {
			t.lines[i] = "└" + rest
			break
		}
		t.lines[i] = strings.Replace(line, "│", " ", 1)
	}
	return t.lines
}

// waits is what a step waits for. What its checks say is said there.
func waits(r api.ReleaseView) []string {
	out := slices.Clone(r.Waiting)
	for i, w := range out {
		for _, f := range r.Findings {
			if w == f.Check+": "+f.Verdict+": "+f.Reason {
				out[i] = "check " + f.Check + ": " + f.Verdict
			}
		}
	}
	return out
}

func indented(by string, lines []string) []string {
	for i := range lines {
		lines[i] = by + lines[i]
	}
	return lines
}

// nextCommand is what a person can do.
func nextCommand(r api.ReleaseView) string {
	command := "siskin release "
	switch r.Phase {
	case "Pending":
		return command + "start " + r.Name
	case "Paused":
		return command + "resume " + r.Name + ", or abort"
	case "Succeeded":
		return command + "undo " + r.Name + ", to go back to the old version"
	case "RolledBack", "Aborted":
		return command + "retry " + r.Name + ", to start again"
	case "RollingBack":
		return "nothing: it is on its way to stable"
	}
	return command + "abort " + r.Name + ", to go back to stable"
}

// guards says what takes the version back when nobody watches.
func guards(r api.ReleaseView) string {
	lease := "no lease"
	switch {
	case r.LeaseSecondsLeft != nil && *r.LeaseSecondsLeft == 0:
		lease = "lease ended"
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
		switch held := time.Duration(r.HeldSeconds) * time.Second; {
		case n != r.Step || !active(r):
		case held >= time.Duration(s.Hold):
			hold += " (over)"
		default:
			hold += fmt.Sprintf(" (%s held)", short(held))
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
