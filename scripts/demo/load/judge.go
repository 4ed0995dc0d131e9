package main

import (
	"fmt"
	"math"
)

// canary is the name with which the canary's server answers, and that of its
// version.
const canary = "canary"

// Phase is a part of the demo between two changes, and what was seen in it.
type Phase struct {
	Name     string
	From, To int64    // monotonic, in ns: requests that began in [From, To)
	Asked    float64  // the canary's share of new connections, 0 to 1
	Kernel   *float64 // the share that the kernel gave it; nil: not measured
	Broken   bool     // the canary did not work in this phase

	Requests int
	Canary   int // answered by the canary
	Failed   int
	Clients  int // different addresses
}

// Seen returns the share of answers that came from the canary.
func (p *Phase) Seen() float64 {
	return float64(p.Canary) / math.Max(1, float64(p.Requests-p.Failed))
}

// count sorts the requests into the phases.
func count(phases []Phase, requests []Request) {
	for i := range phases {
		p := &phases[i]
		clients := make(map[int]bool)
		for _, r := range requests {
			if r.Start < p.From || r.Start >= p.To {
				continue
			}
			p.Requests++
			clients[r.Client] = true
			switch {
			case r.Err != "":
				p.Failed++
			case r.Server == canary:
				p.Canary++
			}
		}
		p.Clients = len(clients)
	}
}

// sigmas is how far a share may be off: it is the clients that are drawn, one
// by one, and chance goes beyond this once in 150,000 times.
const sigmas = 4.5

// problems says what in a phase is not as it must be.
func (p *Phase) problems() (out []string) {
	say := func(format string, args ...any) {
		out = append(out, p.Name+": "+fmt.Sprintf(format, args...))
	}
	if p.Requests == 0 {
		say("no request was made")
		return out
	}
	if p.Broken {
		if p.Failed == 0 {
			say("no request failed although the canary was broken")
		}
		return out
	}
	if p.Failed > 0 {
		say("%d of %d requests failed", p.Failed, p.Requests)
	}
	off := sigmas * math.Sqrt(p.Asked*(1-p.Asked)/float64(p.Clients))
	if seen := p.Seen(); math.Abs(seen-p.Asked) > off {
		say("the canary answered %.2f %%, which is not within %.2f %% of the %.2f %% asked for",
			100*seen, 100*off, 100*p.Asked)
	}
	if p.Kernel != nil && math.Abs(*p.Kernel-p.Asked) > off {
		say("the kernel gave the canary %.2f %%, which is not within %.2f %% of the %.2f %% asked for",
			100**p.Kernel, 100*off, 100*p.Asked)
	}
	return out
}

// Flip is the rollback's store of the weight word, and the last connection
// that was given to the canary. All are monotonic, in ns.
type Flip struct {
	Requested            int64 // the daemon began to read the command
	StoreBegan, StoreEnd int64
	LastCanary           int64 // 0: none, ever
}

// problems says what in the flip is not as it must be.
func (f Flip) problems() []string {
	switch {
	case f.LastCanary == 0:
		return []string{"the kernel says that it never chose the canary"}
	case f.LastCanary > f.StoreEnd:
		return []string{fmt.Sprintf("the kernel chose the canary %v after the store", span(f.StoreEnd, f.LastCanary))}
	}
	return nil
}

// String says when the last connection was given to the canary.
func (f Flip) String() string {
	switch {
	case f.LastCanary > f.StoreEnd:
		return fmt.Sprintf("%v after the store", span(f.StoreEnd, f.LastCanary))
	case f.LastCanary >= f.StoreBegan:
		return "during the store"
	}
	return fmt.Sprintf("%v before the store", span(f.LastCanary, f.StoreBegan))
}
