package analysis

import (
	"fmt"
	"math"
	"strings"

	"siskin.dev/siskin/analysis/kayenta"
)

// withinBounds is the finding of a number from outside. Its bounds are the
// user's own; falseAlarm says nothing of it.
// said is the last one in words, where the source has any.
func withinBounds(c Check, samples []float64, said string) Finding {
	if len(samples) == 0 || math.IsNaN(samples[len(samples)-1]) {
		return Finding{Verdict: NoData, Reason: "no value"}
	}
	last, bounds := samples[len(samples)-1], boundsOf(c)
	good, bad := fmt.Sprintf("%.4g, %s", last, bounds), fmt.Sprintf("%.4g, not %s", last, bounds)
	if said != "" {
		good, bad = said, said
	}
	outside := 0
	for i := len(samples) - 1; i >= 0 && !within(c, samples[i]); i-- {
		outside++
	}
	switch limit := max(c.Failures, 1); {
	case outside == 0:
		return Finding{Verdict: Pass, Reason: good}
	case outside < limit:
		return Finding{Verdict: Inconclusive, Reason: fmt.Sprintf("%s, %d times of %d", bad, outside, limit)}
	case limit > 1:
		return Finding{Verdict: Fail, Reason: fmt.Sprintf("%s, %d times in a row", bad, outside)}
	}
	return Finding{Verdict: Fail, Reason: bad}
}

// within is false for NaN where there is any bound: a number that is none is
// not within.
func within(c Check, v float64) bool {
	return (c.AtLeast == nil || v >= *c.AtLeast) && (c.AtMost == nil || v <= *c.AtMost)
}

func boundsOf(c Check) string {
	var parts []string
	if c.AtLeast != nil {
		parts = append(parts, fmt.Sprintf("at least %.4g", *c.AtLeast))
	}
	if c.AtMost != nil {
		parts = append(parts, fmt.Sprintf("at most %.4g", *c.AtMost))
	}
	if len(parts) == 0 {
		return "without bounds"
	}
	return strings.Join(parts, " and ")
}

// likeKayenta is the finding of the Kayenta-compatible judge. Where that one
// scores 100 because nothing could be compared, there is no data here.
func likeKayenta(c Check, metrics []kayenta.Metric) Finding {
	result := kayenta.Judge(metrics, c.Judge)
	var bad []string
	compared := false
	for _, m := range result.Metrics {
		switch m.Class {
		case kayenta.High, kayenta.Low:
			compared = true
			said := fmt.Sprintf("%s %s", m.Name, m.Class)
			if !math.IsNaN(m.Ratio) { // a mean of 0
				said += fmt.Sprintf(" (%.3g times stable's mean)", m.Ratio)
			}
			bad = append(bad, said)
		case kayenta.Pass:
			compared = true
		case kayenta.NodataFailMetric:
			compared = true // that there is none is what counts
			bad = append(bad, m.Name+" without the data that it must have")
		default:
			bad = append(bad, fmt.Sprintf("%s %s", m.Name, m.Class))
		}
	}
	f := Finding{Reason: fmt.Sprintf("score %s of 100, %s", trimmed(result.Score, 2), result.Class)}
	if len(bad) > 0 {
		f.Reason += ": " + strings.Join(bad, ", ")
	}
	switch {
	case !compared && !result.Critical:
		f.Verdict = NoData
	case result.Class == kayenta.ScoreFail:
		f.Verdict = Fail
	case result.Class == kayenta.ScoreMarginal:
		f.Verdict = Inconclusive
	default:
		f.Verdict = Pass
	}
	return f
}
