package main

// The ramp that everything is simulated on.
var (
	weights = [...]uint32{100, 500, 2500, 5000} // basis points
	holds   = [...]float64{30, 120, 300, 300}   // seconds
)

// rampSeconds is how long it takes.
func rampSeconds() float64 {
	sum := 0.0
	for _, h := range holds {
		sum += h
	}
	return sum
}

const (
	usualRate    = 200.0 // requests a second
	baseRate     = 0.001 // of requests fail
	median       = 0.020 // seconds that a request takes
	amongClients = 0.3   // deviation of the logarithm of latency among clients
	ofOne        = 0.5   // and among the requests of one
)

// scenario is a kind of release.
type scenario struct {
	name    string
	clients int
	zipf    bool // traffic by rank; else all clients are alike
	// bad clients fail with badRate instead of baseRate, on either version.
	bad, badRate float64
	// retries is how many failures of the same client follow a failure.
	retries float64
	// keepAlive is how long a connection lives, in seconds; else each request
	// has its own.
	keepAlive float64
	// burst is the share of all requests, on either version, that fail for so
	// many seconds somewhere in the release.
	burst, lasts float64

	// errors and latency are the canary's, as multiples of stable's; 0 is 1.
	errors, latency float64
	// stable is stable's rate of errors; 0 for baseRate.
	stable float64
	// rate is requests a second; 0 for usualRate.
	rate float64

	// deadline, in seconds, lets the judge say when a step may end, until then.
	// Without it the steps end with their holds: the canary gets all the weight
	// that it can.
	deadline    float64
	minRequests uint64
}

// alike are releases of a canary that is as good as stable: rejecting it is a
// false alarm.
func alike() []scenario {
	return []scenario{
		{name: "independent errors", clients: 10_000},
		{name: "Zipf clients", clients: 10_000, zipf: true},
		{name: "a few bad clients", clients: 10_000, zipf: true, bad: .01, badRate: .1},
		{name: "sticky retries", clients: 10_000, zipf: true, retries: 4},
		{name: "a burst that hits both", clients: 10_000, zipf: true, keepAlive: 120, burst: .02, lasts: 30},
		{name: "only 50 clients", clients: 50, zipf: true},
	}
}

// outages are bursts that also fill the breaker's buckets.
func outages() []scenario {
	return []scenario{
		{name: "10 s in which 5 % fail", clients: 10_000, zipf: true, keepAlive: 120, burst: .05, lasts: 10},
		{name: "10 s in which 30 % fail", clients: 10_000, zipf: true, keepAlive: 120, burst: .3, lasts: 10},
		{name: "10 s in which all fail", clients: 10_000, zipf: true, keepAlive: 120, burst: 1, lasts: 10},
	}
}

// different are releases of a canary that is worse, and of better ones.
func different() []scenario {
	return []scenario{
		{name: "2× errors", clients: 10_000, zipf: true, errors: 2},
		{name: "5× errors", clients: 10_000, zipf: true, errors: 5},
		{name: "20× errors", clients: 10_000, zipf: true, errors: 20},
		{name: "+50 % p99", clients: 10_000, zipf: true, latency: 1.5},
		{name: "+100 % p99", clients: 10_000, zipf: true, latency: 2},
	}
}

func better() []scenario {
	return []scenario{
		{name: "better: a tenth of the errors", clients: 10_000, zipf: true, errors: .1},
		{name: "better: fixes stable's 1 %", clients: 10_000, zipf: true, stable: .01, errors: .05},
		{name: "better: half of the latency as well", clients: 10_000, zipf: true, errors: .1, latency: .5},
	}
}

func (s scenario) canaryFactor() float64  { return orOne(s.errors) }
func (s scenario) latencyFactor() float64 { return orOne(s.latency) }

// held are releases whose steps the judge ends.
func held() []scenario {
	const hours = 4 * 3600
	return []scenario{
		{name: "good, 200 requests a second", clients: 10_000, zipf: true, deadline: 3600, minRequests: 100},
		{name: "good, 10 requests a second", clients: 10_000, zipf: true, rate: 10, deadline: hours},
		{name: "1 % errors, 10 requests a second", clients: 10_000, zipf: true, rate: 10, errors: 10, deadline: hours},
	}
}

func (s scenario) perSecond() float64 {
	if s.rate > 0 {
		return s.rate
	}
	return usualRate
}

func (s scenario) stableRate() float64 {
	if s.stable > 0 {
		return s.stable
	}
	return baseRate
}

func orOne(v float64) float64 {
	if v == 0 {
		return 1
	}
	return v
}
