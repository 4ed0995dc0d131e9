package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Both forms leave in one scrape, and describe the same durations.
func TestProtobufCarriesBothForms(t *testing.T) {
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", string(format))
	w := httptest.NewRecorder()
	Handler(example(t, readExample), slog.New(slog.DiscardHandler)).ServeHTTP(w, request)
	decoder := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
	family := dto.MetricFamily{}
	for family.GetName() != "siskin_connect_duration_seconds" {
		if err := decoder.Decode(&family); err != nil {
			t.Fatalf("the page holds no siskin_connect_duration_seconds: %v", err)
		}
	}
	for _, m := range family.Metric {
		h := m.GetHistogram()
		var bucket, sum int64
		for _, delta := range h.PositiveDelta {
			bucket += delta
			sum += bucket
		}
		buckets := h.GetBucket()
		if h.GetSchema() != 3 || uint64(sum) != h.GetSampleCount() || sum == 0 {
			t.Errorf("native: schema %d, %d durations in the buckets of %d", h.GetSchema(), sum, h.GetSampleCount())
		}
		if len(buckets) != 23 || buckets[22].GetCumulativeCount() != h.GetSampleCount() {
			t.Errorf("classic: %d buckets, %v", len(buckets), buckets)
		}
	}
}

// A rollback takes microseconds: both forms must tell 3 µs from 30.
func TestRollbackDuration(t *testing.T) {
	d, err := NewDaemon(prometheus.NewPedanticRegistry(), "v0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	for _, seconds := range []float64{3e-6, 3e-5, 2} {
		d.RollbackDuration.Observe(seconds)
	}
	var m dto.Metric
	if err := d.RollbackDuration.Write(&m); err != nil {
		t.Fatal(err)
	}
	h := m.GetHistogram()
	if h.GetSchema() != 3 || len(h.PositiveDelta) != 3 {
		t.Errorf("native: schema %d, buckets %v; want three of schema 3", h.GetSchema(), h.PositiveDelta)
	}
	counts := make(map[float64]uint64)
	for _, b := range h.GetBucket() {
		counts[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	for bound, want := range map[float64]uint64{1e-6: 0, 5e-6: 1, 5e-5: 2, 1: 2} {
		if got, there := counts[bound]; !there || got != want {
			t.Errorf("classic: %d up to %g s, want %d", got, bound, want)
		}
	}
	if h.GetSampleCount() != 3 {
		t.Errorf("%d durations, want 3", h.GetSampleCount())
	}
}

// startPrometheus runs a real Prometheus that scrapes target, and returns the
// address of its API.
func startPrometheus(t *testing.T, target string, flags ...string) string {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("install the package prometheus: %v", err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs:\n- job_name: siskin\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  static_configs: [{targets: [%q]}]\n", target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var log bytes.Buffer
	cmd := exec.Command(binary, append(flags, "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("end prometheus: %v", err)
		}
		if err := cmd.Wait(); t.Failed() {
			t.Logf("prometheus ended with %v and said:\n%s", err, log.String())
		}
	})
	return address
}

// query asks a Prometheus for the value of an expression that has one series.
func query(ctx context.Context, address, expression string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+address+"/api/v1/query?query="+url.QueryEscape(expression), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if n := len(answer.Data.Result); n != 1 {
		return 0, fmt.Errorf("%d series", n)
	}
	return strconv.ParseFloat(fmt.Sprint(answer.Data.Result[0].Value[1]), 64)
}

// eventually asks until there is an answer; a new Prometheus needs a second
// or two to its first scrape.
func eventually(t *testing.T, address, expression string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		value, err := query(ctx, address, expression)
		if err == nil {
			return value
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: no answer in time: %v", expression, err)
		case <-again.C:
		}
	}
}

func TestRootPrometheusReadsBothForms(t *testing.T) {
	server := httptest.NewServer(Handler(example(t, readExample), slog.New(slog.DiscardHandler)))
	t.Cleanup(server.Close)
	target := server.Listener.Addr().String()
	classicOnly := startPrometheus(t, target)
	nativeToo := startPrometheus(t, target, "--enable-feature=native-histograms")

	l := exampleSnapshot().Latencies[1]
	median, _ := Quantile(&l.Connect, 0.5)
	tests := []struct {
		name, address, expression string
		want, tolerance           float64
	}{
		{"classic buckets", classicOnly, `siskin_connect_duration_seconds_bucket{version="stable",le="0.001953125"}`, 3, 0},
		{"classic total", classicOnly, `siskin_connect_duration_seconds_bucket{version="stable",le="+Inf"}`, 4, 0},
		{"classic count", classicOnly, `siskin_connect_duration_seconds_count{version="stable"}`, 4, 0},
		{"native count", nativeToo, `histogram_count(siskin_connect_duration_seconds{version="stable"})`, 4, 0},
		{"native sum", nativeToo, `histogram_sum(siskin_connect_duration_seconds{version="stable"})`, 1.00105, 1e-9},
		{"native overflow", nativeToo, `histogram_count(siskin_response_duration_seconds{version="stable"})`, 3, 0},
		// Prometheus 2 interpolates linearly inside a bucket, and buckets are
		// 9 % wide.
		{"native median", nativeToo, `histogram_quantile(0.5, siskin_connect_duration_seconds{version="stable"})`, median, 0.09 * median},
		{"native and empty", nativeToo, `histogram_count(siskin_response_duration_seconds{version="canary"})`, 0, 0},
		{"counter", classicOnly, `siskin_connections_total{backend="10.1.0.4:8080"}`, 55, 0},
	}
	for _, tt := range tests {
		if got := eventually(t, tt.address, tt.expression); math.Abs(got-tt.want) > tt.tolerance {
			t.Errorf("%s: %s = %v, want %v", tt.name, tt.expression, got, tt.want)
		}
	}
}
