package host

import (
	"slices"

	"siskin.dev/siskin/loader"
)

// Abilities are what an interface's driver can do with XDP.
type Abilities struct {
	Known    bool // the kernel tells it
	Native   bool // it runs programs
	Transmit bool // it sends what programs on other interfaces redirect to it
}

// abilities asks for those of one interface.
func abilities(index int) Abilities {
	all, err := loader.XDPFeaturesOf(index)
	if err != nil || all == nil {
		return Abilities{} // as on a kernel that does not tell
	}
	return Abilities{true, all[index]&loader.XDPBasic != 0, all[index]&loader.XDPTransmit != 0}
}

// TargetFacts is an interface that leads to backends.
type TargetFacts struct {
	Name string
	XDP  Abilities
}

// targetFacts looks at the interfaces by which backends are reached.
func targetFacts(backends []BackendFacts) []TargetFacts {
	var out []TargetFacts
	var seen []uint32
	for _, b := range backends {
		index := b.Path.Ifindex
		if b.Err != nil || index == 0 || slices.Contains(seen, index) {
			continue
		}
		seen = append(seen, index)
		if name, _, err := InterfaceByIndex(int(index)); err == nil { // else it is gone again
			out = append(out, TargetFacts{name, abilities(int(index))})
		}
	}
	return out
}

// xdpCheck says whether an interface can be attached to by XDP.
func xdpCheck(f InterfaceFacts) Check {
	name := "xdp " + f.Name
	switch {
	case f.NoXDP != nil && f.WantXDP:
		return Check{name, Fail, f.NoXDP.Error(), ""}
	case f.NoXDP != nil:
		return Check{name, Info, f.NoXDP.Error(), ""}
	case !f.XDP.Known:
		return Check{name, Info, "whether the driver has XDP in native mode is not known before Linux 6.3",
			"siskin run --xdp " + f.Name + " tries it, and says why when it does not work"}
	case !f.XDP.Transmit:
		return Check{name, Info, "XDP in native mode; it takes no frames that XDP on other interfaces redirects to it, so answers of backends there go through the stack",
			transmitRemedy(f.Name)}
	}
	return Check{Name: name, Status: OK, Detail: "XDP in native mode, and frames can be redirected to it"}
}

// targetChecks says where the way from XDP to a backend leads through the stack.
func targetChecks(f Facts) []Check {
	var out []Check
	for _, t := range f.Targets {
		name := "xdp to " + t.Name
		switch {
		case !t.XDP.Known:
			out = append(out, Check{name, Info, "where XDP can redirect to is not known before Linux 6.3: its packets go through the stack", ""})
		case !t.XDP.Transmit:
			out = append(out, Check{name, Info, "takes no frames that XDP redirects: packets to backends there go through the stack", transmitRemedy(t.Name)})
		default:
			out = append(out, Check{Name: name, Status: OK, Detail: "takes frames that XDP redirects"})
		}
	}
	return out
}

func transmitRemedy(name string) string {
	return "most cards do once they run a program themselves (siskin run --xdp " + name + "); a veth does while its other end runs one, or has `ethtool -K … gro on`"
}
