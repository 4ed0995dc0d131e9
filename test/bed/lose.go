package bed

import (
	"slices"
	"strconv"
	"strings"
)

// Lose makes a router lose a share of what it forwards from a network and to
// it, from now on; 0: nothing any more.
func (n *Namespace) Lose(network Network, share float64) {
	n.tb.Helper()
	for family, iptables := range map[Family]string{V4: "iptables", V6: "ip6tables"} {
		n.Run("", iptables, "-w", "-F", "FORWARD")
		for _, way := range []string{"-s", "-d"} {
			if share > 0 {
				n.Run("", iptables, "-w", "-A", "FORWARD", way, family.All(network), "-m", "statistic",
					"--mode", "random", "--probability", strconv.FormatFloat(share, 'f', 4, 64), "-j", "DROP")
			}
		}
	}
}

// RetryAfter lets a namespace wait less for what it sent to be acknowledged, as
// if the way were known to be short.
func (n *Namespace) RetryAfter(milliseconds int) {
	n.tb.Helper()
	for _, family := range []string{"-4", "-6"} {
		route := strings.Fields(n.Run("", "ip", family, "route", "show", "default"))
		args := slices.Concat([]string{family, "route", "change"}, route, []string{"rto_min", strconv.Itoa(milliseconds) + "ms"})
		n.Run("", "ip", args...)
	}
}
