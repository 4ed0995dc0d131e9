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
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "siskin_build_info",
		Help:        "The build that runs, as labels; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{d.Reattachments, d.ReconcileErrors, build} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the daemon's metrics: %w", err)
		}
	}
	return d, nil
}

// Handler serves what g gathers: as protobuf with native and classic
// histograms to a scraper that asks for it, else as text. A scrape that fails
// is answered with status 500 and logged.
func Handler(g prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError),
	})
}
