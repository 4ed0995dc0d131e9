package bed

import "fmt"

// Bridged is a host with a bridge, and a client and two backends on it:
//
//	client ─┐
//	stable ─┼─ br0 (host)
//	canary ─┘
//
// The virtual addresses are reached through the host; a backend answers the
// client directly, past the host, unless the host rewrote the source.
type Bridged struct {
	*Bed
	Client, Host, Stable, Canary *Namespace
}

// NewBridged lays out the network; no siskin is running in it.
func NewBridged(b *Bed) *Bridged {
	b.tb.Helper()
	r := &Bridged{
		Bed: b, Client: b.Namespace("client"), Host: b.Namespace("host"),
		Stable: b.Namespace("stable"), Canary: b.Namespace("canary"),
	}
	r.Host.Forward(false)
	var ports []string
	for i, n := range []*Namespace{r.Client, r.Stable, r.Canary} {
		port := fmt.Sprintf("port%d", i)
		addrs := both(func(f Family) string { return f.On(Segment, i+2) })
		b.Connect(End{r.Host, port, nil}, End{n, "eth0", addrs})
		ports = append(ports, port)
	}
	r.Host.Bridge("br0", ports...)
	r.Host.Address("br0", both(func(f Family) string { return f.On(Segment, 1) })...)
	for _, n := range []*Namespace{r.Client, r.Stable, r.Canary} {
		for _, f := range Families() {
			n.Route(f.Everywhere(), f.At(Segment, 1).String())
		}
	}
	return r
}
