package loader_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/loader"
)

// haveTCX asks the kernel for a link on the loopback of the test's namespace.
func haveTCX(t *testing.T) bool {
	t.Helper()
	ln, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: foreign(t), Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, link.ErrNotSupported) {
		return false
	}
	if err != nil {
		t.Fatalf("probe for tcx: %v", err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}

// needTCX skips a test of what only links can do.
func needTCX(t *testing.T) {
	t.Helper()
	if !haveTCX(t) {
		t.Skip("needs tcx links, which this kernel has not")
	}
}

// mechanisms are the changes of options that choose how to attach.
func mechanisms() map[string]func(*loader.Options) {
	return map[string]func(*loader.Options){"tcx": func(*loader.Options) {}, "clsact": clsact}
}

// hooked returns the programs on one tcx hook of an interface: none where the
// kernel has no tcx.
func hooked(t *testing.T, ifindex int, at ebpf.AttachType) []link.AttachedProgram {
	t.Helper()
	res, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at})
	if err != nil && !haveTCX(t) {
		return nil
	}
	if err != nil {
		t.Fatalf("query: %v", err)
	}
	return res.Programs
}

// wantHooked checks that both hooks of an interface hold n programs.
func wantHooked(t *testing.T, ifindex, n int) {
	t.Helper()
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		if got := hooked(t, ifindex, at); len(got) != n {
			t.Errorf("%s: %d programs %v, want %d", at, len(got), got, n)
		}
	}
}

// A kernel without tcx gets filters, without being asked for them.
func TestRootFallback(t *testing.T) {
	b := newBed(t)
	if haveTCX(t) {
		t.Skip("needs a kernel without tcx: make test-kernels boots one")
	}
	b.veth("up0")
	l := b.open()
	if got := attach(t, l, "up0"); !got.Clsact {
		t.Errorf("attached to %+v, want filters", got)
	}
	if got := ourFilters(t, "up0"); len(got) != 2 {
		t.Errorf("filters %v, want two of ours", got)
	}
	wantEvents(t, l, "")
	if err := os.RemoveAll(filepath.Join(b.bpffs, layout)); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, "repinned")
	closeLoader(t, l)

	l = b.open()
	if left, err := l.Leftovers(); err != nil || len(left) != 1 || left[0].Name != "up0" || !left[0].Clsact {
		t.Errorf("leftovers %v, %v; want the filters on up0", left, err)
	}
	attach(t, l, "up0")
	if got := ourFilters(t, "up0"); len(got) != 2 {
		t.Errorf("filters %v after the second process came, want two of ours", got)
	}
}

// A change of mechanism leaves one of each hook, and the stranger's.
func TestRootChangeOfMechanism(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	l := b.open(clsact)
	attach(t, l, "up0")
	foreignFilter(t, index)
	closeLoader(t, l)

	l = b.open()
	attach(t, l, "up0")
	wantHooked(t, index, 1)
	closeLoader(t, l)
	if got := filters(t, "up0"); len(got) != 1 || got[0].Name != "stranger" {
		t.Errorf("filters %v, want the stranger's", got)
	}
	l = b.open(clsact)
	attach(t, l, "up0")
	wantHooked(t, index, 0)
	if got := ourFilters(t, "up0"); len(got) != 2 {
		t.Errorf("%d filters of ours, want 2", len(got))
	}
}

func foreignFilter(t *testing.T, ifindex int) {
	t.Helper()
	err := netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 50, Protocol: unix.ETH_P_ALL,
		},
		Fd: foreign(t).FD(), Name: "stranger", DirectAction: true,
	})
	if err != nil {
		t.Fatalf("add a foreign filter: %v", err)
	}
}

// A build with another layout that steers is not steered beside.
func TestRootOtherLayout(t *testing.T) {
	for name, change := range mechanisms() {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			if name == "tcx" {
				needTCX(t)
			}
			b.veth("up0")
			l := b.open(change)
			attach(t, l, "up0")
			closeLoader(t, l)
			if err := os.Rename(filepath.Join(b.bpffs, layout), filepath.Join(b.bpffs, "v9")); err != nil {
				t.Fatal(err)
			}
			l, err := loader.Open(b.options())
			if err == nil {
				closeLoader(t, l)
			}
			if !errors.Is(err, loader.ErrLayout) || !strings.Contains(err.Error(), "v9") {
				t.Errorf("open beside v9: %v, want ErrLayout that names it", err)
			}
			if n, err := loader.Uninstall(b.bpffs); err != nil || n.Links+n.Filters != 2 {
				t.Errorf("uninstall: %+v, %v; want the two hooks of v9 removed", n, err)
			}
			l = b.open(change) // and nothing is in the way any more
			attach(t, l, "up0")
		})
	}
}
