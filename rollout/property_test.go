package rollout

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"siskin.dev/siskin/analysis"
)

// TestWhateverHappens plays releases against a world in which anything may
// happen at any time. world checks after every change of the kernel: never more
// than what was saved, nothing at the version once it was taken back, and no
// moment of a promotion at which the version has less than everything.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := examplePlan()
		plan.FailSafe = rapid.Bool().Draw(t, "failSafe")
		plan.AutoStart = rapid.Bool().Draw(t, "autoStart")
		if rapid.Bool().Draw(t, "hooks") {
			plan.Hooks = []Hook{{Name: "gate", Before: []Moment{AtStart, AtStep, AtPromote}, After: []Moment{AtRollback}}}
		}
		w := newWorld(t.Fatalf, plan)
		w.passes()
		t.Repeat(happenings(w))
		w.heal()
		w.settle()
		if w.mem.Phase == RollingBack {
			t.Fatalf("still on the way back: %+v", w.kernel)
		}
		w.ask(Abort)
		w.settle()
		if !w.mem.Phase.Final() {
			t.Fatalf("%s after an abort", w.mem.Phase)
		}
		if w.mem.Phase != Succeeded && w.mem.Run > 0 && (w.kernel.effective(plan.FailSafe) != 0 || w.kernel.promoted == w.mem.Run && w.succeeded != w.mem.Run) {
			t.Fatalf("%s with %+v", w.mem.Phase, w.kernel)
		}
	})
}

// heal ends what is wrong with the world, but for the version itself.
func (w *world) heal() {
	w.broken = false
	w.kill, w.full, w.unknown, w.deleted, w.unfit, w.gone, w.holder = -1, false, false, false, "", "", ""
	w.plan.AutoStart = false
	w.hookOK = func(RunHook) *HookResult { return &HookResult{OK: true} }
}

// elsewhere tells whether stable leads to the old backends, and will.
func (w *world) elsewhere() bool {
	return w.kernel.promoted != w.mem.Run && w.kernel.tables != w.mem.Run
}

func happenings(w *world) map[string]func(*rapid.T) {
	look := func(t *rapid.T) {
		w.tick(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
		w.look()
	}
	return map[string]func(*rapid.T){
		"look":       look,
		"look again": look,
		"settle": func(*rapid.T) {
			if !w.full && !w.unknown { // those may refuse for ever
				w.kill = -1
				w.settle()
			}
		},
		"hold": func(t *rapid.T) {
			for range 8 {
				look(t)
			}
		},
		"die": func(t *rapid.T) {
			w.kill = rapid.IntRange(0, 6).Draw(t, "after")
			w.look()
			w.kill = -1
		},
		"command": func(t *rapid.T) { w.ask(rapid.SampledFrom(Verbs()).Draw(t, "verb")) },
		"judge": func(t *rapid.T) {
			v := rapid.SampledFrom([]analysis.Verdict{analysis.Pass, analysis.Pass, analysis.Pass, analysis.Inconclusive, analysis.NoData, analysis.Fail}).Draw(t, "verdict")
			w.judge = &Judgment{Verdict: v, Reason: v.String()}
		},
		"nobody judges": func(*rapid.T) { w.judge = nil },
		"breaker": func(*rapid.T) {
			if w.kernel.effective(w.mem.Plan.FailSafe) > 0 {
				w.kernel.latched, w.home, w.allNew = BreakerTripped, w.elsewhere(), false
			}
		},
		"lease ends": func(*rapid.T) {
			if w.kernel.leased {
				had := w.kernel.effective(true) > 0
				w.kernel.latched, w.kernel.leased, w.allNew = LeaseEnded, false, w.allNew && w.kernel.promoted == w.mem.Run
				w.home = w.home || had && w.elsewhere()
			}
		},
		"rolled back by hand": func(*rapid.T) {
			if w.kernel.share > 0 {
				w.kernel.store(0)
				w.home, w.allNew = w.elsewhere(), w.allNew && w.kernel.promoted == w.mem.Run
			}
		},
		"disk":    func(t *rapid.T) { w.full = rapid.Bool().Draw(t, "full") },
		"tables":  func(t *rapid.T) { w.broken = rapid.Bool().Draw(t, "broken") },
		"maps":    func(t *rapid.T) { w.unknown = rapid.Bool().Draw(t, "unreadable") },
		"delete":  func(t *rapid.T) { w.deleted = rapid.Bool().Draw(t, "deleted") },
		"health":  func(t *rapid.T) { w.unfit = rapid.SampledFrom([]string{"", "", "no healthy backend"}).Draw(t, "unfit") },
		"old":     func(t *rapid.T) { w.gone = rapid.SampledFrom([]string{"", "removed"}).Draw(t, "gone") },
		"another": func(t *rapid.T) { w.holder = rapid.SampledFrom([]string{"", "other"}).Draw(t, "holder") },
		"hooks": func(t *rapid.T) {
			r := rapid.SampledFrom([]*HookResult{nil, {OK: true}, {Reason: "no"}}).Draw(t, "answer")
			w.hookOK = func(RunHook) *HookResult { return r }
		},
		"edit": func(t *rapid.T) {
			w.plan.Cut = Cut{Connections: rapid.SampledFrom([]string{"", "keep", "drain", "reset"}).Draw(t, "connections")}
			w.plan.Target = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "target")
			w.plan.Steps = []Hold{{Weight: Share(rapid.IntRange(1, 10000).Draw(t, "weight")), For: time.Minute}}
		},
		"clock": func(t *rapid.T) {
			w.now.Wall = w.now.Wall.Add(time.Duration(rapid.IntRange(-10, 10).Draw(t, "hours")) * time.Hour)
		},
		"reboot": func(*rapid.T) {
			w.kernel = kernel{promoted: w.kernel.promoted, tables: w.kernel.promoted}
			w.now.BootID += "+"
			w.now.Boot = time.Second
			w.allNew = w.allNew && w.kernel.promoted == w.mem.Run
			w.restart()
			// Where neither the kernel nor the disk remembers a rollback, nobody does.
			w.home = w.home && !w.full && w.disk.Base.Share > 0
			w.full, w.unknown = false, false
			w.look()
		},
	}
}
