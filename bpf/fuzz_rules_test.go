package bpf_test

import (
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket/layers"
)

// allowed names the rule by which a frame may have become another, or "".
func (j *judge) allowed(h hook, d *dissection, out []byte) string {
	src, dst := d.read(out)
	switch {
	case d.complaint:
		inSrc, inDst := d.inner.read(out)
		return j.complaint(h, d, src.Addr(), dst.Addr(), inSrc, inDst)
	case d.later:
		return j.laterFragment(h, d, src.Addr(), dst.Addr())
	case h == ingress:
		return j.arriving(d, src, dst)
	default:
		return j.leaving(d, src, dst)
	}
}

func (j *judge) arriving(d *dissection, src, dst netip.AddrPort) string {
	if fe, ok := j.frontends[service{d.dst, d.proto}]; ok {
		if slices.Contains(fe.backends, dst) && src.Addr() == d.src.Addr() &&
			(src.Port() == d.src.Port() || fe.moves && j.ours(src.Port())) {
			return "request"
		}
		return ""
	}
	ep, ok := j.endpoints[service{d.src, d.proto}]
	if ok && ep.source == d.dst.Addr() && j.ours(d.dst.Port()) &&
		src == d.src && dst.Port() == d.dst.Port() && j.spoken[dst.Addr()] {
		return "reply to the host"
	}
	return ""
}

func (j *judge) leaving(d *dissection, src, dst netip.AddrPort) string {
	if ep, ok := j.endpoints[service{d.src, d.proto}]; ok && slices.Contains(ep.frontends, src) &&
		dst.Addr() == d.dst.Addr() && (dst.Port() == d.dst.Port() || ep.moves && j.ours(d.dst.Port())) {
		return "reply"
	}
	if ep, ok := j.endpoints[service{d.dst, d.proto}]; ok && ep.source.IsValid() && j.ours(d.src.Port()) &&
		src == netip.AddrPortFrom(ep.source, d.src.Port()) && dst == d.dst && j.spoken[d.src.Addr()] {
		return "request from the host"
	}
	return ""
}

// laterFragment knows addresses only; that its first one went the same way is
// for the table to test.
func (j *judge) laterFragment(h hook, d *dissection, src, dst netip.Addr) string {
	switch {
	case h == ingress && src == d.src.Addr() && j.leads(d.dst.Addr(), dst, d.proto):
		return "fragment of a request"
	case h == ingress && src == d.src.Addr() && j.sources[d.dst.Addr()] && j.spoken[dst]:
		return "fragment of a reply to the host"
	case h == egress && dst == d.dst.Addr() && j.leads(src, d.src.Addr(), d.proto):
		return "fragment of a reply"
	case h == egress && dst == d.dst.Addr() && j.sources[src] && j.spoken[d.src.Addr()]:
		return "fragment of a request from the host"
	}
	return ""
}

// leads tells whether any frontend of one address has a backend of the other.
func (j *judge) leads(vip, backend netip.Addr, proto layers.IPProtocol) bool {
	for at, fe := range j.frontends {
		if at.at.Addr() == vip && at.proto == proto &&
			slices.ContainsFunc(fe.backends, func(b netip.AddrPort) bool { return b.Addr() == backend }) {
			return true
		}
	}
	return false
}

func (j *judge) complaint(h hook, d *dissection, src, dst netip.Addr, inSrc, inDst netip.AddrPort) string {
	in := d.inner
	from, to := j.endpoints[service{in.src, in.proto}], j.endpoints[service{in.dst, in.proto}]
	fe := j.frontends[service{in.src, in.proto}]
	sameSrc, sameDst := src == d.src.Addr(), dst == d.dst.Addr()
	switch {
	case h == egress && sameDst && src == inDst.Addr() && slices.Contains(to.frontends, inDst) && inSrc.Addr() == in.src.Addr() &&
		(inSrc.Port() == in.src.Port() || to.moves && j.ours(in.src.Port())):
		return "error to a client"
	case h == egress && src == from.source && sameDst && from.source.IsValid() && j.ours(in.dst.Port()) &&
		inSrc == in.src && inDst == netip.AddrPortFrom(from.source, in.dst.Port()):
		return "error to a backend"
	case h == ingress && sameSrc && to.source.IsValid() && in.src.Addr() == to.source && j.ours(in.src.Port()) &&
		inDst == in.dst && inSrc == netip.AddrPortFrom(dst, in.src.Port()) && j.spoken[dst]:
		return "error from beyond a backend"
	case h == ingress && sameSrc && d.dst.Addr() == in.src.Addr() && slices.Contains(fe.backends, inSrc) && dst == inSrc.Addr() &&
		inDst.Addr() == in.dst.Addr() && (inDst.Port() == in.dst.Port() || fe.moves && j.ours(inDst.Port())):
		return "error from a client"
	}
	return ""
}

// allowedPast is allowed for what is sent past the stack: both ends are
// rewritten at once.
func (j *judge) allowedPast(d *dissection, out []byte) string {
	src, dst := d.read(out)
	if d.complaint {
		inSrc, inDst := d.inner.read(out)
		return j.complaintPast(d, src.Addr(), dst.Addr(), inSrc, inDst)
	}
	fe, isRequest := j.frontends[service{d.dst, d.proto}]
	ep := j.endpoints[service{d.src, d.proto}]
	switch {
	case isRequest:
		if fe.sends && slices.Contains(fe.backends, dst) && j.seenAs(fe.source, d.src, src) {
			return "request past the stack"
		}
	case ep.sends && slices.Contains(ep.frontends, src) && j.cameFrom(ep.source, d.dst, dst):
		return "reply past the stack"
	}
	return ""
}

// seenAs tells whether a backend may see a client so: as itself, or as the host.
func (j *judge) seenAs(source netip.Addr, client, seen netip.AddrPort) bool {
	if source.IsValid() {
		return seen.Addr() == source && j.ours(seen.Port())
	}
	return seen == client
}

// cameFrom tells whether what a backend sees may be the client.
func (j *judge) cameFrom(source netip.Addr, seen, client netip.AddrPort) bool {
	if source.IsValid() {
		return seen.Addr() == source && j.ours(seen.Port()) && j.spoken[client.Addr()]
	}
	return seen == client
}

func (j *judge) complaintPast(d *dissection, src, dst netip.Addr, inSrc, inDst netip.AddrPort) string {
	in := d.inner
	to, fe := j.endpoints[service{in.dst, in.proto}], j.frontends[service{in.src, in.proto}]
	switch {
	case to.sends && slices.Contains(to.frontends, inDst) && src == inDst.Addr() && d.dst.Addr() == in.src.Addr() &&
		dst == inSrc.Addr() && j.cameFrom(to.source, in.src, inSrc):
		return "error to a client past the stack"
	case fe.sends && slices.Contains(fe.backends, inSrc) && dst == inSrc.Addr() && d.dst.Addr() == in.src.Addr() &&
		j.seenAs(fe.source, in.dst, inDst) && (src == d.src.Addr() || src == fe.source):
		return "error to a backend past the stack"
	}
	return ""
}

func (j *judge) ours(port uint16) bool { return port >= j.min && port <= j.max }
