package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"siskin.dev/siskin/scripts/bench/lab"
)

// perFile is how many services one file holds: siskin reads 8 MiB at most.
const perFile = 1000

// Addresses of many services: frontends from 198.18.64.0 on, and backends from
// 198.19.64.0 on, where lab.Beyond leads.
var (
	frontends = netip.MustParseAddr("198.18.64.0")
	backends  = netip.MustParseAddr("198.19.64.0")
)

const backendAddrs = 192 << 8 // up to 198.19.255.255; then another port

// nth is the address n after another.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// manyName is the name of the nth of many services.
func manyName(n int) string { return fmt.Sprintf("service-%d", n) }

// document describes the nth of many services; the last backend is the
// canary's.
func document(n, each int) string {
	list := make([]string, each)
	for i := range list {
		k := n*each + i
		list[i] = fmt.Sprintf("%q", netip.AddrPortFrom(nth(backends, k%backendAddrs), uint16(8080+k/backendAddrs)))
	}
	return fmt.Sprintf(`apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: %s}
spec:
  frontends: ["%v/tcp"]
  versions:
    stable: {backends: [%s]}
    canary: {backends: [%s]}
`, manyName(n), netip.AddrPortFrom(nth(frontends, n), 80), strings.Join(list[:each-1], ", "), list[each-1])
}

// documents writes many services to files, and returns their paths.
func documents(dir string, services, each int) ([]string, error) {
	var paths []string
	for first := 0; first < services; first += perFile {
		var text strings.Builder
		for n := first; n < min(services, first+perFile); n++ {
			text.WriteString("---\n" + document(n, each))
		}
		path := filepath.Join(dir, fmt.Sprintf("services-%d.yaml", first))
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			return nil, fmt.Errorf("write the documents: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// many is a daemon with many services.
type many struct {
	*daemon
	services int
	files    []string
	args     []string
	net      *lab.Triple
}

// manyServices lays out a network and writes documents for many services; no
// daemon runs yet.
func (b *bench) manyServices(services, each int) (*many, error) {
	net, err := lab.NewTriple(lab.Local)
	if err != nil {
		return nil, err
	}
	m := &many{services: services, net: net}
	dir, err := os.MkdirTemp(b.dir, "many-")
	if err == nil {
		err = net.LeadBeyond()
	}
	if err == nil {
		m.files, err = documents(dir, services, each)
	}
	if err != nil {
		net.Close()
		return nil, err
	}
	m.daemon = &daemon{bench: b, host: net.Host, dir: dir}
	m.args = []string{"--interface", lab.ClientDev,
		"--services", fmt.Sprint(services), "--backends", fmt.Sprint(services * each)}
	return m, nil
}

// begin starts the daemon, and with files lets it apply them.
func (m *many) begin(files bool) error {
	args := m.args
	if files {
		args = append(args[:len(args):len(args)], "--file", strings.Join(m.files, ","))
	}
	var err error
	m.daemon, err = m.bench.startDaemon(m.host, m.dir, args...)
	return err
}

func (m *many) close() {
	if m.Process != nil {
		m.Stop()
	}
	m.net.Close()
}
