package bed

// Routed is a host behind a router, as in a data centre:
//
//	client ─┐
//	        ├─ router ── host ── near      (a namespace, as a container has)
//	remote ─┤              └── gate ── far (another way out)
//	        └──────────────────────────┘
//
// The virtual addresses are routed to the host. What remote and far send to a
// client goes through the router and not through the host, so their answers
// find their way only if the host rewrote the source.
type Routed struct {
	*Bed
	Client, Router, Host, Near, Remote, Gate, Far *Namespace
}

// NewRouted lays out the network; no siskin is running in it.
func NewRouted(b *Bed) *Routed {
	b.tb.Helper()
	r := &Routed{Bed: b}
	for role, space := range map[string]**Namespace{
		"client": &r.Client, "router": &r.Router, "host": &r.Host, "near": &r.Near,
		"remote": &r.Remote, "gate": &r.Gate, "far": &r.Far,
	} {
		*space = b.Namespace(role)
	}
	r.Router.Forward(true) // it sees one direction of some connections only
	r.Gate.Forward(true)
	r.Host.Forward(false)
	r.connect()
	r.route()
	r.Host.Address("lo", both(func(f Family) string { return f.Alone(OwnAddrs, 1) })...)
	for _, f := range Families() {
		r.Client.AnyIP(f.Visitors())
	}
	r.ports()
	return r
}

func (r *Routed) connect() {
	on := func(net Network, n int) []string {
		return both(func(f Family) string { return f.On(net, n) })
	}
	join := func(net Network, gw *Namespace, gwDev string, gwN int, leaf *Namespace, dev string, n int) {
		r.Connect(End{gw, gwDev, on(net, gwN)}, End{leaf, dev, on(net, n)})
	}
	join(Clients, r.Router, "clients", 1, r.Client, "eth0", 2)
	join(Uplink, r.Router, "host", 1, r.Host, "up0", 2)
	join(Remotes, r.Router, "remote", 1, r.Remote, "eth0", 2)
	join(Nearby, r.Host, "near", 1, r.Near, "eth0", 2)
	join(Side, r.Gate, "host", 2, r.Host, "side0", 1)
	join(Beyond, r.Gate, "far", 1, r.Far, "eth0", 2)
	join(Detour, r.Router, "far", 1, r.Far, "eth1", 2)
}

func (r *Routed) route() {
	for _, f := range Families() {
		via := func(net Network, n int) string { return f.At(net, n).String() }
		r.Client.Route(f.Everywhere(), via(Clients, 1))
		r.Host.Route(f.Everywhere(), via(Uplink, 1))
		r.Near.Route(f.Everywhere(), via(Nearby, 1))
		r.Remote.Route(f.Everywhere(), via(Remotes, 1))
		r.Far.Route(f.Everywhere(), via(Detour, 1))
		r.Far.Route(f.All(Side), via(Beyond, 1))
		r.Gate.Route(f.Everywhere(), via(Side, 1))
		r.Host.Route(f.All(Beyond), via(Side, 2))

		r.Router.Route(f.All(VIPs), via(Uplink, 2))
		r.Router.Route(f.All(Nearby), via(Uplink, 2))
		r.Router.Route(f.All(OwnAddrs), via(Uplink, 2))
		r.Router.Route(f.Visitors(), via(Clients, 2))
	}
}

// ports lets clients use all ports and use them again at once: tests choose
// the ports themselves.
func (r *Routed) ports() {
	for _, n := range []*Namespace{r.Client, r.Near, r.Remote, r.Far} {
		n.Sysctl("net.ipv4.ip_local_port_range", "1024 65535")
		n.Sysctl("net.ipv4.tcp_tw_reuse", "1")
	}
}

// FullSums makes every sender write whole checksums, as real links carry them.
// On a veth pair they are left to the hardware that is not there, so nobody
// notices a wrong one.
func (r *Routed) FullSums() {
	r.tb.Helper()
	for role, n := range r.spaces {
		links, err := n.link.LinkList()
		if err != nil {
			r.tb.Fatalf("%s: list the interfaces: %v", role, err)
		}
		for _, link := range links {
			if link.Type() == "veth" {
				n.Run("", "ethtool", "-K", link.Attrs().Name, "tx", "off")
			}
		}
	}
}

// Place is where a backend is, as seen from the host.
type Place struct {
	Name  string
	Space *Namespace
	// Net and N are the backend's address.
	Net Network
	N   int
}

// Places lists one of each kind, for tables of cases.
func (r *Routed) Places() []Place {
	return []Place{
		{"host", r.Host, OwnAddrs, 1},
		{"near", r.Near, Nearby, 2},
		{"remote", r.Remote, Remotes, 2},
		{"far", r.Far, Beyond, 2},
	}
}

// Crowd lets strangers come to the host, by an interface of its own: their
// addresses are on no interface, so that nobody answers for them.
func (r *Routed) Crowd() (crowd, host End) {
	r.tb.Helper()
	n := r.Namespace("crowd")
	crowd = End{n, "eth0", both(func(f Family) string { return f.On(Crowd, 2) })}
	host = End{r.Host, "crowd", both(func(f Family) string { return f.On(Crowd, 1) })}
	r.Connect(host, crowd)
	for _, f := range Families() {
		r.Host.Route(f.Strangers(), f.At(Crowd, 2).String())
		n.Route(f.Everywhere(), f.At(Crowd, 1).String())
	}
	return crowd, host
}

// NarrowMTU is the least that a link of IPv6 must carry (RFC 8200).
const NarrowMTU = 1280

// Narrow puts a machine behind a narrow link, of which only the routers at its
// ends know: at, narrow link, router, machine.
func (r *Routed) Narrow(at *Namespace) *Namespace {
	r.tb.Helper()
	edge, leaf := r.Namespace("edge"), r.Namespace("leaf")
	edge.Forward(true)
	on := func(net Network, n int) []string {
		return both(func(f Family) string { return f.On(net, n) })
	}
	r.Connect(End{at, "narrow", on(Narrow, 1)}, End{edge, "narrow", on(Narrow, 2)})
	r.Connect(End{edge, "leaf", on(Behind, 1)}, End{leaf, "eth0", on(Behind, 2)})
	at.MTU("narrow", NarrowMTU)
	edge.MTU("narrow", NarrowMTU)
	for _, f := range Families() {
		leaf.Route(f.Everywhere(), f.At(Behind, 1).String())
		edge.Route(f.Everywhere(), f.At(Narrow, 1).String())
		at.Route(f.All(Behind), f.At(Narrow, 2).String())
	}
	return leaf
}
