package test

import (
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// The HTTP listener says that the daemon lives and steers, and what it counts
// is in good form.
func TestRootHTTP(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	s.Apply(plain(r, bed.V4, "counted", 10))
	var page string
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		resp, err := s.Get(path, "text/plain")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %s, %v: %s", path, resp.Status, err, body)
		}
		page = string(body)
	}
	if !strings.Contains(page, "siskin_connections_total") {
		t.Fatalf("/metrics has no siskin_connections_total:\n%s", page)
	}
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(page)
	if out, err := promtool.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// The doctor finds nothing to complain about on a host that works.
func TestRootDoctor(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	s.Apply(plain(r, bed.V4, "healthy", 10))
	var report api.DoctorReport
	s.JSON(&report, "doctor")
	if len(report.Checks) == 0 {
		t.Error("the doctor checked nothing")
	}
	for _, c := range report.Checks {
		if c.Status == "fail" {
			t.Errorf("%s: %s (%s)", c.Name, c.Detail, c.Remedy)
		}
	}
	// It does where forwarding is off and a backend is not on the host.
	r.Host.Sysctl("net.ipv4.ip_forward", "0")
	result := s.CLI("doctor")
	if result.Code != 1 || !strings.Contains(result.Stdout, "ip_forward") {
		t.Errorf("without forwarding: %v", result)
	}
}

// Without --interface the daemon takes the one with the default route and
// those that lead to the backends.
func TestRootFindsInterfaces(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		s.Stop()
		s.Must("uninstall", "--bpffs", s.BPFFS())
		s.Options.Interfaces = nil
		s.Start()
		service := plain(r, f, "found", 10)
		far := netip.AddrPortFrom(f.At(bed.Beyond, 2), 8080)
		r.Far.ServeTCP(far, "far", bed.Answer)
		service.Canary = []netip.AddrPort{far}
		s.Apply(service)
		askAll(t, r.Client, f, service.Frontends[0], "found-stable")
		s.Weight("found", "100%")
		askAll(t, r.Client, f, service.Frontends[0], "far")
		if !strings.Contains(s.Ready, "up0") {
			t.Errorf("the line at the start does not name up0: %q", s.Ready)
		}
	})
}

// Documents can be given at the start.
func TestRootStartsWithDocuments(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	one, two := plain(r, bed.V4, "one", 10), plain(r, bed.V6, "two", 11)
	two.Weight = "100%"
	s := steer(t, r.Bed, r.Host, []string{"up0"},
		"-f", r.Write("one.yaml", one.YAML()), "-f", r.Write("two.yaml", two.YAML()))
	if !strings.Contains(s.Ready, "2 services") || !strings.Contains(s.Ready, "up0") {
		t.Errorf("the line at the start is %q", s.Ready)
	}
	askAll(t, r.Client, bed.V4, one.Frontends[0], "one-stable")
	askAll(t, r.Client, bed.V6, two.Frontends[0], "two-canary")
}
