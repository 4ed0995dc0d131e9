package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/api/apitest"
)

func TestRequests(t *testing.T) {
	fake := apitest.New()
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{Control: fake})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Apply(ctx, read(t, checkout), false); err != nil {
		t.Fatal(err)
	}
	v, err := c.Requests(ctx, "checkout", 5*time.Second)
	if err != nil || v.Seconds != 5 || len(v.Versions) != 2 || v.Versions[1].Answers.Code5xx != 50 || v.Versions[1].Failures() != 50 {
		t.Errorf("one interval: %+v, %v", v, err)
	}
	if _, err := c.Requests(ctx, "nobody", time.Second); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("of an unknown service: %v", err)
	}
	if err := c.WatchRequests(ctx, "nobody", time.Second, nil); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a watch of an unknown service: %v", err)
	}
	for _, interval := range []time.Duration{0, api.MinRequestsInterval - 1, api.MaxRequestsInterval + 1} {
		if _, err := c.Requests(ctx, "", interval); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("an interval of %v: %v", interval, err)
		}
	}
	enough := errors.New("enough")
	var ends []int64
	err = c.WatchRequests(ctx, "", time.Second, func(v api.RequestsView) error {
		if ends = append(ends, v.EndNs); len(ends) == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || len(ends) != 3 || ends[2]-ends[0] != int64(2*time.Second) {
		t.Errorf("three intervals end at %v, %v", ends, err)
	}
}
