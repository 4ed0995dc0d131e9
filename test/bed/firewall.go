package bed

import (
	"fmt"
	"strings"
)

// Masquerade rewrites the source of everything that the namespace forwards, as
// a host does whose containers or peers know no way to the clients.
func (n *Namespace) Masquerade() {
	n.tb.Helper()
	for _, family := range []string{"ip", "ip6"} {
		n.Run("table "+family+` blanket { chain postrouting {
	type nat hook postrouting priority 100; policy accept;
	masquerade
}; }
`, "nft", "-f", "-")
	}
}

// DropInvalid drops what conntrack calls invalid, as many hosts do: packets and
// errors that belong to no connection that it has seen.
func (n *Namespace) DropInvalid() {
	n.tb.Helper()
	n.Run(`table inet strict {
	chain forward { type filter hook forward priority 0; policy accept; ct state invalid drop; }
	chain input { type filter hook input priority 0; policy accept; ct state invalid drop; }
}
`, "nft", "-f", "-")
}

// Firewall gives a namespace the rules that Docker leaves on a host: forwarding
// is dropped unless it belongs to a connection that is known or goes to one of
// the backends; what conntrack calls invalid is dropped; and what leaves by
// the uplink from a container's network is masqueraded.
func (n *Namespace) Firewall(uplink string) {
	n.tb.Helper()
	var rules strings.Builder
	for _, f := range Families() {
		family, saddr := "ip", "ip"
		if f == V6 {
			family, saddr = "ip6", "ip6"
		}
		fmt.Fprintf(&rules, `
table %[1]s filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state invalid drop
		ct state established,related accept
		%[2]s daddr { %[3]s, %[4]s, %[5]s, %[7]s } accept
		iifname != "%[6]s" oifname "%[6]s" accept
	}
	chain input {
		type filter hook input priority 0; policy accept;
		ct state invalid drop
	}
}
table %[1]s nat {
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		%[2]s saddr %[3]s oifname "%[6]s" masquerade
	}
}
`, family, saddr, f.All(Nearby), f.All(Remotes), f.All(Beyond), uplink, f.All(Segment))
	}
	n.Run(rules.String(), "nft", "-f", "-")
}
