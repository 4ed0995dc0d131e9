package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/test/bed"
)

// A daemon that is killed in the midst of a release and comes back within the
// lease goes on with it.
func TestRootNginxKilled(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := openSite(t, f, bed.WebOptions{}, bed.WebOptions{})
			g.open(atATime, 5, time.Millisecond)
			g.start("{weight: 10%, hold: 300ms}, {weight: 50%, hold: 2s}", "lease: 1m")
			g.awaitWeight(5000)
			g.s.Kill()
			began := time.Now()
			g.await(20, bed.By("canary")) // the kernel goes on by itself
			g.s.Start()
			away := time.Since(began)
			if v := g.status(); v.Run != 1 || v.Phase != "Progressing" && v.Phase != "Promoting" {
				t.Errorf("after the restart run %d is %s: %s", v.Run, v.Phase, v.Reason)
			}
			g.awaitEnd("Succeeded", 20*time.Second)
			visits := g.guests.Stop()
			if f := fatesOf(visits).failed; len(f) > 0 {
				t.Errorf("%d of %d guests failed: %v", len(f), len(visits), f[:min(3, len(f))])
			}
			t.Logf("the daemon was away for %v; none of %d guests failed", away.Round(time.Millisecond), len(visits))
		})
	}
}

// What people do at the wrong moment, and what breaks then.
func TestRootNginxBadDays(t *testing.T) {
	g := openSite(t, bed.V4, bed.WebOptions{}, bed.WebOptions{})
	g.open(atATime, 5, time.Millisecond)
	g.start("{weight: 25%, hold: 10m}")
	g.awaitWeight(2500)
	for _, c := range []struct {
		name string
		test func(*testing.T, *site)
	}{
		{"another release", anotherRelease},
		{"weight by hand", weightByHand},
		{"deleted while it runs", deletedWhileItRuns},
		{"a hook that hangs", hangingHook},
		{"rolled back by hand", rolledBackByHand},
		{"history corrupt", historyCorrupt},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.test(t, g.within(t)) }) {
			return // the release may be left anywhere
		}
	}
	if f := fatesOf(g.guests.Stop()).failed; len(f) > 0 {
		t.Errorf("%d guests failed: %v", len(f), f[:min(3, len(f))])
	}
}

// refused wants a command to be refused with these words.
func (g *site) refused(words []string, args ...string) {
	g.t.Helper()
	r := g.s.CLI(args...)
	if r.Code != 1 {
		g.t.Fatalf("want a refusal: %v", r)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			g.t.Errorf("the refusal does not name %q: %s", w, r.Stderr)
		}
	}
	g.t.Log(strings.TrimSpace(r.Stderr))
}

func anotherRelease(t *testing.T, g *site) {
	doc, err := os.ReadFile(g.r.Bed.Path("release.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.s.Must("apply", "-f", g.r.Bed.Write("other.yaml", strings.Replace(string(doc), "shop-v2", "shop-v3", 1)))
	g.refused([]string{"shop-v2", "siskin release abort shop-v2"}, "release", "start", "shop-v3")
	g.s.Must("delete", "release", "shop-v3")
	g.awaitGone("shop-v3")
	if v := g.status(); v.Phase != "Progressing" {
		t.Errorf("afterwards the first one is %s: %s", v.Phase, v.Reason)
	}
}

func weightByHand(t *testing.T, g *site) {
	g.refused([]string{"shop-v2", "siskin release abort shop-v2", "siskin release promote shop-v2"}, "weight", "shop", "canary=50%")
	g.awaitWeight(2500)
}

func deletedWhileItRuns(t *testing.T, g *site) {
	g.s.Must("delete", "release", "shop-v2")
	g.awaitGone("shop-v2")
	if v := g.s.Version("shop", "canary"); v.Weight != 0 {
		t.Errorf("the release is gone, and the canary has %v", v.Weight)
	}
	onlyFrom(t, g, "stable")
	if message := g.awaitEvent("RollingBack"); !strings.Contains(message, "deleted") {
		t.Errorf("the event says: %s", message)
	}
}

func hangingHook(t *testing.T, g *site) {
	g.start("{weight: 25%, hold: 300ms}, {weight: 50%, hold: 10m}",
		`hooks: [{name: gate, before: [step], command: [sleep, "600"], timeout: 1m}]`)
	g.awaitStatus("waiting for the hook", 10*time.Second, func(v api.ReleaseView) bool {
		return v.Phase == "Progressing" && v.Step == 1 && strings.Contains(strings.Join(v.Waiting, " "), "hook gate")
	})
	g.awaitWeight(2500)
	asked := bpf.Now()
	g.s.Must("release", "abort", "shop-v2")
	g.awaitEnd("Aborted", 5*time.Second)
	took := time.Duration(bpf.Now() - asked)
	onlyFrom(t, g, "stable")
	last := time.Duration(int64(g.s.Version("shop", "canary").LastSelectedNs) - asked)
	if last > 2*time.Second {
		t.Errorf("the canary was selected %v after the abort", last)
	}
	t.Logf("aborted in %v, last selection of the canary %v after it was asked for", took, last)
}

func rolledBackByHand(t *testing.T, g *site) {
	g.s.Must("release", "retry", "shop-v2")
	g.awaitWeight(2500)
	g.s.Must("rollback", "shop")
	v := g.awaitEnd("RolledBack", 5*time.Second)
	if v.Cause != "rolled back by hand" || !strings.Contains(v.Reason, "siskin rollback shop") {
		t.Errorf("%s: %s", v.Cause, v.Reason)
	}
	if d := v.History[len(v.History)-2]; d.To != "RollingBack" || d.By == "" || d.By == "daemon" {
		t.Errorf("to %s by %q, want RollingBack by a person", d.To, d.By)
	}
	t.Logf("%s: %s", v.Phase, v.Reason)
	onlyFrom(t, g, "stable")
}

func historyCorrupt(t *testing.T, g *site) {
	g.s.Must("delete", "release", "shop-v2")
	g.awaitGone("shop-v2")
	g.release("{weight: 25%, hold: 10m}", "autoStart: true")
	g.awaitWeight(2500)
	g.s.Kill()
	if err := os.WriteFile(filepath.Join(g.s.StateDir(), "history.db"), []byte(strings.Repeat("not a history\n", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.s.Start()
	t.Log(g.awaitEvent("HistoryDamaged"))
	// What the kernel had of a release that nobody remembers goes back, and it
	// does not start by itself.
	g.awaitWeight(0)
	onlyFrom(t, g, "stable")
	waits := func(v api.ReleaseView) bool {
		return v.Phase == "Pending" && strings.Contains(v.Reason, "history was lost: start it with siskin release start shop-v2")
	}
	g.awaitStatus("waiting for a person", 5*time.Second, waits)
	g.s.Stop()
	g.s.Start()
	g.s.Await("it is conducted again", func() bool { return g.s.CLI("release", "status", "shop-v2").Code == 0 })
	g.awaitStatus("waiting for a person, by the new history", 5*time.Second, waits)
}
