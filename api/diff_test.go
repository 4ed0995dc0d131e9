package api

import (
	"slices"
	"testing"
)

func TestCompareFieldsCountsIndexes(t *testing.T) {
	in := []string{"a[10]", "a[9].b", "a[9]", "a", "b[1]", "a[2]"}
	slices.SortFunc(in, compareFields)
	if want := []string{"a", "a[2]", "a[9]", "a[9].b", "a[10]", "b[1]"}; !slices.Equal(in, want) {
		t.Errorf("%v, want %v", in, want)
	}
}
