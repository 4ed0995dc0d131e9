package daemon

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"siskin.dev/siskin/api"
)

func TestWithFiles(t *testing.T) {
	unreadable := errors.New("unreadable")
	one := parse(t, checkout)
	other := parse(t, strings.Replace(checkout, "name: checkout", "name: other", 1)) // on the same frontends
	before, wrong := applied(t, one...), applied(t, slices.Concat(one, other)...)
	for _, tc := range []struct {
		name    string
		before  intent
		files   []api.Document
		fileErr error
		want    string // "next", "refused" or "err"
		count   int    // of services in next
	}{
		{"no files", before, nil, nil, "next", 1},
		{"nothing at all", intent{}, nil, nil, "next", 0},
		{"good files", intent{}, one, nil, "next", 1},
		{"a clash with earlier ones", before, other, nil, "refused", 1},
		{"unreadable files", before, nil, unreadable, "refused", 1},
		{"unreadable files, nothing before", intent{}, nil, unreadable, "err", 0},
		{"files that clash, nothing before", intent{}, slices.Concat(one, other), nil, "err", 0},
		{"unreadable files, wrong ones before", wrong, nil, unreadable, "err", 0},
		{"no files, wrong ones before", wrong, nil, nil, "err", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next, refused, err := tc.before.withFiles(tc.files, tc.fileErr)
			if (refused != nil) != (tc.want == "refused") || (err != nil) != (tc.want == "err") || len(next.services) != tc.count {
				t.Errorf("%d services, refused: %v, error: %v; want %s with %d", len(next.services), refused, err, tc.want, tc.count)
			}
			if tc.fileErr != nil && !errors.Is(errors.Join(refused, err), tc.fileErr) {
				t.Errorf("refused: %v, error: %v; neither tells why", refused, err)
			}
		})
	}
}
