package metrics

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Release is what is exported of one release.
type Release struct {
	Name  string
	Phase string
	// Breaker tells whether it is open; nil where it is off.
	Breaker *bool
	// Lease is what is left of it, 0 once it has ended; nil where there is none.
	Lease *time.Duration
}

// Releases exports how releases stand. It is a prometheus.Collector.
type Releases struct {
	phases                []string
	list                  func() []Release
	phase, breaker, lease *prometheus.Desc
}

// NewReleases registers a collector of what list returns. phases are all that a
// release can be in.
func NewReleases(reg prometheus.Registerer, phases []string, list func() []Release) error {
	r := &Releases{
		phases: phases, list: list,
		phase: prometheus.NewDesc("siskin_release_phase",
			"Whether a release is in a phase: 1 for the one that it is in.", []string{"release", "phase"}, nil),
		breaker: prometheus.NewDesc("siskin_breaker_state",
			"The circuit breaker of a release: 0 closed, 1 open; absent where it is off.", []string{"release"}, nil),
		lease: prometheus.NewDesc("siskin_lease_remaining_seconds",
			"Time until the kernel takes a release back unless its lease is renewed; 0 once it has ended, absent where there is none.", []string{"release"}, nil),
	}
	if err := reg.Register(r); err != nil {
		return fmt.Errorf("register the metrics of releases: %w", err)
	}
	return nil
}

// Describe implements prometheus.Collector.
func (r *Releases) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.phase, r.breaker, r.lease} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (r *Releases) Collect(ch chan<- prometheus.Metric) {
	e := emitter{out: ch}
	for _, release := range r.list() {
		for _, p := range r.phases {
			e.gauge(r.phase, truth(p == release.Phase), release.Name, p)
		}
		if release.Breaker != nil {
			e.gauge(r.breaker, truth(*release.Breaker), release.Name)
		}
		if release.Lease != nil {
			e.gauge(r.lease, release.Lease.Seconds(), release.Name)
		}
	}
}

// truth is how Prometheus writes whether something is so.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
