// Command judge measures the judge of releases by simulation: how often it
// rejects canaries that are as good as stable, how soon those that are worse,
// and the same of the Kayenta-compatible judge. Everything is drawn from a seed.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// perWorld releases share a population of clients.
const perWorld = 50

func main() {
	seed := flag.Uint64("seed", 1, "what everything is drawn from")
	releases := flag.Int("releases", 10_000, "releases in each kind of canary that is as good as stable")
	power := flag.Int("power", 1000, "releases in each of the other kinds")
	hours := flag.Int("hours", 2000, "hours in the comparison with Kayenta")
	flag.Parse()
	if flag.NArg() > 0 || *releases < 1 || *power < 10 || *hours < 100 {
		fmt.Fprintln(os.Stderr, "judge: takes flags only; ten releases and a hundred hours are the least")
		os.Exit(2)
	}
	began := time.Now()
	fmt.Printf("seed %d; ramp 1/5/25/50 %% in %.0f s, %g requests a second, %g %% fail, falseAlarm %g %%; two comparisons, at most %g %% errors, breaker\n",
		*seed, rampSeconds(), usualRate, 100*baseRate, 100*falseAlarm, 100*maxErrors)
	printCauses("As good as stable: mistakes, at most 1.2 %", simulateAll(alike(), *releases, *seed))
	printCauses("Better than stable: never", simulateAll(better(), *power, *seed))
	printCauses("Worse than stable", simulateAll(different(), *power, *seed))
	printCauses("As good as stable, and both break down for a while", simulateAll(outages(), *power, *seed))
	printHeld(simulateAll(held(), *power/5, *seed))
	var both []compared
	for _, s := range streams() {
		both = append(both, compare(s, *hours, *power/2, *seed))
	}
	printCompared(both)
	fmt.Printf("\n%s on %d CPUs\n", time.Since(began).Round(time.Second), workers())
}

// workers are two at most: others use this machine, too.
func workers() int { return min(2, runtime.GOMAXPROCS(0)) }

// inParallel calls f for 0 to n − 1 and returns what it returned, in order.
func inParallel[T any](n int, f func(int) T) []T {
	out := make([]T, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers() {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				out[i] = f(i)
			}
		})
	}
	wg.Wait()
	return out
}

// outcomeOf is a scenario with what became of its releases.
type outcomeOf struct {
	scenario
	results []result
}

func simulateAll(all []scenario, n int, seed uint64) []outcomeOf {
	var out []outcomeOf
	for _, s := range all {
		out = append(out, outcomeOf{s, simulate(s, n, seed)})
	}
	return out
}

func simulate(s scenario, n int, seed uint64) []result {
	return drawn(n, s, seed, func(w *world, rng *rand.Rand) result { return newRelease(s, w, rng).run() })
}

// drawn calls f n times, each time with its own random numbers, and with a new
// world now and then. What comes out depends on the seed only.
func drawn[T any](n int, s scenario, seed uint64, f func(*world, *rand.Rand) T) []T {
	stream := seed
	for _, b := range []byte(s.name) {
		stream = stream*1_099_511_628_211 + uint64(b) // scenarios are independent
	}
	groups := inParallel((n+perWorld-1)/perWorld, func(i int) []T {
		rng := rand.New(rand.NewPCG(stream, uint64(i)))
		w := newWorld(s, rng)
		var out []T
		for range min(perWorld, n-i*perWorld) {
			out = append(out, f(w, rng))
		}
		return out
	})
	var out []T
	for _, g := range groups {
		out = append(out, g...)
	}
	return out
}

// table is printed with its columns under each other.
func table(title string, head string, rows func(w *tabwriter.Writer)) {
	fmt.Printf("\n%s\n", title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  "+head)
	rows(w)
	w.Flush()
}
