package daemon_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/daemon"
)

func TestRootInterfaces(t *testing.T) {
	b := newBed(t)
	b.launch(func(o *daemon.Options) { o.Interfaces = []string{"late0"} })
	if code, body := b.get("/readyz"); code != 503 || !strings.Contains(body, "no interface") {
		t.Errorf("/readyz: %d %s; want 503 for want of an interface", code, body)
	}
	if !b.event("InterfaceMissing") {
		t.Error("no event tells of the missing interface")
	}
	b.veth("late0", "198.18.2.1/24")
	b.await("attachment to the new interface", func() bool { return b.hooked("late0") == 2 })
	b.await("readiness", func() bool { code, _ := b.get("/readyz"); return code == 200 })

	// Somebody detaches.
	dev, err := netlink.LinkByName("late0")
	if err != nil {
		t.Fatal(err)
	}
	res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: ebpf.AttachTCXEgress})
	if err != nil || len(res.Programs) != 1 {
		t.Fatalf("programs %v, %v", res, err)
	}
	id, _ := res.Programs[0].LinkID()
	ln, err := link.NewFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ln.Detach(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	b.await("repair", func() bool { return b.hooked("late0") == 2 })
	b.await("event of the repair", func() bool { return b.event("LinkReattached") })
	if _, body := b.get("/metrics"); !strings.Contains(body, "siskin_reattachments_total 1\n") {
		t.Error("the repair was not counted")
	}

	// The interface goes and comes back.
	if err := netlink.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	b.await("word of the interface's end", func() bool { return b.event("InterfaceGone") })
	b.veth("late0", "198.18.2.1/24")
	b.await("attachment to the new interface", func() bool { return b.hooked("late0") == 2 })
}

// What a bridge leads to is remembered until the network changes.
func TestRootBridgeGetsATunnel(t *testing.T) {
	b := newBed(t)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("198.18.2.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.AddrAdd(br, addr), netlink.LinkSetUp(br)); err != nil {
		t.Fatal(err)
	}
	b.launch()
	b.apply(strings.Replace(shop, "198.18.1.2:8080", "198.18.2.2:8080", 1), false)
	path := func() string {
		backends, err := b.client.Backends(t.Context())
		if err != nil || len(backends) != 2 {
			t.Fatalf("backends %+v, %v; want two", backends, err)
		}
		return backends[1].Path
	}
	if got := path(); got != "local" {
		t.Errorf("path to a backend on a bridge is %s, want local", got)
	}
	tunnel := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0", MasterIndex: br.Attrs().Index}, VxlanId: 5, Port: 4789}
	if err := netlink.LinkAdd(tunnel); err != nil {
		t.Fatal(err)
	}
	b.await("remote path by the tunnel", func() bool { return path() == "remote" })
}

// Hooks of an earlier daemon go where the interfaces are named, and stay where
// they are found by the default routes.
func TestRootLeftovers(t *testing.T) {
	b := newBed(t)
	p := b.launch(func(o *daemon.Options) { o.Interfaces = []string{"up0", "pod0"} })
	b.wantHooked("pod0", 2)
	p.end(syscall.SIGKILL)
	p = b.launch()
	b.wantHooked("up0", 2)
	b.wantHooked("pod0", 0)
	p.end(syscall.SIGKILL)

	auto := func(o *daemon.Options) { o.Interfaces = nil }
	p = b.launch(auto)
	if want := "siskin: steering 0 services on up0"; p.line != want {
		t.Errorf("without a default route it said %q, want %q", p.line, want)
	}
	p.end(syscall.SIGKILL)
	dev, err := netlink.LinkByName("pod0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Gw: net.IPv4(198, 18, 1, 2)}); err != nil {
		t.Fatal(err)
	}
	p = b.launch(auto)
	if want := "siskin: steering 0 services on up0, pod0"; p.line != want {
		t.Errorf("with a default route by pod0 it said %q, want %q", p.line, want)
	}
}

// The daemon needs no more than the three capabilities that its unit has.
func TestRootCapabilities(t *testing.T) {
	b := newBed(t)
	b.caps = ",+bpf,+perfmon,+net_admin"
	for range 2 { // the second time it adopts
		p := b.launch()
		if want := "siskin: steering 0 services on up0"; p.line != want {
			t.Fatalf("it said %q, want %q", p.line, want)
		}
		b.wantHooked("up0", 2)
		if err := os.RemoveAll(filepath.Join(b.options().BPFFS, layout)); err != nil {
			t.Fatal(err)
		}
		b.await("new pins", func() bool {
			pins, err := os.ReadDir(filepath.Join(b.options().BPFFS, layout, "links"))
			return err == nil && len(pins) == 2
		})
		b.await("event of the pins", func() bool { return b.event("PinRestored") })
		b.apply(shop, false)
		if got := b.canary(); got != 500 {
			t.Errorf("the canary has %s, want 5%%", got)
		}
		if err := b.client.Delete(t.Context(), api.KindService, "shop"); err != nil {
			t.Fatal(err)
		}
		b.await("end of the service", func() bool {
			left, err := b.client.Backends(t.Context())
			return err == nil && len(left) == 0
		})
		if code, body := b.get("/metrics"); code != 200 {
			t.Errorf("/metrics: %d %s", code, body)
		}
		p.end(syscall.SIGKILL)
	}
	b.caps = ",+net_admin"
	if p := b.launch(); p.line != "" || p.end(syscall.SIGKILL) != 1 {
		t.Errorf("without CAP_BPF it said %q and went on", p.line)
	}
}

func TestRootDoctor(t *testing.T) {
	b := newBed(t)
	b.launch()
	b.apply(strings.Replace(shop, "198.18.9.1", "198.18.0.9", 1), false)
	report, err := b.client.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range report.Checks {
		found = found || c.Status == "warn" && strings.Contains(c.Remedy, "ip addr add 198.18.0.9/32 dev up0")
	}
	if !found {
		t.Errorf("nothing says that nobody answers ARP for the frontend: %+v", report.Checks)
	}
	s, err := b.client.Service(t.Context(), "shop")
	if err != nil || len(s.Problems) == 0 {
		t.Errorf("problems %v, %v; want the frontend's", s.Problems, err)
	}
}
