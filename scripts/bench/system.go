package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"siskin.dev/siskin/scripts/bench/lab"
)

// System is one way to lead connections from the client to the backends.
type System struct {
	Name   string
	Plain  bool        // it splits nothing: the client asks stable itself
	Small  bool        // measured by small packets only
	Places []lab.Where // where its backends may be

	// missing says why it cannot be measured here; nil or "": it can.
	missing func(b *bench) (string, error)
	// start makes it run; nil for plain forwarding.
	start func(s *setup, canary int) (balancer, error)
}

// balancer is a System that runs.
type balancer interface {
	// shift gives the canary a share in percent, as an operator would, and
	// returns when that command has ended.
	shift(canary int) error
}

// Names of systems that others are compared with.
const (
	floorName = "floor"
	noiseName = "floor2"
)

func systems() []System {
	both := []lab.Where{lab.Remote, lab.Local}
	return []System{
		{Name: floorName, Plain: true, Places: both},
		{Name: noiseName, Plain: true, Places: both},
		{Name: "siskin", Places: both, start: startSiskin()},
		{Name: "siskin-unread", Places: both, start: startObserving("connections")},
		{Name: "siskin-wide", Places: []lab.Where{lab.Remote}, start: startWide},
		{Name: "siskin-stack", Places: both, start: startSiskin("--redirect", "never"), missing: needsRedirect},
		{Name: "siskin-xdp", Small: true, Places: []lab.Where{lab.Local}, start: startXDP, missing: needsXDP},
		{Name: "iptables", Places: both, start: startIptables},
		{Name: "nftables", Places: both, start: startNftables},
		{Name: "haproxy", Places: both, start: startHAProxy},
		{Name: "nginx", Places: both, start: startNginx},
	}
}

// setup is a System in a triple of its own.
type setup struct {
	System
	*lab.Triple
	balancer
	bench *bench
	dir   string
	to    netip.AddrPort // what the client connects to
}

// setUp builds a triple with running servers and the system, and makes sure
// that it works.
func (b *bench) setUp(s System, where lab.Where, canary int) (*setup, error) {
	triple, err := lab.NewTriple(where)
	if err != nil {
		return nil, err
	}
	u := &setup{System: s, Triple: triple, bench: b, to: triple.StableAt}
	u.dir, err = os.MkdirTemp(b.dir, s.Name+"-")
	if err == nil {
		err = b.serve(triple)
	}
	if err == nil && !s.Plain {
		u.to = lab.Frontend
		u.balancer, err = s.start(u, canary)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set %s up: %w", s.Name, err), triple.Close())
	}
	return u, nil
}

// write writes a configuration and returns its path.
func (u *setup) write(name, content string) (string, error) {
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write the configuration of %s: %w", u.Name, err)
	}
	return path, nil
}

// chosen returns the systems that are to be measured with the backends there,
// and says which are left out and why.
func (b *bench) chosen(where lab.Where, plain bool) ([]System, error) {
	var out []System
	for _, s := range systems() {
		wanted := s.Name == floorName || len(b.Systems) == 0 || slices.Contains(b.Systems, s.Name)
		if !wanted || !slices.Contains(s.Places, where) || s.Plain && !plain {
			continue
		}
		if s.missing != nil {
			why, err := s.missing(b)
			if err != nil {
				return nil, err
			}
			if why != "" {
				fmt.Printf("%s is left out: %s\n", s.Name, why)
				continue
			}
		}
		out = append(out, s)
	}
	return out, nil
}
