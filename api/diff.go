package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Diff compares two specs field by field, as the documents write them. Each
// line begins with "- " or "+ "; before may be nil.
func Diff(before, after any) ([]string, error) {
	old, err := flatten(before)
	if err != nil {
		return nil, err
	}
	now, err := flatten(after)
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(old)
	maps.Copy(fields, now)
	var lines []string
	for _, field := range slices.SortedFunc(maps.Keys(fields), compareFields) {
		was, had := old[field]
		is, has := now[field]
		if had && has && was == is {
			continue
		}
		if had {
			lines = append(lines, "- "+field+": "+was)
		}
		if has {
			lines = append(lines, "+ "+field+": "+is)
		}
	}
	return lines, nil
}

// tree is a value as its JSON: maps, lists and scalars.
func tree(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("compare specs: %w", err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("compare specs: %w", err)
	}
	return out, nil
}

// flatten lists the fields of a spec by their paths.
func flatten(spec any) (map[string]string, error) {
	out := make(map[string]string)
	t, err := tree(spec)
	if err == nil {
		walk("spec", t, out)
	}
	return out, err
}

func walk(path string, node any, out map[string]string) {
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			walk(path+"."+k, v, out)
		}
	case []any:
		for i, v := range n {
			walk(path+"["+strconv.Itoa(i)+"]", v, out)
		}
	case nil:
	default:
		out[path] = fmt.Sprint(n)
	}
}

// compareFields orders paths so that [10] comes after [9].
func compareFields(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na >= 0 && nb >= 0 {
			if na != nb {
				return na - nb
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// leadingNumber returns the number that s begins with, and the rest; -1
// without one.
func leadingNumber(s string) (int, string) {
	i := 0
	for i < len(s) && i < 9 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi(s[:i])
	if err != nil {
		return -1, s
	}
	return n, s[i:]
}
