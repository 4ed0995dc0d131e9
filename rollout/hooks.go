package rollout

import (
	"fmt"
	"slices"
	"time"
)

// askAgain is how long a refusal stands before the hooks are asked anew.
const askAgain = 30 * time.Second

// maxOutbox bounds the hooks that wait to be told; the oldest are dropped.
const maxOutbox = 64

// gateHooks are those that the way up waits for.
func (m *machine) gateHooks() []Hook {
	var out []Hook
	for _, h := range m.s.Plan.Hooks {
		if slices.Contains(h.Before, m.s.Gate.Moment) {
			out = append(out, h)
		}
	}
	return out
}

// key names one call of one hook: the same over repeats and restarts.
func (m *machine) key(when string, at Moment, try int, h Hook) string {
	return fmt.Sprintf("%s/run-%d/%s-%s-%d/%s", m.s.Plan.Release, m.s.Run, when, at, try, h.Name)
}

// askGate looks at the answers. Silence is not consent, and a refusal is asked
// about again.
func (m *machine) askGate() {
	g := m.s.Gate
	if g.Refused != "" {
		if g.Waited += m.passed; g.Waited < askAgain {
			return
		}
		m.s.Tries++
		*g = Gate{Moment: g.Moment, Next: g.Next, Try: m.s.Tries}
	}
	m.s.Waiting = nil
	for _, h := range m.gateHooks() {
		r, ended := m.o.Hooks[m.key("before", g.Moment, g.Try, h)]
		switch {
		case !ended:
			m.s.Waiting = append(m.s.Waiting, "hook "+h.Name)
		case !r.OK:
			g.Refused = fmt.Sprintf("hook %s refused: %s", h.Name, orElse(r.Reason, "it gave no reason"))
			m.s.Waiting = []string{g.Refused}
			m.note(true, "HookRefused", "%s; it is asked again in %s", g.Refused, askAgain)
			return
		}
	}
	if len(m.s.Waiting) == 0 {
		m.pass()
	}
}

// tell puts the hooks that come after a moment into the outbox.
func (m *machine) tell(at Moment) {
	m.s.Tries++
	for _, h := range m.s.Plan.Hooks {
		if slices.Contains(h.After, at) {
			m.s.Outbox = append(m.s.Outbox, Call{Key: m.key("after", at, m.s.Tries, h), Hook: h, Moment: at})
		}
	}
	m.s.Outbox = m.s.Outbox[max(0, len(m.s.Outbox)-maxOutbox):]
}

// settleHooks takes those out of the outbox that were told, or given up.
func (m *machine) settleHooks() {
	m.s.Outbox = slices.DeleteFunc(m.s.Outbox, func(c Call) bool {
		r, ended := m.o.Hooks[c.Key]
		if ended && !r.OK {
			m.note(true, "HookFailed", "hook %s after %s: %s", c.Hook.Name, c.Moment, r.Reason)
		}
		return ended
	})
}

// callHooks asks for every hook that has not ended.
func (m *machine) callHooks() {
	if g := m.s.Gate; g != nil && g.Refused == "" {
		for _, h := range m.gateHooks() {
			key := m.key("before", g.Moment, g.Try, h)
			if _, ended := m.o.Hooks[key]; !ended {
				m.do(RunHook{Key: key, Hook: h, Moment: g.Moment, Before: true})
			}
		}
	}
	for _, c := range m.s.Outbox {
		m.do(RunHook{Key: c.Key, Hook: c.Hook, Moment: c.Moment})
	}
}
