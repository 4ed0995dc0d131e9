package test

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// plain is a service with a server for stable and one for the canary.
func plain(r *bed.Routed, f bed.Family, name string, vip int) bed.Service {
	at := f.At(bed.Nearby, 2)
	stable, canary := netip.AddrPortFrom(at, uint16(8000+10*vip)), netip.AddrPortFrom(at, uint16(8001+10*vip))
	r.Near.ServeTCP(stable, name+"-stable", bed.Answer)
	r.Near.ServeTCP(canary, name+"-canary", bed.Answer)
	return bed.Service{
		Name: name, Proto: "tcp", Frontends: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.VIPs, vip), 80)},
		Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary},
	}
}

// events returns the reasons of all events that mention the object.
func events(s *bed.Siskin, object string) []string {
	var list []api.Event
	s.JSON(&list, "get", "events")
	var reasons []string
	for _, e := range list {
		if strings.Contains(e.Object+" "+e.Message, object) {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

// A link that somebody else detached comes back, is counted, and is said. A
// connection that was silent meanwhile never notices. (One on which the server
// spoke gets its answers from a stranger's address, and no program is there to
// prevent it.)
func TestRootDetachedLink(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	service := plain(r, bed.V4, "detached", 10)
	s.Apply(service)
	silent, err := r.Client.TalkTo(netip.AddrPortFrom(bed.V4.Visitor(1), 0), service.Frontends[0])
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.Ask("who"); err != nil {
		t.Fatal(err)
	}
	if n := s.Detach("up0"); n != 2 {
		t.Fatalf("%d links were pinned for up0, want 2", n)
	}
	s.Await("both programs are attached again", func() bool {
		return len(r.Host.Programs("up0", ebpf.AttachTCXIngress)) == 1 &&
			len(r.Host.Programs("up0", ebpf.AttachTCXEgress)) == 1
	})
	askAll(t, r.Client, bed.V4, service.Frontends[0], "detached-stable")
	if _, err := silent.Ask("who"); err != nil {
		t.Errorf("an open connection did not survive: %v", err)
	}
	if n, err := s.Scrape().Sum("siskin_reattachments_total"); err != nil || n < 1 {
		t.Errorf("siskin_reattachments_total is %v (%v)", n, err)
	}
	if reasons := events(s, "up0"); len(reasons) == 0 {
		t.Error("there is no event about up0")
	}
}

// An interface that is named and missing is no reason not to steer the
// others; it is attached when it appears.
func TestRootLateInterface(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0", "late0"})
	f := bed.V4
	service := plain(r, f, "late", 10)
	s.Apply(service)
	askAll(t, r.Client, f, service.Frontends[0], "late-stable")
	if reasons := events(s, "late0"); len(reasons) == 0 {
		t.Error("there is no event about the missing interface")
	}

	r.Connect(bed.End{Space: r.Router, Dev: "late", Addrs: []string{f.On(bed.Late, 1)}},
		bed.End{Space: r.Host, Dev: "late0", Addrs: []string{f.On(bed.Late, 2)}})
	s.Await("late0 is attached", func() bool {
		return len(r.Host.Programs("late0", ebpf.AttachTCXIngress)) == 1 &&
			len(r.Host.Programs("late0", ebpf.AttachTCXEgress)) == 1
	})
	// The way to the host and back leads over the new interface now.
	r.Router.Route(f.All(bed.VIPs), f.At(bed.Late, 2).String())
	r.Host.Route(f.Everywhere(), f.At(bed.Late, 1).String())
	askAll(t, r.Client, f, service.Frontends[0], "late-stable")

	// It goes, and comes again under its name.
	r.Host.Remove("late0")
	r.Router.Route(f.All(bed.VIPs), f.At(bed.Uplink, 2).String())
	r.Host.Route(f.Everywhere(), f.At(bed.Uplink, 1).String())
	askAll(t, r.Client, f, service.Frontends[0], "late-stable")
	r.Connect(bed.End{Space: r.Router, Dev: "late", Addrs: []string{f.On(bed.Late, 1)}},
		bed.End{Space: r.Host, Dev: "late0", Addrs: []string{f.On(bed.Late, 2)}})
	s.Await("late0 is attached again", func() bool {
		return len(r.Host.Programs("late0", ebpf.AttachTCXIngress)) == 1
	})
}

// The second daemon on a host ends with its own exit code and does no harm.
func TestRootSecondDaemon(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	service := plain(r, bed.V4, "first", 10)
	s.Apply(service)
	second := s.Command()
	var stderr bytes.Buffer
	second.Stderr = &stderr
	if err := r.Host.Start(second); err != nil {
		t.Fatal(err)
	}
	_ = second.Wait() // its exit code tells
	if code := second.ProcessState.ExitCode(); code != 6 {
		t.Errorf("the second daemon ended with %d, want 6: %s", code, stderr.String())
	}
	if lines := strings.Count(stderr.String(), "\n"); !strings.Contains(stderr.String(), "siskin:") || lines > 2 {
		t.Errorf("its error is no clear line: %q", stderr.String())
	}
	// Nor may anybody pull the maps away under the first.
	if r := s.CLI("uninstall", "--bpffs", s.BPFFS(), "--state-dir", s.StateDir()); r.Code != 6 {
		t.Errorf("uninstall under a running daemon: %v", r)
	}
	askAll(t, r.Client, bed.V4, service.Frontends[0], "first-stable")
	s.Must("get", "services")
}

// A state file that cannot be read is set aside; the kernel knows the rest.
func TestRootCorruptState(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	service := plain(r, bed.V4, "kept", 10)
	s.Apply(service)
	s.Weight("kept", "100%")
	s.Stop()
	path := filepath.Join(s.StateDir(), "state.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// One letter is another, as after a power loss: valid JSON, wrong sum.
	if err := os.WriteFile(path, bytes.Replace(content, []byte("kept"), []byte("kelp"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	askAll(t, r.Client, bed.V4, service.Frontends[0], "kept-canary")
	if w := s.Version("kept", "canary").Weight.String(); w != "100%" {
		t.Errorf("the canary's weight is %s, want 100%%", w)
	}
	aside, err := filepath.Glob(path + ".corrupt-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v (%v), want one file", aside, err)
	}
	if !strings.Contains(s.Log(), "corrupt") && len(events(s, "state")) == 0 {
		t.Error("nobody said that the state file was corrupt")
	}
}

// Without a BPF file system nothing can be pinned: say so and how to mount it.
func TestRootNoBPFFS(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := r.Siskin(r.Host, bed.Options{
		Binary: binary(t), Interfaces: []string{"up0"},
		Args: []string{"--bpffs", r.Path("nothing")}, // the last one counts
	})
	if err := s.TryStart(); err == nil {
		t.Fatal("it steers without a BPF file system")
	}
	if log := s.Log(); !strings.Contains(log, "mount -t bpf") {
		t.Errorf("the error does not tell what to do: %q", log)
	}
	if names := r.Host.Programs("up0", ebpf.AttachTCXIngress); len(names) > 0 {
		t.Errorf("it left %v behind", names)
	}
}

// A full flow table refuses new connections to a virtual address, lets those
// to a real server pass, counts both, and harms no open one.
func TestRootFullFlowTable(t *testing.T) {
	const flows = 64
	r := bed.NewRouted(bed.New(t))
	f := bed.V4
	s := steer(t, r.Bed, r.Host, []string{"up0"}, "--flows", "64")
	virtual := plain(r, f, "virtual", 10)
	server := plain(r, f, "server", 11)
	server.Frontends = server.Stable
	s.Apply(virtual, server)
	if n, err := s.Scrape().Sum("siskin_flow_table_capacity"); err != nil || n != flows {
		t.Errorf("siskin_flow_table_capacity is %v (%v), want %d", n, err, flows)
	}
	var open []*bed.Talk
	for i := range flows {
		talk, err := r.Client.TalkTo(netip.AddrPortFrom(f.Visitor(i), 0), virtual.Frontends[0])
		if err != nil {
			break // full before the last entry is allowed, at once is not
		}
		defer talk.Close()
		open = append(open, talk)
	}
	if len(open) < flows/2 {
		t.Fatalf("the table is full after %d of %d flows", len(open), flows)
	}
	if _, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(flows), 0), virtual.Frontends[0]); err == nil {
		t.Error("a connection was made although the table is full")
	}
	if name, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(flows), 0), server.Frontends[0]); err != nil || name != "server-stable" {
		t.Errorf("the real address does not pass: %q, %v", name, err)
	}
	for _, talk := range open {
		if _, err := talk.Ask("who"); err != nil {
			t.Fatalf("an open connection was harmed: %v", err)
		}
	}
	m := s.Scrape()
	for _, name := range []string{"siskin_drops_total", "siskin_passes_total"} {
		if n, err := m.Sum(name, "reason", "table_full"); err != nil || n < 1 {
			t.Errorf("%s{reason=table_full} is %v (%v)", name, n, err)
		}
	}
	if n, err := m.Sum("siskin_flow_table_insert_failures_total"); err != nil || n < 1 {
		t.Errorf("siskin_flow_table_insert_failures_total is %v (%v)", n, err)
	}
}
