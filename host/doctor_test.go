package host

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"siskin.dev/siskin/steering"
)

// healthy is a host on which nothing is wrong.
func healthy() Facts {
	on := Sysctl{Known: true, Value: 1}
	return Facts{
		Kernel: "6.12.3-amd64", TCX: true, BTF: true, Cgroup2: "/sys/fs/cgroup",
		JIT: on, IPForward: on, IPv6Forward: on,
		LocalPorts: [2]uint16{32768, 60999}, NATPorts: [2]uint16{61000, 65535},
		Interfaces: []InterfaceFacts{{Name: "eth0"}},
		Frontends:  []FrontendFacts{{Service: "shop", Frontend: frontend("198.18.0.10:80"), Own: true}},
		Backends: []BackendFacts{
			backend("10.1.0.2:8080", steering.Path{Ifindex: 2}),
			backend("[2001:db8::2]:8080", steering.Path{Ifindex: 2}),
		},
	}
}

func frontend(s string) steering.Frontend {
	return steering.Frontend{Addr: netip.MustParseAddrPort(s), Proto: steering.TCP}
}

func backend(s string, p steering.Path) BackendFacts {
	return BackendFacts{Service: "shop", Version: "canary", Addr: netip.MustParseAddrPort(s), Path: p}
}

func find(checks []Check, name string) (Check, bool) {
	for _, c := range checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

func TestDiagnoseHealthy(t *testing.T) {
	for _, c := range Diagnose(healthy()) {
		if c.Status == Warn || c.Status == Fail {
			t.Errorf("a healthy host has %+v", c)
		}
	}
	for _, name := range []string{"ip-forward", "ipv6-forward", "local-clients", "frontend shop 198.18.0.10:80/tcp"} {
		if _, ok := find(Diagnose(healthy()), name); !ok {
			t.Errorf("%s was not checked", name)
		}
	}
}

func TestDiagnose(t *testing.T) {
	off := Sysctl{Known: true}
	for name, tc := range map[string]struct {
		change func(*Facts)
		check  string
		status Status
		says   string // in the detail or the remedy
	}{
		"no root":         {func(f *Facts) { f.Privileges = errors.New("missing CAP_BPF") }, "privileges", Fail, "as root"},
		"no bpffs":        {func(f *Facts) { f.BPFFS = errors.New("run `mount …`") }, "bpffs", Fail, "mount"},
		"old kernel":      {func(f *Facts) { f.TCX, f.Kernel = false, "5.10.0-28-amd64" }, "kernel", Fail, "6.1"},
		"kernel 6.1":      {func(f *Facts) { f.TCX, f.Kernel = false, "6.1.0" }, "kernel", Info, "clsact"},
		"no btf":          {func(f *Facts) { f.BTF = false }, "btf", Warn, "CONFIG_DEBUG_INFO_BTF"},
		"no jit":          {func(f *Facts) { f.JIT = off }, "jit", Warn, "bpf_jit_enable=1"},
		"jit unknown":     {func(f *Facts) { f.JIT = Sysctl{} }, "jit", Info, ""},
		"ports overlap":   {func(f *Facts) { f.LocalPorts[1] = 61000 }, "source-ports", Fail, "32768 60999"},
		"no forwarding":   {func(f *Facts) { f.IPForward = off }, "ip-forward", Fail, "net.ipv4.ip_forward=1"},
		"no forwarding 6": {func(f *Facts) { f.IPv6Forward = off }, "ipv6-forward", Fail, "net.ipv6.conf.all.forwarding=1"},
		"no interface":    {func(f *Facts) { f.Interfaces = nil }, "interface", Warn, "--interface"},
		"xdp refused":     {func(f *Facts) { f.Interfaces[0].WantXDP, f.Interfaces[0].NoXDP = true, errors.New("no driver") }, "xdp eth0", Fail, "no driver"},
		"xdp not asked":   {func(f *Facts) { f.Interfaces[0].NoXDP = errors.New("no driver") }, "xdp eth0", Info, "no driver"},
		"xdp unknown":     {func(*Facts) {}, "xdp eth0", Info, "6.3"},
		"xdp one way":     {func(f *Facts) { f.Interfaces[0].XDP = Abilities{Known: true, Native: true} }, "xdp eth0", Info, "through the stack"},
		"xdp":             {func(f *Facts) { f.Interfaces[0].XDP = Abilities{true, true, true} }, "xdp eth0", OK, ""},
		"target unknown":  {func(f *Facts) { f.Targets = []TargetFacts{{Name: "pod0"}} }, "xdp to pod0", Info, "6.3"},
		"target":          {func(f *Facts) { f.Targets = []TargetFacts{{"pod0", Abilities{true, true, true}}} }, "xdp to pod0", OK, ""},
		"target unable":   {func(f *Facts) { f.Targets = []TargetFacts{{"pod0", Abilities{Known: true}}} }, "xdp to pod0", Info, "other end"},
		"missing":         {func(f *Facts) { f.Interfaces[0].Missing = true }, "interface eth0", Warn, "appears"},
		"foreign":         {func(f *Facts) { f.Interfaces[0].Foreign = []string{"XDP cil"} }, "interface eth0", Info, "XDP cil"},
		"nobody answers ARP": {func(f *Facts) { f.Frontends[0].Own, f.Frontends[0].OnLink = false, "eth0" },
			"frontend shop 198.18.0.10:80/tcp", Warn, "ip addr add 198.18.0.10/32 dev eth0"},
		"nobody answers NDP": {func(f *Facts) {
			f.Frontends[0] = FrontendFacts{Service: "shop", Frontend: frontend("[2001:db8::1]:80"), OnLink: "eth0"}
		}, "frontend shop [2001:db8::1]:80/tcp", Warn, "neighbour discovery"},
		"bridge netfilter": {func(f *Facts) {
			f.Bridges, f.BridgeFilter = []BridgeFacts{{Name: "docker0"}}, Sysctl{Known: true, Value: 1}
		}, "bridge-netfilter", Warn, "bridge-nf-call-iptables=0"},
		"routed address":   {func(f *Facts) { f.Frontends[0].Own = false }, "frontend shop 198.18.0.10:80/tcp", Info, "ip route add 198.18.0.10/32"},
		"no route":         {func(f *Facts) { f.Backends[0].Err = errors.New("no route") }, "backend shop canary 10.1.0.2:8080", Fail, "ip route add 10.1.0.2/32"},
		"loopback backend": {func(f *Facts) { f.Backends[0] = backend("127.0.0.1:80", steering.Path{Host: true}) }, "backend shop canary 127.0.0.1:80", Fail, "listen"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			tc.change(&f)
			got, ok := find(Diagnose(f), tc.check)
			if !ok || got.Status != tc.status || !strings.Contains(got.Detail+" "+got.Remedy, tc.says) {
				t.Errorf("%s: %+v (found %t), want status %s that says %q", tc.check, got, ok, tc.status, tc.says)
			}
		})
	}
}

// Backends on the host itself need no forwarding.
func TestDiagnoseForwardingNotNeeded(t *testing.T) {
	f := healthy()
	f.IPForward, f.IPv6Forward = Sysctl{Known: true}, Sysctl{Known: true}
	f.Backends = []BackendFacts{backend("10.1.0.2:80", steering.Path{Host: true})}
	for _, name := range []string{"ip-forward", "ipv6-forward"} {
		if c, ok := find(Diagnose(f), name); ok {
			t.Errorf("forwarding was checked: %+v", c)
		}
	}
}

// br_netfilter matters to the family of the backends behind a bridge, and to
// nobody where there is no bridge.
func TestDiagnoseBridgeNetfilterNotConcerned(t *testing.T) {
	on := Sysctl{Known: true, Value: 1}
	for name, change := range map[string]func(*Facts){
		"off":          func(f *Facts) { f.Bridges = []BridgeFacts{{Name: "docker0"}}; f.BridgeFilter.Known = true },
		"no module":    func(f *Facts) { f.Bridges = []BridgeFacts{{Name: "docker0"}} },
		"no bridge":    func(f *Facts) { f.BridgeFilter = on },
		"other family": func(f *Facts) { f.Bridges, f.BridgeFilter = []BridgeFacts{{Name: "docker0", V6: true}}, on },
	} {
		f := healthy()
		change(&f)
		if c, ok := find(Diagnose(f), "bridge-netfilter"); ok {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// Whoever follows the remedy must have enough ports left, and no overlap.
func TestPortsRemedy(t *testing.T) {
	const keep, both = "ip_local_port_range", "--source-ports 61000-65535, and"
	for name, tc := range map[string]struct {
		nat, local [2]uint16
		want       string // how the remedy ends
		says       string
	}{
		"end":             {[2]uint16{61000, 65535}, [2]uint16{32768, 61000}, `="32768 60999"` + "`", keep},
		"wide":            {[2]uint16{61000, 65535}, [2]uint16{1024, 65535}, `="1024 60999"` + "`", keep},
		"start":           {[2]uint16{30000, 40000}, [2]uint16{32768, 60999}, `="40001 60999"` + "`", keep},
		"larger side":     {[2]uint16{40000, 49999}, [2]uint16{32768, 60999}, `="50000 60999"` + "`", keep},
		"just enough":     {[2]uint16{42768, 60999}, [2]uint16{32768, 60999}, `="32768 42767"` + "`", keep},
		"one too few":     {[2]uint16{42767, 60999}, [2]uint16{32768, 60999}, "such as 1024-32767", "other --source-ports"},
		"covered":         {[2]uint16{30000, 65535}, [2]uint16{32768, 60999}, "such as 1024-32767", "other --source-ports"},
		"from port 0":     {[2]uint16{0, 65535}, [2]uint16{1024, 49151}, "such as 49152-65535", "other --source-ports"},
		"nothing is free": {[2]uint16{10000, 60000}, [2]uint16{1024, 65535}, `="32768 60999"` + "`", both},
		"all is taken":    {[2]uint16{1, 65535}, [2]uint16{1, 65535}, `="32768 60999"` + "`", both},
	} {
		c := portsCheck(tc.nat, tc.local, nil)
		if c.Status != Fail || !strings.HasSuffix(c.Remedy, tc.want) || !strings.Contains(c.Remedy, tc.says) {
			t.Errorf("%s: %+v, want a remedy with %q that ends with %q", name, c, tc.says, tc.want)
		}
	}
}

// sysctl(8) takes the dot in a VLAN interface's name for a directory.
func TestDiagnoseStrict(t *testing.T) {
	for name, want := range map[string]string{
		"eth0":     "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
		"eth0.100": "sysctl -w net.ipv4.conf.eth0/100.rp_filter=2",
		"a.b.c":    "sysctl -w net.ipv4.conf.a/b/c.rp_filter=2",
	} {
		f := healthy()
		f.Interfaces = []InterfaceFacts{{Name: name, Strict: true}}
		checks := Diagnose(f)
		if !slices.ContainsFunc(checks, func(c Check) bool {
			return c.Name == "interface "+name && c.Status == Info && strings.HasSuffix(c.Remedy, want)
		}) {
			t.Errorf("no remedy for %s ends with %q: %+v", name, want, checks)
		}
	}
}

func TestRelease(t *testing.T) {
	for in, want := range map[string][2]int{
		"6.18.44-x": {6, 18}, "6.1": {6, 1}, "5.10-rc3": {5, 10}, "": {0, 0}, "weird": {0, 0},
	} {
		if major, minor := release(in); [2]int{major, minor} != want {
			t.Errorf("release(%q) = %d, %d; want %v", in, major, minor, want)
		}
	}
}

// Ports that are reserved the host does not take by itself.
func TestReservedPortsAreNoOverlap(t *testing.T) {
	nat, local := [2]uint16{50000, 50999}, [2]uint16{1024, 65535}
	for reserved, want := range map[string]Status{
		"":                             Fail,
		"50000-50999":                  OK,
		"8080,49000-50500,50501-51000": OK,
		"50000-50998":                  Fail,
		"50001-50999":                  Fail,
		"50000-50400,50402-50999":      Fail,
		"x,50000-,-3":                  Fail,
	} {
		if c := portsCheck(nat, local, portRanges(reserved)); c.Status != want {
			t.Errorf("reserved %q: %+v, want %s", reserved, c, want)
		}
	}
}
