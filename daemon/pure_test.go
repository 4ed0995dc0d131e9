package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

const checkout = `
apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: checkout}
spec:
  frontends: ["198.18.0.10:80/tcp", "[2001:db8::10]:80/tcp"]
  affinity: connection
  sourceNAT: never
  versions:
    stable: {backends: ["10.1.0.2:8080", "[2001:db8:1::2]:8080"]}
    canary: {backends: [{address: "10.1.0.4:8080", weight: 2}, "[2001:db8:1::4]:8080"]}
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

// applied are the services after an apply of documents to nothing.
func applied(t *testing.T, docs ...api.Document) intent {
	t.Helper()
	out, _, err := intent{}.with(docs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	docs := applied(t, parse(t, checkout)...).services
	in := saved{Services: docs.sorted(), Baselines: baselines{
		Counters: "boot/7",
		Services: map[string]baseline{"checkout": {time.Unix(5, 0).UTC(), 9, map[uint32]uint64{3: 4}}},
	}}
	for range 2 { // the second time replaces the first
		if err := writeState(path, in); err != nil {
			t.Fatal(err)
		}
	}
	out, err := readState(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(docs.desired(), documents{"checkout": out.Services[0]}.desired(), compareAddrs()); d != "" {
		t.Errorf("services (-want +got)\n%s", d)
	}
	if d := cmp.Diff(in.Baselines, out.Baselines); d != "" {
		t.Errorf("baselines (-want +got)\n%s", d)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("files %v, %v; want the state file alone", left, err)
	}
}

// What a release has promoted comes back with the documents as they were applied.
func TestStateFileOfAPromotion(t *testing.T) {
	docs := applied(t, parse(t, checkout+`---
apiVersion: siskin.dev/v1alpha1
kind: Release
metadata: {name: checkout-v2}
spec:
  services: [checkout]
  version: canary
  strategy: {canary: {steps: [{weight: 1%, hold: 30s}, {pause: true}]}}
  checks: [{name: slow, compare: {metric: latency, quantile: 99%, tolerance: 20%}}]
  breaker: off
`)...)
	in, err := docs.promote("checkout-v2", 3, []string{"checkout"}, "canary", false)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := encodeState(saved{
		Services: in.services.sorted(), Documents: in.differing(), Releases: in.sortedReleases(), Promoted: in.promoted,
	})
	if err != nil {
		t.Fatal(err)
	}
	state, err := decodeState(raw)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, state.intent(), compareAddrs(), cmp.AllowUnexported(intent{})); d != "" {
		t.Errorf("intent (-want +got)\n%s", d)
	}
}

func compareAddrs() cmp.Option {
	return cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
}

// Every byte counts: one that is lost or changed makes the file unusable.
func TestStateFileDamaged(t *testing.T) {
	raw, err := encodeState(saved{Services: applied(t, parse(t, checkout)...).services.sorted()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeState(raw); err != nil {
		t.Fatalf("undamaged: %v", err)
	}
	for i := range len(raw) - 1 { // the last one is a newline
		flipped := slices.Clone(raw)
		flipped[i] ^= 1
		if _, err := decodeState(flipped); err == nil {
			t.Errorf("byte %d (%q became %q) was changed and nobody noticed", i, raw[i], flipped[i])
		}
		if _, err := decodeState(raw[:i]); !errors.Is(err, errCorrupt) {
			t.Errorf("cut after %d bytes: %v, want errCorrupt", i, err)
		}
	}
	later := strings.Replace(string(raw), `"format":1`, `"format":2`, 1)
	if _, err := decodeState([]byte(later)); !errors.Is(err, errCorrupt) {
		t.Errorf("another format: %v, want errCorrupt", err)
	}
}

func TestSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var names []string
	for i := range 2 {
		if err := os.WriteFile(path, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		to, err := setAside(path, now)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(to); err != nil || b[0] != byte(i) {
			t.Errorf("%s holds %v, %v; want %d", to, b, err, i)
		}
		names = append(names, filepath.Base(to))
	}
	want := []string{"state.json.corrupt-20260102T030405Z", "state.json.corrupt-20260102T030405Z-2"}
	if !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
}

func TestCompare(t *testing.T) {
	now := applied(t, parse(t, checkout)...)
	for name, tc := range map[string]struct {
		text, outcome string
		lines         []string
	}{
		"same": {checkout, api.OutcomeUnchanged, nil},
		"weight": {strings.Replace(checkout, "5%", "25%", 1), api.OutcomeChanged,
			[]string{"- spec.weights.canary: 5%", "+ spec.weights.canary: 25%"}},
		"backend": {strings.Replace(checkout, `"10.1.0.2:8080", `, `"10.1.0.2:8080", "10.1.0.3:8080", `, 1), api.OutcomeChanged,
			[]string{"- spec.versions.stable.backends[1]: [2001:db8:1::2]:8080", "+ spec.versions.stable.backends[1]: 10.1.0.3:8080",
				"+ spec.versions.stable.backends[2]: [2001:db8:1::2]:8080"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, merges, err := now.with(parse(t, tc.text))
			if err != nil {
				t.Fatal(err)
			}
			m := merges["checkout"]
			if got := outcome(true, m.Diff); got != tc.outcome || !slices.Equal(m.Diff, tc.lines) {
				t.Errorf("%s with\n%s\nwant %s with\n%s", got, strings.Join(m.Diff, "\n"), tc.outcome, strings.Join(tc.lines, "\n"))
			}
		})
	}
	_, merges, err := intent{}.with(parse(t, checkout))
	if lines := merges["checkout"].Diff; err != nil || outcome(false, lines) != api.OutcomeCreated ||
		!slices.Contains(lines, "+ spec.versions.canary.backends[0].weight: 2") {
		t.Errorf("a new object: %v, %v", lines, err)
	}
}

// A service that is known from the kernel only becomes a document that says
// the same.
func TestDocumentOf(t *testing.T) {
	want := applied(t, parse(t, checkout)...).services.desired()
	doc := documentOf(want[0])
	if d := cmp.Diff(want[0], doc.Steering(), compareAddrs()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	lines, err := api.Diff(parse(t, checkout)[0].Service.Spec, doc.Spec)
	if err != nil || len(lines) != 0 {
		t.Errorf("differs from the document: %v, %v", lines, err)
	}
}

func TestChoose(t *testing.T) {
	eth0 := candidate{name: "eth0", index: 2, xdp: true}
	veth1 := candidate{name: "veth1", index: 5}
	br0, port := candidate{name: "br0", index: 7}, candidate{name: "port", master: 7, index: 8}
	for name, tc := range map[string]struct {
		clients, backends, want []candidate
	}{
		"both":                       {[]candidate{eth0}, []candidate{veth1}, []candidate{eth0, veth1}},
		"the same":                   {[]candidate{eth0}, []candidate{{name: "eth0", index: 2}, veth1, veth1}, []candidate{eth0, veth1}},
		"clients come by the bridge": {[]candidate{br0}, []candidate{port, veth1}, []candidate{br0, veth1}},
		"clients come by a port":     {[]candidate{port}, []candidate{br0}, []candidate{port}},
		"a bridge of containers":     {[]candidate{eth0}, []candidate{br0}, []candidate{eth0, br0}},
	} {
		if got := choose(tc.clients, tc.backends); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(slog.New(slog.DiscardHandler))
		if got, err := j.after(t.Context(), 0, false); err != nil || got == nil || len(got) != 0 {
			t.Errorf("empty: %v, %v; want an empty list", got, err)
		}
		woken := make(chan []api.Event)
		go func() {
			got, err := j.after(t.Context(), 0, true)
			if err != nil {
				t.Error(err)
			}
			woken <- got
		}()
		synctest.Wait() // it waits for an event
		j.normal("daemon", "First", "1")
		if got := <-woken; len(got) != 1 || got[0].Seq != 1 || got[0].Reason != "First" {
			t.Errorf("woken with %+v, want the first event", got)
		}
		for i := range eventsKept + 5 {
			j.warn("daemon", "More", fmt.Sprint(i))
		}
		got, err := j.after(t.Context(), 0, false)
		if err != nil || len(got) != eventsKept || got[0].Seq != 7 || got[len(got)-1].Seq != eventsKept+6 {
			t.Errorf("%d events from %d to %d, %v; want the last %d", len(got), got[0].Seq, got[len(got)-1].Seq, err, eventsKept)
		}
		if got, err := j.after(t.Context(), eventsKept+4, false); err != nil || len(got) != 2 {
			t.Errorf("%d events, %v; want 2", len(got), err)
		}
		if got, err := j.after(t.Context(), 1<<40, false); err != nil || len(got) != eventsKept {
			t.Errorf("after a number from before a restart: %d events, %v; want all", len(got), err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if _, err := j.after(ctx, eventsKept+6, true); !errors.Is(err, context.Canceled) {
			t.Errorf("ended wait: %v, want context.Canceled", err)
		}
	})
}

func TestFlowView(t *testing.T) {
	key := bpf.FlowKey{Client: bpf.AddrFrom(netip.MustParseAddr("198.18.0.7")), Port: bpf.Port(4000), Proto: 6,
		Vip: bpf.AddrFrom(netip.MustParseAddr("198.18.0.10")), Vport: bpf.Port(80)}
	to := owner{"checkout", "canary", netip.MustParseAddrPort("10.1.0.4:8080")}
	const second = uint64(time.Second)
	f := bpf.Flow{OpenedNs: 100 * second, Seen: 1<<32 - 100, Flags: bpf.FlowAnswered | bpf.FlowEstablished | bpf.FlowSNAT, Port: bpf.Port(61000)}
	now := clock{ns: 104 * second, ticks: 150, tick: 4 * time.Millisecond} // the ticks have gone round
	got := flowView(key, f, to, now)
	if got.Client != "198.18.0.7:4000" || got.Backend != "10.1.0.4:8080" || got.State != api.FlowEstablished || !got.SourceNAT || got.SourcePort != 61000 || got.Frontend != "198.18.0.10:80/tcp" {
		t.Errorf("%+v", got)
	}
	if got.AgeSeconds != 4 || got.IdleSeconds != 1 {
		t.Errorf("age %v, idle %v; want 4 and 1", got.AgeSeconds, got.IdleSeconds)
	}
	f.OpenedNs, f.Seen = 104*second, 151 // after the timer ran last
	if got := flowView(key, f, to, now); got.IdleSeconds != 0 || got.AgeSeconds != 0 {
		t.Errorf("seen in the future: age %v, idle %v; want 0", got.AgeSeconds, got.IdleSeconds)
	}
	for flags, want := range map[uint32]string{
		0:                                       api.FlowSyn,
		bpf.FlowAnswered:                        api.FlowSyn,
		bpf.FlowAnswered | bpf.FlowEstablished:  api.FlowEstablished,
		bpf.FlowEstablished | bpf.FlowFinServer: api.FlowClosing,
		bpf.FlowEstablished | bpf.FlowClosed:    api.FlowClosed,
		bpf.FlowFinClient | bpf.FlowFinServer:   api.FlowClosing,
	} {
		if got := flowState(uint8(steering.TCP), bpf.Flow{Flags: flags}); got != want {
			t.Errorf("flags %#x: %s, want %s", flags, got, want)
		}
	}
}

func TestFlowStateUDP(t *testing.T) {
	for flags, want := range map[uint32]string{0: api.FlowSyn, bpf.FlowAnswered: api.FlowEstablished, bpf.FlowAnswered | bpf.FlowClosed: api.FlowClosed} {
		if got := flowState(uint8(steering.UDP), bpf.Flow{Flags: flags}); got != want {
			t.Errorf("flags %#x: %s, want %s", flags, got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	key := bpf.FlowKey{Client: bpf.AddrFrom(netip.MustParseAddr("2001:db8::7"))}
	to := owner{"checkout", "canary", netip.MustParseAddrPort("10.1.0.4:8080")}
	for _, tc := range []struct {
		want api.FlowFilter
		ok   bool
	}{
		{api.FlowFilter{}, true},
		{api.FlowFilter{Service: "checkout", Version: "canary", Backend: "10.1.0.4:8080", Client: "2001:db8::7", State: api.FlowSyn}, true},
		{api.FlowFilter{Service: "cart"}, false},
		{api.FlowFilter{Version: steering.Stable}, false},
		{api.FlowFilter{Backend: "10.1.0.4:80"}, false},
		{api.FlowFilter{Client: "2001:db8::8"}, false},
		{api.FlowFilter{State: api.FlowClosed}, false},
	} {
		if got := matches(tc.want, key, bpf.Flow{}, to); got != tc.ok {
			t.Errorf("%+v: %t, want %t", tc.want, got, tc.ok)
		}
	}
}

func TestLoopbackName(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:9464": true, "localhost:9464": true, "localhost": true, "[::1]:9464": true, "[::1]": true, "127.9.9.9": true,
		"evil.example:9464": false, "198.18.0.1:9464": false, "": false, "localhost.evil.example": false,
	} {
		if got := loopbackName(host); got != want {
			t.Errorf("%q: %t, want %t", host, got, want)
		}
	}
}

func TestForgottenBy(t *testing.T) {
	old := applied(t, parse(t, checkout)...).services
	was := saved{Services: old.sorted(), Live: map[string]map[string]steering.Share{
		"checkout": {"stable": 9900, "canary": 100}, "gone": {"canary": 1},
	}}
	changed := applied(t, parse(t, strings.Replace(checkout, "5%", "25%", 1))...).services
	renamed := applied(t, parse(t, strings.ReplaceAll(checkout, "canary", "beta"))...).services
	want := map[string]map[string]steering.Share{"checkout": {"canary": 100}}
	for name, tc := range map[string]struct {
		known, next documents
		want        map[string]map[string]steering.Share
	}{
		"the kernel knows":        {old, old, nil},
		"the kernel forgot":       {nil, old, want},
		"the document changed it": {nil, changed, nil},
		"the version is another":  {nil, renamed, nil},
		"the service is gone":     {nil, documents{}, nil},
	} {
		got := was.forgottenBy(tc.known, tc.next)
		if len(got) != len(tc.want) || len(got) > 0 && !cmp.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestFaultsOf(t *testing.T) {
	err := errors.Join(errors.Join(errors.New("service a: full"), errors.New("service ab: x")), errors.New("daemon: y"),
		fmt.Errorf("service a: wrapped: %w", os.ErrNotExist))
	if got, want := faultsOf("a", err), []string{"service a: full", "service a: wrapped: file does not exist"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := faultsOf("a", nil); got != nil {
		t.Errorf("without an error: %q", got)
	}
}
