package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/rollout"
)

// ears remember what an operator was told.
type ears struct {
	mu    sync.Mutex
	heard []string
}

func (e *ears) loud(_ bool, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, reason+": "+message)
}

func (e *ears) count(reason string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.heard {
		if strings.HasPrefix(h, reason) {
			n++
		}
	}
	return n
}

func open(t *testing.T, path string, o Options) (*Store, *ears) {
	t.Helper()
	e := &ears{}
	o.Loud, o.Retry = e.loud, time.Millisecond
	o.Now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	s := Open(path, o)
	t.Cleanup(func() {
		if s.db != nil {
			_ = s.Close()
		}
	})
	return s, e
}

func state(p rollout.Phase) rollout.State {
	return rollout.State{Phase: p, Run: 3, Step: 1, Held: 90 * time.Second, Base: rollout.Word{Share: 500, Epoch: 9}, Reason: "held",
		Plan: rollout.Plan{Release: "a", Services: []string{"checkout"}, Version: "canary", Steps: []rollout.Hold{{Weight: 500, For: time.Minute}}},
		Last: rollout.Time{BootID: "one", Boot: time.Hour, Wall: time.Unix(1_800_000_000, 0).UTC()}}
}

func decision(i int) rollout.Decision {
	return rollout.Decision{Time: time.Unix(1_800_000_000+int64(i), 0).UTC(), Run: 1, To: rollout.RollingBack, Reason: fmt.Sprint("number ", i),
		Evidence: 320.5, Counts: []rollout.Count{{Version: "canary", Requests: 240, Errors: 12}}}
}

func decisions(t *testing.T, s *Store, release string, limit int) []rollout.Decision {
	t.Helper()
	out, err := s.Decisions(release, limit)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStatesAndDecisionsAreThereAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "releases.db")
	s, _ := open(t, path, Options{})
	s.Save("a", state(rollout.Progressing), decision(1), decision(2))
	s.Save("b", state(rollout.Paused), decision(3))
	s.Save("a", state(rollout.RolledBack), decision(4))
	s.Forget("b")
	if got := decisions(t, s, "a", 0); len(got) != 3 {
		t.Fatalf("%d decisions before they were written for sure", len(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, e := open(t, path, Options{})
	if diff := cmp.Diff(map[string]rollout.State{"a": state(rollout.RolledBack)}, s.States()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]rollout.Decision{decision(1), decision(2), decision(4)}, decisions(t, s, "a", 0)); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	if got := decisions(t, s, "a", 1); len(got) != 1 || got[0].Reason != "number 4" {
		t.Errorf("the last one: %v", got)
	}
	if got := decisions(t, s, "b", 0); len(got) != 1 {
		t.Errorf("a forgotten release has %d decisions, want 1", len(got))
	}
	if len(e.heard) != 0 || s.Lost() {
		t.Errorf("told %q", e.heard)
	}
}

func TestTheHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "releases.db")
	s, _ := open(t, path, Options{Decisions: 10, Finished: 3})
	for i := range 25 {
		s.Save("long", state(rollout.Paused), decision(i))
		if i%4 == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 6 {
		s.Save(fmt.Sprint("over-", i), state(rollout.Succeeded), decision(100+i))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := decisions(t, s, "long", 0); len(got) != 10 || got[0].Reason != "number 15" {
		t.Errorf("%d decisions, the first %v", len(got), got[0].Reason)
	}
	for i := range 6 {
		want := 0
		if i >= 3 {
			want = 1
		}
		if got := decisions(t, s, fmt.Sprint("over-", i), 0); len(got) != want {
			t.Errorf("over-%d has %d decisions, want %d", i, len(got), want)
		}
	}
	if len(s.States()) != 7 {
		t.Errorf("%d states: a bound on the history must drop none", len(s.States()))
	}
}

// filled returns the bytes of a file with much in it.
func filled(t *testing.T, dir string) []byte {
	t.Helper()
	path := filepath.Join(dir, "filled.db")
	s, _ := open(t, path, Options{})
	for i := range 40 {
		s.Save(fmt.Sprint("r", i%5), state(rollout.Paused), decision(i))
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestADamagedFileIsSetAside(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	raw := filled(t, t.TempDir())
	zeroed := append([]byte(nil), raw...)
	clear(zeroed[:8192])
	noise := append([]byte(nil), raw...)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	later := append([]byte(nil), raw...)
	for i := 8192; i < len(later); i++ {
		later[i] ^= 0x55
	}
	for name, bytes := range map[string][]byte{
		"no head":       zeroed,
		"noise":         noise,
		"altered":       later,
		"cut short":     raw[:9000],
		"of one byte":   raw[:1],
		"other program": []byte(strings.Repeat("this is a log file\n", 1000)),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "releases.db")
			if err := os.WriteFile(path, bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			s, e := open(t, path, Options{})
			if !s.Lost() || e.count(Damaged) != 1 || len(s.States()) != 0 {
				t.Fatalf("lost %v, told %q, %d states", s.Lost(), e.heard, len(s.States()))
			}
			kept, err := os.ReadFile(path + ".corrupt-20270115T080000Z")
			if err != nil || string(kept) != string(bytes) {
				t.Errorf("what was set aside: %d bytes, %v", len(kept), err)
			}
			s.Save("a", state(rollout.Paused), decision(1))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, e := open(t, path, Options{})
			if len(again.States()) != 1 || len(e.heard) != 0 {
				t.Errorf("the new file: %d states, told %q", len(again.States()), e.heard)
			}
		})
	}
}

// TestAnyAlteredByteIsFoundOrHarmless flips bytes all over a file.
func TestAnyAlteredByteIsFoundOrHarmless(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	raw := filled(t, dir)
	for range 100 {
		bytes := append([]byte(nil), raw...)
		for range 1 + r.IntN(20) {
			bytes[r.IntN(len(bytes))] = byte(r.Uint32())
		}
		path := filepath.Join(dir, "altered.db")
		if err := os.WriteFile(path, bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		s, e := open(t, path, Options{})
		for name, got := range s.States() {
			if diff := cmp.Diff(state(rollout.Paused), got); diff != "" {
				t.Fatalf("%s is another one now, told %q:\n%s", name, e.heard, diff)
			}
		}
		s.Save("new", state(rollout.Aborted), decision(1))
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if s.States()["new"].Phase != rollout.Aborted {
			t.Fatal("the new state is not there")
		}
		_ = s.Close()
		left, _ := filepath.Glob(path + "*")
		for _, f := range left {
			_ = os.Remove(f)
		}
	}
}

func TestAFileThatCannotBeOpenedStopsNothing(t *testing.T) {
	// A directory in its place: nobody can write that, root neither.
	path := filepath.Join(t.TempDir(), "releases.db")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	s, e := open(t, path, Options{})
	s.Save("a", state(rollout.Paused), decision(1))
	if s.Flush() == nil || e.count(Failing) != 1 || !s.Lost() {
		t.Fatalf("told %q, lost %v", e.heard, s.Lost())
	}
	if got := decisions(t, s, "a", 0); len(got) != 1 || len(s.States()) != 1 {
		t.Errorf("not kept in memory: %v", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if e.count(Recovers) != 1 {
		t.Errorf("told %q", e.heard)
	}
	if got := decisions(t, s, "a", 0); len(got) != 1 {
		t.Errorf("%d decisions after it was written", len(got))
	}
}

func TestSaveWaitsForNoDisk(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "releases.db"), Options{Decisions: 50})
	s.file.Lock() // a write that hangs
	for i := range 10_000 {
		s.Save("a", state(rollout.Paused), decision(i))
	}
	if n := len(s.queue["a"]); n > 50 {
		t.Errorf("%d decisions wait: memory has no bound", n)
	}
	s.file.Unlock()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := decisions(t, s, "a", 0); len(got) != 50 || got[49].Reason != "number 9999" {
		t.Errorf("%d decisions", len(got))
	}
}

func TestANewerFormatIsSetAside(t *testing.T) {
	if err := guarded(func() error { panic("page 5: invalid page type") }); !errors.Is(err, errDamaged) {
		t.Errorf("a panic gives %v", err)
	}
}
