package conduct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	prometheus "github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"siskin.dev/siskin/api"
)

// samplesKept bounds what is kept of one source.
const samplesKept = 1000

// samples are the numbers that a source outside has given for a check. A last
// one of NaN says that it gives none now: no data, which is never a pass.
type samples struct {
	version, stable []float64
	said            string // the last one in words; "": it is a number
	stale           bool   // the last one was asked for before the present weight, of which it says nothing
	asked           int    // in which weight
	problem         string // why the last one is missing
}

// sources ask for the checks of a run that others answer.
type sources struct {
	mu      sync.Mutex
	weight  int           // counts them
	again   chan struct{} // closed when the next one begins
	samples map[string]samples
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// askSources begins to ask. close ends it.
func askSources(ctx context.Context, checks []api.ReleaseCheck) *sources {
	ctx, stop := context.WithCancel(ctx)
	s := &sources{again: make(chan struct{}), samples: map[string]samples{}, stop: stop}
	for _, c := range checks {
		switch {
		case c.Webhook != nil:
			s.every(ctx, time.Duration(c.Webhook.Interval), c.Name, webhook(c.Webhook))
		case c.Prometheus != nil:
			s.every(ctx, time.Duration(c.Prometheus.Interval), c.Name, query(c.Prometheus))
		}
	}
	return s
}

// renew asks anew: the version has another weight.
func (s *sources) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.again)
	s.weight, s.again = s.weight+1, make(chan struct{})
}

func (s *sources) present() (weight int, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.weight, s.again
}

func (s *sources) close() {
	s.stop()
	s.wg.Wait()
}

func (s *sources) all() map[string]samples {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]samples, len(s.samples))
	for name, v := range s.samples {
		v.stale = v.asked != s.weight
		out[name] = v
	}
	return out
}

// answer is one number for the version, and one for stable where it is asked.
type answer struct {
	version, stable float64
	said            string // in words; "": it is a number
}

func (s *sources) every(ctx context.Context, interval time.Duration, name string, ask func(context.Context) (answer, error)) {
	s.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			asked, again := s.present()
			a, err := ask(ctx)
			if ctx.Err() != nil {
				return
			}
			s.take(name, asked, a, err)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-again:
				tick.Reset(interval)
			}
		}
	})
}

func (s *sources) take(name string, asked int, a answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.samples[name]
	v.problem = ""
	if err != nil {
		a, v.problem = answer{version: math.NaN(), stable: math.NaN()}, err.Error()
	}
	v.said, v.asked = a.said, asked
	// Readers hold the old slices: appending past their end is not seen there.
	v.version, v.stable = last(append(v.version, a.version)), last(append(v.stable, a.stable))
	s.samples[name] = v
}

func last(v []float64) []float64 { return v[max(0, len(v)-samplesKept):] }

// webhook gives 1 for an answer of 2xx, 0 for any other; no answer is no data.
func webhook(c *api.WebhookCheck) func(context.Context) (answer, error) {
	return func(ctx context.Context) (answer, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
		if err != nil {
			return answer{}, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return answer{}, err
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		a := answer{said: "it answers " + resp.Status}
		if resp.StatusCode/100 == 2 {
			a.version = 1
		} else if why := oneLine(body); why != "" {
			a.said += ": " + why
		}
		return a, nil
	}
}

// oneLine is the beginning of a text, fit for a reason.
func oneLine(text []byte) string {
	line := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(text), ""), func(r rune) bool { return !unicode.IsGraphic(r) || r == ' ' }), " ")
	if r := []rune(line); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return line
}

// query asks a Prometheus server for one number, or two.
func query(c *api.PrometheusCheck) func(context.Context) (answer, error) {
	client, err := prometheus.NewClient(prometheus.Config{Address: c.Address})
	return func(ctx context.Context) (answer, error) {
		if err != nil {
			return answer{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
		defer cancel()
		version, err := number(ctx, client, c.Query)
		if err != nil || c.Control == "" {
			return answer{version: version}, err
		}
		stable, err := number(ctx, client, c.Control)
		return answer{version: version, stable: stable}, err
	}
}

// number is the one value that a query gives.
func number(ctx context.Context, client prometheus.Client, query string) (float64, error) {
	value, _, _, err := v1.NewAPI(client).Query(ctx, query, time.Now())
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", query, err)
	}
	switch v := value.(type) {
	case *model.Scalar:
		return float64(v.Value), nil
	case model.Vector:
		switch len(v) {
		case 1:
			return float64(v[0].Value), nil
		case 0:
			return 0, errors.New("the query gives no value")
		}
		return 0, fmt.Errorf("the query gives %d values: aggregate them to one, as with sum()", len(v))
	}
	return 0, fmt.Errorf("the query gives a %s, not one number", value.Type())
}
