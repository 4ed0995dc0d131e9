package metrics

import "siskin.dev/siskin/bpf"

// A page may hold each label set once, and Prometheus refuses all of it
// otherwise. Ids are finer than labels: a service that was deleted and made
// again has new ids while the flows of the old ones still live. So what
// carries the same labels is added up.
type (
	versionKey struct{ service, version string }
	backendKey struct{ service, version, address string }

	versionRow struct {
		latency bpf.Latency
		asked   float64
		share   float64
		shared  bool // share is known
		live    bool // it is not only a retired one
	}
	backendRow struct {
		tally    bpf.Tally
		answers  bpf.Answers
		spoken   *spoken // by its service
		up, live bool
	}
)

type rows struct {
	versions map[versionKey]*versionRow
	backends map[backendKey]*backendRow
}

// tabulate sorts the numbers of a snapshot by their labels.
func tabulate(services []Service, snap Snapshot) rows {
	r := rows{map[versionKey]*versionRow{}, map[backendKey]*backendRow{}}
	languages := map[string]*spoken{}
	for _, s := range services {
		said := rowOf(languages, s.Name)
		shares, _ := Shares(s, snap)
		for _, v := range s.Versions {
			row := rowOf(r.versions, versionKey{s.Name, v.Name})
			l := snap.Latencies[v.Latency]
			addHistogram(&row.latency.Connect, &l.Connect)
			addHistogram(&row.latency.Response, &l.Response)
			if !v.Retired {
				row.live, row.asked = true, v.Asked
				row.share, row.shared = shares[v.Name], len(shares) > 0
			}
			for _, b := range v.Backends {
				row := rowOf(r.backends, backendKey{s.Name, v.Name, b.Address})
				t := snap.Backends[b.ID]
				addTally(&row.tally, &t)
				a := snap.Requests[b.ID]
				addAnswers(&row.answers, &a)
				said.add(&a)
				row.spoken = said
				row.live = row.live || !b.Retired
				row.up = row.up || b.Up && !b.Retired
			}
		}
	}
	return r
}

// rowOf returns the row of k, new where there was none.
func rowOf[K comparable, R any](rows map[K]*R, k K) *R {
	if rows[k] == nil {
		rows[k] = new(R)
	}
	return rows[k]
}
