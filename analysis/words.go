package analysis

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// thousands writes 22911 as 22,911.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// percent writes a share with two digits that mean something: 3.3 %, 0.05 %.
func percent(share float64) string {
	p := 100 * share
	switch {
	case p >= 9.95 || p == 0:
		return fmt.Sprintf("%.0f %%", p)
	case p >= 0.95:
		return trimmed(p, 1) + " %"
	case p >= 0.005:
		return trimmed(p, 2) + " %"
	}
	return trimmed(p, 4) + " %"
}

// trimmed writes so many decimals at most, and no zeros at the end.
func trimmed(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// evidence writes an e-value by its logarithm, rounded down: what is below 100
// must not read as 100.
func evidence(log float64) string {
	switch e := EValue(log) * (1 + 1e-9); { // exp(ln 100) is a little less
	case e > 1e6:
		return "above 1,000,000"
	case e >= 10:
		return thousands(uint64(e))
	case e >= 0.01:
		return trimmed(math.Floor(100*e)/100, 2)
	}
	return "below 0.01"
}

// took writes a duration with three digits.
func took(d time.Duration) string {
	switch {
	case d >= time.Second:
		return trimmed(d.Seconds(), 2) + " s"
	case d >= 10*time.Millisecond:
		return trimmed(float64(d)/1e6, 1) + " ms"
	case d >= time.Millisecond:
		return trimmed(float64(d)/1e6, 2) + " ms"
	}
	return trimmed(float64(d)/1e3, 1) + " µs"
}

// counted writes 1 client, 6 clients.
func counted(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// worstShown is how many backends a reason names.
const worstShown = 3

// worst writes who it was: (6 clients; 10.1.0.4:8080 7), with the worst backends
// first; nothing where nothing is known.
func worst(r Rate, unit string) string {
	backends := slices.DeleteFunc(slices.Clone(r.Backends), func(b Backend) bool { return b.Bad == 0 })
	slices.SortStableFunc(backends, func(a, b Backend) int { return cmp.Compare(b.Bad, a.Bad) })
	var parts []string
	if r.Clients > 0 {
		parts = append(parts, counted(r.Clients, unit))
	}
	var names []string
	for i, b := range backends {
		if i == worstShown {
			names = append(names, fmt.Sprintf("%d more", len(backends)-i))
			break
		}
		names = append(names, b.Address+" "+thousands(b.Bad))
	}
	if len(names) > 0 {
		parts = append(parts, strings.Join(names, ", "))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}
