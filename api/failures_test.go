package api

import (
	"slices"
	"testing"
)

func TestFailures(t *testing.T) {
	f := Failures{HTTP: []string{"503", "429", "503"}, GRPC: []string{"UNAVAILABLE", "CANCELLED"}}
	if got := f.Statuses(); !slices.Equal(got, []int{429, 503}) {
		t.Errorf("statuses %v", got)
	}
	if got := f.Codes(); !slices.Equal(got, []int{1, 14}) {
		t.Errorf("codes %v", got)
	}
	if got := (Failures{HTTP: []string{"5xx", "502"}}).Statuses(); len(got) != 100 || got[0] != 500 || got[99] != 599 {
		t.Errorf("5xx is %v", got)
	}
	if got := defaultFailures().Codes(); !slices.Equal(got, []int{2, 4, 12, 13, 14, 15}) {
		t.Errorf("the default codes are %v", got)
	}
}
