package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Exec runs a command; exit status 0 is a success. It finds whom to ask about in
// its environment: SISKIN_SERVICE, SISKIN_VERSION and SISKIN_BACKEND (addr:port).
type Exec struct {
	Command []string // the program and its arguments; no shell
}

const (
	// outputLimit is how much of what a command says is kept, for the error.
	outputLimit = 4 << 10
	// pipeDelay is how long a command's children may hold its output after it
	// has ended.
	pipeDelay = 100 * time.Millisecond
)

// Ask implements Probe. The command has a process group of its own, and what is
// left of that when the time is up, or the command has ended, is killed.
func (p Exec) Ask(ctx context.Context, b Backend) error {
	// Pdeathsig is about the thread that started the command.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, p.Command[0], p.Command[1:]...)
	cmd.Env = append(os.Environ(),
		"SISKIN_SERVICE="+b.Service, "SISKIN_VERSION="+b.Version, "SISKIN_BACKEND="+b.Addr.String())
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	cmd.WaitDelay = pipeDelay
	err := cmd.Run()
	if cmd.Process != nil {
		_ = kill() // nobody may be left in it
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		return nil // it ended well; its children held the output
	case ctx.Err() != nil && err != nil:
		return ctx.Err()
	case errors.As(err, &exit):
		return fmt.Errorf("%s%s", exit, out.told())
	case err != nil:
		return fmt.Errorf("run the command: %w", err)
	}
	return nil
}

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := outputLimit - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))]) // a bytes.Buffer never fails
	}
	return len(p), nil
}

// told is the first line of it, to be put behind an error.
func (h *head) told() string {
	if text := line(h.String()); text != "" {
		return ": " + text
	}
	return ""
}
