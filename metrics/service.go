package metrics

import "siskin.dev/siskin/bpf"

// Service is what has to be known of a service to name its counters.
type Service struct {
	Name     string
	Versions []Version
	// Baseline is, by backend id, the number of connections opened when the
	// weights were last changed; the achieved share counts from there. An id
	// that is absent counts from 0.
	Baseline map[uint32]uint64
}

// Version is one version of a Service.
type Version struct {
	Name     string
	Latency  uint32  // index of its histograms
	Asked    float64 // share of new connections it should get, 0 to 1
	Retired  bool    // deleted: still counted while flows remember it
	Backends []Backend
}

// Backend is one backend of a Version.
type Backend struct {
	ID      uint32
	Address string // addr:port
	Up      bool   // it answers its health check, or has none
	Retired bool   // deleted: still counted while flows remember it
}

// Want returns what a snapshot must hold to describe the services.
func Want(services []Service) Wanted {
	var w Wanted
	for _, s := range services {
		for _, v := range s.Versions {
			w.Latencies = append(w.Latencies, v.Latency)
			for _, b := range v.Backends {
				w.Backends = append(w.Backends, b.ID)
			}
		}
	}
	return w
}

// Active returns how many connections of t are open.
func Active(t bpf.Tally) uint64 { return less(t.Opened, t.Closed) }

// Shares returns the share of new connections (0 to 1) that each version of s
// was given since its baseline, and how many those were in all. It is empty
// when there were none: no data is not a share of 0.
func Shares(s Service, snap Snapshot) (shares map[string]float64, connections uint64) {
	opened := make(map[string]uint64, len(s.Versions))
	for _, v := range s.Versions {
		for _, b := range v.Backends {
			n := less(snap.Backends[b.ID].Opened, s.Baseline[b.ID])
			opened[v.Name] += n
			connections += n
		}
	}
	shares = make(map[string]float64, len(opened))
	if connections == 0 {
		return shares, 0
	}
	for _, v := range s.Versions {
		shares[v.Name] = float64(opened[v.Name]) / float64(connections)
	}
	return shares, connections
}

// Baseline returns the value of Service.Baseline for a weight change at the
// moment of the snapshot.
func Baseline(s Service, snap Snapshot) map[uint32]uint64 {
	out := make(map[uint32]uint64)
	for _, v := range s.Versions {
		for _, b := range v.Backends {
			out[b.ID] = snap.Backends[b.ID].Opened
		}
	}
	return out
}
