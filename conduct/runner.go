package conduct

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/rollout"
)

const (
	// lookActive is the time between two looks at a release that runs, and
	// lookIdle at one that does not.
	lookActive = 100 * time.Millisecond
	lookIdle   = time.Second
	// looksInRow bounds how often a release is looked at again at once since
	// something was done.
	looksInRow = 32
)

// runner conducts one release: look, judge, step, carry out. Everything but its
// fields under mu belongs to its loop.
type runner struct {
	c     *Conductor
	name  string
	hooks *hooks
	wake  chan struct{}

	state   rollout.State
	ledger  *ledger
	sources *sources
	watch   Watch         // as the kernel has it
	watched int           // the run that it was set for
	trouble string        // what could not be done, as it was told last
	saved   time.Duration // CLOCK_BOOTTIME of the state that was saved last

	mu       sync.Mutex
	doc      *api.Release
	plan     rollout.Plan // by doc and the services it changes
	fault    error        // why there is no plan
	deleted  bool
	commands []rollout.Command
	replies  map[string]chan error
	serial   int
	reports  []report
	status   Status
	gone     bool // the loop has ended
}

// report is what somebody reported of a version.
type report struct{ stable, version analysis.Outcomes }

// Status is a release as it stands, for views.
type Status struct {
	Document    *api.Release
	State       rollout.State
	Kernel      rollout.Kernel
	Observation analysis.Observation
	Judgement   *analysis.Judgement // nil: it is not judged now
	Warming     bool
	Weight      rollout.Share // asked
	// Opened are the connections of stable and the version since the step began.
	Opened   [2]uint64
	Trouble  string // what could not be done
	Problems map[string]string
}

func (c *Conductor) newRunner(name string, state rollout.State) *runner {
	r := &runner{c: c, name: name, state: state, wake: make(chan struct{}, 1), replies: map[string]chan error{}}
	r.hooks = newHooks(c.ctx, c.o.Logger, r.poke)
	r.status.State = state
	return r
}

// poke makes the loop look now.
func (r *runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// loop looks until ctx ends or the release is forgotten.
func (r *runner) loop(ctx context.Context) {
	defer r.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		began := time.Now()
		for range looksInRow {
			again, forgotten := r.look()
			if forgotten {
				return
			}
			if !again || ctx.Err() != nil {
				break
			}
		}
		wait := lookIdle
		if r.state.Phase.Active() {
			// Looks must leave the processor to others.
			wait = max(lookActive, 10*time.Since(began))
		}
		timer.Reset(wait)
	}
}

func (r *runner) end() {
	if r.sources != nil {
		r.sources.close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for id, reply := range r.replies {
		reply <- fmt.Errorf("release %s: %w", r.name, errEnded)
		delete(r.replies, id)
	}
}

var errEnded = errors.New("the daemon ends, or the release was deleted: ask again")

// look goes round once. again: something was done, so look at once.
func (r *runner) look() (again, forgotten bool) {
	r.mu.Lock()
	plan, fault, deleted := r.plan, r.fault, r.deleted
	reports := r.reports
	r.reports = nil
	r.mu.Unlock()

	if fault != nil {
		r.tell(fault)
		return false, false
	}
	target := r.target(plan)
	o := rollout.Observations{Hooks: r.hooks.results(), Deleted: deleted}
	o.Kernel = r.c.o.Traffic.Look(target, r.state.Run)
	o.Commands = r.asked() // after the look: a rollback by hand moves traffic first
	o.Holder, o.Service = r.c.holder(r.name, plan.Services)
	o.Unfit = r.c.o.Traffic.Unfit(target)
	if slices.ContainsFunc(o.Commands, func(c rollout.Command) bool { return c.Verb == rollout.Undo }) {
		o.Gone = r.c.o.Traffic.Gone(target, r.state.Run)
	}
	judgement, observation, faults := r.judge(target, o.Kernel, reports)
	if judgement != nil {
		o.Judgment = judgmentOf(r.state, *judgement, observation)
	}
	next, actions := rollout.Step(plan, r.state, o, r.c.o.Now())
	return r.carryOut(next, actions, faults, func() { r.publish(next, o.Kernel, judgement, observation) })
}

func (r *runner) asked() []rollout.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.commands)
}

// carryOut executes the actions of a step, and makes its state the present one.
// The state is shown when traffic is where it says and the decision is in the
// history, and before anybody is answered.
func (r *runner) carryOut(next rollout.State, actions []rollout.Action, faults error, show func()) (again, forgotten bool) {
	before := r.state
	r.state = next
	err := rollout.Execute(actions, func(a rollout.Action) error {
		switch a.(type) {
		case rollout.Note, rollout.Book, rollout.Answer:
		case rollout.Forget:
			forgotten = true
		default:
			again = true
		}
		return r.do(a)
	}, func() error { r.save(before, actions); show(); return nil })
	r.hooks.forget(next)
	r.tell(errors.Join(faults, err))
	return (again || next.Phase != before.Phase) && err == nil, forgotten
}

// save takes note of the state when it says more than the time.
func (r *runner) save(before rollout.State, actions []rollout.Action) {
	var decisions []rollout.Decision
	for _, a := range actions {
		if b, ok := a.(rollout.Book); ok {
			decisions = append(decisions, b.Decision)
		}
	}
	if len(actions) > 0 || !sameButTime(before, r.state) || r.state.Last.Boot-r.saved >= time.Second {
		r.c.o.Store.Save(r.name, r.state, decisions...)
		r.saved = r.state.Last.Boot
	}
}

// sameButTime tells whether two states differ only in what time does.
func sameButTime(a, b rollout.State) bool {
	return a.Phase == b.Phase && a.Run == b.Run && a.Step == b.Step && a.Armed == b.Armed && a.Confirmed == b.Confirmed &&
		a.Base == b.Base && a.Target == b.Target && len(a.Outbox) == len(b.Outbox) && (a.Gate == nil) == (b.Gate == nil)
}

// target is what the release moves: by the plan of its run, or by its document.
func (r *runner) target(plan rollout.Plan) Target {
	if r.state.Phase.Active() || r.state.Phase == rollout.Succeeded {
		plan = r.state.Plan
	}
	return Target{Release: r.name, Services: plan.Services, Version: plan.Version}
}

// tell says what could not be done, once for each kind of trouble.
func (r *runner) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	r.status.Trouble = text
	r.mu.Unlock()
	if text != r.trouble && text != "" {
		r.c.o.Event(true, "release/"+r.name, "ReleaseFailing", text+"; it is tried again")
	}
	r.trouble = text
}

func (r *runner) publish(s rollout.State, k rollout.Kernel, j *analysis.Judgement, o analysis.Observation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &r.status
	st.Document, st.State, st.Kernel, st.Weight = r.doc, s, k, s.Weight()
	if j != nil || !s.Phase.Active() && !s.Phase.Final() {
		st.Judgement, st.Observation = j, o
	}
	st.Warming = r.ledger != nil && !r.ledger.warm && s.Phase.Active()
	st.Opened = [2]uint64{}
	if r.ledger != nil {
		st.Opened[0], st.Opened[1] = r.ledger.opened()
	}
	st.Problems = nil
	if r.sources != nil {
		for name, v := range r.sources.all() {
			if v.problem != "" {
				if st.Problems == nil {
					st.Problems = map[string]string{}
				}
				st.Problems[name] = v.problem
			}
		}
	}
}
