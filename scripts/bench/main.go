// Command bench measures siskin beside others: end to end in network
// namespaces, the time to switch, memory, start-up, and the control interface.
// scripts/bench/run builds it and runs it in a box of namespaces.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options are the flags.
type Options struct {
	Siskin  string
	JSON    string
	Seed    uint64
	Quick   bool
	Rounds  int
	Each    time.Duration
	Systems []string // none: all
	Kinds   []string
	Places  []string
	Flips   int
}

// Report is what is written as JSON.
type Report struct {
	Machine Machine        `json:"machine"`
	Began   time.Time      `json:"began"`
	Seed    uint64         `json:"seed"`
	Quick   bool           `json:"quick,omitempty"`
	Parts   map[string]any `json:"parts"`
}

// Machine is where the figures come from.
type Machine struct {
	Kernel string `json:"kernel"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

// bench is one run.
type bench struct {
	Options
	ctx  context.Context
	rand *rand.Rand
	dir  string // for configurations and sockets
}

func parts() []string { return []string{"e2e", "switch", "memory", "control"} }

func main() {
	if len(os.Args) > 1 && isRole(os.Args[1]) {
		if err := role(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	if err := command(context.Background(), os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func parse(args []string) (Options, []string, error) {
	var o Options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.Siskin, "siskin", "bin/siskin", "the binary that is measured")
	flags.StringVar(&o.JSON, "json", "bin/bench.json", "the file that gets all figures")
	flags.Uint64Var(&o.Seed, "seed", 0, "of the order of the systems (default: of the clock)")
	flags.BoolVar(&o.Quick, "quick", false, "a smoke run: does it work; its figures say nothing")
	flags.IntVar(&o.Rounds, "rounds", 10, "e2e: how many rounds; switch: how many switches of each system")
	flags.DurationVar(&o.Each, "each", 2*time.Second, "e2e: how long each measurement of a round takes")
	flags.IntVar(&o.Flips, "flips", 1000, "switch: weight changes of siskin under load")
	list := func(into *[]string, name, usage string) {
		flags.Func(name, usage, func(s string) error { *into = strings.Split(s, ","); return nil })
	}
	list(&o.Systems, "systems", "only these, with commas between; floor is always there")
	list(&o.Kinds, "kinds", "e2e: only these measurements: "+strings.Join(kinds(), ", "))
	list(&o.Places, "places", "e2e: only these places of the backends: remote, local")
	if err := flags.Parse(args); err != nil {
		return o, nil, err
	}
	if o.Quick {
		o.Rounds, o.Each, o.Flips = min(o.Rounds, 2), min(o.Each, 300*time.Millisecond), min(o.Flips, 20)
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	chosen := flags.Args()
	for _, part := range chosen {
		if !slices.Contains(parts(), part) {
			return o, nil, fmt.Errorf("%q is no part: the parts are %s", part, strings.Join(parts(), ", "))
		}
	}
	if len(chosen) == 0 {
		chosen = parts()
	}
	return o, chosen, nil
}

func command(ctx context.Context, args []string) error {
	o, chosen, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and BPF need root: run scripts/bench/run as root")
	}
	if o.Siskin, err = filepath.Abs(o.Siskin); err != nil {
		return fmt.Errorf("find siskin: %w", err)
	}
	b := &bench{Options: o, ctx: ctx, rand: rand.New(rand.NewPCG(o.Seed, 0))}
	if b.dir, err = os.MkdirTemp("/run", "bench-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(b.dir)
	report := Report{Machine: machine(), Began: time.Now(), Seed: o.Seed, Quick: o.Quick, Parts: map[string]any{}}
	fmt.Printf("Linux %s, %d CPUs, %s, seed %d\n", report.Machine.Kernel, report.Machine.CPUs, report.Machine.Go, o.Seed)
	if o.Quick {
		fmt.Println("A smoke run: the figures say nothing.")
	}
	var errs []error
	for _, part := range chosen {
		result, err := b.part(part)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part, err))
		}
		if result != nil {
			report.Parts[part] = result
		}
	}
	return errors.Join(append(errs, write(o.JSON, report))...)
}

func (b *bench) part(name string) (any, error) {
	switch name {
	case "e2e":
		return b.endToEnd()
	case "switch":
		return b.switching()
	case "memory":
		return b.memory()
	case "control":
		return b.control()
	}
	return nil, errors.New("this part is not there yet")
}

func write(path string, r Report) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	fmt.Printf("\nAll figures are in %s.\n", path)
	return nil
}

func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}
