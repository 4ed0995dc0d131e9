package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

// Question is what the doctor is asked about.
type Question struct {
	// BPFFS is the directory for pins.
	BPFFS string
	// Ports are the first and last source port for NAT.
	Ports [2]uint16
	// Services are those that this host steers or shall steer.
	Services []steering.Service
	// Interfaces are steered on; empty, and XDP too: those with default routes.
	Interfaces []string
	// XDP are those that are to be attached to by XDP.
	XDP []string
}

// Facts are what Gather found on this host. Diagnose judges them.
type Facts struct {
	Privileges error // nil: may load programs
	BPFFS      error // nil: pins can be made
	Kernel     string
	TCX        bool
	BTF        bool
	Cgroup2    string // where it is mounted; empty: nowhere

	JIT         Sysctl // net.core.bpf_jit_enable
	IPForward   Sysctl // net.ipv4.ip_forward
	IPv6Forward Sysctl // net.ipv6.conf.all.forwarding

	BridgeFilter  Sysctl // net.bridge.bridge-nf-call-iptables
	BridgeFilter6 Sysctl // net.bridge.bridge-nf-call-ip6tables

	LocalPorts [2]uint16 // net.ipv4.ip_local_port_range; zeros: unknown
	NATPorts   [2]uint16
	// Reserved are ranges of ports that the host takes for itself only where a
	// program asks for one by number: net.ipv4.ip_local_reserved_ports.
	Reserved [][2]uint16

	Interfaces []InterfaceFacts
	Frontends  []FrontendFacts
	Backends   []BackendFacts
	Bridges    []BridgeFacts
	Targets    []TargetFacts // where XDP would redirect to, if it is wanted
}

// Sysctl is a kernel setting that may not exist here.
type Sysctl struct {
	Known bool
	Value int
}

// InterfaceFacts is what matters about an interface that is steered on.
type InterfaceFacts struct {
	Name     string
	Missing  bool
	Strict   bool     // rp_filter is 1 for it
	Foreign  []string // programs of others on it: "xdp", "ingress NAME"
	Question error    // asking failed
	WantXDP  bool     // it is to be attached to by XDP
	NoXDP    error    // why it cannot be; nil: it can, or is not known to be unable
	XDP      Abilities
}

// FrontendFacts is how clients can reach a frontend.
type FrontendFacts struct {
	Service  string
	Frontend steering.Frontend
	Own      bool   // an address of this host
	Backend  bool   // the address of one of the service's backends
	OnLink   string // the interface in whose subnet it lies; empty: none
}

// BackendFacts is how this host reaches a backend.
type BackendFacts struct {
	Service, Version string
	Addr             netip.AddrPort
	Path             steering.Path
	Err              error // no route
}

// Gather looks at this host. What it cannot find out is left unknown.
func Gather(q Question) Facts {
	f := Facts{
		Privileges:  loader.CheckPrivileges(),
		BPFFS:       loader.CheckBPFFS(q.BPFFS),
		Kernel:      KernelRelease(),
		Cgroup2:     cgroup2(),
		JIT:         sysctl("net/core/bpf_jit_enable"),
		IPForward:   sysctl("net/ipv4/ip_forward"),
		IPv6Forward: sysctl("net/ipv6/conf/all/forwarding"),

		BridgeFilter:  sysctl("net/bridge/bridge-nf-call-iptables"),
		BridgeFilter6: sysctl("net/bridge/bridge-nf-call-ip6tables"),

		LocalPorts: localPorts(),
		NATPorts:   q.Ports,
		Reserved:   reservedPorts(),
	}
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	f.BTF = err == nil
	f.TCX = haveTCX(f.Kernel)
	names := slices.Clone(q.Interfaces)
	for _, name := range q.XDP {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		// An error leaves the list empty, which is a finding of its own.
		names, _ = DefaultInterfaces()
	}
	for _, name := range names {
		facts := interfaceFacts(name)
		facts.WantXDP = slices.Contains(q.XDP, name)
		f.Interfaces = append(f.Interfaces, facts)
	}
	network, err := NewNetwork()
	if err != nil {
		network = new(Network)
	}
	for _, s := range q.Services {
		f.addService(network, s)
	}
	f.Bridges = bridgeFacts(f.Backends)
	if len(q.XDP) > 0 {
		f.Targets = targetFacts(f.Backends)
	}
	return f
}

func (f *Facts) addService(network *Network, s steering.Service) {
	var own []netip.AddrPort
	for _, v := range s.Versions {
		for _, b := range v.Backends {
			own = append(own, b.Addr)
			path, err := network.Path(b.Addr.Addr())
			f.Backends = append(f.Backends, BackendFacts{s.Name, v.Name, b.Addr, path, err})
		}
	}
	for _, fe := range s.Frontends {
		facts := FrontendFacts{Service: s.Name, Frontend: fe, Backend: slices.Contains(own, fe.Addr)}
		if r, err := routeTo(fe.Addr.Addr()); err == nil {
			facts.Own = r.local
			if !r.local && !r.gateway {
				// An error leaves it unnamed, and so unsaid.
				facts.OnLink, _, _ = InterfaceByIndex(r.ifindex)
			}
		}
		f.Frontends = append(f.Frontends, facts)
	}
}

// KernelRelease is what `uname -r` says; empty when it cannot be read.
func KernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// release splits "6.12.3-amd64" into 6 and 12.
func release(kernel string) (major, minor int) {
	parts := strings.SplitN(kernel, ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, _ = strconv.Atoi(parts[0])
	digits := strings.IndexFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(parts[1])
	}
	minor, _ = strconv.Atoi(parts[1][:digits])
	return major, minor
}

// haveTCX asks the kernel; where it may not be asked, its version tells.
func haveTCX(kernel string) bool {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		return true
	}
	major, minor := release(kernel)
	return errors.Is(err, unix.EPERM) && (major > 6 || major == 6 && minor >= 6)
}

func cgroup2() string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1]
		}
	}
	return ""
}

func sysctl(name string) Sysctl {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return Sysctl{}
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return Sysctl{Known: err == nil, Value: v}
}

func localPorts() (out [2]uint16) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return out
	}
	// What does not parse stays zero, which is "unknown".
	_, _ = fmt.Sscan(string(b), &out[0], &out[1])
	return out
}

func reservedPorts() [][2]uint16 {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return nil
	}
	return portRanges(strings.TrimSpace(string(b)))
}

// portRanges reads the kernel's "8080,61000-65535". What does not parse is left
// out: it is then not reserved.
func portRanges(s string) (out [][2]uint16) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil {
			out = append(out, [2]uint16{uint16(from), uint16(to)})
		}
	}
	return out
}

// interfaceFacts looks at one interface and at what others run on it.
func interfaceFacts(name string) InterfaceFacts {
	f := InterfaceFacts{Name: name}
	l, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		f.Missing = true
		return f
	}
	if err != nil {
		f.Question = err
		return f
	}
	// The stricter of the two settings counts, and 2 is the looser one.
	all, own := sysctl("net/ipv4/conf/all/rp_filter"), sysctl("net/ipv4/conf/"+name+"/rp_filter")
	f.Strict = max(all.Value, own.Value) == 1
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		if n := loader.ProgramName(ebpf.ProgramID(xdp.ProgId)); !strings.HasPrefix(n, "siskin_") {
			f.Foreign = append(f.Foreign, "XDP "+n)
		}
	}
	f.NoXDP = loader.CheckXDP(name)
	f.XDP = abilities(l.Attrs().Index)
	for side, at := range map[string]ebpf.AttachType{"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress} {
		res, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: at})
		if err != nil {
			continue // no tcx, or not allowed to look: said elsewhere
		}
		for _, p := range res.Programs {
			if n := loader.ProgramName(p.ID); !strings.HasPrefix(n, "siskin_") {
				f.Foreign = append(f.Foreign, side+" "+n)
			}
		}
	}
	slices.Sort(f.Foreign)
	return f
}
