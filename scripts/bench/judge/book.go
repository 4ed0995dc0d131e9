package main

import "siskin.dev/siskin/analysis"

// book counts an outcome if it was bad, and tells whether it was.
func (r *release) book(o outcome) bool {
	made := r.flows.made(o.client, o.at, r.rng)
	w := r.weightsAt(made)
	version := stable
	if uint32(r.flows.hash[o.client]) < w.Canary {
		version = canary
	}
	if o.version != both && int(o.version) != version {
		return false
	}
	if o.kind == slow && !r.isSlow(o, version) {
		return false
	}
	prev := r.spoke[o.kind][o.client]
	step := uint8(r.step() + 1)
	if o.kind == failed {
		r.fail(o, version, prev == 0)
	}
	if prev < step {
		r.spoke[o.kind][o.client] = step
		e := analysis.Events{Weights: w, Step: int(step), Prev: int(prev)}
		if version == canary {
			e.Canary = 1
		} else {
			e.Stable = 1
		}
		r.tallies[o.kind].Add(e)
		if r.s.deadline > 0 {
			r.tables[o.kind] = append(r.tables[o.kind], e)
		}
	}
	if version == canary { // stable's errors only ever lower the evidence
		r.weigh(o.kind)
	}
	return true
}

// isSlow notes stable's latency, and compares one with its edge.
func (r *release) isSlow(o outcome, version int) bool {
	l := r.w.latency(int(o.client), version, r.rng)
	if version == stable {
		r.tick.Counts[min(r.w.bucketOf(l), len(r.tick.Counts)-1)]++
		if r.tick.Counts[0] > 0 {
			r.tick.Counts[0]-- // it was among the requests of this tick
		}
	}
	return r.edges[version] > 0 && l > r.edges[version].Seconds()
}

func (r *release) fail(o outcome, version int, first bool) {
	r.serve(o.at) // the breaker must know what went well before
	r.requests[version]++
	r.breaker.Err(version == canary, uint64(o.client))
	r.errors[version]++
	if first {
		r.erring[version]++
	}
}

// weigh renews the evidence of the checks that a kind of outcome belongs to.
func (r *release) weigh(k kind) {
	t := &r.tallies[k]
	own := analysis.Evidence{Log: t.Log(r.step() + 1), Clients: t.Clients()}
	if k == slow {
		r.evidence[compareLatency] = own
		return
	}
	r.evidence[compareErrors] = own
	all := analysis.Rate{Requests: r.requests[canary], Bad: r.errors[canary], Clients: r.erring[canary]}
	r.evidence[absolute] = all.AgainstLimit(maxErrors)
}

// weightsAt are those of the epoch that a connection made at a time has.
func (r *release) weightsAt(made float64) analysis.Weights {
	if made < 0 {
		return analysis.Weights{Stable: 10_000}
	}
	step := r.step()
	for made < r.begins[step] {
		step--
	}
	return analysis.Weights{Canary: weights[step], Stable: 10_000 - weights[step]}
}
