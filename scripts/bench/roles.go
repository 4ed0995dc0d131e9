package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"siskin.dev/siskin/scripts/bench/lab"
	"siskin.dev/siskin/scripts/bench/traffic"
)

// The CPUs of both ends. What forwards between them runs in their system calls
// and so on both.
const (
	clientCPU  = 0
	backendCPU = 1
)

// The roles are what this binary is when it is started in a namespace.
const (
	serveRole = "serve"
	loadRole  = "load"
)

func isRole(s string) bool { return s == serveRole || s == loadRole }

func role(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	at := flags.String("at", "", "")
	if name == serveRole {
		as := flags.String("as", "", "")
		if err := flags.Parse(args); err != nil {
			return err
		}
		addr, err := netip.ParseAddrPort(*at)
		if err != nil {
			return err
		}
		return traffic.Serve(addr, *as, os.Stdout)
	}
	var o traffic.Order
	flags.StringVar(&o.Kind, "kind", "", "")
	flags.DurationVar(&o.Warm, "warm", 0, "")
	flags.DurationVar(&o.For, "for", 0, "")
	flags.IntVar(&o.Conns, "conns", 0, "")
	flags.BoolVar(&o.Log, "log", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if o.To, err = netip.ParseAddrPort(*at); err != nil {
		return err
	}
	sample, err := traffic.Run(o, os.Stdout)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(sample)
}

// serve starts the servers of a triple.
func (b *bench) serve(t *lab.Triple) error {
	for _, s := range []struct {
		space *lab.Space
		at    netip.AddrPort
		name  string
	}{{t.Stable, t.StableAt, "stable"}, {t.Canary, t.CanaryAt, "canary"}} {
		if _, err := s.space.Launch(backendCPU, true, "/proc/self/exe", serveRole, "-at", s.at.String(), "-as", s.name); err != nil {
			return err
		}
	}
	return nil
}

// warmUp is how long a load runs before it counts.
const warmUp = 200 * time.Millisecond

// load is a client that runs.
type load struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	out    *io.PipeReader
	errs   strings.Builder
	exit   chan error
}

// startLoad starts a client and returns when it is warm.
func (b *bench) startLoad(t *lab.Triple, o traffic.Order) (*load, error) {
	// A load that hangs is one whose packets are lost.
	ctx, cancel := context.WithTimeout(b.ctx, o.Warm+o.For+30*time.Second)
	l := &load{cancel: cancel, exit: make(chan error, 1)}
	l.cmd = exec.CommandContext(ctx, "/proc/self/exe", loadRole, "-at", o.To.String(), "-kind", o.Kind,
		"-warm", o.Warm.String(), "-for", o.For.String(), "-conns", fmt.Sprint(o.Conns), fmt.Sprintf("-log=%t", o.Log))
	// One goroutine does all the work and allocates nothing: the runtime's own
	// threads and signals would only take time from it.
	l.cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	var in *io.PipeWriter
	l.out, in = io.Pipe()
	l.cmd.Stdout, l.cmd.Stderr = in, &l.errs
	if err := t.Client.Start(l.cmd, clientCPU); err != nil {
		cancel()
		return nil, fmt.Errorf("start the client: %w", err)
	}
	go func() {
		err := l.cmd.Wait()
		in.Close()
		l.exit <- err
	}()
	var line [len("warm\n")]byte
	if _, err := io.ReadFull(l.out, line[:]); err != nil {
		_, err := l.wait()
		return nil, errors.Join(errors.New("the client was not ready"), err)
	}
	return l, nil
}

// wait waits for the client's end and returns what it saw.
func (l *load) wait() (traffic.Sample, error) {
	defer l.cancel()
	var s traffic.Sample
	derr := json.NewDecoder(l.out).Decode(&s)
	l.out.Close()
	if err := <-l.exit; err != nil {
		return s, fmt.Errorf("the client ended with %w: %s", err, strings.TrimSpace(l.errs.String()))
	}
	if derr != nil {
		return s, fmt.Errorf("read what the client saw: %w", derr)
	}
	return s, nil
}

// runLoad makes one measurement.
func (b *bench) runLoad(t *lab.Triple, o traffic.Order) (traffic.Sample, error) {
	l, err := b.startLoad(t, o)
	if err != nil {
		return traffic.Sample{}, err
	}
	return l.wait()
}
