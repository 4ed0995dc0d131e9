package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// BridgeFacts is a bridge of this host that leads to backends.
type BridgeFacts struct {
	Name string
	V6   bool // of the backends behind it
}

// bridgeFacts finds the bridges by which backends are reached.
func bridgeFacts(backends []BackendFacts) []BridgeFacts {
	var out []BridgeFacts
	for _, b := range backends {
		if b.Err != nil || b.Path.Ifindex == 0 {
			continue
		}
		l, err := netlink.LinkByIndex(int(b.Path.Ifindex))
		if err != nil || l.Type() != "bridge" {
			continue // gone again, or no bridge: nothing to say
		}
		f := BridgeFacts{l.Attrs().Name, b.Addr.Addr().Is6()}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// bridgeCheck looks for br_netfilter, which shows the packets of a bridge to
// netfilter before they reach the bridge's own hook: so conntrack knows a
// connection from one port to another by the frontend's address, takes the
// rewritten answers for invalid, and a firewall such as Docker's drops them.
// Clients that come by other interfaces are not concerned.
func bridgeCheck(f Facts) (Check, bool) {
	var names, settings []string
	for _, b := range f.Bridges {
		setting, value := "net.bridge.bridge-nf-call-iptables", f.BridgeFilter
		if b.V6 {
			setting, value = "net.bridge.bridge-nf-call-ip6tables", f.BridgeFilter6
		}
		if !value.Known || value.Value == 0 {
			continue
		}
		if !slices.Contains(names, b.Name) {
			names = append(names, b.Name)
		}
		if !slices.Contains(settings, setting+"=0") {
			settings = append(settings, setting+"=0")
		}
	}
	if len(names) == 0 {
		return Check{}, false
	}
	return Check{"bridge-netfilter", Warn,
		fmt.Sprintf("br_netfilter is on for %s: where a firewall drops what conntrack calls invalid, clients on the bridge do not reach frontends whose backends are on it", strings.Join(names, ", ")),
		"if no rule filters between the bridge's ports: sysctl -w " + strings.Join(settings, " ")}, true
}
