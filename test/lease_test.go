package test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/test/bed"
)

// A daemon that dies, or stands still, while the canary has half of the
// connections: the kernel gives it none any more as soon as the lease has ended,
// and a daemon that comes back does not bring it back.
func TestRootLease(t *testing.T) {
	for _, f := range bed.Families() {
		for _, how := range []string{"SIGKILL", "SIGSTOP"} {
			t.Run(f.String()+"/"+how, func(t *testing.T) { leaseEnds(t, f, how == "SIGSTOP") })
		}
	}
}

func leaseEnds(t *testing.T, f bed.Family, stands bool) {
	r := bed.NewRouted(bed.New(t))
	stable, canary := greeters(r, f)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	g := &staged{t: t, r: r, family: f, frontend: frontend, stable: stable, canary: canary.Addr}
	g.s = steer(t, r.Bed, r.Host, []string{"up0"})
	g.s.Apply(bed.Service{
		Name: "shop", Proto: "tcp", Affinity: "connection", Frontends: []netip.AddrPort{frontend},
		Stable: []netip.AddrPort{stable.Addr}, Canary: []netip.AddrPort{canary.Addr},
	})
	g.release("{weight: 50%, hold: 10m}", "lease: 1s")
	g.s.Must("release", "start", "shop-v2")
	g.awaitWeight(5000)
	maps := g.pinned()
	load := r.Client.Drive(2, frontend)
	if err := load.Await(500); err != nil {
		t.Fatal(err)
	}
	if stands {
		g.s.Signal(syscall.SIGSTOP)
	} else {
		g.s.Kill()
	}
	lease := maps.leaseEnd(t)
	// What the load does from now on tells nothing new, but it must find stable.
	if err := load.Await(500); err != nil {
		t.Fatal(err)
	}
	load.Stop()
	if n := load.Failed.Load(); n > 0 {
		t.Errorf("%d connections failed", n)
	}
	last := maps.lastOfCanary(t)
	late := time.Duration(last - lease)
	t.Logf("the last connection of the canary was chosen %v before the lease ended", -late)
	if late > time.Millisecond {
		t.Errorf("a connection was given to the canary %v after its lease had ended", late)
	}
	if stands {
		g.s.Signal(syscall.SIGCONT)
	} else {
		g.s.Start()
	}
	v := g.awaitPhase("RolledBack")
	if v.Cause != "lease expired" {
		t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
	}
	if now := maps.lastOfCanary(t); now != last {
		t.Errorf("a connection was given to the canary %v after it was taken back", time.Duration(now-last))
	}
}

// kept are pinned maps, which outlive the daemon.
type kept struct{ leases, words, backends, counters, breakers *ebpf.Map }

func (g *staged) pinned() kept {
	g.t.Helper()
	open := func(name string) *ebpf.Map {
		m, err := ebpf.LoadPinnedMap(filepath.Join(g.s.BPFFS(), fmt.Sprintf("v%d", loader.LayoutVersion), "maps", name), nil)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { m.Close() })
		return m
	}
	return kept{open("leases"), open("words"), open("backends"), open("counters"), open("breakers")}
}

// leaseEnd waits until the kernel has latched the end of the one lease, and
// returns when it was, on the clock of bpf.Now.
func (k kept) leaseEnd(t *testing.T) int64 {
	t.Helper()
	leases, err := bpf.NewLeases(k.leases)
	if err != nil {
		t.Fatal(err)
	}
	defer leases.Close()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for word := range k.leases.MaxEntries() {
			if l := leases.Load(word); l.Expired() {
				return l.Deadline() - (bpf.BootNow() - bpf.Now())
			}
		}
	}
	t.Fatal("no lease has ended")
	return 0
}

// lastOfCanary is when a backend of version slot 1 was given a connection last.
func (k kept) lastOfCanary(t *testing.T) int64 {
	t.Helper()
	backends, err := bpf.NewMapOf[uint32, bpf.Backend](k.backends)
	if err != nil {
		t.Fatal(err)
	}
	all, err := backends.All()
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	for id, b := range all {
		if b.Slot != 1 {
			continue
		}
		var tallies []bpf.Tally
		if err := k.counters.Lookup(id, &tallies); err != nil {
			t.Fatal(err)
		}
		for _, tally := range tallies {
			last = max(last, tally.SelectedNs)
		}
	}
	if last == 0 {
		t.Fatal("the canary was never given a connection")
	}
	return int64(last)
}
