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
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"siskin.dev/siskin/api"
)

// steps is how many weights the demo sets before it breaks the canary.
const steps = 3

// report reads what the demo wrote to dir, prints what happened, and returns
// an error if it is not what must happen.
func report(ctx context.Context, w io.Writer, dir, metrics string) error {
	phases, flip, err := read(dir)
	if err != nil {
		return err
	}
	requests, err := ReadRequests(filepath.Join(dir, "requests"))
	if err != nil {
		return err
	}
	count(phases, requests)
	if err := printPhases(w, phases); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThe rollback: %v from the daemon's first look at the command to the end of the store;\n"+
		"the store itself took %v. The kernel's last choice of the canary: %v.\n\n",
		span(flip.Requested, flip.StoreEnd), span(flip.StoreBegan, flip.StoreEnd), flip)
	if err := printMetrics(ctx, w, metrics); err != nil {
		return err
	}
	problems := flip.problems()
	for _, p := range phases {
		problems = append(problems, p.problems()...)
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "\nload: "))
	}
	return nil
}

// read returns the phases, whose requests are not counted yet, and the flip.
func read(dir string) ([]Phase, Flip, error) {
	var phases []Phase
	for i := range steps {
		var set api.WeightResult
		if err := readJSON(dir, fmt.Sprintf("weight-%d.json", i+1), &set); err != nil {
			return nil, Flip{}, err
		}
		kernel, _, err := readCanary(dir, fmt.Sprintf("services-%d.json", i+1))
		if err != nil {
			return nil, Flip{}, err
		}
		share := set.New[canary]
		phases = append(phases, Phase{Name: fmt.Sprintf("canary at %v", share),
			From: set.StoredAfterNs, Asked: ratio(share), Kernel: kernel})
	}
	text, err := os.ReadFile(filepath.Join(dir, "broken"))
	if err != nil {
		return nil, Flip{}, fmt.Errorf("read when the canary broke: %w", err)
	}
	broken, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, Flip{}, fmt.Errorf("read when the canary broke: %w", err)
	}
	var back api.RollbackResult
	if err := readJSON(dir, "rollback.json", &back); err != nil {
		return nil, Flip{}, err
	}
	if len(back.Services) != 1 {
		return nil, Flip{}, fmt.Errorf("read the rollback: it is of %d services, not of 1", len(back.Services))
	}
	kernel, last, err := readCanary(dir, "services-after.json")
	if err != nil {
		return nil, Flip{}, err
	}
	store := back.Services[0]
	phases = append(phases,
		Phase{Name: "canary stopped", From: broken, Asked: phases[steps-1].Asked, Broken: true},
		Phase{Name: "rolled back", From: store.StoredAfterNs, To: math.MaxInt64, Kernel: kernel})
	for i := range len(phases) - 1 {
		phases[i].To = phases[i+1].From
	}
	return phases, Flip{Requested: back.RequestedNs, StoreBegan: store.StoredBeforeNs,
		StoreEnd: store.StoredAfterNs, LastCanary: int64(last)}, nil
}

// readCanary returns the share that the canary achieved, and when the kernel
// last chose it, from a list of services.
func readCanary(dir, file string) (share *float64, lastNs uint64, err error) {
	var services []api.ServiceView
	if err := readJSON(dir, file, &services); err != nil {
		return nil, 0, err
	}
	for _, s := range services {
		for _, v := range s.Versions {
			if v.Name == canary {
				return v.ShareRatio, v.LastSelectedNs, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("read %s: it has no version %s", file, canary)
}

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
	if d >= time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Nanosecond)
}

func printPhases(w io.Writer, phases []Phase) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "PHASE\tASKED\tKERNEL GAVE\tCLIENTS SAW\tREQUESTS\tFAILED")
	for _, p := range phases {
		kernel := "-"
		if p.Kernel != nil {
			kernel = fmt.Sprintf("%.2f %%", 100**p.Kernel)
		}
		fmt.Fprintf(t, "%s\t%.2f %%\t%s\t%.2f %%\t%d\t%d\n", p.Name, 100*p.Asked, kernel, 100*p.Seen(), p.Requests, p.Failed)
	}
	return t.Flush()
}

// printMetrics prints what a Prometheus would have read about the canary.
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
		return fmt.Errorf("read the metrics: %s answers %s, with nothing about the canary", url, resp.Status)
	}
	return nil
}

// shown picks the lines of the metrics that tell the demo's story.
func shown(line string) bool {
	name, labels, _ := strings.Cut(line, "{")
	switch name {
	case "siskin_connections_total", "siskin_weight_ratio", "siskin_share_ratio":
		return true
	case "siskin_connection_errors_total", "siskin_connect_duration_seconds_count",
		"siskin_response_duration_seconds_count", "siskin_backend_up":
		return strings.Contains(labels, `version="`+canary+`"`)
	}
	return false
}
