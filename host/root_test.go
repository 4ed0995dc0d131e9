package host

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"siskin.dev/siskin/steering"
	"siskin.dev/siskin/test/netns"
)

func enterNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `sudo -E make test-root`")
	}
	netns.Enter(t)
}

func up(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

func add(t *testing.T, l netlink.Link, addrs ...string) int {
	t.Helper()
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatalf("add %s: %v", l.Attrs().Name, err)
	}
	index := up(t, l.Attrs().Name)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = 0x02 // no duplicate address detection: usable at once
		if err := netlink.AddrAdd(l, addr); err != nil {
			t.Fatalf("add %s: %v", a, err)
		}
		awaitOwn(t, netip.MustParsePrefix(a).Addr())
	}
	return index
}

// awaitOwn waits until an address is in the table of local ones: the kernel
// puts IPv6 addresses there a moment after it accepted them.
func awaitOwn(t *testing.T, addr netip.Addr) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if r, err := routeTo(addr); err == nil && r.local {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not become an address of this host", addr)
		}
	}
}

func veth(name string) *netlink.Veth {
	return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
}

func routeVia(t *testing.T, index int, dst, gw string) {
	t.Helper()
	r := &netlink.Route{LinkIndex: index, Gw: net.ParseIP(gw)}
	if dst != "" {
		_, n, err := net.ParseCIDR(dst)
		if err != nil {
			t.Fatal(err)
		}
		r.Dst = n
	}
	if err := netlink.RouteAdd(r); err != nil {
		t.Fatalf("route %s via %s: %v", dst, gw, err)
	}
}

func TestRootPath(t *testing.T) {
	enterNetns(t)
	out := add(t, veth("out"), "198.18.0.1/24", "2001:db8::1/64")
	up(t, "outp")
	pod := add(t, veth("pod"), "198.18.1.1/24", "2001:db8:1::1/64")
	up(t, "podp")
	br := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}, "198.18.2.1/24")
	port := add(t, veth("port"))
	up(t, "portp")
	enslave(t, port, br)
	tun := add(t, &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vpn"}, Mode: netlink.TUNTAP_MODE_TUN}, "198.18.3.1/24")
	lan := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}, "198.18.4.1/24")
	enslave(t, add(t, &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: "nic"}}), lan)
	routeVia(t, out, "", "198.18.0.254")
	routeVia(t, pod, "198.18.9.0/24", "198.18.1.254")
	routeVia(t, pod, "2001:db8:9::/64", "2001:db8:1::fe")

	names, err := DefaultInterfaces()
	if err != nil || !slices.Equal(names, []string{"out"}) {
		t.Fatalf("default interfaces %v, %v; want out", names, err)
	}
	n, err := NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		why, addr string
		want      steering.Path
	}{
		{"own address", "198.18.1.1", steering.Path{Host: true, Source: a("198.18.1.1")}},
		{"own address, IPv6", "2001:db8:1::1", steering.Path{Host: true, Source: a("2001:db8:1::1")}},
		{"own address, v4-mapped", "::ffff:198.18.1.1", steering.Path{Host: true, Source: a("198.18.1.1")}},
		{"loopback", "127.0.0.1", steering.Path{Host: true, Source: a("127.0.0.1")}},
		{"on-link behind a veth", "198.18.1.2", steering.Path{Ifindex: uint32(pod), Source: a("198.18.1.1")}},
		{"on-link behind a veth, IPv6", "2001:db8:1::2", steering.Path{Ifindex: uint32(pod), Source: a("2001:db8:1::1")}},
		{"on-link behind a bridge", "198.18.2.2", steering.Path{Ifindex: uint32(br), Source: a("198.18.2.1")}},
		{"behind a tunnel", "198.18.3.2", steering.Path{Remote: true, Ifindex: uint32(tun), Source: a("198.18.3.1")}},
		{"on-link on an uplink", "198.18.0.2", steering.Path{Remote: true, Ifindex: uint32(out), Source: a("198.18.0.1")}},
		{"by the default route", "198.19.0.2", steering.Path{Remote: true, Ifindex: uint32(out), Source: a("198.18.0.1")}},
		{"behind a gateway on a veth", "198.18.9.2", steering.Path{Remote: true, Ifindex: uint32(pod), Source: a("198.18.1.1")}},
		{"behind a gateway, IPv6", "2001:db8:9::2", steering.Path{Remote: true, Ifindex: uint32(pod), Source: a("2001:db8:1::1")}},
	} {
		got, err := n.Path(a(tc.addr))
		if err != nil || got != tc.want {
			t.Errorf("%s: path to %s is %+v, %v; want %+v", tc.why, tc.addr, got, err, tc.want)
		}
	}
	if p, err := n.Path(a("2001:db8:ffff::1")); err == nil {
		t.Errorf("path without a route: %+v, want an error", p)
	}
	if p, err := n.Path(a("198.18.4.2")); err != nil || p.Remote || p.Ifindex != uint32(lan) {
		t.Errorf("path behind a bridge of virtual ports: %+v, %v; want one on this host", p, err)
	}
	tunnel := add(t, &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx"}, VxlanId: 5, VtepDevIndex: out, Port: 4789})
	enslave(t, tunnel, lan)
	if p, err := n.Path(a("198.18.4.2")); err != nil || p.Remote {
		t.Errorf("path behind a bridge with a new port: %+v, %v; want the same until Refresh", p, err)
	}
	if err := n.Refresh(); err != nil {
		t.Fatal(err)
	}
	if p, err := n.Path(a("198.18.4.2")); err != nil || !p.Remote {
		t.Errorf("path behind a bridge with a tunnel: %+v, %v; want a remote one", p, err)
	}
	checkFacts(t)
}

// Answers about interfaces are kept, by many at once, and given up while they
// are looked for.
func TestRootPathsAtOnce(t *testing.T) {
	enterNetns(t)
	br := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}, "198.18.2.1/24")
	n, err := NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				// This is another thread, with the index of its own network.
				if lo, err := n.device(1); err != nil || lo.ethernet {
					t.Errorf("lo is %+v, %v; want no Ethernet", lo, err)
				}
			}
		})
	}
	for range 50 {
		if err := n.Refresh(); err != nil {
			t.Fatal(err)
		}
		if p, err := n.Path(a("198.18.2.2")); err != nil || p.Remote || p.Ifindex != uint32(br) {
			t.Errorf("path %+v, %v; want one behind br", p, err)
		}
	}
	wg.Wait()
}

func a(s string) netip.Addr { return netip.MustParseAddr(s) }

func enslave(t *testing.T, port, bridge int) {
	t.Helper()
	l, err := netlink.LinkByIndex(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMasterByIndex(l, bridge); err != nil {
		t.Fatal(err)
	}
}

func checkFacts(t *testing.T) {
	t.Helper()
	f := Gather(Question{BPFFS: t.TempDir(), Ports: [2]uint16{61000, 65535}, Services: []steering.Service{{
		Name:      "shop",
		Frontends: []steering.Frontend{frontend("198.18.1.9:80"), frontend("198.18.1.1:80"), frontend("198.19.0.1:80")},
		Versions: []steering.Version{{Name: steering.Stable, Backends: []steering.Backend{
			{Addr: netip.MustParseAddrPort("198.18.1.2:80"), Weight: 1},
			{Addr: netip.MustParseAddrPort("[2001:db8:ffff::1]:80"), Weight: 1},
		}}},
	}}})
	if f.BPFFS == nil || f.Privileges != nil || !f.IPForward.Known || f.LocalPorts[1] == 0 {
		t.Errorf("facts %+v; want root's privileges, no bpffs, and the sysctls", f)
	}
	if len(f.Interfaces) != 1 || f.Interfaces[0].Name != "out" || f.Interfaces[0].Missing {
		t.Errorf("interfaces %+v, want out", f.Interfaces)
	}
	if fe := f.Frontends; fe[0].OnLink != "pod" || fe[0].Own || !fe[1].Own || fe[2].OnLink != "" || fe[2].Own {
		t.Errorf("frontends %+v; want one on pod's link, an own one and a routed one", fe)
	}
	if b := f.Backends; b[0].Err != nil || b[1].Err == nil {
		t.Errorf("backends %+v; want one with and one without a route", b)
	}
}

func TestRootWatch(t *testing.T) {
	enterNetns(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	changes, err := Watch(ctx, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(5 * time.Second):
			t.Fatalf("no word of %s", what)
		}
	}
	index := add(t, veth("pod"), "198.18.1.1/24")
	up(t, "podp")
	wait("a new interface")
	for quiet := false; !quiet; { // the rest of the same burst
		select {
		case <-changes:
		case <-time.After(4 * settle):
			quiet = true
		}
	}
	routeVia(t, index, "198.18.9.0/24", "198.18.1.254")
	wait("a new route")
}
