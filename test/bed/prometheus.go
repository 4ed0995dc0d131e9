package bed

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Prometheus is a real Prometheus server.
type Prometheus struct {
	cmd *exec.Cmd
	log *logBuffer
}

// Prometheus starts a server in the namespace that scrapes a target ten times a
// second, and returns when it listens. It ends with the test.
func (n *Namespace) Prometheus(addr netip.AddrPort, target string, flags ...string) *Prometheus {
	n.tb.Helper()
	dir := n.tb.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs:\n- job_name: siskin\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  static_configs: [{targets: [%q]}]\n", target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		n.tb.Fatal(err)
	}
	p := &Prometheus{log: &logBuffer{}}
	p.cmd = exec.Command("prometheus", append(flags, "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr.String())...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := n.Start(p.cmd); err != nil {
		n.tb.Fatalf("start prometheus (apt-get install prometheus): %v", err)
	}
	n.tb.Cleanup(func() {
		p.Stop()
		if n.tb.Failed() {
			n.tb.Logf("prometheus said:\n%s", p.log)
		}
	})
	for end := time.Now().Add(Starting); ; time.Sleep(20 * time.Millisecond) {
		c, err := n.Dial("tcp", netip.AddrPort{}, addr)
		if err == nil {
			c.Close()
			return p
		}
		if time.Now().After(end) {
			n.tb.Fatalf("prometheus does not listen after %v: %v\n%s", Starting, err, p.log)
		}
	}
}

// Stop kills it.
func (p *Prometheus) Stop() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()
}

// A Series is one of an answer to a query.
type Series struct {
	Labels map[string]string
	Value  float64
}

// Query asks for the value of an expression now.
func (n *Namespace) Query(addr netip.AddrPort, expression string) ([]Series, error) {
	var answer struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := n.askPrometheus(addr, "query", url.Values{"query": {expression}}, &answer); err != nil {
		return nil, err
	}
	out := make([]Series, len(answer.Result))
	for i, r := range answer.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		out[i] = Series{r.Metric, v}
	}
	return out, nil
}

// LabelValues asks for the values that a label has in the series of a metric.
func (n *Namespace) LabelValues(addr netip.AddrPort, metric, label string) (values []string, err error) {
	err = n.askPrometheus(addr, "label/"+label+"/values", url.Values{"match[]": {metric}}, &values)
	return values, err
}

func (n *Namespace) askPrometheus(addr netip.AddrPort, path string, query url.Values, into any) error {
	client := http.Client{Timeout: Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return n.Dial("tcp", netip.AddrPort{}, addr)
		},
	}}
	resp, err := client.Get("http://" + addr.String() + "/api/v1/" + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 {
		return fmt.Errorf("%s: %s %v", answer.Status, answer.Error, answer.Warnings)
	}
	return json.Unmarshal(answer.Data, into)
}
