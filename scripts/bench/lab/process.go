package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// patience is how long a program may take to start.
const patience = 5 * time.Minute

// Process is a program that runs in a namespace until it is stopped.
type Process struct {
	cmd  *exec.Cmd
	exit chan struct{} // closed at its end
	err  error         // of its end
	log  tail
}

// Launch starts a program and waits for the first line that it writes to its
// standard output where wait is true.
func (s *Space) Launch(cpu int, wait bool, name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(name, args...), exit: make(chan struct{})}
	p.cmd.Stderr = &p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := s.Start(p.cmd, cpu); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewReader(stdout)
		if _, err := lines.ReadString('\n'); err == nil {
			close(ready)
		}
		_, _ = io.Copy(&p.log, lines) // until it ends, which Wait tells of
		p.err = p.cmd.Wait()
		close(p.exit)
	}()
	if !wait {
		return p, nil
	}
	select {
	case <-ready:
		return p, nil
	case <-p.exit:
		return nil, fmt.Errorf("%s ended: %w\n%s", strings.Join(p.cmd.Args, " "), p.err, p.log.String())
	case <-time.After(patience):
		p.Stop()
		return nil, fmt.Errorf("%s is not ready after %v\n%s", name, patience, p.log.String())
	}
}

// Pid is the program's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running is an error when the program has ended.
func (p *Process) Running() error {
	select {
	case <-p.exit:
		return fmt.Errorf("%s ended: %w\n%s", p.cmd.Args[0], p.err, p.log.String())
	default:
		return nil
	}
}

// Stop kills the program and waits for its end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.exit
}

// tail keeps the last part of what a program wrote.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > 1<<16 {
		t.buf.Reset()
	}
	return t.buf.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
