package main

import (
	"fmt"
	"math"
	"time"
)

// Phase is a part of the demo between two changes, and what was seen in it.
type Phase struct {
	Name     string
	From, To int64   // monotonic, in ns: requests that began in [From, To)
	Server   string  // the version's, by the name in its answers
	Asked    float64 // its share of new connections, 0 to 1
	Broken   bool    // it fails some of its clients

	Requests int
	Answered int // by the version
	Failed   int
	Clients  int // different addresses
}

// margin is left out at both ends of a phase: what began there may have been
// given to a server before or after the change.
const margin = int64(500 * time.Millisecond)

// Seen returns the share of answers that came from the version.
func (p *Phase) Seen() float64 {
	return float64(p.Answered) / math.Max(1, float64(p.Requests-p.Failed))
}

// count sorts the requests into the phases.
func count(phases []Phase, requests []Request) {
	for i := range phases {
		p := &phases[i]
		clients := make(map[int]bool)
		for _, r := range requests {
			if r.Start < p.From+margin || r.Start >= p.To-margin {
				continue
			}
			p.Requests++
			clients[r.Client] = true
			switch {
			case r.Err != "":
				p.Failed++
			case r.Server == p.Server:
				p.Answered++
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
	if p.Broken {
		return nil // it may be over before much was asked
	}
	if p.Requests == 0 {
		say("no request was made")
		return out
	}
	if p.Failed > 0 {
		say("%d of %d requests failed", p.Failed, p.Requests)
	}
	off := sigmas * math.Sqrt(p.Asked*(1-p.Asked)/float64(p.Clients))
	if seen := p.Seen(); math.Abs(seen-p.Asked) > off {
		say("%s answered %.2f %%, which is not within %.2f %% of the %.2f %% asked for",
			p.Server, 100*seen, 100*off, 100*p.Asked)
	}
	return out
}

// Return is how a release went back. All are monotonic, in ns.
type Return struct {
	FirstFailed int64 // a request of the version's; 0: none
	Failed      int   // requests that failed, ever
	Strays      int   // those of them that another version must have failed
	Decided     int64
	LastCanary  int64 // a connection was given to the version; 0: never
}

// lately is how long the version may have been chosen after the decision, on a
// machine that has much else to do.
const lately = time.Second

// failures finds those of the version that was decided about, which had its
// connections from began on.
func (r *Return) failures(requests []Request, began int64) {
	for _, q := range requests {
		if q.Err == "" {
			continue
		}
		r.Failed++
		if q.Start < began-margin || q.Start > r.Decided+margin {
			r.Strays++
		} else if r.FirstFailed == 0 || q.Start < r.FirstFailed {
			r.FirstFailed = q.Start
		}
	}
}

// problems says what in the way back is not as it must be.
func (r *Return) problems() (out []string) {
	if r.FirstFailed == 0 {
		out = append(out, "no request failed although the version was broken")
	}
	if r.Strays > 0 {
		out = append(out, fmt.Sprintf("%d requests failed that the broken version cannot have had", r.Strays))
	}
	switch {
	case r.LastCanary == 0:
		out = append(out, "the kernel says that it never chose the broken version")
	case r.LastCanary > r.Decided+int64(lately):
		out = append(out, fmt.Sprintf("the kernel chose the broken version %v after the decision", span(r.Decided, r.LastCanary)))
	}
	return out
}

// String tells it in three numbers.
func (r *Return) String() string {
	last := fmt.Sprintf("%v after", span(r.Decided, r.LastCanary))
	if r.LastCanary <= r.Decided {
		last = fmt.Sprintf("%v before", span(r.LastCanary, r.Decided))
	}
	return fmt.Sprintf("The way back: decided %v after the first request that failed; %d failed in all.\n"+
		"The kernel gave its last connection to the broken version %s the decision.",
		span(r.FirstFailed, r.Decided), r.Failed, last)
}
