package kayenta

import (
	"math"
	"testing"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func TestIntervalKnown(t *testing.T) {
	s, ok := intervalOf([]float64{10, 20, 30, 40}, []float64{1, 2, 3, 4}, 0.95)
	if !ok {
		t.Fatal("no interval")
	}
	near(t, "low", s.low, 6, rootTolerance)
	near(t, "high", s.high, 39, rootTolerance)
	near(t, "estimate", s.estimate, 22.5, rootTolerance)
}

// Shifting or swapping the samples shifts or mirrors the interval.
func TestIntervalMoves(t *testing.T) {
	x := []float64{1, 4, 4, 9, 16, 25, 36, 49, 64, 81}
	y := []float64{2, 3, 5, 7, 11, 13, 17, 19, 23, 29}
	s, _ := intervalOf(x, y, 0.98)
	if s.low >= s.estimate || s.estimate >= s.high {
		t.Fatalf("not in order: %+v", s)
	}
	mirror, _ := intervalOf(y, x, 0.98)
	near(t, "mirrored low", mirror.low, -s.high, 2*rootTolerance)
	near(t, "mirrored high", mirror.high, -s.low, 2*rootTolerance)
	up := make([]float64, len(x))
	for i, v := range x {
		up[i] = v + 1000
	}
	shifted, _ := intervalOf(up, y, 0.98)
	near(t, "shifted low", shifted.low, s.low+1000, 2*rootTolerance)
	near(t, "shifted high", shifted.high, s.high+1000, 2*rootTolerance)
}

func TestStatistic(t *testing.T) {
	// x = 1, 3 and y = 2, 3 at 0: ranks 1, 3.5 of x; dz = 4.5 - 3 - 2 = -0.5,
	// corrected to 0.
	near(t, "corrected to zero", statistic{[]float64{1, 3}, []float64{2, 3}}.at(0), 0, 0)
	// n = m = 4, all of x above: dz = 26 - 10 - 8 = 8, 7.5/sqrt(12).
	near(t, "all above", statistic{[]float64{10, 20, 30, 40}, []float64{1, 2, 3, 4}}.at(0), 7.5/math.Sqrt(12), 1e-12)
	// One tie of two at a shift of 6: variance 16/12·(9 − 6/56).
	near(t, "a tie", statistic{[]float64{10, 20, 30, 40}, []float64{1, 2, 3, 4}}.at(6), 7/math.Sqrt(16./12*(9-6./56)), 1e-12)
	if w := (statistic{[]float64{5}, []float64{3}}).at(2); !math.IsNaN(w) {
		t.Errorf("all tied: %v, want NaN", w)
	}
}

func TestEffects(t *testing.T) {
	near(t, "mean ratio", meanRatio([]float64{2, 4}, []float64{1, 1}), 3, 0)
	for _, zero := range [][2][]float64{{{0}, {1}}, {{1}, {0}}} {
		if r := meanRatio(zero[0], zero[1]); !math.IsNaN(r) {
			t.Errorf("mean ratio of %v = %v, want NaN", zero, r)
		}
	}
	near(t, "cles, all above", cles([]float64{4, 5}, []float64{1, 2}), 1, 0)
	near(t, "cles, all below", cles([]float64{1, 2}, []float64{4, 5}), 0, 0)
	near(t, "cles, a tie is half", cles([]float64{1, 2}, []float64{2, 3}), 0.125, 0)
}

func TestFences(t *testing.T) {
	s := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	near(t, "R-7 quartile", percentile(s, 25), 3.25, 1e-12)
	near(t, "R-7 percentile", percentile(s, 99), 9.91, 1e-12)
	near(t, "R-7 maximum", percentile(s, 100), 10, 0)
	low, high := fences(s, 3)
	near(t, "low", low, 3.25-13.5, 1e-12)
	near(t, "high", high, 7.75+13.5, 1e-12)
	// Where most are equal the percentiles hold the fences apart.
	low, high = fences([]float64{1, 5, 5, 5, 5, 5, 5, 5, 9}, 3)
	near(t, "low of equal ones", low, 1.32, 1e-9)
	near(t, "high of equal ones", high, 8.68, 1e-9)
}

func TestClean(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name string
		m    Metric
		in   []float64
		want []float64
	}{
		{"NaNs are removed", Metric{}, []float64{1, nan, 3}, []float64{1, 3}},
		{"or replaced", Metric{NaN: ReplaceNaN}, []float64{1, nan, 3}, []float64{1, 0, 3}},
		{"outliers stay", Metric{}, []float64{1, 2, 3, 4, 5, 1000}, []float64{1, 2, 3, 4, 5, 1000}},
		{"or go", Metric{RemoveOutliers: true}, []float64{1, 2, 3, 4, 5, 1000}, []float64{1, 2, 3, 4, 5}},
		{"by a wider fence they stay", Metric{RemoveOutliers: true, OutlierFactor: 500}, []float64{1, 2, 3, 4, 5, 1000}, []float64{1, 2, 3, 4, 5, 1000}},
		{"none left", Metric{RemoveOutliers: true}, []float64{nan}, []float64{}},
	}
	for _, tt := range tests {
		got := clean(tt.in, tt.m)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
				break
			}
		}
	}
}

var (
	ones  = []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	tens  = []float64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	mixed = []float64{1.5, 2.5, 2.9, 4.5, 5.1, 6.6, 6.8, 8.2, 9.1, 9.9}
)

func TestClassify(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name     string
		m        Metric
		want     Class
		critical bool
	}{
		{"no samples", Metric{}, Nodata, false},
		{"one side has none", Metric{Experiment: ones}, Nodata, false},
		{"only NaNs", Metric{Experiment: []float64{nan}, Control: ones}, Nodata, false},
		{"only NaNs, replaced", Metric{Experiment: []float64{nan}, Control: []float64{0}, NaN: ReplaceNaN}, Pass, false},
		{"none, with replace", Metric{NaN: ReplaceNaN, Critical: true, MustHaveData: true}, Pass, false},
		{"none, but required", Metric{MustHaveData: true}, NodataFailMetric, false},
		{"none, but critical", Metric{Critical: true}, Nodata, true},
		{"none, required and critical", Metric{Critical: true, MustHaveData: true}, Nodata, true},
		{"the same in another order", Metric{Experiment: []float64{3, 1, 2}, Control: []float64{1, 2, 3}}, Pass, false},
		{"one value overall", Metric{Experiment: []float64{7, 7, 7}, Control: []float64{7}}, Pass, false},
		{"two constants, higher", Metric{Experiment: []float64{8, 8, 8, 8, 8, 8, 8, 8}, Control: []float64{7, 7, 7, 7, 7, 7, 7, 7}}, High, false},
		{"two constants, lower", Metric{Experiment: []float64{7, 7, 7, 7, 7, 7, 7, 7}, Control: []float64{8, 8, 8, 8, 8, 8, 8, 8}}, Low, false},
		{"alike", Metric{Experiment: mixed, Control: ones}, Pass, false},
		{"higher", Metric{Experiment: tens, Control: ones}, High, false},
		{"lower", Metric{Experiment: ones, Control: tens}, Low, false},
		{"higher where only lower is bad", Metric{Experiment: tens, Control: ones, Direction: Decrease}, Pass, false},
		{"lower where only higher is bad", Metric{Experiment: ones, Control: tens, Direction: Increase}, Pass, false},
		{"higher where that is bad", Metric{Experiment: tens, Control: ones, Direction: Increase}, High, false},
		{"lower where that is bad", Metric{Experiment: ones, Control: tens, Direction: Decrease}, Low, false},
		{"higher, but allowed", Metric{Experiment: tens, Control: ones, AllowedIncrease: 3}, Pass, false},
		{"lower, but allowed", Metric{Experiment: ones, Control: tens, AllowedDecrease: .3}, Pass, false},
		{"by cles", Metric{Experiment: tens, Control: ones, Effect: CLES, AllowedIncrease: .9}, High, false},
		{"by cles, lower", Metric{Experiment: ones, Control: tens, Effect: CLES, AllowedDecrease: .1}, Low, false},
		{"critical and high", Metric{Experiment: tens, Control: ones, Critical: true}, High, true},
		{"critical and low", Metric{Experiment: ones, Control: tens, Critical: true}, Low, true},
		{"critical, high, but not enough", Metric{Experiment: tens, Control: ones, Critical: true, CriticalIncrease: 5}, High, false},
		{"critical, low, but not enough", Metric{Experiment: ones, Control: tens, Critical: true, CriticalDecrease: .1}, Low, false},
		{"the mean is 0: its effect holds nothing back", Metric{
			Experiment: []float64{11, 12, 13, 14, 15, 16, 17, 18}, Control: []float64{-4, -3, -2, -1, 1, 2, 3, 4}, AllowedIncrease: 100,
		}, High, false},
		{"an outlier decides nothing when removed", Metric{
			Experiment: append([]float64{1e6}, ones...), Control: ones, RemoveOutliers: true,
		}, Pass, false},
		{"0 against another constant: only one side has noise", Metric{
			Experiment: []float64{0, 0, 0, 0, 0, 0, 0, 0}, Control: []float64{5, 5, 5, 5, 5, 5, 5, 5},
		}, Low, false},
		// Its traps, kept.
		{"two samples a side are enough", Metric{Experiment: []float64{11, 12}, Control: []float64{1, 2}}, High, false},
		{"a shift below the root's tolerance", Metric{Experiment: scaled(tens, 1e-6), Control: scaled(ones, 1e-6)}, Pass, false},
	}
	for _, tt := range tests {
		got := classify(tt.m, Config{}.withDefaults())
		if got.Class != tt.want || got.Critical != tt.critical {
			t.Errorf("%s: %s, critical %v (%s), want %s, %v", tt.name, got.Class, got.Critical, got.Reason, tt.want, tt.critical)
		}
	}
}

func scaled(values []float64, by float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v * by
	}
	return out
}

func TestNoiseIsSeeded(t *testing.T) {
	m := Metric{Experiment: []float64{8, 8, 8}, Control: []float64{7, 7, 7}}
	a, b := classify(m, Config{Seed: 5}.withDefaults()), classify(m, Config{Seed: 5}.withDefaults())
	if a.Ratio != b.Ratio {
		t.Errorf("the same seed: %v and %v", a.Ratio, b.Ratio)
	}
	if c := classify(m, Config{Seed: 6}.withDefaults()); c.Ratio == a.Ratio {
		t.Error("another seed has the same noise")
	}
}

func TestScore(t *testing.T) {
	in := func(class Class, groups ...string) Classified {
		return Classified{Name: string(class), Groups: groups, Class: class, Reason: "because"}
	}
	critical := func(c Classified) Classified { c.Critical = true; return c }
	tests := []struct {
		name  string
		found []Classified
		c     Config
		score float64
		class ScoreClass
	}{
		{"all pass", []Classified{in(Pass, "a"), in(Pass, "a")}, Config{}, 100, ScorePass},
		{"High and Low count against", []Classified{in(Pass, "a"), in(High, "a"), in(Low, "a"), in(Pass, "a")}, Config{}, 50, ScoreFail},
		{"Nodata counts for nothing", []Classified{in(Pass, "a"), in(Pass, "a"), in(Nodata, "a")}, Config{}, 100, ScorePass},
		{"required data counts against", []Classified{in(Pass, "a"), in(NodataFailMetric, "a")}, Config{}, 50, ScoreFail},
		{"two decimals", []Classified{in(Pass, "a"), in(Pass, "a"), in(High, "a")}, Config{}, 66.67, ScoreFail},
		{"groups share alike", []Classified{in(Pass, "a"), in(High, "b"), in(Pass, "b")}, Config{}, 75, ScoreMarginal},
		{"groups have weights", []Classified{in(Pass, "a"), in(High, "b")}, Config{GroupWeights: map[string]float64{"a": 80, "b": 20}}, 80, ScoreMarginal},
		{"the rest is shared", []Classified{in(Pass, "a"), in(High, "b"), in(Pass, "c")}, Config{GroupWeights: map[string]float64{"a": 60}}, 80, ScoreMarginal},
		{"in two groups", []Classified{in(High, "a", "b"), in(Pass, "b")}, Config{}, 25, ScoreFail},
		{"in no group: no score", []Classified{in(Pass)}, Config{}, 0, ScoreFail},
		{"a group without data is 100", []Classified{in(Pass, "a"), in(Pass, "a"), in(Nodata, "b")}, Config{}, 100, ScorePass},
		{"half Nodata", []Classified{in(Pass, "a"), in(Nodata, "a")}, Config{}, 0, ScoreFail},
		{"nothing at all", nil, Config{}, 0, ScoreFail},
		{"all in error fails open", []Classified{in(Error, "a"), in(Error, "b")}, Config{}, 100, ScorePass},
		{"critical", []Classified{in(Pass, "a"), in(Pass, "a"), critical(in(High, "a"))}, Config{}, 0, ScoreFail},
		{"critical without data", []Classified{in(Pass, "a"), in(Pass, "a"), critical(in(Nodata, "a"))}, Config{}, 0, ScoreFail},
		{"exactly pass", []Classified{in(Pass, "a"), in(High, "a")}, Config{Pass: 50, Marginal: 20}, 50, ScorePass},
		{"exactly marginal", []Classified{in(Pass, "a"), in(High, "a")}, Config{Pass: 51, Marginal: 50}, 50, ScoreMarginal},
		{"below marginal", []Classified{in(Pass, "a"), in(High, "a")}, Config{Pass: 90, Marginal: 50.01}, 50, ScoreFail},
	}
	for _, tt := range tests {
		got := score(tt.found, tt.c.withDefaults())
		if got.Score != tt.score || got.Class != tt.class {
			t.Errorf("%s: %v %s (%s), want %v %s", tt.name, got.Score, got.Class, got.Reason, tt.score, tt.class)
		}
	}
}

func TestJudge(t *testing.T) {
	got := Judge([]Metric{
		{Name: "latency", Experiment: tens, Control: ones, Groups: []string{"speed"}, Direction: Increase},
		{Name: "errors", Experiment: mixed, Control: ones, Groups: []string{"errors"}},
	}, Config{GroupWeights: map[string]float64{"errors": 75}})
	if got.Score != 75 || got.Class != ScoreMarginal {
		t.Errorf("%v %s, want 75 Marginal", got.Score, got.Class)
	}
	near(t, "ratio", got.Metrics[0].Ratio, 15.5/5.5, 1e-12)
	if len(got.Groups) != 2 || got.Groups[0].Score != 100 || got.Groups[1].Score != 0 {
		t.Errorf("groups %+v", got.Groups)
	}
}
