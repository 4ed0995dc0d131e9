package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"siskin.dev/siskin/analysis"
)

// kernel is the traffic side: what the maps would hold.
type kernel struct {
	share    Share
	epoch    uint8
	latched  Latch
	held     bool
	leased   bool
	promoted int // the run whose promotion is on record; on disk, not in memory
	tables   int // the one whose is in force
}

// effective is the share that new connections get.
func (k kernel) effective(failSafe bool) Share {
	if k.latched == BreakerTripped || k.latched == LeaseEnded && failSafe || failSafe && !k.leased {
		return 0
	}
	return k.share
}

func (k *kernel) store(s Share) { k.share = s; k.epoch++ }

// world is an executor with its kernel, disk and clock, all of which can fail.
type world struct {
	fail     func(format string, args ...any)
	plan     Plan
	mem      State // the executor's
	disk     State
	full     bool // the disk takes nothing
	kernel   kernel
	broken   bool // no table can be changed
	stuck    bool // no weight can be stored
	unknown  bool // the maps cannot be read
	armed    int  // in the executor's memory, like cut
	cut      int
	now      Time
	judge    *Judgment
	commands []Command // unanswered
	answers  map[string]error
	hooks    map[string]HookResult
	hookOK   func(RunHook) *HookResult // nil: it hangs
	deleted  bool
	unfit    string
	gone     string
	holder   string

	kill      int // operations until the executor dies; below zero: never
	killed    bool
	home      bool // decided: nothing may go to the version until another run
	allNew    bool // promotion has given the version everything
	forgot    bool
	succeeded int // the last run that did
	booked    []Decision
	notes     []Note
	actions   []Action // of the last look
}

func newWorld(fail func(string, ...any), plan Plan) *world {
	return &world{fail: fail, plan: plan, kill: -1, answers: map[string]error{}, hooks: map[string]HookResult{},
		now:    Time{BootID: "one", Boot: time.Hour, Wall: time.Unix(1_800_000_000, 0).UTC()},
		hookOK: func(RunHook) *HookResult { return &HookResult{OK: true} }}
}

func examplePlan() Plan {
	return Plan{Release: "checkout-v2", Services: []string{"checkout"}, Version: "canary", FailSafe: true, Lease: 10 * time.Second,
		Target: "10.1.0.4:8080", Judge: `{"falseAlarm":"1%"}`, Cut: Cut{Connections: "reset"},
		Steps: []Hold{{Weight: 100, For: 30 * time.Second}, {Weight: 500, For: 2 * time.Minute}, {Pause: true}, {Weight: 5000, For: time.Minute}}}
}

func (w *world) observe() Observations {
	if !w.broken && w.kernel.tables != w.kernel.promoted { // the daemon's loop tries by itself
		w.kernel.tables = w.kernel.promoted
		w.check("reconciling")
	}
	k := w.kernel
	out := Observations{Commands: slices.Clone(w.commands), Hooks: maps.Clone(w.hooks), Deleted: w.deleted, Unfit: w.unfit, Gone: w.gone}
	if w.holder != "" {
		out.Holder, out.Service = w.holder, w.plan.Services[0]
	}
	out.Kernel = Kernel{Known: !w.unknown}
	if !w.unknown {
		out.Kernel = Kernel{Known: true, Share: k.share, Epoch: k.epoch, Latched: k.latched, Held: k.held, Armed: w.armed, Leased: k.leased,
			Cut: w.cut == w.mem.Run, Retargeted: k.promoted == w.mem.Run && k.promoted != 0,
			LastRun: k.promoted, Settled: !w.broken}
	}
	if w.judge != nil {
		j := *w.judge
		j.Run, j.Step = w.mem.Run, w.mem.Step
		out.Judgment = &j
	}
	return out
}

var errRefused = errors.New("refused by the kernel")

// do is what the daemon does for an action.
func (w *world) do(a Action) error {
	k := &w.kernel
	switch a := a.(type) {
	case Arm:
		if k.share != 0 {
			w.fail("armed while the word is %s", k.share)
		}
		if k.held {
			w.fail("armed while the kernel watches another run")
		}
		k.latched, k.held, k.leased, w.armed = Unlatched, true, a.Lease > 0, a.Run
	case SetWeight:
		if w.stuck {
			return errRefused
		}
		if a.From != k.epoch || !k.held || k.latched != Unlatched {
			return errRefused
		}
		if a.Share > w.mem.Weight() {
			w.fail("%s, and the state says %s (%s)", a, w.mem.Weight(), w.mem.Phase)
		}
		k.store(a.Share)
	case Rollback:
		k.store(0)
		w.cut = w.mem.Run
		w.allNew = false
		// Before it was armed, there was nothing to take back.
		w.home = w.home || w.mem.Armed && k.promoted != w.mem.Run && k.tables != w.mem.Run
	case RetargetStable:
		if !a.Back && k.share != Whole {
			w.fail("stable was retargeted while the version has %s", k.share)
		}
		if w.full {
			return errRefused // it cannot be written down
		}
		k.promoted = w.mem.Run
		if a.Back {
			k.promoted = 0
		}
		if w.broken {
			return errRefused
		}
		k.tables = k.promoted
		w.home = w.home || a.Back
	case Zero:
		k.store(0)
	case End:
		if k.share != 0 {
			w.fail("ended at %s", k.share)
		}
		k.held, k.leased, k.latched, w.armed = false, false, Unlatched, 0
	}
	w.check(a)
	return nil
}

// check is what must hold after every change of the kernel.
func (w *world) check(after any) {
	k := w.kernel
	share := k.effective(w.mem.Plan.FailSafe)
	newVersion := k.tables == w.mem.Run && k.tables != 0
	if w.home && (share != 0 || newVersion) {
		w.fail("after %v: %s at the version, promoted %v, though it was taken back", after, share, newVersion)
	}
	if w.mem.Phase == Promoting && share == Whole {
		w.allNew = true
	}
	if w.allNew && share != Whole && !newVersion {
		w.fail("after %v: the promotion shows: %s at the version", after, share)
	}
}

// look is one round of the executor. It tells whether anything was done.
func (w *world) look() bool {
	o := w.observe()
	next, actions := Step(w.plan, w.mem, o, w.now)
	w.pure(o, next, actions)
	w.actions = actions
	w.killed = false
	dies := func() bool {
		if w.kill--; w.kill == -1 {
			w.killed = true
		}
		return w.killed
	}
	moved := false
	err := Execute(actions, func(a Action) error {
		if w.killed || dies() {
			return errRefused
		}
		if a.traffic() {
			moved = true
			return w.do(a)
		}
		w.tell(a)
		return nil
	}, func() error {
		if w.killed || dies() {
			return errRefused
		}
		w.entered(w.mem, next)
		if !w.full {
			w.disk = next
		}
		changed := next.Phase != w.mem.Phase || next.Step != w.mem.Step || next.Armed != w.mem.Armed || next.Confirmed != w.mem.Confirmed ||
			next.Base != w.mem.Base
		moved = moved || changed
		w.mem = next
		return nil
	})
	if w.killed {
		w.restart()
		return true
	}
	if err != nil && !errors.Is(err, errRefused) {
		w.fail("%v", err)
	}
	return moved
}

// restart is a new process: what was in memory only is gone. People whose
// commands were not answered ask again.
func (w *world) restart() {
	if w.mem.Run != w.disk.Run { // a run that no disk has heard of
		w.home, w.allNew = false, false
	}
	// A promotion that no disk has heard of is taken back to the step that was
	// saved.
	w.allNew = w.allNew && w.disk.Phase == Promoting
	w.mem, w.armed, w.cut, w.hooks = w.disk, 0, 0, map[string]HookResult{}
}

// entered checks the states that are reached.
func (w *world) entered(from, to State) {
	if to.Run > from.Run {
		w.home, w.allNew = false, false
	}
	if to.Phase == RollingBack || to.Phase.Final() {
		w.allNew = false
	}
	if to.Phase == Succeeded {
		w.succeeded = to.Run
	}
	if from.Phase == to.Phase || !to.Phase.Final() {
		return
	}
	share := w.kernel.effective(to.Plan.FailSafe)
	promoted := w.kernel.promoted == to.Run && to.Run != 0
	turned := w.kernel.tables == to.Run && to.Run != 0
	if from.Phase.Active() && (share != 0 || promoted != (to.Phase == Succeeded) || turned != promoted) {
		w.fail("%s with %s at the version, promoted %v, and in the tables %v", to.Phase, share, promoted, turned)
	}
}

// pure checks that Step depends on its arguments alone, that the state is the
// same after a trip through JSON, and that nothing was changed in place.
func (w *world) pure(o Observations, next State, actions []Action) {
	raw, err := json.Marshal(w.mem)
	var read State
	if err == nil {
		err = json.Unmarshal(raw, &read)
	}
	if err != nil {
		w.fail("the state is not JSON: %v", err)
	}
	again, same := Step(w.plan, read, o, w.now)
	a, _ := json.Marshal(next)
	b, _ := json.Marshal(again)
	if string(a) != string(b) || fmt.Sprint(actions) != fmt.Sprint(same) {
		w.fail("another result after a trip through JSON:\n%s\n%s\n%v\n%v", a, b, actions, same)
	}
	if after, _ := json.Marshal(w.mem); string(after) != string(raw) {
		w.fail("Step changed its argument:\n%s\n%s", raw, after)
	}
}

func (w *world) tell(a Action) {
	switch a := a.(type) {
	case RunHook:
		if r := w.hookOK(a); r != nil {
			w.hooks[a.Key] = *r
		}
	case Answer:
		w.answers[a.ID] = a.Err
		w.commands = slices.DeleteFunc(w.commands, func(c Command) bool { return c.ID == a.ID })
	case Note:
		w.notes = append(w.notes, a)
	case Book:
		if _, err := json.Marshal(a.Decision); err != nil {
			w.fail("a decision is not JSON: %v", err)
		}
		w.booked = append(w.booked, a.Decision)
	case Forget:
		w.forgot = true
	}
}

// ask gives a command; its answer comes with a look.
func (w *world) ask(v Verb) string {
	id := fmt.Sprint(v, len(w.answers), len(w.commands))
	w.commands = append(w.commands, Command{ID: id, Verb: v, By: "uid 0"})
	return id
}

// tick lets time pass; the clock of the day goes its own way.
func (w *world) tick(d time.Duration) {
	w.now.Boot += d
	w.now.Wall = w.now.Wall.Add(d)
}

// settle looks until nothing is left to be done.
func (w *world) settle() {
	for range 60 {
		if !w.look() {
			return
		}
	}
	w.fail("does not come to rest: %s, step %d, %+v, last %v", w.mem.Phase, w.mem.Step, w.kernel, w.actions)
}

// watch looks for so long, once a second.
func (w *world) watch(d time.Duration) {
	for range int(d / time.Second) {
		w.tick(time.Second)
		w.settle()
	}
}

// command gives one and settles.
func (w *world) command(v Verb) error {
	id := w.ask(v)
	w.settle()
	return w.answers[id]
}

func (w *world) passes() { w.judge = &Judgment{Verdict: analysis.Pass, Reason: "as good as stable"} }

func (w *world) fails() {
	w.judge = &Judgment{Verdict: analysis.Fail, Reason: "12 of 240 requests failed, stable 3 of 4,800", Evidence: 320,
		Findings: []analysis.Finding{{Check: "worse-than-stable", Verdict: analysis.Fail, Reason: "E = 320", Evidence: 320}}}
}
