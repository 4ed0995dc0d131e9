package bed

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Prometheus is a real Prometheus server.
type Prometheus struct {
	cmd *exec.Cmd
	log *logBuffer
}

// Prometheus starts a server in the namespace that scrapes a target ten times a
// second, and returns when it listens. It ends with the test.
func (n *Namespace) Prometheus(addr netip.AddrPort, target string) *Prometheus {
	n.tb.Helper()
	dir := n.tb.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs:\n- job_name: siskin\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  static_configs: [{targets: [%q]}]\n", target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		n.tb.Fatal(err)
	}
	p := &Prometheus{log: &logBuffer{}}
	p.cmd = exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr.String())
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
