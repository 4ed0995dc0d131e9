package conduct

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"siskin.dev/siskin/rollout"
)

// hookTries is how often a hook is called until it counts as failed.
const hookTries = 3

// hookCall is how a hook is called.
type hookCall struct {
	URL     string        `json:"url,omitempty"`
	Command []string      `json:"command,omitempty"`
	Timeout time.Duration `json:"timeout"`
}

// hookMessage is what a hook is told: the body of a request, or the standard
// input of a command.
type hookMessage struct {
	Key     string         `json:"key"` // the same when it is told again
	Release string         `json:"release"`
	Version string         `json:"version"`
	Moment  rollout.Moment `json:"moment"`
	Before  bool           `json:"before"` // it is asked, and may refuse
	Phase   rollout.Phase  `json:"phase"`
	Weight  rollout.Share  `json:"weight"` // basis points
	Reason  string         `json:"reason,omitempty"`
}

// hooks calls hooks, each key once until it has ended.
type hooks struct {
	ctx    context.Context
	log    *slog.Logger
	client *http.Client
	wake   func() // called when one has ended

	mu      sync.Mutex
	running map[string]bool
	ended   map[string]rollout.HookResult
	wg      sync.WaitGroup
}

func newHooks(ctx context.Context, log *slog.Logger, wake func()) *hooks {
	return &hooks{ctx: ctx, log: log, client: &http.Client{}, wake: wake,
		running: map[string]bool{}, ended: map[string]rollout.HookResult{}}
}

// results are those that have ended.
func (h *hooks) results() map[string]rollout.HookResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.ended)
}

// forget drops the results that nobody waits for any more.
func (h *hooks) forget(s rollout.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	waited := map[string]bool{}
	for _, c := range s.Outbox {
		waited[c.Key] = true
	}
	if s.Gate != nil {
		return
	}
	maps.DeleteFunc(h.ended, func(key string, _ rollout.HookResult) bool { return !waited[key] })
}

// run calls a hook in the background.
func (h *hooks) run(a rollout.RunHook, m hookMessage) error {
	var call hookCall
	if err := json.Unmarshal([]byte(a.Hook.Call), &call); err != nil {
		return fmt.Errorf("read the hook: %w", err)
	}
	h.mu.Lock()
	_, done := h.ended[a.Key]
	if done || h.running[a.Key] {
		h.mu.Unlock()
		return nil
	}
	h.running[a.Key] = true
	h.mu.Unlock()
	h.wg.Go(func() {
		result := h.call(call, m)
		h.mu.Lock()
		delete(h.running, a.Key)
		if h.ctx.Err() == nil {
			h.ended[a.Key] = result
		}
		h.mu.Unlock()
		h.wake()
	})
	return nil
}

// call repeats what fails by itself; a refusal is an answer.
func (h *hooks) call(call hookCall, m hookMessage) rollout.HookResult {
	body, err := json.Marshal(m)
	if err != nil {
		return rollout.HookResult{Reason: err.Error()}
	}
	var result rollout.HookResult
	for try := range hookTries {
		if try > 0 {
			select {
			case <-h.ctx.Done():
				return result
			case <-time.After(time.Second << try):
			}
		}
		var answered bool
		if result, answered = h.once(call, m, body); answered {
			return result
		}
		h.log.Warn("a hook did not answer", "key", m.Key, "reason", result.Reason)
	}
	return result
}

// once calls a hook once. answered is false where it is worth another try.
func (h *hooks) once(call hookCall, m hookMessage, body []byte) (result rollout.HookResult, answered bool) {
	ctx, cancel := context.WithTimeout(h.ctx, call.Timeout)
	defer cancel()
	if call.URL != "" {
		return h.post(ctx, call, m, body)
	}
	return command(ctx, call, m, body)
}

func (h *hooks) post(ctx context.Context, call hookCall, m hookMessage, body []byte) (rollout.HookResult, bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, call.URL, bytes.NewReader(body))
	if err != nil {
		return rollout.HookResult{Reason: err.Error()}, true
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", m.Key)
	resp, err := h.client.Do(req)
	if err != nil {
		return rollout.HookResult{Reason: err.Error()}, false
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	if resp.StatusCode/100 == 2 {
		return rollout.HookResult{OK: true}, true
	}
	reason := strings.TrimSpace(resp.Status + " " + string(said))
	return rollout.HookResult{Reason: reason}, resp.StatusCode/100 == 4
}

func command(ctx context.Context, call hookCall, m hookMessage, body []byte) (rollout.HookResult, bool) {
	c := exec.CommandContext(ctx, call.Command[0], call.Command[1:]...)
	c.Env = append(os.Environ(), "SISKIN_KEY="+m.Key, "SISKIN_RELEASE="+m.Release, "SISKIN_VERSION="+m.Version,
		"SISKIN_MOMENT="+string(m.Moment), "SISKIN_PHASE="+m.Phase.String())
	c.Stdin = bytes.NewReader(body)
	// Its children must end with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if err == nil {
		return rollout.HookResult{OK: true}, true
	}
	said := strings.TrimSpace(string(out[max(0, len(out)-500):]))
	_, exited := errors.AsType[*exec.ExitError](err)
	return rollout.HookResult{Reason: strings.TrimSpace(err.Error() + " " + said)}, exited && ctx.Err() == nil
}
