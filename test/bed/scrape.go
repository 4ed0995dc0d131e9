package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Metrics is one scrape.
type Metrics map[string]*dto.MetricFamily

// Get fetches a path from the daemon's HTTP listener.
func (s *Siskin) Get(path string, accept string) (*http.Response, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			derr := s.host.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, derr
		},
	}
	client := http.Client{Transport: transport, Timeout: Patience}
	req, err := http.NewRequest(http.MethodGet, "http://"+s.Listen()+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	return client.Do(req)
}

// Scrape reads /metrics in the binary format, the only one that carries the
// native histograms.
func (s *Siskin) Scrape() Metrics {
	s.bed.tb.Helper()
	resp, err := s.Get("/metrics", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	if err != nil {
		s.bed.tb.Fatalf("scrape: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.bed.tb.Fatalf("scrape: %s", resp.Status)
	}
	m := Metrics{}
	decoder := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header))
	for {
		var family dto.MetricFamily
		err := decoder.Decode(&family)
		if errors.Is(err, io.EOF) {
			return m
		}
		if err != nil {
			s.bed.tb.Fatalf("read the metrics: %v", err)
		}
		m[family.GetName()] = &family
	}
}

// Find returns the samples of a metric that have all these labels, given as
// name, value, name, value.
func (m Metrics) Find(name string, labels ...string) []*dto.Metric {
	var found []*dto.Metric
	for _, metric := range m[name].GetMetric() {
		has := map[string]string{}
		for _, pair := range metric.GetLabel() {
			has[pair.GetName()] = pair.GetValue()
		}
		fits := true
		for i := 0; i < len(labels); i += 2 {
			fits = fits && has[labels[i]] == labels[i+1]
		}
		if fits {
			found = append(found, metric)
		}
	}
	return found
}

// Sum adds the samples of a counter or gauge that have all these labels. A
// metric that is not there at all is an error: 0 would look like a count.
func (m Metrics) Sum(name string, labels ...string) (float64, error) {
	if m[name] == nil {
		return 0, fmt.Errorf("the metric %s is not there", name)
	}
	var sum float64
	for _, metric := range m.Find(name, labels...) {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetUntyped().GetValue()
	}
	return sum, nil
}
