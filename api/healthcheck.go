package api

import (
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"siskin.dev/siskin/steering"
)

func (r *reader) healthCheck(n ast.Node, path string) *HealthCheck {
	h := &HealthCheck{Interval: Duration(time.Second), Timeout: Duration(500 * time.Millisecond), Rise: 2, Fall: 3}
	kinds := 0
	kind := func(read func(ast.Node, string)) func(ast.Node, string) {
		return func(n ast.Node, path string) { kinds++; read(n, path) }
	}
	r.fields(n, path,
		field{"http", false, kind(func(n ast.Node, path string) { h.HTTP = r.httpCheck(n, path) })},
		field{"tcp", false, kind(func(n ast.Node, path string) { h.TCP = &struct{}{}; r.fields(n, path) })},
		field{"grpc", false, kind(func(n ast.Node, path string) {
			h.GRPC = &GRPCCheck{}
			r.fields(n, path, field{"service", false, func(n ast.Node, path string) { h.GRPC.Service, _ = r.text(n, path) }})
		})},
		field{"exec", false, kind(func(n ast.Node, path string) { h.Exec = r.execCheck(n, path) })},
		field{"interval", false, func(n ast.Node, path string) { r.duration(n, path, &h.Interval) }},
		field{"timeout", false, func(n ast.Node, path string) { r.duration(n, path, &h.Timeout) }},
		field{"rise", false, func(n ast.Node, path string) { r.count(n, path, &h.Rise) }},
		field{"fall", false, func(n ast.Node, path string) { r.count(n, path, &h.Fall) }},
		field{"startup", false, func(n ast.Node, path string) {
			h.Startup = &Startup{FailureThreshold: 30, Interval: Duration(time.Second)}
			r.fields(n, path,
				field{"failureThreshold", false, func(n ast.Node, path string) { r.count(n, path, &h.Startup.FailureThreshold) }},
				field{"interval", false, func(n ast.Node, path string) { r.duration(n, path, &h.Startup.Interval) }},
			)
		}},
	)
	if kinds != 1 {
		r.fail(n, path, "has %d kinds of check: write exactly one of http, tcp, grpc or exec", kinds)
	}
	return h
}

// count reads a number of probes.
func (r *reader) count(n ast.Node, path string, to *int) {
	if v, ok := r.integer(n, path, 1, math.MaxInt16); ok {
		*to = int(v)
	}
}

func (r *reader) httpCheck(n ast.Node, path string) *HTTPCheck {
	c := &HTTPCheck{Path: "/", Expect: "200-299"}
	r.fields(n, path,
		field{"path", false, func(n ast.Node, path string) {
			s, ok := r.text(n, path)
			switch {
			case !ok:
			case !strings.HasPrefix(s, "/"):
				r.fail(n, path, "%q does not begin with a slash: write /%s", s, s)
			case !requestable(s):
				r.fail(n, path, "%q is not a path that can be asked for: write odd characters as in /a%%20b", s)
			default:
				c.Path = s
			}
		}},
		field{"host", false, func(n ast.Node, path string) {
			s, ok := r.text(n, path)
			if ok && !hostname(s) {
				r.fail(n, path, "%q is not a host: write a name or an address, and a port if need be", s)
			} else if ok {
				c.Host = s
			}
		}},
		field{"expect", false, func(n ast.Node, path string) {
			if _, ok := n.(*ast.IntegerNode); ok {
				c.Expect = n.GetToken().Value // 200 needs no quotes
			} else if s, ok := r.text(n, path); ok {
				c.Expect = s
			}
			if !statuses(c.Expect) {
				r.fail(n, path, "%q is not a set of HTTP statuses: write it as in 200-299 or 200,204", c.Expect)
			}
		}},
	)
	return c
}

// requestable tells whether a path, with a query perhaps, can stand in a
// request.
func requestable(path string) bool {
	u, err := url.ParseRequestURI(path)
	return err == nil && u.Fragment == "" && !strings.ContainsAny(path, " #")
}

// hostname tells whether s can stand in a Host header: no more is asked of it.
func hostname(s string) bool {
	u, err := url.Parse("http://" + s)
	return err == nil && u.Host == s && s != ""
}

// statuses tells whether s is a list of HTTP statuses and ranges of them.
func statuses(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		a, err := strconv.Atoi(low)
		b, err2 := strconv.Atoi(high)
		if err != nil || err2 != nil || a < 100 || b > 599 || a > b {
			return false
		}
	}
	return true
}

func (r *reader) execCheck(n ast.Node, path string) *ExecCheck {
	c := &ExecCheck{}
	r.fields(n, path, field{"command", true, func(n ast.Node, path string) { c.Command = r.command(n, path) }})
	return c
}

// command reads a program and its arguments.
func (r *reader) command(n ast.Node, path string) []string {
	var out []string
	r.list(n, path, func(n ast.Node, path string) {
		if s, ok := r.text(n, path); ok {
			out = append(out, s)
		}
	})
	if len(out) == 0 {
		r.fail(n, path, "is empty: write the program and its arguments")
	}
	return out
}

// uncheckable says why a health check may not tell what its author thinks.
func (s ServiceSpec) uncheckable() string {
	switch h := s.HealthCheck; {
	case h == nil || h.Exec != nil:
		return ""
	case !slices.ContainsFunc(s.Frontends, func(f Frontend) bool { return f.Proto == steering.TCP }):
		return "asks the backends by TCP, but all frontends are UDP: let them listen on both, or ask with exec"
	}
	return ""
}
