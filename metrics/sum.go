package metrics

import "siskin.dev/siskin/bpf"

func sumCounts(cpus []uint64) uint64 {
	var total uint64
	for _, n := range cpus {
		total += n
	}
	return total
}

// sumTallies adds the CPUs' tallies; of the times it keeps the latest.
func sumTallies(cpus []bpf.Tally) bpf.Tally {
	var t bpf.Tally
	for i := range cpus {
		addTally(&t, &cpus[i])
	}
	return t
}

func addTally(t, c *bpf.Tally) {
	t.Opened += c.Opened
	t.Closed += c.Closed
	t.Forgotten += c.Forgotten
	t.Established += c.Established
	for way := range t.Packets {
		t.Packets[way] += c.Packets[way]
		t.Bytes[way] += c.Bytes[way]
		t.Retransmits[way] += c.Retransmits[way]
	}
	t.Refused += c.Refused
	t.Timeout += c.Timeout
	t.Reset += c.Reset
	t.Unreachable += c.Unreachable
	t.Tls += c.Tls
	t.SelectedNs = max(t.SelectedNs, c.SelectedNs)
}

func sumAnswers(cpus []bpf.Answers) bpf.Answers {
	var a bpf.Answers
	for i := range cpus {
		addAnswers(&a, &cpus[i])
	}
	return a
}

func addAnswers(a, c *bpf.Answers) {
	for how, n := range c.Of {
		a.Of[how] += n
	}
}

func sumPortTries(cpus []bpf.PortTries) bpf.PortTries {
	var t bpf.PortTries
	for i := range cpus {
		for b, n := range cpus[i].Found {
			t.Found[b] += n
		}
		t.Exhausted += cpus[i].Exhausted
		t.Sum += cpus[i].Sum
	}
	return t
}

func sumLatencies(cpus []bpf.Latency) bpf.Latency {
	var l bpf.Latency
	for i := range cpus {
		addHistogram(&l.Connect, &cpus[i].Connect)
		addHistogram(&l.Response, &cpus[i].Response)
	}
	return l
}

func addHistogram(h, c *bpf.Histogram) {
	for i, n := range c.Bucket {
		h.Bucket[i] += n
	}
	h.SumNs += c.SumNs
}
