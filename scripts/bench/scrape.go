package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// page is one answer of /metrics.
type page struct {
	text string
	took time.Duration
}

// scrape reads the metrics as text.
func (d *daemon) scrape() (page, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			derr := d.host.Do(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return c, derr
		},
	}
	client := http.Client{Transport: transport, Timeout: time.Minute}
	began := time.Now()
	resp, err := client.Get("http://" + metricsAt + "/metrics")
	if err != nil {
		return page{}, fmt.Errorf("read the metrics: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return page{}, fmt.Errorf("read the metrics: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return page{}, fmt.Errorf("read the metrics: %s", resp.Status)
	}
	return page{string(text), time.Since(began)}, nil
}

// mapBytes reads from the metrics what each map takes, and all together.
func (d *daemon) mapBytes() (by map[string]float64, sum float64, err error) {
	p, err := d.scrape()
	if err != nil {
		return nil, 0, err
	}
	return gauges(strings.NewReader(p.text), "siskin_map_memory_bytes", "map")
}

// gauges reads a gauge by the value of a label.
func gauges(text io.Reader, name, label string) (by map[string]float64, sum float64, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, 0, fmt.Errorf("read the metrics: %w", err)
	}
	family := families[name]
	if family == nil {
		return nil, 0, fmt.Errorf("the metrics have no %s", name)
	}
	by = map[string]float64{}
	for _, m := range family.GetMetric() {
		for _, pair := range m.GetLabel() {
			if pair.GetName() == label {
				by[pair.GetValue()] = m.GetGauge().GetValue()
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return by, sum, nil
}

// rss is the memory that the daemon's process has, in bytes.
func (d *daemon) rss() (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", d.Pid()))
	if err != nil {
		return 0, fmt.Errorf("read the daemon's memory: %w", err)
	}
	defer f.Close()
	return residentSet(f)
}

// residentSet finds VmRSS in a status file of proc.
func residentSet(status io.Reader) (float64, error) {
	for lines := bufio.NewScanner(status); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "VmRSS:" && fields[2] == "kB" {
			kb, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				return 0, fmt.Errorf("read VmRSS: %w", err)
			}
			return kb * 1024, nil
		}
	}
	return 0, fmt.Errorf("read the daemon's memory: no VmRSS")
}
