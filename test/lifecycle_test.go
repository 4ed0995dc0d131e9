package test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/test/bed"
)

// alive is a service under load from new connections and with connections
// that stay open, none of which may ever notice what happens to the daemon.
type alive struct {
	r              *bed.Routed
	s              *bed.Siskin
	load           *bed.Load
	chat           *bed.Chat
	stable, canary *bed.Server
	steady         *bed.Server // of the connections that stay open
}

func liven(t *testing.T, f bed.Family, args ...string) *alive {
	t.Helper()
	a := &alive{r: bed.NewRouted(bed.New(t))}
	a.stable, a.canary = greeters(a.r, f)
	a.steady = a.r.Near.ServeTCP(netip.AddrPortFrom(f.At(bed.Nearby, 2), 8083), "steady", bed.Answer)
	a.s = steer(t, a.r.Bed, a.r.Host, []string{"up0"}, args...)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	steady := netip.AddrPortFrom(f.At(bed.VIPs, 11), 80)
	a.s.Apply(bed.Service{
		Name: "alive", Proto: "tcp", Affinity: "connection", Frontends: []netip.AddrPort{frontend},
		Stable: []netip.AddrPort{a.stable.Addr}, Canary: []netip.AddrPort{a.canary.Addr},
		Weight: "10%",
	}, bed.Service{
		Name: "steady", Proto: "tcp", Frontends: []netip.AddrPort{steady},
		Stable: []netip.AddrPort{a.steady.Addr},
	})
	// Not what the document says: the weight that was set last must stay.
	a.s.Weight("alive", "30%")
	a.chat = a.r.Client.ChatWith(20, steady)
	a.load = a.r.Client.Drive(4, frontend)
	a.more(t)
	return a
}

// more lets the load and the open connections go on for a while.
func (a *alive) more(t *testing.T) {
	t.Helper()
	asked := a.chat.Asked.Load()
	if err := a.load.Await(1000); err != nil {
		t.Error(err)
	}
	if a.chat.Asked.Load() == asked {
		t.Error("the open connections stand still")
	}
}

// opened is how many connections the kernel has given to the canary.
func (a *alive) opened() uint64 { return a.s.Version("alive", "canary").Traffic.Opened }

// checkOn checks after a restart that nothing began anew.
func (a *alive) checkOn(t *testing.T, before uint64) {
	t.Helper()
	v := a.s.Version("alive", "canary")
	if v.Weight.String() != "30%" {
		t.Errorf("the canary's weight is %v after the restart, want 30%%", v.Weight)
	}
	if v.Traffic.Opened < before {
		t.Errorf("%d connections of the canary after the restart, %d before", v.Traffic.Opened, before)
	}
}

// checkHooks looks for exactly one program of ours on each hook.
func (a *alive) checkHooks(t *testing.T, clsact bool) {
	t.Helper()
	for hook, attach := range map[string]ebpf.AttachType{
		"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress,
	} {
		names := a.r.Host.Programs("up0", attach)
		if clsact {
			if len(names) > 0 {
				t.Errorf("tcx %s has %v although clsact was asked for", hook, names)
			}
			names = a.r.Host.Filters("up0", hook)
		}
		if len(names) != 1 || !strings.Contains(names[0], "siskin_"+hook) {
			t.Errorf("%s of up0 has %q, want one program siskin_%s", hook, names, hook)
		}
	}
}

// finish ends the load and checks that no client or server noticed anything.
func (a *alive) finish(t *testing.T) {
	t.Helper()
	names := a.load.Stop()
	t.Logf("%.0f connections/s, answers %v, %d questions on open connections", a.load.Rate(), names, a.chat.Asked.Load())
	if failed := a.load.Failed.Load(); failed > 0 {
		t.Errorf("%d connections failed: %v", failed, a.load.Err())
	}
	if err := a.chat.Stop(); err != nil {
		t.Errorf("open connections failed: %v", err)
	}
	made := float64(names["stable"] + names["canary"])
	if share := float64(names["canary"]) / made; share < 0.25 || share > 0.35 {
		t.Errorf("the canary had %.1f%% in all, want 30%%", 100*share)
	}
	for _, server := range []*bed.Server{a.stable, a.canary, a.steady} {
		if n := server.Resets.Load(); n > 0 {
			t.Errorf("%s: %d connections were reset", server.Name, n)
		}
	}
}

// Done when 4.
func TestRootLifecycle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	// The same source as another version.
	upgraded, err := build(t.TempDir(), "upgraded")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		family bed.Family
		args   []string
	}{
		{"tcx", bed.V4, nil},
		{"clsact", bed.V6, []string{"--clsact"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := liven(t, c.family, c.args...)
			clsact := c.args != nil
			a.checkHooks(t, clsact)

			before := a.opened()
			a.s.Kill()
			a.more(t)
			if code := a.s.CLI("get", "services").Code; code != 5 {
				t.Errorf("without a daemon `get` ends with %d, want 5", code)
			}
			a.s.Start()
			a.checkOn(t, before)
			a.checkHooks(t, clsact)

			before = a.opened()
			a.s.Stop()
			a.more(t)
			a.s.Options.Binary = upgraded
			a.s.Start()
			a.more(t)
			a.checkOn(t, before)
			a.checkHooks(t, clsact)
			if len(a.s.Scrape().Find("siskin_build_info", "version", "upgraded")) != 1 {
				t.Error("siskin_build_info does not tell the other build's version")
			}
			a.finish(t)
			a.checkUninstall(t)
		})
	}
}

// The daemon dies in the middle of changes, and each time the kernel holds
// something whole: no connection fails, and the next daemon carries on.
func TestRootCrashes(t *testing.T) {
	const crashes = 8
	a := liven(t, bed.V4)
	frontend := netip.AddrPortFrom(bed.V4.At(bed.VIPs, 10), 80)
	others := []netip.AddrPort{a.stable.Addr}
	for port := range uint16(3) {
		addr := netip.AddrPortFrom(bed.V4.At(bed.Nearby, 2), 8090+port)
		a.r.Near.ServeTCP(addr, "stable", bed.Greet)
		others = append(others, addr)
	}
	for i := range crashes {
		before := a.opened()
		service := bed.Service{
			Name: "alive", Proto: "tcp", Affinity: "connection", Frontends: []netip.AddrPort{frontend},
			Stable: others[i%3 : i%3+1+i%2], Canary: []netip.AddrPort{a.canary.Addr}, Weight: "10%",
		}
		path := a.r.Write("changed.yaml", service.YAML())
		applied := make(chan struct{})
		go func() {
			a.s.CLI("apply", "-f", path) // it fails or not: the daemon may be dead by then
			close(applied)
		}()
		time.Sleep(time.Duration(a.r.Rand.IntN(30)) * time.Millisecond) // the moment is the case
		a.s.Kill()
		<-applied
		a.more(t)
		a.s.Start()
		a.checkOn(t, before)
		a.more(t)
	}
	a.finish(t)
}

// checkUninstall takes everything away, twice, and looks for what is left.
func (a *alive) checkUninstall(t *testing.T) {
	t.Helper()
	held := a.s.Held()
	if len(held.Maps) == 0 {
		t.Error("nothing is pinned while it steers")
	}
	a.s.Stop()
	for range 2 {
		a.s.Must("uninstall", "--bpffs", a.s.BPFFS(), "--state-dir", a.s.StateDir())
	}
	for _, dir := range []string{a.s.BPFFS(), a.s.StateDir()} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is there after uninstall: %v", dir, err)
		}
	}
	for _, hook := range []string{"ingress", "egress"} {
		if filters := a.r.Host.Filters("up0", hook); len(filters) > 0 {
			t.Errorf("filters on %s after uninstall: %q", hook, filters)
		}
	}
	for hook, attach := range map[string]ebpf.AttachType{
		"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress,
	} {
		if names := a.r.Host.Programs("up0", attach); len(names) > 0 {
			t.Errorf("programs on %s after uninstall: %q", hook, names)
		}
	}
	a.s.Await("all maps, links and programs are gone", func() bool { return len(held.Left()) == 0 })
	if left := held.Left(); len(left) > 0 {
		t.Errorf("left after uninstall: %v", left)
	}
}
