package conduct

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"siskin.dev/siskin/rollout"
)

// called runs a hook and waits for its result.
func called(t *testing.T, h *hooks, ended chan struct{}, call hookCall, key string) rollout.HookResult {
	t.Helper()
	text, err := json.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	hook := rollout.RunHook{Key: key, Hook: rollout.Hook{Name: "h", Call: string(text)}, Moment: rollout.AtStep, Before: true}
	if err := h.run(hook, hookMessage{Key: key, Release: "r", Version: "canary", Moment: rollout.AtStep}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the hook has not ended")
	}
	result, ok := h.results()[key]
	if !ok {
		t.Fatal("the hook has no result")
	}
	return result
}

func newTestHooks(t *testing.T) (*hooks, chan struct{}) {
	ended := make(chan struct{}, 8)
	h := newHooks(t.Context(), slog.New(slog.NewTextHandler(io.Discard, nil)), func() { ended <- struct{}{} })
	return h, ended
}

// A hook by URL gets the message and its key, the same at each try; 4xx is an
// answer, 5xx is not.
func TestHookByURL(t *testing.T) {
	var mu sync.Mutex
	var keys []string
	status := []int{http.StatusServiceUnavailable, http.StatusOK}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var m hookMessage
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || m.Release != "r" || m.Key != r.Header.Get("Idempotency-Key") {
			t.Errorf("the hook was told %+v, %v", m, err)
		}
		keys = append(keys, m.Key)
		w.WriteHeader(status[0])
		status = status[min(1, len(status)-1):]
		_, _ = io.WriteString(w, "not today")
	}))
	defer server.Close()
	h, ended := newTestHooks(t)
	call := hookCall{URL: server.URL, Timeout: 5 * time.Second}
	if r := called(t, h, ended, call, "one"); !r.OK {
		t.Errorf("after a second try: %+v", r)
	}
	if got := strings.Join(keys, " "); got != "one one" {
		t.Errorf("keys %q, want the same twice", got)
	}
	status = []int{http.StatusForbidden}
	if r := called(t, h, ended, call, "two"); r.OK || !strings.Contains(r.Reason, "not today") {
		t.Errorf("a refusal: %+v", r)
	}
	if len(keys) != 3 {
		t.Errorf("a refusal was asked for again: %v", keys)
	}
	// One that has ended is not called again.
	if err := h.run(rollout.RunHook{Key: "two", Hook: rollout.Hook{Call: `{"url":"` + server.URL + `"}`}}, hookMessage{}); err != nil {
		t.Fatal(err)
	}
	h.wg.Wait()
	if len(keys) != 3 {
		t.Errorf("a hook that has ended was called again: %v", keys)
	}
}

// A command refuses by its exit code and says why; one that hangs ends with its
// children.
func TestHookByCommand(t *testing.T) {
	h, ended := newTestHooks(t)
	sh := func(script string, timeout time.Duration) hookCall {
		return hookCall{Command: []string{"sh", "-c", script}, Timeout: timeout}
	}
	if r := called(t, h, ended, sh(`test "$SISKIN_RELEASE/$SISKIN_MOMENT" = r/step && grep -q '"key":"a"'`, 5*time.Second), "a"); !r.OK {
		t.Errorf("a command that agrees: %+v", r)
	}
	if r := called(t, h, ended, sh("echo frozen >&2; exit 3", 5*time.Second), "b"); r.OK || !strings.Contains(r.Reason, "frozen") {
		t.Errorf("a command that refuses: %+v", r)
	}
	begin := time.Now()
	if r := called(t, h, ended, sh("sleep 600 & wait", 50*time.Millisecond), "c"); r.OK {
		t.Errorf("a command that hangs: %+v", r)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("a command that hangs held on for %v", took)
	}
}
