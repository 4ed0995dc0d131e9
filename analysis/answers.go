package analysis

import "fmt"

// Answers are a version's, by how it is known whether they were failures.
type Answers struct {
	// Read had a status that was read: HTTP, gRPC.
	Read uint64
	// Lost came on connections that speak HTTP, or are said to, and could not be
	// read.
	Lost uint64
	// Other came on connections that speak something else: only a connection
	// that fails is a failure there.
	Other uint64
}

// unread is the share of answers whose status should be known and is not.
func (a Answers) unread() float64 {
	if a.Lost == 0 {
		return 0
	}
	return float64(a.Lost) / float64(a.Lost+a.Read)
}

// reading is the finding on how the requests were counted, none where that is
// not known, and the reason to wait when too little is.
func (j *judge) reading() (Finding, string) {
	canary, stable := j.CanaryAnswers, j.StableAnswers
	all := canary.Read + canary.Lost + canary.Other
	if all == 0 {
		return Finding{}, ""
	}
	f := Finding{Check: "reading", Verdict: Pass, MayHide: -1}
	switch {
	case canary.Read+canary.Lost == 0:
		f.Reason = fmt.Sprintf("%s canary answers are judged by their connections: they are no HTTP", thousands(all))
	case canary.Other > 0:
		f.Reason = fmt.Sprintf("the status of %s of %s canary answers was read, %s are judged by their connections",
			thousands(canary.Read), thousands(all), thousands(canary.Other))
	default:
		f.Reason = fmt.Sprintf("the status of %s of %s canary answers was read", thousands(canary.Read), thousands(all))
	}
	who, unread := "the canary", canary.unread()
	if u := stable.unread(); u > unread {
		who, unread = "stable", u
	}
	if unread <= j.MaxUnread {
		return f, ""
	}
	f.Verdict = Inconclusive
	f.Reason += fmt.Sprintf("; %s of %s's are lost, more than maxUnparsed %s: errors may be among them",
		percent(unread), who, percent(j.MaxUnread))
	return f, f.String()
}
