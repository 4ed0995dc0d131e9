package daemon_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/daemon"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

const shop = `
apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: shop}
spec:
  frontends: ["198.18.9.1:80/tcp"]
  versions:
    stable: {backends: ["198.18.0.1:8080"]}
    canary: {backends: ["198.18.1.2:8080"]}
  weights: {canary: 5%}
`

func parse(t *testing.T, text string) []api.Document {
	t.Helper()
	docs, err := api.Read(api.Source{Name: "test.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func (b *bed) apply(text string, dryRun bool) api.ApplyResult {
	b.t.Helper()
	got, err := b.client.Apply(b.t.Context(), parse(b.t, text), dryRun)
	if err != nil {
		b.t.Fatalf("apply: %v", err)
	}
	return got
}

// canary returns the live weight of shop's canary.
func (b *bed) canary() api.Share {
	b.t.Helper()
	s, err := b.client.Service(b.t.Context(), "shop")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, v := range s.Versions {
		if v.Name == "canary" {
			return v.Weight
		}
	}
	b.t.Fatalf("no canary in %+v", s)
	return 0
}

func (b *bed) setCanary(share steering.Share) {
	b.t.Helper()
	got, err := b.client.SetWeights(b.t.Context(), "shop", map[string]steering.Share{"canary": share})
	if err != nil {
		b.t.Fatal(err)
	}
	if got.New["canary"] != api.Share(share) || got.New["stable"] != api.Share(steering.Whole-share) {
		b.t.Errorf("new weights %v, want %s", got.New, share)
	}
	if took := got.StoredAfterNs - got.StoredBeforeNs; got.StoredBeforeNs <= 0 || took < 0 {
		b.t.Errorf("stored between %d and %d", got.StoredBeforeNs, got.StoredAfterNs)
	}
}

// hooked counts the programs on an interface's hooks.
func (b *bed) hooked(name string) (n int) {
	b.t.Helper()
	dev, err := netlink.LinkByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: at})
		if err != nil {
			b.t.Fatal(err)
		}
		n += len(res.Programs)
	}
	return n
}

func (b *bed) wantHooked(name string, n int) {
	b.t.Helper()
	if got := b.hooked(name); got != n {
		b.t.Errorf("%d programs on %s, want %d", got, name, n)
	}
}

func TestRootWeightsOutliveTheDaemon(t *testing.T) {
	b := newBed(t)
	path := b.file(shop)
	p := b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	if want := "siskin: steering 1 service on up0, pod0"; p.line != want {
		t.Errorf("it said %q, want %q", p.line, want)
	}
	for _, page := range []string{"/healthz", "/readyz"} {
		if code, body := b.get(page); code != 200 {
			t.Errorf("%s: %d %s", page, code, body)
		}
	}
	if code, body := b.get("/metrics"); code != 200 || !strings.Contains(body, `siskin_weight_ratio{service="shop",version="canary"} 0.05`) {
		t.Errorf("/metrics: %d without the canary's weight\n%s", code, body)
	}
	if got := b.canary(); got != 500 {
		t.Errorf("canary has %s, want the document's 5%%", got)
	}
	second := b.launch()
	if code := second.end(syscall.SIGKILL); code != exitLocked || second.line != "" {
		t.Errorf("a second daemon said %q and ended with %d, want %d", second.line, code, exitLocked)
	}

	b.setCanary(1000)
	p.end(syscall.SIGKILL)
	b.wantHooked("up0", 2) // it steers on

	p = b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	if got := b.canary(); got != 1000 {
		t.Errorf("after a kill the canary has %s, want the 10%% set by hand", got)
	}
	same := b.apply(shop, false)
	if o := same.Objects[0]; o.Outcome != api.OutcomeUnchanged || !strings.Contains(strings.Join(o.Warnings, "\n"), "set by hand") {
		t.Errorf("the same document: %+v, want unchanged with a warning", o)
	}
	if got := b.canary(); got != 1000 {
		t.Errorf("after the same document the canary has %s, want 10%%", got)
	}
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("stopped with %d, want 0", code)
	}
	b.wantHooked("up0", 2)
	b.wantHooked("pod0", 2)

	// A changed file is applied at the start.
	b.file(strings.Replace(shop, "5%", "25%", 1))
	p = b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	if got := b.canary(); got != 2500 {
		t.Errorf("after a changed file the canary has %s, want 25%%", got)
	}
	b.setCanary(100)
	p.end(syscall.SIGTERM)
	b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	if got := b.canary(); got != 100 {
		t.Errorf("after a restart the canary has %s, want the 1%% set by hand", got)
	}
}

func TestRootApplyAndDelete(t *testing.T) {
	b := newBed(t)
	p := b.launch()
	if want := "siskin: steering 0 services on up0"; p.line != want {
		t.Errorf("it said %q, want %q", p.line, want)
	}
	dry := b.apply(shop, true)
	if o := dry.Objects[0]; !dry.DryRun || o.Outcome != api.OutcomeCreated || len(o.Diff) == 0 {
		t.Errorf("dry run: %+v", dry)
	}
	if all, err := b.client.Services(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("after a dry run: %v, %v; want nothing", all, err)
	}
	b.apply(shop, false)
	b.wantHooked("pod0", 2) // attached by the time apply returns
	backends, err := b.client.Backends(t.Context())
	if err != nil || len(backends) != 2 || backends[0].Path != "host" || backends[1].Path != "local" || backends[1].Interface != "pod0" {
		t.Errorf("backends %+v, %v; want one on the host and one behind pod0", backends, err)
	}

	// The same frontend in another service: refused as a whole.
	both := strings.Replace(shop, "5%", "50%", 1) + "\n---" + strings.Replace(shop, "name: shop", "name: other", 1)
	if _, err := b.client.Apply(t.Context(), []api.Document{
		parse(t, strings.Replace(shop, "5%", "50%", 1))[0], parse(t, strings.Replace(shop, "name: shop", "name: other", 1))[0],
	}, false); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("two services on one frontend (%s): %v, want ErrInvalid", both, err)
	}
	if got := b.canary(); got != 500 {
		t.Errorf("after a refused apply the canary has %s, want 5%%", got)
	}

	rolled, err := b.client.Rollback(t.Context(), []string{"nope", "shop"}, false)
	if !errors.Is(err, api.ErrNotFound) {
		t.Errorf("rollback with an unknown name: %+v, %v; want ErrNotFound", rolled, err)
	}
	if got := b.canary(); got != 0 {
		t.Errorf("after a rollback the canary has %s, want 0%%", got)
	}
	b.setCanary(700)
	rolled, err = b.client.Rollback(t.Context(), nil, true)
	if err != nil || len(rolled.Services) != 1 || rolled.Services[0].Before["canary"] != 700 || rolled.StoredNs < rolled.RequestedNs {
		t.Errorf("rollback: %+v, %v; want shop back from 7%%", rolled, err)
	}
	// One each: also what an error came with was stored.
	if _, body := b.get("/metrics"); !strings.Contains(body, "siskin_rollback_duration_seconds_count 2\n") ||
		!strings.Contains(body, "siskin_rollback_duration_seconds_bucket{le=\"1\"} 2\n") {
		t.Errorf("the metrics do not tell of two rollbacks within a second\n%s", body)
	}
	if _, err := b.client.SetWeights(t.Context(), "shop", map[string]steering.Share{"beta": 1}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("weight of an unknown version: %v, want ErrInvalid", err)
	}

	if err := b.client.Delete(t.Context(), api.KindService, "shop"); err != nil {
		t.Fatal(err)
	}
	if err := b.client.Delete(t.Context(), api.KindService, "shop"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("second delete: %v, want ErrNotFound", err)
	}
	b.await("end of the deleted service's backends", func() bool {
		left, err := b.client.Backends(t.Context())
		return err == nil && len(left) == 0
	})
	if flows, err := b.client.Flows(t.Context(), api.FlowFilter{}, 10); err != nil || flows.Capacity != 1024 || len(flows.Flows) != 0 {
		t.Errorf("flows %+v, %v; want none of 1024", flows, err)
	}
}

func TestRootCorruptState(t *testing.T) {
	b := newBed(t)
	path := b.file(shop)
	p := b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	b.setCanary(1000)
	p.end(syscall.SIGKILL)
	state := filepath.Join(b.dir, "state", "state.json")
	raw, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	p = b.launch()
	if want := "siskin: steering 1 service on up0, pod0"; p.line != want {
		t.Errorf("it said %q, want %q", p.line, want)
	}
	if got := b.canary(); got != 1000 {
		t.Errorf("the canary has %s, want the kernel's 10%%", got)
	}
	if !b.event("StateCorrupt") {
		t.Error("no event tells of the damaged file")
	}
	aside, err := filepath.Glob(state + ".corrupt-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v, %v; want one file", aside, err)
	}
	p.end(syscall.SIGTERM)
	b.launch()
	if got := b.canary(); got != 1000 {
		t.Errorf("with the new state file the canary has %s, want 10%%", got)
	}
}

// After a restart of the machine the kernel has nothing. What was set by hand
// before, a rollback above all, is not undone by that.
func TestRootWeightsOutliveTheKernel(t *testing.T) {
	b := newBed(t)
	path := b.file(shop)
	forget := func(p *process) {
		t.Helper()
		p.end(syscall.SIGTERM)
		if _, err := loader.Uninstall(b.options().BPFFS); err != nil {
			t.Fatal(err)
		}
	}
	given := func(o *daemon.Options) { o.Files = []string{path} }
	p := b.launch(given)
	if _, err := b.client.Rollback(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	forget(p)
	p = b.launch(given)
	if got := b.canary(); got != 0 {
		t.Errorf("after a restart of the machine the canary has %s; it was rolled back", got)
	}
	if !b.event("WeightsRestored") {
		t.Error("no event tells of the weights")
	}
	forget(p)
	b.file(strings.Replace(shop, "5%", "25%", 1))
	b.launch(given)
	if got := b.canary(); got != 2500 {
		t.Errorf("with a changed document the canary has %s, want 25%%", got)
	}
}

// What cannot be remembered is not done.
func TestRootStateCannotBeWritten(t *testing.T) {
	b := newBed(t)
	b.launch()
	state := filepath.Join(b.dir, "state", "state.json")
	if err := errors.Join(os.Remove(state), os.Mkdir(state, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.Apply(t.Context(), parse(t, shop), false); err == nil || !strings.Contains(err.Error(), "nothing was applied") {
		t.Errorf("apply: %v, want an error that says that nothing was applied", err)
	}
	if all, err := b.client.Services(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("services %v, %v; want none", all, err)
	}
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	b.apply(shop, false)
}
