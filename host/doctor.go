package host

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"siskin.dev/siskin/steering"
)

// Status is how bad a finding is.
type Status string

// Findings from harmless to blocking.
const (
	OK   Status = "ok"
	Info Status = "info" // nothing to do, good to know
	Warn Status = "warn" // works, but not for everybody or not well
	Fail Status = "fail" // does not work until it is mended
)

// Check is one finding.
type Check struct {
	Name   string
	Status Status
	Detail string
	Remedy string // what to do, as a command where there is one
}

// Diagnose judges the facts. The machine comes first, then its interfaces,
// then the services.
func Diagnose(f Facts) []Check {
	checks := []Check{
		failIf("privileges", f.Privileges, "may load programs", "run it as root, or give the binary CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"),
		kernelCheck(f),
		failIf("bpffs", f.BPFFS, "pins can be made", ""),
		btfCheck(f),
		jitCheck(f.JIT),
		cgroupCheck(f.Cgroup2),
		portsCheck(f.NATPorts, f.LocalPorts, f.Reserved),
	}
	checks = append(checks, interfaceChecks(f.Interfaces)...)
	checks = append(checks, serviceChecks(f)...)
	checks = append(checks, targetChecks(f)...)
	if c, bad := bridgeCheck(f); bad {
		checks = append(checks, c)
	}
	if len(f.Frontends) > 0 {
		checks = append(checks, Check{"local-clients", Info,
			"clients on this host itself are not steered: their packets pass no interface",
			"test from another machine, container or network namespace"})
	}
	return checks
}

// serviceChecks looks at how frontends and backends are reached.
func serviceChecks(f Facts) []Check {
	checks := forwardChecks(f)
	for _, fe := range f.Frontends {
		checks = append(checks, frontendCheck(fe))
	}
	for _, b := range f.Backends {
		if c, bad := backendCheck(b); bad {
			checks = append(checks, c)
		}
	}
	return checks
}

// Examine returns what keeps one service from working on this host.
func (n *Network) Examine(s steering.Service) []Check {
	f := Facts{IPForward: sysctl("net/ipv4/ip_forward"), IPv6Forward: sysctl("net/ipv6/conf/all/forwarding")}
	f.addService(n, s)
	return slices.DeleteFunc(serviceChecks(f), func(c Check) bool { return c.Status != Warn && c.Status != Fail })
}

func failIf(name string, err error, fine, remedy string) Check {
	if err == nil {
		return Check{Name: name, Status: OK, Detail: fine}
	}
	return Check{name, Fail, err.Error(), remedy}
}

func kernelCheck(f Facts) Check {
	major, minor := release(f.Kernel)
	switch {
	case f.TCX:
		return Check{Name: "kernel", Status: OK, Detail: f.Kernel + ", with tcx"}
	case major < 6 || major == 6 && minor < 1:
		return Check{"kernel", Fail, f.Kernel + " is too old", "run Linux 6.1 or newer; 6.6 has tcx"}
	}
	return Check{"kernel", Info, f.Kernel + " has no tcx: filters on the clsact qdisc are used", "Linux 6.6 or newer has tcx"}
}

func btfCheck(f Facts) Check {
	if f.BTF {
		return Check{Name: "btf", Status: OK, Detail: "the kernel describes its types"}
	}
	return Check{"btf", Warn, "/sys/kernel/btf/vmlinux is missing: slower helpers are used instead of kernel functions",
		"use a kernel built with CONFIG_DEBUG_INFO_BTF=y"}
}

func jitCheck(s Sysctl) Check {
	switch {
	case !s.Known:
		return Check{"jit", Info, "net.core.bpf_jit_enable cannot be read here", ""}
	case s.Value == 0:
		return Check{"jit", Warn, "programs are interpreted, which is several times slower", "sysctl -w net.core.bpf_jit_enable=1"}
	}
	return Check{Name: "jit", Status: OK, Detail: "programs are compiled"}
}

func cgroupCheck(mount string) Check {
	if mount == "" {
		return Check{"cgroup2", Info, "not mounted; nothing needs it yet", ""}
	}
	return Check{Name: "cgroup2", Status: OK, Detail: "mounted at " + mount}
}

// portsCheck compares the source ports of NAT with those that the host takes
// for its own connections: a port that both use makes one of them wait. Those
// that are reserved it takes for none.
func portsCheck(nat, local [2]uint16, reserved [][2]uint16) Check {
	const name = "source-ports"
	switch {
	case local[1] == 0:
		return Check{name, Info, "net.ipv4.ip_local_port_range cannot be read here", ""}
	case sharesPorts(nat, local, reserved):
		return Check{name, Fail,
			fmt.Sprintf("the ports for NAT, %d-%d, and the host's own, %d-%d, overlap", nat[0], nat[1], local[0], local[1]),
			portsRemedy(nat, local)}
	}
	return Check{Name: name, Status: OK, Detail: fmt.Sprintf("%d-%d for NAT, %d-%d for the host", nat[0], nat[1], local[0], local[1])}
}

// sharesPorts reports whether the host may take a port of NAT's by itself.
func sharesPorts(nat, local [2]uint16, reserved [][2]uint16) bool {
	for port := int(max(nat[0], local[0])); port <= int(min(nat[1], local[1])); port++ {
		if !slices.ContainsFunc(reserved, func(r [2]uint16) bool {
			return int(r[0]) <= port && port <= int(r[1])
		}) {
			return true
		}
	}
	return false
}

// enoughPorts is how many ports a host should keep for its own connections.
// Linux gives it 28,232.
const enoughPorts = 10_000

// portsRemedy says how to part two ranges that overlap. The host keeps the
// larger of the sides that NAT leaves of its range, unless that is so small
// that it would run out of ports: then NAT has to move.
func portsRemedy(nat, local [2]uint16) string {
	if side, n := largerSide(local, nat); n >= enoughPorts {
		return fmt.Sprintf("start the daemon with other --source-ports, or `sysctl -w net.ipv4.ip_local_port_range=\"%d %d\"`", side[0], side[1])
	}
	// Ports below 1024 belong to servers.
	if side, n := largerSide([2]uint16{1024, 65535}, local); n >= fewPorts {
		return fmt.Sprintf("start the daemon with other --source-ports, such as %d-%d", side[0], side[1])
	}
	return "start the daemon with --source-ports 61000-65535, and `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`"
}

// fewPorts is the fewest ports that are worth a proposal for NAT: as many as
// Linux leaves above the host's own.
const fewPorts = 65535 - 60999

// largerSide returns the larger of the two ranges that are left of whole when
// taken is taken out of it, and how many ports it has.
func largerSide(whole, taken [2]uint16) (side [2]uint16, n int) {
	if taken[0] > whole[0] {
		side = [2]uint16{whole[0], min(whole[1], taken[0]-1)}
		n = int(side[1]) - int(side[0]) + 1
	}
	if taken[1] < whole[1] {
		above := [2]uint16{max(whole[0], taken[1]+1), whole[1]}
		if m := int(above[1]) - int(above[0]) + 1; m > n {
			side, n = above, m
		}
	}
	return side, n
}

func interfaceChecks(facts []InterfaceFacts) []Check {
	if len(facts) == 0 {
		return []Check{{"interface", Warn, "this host has no default route, so no interface is chosen by itself",
			"name those that clients come by: siskin run --interface IF"}}
	}
	var out []Check
	for _, f := range facts {
		name := "interface " + f.Name
		switch {
		case f.Missing:
			out = append(out, Check{name, Warn, "does not exist now; it is attached to when it appears", "`ip link` lists those there are"})
			continue
		case f.Question != nil:
			out = append(out, Check{name, Warn, f.Question.Error(), ""})
			continue
		case len(f.Foreign) > 0:
			out = append(out, Check{name, Info, "others have programs here: " + strings.Join(f.Foreign, ", "),
				"they are left alone; one that takes packets before us keeps them from being steered"})
		default:
			out = append(out, Check{Name: name, Status: OK, Detail: "no programs of others"})
		}
		out = append(out, xdpCheck(f))
		if f.Strict {
			out = append(out, Check{name, Info, "rp_filter is strict: answers of a backend that come in by another interface than its route's are dropped",
				"where routes are asymmetric: sysctl -w " + interfaceSysctl(f.Name, "rp_filter") + "=2"})
		}
	}
	return out
}

// interfaceSysctl names a setting of an interface as sysctl(8) reads it: it
// takes a slash for a dot that is part of a name, as in eth0.100.
func interfaceSysctl(ifname, setting string) string {
	return "net.ipv4.conf." + strings.ReplaceAll(ifname, ".", "/") + "." + setting
}

// forwardChecks looks at forwarding where a backend is not the host itself.
func forwardChecks(f Facts) []Check {
	var v4, v6 bool
	for _, b := range f.Backends {
		if b.Err == nil && !b.Path.Host {
			v4 = v4 || b.Addr.Addr().Unmap().Is4()
			v6 = v6 || !b.Addr.Addr().Unmap().Is4()
		}
	}
	var out []Check
	if v4 {
		out = append(out, forwardCheck("ip-forward", "net.ipv4.ip_forward", f.IPForward))
	}
	if v6 {
		out = append(out, forwardCheck("ipv6-forward", "net.ipv6.conf.all.forwarding", f.IPv6Forward))
	}
	return out
}

func forwardCheck(name, key string, s Sysctl) Check {
	switch {
	case !s.Known:
		return Check{name, Warn, key + " cannot be read here", ""}
	case s.Value == 0:
		return Check{name, Fail, "the kernel forwards no packets, and there are backends outside this host's own addresses",
			"sysctl -w " + key + "=1"}
	}
	return Check{Name: name, Status: OK, Detail: "the kernel forwards packets"}
}

func frontendCheck(f FrontendFacts) Check {
	name := "frontend " + f.Service + " " + f.Frontend.String()
	addr := f.Frontend.Addr.Addr().Unmap()
	switch {
	case f.Own:
		return Check{Name: name, Status: OK, Detail: "an address of this host"}
	case f.Backend:
		return Check{Name: name, Status: OK, Detail: "the address of a backend: clients' packets must pass this host"}
	case f.OnLink != "":
		return Check{name, Warn,
			fmt.Sprintf("lies in the subnet of %s but is no address of this host: nobody answers %s for it", f.OnLink, resolution(addr)),
			fmt.Sprintf("ip addr add %s dev %s; or use an address outside the subnet and route it to this host",
				netip.PrefixFrom(addr, addr.BitLen()), f.OnLink)}
	}
	return Check{name, Info, "a virtual address: clients, or their router, need a route for it to this host",
		fmt.Sprintf("there: ip route add %s via THIS-HOST", netip.PrefixFrom(addr, addr.BitLen()))}
}

func resolution(a netip.Addr) string {
	if a.Is4() {
		return "ARP"
	}
	return "neighbour discovery"
}

func backendCheck(b BackendFacts) (Check, bool) {
	name := "backend " + b.Service + " " + b.Version + " " + b.Addr.String()
	switch {
	case b.Err != nil:
		return Check{name, Fail, b.Err.Error(), fmt.Sprintf("ip route add %s via GATEWAY",
			netip.PrefixFrom(b.Addr.Addr().Unmap(), b.Addr.Addr().Unmap().BitLen()))}, true
	case b.Addr.Addr().Unmap().IsLoopback():
		return Check{name, Fail, "a loopback address: packets of clients outside this host never reach it",
			"let the server listen on an address of an interface, and name that"}, true
	case b.Path == steering.Path{}:
		return Check{name, Warn, "it is not known how this host reaches it", ""}, true
	}
	return Check{}, false
}
