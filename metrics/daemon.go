package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Daemon holds what the daemon itself counts. These begin at 0 with it.
type Daemon struct {
	Reattachments   prometheus.Counter // hooks that were gone and were put back
	ReconcileErrors prometheus.Counter // tries to bring the maps up to date that failed
	// RollbackDuration is told in seconds how long each rollback took: from
	// the request to the last store.
	RollbackDuration prometheus.Histogram
	// Decisions are those about releases, by release, the phase that they led to
	// and the cause of a way back.
	Decisions *prometheus.CounterVec
}

// NewDaemon registers the daemon's counters, and siskin_build_info with the
// version of the build.
func NewDaemon(reg prometheus.Registerer, version string) (*Daemon, error) {
	d := &Daemon{
		Reattachments: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siskin_reattachments_total",
			Help: "Hooks that somebody else had detached and that were attached again.",
		}),
		ReconcileErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siskin_reconcile_errors_total",
			Help: "Tries to bring the kernel's maps to the desired state that failed; each is repeated.",
		}),
		RollbackDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                           "siskin_rollback_duration_seconds",
			Help:                           "Time from the request for a rollback to the moment when its last weight was stored.",
			Buckets:                        rollbackBuckets(),
			NativeHistogramBucketFactor:    1.1, // schema 3, as the kernel's
			NativeHistogramMaxBucketNumber: 160, // 20 doublings, as from 1 µs to 1 s
		}),
	}
	d.Decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "siskin_release_decisions_total",
		Help: "Decisions about releases, by the phase that they led to and, where that is back to stable, by the cause.",
	}, []string{"release", "decision", "reason"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "siskin_build_info",
		Help:        "The build that runs, as labels; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{d.Reattachments, d.ReconcileErrors, d.RollbackDuration, d.Decisions, build} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the daemon's metrics: %w", err)
		}
	}
	return d, nil
}

// rollbackBuckets are the classic bounds, in seconds. One store takes about a
// microsecond; a second is what a rollback may take with everything around it.
func rollbackBuckets() []float64 {
	return []float64{
		1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4,
		1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
	}
}

// Handler serves what g gathers: as protobuf with native and classic
// histograms to a scraper that asks for it, else as text. A scrape that fails
// is answered with status 500 and logged.
func Handler(g prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError),
	})
}
