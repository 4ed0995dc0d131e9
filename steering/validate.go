package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
)

// A FieldError is one fault of one service's desired state.
type FieldError struct {
	Service string
	Field   string // its path in the document: spec.versions.canary.backends[1]
	Problem string // what is wrong and what to do
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("service %s: %s: %s", e.Service, e.Field, e.Problem)
}

// Validate checks services one by one and against each other. All faults are
// joined, each as a *FieldError; where two services are in conflict, the later
// one is named.
func Validate(services []Service) error {
	return errors.Join(Faults(services)...)
}

// Faults is Validate for callers that want the faults one by one: each of the
// errors is a *FieldError.
func Faults(services []Service) []error {
	var faults []error
	names := map[string]bool{}
	owner := map[Frontend]string{}
	for _, s := range services {
		c := &check{service: s.Name, faults: &faults}
		if names[s.Name] {
			c.fault("metadata.name", "there is another service of this name; choose a new one")
		}
		names[s.Name] = true
		c.one(s)
		for i, f := range s.Frontends {
			f = f.unmapped()
			switch other, taken := owner[f]; {
			case taken && other == s.Name:
				c.fault(frontendField(i), "%s is listed twice; remove one", f)
			case taken:
				c.fault(frontendField(i), "%s belongs to service %s already; give it another address or port", f, other)
			default:
				owner[f] = s.Name
			}
		}
	}
	return faults
}

func (f Frontend) unmapped() Frontend {
	f.Addr = unmap(f.Addr)
	return f
}

func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func frontendField(i int) string          { return fmt.Sprintf("spec.frontends[%d]", i) }
func versionField(v string) string        { return "spec.versions." + v }
func backendField(v string, i int) string { return fmt.Sprintf("spec.versions.%s.backends[%d]", v, i) }
func weightField(v string) string         { return "spec.weights." + v }
func (c *check) fault(field, f string, a ...any) {
	*c.faults = append(*c.faults, &FieldError{c.service, field, fmt.Sprintf(f, a...)})
}

// check collects the faults of one service.
type check struct {
	service string
	faults  *[]error
}

func (c *check) one(s Service) {
	if p := LabelProblem(s.Name); p != "" {
		c.fault("metadata.name", "%s", p)
	}
	if s.Group != "" {
		if p := LabelProblem(s.Group); p != "" {
			c.fault("group", "%s", p)
		}
	}
	c.frontends(s)
	c.observe(s)
	c.versions(s)
	c.weights(s)
}

func (c *check) frontends(s Service) {
	if len(s.Frontends) == 0 {
		c.fault("spec.frontends", "is empty; name at least one address that clients connect to, such as 198.18.0.10:80/tcp")
	}
	for i, f := range s.Frontends {
		a := f.Addr.Addr().Unmap()
		if p := addressProblem(f.Addr); p != "" {
			c.fault(frontendField(i), "%s: %s", f, p)
		} else if a.IsLoopback() {
			c.fault(frontendField(i), "%s: packets on the loopback interface are not steered; use an address that clients reach over a network interface", f)
		}
		if f.Proto != TCP && f.Proto != UDP {
			c.fault(frontendField(i), "%s: only tcp and udp can be steered", f)
		}
	}
}

func (c *check) observe(s Service) {
	tcp := func(f Frontend) bool { return f.Proto == TCP }
	if s.Observe == Requests && len(s.Frontends) > 0 && !slices.ContainsFunc(s.Frontends, tcp) {
		c.fault("spec.observe", "requests are found in TCP connections, and no frontend is tcp; remove it, or write connections")
	}
}

func (c *check) versions(s Service) {
	switch n := len(s.Versions); {
	case n == 0:
		c.fault("spec.versions", "is empty; name at least the version %s", Stable)
		return
	case n > slots:
		c.fault("spec.versions", "has %d versions; %s and four others at most", n, Stable)
	}
	seen := map[string]bool{}
	families := familiesOf(s.Frontends)
	for _, v := range s.Versions {
		field := versionField(v.Name)
		if p := LabelProblem(v.Name); p != "" {
			c.fault(field, "%s", p)
		}
		if seen[v.Name] {
			c.fault(field, "is listed twice; version names are unique in a service")
		}
		seen[v.Name] = true
		c.backends(s, v, families)
	}
	if !seen[Stable] {
		c.fault("spec.versions", "has no %s; name the version that gets what the others do not", Stable)
	}
}

func (c *check) backends(s Service, v Version, families map[Family]bool) {
	seen := map[netip.AddrPort]bool{}
	have, weight := map[Family]bool{}, map[Family]bool{}
	for i, b := range v.Backends {
		field, addr := backendField(v.Name, i), unmap(b.Addr)
		if p := addressProblem(b.Addr); p != "" {
			c.fault(field, "%s: %s", b.Addr, p)
			continue
		}
		family := FamilyOf(addr.Addr())
		switch {
		case seen[addr]:
			c.fault(field, "%s is listed twice; give it a weight instead", addr)
		case addr.Addr().IsLoopback() && !allLoopback(s.Frontends):
			c.fault(field, "%s: clients on other hosts cannot be steered to a loopback address; let the server listen on one of the host's other addresses and name that", addr)
		case len(families) > 0 && !families[family]:
			c.fault(field, "%s: the service has no %s frontend that could lead here; add one or remove the backend", addr, family)
		}
		seen[addr], have[family] = true, true
		weight[family] = weight[family] || b.Weight > 0
	}
	for _, family := range []Family{IPv4, IPv6} {
		switch {
		case families[family] && !have[family]:
			c.fault(versionField(v.Name), "has no %s backend but the service has an %s frontend; add a backend or remove the frontend", family, family)
		case have[family] && !weight[family]:
			c.fault(versionField(v.Name), "all %s backend weights are zero; give at least one a weight of 1 or more", family)
		}
	}
}

func (c *check) weights(s Service) {
	known := map[string]bool{}
	for _, v := range s.Versions {
		known[v.Name] = true
	}
	var sum uint32
	names := make([]string, 0, len(s.Weights))
	for v := range s.Weights {
		names = append(names, v)
	}
	sort.Strings(names)
	for _, v := range names {
		share := s.Weights[v]
		sum += uint32(share)
		switch {
		case v == Stable:
			c.fault(weightField(v), "%s gets what the other versions leave; remove its weight", Stable)
		case !known[v]:
			c.fault(weightField(v), "there is no version %s; name one of spec.versions", v)
		case share > Whole:
			c.fault(weightField(v), "%s is more than 100%%", share)
		}
	}
	if sum > uint32(Whole) {
		c.fault("spec.weights", "%s in all is more than 100%%; lower one of them", percent(sum))
	}
}

// LabelProblem says why a name is not a DNS label (RFC 1123, section 2.1), and
// "" where it is one.
func LabelProblem(name string) string {
	letter := func(b byte) bool { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' }
	switch {
	case name == "":
		return "a name is needed: lower-case letters, digits and '-'"
	case len(name) > 63:
		return fmt.Sprintf("%q has %d characters; a name has 63 at most", name, len(name))
	case !letter(name[0]) || !letter(name[len(name)-1]):
		return fmt.Sprintf("%q must begin and end with a lower-case letter or a digit", name)
	}
	if slices.ContainsFunc([]byte(name), func(b byte) bool { return !letter(b) && b != '-' }) {
		return fmt.Sprintf("%q may hold only lower-case letters, digits and '-'", name)
	}
	return ""
}

// addressProblem says why nothing can be steered from or to an address.
func addressProblem(ap netip.AddrPort) string {
	a := ap.Addr().Unmap()
	switch {
	case !a.IsValid():
		return "is no address"
	case a.IsUnspecified():
		return "the unspecified address is not one host's; name the address itself"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "multicast and broadcast cannot be steered; name a unicast address"
	case a.IsLinkLocalUnicast(), a.Zone() != "":
		return "a link-local address means another host on each link; name a global one"
	case ap.Port() == 0:
		return "port 0 cannot be connected to; name the port"
	}
	return ""
}

func allLoopback(fs []Frontend) bool {
	return len(fs) > 0 && !slices.ContainsFunc(fs, func(f Frontend) bool { return !f.Addr.Addr().Unmap().IsLoopback() })
}
