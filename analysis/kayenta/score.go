package kayenta

import (
	"math"
	"slices"
)

// A ScoreClass is what a score comes to.
type ScoreClass string

const (
	ScorePass     ScoreClass = "Pass"
	ScoreMarginal ScoreClass = "Marginal"
	ScoreFail     ScoreClass = "Fail"
)

// GroupScore is the share of a group's metrics that pass, in percent.
type GroupScore struct {
	Name  string
	Score float64
	// NoData tells that none of its metrics could be compared; it then counts
	// as 100.
	NoData bool
}

// nodataFails is the share of metrics without data, in percent, from which on
// nothing is judged.
const nodataFails = 50

// score sums up what was found.
func score(found []Classified, c Config) Result {
	out := Result{Metrics: found, Groups: scoreGroups(found)}
	switch i := slices.IndexFunc(found, func(m Classified) bool { return m.Critical && m.Class != Pass }); {
	case i >= 0:
		out.Critical = true
		out.Reason = "Canary Failed: " + found[i].Reason
	case tooFewData(found):
		out.Reason = "Canary Failed: 50% or more metrics returned NODATA"
	default:
		out.Score = summarize(out.Groups, c.GroupWeights)
	}
	switch {
	case out.Score >= c.Pass:
		out.Class = ScorePass
	case out.Score >= c.Marginal:
		out.Class = ScoreMarginal
	default:
		out.Class = ScoreFail
	}
	return out
}

func tooFewData(found []Classified) bool {
	nodata := 0
	for _, m := range found {
		if m.Class == Nodata {
			nodata++
		}
	}
	return 100*nodata >= nodataFails*len(found)
}

// scoreGroups are the groups by name. Nodata and Error count for nothing.
func scoreGroups(found []Classified) []GroupScore {
	counts := map[string][2]int{} // passed, counted
	var names []string
	for _, m := range found {
		for _, g := range m.Groups {
			n, known := counts[g]
			if !known {
				names = append(names, g)
			}
			switch m.Class {
			case Pass:
				n[0]++
				n[1]++
			case High, Low, NodataFailMetric:
				n[1]++
			}
			counts[g] = n
		}
	}
	slices.Sort(names)
	groups := make([]GroupScore, 0, len(names))
	for _, name := range names {
		g := GroupScore{Name: name, NoData: true}
		if n := counts[name]; n[1] > 0 {
			g.Score, g.NoData = 100*float64(n[0])/float64(n[1]), false
		}
		groups = append(groups, g)
	}
	return groups
}

// summarize weighs the groups; those without a weight share what is left of 100.
// The score has two decimals.
func summarize(groups []GroupScore, weights map[string]float64) float64 {
	left, without := 100.0, 0
	for _, w := range weights {
		left -= w
	}
	for _, g := range groups {
		if _, ok := weights[g.Name]; !ok {
			without++
		}
	}
	sum := 0.0
	for _, g := range groups {
		w, ok := weights[g.Name]
		if !ok {
			w = left / float64(without)
		}
		s := g.Score
		if g.NoData {
			s = 100
		}
		sum += s * w / 100
	}
	return math.Round(sum*100) / 100
}
