package metrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
)

// Options of a Collector.
type Options struct {
	// Services returns the services that are steered, and the deleted ones
	// whose counters are still kept. Called once a scrape.
	Services func() []Service
	// Read takes a snapshot that holds at least what is wanted.
	Read func(Wanted) (Snapshot, error)
}

// Collector exports the kernel's counters. It is a prometheus.Collector.
//
// A scrape reads the maps once. If that fails the scrape fails as a whole: a
// page without the counters would look like a host without traffic.
type Collector struct {
	options Options
	descs   descs
	reading singleflight.Group
}

// NewCollector returns a Collector; both options must be set.
func NewCollector(o Options) (*Collector, error) {
	if o.Services == nil || o.Read == nil {
		return nil, errors.New("make the metrics collector: Options.Services and Options.Read must be set")
	}
	return &Collector{options: o, descs: newDescs()}, nil
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs.all() {
		ch <- d
	}
}

// reading is what one scrape is made of.
type reading struct {
	services []Service
	snapshot Snapshot
}

// Collect implements prometheus.Collector. Scrapes that come while the maps
// are being read share that reading.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	r, err, _ := c.reading.Do("", func() (any, error) {
		services := c.options.Services()
		snapshot, err := c.options.Read(Want(services))
		return reading{services, snapshot}, err
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.descs.connections, fmt.Errorf("read the kernel's counters: %w", err))
		return
	}
	e := emitter{descs: &c.descs, out: ch}
	now := r.(reading)
	e.reasons(now.snapshot)
	e.flowTable(now.snapshot)
	table := tabulate(now.services, now.snapshot)
	for key, row := range table.versions {
		e.version(key, row)
	}
	for key, row := range table.backends {
		e.backend(key, row)
	}
}
