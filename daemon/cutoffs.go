package daemon

import (
	"fmt"
	"slices"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// What becomes of open connections at a rollback, the mildest first.
var policies = []string{keep, drain, reset}

const (
	keep  = "keep"
	drain = "drain"
	reset = "reset"
)

// drainFor is how long connections may go on where a service says drain.
const drainFor = 30 * time.Second

// cutOff does to open connections what their services say, now that the words
// are zero, and returns what that is, by service. Services of one word share
// its connections' fate: the strictest of those that were named counts.
func (d *daemon) cutOff(status []steering.ServiceStatus, changes []steering.Change) map[string]string {
	docs := d.intent().services
	strictest := make(map[uint32]int)
	for _, c := range changes {
		s, ok := find(status, c.Service)
		if doc := docs[c.Service]; ok && doc != nil {
			policy := slices.Index(policies, doc.Spec.ConnectionsOnRollback)
			strictest[s.Word] = max(policy, strictest[s.Word])
		}
	}
	for word, policy := range strictest {
		switch policies[policy] {
		case reset:
			d.cutoffs.Begin(word, bpf.NonStable, 0)
		case drain:
			d.cutoffs.Begin(word, bpf.NonStable, drainFor)
		}
	}
	out := make(map[string]string, len(changes))
	for _, c := range changes {
		if s, ok := find(status, c.Service); ok {
			out[c.Service] = policies[strictest[s.Word]]
		}
	}
	return out
}

// followCutoffs ends the cutoffs that have nothing left to cut, so that packets
// are not looked at for nothing.
func (d *daemon) followCutoffs() error {
	words := d.cutoffs.InForce()
	if len(words) == 0 {
		return nil
	}
	status := d.rec.StatusOf(func(s *steering.ServiceStatus) bool { return slices.Contains(words, s.Word) })
	snap, err := d.read(metrics.Want(metrics.FromStatus(status)))
	if err != nil {
		return fmt.Errorf("look for connections that are cut off: %w", err)
	}
	for _, word := range words {
		cutoff := d.cutoffs.Load(word)
		if left(cutoff, word, status, snap) > 0 {
			continue
		}
		d.cutoffs.End(word)
		for _, s := range status {
			if s.Word == word && !s.Retired {
				d.events.normal("service/"+s.Name, "ConnectionsGone", goneText(cutoff))
			}
		}
	}
	return nil
}

// left counts the open connections of a word's versions that are cut off, with
// those that are younger.
func left(c bpf.Cutoff, word uint32, status []steering.ServiceStatus, snap metrics.Snapshot) (n uint64) {
	for _, s := range status {
		for _, v := range s.Versions {
			if s.Word != word || c.Versions>>v.Slot&1 == 0 {
				continue
			}
			for _, b := range v.Backends {
				n += metrics.Active(snap.Backends[b.ID])
			}
		}
	}
	return n
}

func goneText(c bpf.Cutoff) string {
	text := "no connection is left of those that were open at the rollback: " + plural(int(c.Resets), "reset")
	if c.Resteered > 0 {
		text += ", " + plural(int(c.Resteered), "UDP flow") + " given to stable"
	}
	if took := c.Took(); took > 0 {
		text += ", the last after " + took.Round(time.Microsecond).String()
	}
	return text
}

// connectionsText says what a rollback does to open connections.
func connectionsText(policy string) string {
	switch policy {
	case reset:
		return "open connections are reset"
	case drain:
		return fmt.Sprintf("open connections are reset in %s", drainFor)
	}
	return "open connections go on"
}
