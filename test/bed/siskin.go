package bed

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Starting is how long a daemon may take until it steers. Most of it is the
// verifier's time.
const Starting = 20 * time.Second

// Options say how a daemon is started.
type Options struct {
	Binary     string   // of siskin
	Interfaces []string // --interface; none: it finds them itself
	Args       []string // further arguments of `siskin run`
}

// Siskin is a daemon in a namespace and the command line that talks to it.
type Siskin struct {
	Options Options
	Ready   string // the line that it printed when it steered

	bed  *Bed
	host *Namespace
	cmd  *exec.Cmd
	exit chan error // its end; nil: not running
	log  *logBuffer
}

// Siskin makes ready to run a daemon in the host namespace. Whatever the test
// leaves running or attached is taken away at its end.
func (b *Bed) Siskin(host *Namespace, o Options) *Siskin {
	b.tb.Helper()
	s := &Siskin{Options: o, bed: b, host: host, log: &logBuffer{}}
	b.tb.Cleanup(func() {
		s.Kill()
		if r := s.CLI("uninstall", "--bpffs", s.BPFFS()); r.Code != 0 {
			b.tb.Errorf("uninstall after the test: %v", r)
		}
		if b.tb.Failed() {
			b.tb.Logf("the daemon's log:\n%s", s.log)
		}
	})
	return s
}

// BPFFS is where the daemon pins its maps and links.
func (s *Siskin) BPFFS() string { return filepath.Join(s.bed.BPFFS, "siskin") }

// StateDir is where the daemon keeps its state file.
func (s *Siskin) StateDir() string { return s.bed.Path("state") }

// Socket is the path of the daemon's socket.
func (s *Siskin) Socket() string { return s.bed.Path("siskin.sock") }

// Listen is where /metrics is, inside the host namespace.
func (s *Siskin) Listen() string { return "127.0.0.1:9464" }

// Command returns the command that starts the daemon, for tests in which it
// must fail.
func (s *Siskin) Command() *exec.Cmd {
	args := []string{"run", "--state-dir", s.StateDir(), "--bpffs", s.BPFFS(),
		"--socket", s.Socket(), "--listen", s.Listen()}
	for _, dev := range s.Options.Interfaces {
		args = append(args, "--interface", dev)
	}
	return exec.Command(s.Options.Binary, append(args, s.Options.Args...)...)
}

// Start starts the daemon and returns when it says that it steers.
func (s *Siskin) Start() {
	s.bed.tb.Helper()
	if err := s.TryStart(); err != nil {
		s.bed.tb.Fatalf("start siskin: %v\n%s", err, s.log)
	}
}

// TryStart is Start for a daemon that may refuse.
func (s *Siskin) TryStart() error {
	if s.exit != nil {
		return errors.New("it is running already")
	}
	s.cmd = s.Command()
	s.cmd.Stderr = s.log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.host.Start(s.cmd); err != nil {
		return err
	}
	ready := make(chan string, 1)
	exit := make(chan error, 1)
	go func(cmd *exec.Cmd) {
		lines := bufio.NewReader(stdout)
		line, err := lines.ReadString('\n')
		if err == nil {
			ready <- strings.TrimSpace(line)
		}
		_, _ = io.Copy(s.log, lines) // until the daemon ends
		exit <- cmd.Wait()
	}(s.cmd)
	select {
	case s.Ready = <-ready:
		s.exit = exit
		return nil
	case err := <-exit:
		return fmt.Errorf("it ended before it steered: %w", err)
	case <-time.After(Starting):
		err := s.cmd.Process.Kill()
		return errors.Join(fmt.Errorf("it does not steer after %v", Starting), err, <-exit)
	}
}

// Kill kills the daemon with SIGKILL and waits for its end.
func (s *Siskin) Kill() {
	if s.exit == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.exit
	s.exit = nil
}

// Signal sends the daemon a signal that it does not end by.
func (s *Siskin) Signal(sig syscall.Signal) {
	s.bed.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.bed.tb.Fatalf("signal siskin: %v", err)
	}
}

// Stop ends the daemon as an init system does, and fails the test if it does
// not end well.
func (s *Siskin) Stop() {
	s.bed.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.bed.tb.Fatalf("stop siskin: %v", err)
	}
	select {
	case err := <-s.exit:
		if err != nil {
			s.bed.tb.Errorf("siskin ended with %v\n%s", err, s.log)
		}
		s.exit = nil
	case <-time.After(Starting):
		s.Kill()
		s.bed.tb.Errorf("siskin did not end on SIGTERM in %v", Starting)
	}
}

// Log returns what the daemon wrote to its standard error.
func (s *Siskin) Log() string { return s.log.String() }

// Result is how a command ended.
type Result struct {
	Command string
	Stdout  string
	Stderr  string
	Code    int // -1: it did not run
}

func (r Result) String() string {
	return fmt.Sprintf("`%s` ended with %d\n%s%s", r.Command, r.Code, r.Stdout, r.Stderr)
}

// CLI runs a command in the host namespace.
func (s *Siskin) CLI(args ...string) Result {
	cmd := exec.Command(s.Options.Binary, args...)
	if args[0] != "uninstall" {
		cmd.Args = append(cmd.Args, "--socket", s.Socket())
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := s.host.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	r := Result{strings.Join(cmd.Args, " "), stdout.String(), stderr.String(), 0}
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		r.Code = ended.ExitCode()
	} else if err != nil {
		r.Code, r.Stderr = -1, err.Error()
	}
	return r
}

// Must runs a command that has to succeed and returns what it printed.
func (s *Siskin) Must(args ...string) string {
	s.bed.tb.Helper()
	r := s.CLI(args...)
	if r.Code != 0 {
		s.bed.tb.Fatalf("%v\n%s", r, s.log)
	}
	return r.Stdout
}

// JSON runs a command with -o json and decodes what it printed.
func (s *Siskin) JSON(into any, args ...string) {
	s.bed.tb.Helper()
	out := s.Must(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		s.bed.tb.Fatalf("siskin %v: %v in\n%s", args, err, out)
	}
}

// logBuffer collects output that is read while it grows.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
