// Package kayenta judges metrics that come as samples the way Spinnaker's
// Kayenta does (NetflixACAJudge-v1.0), so that verdicts agree with those that
// its users know. It is written from a description of that algorithm, its traps
// included: verdicts depend on the unit of a metric (the root finder's tolerance
// is absolute), two samples a side can be High, and looking often raises false
// alarms far above the confidence. The judge by clients is the default for these
// reasons.
package kayenta

// A Class is what a metric is found to be, in Kayenta's own words.
type Class string

const (
	Pass             Class = "Pass"
	High             Class = "High"
	Low              Class = "Low"
	Nodata           Class = "Nodata"
	NodataFailMetric Class = "NodataFailMetric"
	Error            Class = "Error" // the comparison has no answer
)

// A Direction says which deviation of a metric is bad.
type Direction int

const (
	Either Direction = iota
	Increase
	Decrease
)

// NaN says what becomes of samples that are no number.
type NaN int

const (
	RemoveNaN  NaN = iota
	ReplaceNaN     // by 0
)

// An Effect is how the size of a difference is measured.
type Effect int

const (
	MeanRatio Effect = iota // mean of the canary over mean of stable
	CLES                    // chance that a canary's sample is above a stable one
)

// Metric is one metric's samples of both versions and what is asked of them.
type Metric struct {
	Name string
	// Experiment are the canary's samples, Control stable's.
	Experiment, Control []float64
	// Groups are scored; a metric counts in each of its groups, and not at all
	// without one.
	Groups    []string
	Direction Direction
	NaN       NaN
	// RemoveOutliers leaves out what is beyond the fences; OutlierFactor is
	// theirs, 0 for 3.
	RemoveOutliers bool
	OutlierFactor  float64
	// Critical fails everything when the metric is not Pass. MustHaveData counts
	// a metric without data against its group.
	Critical, MustHaveData bool
	// Effect and the thresholds that it must reach; 0 is the measure's neutral
	// value, 1 or 0.5.
	Effect                             Effect
	AllowedIncrease, AllowedDecrease   float64
	CriticalIncrease, CriticalDecrease float64
}

// Config is what holds for all metrics. The zero Config is Kayenta's own, with
// the thresholds of its examples.
type Config struct {
	Confidence float64 // of the interval; 0 for 0.98
	Tolerance  float64 // bound of the shift as a share of it; 0 for 0.25
	// GroupWeights are in percent; groups without one share the rest of 100.
	GroupWeights map[string]float64
	// Pass and Marginal are the scores from which on a canary is that; 0 for 95
	// and 75.
	Pass, Marginal float64
	// Seed is of the noise that tells two constants apart.
	Seed uint64
}

func (c Config) withDefaults() Config {
	c.Confidence = orElse(c.Confidence, 0.98)
	c.Tolerance = orElse(c.Tolerance, 0.25)
	c.Pass = orElse(c.Pass, 95)
	c.Marginal = orElse(c.Marginal, 75)
	return c
}

func orElse(v, otherwise float64) float64 {
	if v == 0 {
		return otherwise
	}
	return v
}

// Classified is what was found of one metric.
type Classified struct {
	Name   string
	Groups []string
	Class  Class
	// Reason is empty where there is nothing to say.
	Reason string
	// Critical tells that this metric alone fails the canary.
	Critical bool
	// Ratio is the canary's mean over stable's, 1 where they were not compared,
	// NaN where one of them is 0.
	Ratio float64
}

// Result is Kayenta's judgement.
type Result struct {
	Metrics []Classified
	Groups  []GroupScore
	Score   float64 // 0 to 100
	Class   ScoreClass
	// Critical tells that the score is 0 because of one critical metric.
	Critical bool
	Reason   string // why the score is 0, empty otherwise
}

// Judge classifies every metric and scores them.
func Judge(metrics []Metric, c Config) Result {
	c = c.withDefaults()
	found := make([]Classified, 0, len(metrics))
	for _, m := range metrics {
		found = append(found, classify(m, c))
	}
	return score(found, c)
}
