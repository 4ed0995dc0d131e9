package api_test

import (
	"context"
	"errors"
	"os/user"
	"slices"
	"strings"
	"testing"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/api/apitest"
)

const checkoutV2 = `---
apiVersion: siskin.dev/v1alpha1
kind: Release
metadata: {name: checkout-v2}
spec:
  services: [checkout]
  version: canary
  strategy: {canary: {steps: [{weight: 1%, hold: 30s}, {weight: 50%, hold: 5m}]}}
`

func TestReleasesOverTheSocket(t *testing.T) {
	fake := apitest.New()
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{Control: fake})
	ctx := t.Context()
	if list, err := c.Releases(ctx); err != nil || list == nil || len(list) != 0 {
		t.Fatalf("none: %v, %v", list, err)
	}
	res, err := c.Apply(ctx, read(t, checkout+checkoutV2), false)
	if err != nil || len(res.Objects) != 2 || res.Objects[1].Kind != api.KindRelease || len(res.Objects[1].Warnings) == 0 {
		t.Fatalf("apply: %+v, %v", res, err)
	}
	var phases []string
	for _, step := range []struct {
		verb string
		full bool
	}{{api.VerbStart, false}, {api.VerbPause, false}, {api.VerbResume, false}, {api.VerbPromote, false}, {api.VerbAbort, false},
		{api.VerbRetry, false}, {api.VerbPromote, true}, {api.VerbUndo, false}} {
		v, err := c.DriveRelease(ctx, "checkout-v2", step.verb, step.full)
		if err != nil {
			t.Fatalf("%s: %v", step.verb, err)
		}
		phases = append(phases, v.Phase)
	}
	want := []string{"Progressing", "Paused", "Progressing", "Progressing", "Aborted", "Progressing", "Succeeded", "RolledBack"}
	if !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
	v, err := c.Release(ctx, "checkout-v2")
	if err != nil || len(v.History) != 8 || v.EvidenceLimit != 100 || len(v.Steps) != 2 || v.Steps[1].Weight != 5000 {
		t.Errorf("%+v, %v", v, err)
	}
	if me, err := user.Current(); err == nil && v.History[0].By != me.Username { // without a name: uid 1000
		t.Errorf("commanded by %q, want %s", v.History[0].By, me.Username)
	}
	if list, err := c.Releases(ctx); err != nil || len(list) != 1 || list[0].History != nil {
		t.Errorf("%+v, %v", list, err)
	}
	if err := c.Delete(ctx, api.KindRelease, "checkout-v2"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Release(ctx, "checkout-v2"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("after it was deleted: %v", err)
	}
}

func TestWatchingARelease(t *testing.T) {
	fake := apitest.New()
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{Control: fake, WatchInterval: 1})
	if _, err := c.Apply(t.Context(), read(t, checkout+checkoutV2), false); err != nil {
		t.Fatal(err)
	}
	seen := errors.New("seen enough")
	var phases []string
	err := c.WatchRelease(t.Context(), "checkout-v2", func(v api.ReleaseView) error {
		phases = append(phases, v.Phase)
		verb := map[string]string{"Pending": api.VerbStart, "Progressing": api.VerbAbort}[v.Phase]
		if verb == "" {
			return seen
		}
		_, err := fake.DriveRelease(context.Background(), v.Name, verb, false)
		return err
	})
	if !errors.Is(err, seen) || !slices.Equal(phases, []string{"Pending", "Progressing", "Aborted"}) {
		t.Errorf("%v, %v", phases, err)
	}
}

func TestWhatAReleaseRefuses(t *testing.T) {
	fake := apitest.New()
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{Control: fake})
	ctx := t.Context()
	_, alone := c.Apply(ctx, read(t, checkoutV2), false)
	var ps api.Problems
	if !errors.As(alone, &ps) || ps[0].Line != 6 || !strings.Contains(ps[0].Problem, "no service checkout") {
		t.Errorf("a release of a service that is not there: %v", alone)
	}
	if _, err := c.Apply(ctx, read(t, checkout+checkoutV2), false); err != nil {
		t.Fatal(err)
	}
	_, noRelease := c.DriveRelease(ctx, "nobody", api.VerbStart, false)
	_, noVerb := c.DriveRelease(ctx, "checkout-v2", "jump", false)
	_, notNow := c.DriveRelease(ctx, "checkout-v2", api.VerbResume, false)
	_, full := c.DriveRelease(ctx, "checkout-v2", api.VerbStart, true)
	for name, c := range map[string]struct{ err, want error }{
		"no release":    {noRelease, api.ErrNotFound},
		"no verb":       {noVerb, api.ErrNotFound},
		"not now":       {notNow, api.ErrConflict},
		"start --full":  {full, api.ErrInvalid},
		"no service":    {c.Report(ctx, "nobody", "canary", api.Outcomes{Success: 1}), api.ErrNotFound},
		"no version":    {c.Report(ctx, "checkout", "nobody", api.Outcomes{Success: 1}), api.ErrNotFound},
		"empty report":  {c.Report(ctx, "checkout", "canary", api.Outcomes{}), api.ErrInvalid},
		"delete others": {c.Delete(ctx, api.KindRelease, "checkout"), api.ErrNotFound},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	for range 2 {
		if err := c.Report(ctx, "checkout", "canary", api.Outcomes{Success: 120, Failure: 3}); err != nil {
			t.Fatal(err)
		}
	}
	if got := fake.Reports["checkout/canary"]; got != (api.Outcomes{Success: 240, Failure: 6}) {
		t.Errorf("reported %+v", got)
	}
}
