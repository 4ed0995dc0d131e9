package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// Control is what the control part reports, for one number of services.
type Control struct {
	Services int `json:"services"`
	// Changes are weight changes by clients that do nothing else.
	Changes []Changes `json:"changes"`
	// Store is the 64-bit store inside the daemon, and Rollback from when the
	// daemon got the request for one to its store, as it also tells by
	// siskin_rollback_duration_seconds.
	Store    Latency `json:"store"`
	Rollback Latency `json:"rollback"`
	Call     Latency `json:"rollbackCall"` // the API call around it
	All      Latency `json:"rollbackAll"`  // of all services, to the last store
	AllCall  Latency `json:"rollbackAllCall"`
	Refused  string  `json:"refused,omitempty"` // why there is no rollback of all
}

// Changes are those that a number of clients made.
type Changes struct {
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"perSecond"`
	Latency
}

// Latency is in microseconds.
type Latency struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func latency(values []float64) Latency {
	if len(values) == 0 {
		return Latency{}
	}
	s := slices.Sorted(slices.Values(values))
	return Latency{len(s), quantile(s, 0.5), quantile(s, 0.99), s[len(s)-1]}
}

func (b *bench) control() (any, error) {
	counts, clients := []int{1, 10_000}, []int{1, 4, 16}
	if b.Quick {
		counts = []int{1, 100}
	}
	var out []*Control
	for _, services := range counts {
		fmt.Printf("\nControl with %d services of %d backends\n", services, eachService)
		c, err := b.controlOf(services, clients)
		if err != nil {
			return out, err
		}
		c.print()
		out = append(out, c)
	}
	return out, nil
}

func (b *bench) controlOf(services int, clients []int) (*Control, error) {
	m, err := b.manyServices(services, eachService)
	if err != nil {
		return nil, err
	}
	defer m.close()
	if err := m.begin(true); err != nil {
		return nil, err
	}
	c := &Control{Services: services}
	for _, n := range clients {
		if err := c.change(b, m, n); err != nil {
			return nil, err
		}
	}
	if err := c.rollBack(b, m); err != nil {
		return nil, err
	}
	return c, m.uninstall()
}

// change lets clients change weights, each of another service.
func (c *Control) change(b *bench, m *many, clients int) error {
	lasts := 5 * time.Second
	if b.Quick {
		lasts = time.Second / 2
	}
	var mu sync.Mutex
	var calls, stores []float64
	var errs []error
	var group sync.WaitGroup
	began := time.Now()
	for i := range clients {
		group.Go(func() {
			for n := 0; time.Since(began) < lasts; n++ {
				name := manyName((i + n*clients) % c.Services)
				start := time.Now()
				// Never what it was: that would be no store.
				change, err := m.api.SetWeights(b.ctx, name, map[string]steering.Share{"canary": steering.Share(1 + n%5000)})
				took := time.Since(start)
				mu.Lock()
				calls, stores, errs = append(calls, micros(took)), append(stores, change.StoreMicros), append(errs, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("change weights: %w", err)
	}
	c.Changes = append(c.Changes, Changes{clients, float64(len(calls)) / took.Seconds(), latency(calls)})
	if clients == 1 {
		c.Store = latency(stores)
	}
	return nil
}

// rollBack measures rollbacks, of one service and of all.
func (c *Control) rollBack(b *bench, m *many) error {
	one, all := 1000, 20
	if b.Quick {
		one, all = 20, 2
	}
	var took, calls, everything, everyCall []float64
	for end := time.Now().Add(time.Minute); len(calls) < one && time.Now().Before(end); {
		n := len(calls)
		name := manyName(n % c.Services)
		r, call, err := b.rollBackOnce(m.api, name)
		if err != nil {
			return err
		}
		took, calls = append(took, r.TookMicros), append(calls, micros(call))
	}
	for end := time.Now().Add(time.Minute); len(everyCall) < all && time.Now().Before(end); {
		r, call, err := b.rollBackOnce(m.api)
		if err != nil {
			c.Refused = err.Error()
			break
		}
		everything, everyCall = append(everything, r.TookMicros), append(everyCall, micros(call))
	}
	c.AllCall = latency(everyCall)
	c.Rollback, c.Call, c.All = latency(took), latency(calls), latency(everything)
	return nil
}

// rollBackOnce gives the first service's canary a share and takes it back, by
// rolling back the named services, or all.
func (b *bench) rollBackOnce(client api.Client, names ...string) (api.RollbackResult, time.Duration, error) {
	name := manyName(0)
	if len(names) > 0 {
		name = names[0]
	}
	if _, err := client.SetWeights(b.ctx, name, map[string]steering.Share{"canary": 500}); err != nil {
		return api.RollbackResult{}, 0, fmt.Errorf("set a weight: %w", err)
	}
	began := time.Now()
	r, err := client.Rollback(b.ctx, names, len(names) == 0)
	if err != nil {
		return r, 0, fmt.Errorf("roll back: %w", err)
	}
	return r, time.Since(began), nil
}

func (c *Control) print() {
	t := newTable("Weight changes", "clients", "1/s", "p50, µs", "p99, µs", "max, µs")
	for _, x := range c.Changes {
		t.row(fmt.Sprint(x.Clients), number(x.PerSecond), number(x.P50), number(x.P99), number(x.Max))
	}
	t.flush()
	t = newTable("One after the other", "what", "times", "p50, µs", "p99, µs", "max, µs")
	for _, x := range []struct {
		name string
		Latency
	}{
		{"the store in the daemon", c.Store}, {"rollback, from the request to the store", c.Rollback},
		{"rollback, the API call", c.Call}, {"rollback of all services, to the last store", c.All},
		{"rollback of all services, the API call", c.AllCall},
	} {
		t.row(x.name, fmt.Sprint(x.N), number(x.P50), number(x.P99), number(x.Max))
	}
	t.flush()
	if c.Refused != "" {
		fmt.Println("  no rollback of all services:", c.Refused)
	}
}
