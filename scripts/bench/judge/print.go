package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// share is the part of the releases that ended so, in percent.
func (o outcomeOf) share(ends ...end) float64 {
	n := 0
	for _, r := range o.results {
		for _, e := range ends {
			if r.end == e {
				n++
			}
		}
	}
	return 100 * float64(n) / float64(len(o.results))
}

// takenBack is the part that was rolled back, in percent.
func (o outcomeOf) takenBack() float64 { return o.share(byErrors, byLatency, byLimit, byBreaker) }

// requests are the canary's until it was taken back, 0 where it was not.
func (o outcomeOf) requests() []uint64 {
	var out []uint64
	for _, r := range o.results {
		n := r.requests
		if !r.rolledBack() {
			n = 0
		}
		out = append(out, n)
	}
	return out
}

// seconds are the times of the releases that went through all steps; 0 the rest.
func (o outcomeOf) seconds() []uint64 {
	var out []uint64
	for _, r := range o.results {
		if r.end == tookAll {
			out = append(out, uint64(r.seconds))
		} else {
			out = append(out, 0)
		}
	}
	return out
}

// printCauses shows who took canaries back, and how many requests they had had.
func printCauses(title string, all []outcomeOf) {
	title = fmt.Sprintf("%s (%d releases each)", title, len(all[0].results))
	table(title, "canary\ttaken back\terrors\tlatency\tlimit\tbreaker\tmedian requests of the canary", func(w *tabwriter.Writer) {
		for _, o := range all {
			fmt.Fprintf(w, "  %s\t%.2f %%\t%.2f %%\t%.2f %%\t%.2f %%\t%.2f %%\t%s\n", o.name, o.takenBack(),
				o.share(byErrors), o.share(byLatency), o.share(byLimit), o.share(byBreaker), medianWords(o.requests()))
		}
	})
}

func printHeld(all []outcomeOf) {
	title := fmt.Sprintf("Steps that end when the judge says so; a ramp takes %.0f s at least (%d releases each)", rampSeconds(), len(all[0].results))
	table(title, "canary\tpromoted\ttaken back\tstill held\tmedian seconds to promotion", func(w *tabwriter.Writer) {
		for _, o := range all {
			fmt.Fprintf(w, "  %s\t%.1f %%\t%.1f %%\t%.1f %%\t%s\n", o.name,
				o.share(tookAll), o.takenBack(), o.share(tooLong), medianWords(o.seconds()))
		}
	})
}

func printCompared(all []compared) {
	table("Beside Kayenta's judge: 5 % for an hour, errors only, a point a minute",
		"stream\tcanary\tours: median requests\tmissed\tKayenta's\tmissed\tours/Kayenta's", func(w *tabwriter.Writer) {
			for _, c := range all {
				fmt.Fprintf(w, "  %s\talike\trejects %.1f %%\t\trejects %.1f %% at 0.98; gets %s\t\t\n",
					c.name, 100*c.alike, 100*c.usual, confidenceWords(c.confidence))
				for _, r := range c.rows {
					ours, missed, ok := medianOf(r.ours)
					theirs, missedTheirs, okTheirs := medianOf(r.kayenta)
					ratio := "–"
					if ok && okTheirs {
						ratio = fmt.Sprintf("%.2f", float64(ours)/float64(theirs))
					}
					fmt.Fprintf(w, "\t%g× errors\t%s\t%.0f %%\t%s\t%.0f %%\t%s\n", r.errors,
						medianWords(r.ours), 100*missed, medianWords(r.kayenta), 100*missedTheirs, ratio)
				}
			}
		})
}

// confidenceWords writes as many nines as there are, and two digits more.
func confidenceWords(c float64) string {
	if c > 1-1e-9 {
		return "more than 0.999999999"
	}
	s := fmt.Sprintf("%.12f", c)
	nines := len(s) - len(strings.TrimLeft(s[2:], "9")) - 2
	return s[:min(len(s), 2+nines+2)]
}

func medianWords(values []uint64) string {
	median, _, ok := medianOf(values)
	if !ok { // more than half have none
		return "–"
	}
	return fmt.Sprintf("%d", median)
}
