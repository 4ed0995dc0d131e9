package api

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"siskin.dev/siskin/steering"
)

// ParseShare reads a share as the documents write it: "5%", "0.01%". A share
// without % is refused, for 5 could mean 5 % or 0.05 %.
func ParseShare(s string) (Share, error) {
	digits, ok := strings.CutSuffix(s, "%")
	if !ok {
		return 0, fmt.Errorf("%q is not a share: write it with a percent sign, as in %s", s, percentHint(s))
	}
	whole, frac, _ := strings.Cut(strings.TrimSpace(digits), ".")
	if len(frac) > 2 && strings.TrimRight(frac[2:], "0") == "" {
		frac = frac[:2]
	}
	if len(frac) > 2 && allDigits(frac) && allDigits(whole) {
		return 0, fmt.Errorf("%q is too fine: shares go in steps of 0.01%%", s)
	}
	if !allDigits(whole) || frac != "" && !allDigits(frac) || strings.HasSuffix(digits, ".") {
		return 0, fmt.Errorf("%q is not a share: write it as in 5%% or 0.01%%", s)
	}
	n, err := strconv.ParseUint(whole+(frac + "00")[:2], 10, 32)
	if err != nil || n > uint64(steering.Whole) {
		return 0, fmt.Errorf("%q is more than 100%%", s)
	}
	return Share(n), nil
}

// percentHint makes the most likely wish out of a share without a percent sign.
func percentHint(s string) string {
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f <= 100 {
		return s + "%"
	}
	return "5%"
}

func allDigits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// ParseFrontend reads "198.18.0.10:80/tcp" or "[2001:db8::10]:80/udp".
func ParseFrontend(s string) (Frontend, error) {
	addr, proto, ok := strings.Cut(s, "/")
	if !ok {
		return Frontend{}, fmt.Errorf("%q has no protocol: write %s/tcp or %s/udp", s, s, s)
	}
	ap, err := ParseAddress(addr)
	if err != nil {
		return Frontend{}, err
	}
	switch proto {
	case "tcp":
		return Frontend{Addr: ap, Proto: steering.TCP}, nil
	case "udp":
		return Frontend{Addr: ap, Proto: steering.UDP}, nil
	}
	return Frontend{}, fmt.Errorf("%q is not a protocol that can be steered: write tcp or udp", proto)
}

// ParseAddress reads "10.1.0.2:8080" or "[2001:db8::2]:8080"; a v4-mapped IPv6
// address counts as the IPv4 address.
func ParseAddress(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err == nil && ap.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%q has a zone: link-local addresses cannot be steered", s)
	}
	if err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	return netip.AddrPort{}, addressError(s)
}

// addressError finds out what is wrong with an address that did not parse.
func addressError(s string) error {
	if _, _, ok := strings.Cut(s, "/"); ok {
		return fmt.Errorf("%q is not an ip:port: leave out what follows the slash", s)
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		i := strings.LastIndexByte(s, ':')
		return fmt.Errorf("%q has no port: write [%s]:8080, or [%s]:%s where %s is the port", s, s, strings.TrimSuffix(s[:i+1], ":"), s[i+1:], s[i+1:])
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return fmt.Errorf("%q has no port: write %s", s, netip.AddrPortFrom(a, 8080))
	}
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		host, port := s[:i], s[i+1:]
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%q is not a port: write a number from 1 to 65535", port)
		}
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			return fmt.Errorf("%q needs brackets: write [%s]:%s", s, host, port)
		}
		return fmt.Errorf("%q is not an IP address: names are not looked up, write the address itself", host)
	}
	return fmt.Errorf("%q is not an address: write ip:port, as in 10.1.0.2:8080 or [2001:db8::2]:8080", s)
}

// versionNames returns the names with stable first and the others in order.
func versionNames(versions map[string]VersionSpec) []string {
	names := slices.Sorted(maps.Keys(versions))
	if i := slices.Index(names, steering.Stable); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, steering.Stable)
	}
	return names
}
