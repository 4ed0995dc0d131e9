package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"siskin.dev/siskin/scripts/bench/lab"
)

// Row is one metric of one system.
type Row struct {
	Where  lab.Where `json:"where"`
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"`
	System string    `json:"system"`
	Values []float64 `json:"values"`
	Value  Figure    `json:"value"`
	Ratios []float64 `json:"ratios"` // to the floor of the same round
	Ratio  Figure    `json:"ratio"`
	Best   float64   `json:"best"` // the best value to the floor's best
}

// tabulate works out the ratios; the floor is one of the systems.
func tabulate(where lab.Where, all []*series) []Row {
	floor := map[string]Rounds{}
	for _, s := range all {
		if s.system.Name == floorName {
			floor = s.by
		}
	}
	var rows []Row
	for _, m := range metrics() {
		for _, s := range all {
			rounds := s.by[m.Name]
			if len(rounds) == 0 {
				continue
			}
			ratios := pair(rounds, floor[m.Name])
			row := Row{
				Where: where, Metric: m.Name, Unit: m.Unit, System: s.system.Name,
				Values: rounds.values(), Value: summarize(rounds.values()),
				Ratios: ratios.values(), Ratio: summarize(ratios.values()),
			}
			if best := floor[m.Name].best(m.Higher); best > 0 {
				row.Best = rounds.best(m.Higher) / best
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// noisy is how far floor2 may be from floor before a metric says nothing.
const noisy = 0.05

func printRows(where lab.Where, rows []Row) {
	metric := ""
	var t *table
	for _, r := range rows {
		if r.Metric != metric {
			t.flush()
			metric = r.Metric
			t = newTable(fmt.Sprintf("%s, %s backends, %s", metric, where, r.Unit), "system", "median", "min–max", "ratio", "min–max", "best to best")
		}
		note := ""
		if off := r.Ratio.Median - 1; r.System == noiseName && (off > noisy || off < -noisy) {
			note = "  noise: this run says nothing about this metric"
		}
		t.row(r.System, number(r.Value.Median), spread(r.Value),
			fmt.Sprintf("%.3f", r.Ratio.Median), fmt.Sprintf("%.3f–%.3f", r.Ratio.Min, r.Ratio.Max), fmt.Sprintf("%.3f", r.Best)+note)
	}
	t.flush()
}

// table is printed with its columns under each other.
type table struct{ w *tabwriter.Writer }

func newTable(title string, head ...string) *table {
	fmt.Printf("\n%s\n", title)
	return newTableTo(os.Stdout, head...)
}

func newTableTo(w io.Writer, head ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(head...)
	return t
}

func (t *table) row(cells ...string) { fmt.Fprintln(t.w, "  "+strings.Join(cells, "\t")) }

func (t *table) flush() {
	if t != nil {
		t.w.Flush()
	}
}

func spread(f Figure) string { return number(f.Min) + "–" + number(f.Max) }

// number writes three digits or more.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func namesOf(ways []switched) []string {
	var names []string
	for _, w := range ways {
		names = append(names, w.name)
	}
	slices.Sort(names)
	return names
}
