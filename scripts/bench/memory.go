package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"siskin.dev/siskin/scripts/bench/lab"
)

// Memory is what the memory part reports. Kernel memory is that of the maps.
type Memory struct {
	Sizes []Sized `json:"sizes"`
	// What one more costs in the maps, in bytes. A service has two versions.
	Flow    float64 `json:"flowBytes"`
	Service float64 `json:"serviceBytes"`
	Backend float64 `json:"backendBytes"`
	// Process is what a service with ten backends costs the daemon itself.
	Process float64   `json:"processServiceBytes"`
	Startup []Startup `json:"startup"`
}

// Sized is a daemon's memory by a size that it was started with.
type Sized struct {
	Flag  string             `json:"flag"`
	N     int                `json:"n"`
	Bytes float64            `json:"bytes"`
	Maps  map[string]float64 `json:"maps"`
}

// Startup are the times until a daemon steers, in seconds.
type Startup struct {
	Services int     `json:"services"`
	Backends int     `json:"backends"`
	Cold     float64 `json:"cold"`    // nothing in the kernel, all services from files
	Restart  float64 `json:"restart"` // after a kill: it takes over, and finds all as it was
	RSS      float64 `json:"rssBytes"`
	// Scrape is how long a page of metrics takes, in seconds, and Page its
	// size in bytes; Refused says why there was none.
	Scrape  float64 `json:"scrape,omitempty"`
	Page    int     `json:"pageBytes,omitempty"`
	Refused string  `json:"refused,omitempty"`
}

// eachService is how many backends one of many services has.
const eachService = 10

func (b *bench) memory() (any, error) {
	fmt.Printf("\nMemory and start-up\n")
	m := &Memory{}
	sizes := []struct {
		flag string
		n    []int
		cost *float64
	}{
		{"--flows", []int{1 << 16, 1 << 18, 1 << 20}, &m.Flow},
		{"--services", []int{511, 5000, 10_000}, &m.Service},
		{"--backends", []int{4095, 50_000, 100_000}, &m.Backend},
	}
	counts := []int{1000, 5000, 10_000}
	if b.Quick {
		counts = []int{50, 100}
	}
	for _, size := range sizes {
		var x, y []float64
		for _, n := range size.n {
			s, err := b.sized(size.flag, n)
			if err != nil {
				return nil, err
			}
			m.Sizes = append(m.Sizes, s)
			x, y = append(x, float64(n)), append(y, s.Bytes)
		}
		*size.cost = slope(x, y)
	}
	var x, y []float64
	for _, n := range counts {
		s, err := b.startup(n)
		if err != nil {
			return m, err
		}
		m.Startup = append(m.Startup, s)
		x, y = append(x, float64(n)), append(y, s.RSS)
	}
	m.Process = slope(x, y)
	m.print()
	return m, nil
}

// sized starts a daemon with maps of a size and reads what they take.
func (b *bench) sized(flag string, n int) (Sized, error) {
	out := Sized{Flag: flag, N: n}
	net, err := lab.NewTriple(lab.Local)
	if err != nil {
		return out, err
	}
	defer net.Close()
	dir, err := os.MkdirTemp(b.dir, "sized-")
	if err != nil {
		return out, fmt.Errorf("make a directory: %w", err)
	}
	d, err := b.startDaemon(net.Host, dir, "--interface", lab.ClientDev, flag, fmt.Sprint(n))
	if err != nil {
		return out, err
	}
	out.Maps, out.Bytes, err = d.mapBytes()
	return out, errors.Join(err, d.uninstall())
}

// startup measures how long a daemon with many services takes until it steers.
func (b *bench) startup(services int) (Startup, error) {
	out := Startup{Services: services, Backends: services * eachService}
	m, err := b.manyServices(services, eachService)
	if err != nil {
		return out, err
	}
	defer m.close()
	began := time.Now()
	if err := m.begin(true); err != nil {
		return out, err
	}
	out.Cold = time.Since(began).Seconds()
	if out.RSS, err = m.rss(); err != nil {
		return out, err
	}
	if p, err := m.scrape(); err != nil {
		out.Refused = err.Error()
	} else {
		out.Scrape, out.Page = p.took.Seconds(), len(p.text)
	}
	m.Stop()
	began = time.Now()
	if err := m.begin(false); err != nil {
		return out, err
	}
	out.Restart = time.Since(began).Seconds()
	return out, m.uninstall()
}

func (m *Memory) print() {
	t := newTable("Kernel memory of the maps", "size", "MB")
	for _, s := range m.Sizes {
		t.row(fmt.Sprintf("%s %d", s.Flag, s.N), number(s.Bytes/1e6))
	}
	t.flush()
	t = newTable("One more costs, bytes", "flow", "service of two versions", "backend", "service with 10 backends, in the daemon")
	t.row(number(m.Flow), number(m.Service), number(m.Backend), number(m.Process))
	t.flush()
	t = newTable("Start-up", "services", "backends", "from files, s", "after a kill, s", "daemon, MB", "metrics page, MB", "s")
	for _, s := range m.Startup {
		size, took := number(float64(s.Page)/1e6), number(s.Scrape)
		if s.Refused != "" {
			size, took = "none", s.Refused
		}
		t.row(fmt.Sprint(s.Services), fmt.Sprint(s.Backends), number(s.Cold), number(s.Restart), number(s.RSS/1e6), size, took)
	}
	t.flush()
}
