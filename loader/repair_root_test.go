package loader_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/loader"
)

// ourFilters returns the clsact filters with our names.
func ourFilters(t *testing.T, name string) []*netlink.BpfFilter {
	t.Helper()
	var out []*netlink.BpfFilter
	for _, f := range filters(t, name) {
		if strings.HasPrefix(f.Name, "siskin_") {
			out = append(out, f)
		}
	}
	return out
}

func filters(t *testing.T, name string) []*netlink.BpfFilter {
	t.Helper()
	ifi, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []*netlink.BpfFilter
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		all, err := netlink.FilterList(ifi, parent)
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: no clsact
			t.Fatal(err)
		}
		for _, f := range all {
			if bf, ok := f.(*netlink.BpfFilter); ok {
				out = append(out, bf)
			}
		}
	}
	return out
}

// kinds returns the kinds of events, in their order.
func kinds(events []loader.Event) string {
	var out []string
	for _, e := range events {
		out = append(out, string(e.Kind))
	}
	return strings.Join(out, " ")
}

func wantEvents(t *testing.T, l *loader.Loader, want string) {
	t.Helper()
	events := l.Check(time.Now())
	if got := kinds(events); got != want {
		t.Errorf("events %q, want %q (%+v)", got, want, events)
	}
}

func TestRootRepair(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	l := b.open()
	attach(t, l, "up0")
	wantEvents(t, l, "")

	prog := hooked(t, index, ebpf.AttachTCXIngress)[0]
	id, _ := prog.LinkID()
	ln, err := link.NewFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ln.Detach(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	egress, _ := hooked(t, index, ebpf.AttachTCXEgress)[0].LinkID()
	wantEvents(t, l, "reattached")
	wantHooked(t, index, 1)
	if still, _ := hooked(t, index, ebpf.AttachTCXEgress)[0].LinkID(); still != egress {
		t.Errorf("the egress link %d became %d; nobody had touched it", egress, still)
	}
	wantEvents(t, l, "")

	// Pins that somebody removed.
	if err := os.RemoveAll(filepath.Join(b.bpffs, layout)); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "repinned repinned repinned") // two links, and the maps
	wantEvents(t, l, "")
	closeLoader(t, l)
	wantHooked(t, index, 1) // the new pins hold them
	l = b.open()
	attach(t, l, "up0")
	wantHooked(t, index, 1)
}

// Somebody unmounts the bpf filesystem under a running process.
func TestRootUnmounted(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	l := b.open()
	attach(t, l, "up0")
	mount := filepath.Dir(b.bpffs)
	if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "check-failed")
	wantHooked(t, index, 1)
	if left, err := os.ReadDir(mount); err != nil || len(left) != 0 {
		t.Errorf("below the mount point: %v, %v; want nothing", left, err)
	}
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "repinned repinned repinned")
	closeLoader(t, l)
	l = b.open()
	attach(t, l, "up0")
	wantHooked(t, index, 1)
}

func TestRootInterfaceComesAndGoes(t *testing.T) {
	b := newBed(t)
	l := b.open()
	if _, err := l.Attach("up0"); !errors.Is(err, loader.ErrNoInterface) {
		t.Fatalf("attach to a missing interface: %v, want ErrNoInterface", err)
	}
	b.veth("up0")
	ifi := attach(t, l, "up0")
	dev, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	// A renamed interface keeps its hooks and is known by its new name.
	if err := netlink.LinkSetName(dev, "up1"); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "")
	if got := l.Attached(); len(got) != 1 || got[0].Name != "up1" {
		t.Errorf("attached to %v, want up1", got)
	}
	if err := netlink.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "interface-gone")
	if pins, err := os.ReadDir(filepath.Join(b.bpffs, layout, "links")); err != nil || len(pins) != 0 {
		t.Errorf("pins %v, %v; want none", pins, err)
	}
	b.veth("up1")
	if again := attach(t, l, "up1"); again.Ifindex == ifi.Ifindex {
		t.Errorf("the new interface has the old index %d", ifi.Ifindex)
	}
	closeLoader(t, l)

	// Gone while nobody watched: the next process cleans up.
	dev, err = netlink.LinkByName("up1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	l = b.open()
	wantEvents(t, l, "")
	if pins, err := os.ReadDir(filepath.Join(b.bpffs, layout, "links")); err != nil || len(pins) != 0 {
		t.Errorf("pins %v, %v; want none", pins, err)
	}
}

func TestRootClsact(t *testing.T) {
	b := newBed(t)
	index := b.veth("up0")
	dev, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	l := b.open(clsact)
	if got := attach(t, l, "up0"); !got.Clsact {
		t.Errorf("attached to %+v, want filters", got)
	}
	wantHooked(t, index, 0)
	foreignFilter(t, index)
	wantEvents(t, l, "")
	before := ourFilters(t, "up0")
	if len(before) != 2 {
		t.Fatalf("%d filters of ours, want 2", len(before))
	}
	closeLoader(t, l)

	// Another build replaces the program in the same filter.
	l = b.open(clsact)
	attach(t, l, "up0")
	after := ourFilters(t, "up0")
	if len(after) != 2 || after[0].Id == before[0].Id || after[0].Handle != before[0].Handle {
		t.Errorf("filters %v became %v; want the same filters with other programs", before, after)
	}
	if err := netlink.FilterDel(after[1]); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "reattached")
	if got := ourFilters(t, "up0"); len(got) != 2 {
		t.Errorf("%d filters of ours, want 2", len(got))
	}
	closeLoader(t, l)

	if _, err := loader.Uninstall(b.bpffs); err != nil {
		t.Fatalf("uninstall: %v", err)
	}
	if got := filters(t, "up0"); len(got) != 1 || got[0].Name != "stranger" {
		t.Errorf("filters %v, want the stranger's", got)
	}
	qdiscs, err := netlink.QdiscList(dev)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, q := range qdiscs {
		found = found || q.Type() == "clsact"
	}
	if !found {
		t.Error("the clsact qdisc was removed")
	}
}

func TestRootRefusals(t *testing.T) {
	b := newBed(t)
	b.veth("up0")
	plain := b.options()
	plain.BPFFS = filepath.Join(t.TempDir(), "siskin")
	if _, err := loader.Open(plain); !errors.Is(err, loader.ErrNoBPFFS) || !strings.Contains(err.Error(), "mount -t bpf bpf "+filepath.Dir(plain.BPFFS)) {
		t.Errorf("open on a plain directory: %v, want ErrNoBPFFS with the command", err)
	}

	l := b.open()
	if _, err := loader.Open(b.options()); !errors.Is(err, loader.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
	attach(t, l, "up0")
	closeLoader(t, l)

	// Sizes of pinned maps stay.
	l = b.open(func(o *loader.Options) { o.Sizes.Flows = 2048 })
	if got := l.Sizes(); got.Flows != 1024 || got.Backends != 64 {
		t.Errorf("sizes %+v, want the pinned maps' 1024 flows and 64 backends", got)
	}
	closeLoader(t, l)

	// So do those of maps that an earlier build did not have.
	for _, name := range []string{"talks", "requests"} {
		if err := os.Remove(filepath.Join(b.bpffs, layout, "maps", name)); err != nil {
			t.Fatal(err)
		}
	}
	l = b.open(func(o *loader.Options) { o.Sizes.Flows, o.Sizes.Backends = 2048, 128 })
	for name, want := range map[string]uint32{"talks": 1024, "requests": 64} {
		if got := l.Map(name).MaxEntries(); got != want {
			t.Errorf("%s was made with %d entries beside pinned maps of %d", name, got, want)
		}
		if _, err := os.Stat(filepath.Join(b.bpffs, layout, "maps", name)); err != nil {
			t.Errorf("what was made is not pinned: %v", err)
		}
	}
	closeLoader(t, l)

	// A part of the flow table is gone.
	if err := os.Remove(filepath.Join(b.bpffs, layout, "maps", "vacant")); err != nil {
		t.Fatal(err)
	}
	if _, err := loader.Open(b.options()); !errors.Is(err, loader.ErrLayout) || !strings.Contains(err.Error(), "vacant") {
		t.Errorf("open without vacant slots: %v, want ErrLayout that names them", err)
	}

	// A map of another shape.
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 1024})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(filepath.Join(b.bpffs, layout, "maps", "vacant")); err != nil {
		t.Fatal(err)
	}
	if _, err := loader.Open(b.options()); !errors.Is(err, loader.ErrLayout) || !strings.Contains(err.Error(), "siskin uninstall") {
		t.Errorf("open with foreign slots: %v, want ErrLayout that says what to do", err)
	}
}

// Interfaces whose packets begin with the IP header get programs of their own.
func TestRootLayer3(t *testing.T) {
	b := newBed(t)
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN}
	if err := netlink.LinkAdd(tun); err != nil {
		t.Fatalf("add tun0: %v", err)
	}
	b.veth("up0")
	l := b.open()
	up := attach(t, l, "up0")
	got := attach(t, l, "tun0")
	if name := programOn(t, got); name != "siskin_ingress_l3" {
		t.Errorf("ingress of tun0 runs %q, want siskin_ingress_l3", name)
	}
	if name := programOn(t, up); name != "siskin_ingress" {
		t.Errorf("ingress of up0 runs %q, want siskin_ingress", name)
	}
}

// programOn names the program at the ingress of an interface.
func programOn(t *testing.T, ifi loader.Interface) string {
	t.Helper()
	var ids []ebpf.ProgramID
	for _, p := range hooked(t, ifi.Ifindex, ebpf.AttachTCXIngress) {
		ids = append(ids, p.ID)
	}
	for _, f := range ourFilters(t, ifi.Name) {
		if f.Parent == netlink.HANDLE_MIN_INGRESS {
			ids = append(ids, ebpf.ProgramID(f.Id))
		}
	}
	if len(ids) != 1 {
		t.Fatalf("ingress of %s runs programs %v, want one", ifi.Name, ids)
	}
	p, err := ebpf.NewProgramFromID(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Name
}

// A hook that cannot be had on one side leaves nothing on the other.
func TestRootBothHooksOrNeither(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	other := b.open(func(o *loader.Options) { o.BPFFS += "-other" })
	attach(t, other, "up0")
	closeLoader(t, other)
	t.Cleanup(func() {
		if _, err := loader.Uninstall(b.bpffs + "-other"); err != nil {
			t.Error(err)
		}
	})
	// Only its egress hook stays: ingress is free, egress is not.
	if err := os.Remove(filepath.Join(b.bpffs+"-other", layout, "links", linkName(index, "ingress"))); err != nil {
		t.Fatal(err)
	}
	l := b.open()
	if _, err := l.Attach("up0"); !errors.Is(err, loader.ErrLocked) {
		t.Fatalf("attach beside another siskin: %v, want ErrLocked", err)
	}
	if got := hooked(t, index, ebpf.AttachTCXIngress); len(got) != 0 {
		t.Errorf("ingress holds %v after the failure, want nothing", got)
	}
	if pins, err := os.ReadDir(filepath.Join(b.bpffs, layout, "links")); err != nil || len(pins) != 0 {
		t.Errorf("pins %v, %v; want none", pins, err)
	}
}

func linkName(index int, side string) string { return fmt.Sprintf("%d-%s", index, side) }
