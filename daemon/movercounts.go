package daemon

import (
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/conduct"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// Counts reads what is known of stable and the version.
func (t *mover) Counts(target conduct.Target) (conduct.Counts, error) {
	at, status, err := t.find(target)
	if err != nil {
		return conduct.Counts{}, err
	}
	services := metrics.FromStatus(status)
	snap, err := t.d.read(metrics.Want(services))
	if err != nil {
		return conduct.Counts{}, err
	}
	out := conduct.Counts{At: time.Duration(bpf.BootNow())}
	for _, s := range status {
		for _, v := range s.Versions {
			switch v.Name {
			case steering.Stable:
				addVersion(&out.Stable, v, snap)
			case target.Version:
				addVersion(&out.Version, v, snap)
			}
		}
	}
	outcomes, err := t.d.watched.Outcomes(at.word)
	if err != nil {
		return conduct.Counts{}, err
	}
	addOutcomes(&out, outcomes, at.slot)
	return out, nil
}

func addVersion(to *conduct.VersionCounts, v steering.VersionStatus, snap metrics.Snapshot) {
	if to.Backends == nil {
		to.Backends = map[string]conduct.BackendCounts{}
		to.Responses = analysis.Histogram{First: bpf.HistogramMin, Counts: make([]uint64, bpf.HistogramBuckets)}
	}
	for _, b := range v.Backends {
		tally := snap.Backends[b.ID]
		bad := tally.Refused + tally.Timeout + tally.Reset + tally.Unreachable + tally.Tls
		to.Connections += tally.Opened
		to.Errors += bad
		bad += addAnswers(to, snap.Requests[b.ID])
		of := to.Backends[b.Addr.String()]
		to.Backends[b.Addr.String()] = conduct.BackendCounts{Connections: of.Connections + tally.Opened, Errors: of.Errors + bad}
	}
	latency := snap.Latencies[v.Latency]
	for i, n := range latency.Response.Bucket {
		to.Responses.Counts[i] += n
	}
}

// addAnswers adds a backend's answers, and returns those that are errors.
func addAnswers(to *conduct.VersionCounts, a bpf.Answers) (failed uint64) {
	for how := range bpf.AnswerUnparsed {
		to.Answers.Read += a.Of[how]
	}
	to.Answers.Other += a.Of[bpf.AnswerUnparsed] + a.Of[bpf.AnswerTLS]
	to.Answers.Lost += a.Of[bpf.AnswerLost]
	to.Failed += a.Of[bpf.AnswerFailed]
	return a.Of[bpf.AnswerFailed]
}

// addOutcomes sorts what was booked by kind and epoch.
func addOutcomes(to *conduct.Counts, outcomes map[bpf.Outcome]uint64, slot uint8) {
	type key struct {
		epoch      uint8
		step, prev int
	}
	kinds := map[bpf.OutcomeKind]map[key]*conduct.EpochEvents{}
	for o, n := range outcomes {
		kind := bpf.OutcomeKind(o.Kind)
		if kinds[kind] == nil {
			kinds[kind] = map[key]*conduct.EpochEvents{}
		}
		k := key{o.Epoch, int(o.Step), int(o.Prev)}
		e := kinds[kind][k]
		if e == nil {
			e = &conduct.EpochEvents{Epoch: o.Epoch, Step: k.step, Prev: k.prev}
			kinds[kind][k] = e
		}
		switch o.Version {
		case 0:
			e.Stable += n
		case slot:
			e.Version += n
		}
	}
	for _, e := range kinds[bpf.OutcomeError] {
		to.Errors = append(to.Errors, *e)
	}
	for _, e := range kinds[bpf.OutcomeSlow] {
		to.Slow = append(to.Slow, *e)
	}
	for _, e := range kinds[bpf.OutcomeSeen] {
		to.Arrivals = append(to.Arrivals, conduct.EpochArrivals{Epoch: e.Epoch, Version: e.Version, Stable: e.Stable})
	}
}
