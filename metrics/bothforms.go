package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"siskin.dev/siskin/bpf"
)

// schema of the kernel's buckets.
const schema = 3

// bothForms is a histogram that has classic buckets and native ones. The
// client library makes constant histograms of one form only; a scrape in
// protobuf should carry both, so that whoever reads it has the choice, and
// the text format takes the classic one from it.
type bothForms struct {
	classic prometheus.Metric
	native  prometheus.Metric
}

// newHistogram returns h, counted in nanoseconds, as a metric in seconds.
func newHistogram(desc *prometheus.Desc, h *bpf.Histogram, labels ...string) prometheus.Metric {
	count, sum := Count(h), float64(h.SumNs)/1e9
	c, err := prometheus.NewConstHistogram(desc, count, sum, classic(h), labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	// A zero threshold of 0 would do, since nothing takes no time. But an empty
	// histogram is native to Prometheus 2.42 only by its threshold, and the
	// first of a family decides for all of them.
	n, err := prometheus.NewConstNativeHistogram(desc, count, sum, native(h), nil, 0,
		schema, prometheus.DefNativeHistogramZeroThreshold, time.Time{}, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return bothForms{classic: c, native: n}
}

func (b bothForms) Desc() *prometheus.Desc { return b.classic.Desc() }

// Write fills out with the classic form and adds the native buckets to it.
func (b bothForms) Write(out *dto.Metric) error {
	var n dto.Metric
	if err := b.native.Write(&n); err != nil {
		return err
	}
	if err := b.classic.Write(out); err != nil {
		return err
	}
	out.Histogram.Schema = n.Histogram.Schema
	out.Histogram.ZeroThreshold = n.Histogram.ZeroThreshold
	out.Histogram.ZeroCount = n.Histogram.ZeroCount
	out.Histogram.PositiveSpan = n.Histogram.PositiveSpan
	out.Histogram.PositiveDelta = n.Histogram.PositiveDelta
	return nil
}
