package kayenta

import "math"

const (
	rootTolerance = 1e-4 // absolute, so verdicts depend on the metric's unit
	rootSteps     = 1000
	epsilon       = 0x1p-52
)

// root finds where f crosses zero between a and b, whose values fa and fb have
// different signs, by Brent's method: inverse quadratic or linear interpolation,
// and bisection where they do not help. f is a staircase here, so the answer is
// the edge of a step to within the tolerance, or any point of a step at zero:
// the order of the trials is part of the algorithm (Brent 1973, as in R's
// uniroot).
func root(f func(float64) float64, a, b, fa, fb float64) float64 {
	if fa == 0 {
		return a
	}
	if fb == 0 {
		return b
	}
	// b is the best so far, a the one before it, and the zero is between b and c.
	c, fc := a, fa
	for range rootSteps {
		last := b - a
		if math.Abs(fc) < math.Abs(fb) {
			a, b, c = b, c, b
			fa, fb, fc = fb, fc, fb
		}
		tolerance := 2*epsilon*math.Abs(b) + rootTolerance/2
		step := (c - b) / 2
		if math.Abs(step) <= tolerance || fb == 0 {
			return b
		}
		if math.Abs(last) >= tolerance && math.Abs(fa) > math.Abs(fb) {
			if s, ok := interpolate(a, b, c, fa, fb, fc, last, tolerance); ok {
				step = s
			}
		}
		if math.Abs(step) < tolerance {
			step = math.Copysign(tolerance, step)
		}
		a, fa = b, fb
		b += step
		fb = f(b)
		if fb > 0 && fc > 0 || fb < 0 && fc < 0 {
			c, fc = a, fa
		}
	}
	return b
}

// interpolate is the step from b to where a line or a parabola through the
// points crosses zero, if that lies well between b and c and is less than half
// of the step before.
func interpolate(a, b, c, fa, fb, fc, last, tolerance float64) (float64, bool) {
	span := c - b
	var p, q float64
	if a == c {
		s := fb / fa
		p, q = span*s, 1-s
	} else {
		r, s, t := fa/fc, fb/fc, fb/fa
		p = t * (span*r*(r-s) - last*(s-1))
		q = (r - 1) * (s - 1) * (t - 1)
	}
	if p > 0 {
		q = -q
	} else {
		p = -p
	}
	if p < 0.75*span*q-math.Abs(tolerance*q)/2 && p < math.Abs(last*q/2) {
		return p / q, true
	}
	return 0, false
}
