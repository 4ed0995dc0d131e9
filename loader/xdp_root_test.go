package loader_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"siskin.dev/siskin/loader"
)

func attachXDP(t *testing.T, l *loader.Loader, name string) loader.Interface {
	t.Helper()
	ifi, err := l.AttachXDP(name)
	if err != nil {
		t.Fatalf("attach to %s by XDP: %v", name, err)
	}
	return ifi
}

// runningXDP returns what an interface runs by XDP; nil for nothing.
func runningXDP(t *testing.T, name string) *netlink.LinkXdp {
	t.Helper()
	ifi, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if xdp := ifi.Attrs().Xdp; xdp != nil && xdp.Attached {
		return xdp
	}
	return nil
}

// hooksOn tells what of ours is on an interface: "xdp", "in" and "out", each as
// often as it is there.
func hooksOn(t *testing.T, name string) string {
	t.Helper()
	ifi, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	if xdp := runningXDP(t, name); xdp != nil && strings.HasPrefix(loader.ProgramName(ebpf.ProgramID(xdp.ProgId)), "siskin_") {
		out = append(out, "xdp")
		if xdp.AttachMode != 1 {
			t.Errorf("%s runs XDP in mode %d, want native", name, xdp.AttachMode)
		}
	}
	for side, at := range map[string]ebpf.AttachType{"in": ebpf.AttachTCXIngress, "out": ebpf.AttachTCXEgress} {
		for _, p := range hooked(t, ifi.Attrs().Index, at) {
			if strings.HasPrefix(loader.ProgramName(p.ID), "siskin_") {
				out = append(out, side)
			}
		}
	}
	for _, f := range ourFilters(t, name) {
		out = append(out, map[bool]string{true: "in", false: "out"}[f.Parent == netlink.HANDLE_MIN_INGRESS])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func wantHooks(t *testing.T, name, want string) {
	t.Helper()
	if got := hooksOn(t, name); got != want {
		t.Errorf("on %s are %q, want %q", name, got, want)
	}
}

// wantPins checks the pins of an interface's links.
func (b *bed) wantPins(index int, sides ...string) {
	b.t.Helper()
	all, err := os.ReadDir(filepath.Join(b.bpffs, layout, "links"))
	if err != nil {
		b.t.Fatal(err)
	}
	var got, want []string
	for _, e := range all {
		got = append(got, e.Name())
	}
	for _, s := range sides {
		want = append(want, linkName(index, s))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("pins %v, want %v", got, want)
	}
}

// xdpProgram is somebody else's, that passes everything on.
func xdpProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load a foreign program: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func strangeXDP(t *testing.T, index int, mode link.XDPAttachFlags) link.Link {
	t.Helper()
	ln, err := link.AttachXDP(link.XDPOptions{Program: xdpProgram(t), Interface: index, Flags: mode})
	if err != nil {
		t.Fatalf("attach a foreign program: %v", err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestRootXDPAttachAndAdopt(t *testing.T) {
	for name, change := range mechanisms() {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			pins := []string{"egress", "xdp"}
			if name == "tcx" {
				needTCX(t)
			} else {
				pins = pins[1:]
			}
			index := b.veth("up0")
			l := b.open(change)
			if got := attachXDP(t, l, "up0"); !got.XDP || got.Clsact != (name == "clsact") || got.Ifindex != index {
				t.Errorf("attached to %+v, want by XDP and %s", got, name)
			}
			attachXDP(t, l, "up0") // again: nothing happens
			wantHooks(t, "up0", "out xdp")
			b.wantPins(index, pins...)
			wantEvents(t, l, "")
			before := runningXDP(t, "up0").ProgId
			closeLoader(t, l)
			wantHooks(t, "up0", "out xdp")

			l = b.open(change)
			left, err := l.Leftovers()
			if want := (loader.Interface{Name: "up0", Ifindex: index, XDP: true, Clsact: name == "clsact"}); err != nil || len(left) != 1 || left[0] != want {
				t.Errorf("leftovers %+v, %v; want %+v", left, err, want)
			}
			links := allLinks(t)
			attachXDP(t, l, "up0")
			wantHooks(t, "up0", "out xdp")
			b.wantPins(index, pins...)
			if now := runningXDP(t, "up0").ProgId; now == before {
				t.Error("the link has the program of the process before")
			}
			// A link that was adopted is the same link.
			xdp := pinned(t, filepath.Join(b.bpffs, layout, "links", linkName(index, "xdp")))
			if !slices.Contains(links, xdp) {
				t.Errorf("the link %d is none of those before, %v", xdp, links)
			}
			if err := l.Detach(index); err != nil {
				t.Fatal(err)
			}
			wantHooks(t, "up0", "")
			b.wantPins(index)
		})
	}
}

// pinned returns the id of a pinned link.
func pinned(t *testing.T, path string) link.ID {
	t.Helper()
	ln, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := ln.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// Between tc and XDP and back, by every mechanism: at no moment does nothing
// take what comes in, and nothing is left behind.
func TestRootChangeToXDPAndBack(t *testing.T) {
	b := newBed(t)
	index := b.veth("up0")
	steps := []struct {
		xdp, clsact bool
		pins        []string
	}{
		{false, false, []string{"egress", "ingress"}}, {true, false, []string{"egress", "xdp"}},
		{false, false, []string{"egress", "ingress"}}, {true, true, []string{"xdp"}},
		{false, true, nil}, {true, false, []string{"egress", "xdp"}}, {false, true, nil}, {true, true, []string{"xdp"}},
	}
	steered := false
	for _, step := range steps {
		if !step.clsact && !haveTCX(t) {
			continue
		}
		l := b.open(func(o *loader.Options) { o.Clsact = step.clsact })
		stop := watchGaps(t, "up0", steered)
		var err error
		if step.xdp {
			_, err = l.AttachXDP("up0")
		} else {
			_, err = l.Attach("up0")
		}
		stop()
		if err != nil {
			t.Fatal(err)
		}
		steered = true
		wantHooks(t, "up0", map[bool]string{true: "out xdp", false: "in out"}[step.xdp])
		b.wantPins(index, step.pins...)
		wantEvents(t, l, "")
		closeLoader(t, l)
	}
}

// watchGaps looks again and again whether something of ours is at ingress, until
// the result is called.
func watchGaps(t *testing.T, name string, on bool) (stop func()) {
	t.Helper()
	if !on {
		return func() {}
	}
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(here); err != nil {
			t.Error(err)
			return
		}
		for {
			// One after the other: what came before the other went is seen by
			// the first look or by the last.
			if !hasIngress(t, name) && !hasXDP(t, name) && !hasIngress(t, name) {
				t.Error("nothing takes what comes in")
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		here.Close()
	}
}

func hasIngress(t *testing.T, name string) bool {
	return strings.Contains(hooksOn(t, name), "in")
}

func hasXDP(t *testing.T, name string) bool {
	return strings.Contains(hooksOn(t, name), "xdp")
}

// The same within one process.
func TestRootChangeToXDPAtOnce(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	b.veth("up0")
	l := b.open()
	attach(t, l, "up0")
	attachXDP(t, l, "up0")
	wantHooks(t, "up0", "out xdp")
	wantEvents(t, l, "")
	attach(t, l, "up0")
	wantHooks(t, "up0", "in out")
	wantEvents(t, l, "")
	if got := l.Attached(); len(got) != 1 || got[0].XDP {
		t.Errorf("attached to %+v, want up0 by tc", got)
	}
}

// What XDP cannot do is an error that says why, and changes nothing.
func TestRootXDPRefused(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	mtu := func(name string, mtu int) {
		for _, end := range []string{name, name + "p"} {
			ifi, err := netlink.LinkByName(end)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetMTU(ifi, mtu); err != nil {
				t.Fatal(err)
			}
		}
	}
	addLink := func(l netlink.Link) {
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	}
	taken, generic := b.veth("taken0"), b.veth("generic0")
	strangeXDP(t, taken, link.XDPDriverMode)
	strangeXDP(t, generic, link.XDPGenericMode)
	b.veth("jumbo0")
	mtu("jumbo0", 9000)
	addLink(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN})
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	addLink(bridge)
	addLink(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0", MasterIndex: bridge.Attrs().Index}, PeerName: "port0p"})

	l := b.open()
	for name, says := range map[string]string{
		"taken0": "stranger by XDP already", "generic0": "stranger by XDP already",
		"jumbo0": "ip link set dev jumbo0 mtu 1500", "br0": "no XDP in native mode",
		"tun0": "no Ethernet", "port0": "port of a bridge", "lo": "loopback",
	} {
		ifi, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		before := runningXDP(t, name)
		for _, steered := range []bool{false, true} {
			want := ""
			if steered {
				attach(t, l, name)
				want = "in out"
			}
			_, err = l.AttachXDP(name)
			if !errors.Is(err, loader.ErrXDP) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "--interface") {
				t.Errorf("%s: %v; want ErrXDP that says %q and what else to do", name, err, says)
			}
			wantHooks(t, name, want)
			if now := runningXDP(t, name); (now == nil) != (before == nil) || now != nil && now.ProgId != before.ProgId {
				t.Errorf("%s ran %+v by XDP, now %+v", name, before, now)
			}
			wantEvents(t, l, "")
		}
		if err := l.Detach(ifi.Attrs().Index); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.AttachXDP("nosuch0"); !errors.Is(err, loader.ErrNoInterface) {
		t.Errorf("an interface that is not there: %v, want ErrNoInterface", err)
	}
}

func TestRootXDPRepair(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	l := b.open()
	attachXDP(t, l, "up0")
	pin := filepath.Join(b.bpffs, layout, "links", linkName(index, "xdp"))
	egress := hooked(t, index, ebpf.AttachTCXEgress)
	detachPinned(t, pin)
	wantHooks(t, "up0", "out")
	wantEvents(t, l, "reattached")
	wantHooks(t, "up0", "out xdp")
	if got := hooked(t, index, ebpf.AttachTCXEgress); got[0].ID != egress[0].ID {
		t.Errorf("egress runs %v, before %v; nobody had touched it", got, egress)
	}
	wantEvents(t, l, "")

	// Somebody takes the place.
	detachPinned(t, pin)
	taker := strangeXDP(t, index, link.XDPDriverMode)
	wantEvents(t, l, "reattach-failed")
	if got := l.Attached(); len(got) != 1 || !got[0].Broken {
		t.Errorf("attached to %+v, want it broken", got)
	}
	if err := taker.Close(); err != nil {
		t.Fatal(err)
	}
	if got := kinds(l.Check(time.Now().Add(time.Hour))); got != "reattached" { // it waits a while after a failure
		t.Errorf("events %q, want reattached", got)
	}
	wantHooks(t, "up0", "out xdp")
	if got := l.Attached(); got[0].Broken {
		t.Errorf("attached to %+v, want it whole", got)
	}

	if err := os.RemoveAll(filepath.Join(b.bpffs, layout)); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "repinned repinned repinned") // two links, and the maps
	b.wantPins(index, "egress", "xdp")
	closeLoader(t, l)
	wantHooks(t, "up0", "out xdp")
	l = b.open()
	attachXDP(t, l, "up0")

	// The interface goes, and another takes its name.
	ifi, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(ifi); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "interface-gone")
	again := b.veth("up0")
	attachXDP(t, l, "up0")
	b.wantPins(again, "egress", "xdp")
}

// A pin outlives its interface: the link that it names is dead.
func TestRootXDPPinOfTheDead(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	l := b.open()
	attachXDP(t, l, "up0")
	closeLoader(t, l)
	detachPinned(t, filepath.Join(b.bpffs, layout, "links", linkName(index, "xdp")))
	l = b.open()
	attachXDP(t, l, "up0")
	wantHooks(t, "up0", "out xdp")
	b.wantPins(index, "egress", "xdp")
	if err := l.Drop(index); err != nil {
		t.Fatal(err)
	}
	wantHooks(t, "up0", "")
	b.wantPins(index)
}

func TestRootXDPUninstall(t *testing.T) {
	for name, change := range mechanisms() {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			if name == "tcx" {
				needTCX(t)
			}
			b.veth("up0")
			other := b.veth("other0")
			strangeXDP(t, other, link.XDPDriverMode)
			l := b.open(change)
			attachXDP(t, l, "up0")
			closeLoader(t, l)
			if err := os.Rename(filepath.Join(b.bpffs, layout), filepath.Join(b.bpffs, "v99")); err != nil {
				t.Fatal(err)
			}
			l, err := loader.Open(b.options())
			if err == nil {
				closeLoader(t, l)
			}
			if !errors.Is(err, loader.ErrLayout) {
				t.Errorf("open beside another layout that runs XDP: %v, want ErrLayout", err)
			}
			if n, err := loader.Uninstall(b.bpffs); err != nil || n.Links+n.Filters != 2 {
				t.Errorf("uninstall: %+v, %v; want two hooks removed", n, err)
			}
			wantHooks(t, "up0", "")
			if runningXDP(t, "up0") != nil || runningXDP(t, "other0") == nil {
				t.Error("uninstall must take our program away, and only that")
			}
		})
	}
}

// detachPinned detaches a link, as somebody with bpftool does.
func detachPinned(t *testing.T, path string) {
	t.Helper()
	ln, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ln.Detach(), ln.Close()); err != nil {
		t.Fatal(err)
	}
}
