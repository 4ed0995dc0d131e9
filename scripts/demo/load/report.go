package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"siskin.dev/siskin/api"
)

// Versions, by the names in their servers' answers.
const (
	good = "v2"
	bad  = "v3"
)

// report reads what the demo wrote to dir, prints what happened, and returns
// an error if it is not what must happen.
func report(ctx context.Context, w io.Writer, dir, metrics string, clocks Clocks) error {
	var up, down api.ReleaseView
	var services []api.ServiceView
	if err := errors.Join(readJSON(dir, "v2.json", &up), readJSON(dir, "v3.json", &down), readJSON(dir, "services.json", &services)); err != nil {
		return err
	}
	requests, err := ReadRequests(filepath.Join(dir, "requests"))
	if err != nil {
		return err
	}
	problems := ends(up, down)
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "\nload: "))
	}
	downs := clocks.phases(down, bad, true)
	phases := append(clocks.phases(up, good, false), downs...)
	for i := range phases { // each lasts until the next one begins
		phases[i].To = math.MaxInt64
		if i+1 < len(phases) {
			phases[i].To = phases[i+1].From
		}
	}
	count(phases, requests)
	if err := printPhases(w, phases); err != nil {
		return err
	}
	back := Return{Decided: phases[len(phases)-1].From, LastCanary: lastCanary(services)}
	back.failures(requests, downs[0].From)
	fmt.Fprintf(w, "\n%v\n\n", &back)
	if err := printMetrics(ctx, w, metrics); err != nil {
		return err
	}
	problems = append(problems, back.problems()...)
	for _, p := range phases {
		problems = append(problems, p.problems()...)
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "\nload: "))
	}
	return nil
}

// ends says what in the ends of the releases is not as it must be.
func ends(up, down api.ReleaseView) (out []string) {
	steps := 0
	for _, d := range up.History {
		if d.To == progressing && d.Weight > 0 {
			steps++
		}
	}
	if up.Phase != succeeded || steps != len(up.Steps) {
		out = append(out, fmt.Sprintf("release %s is %s after %d of %d steps: %s", up.Name, up.Phase, steps, len(up.Steps), up.Reason))
	}
	if len(down.History) == 0 || down.Phase != rolledBack || down.Cause != "judged worse" || down.Evidence < down.EvidenceLimit {
		out = append(out, fmt.Sprintf("release %s is %s with evidence %.3g of %.3g: %s", down.Name, down.Phase, down.Evidence, down.EvidenceLimit, down.Reason))
	}
	return out
}

// Phases of releases.
const (
	progressing = "Progressing"
	succeeded   = "Succeeded"
	rollingBack = "RollingBack"
	rolledBack  = "RolledBack"
)

// Clocks are one moment by two clocks: releases are written down by the time of
// day, requests by the monotonic clock.
type Clocks struct {
	Wall      time.Time
	Monotonic int64
}

func (c Clocks) at(t time.Time) int64 { return c.Monotonic - int64(c.Wall.Sub(t)) }

// phases are those of a release, by its history. Their ends are not known yet.
func (c Clocks) phases(r api.ReleaseView, server string, broken bool) (out []Phase) {
	for _, d := range r.History {
		p := Phase{From: c.at(d.Time), Server: server}
		switch {
		case d.To == progressing && d.Weight > 0:
			p.Name, p.Asked, p.Broken = fmt.Sprintf("%s at %v", server, d.Weight), ratio(d.Weight), broken
		case d.To == succeeded:
			p.Name, p.Asked = server+" is stable", 1
		case d.To == rollingBack:
			p.Name = server + " rolled back"
		default:
			continue
		}
		out = append(out, p)
	}
	return out
}

// lastCanary is when the kernel last chose the canary, by a list of services.
func lastCanary(services []api.ServiceView) int64 {
	for _, s := range services {
		for _, v := range s.Versions {
			if v.Name == canary {
				return int64(v.LastSelectedNs)
			}
		}
	}
	return 0
}

// canary is the version that both releases take up.
const canary = "canary"

func readJSON(dir, file string, v any) error {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return fmt.Errorf("read what the demo wrote down: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

func ratio(s api.Share) float64 { return float64(s) / 10000 }

// span is the time between two moments, as people like to read it.
func span(from, to int64) time.Duration {
	d := time.Duration(to - from)
	if d >= time.Second {
		return d.Round(time.Millisecond)
	}
	if d >= time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Nanosecond)
}

func printPhases(w io.Writer, phases []Phase) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "PHASE\tASKED\tCLIENTS SAW\tREQUESTS\tFAILED")
	for _, p := range phases {
		fmt.Fprintf(t, "%s\t%.2f %%\t%.2f %%\t%d\t%d\n", p.Name, 100*p.Asked, 100*p.Seen(), p.Requests, p.Failed)
	}
	return t.Flush()
}

// printMetrics prints what a Prometheus would have read about the releases.
func printMetrics(ctx context.Context, w io.Writer, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	defer resp.Body.Close()
	fmt.Fprintf(w, "From %s:\n", url)
	lines := bufio.NewScanner(resp.Body)
	found := false
	for lines.Scan() {
		if shown(lines.Text()) {
			found = true
			fmt.Fprintln(w, " ", lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	if !found {
		return fmt.Errorf("read the metrics: %s answers %s, with nothing about releases", url, resp.Status)
	}
	return nil
}

// shown picks the lines of the metrics that tell the demo's story.
func shown(line string) bool {
	name, _, _ := strings.Cut(line, "{")
	switch name {
	case "siskin_release_decisions_total", "siskin_breaker_state":
		return true
	case "siskin_release_phase":
		return strings.HasSuffix(line, " 1")
	}
	return strings.HasPrefix(line, "siskin_rollback_duration_seconds_sum ") || strings.HasPrefix(line, "siskin_rollback_duration_seconds_count ")
}
