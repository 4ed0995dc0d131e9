package conduct

import (
	"errors"
	"fmt"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/rollout"
)

// judge reads the counters of a release that runs and asks the judge; nil where
// there is nothing to judge. What fails is told, and holds the release where it
// is: no data is never a pass.
func (r *runner) judge(t Target, k rollout.Kernel, reports []report) (*analysis.Judgement, analysis.Observation, error) {
	s := r.state
	if s.Phase != rollout.Progressing && s.Phase != rollout.Paused && s.Phase != rollout.Promoting {
		r.rest()
		return nil, analysis.Observation{}, nil
	}
	if err := r.prepare(s); err != nil {
		return nil, analysis.Observation{}, err
	}
	if !s.Armed || s.Step < 0 || s.Phase == rollout.Promoting {
		return nil, analysis.Observation{}, nil
	}
	r.ledger.saw(k)
	counts, err := r.c.o.Traffic.Counts(t)
	if err != nil {
		return nil, analysis.Observation{}, fmt.Errorf("read the counters: %w", err)
	}
	r.ledger.read(counts, s.Step, k.Share)
	for _, rep := range reports {
		r.ledger.report(rep.stable, rep.version)
	}
	fault := r.watchFor(t, s)
	o := r.ledger.observe(r.sources.all())
	if !r.ledger.warm {
		return &analysis.Judgement{
			Verdict: analysis.NoData, Reason: fmt.Sprintf("the backends of %s warm up for %s", t.Version, time.Duration(r.ledger.judged.Warmup)),
			MayHide: 1, Waiting: []string{"the warm-up"},
		}, o, fault
	}
	j := analysis.Judge(o, r.ledger.judged.rules(nextWeight(s)))
	return &j, o, fault
}

// prepare makes ledger and sources those of the run.
func (r *runner) prepare(s rollout.State) error {
	if r.ledger != nil && r.ledger.run == s.Run {
		return nil
	}
	r.rest()
	j, err := judgedBy(s.Plan)
	if err != nil {
		return err
	}
	r.ledger, r.sources = newLedger(s.Run, j), askSources(r.c.ctx, j.Checks)
	if s.Confirmed || s.Step > 0 {
		r.ledger.began = 1 // the daemon was restarted in the midst of the run
	}
	return nil
}

// rest ends what is only there while a release runs.
func (r *runner) rest() {
	if r.sources != nil {
		r.sources.close()
	}
	r.ledger, r.sources = nil, nil
}

// watchFor tells the kernel what to watch for, where that has changed.
func (r *runner) watchFor(t Target, s rollout.State) error {
	w := r.ledger.watch(s.Plan.Cut)
	if w == r.watch && r.watched == s.Run {
		return nil
	}
	if err := r.c.o.Traffic.Watch(t, w); err != nil {
		return fmt.Errorf("tell the kernel what to watch for: %w", err)
	}
	r.watch, r.watched = w, s.Run
	return nil
}

// nextWeight is what the version gets after the present step.
func nextWeight(s rollout.State) rollout.Share {
	for _, h := range s.Plan.Steps[min(s.Step+1, len(s.Plan.Steps)):] {
		if h.Weight > 0 {
			return h.Weight
		}
	}
	return rollout.Whole
}

func judgmentOf(s rollout.State, j analysis.Judgement, o analysis.Observation) *rollout.Judgment {
	return &rollout.Judgment{
		Run: s.Run, Step: s.Step, Verdict: j.Verdict, Reason: j.Reason, Waiting: j.Waiting, Findings: j.Findings,
		Evidence: j.Evidence, MayHide: j.MayHide,
		Counts: []rollout.Count{
			{Version: "stable", Requests: o.Stable.Requests, Errors: o.Stable.Bad, Clients: o.Stable.Clients},
			{Version: s.Plan.Version, Requests: o.Canary.Requests, Errors: o.Canary.Bad, Clients: o.Canary.Clients},
		},
	}
}

// breakerRetry is how long a tripped breaker waits before it tries the version
// again, where no lease says that somebody is there to roll back.
const breakerRetry = 30 * time.Second

func termsOf(a rollout.Arm, j judged) Terms {
	t := Terms{Lease: a.Lease, ByConnection: j.Unit == "connection", Failures: j.Failures}
	if a.Lease == 0 {
		t.Retry = breakerRetry
	}
	return t
}

// do carries one action out.
func (r *runner) do(a rollout.Action) error {
	t := r.target(r.state.Plan)
	traffic := r.c.o.Traffic
	switch a := a.(type) {
	case rollout.Arm:
		r.rest() // what was counted before counts no more
		j, err := judgedBy(r.state.Plan)
		if err != nil {
			return err
		}
		l := newLedger(a.Run, j)
		r.watch, r.watched = l.watch(r.state.Plan.Cut), a.Run
		if err := traffic.Arm(t, a.Run, r.watch, termsOf(a, j)); err != nil {
			return err
		}
		r.c.leases.keep(t, a.Lease)
	case rollout.SetWeight:
		if err := r.prepare(r.state); err != nil {
			return err
		}
		// What is booked from the first moment on belongs to this step.
		r.ledger.enter(a.Step)
		r.ledger.weights[a.From+1] = a.Share
		r.watch.Step = r.ledger.kernelStep()
		if err := traffic.SetWeight(t, r.watch.Step, a.Share, a.From); err != nil {
			return err
		}
		r.sources.renew()
	case rollout.Rollback:
		err := traffic.Rollback(t, r.state.Run, a.Cut)
		r.c.leases.keep(t, 0)
		return err
	case rollout.RetargetStable:
		return traffic.Retarget(t, r.state.Run, a.Back)
	case rollout.Zero:
		return traffic.Zero(t)
	case rollout.End:
		r.c.leases.keep(t, 0)
		return traffic.End(t)
	case rollout.RunHook:
		return r.hooks.run(a, hookMessage{
			Key: a.Key, Release: r.name, Version: t.Version, Moment: a.Moment, Before: a.Before,
			Phase: r.state.Phase, Weight: r.state.Weight(), Reason: r.state.Reason,
		})
	case rollout.Answer:
		r.answer(a)
	case rollout.Note:
		r.c.o.Event(a.Warn, "release/"+r.name, a.Reason, a.Message)
	case rollout.Book:
		r.c.o.Booked(a.Decision, r.name)
	case rollout.Forget:
		r.c.o.Store.Forget(r.name)
		r.c.o.Forgotten(r.name)
	default:
		return errors.New("no such action")
	}
	return nil
}

func (r *runner) answer(a rollout.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reply, ok := r.replies[a.ID]; ok {
		reply <- a.Err
		delete(r.replies, a.ID)
	}
	for i, c := range r.commands {
		if c.ID == a.ID {
			r.commands = append(r.commands[:i:i], r.commands[i+1:]...)
			break
		}
	}
}
