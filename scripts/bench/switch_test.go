package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/scripts/bench/traffic"
)

func TestJudgeSwitch(t *testing.T) {
	const began, ended = 10_000_000, 14_000_000
	at := func(start int64, by string) traffic.Entry {
		return traffic.Entry{Start: start, End: start + 500_000, By: by}
	}
	tests := []struct {
		name string
		log  []traffic.Entry
		want Switch
		err  string
	}{
		{
			"at once", []traffic.Entry{at(9_000_000, "canary"), at(9_500_000, "stable"), at(11_000_000, "stable"), at(15_000_000, "stable")},
			Switch{Command: 4, Last: -1, Made: 2}, "",
		},
		{
			// What counts is when a connection began, not the order of the log.
			"during the command", []traffic.Entry{at(9_000_000, "canary"), at(13_000_000, "canary"), at(12_000_000, "canary"), at(15_000_000, "stable")},
			Switch{Command: 4, Last: 3, Made: 3}, "",
		},
		{
			"after the command", []traffic.Entry{at(9_000_000, "canary"), at(14_000_001, "canary"), at(20_000_000, "canary")},
			Switch{Command: 4, Last: 10, After: 2, Made: 2}, "",
		},
		{
			"no canary before", []traffic.Entry{at(9_000_000, "stable"), at(15_000_000, "stable")},
			Switch{Command: 4, Last: -10, Made: 1}, "the canary had no connections before the switch",
		},
		{
			"nothing after", []traffic.Entry{at(9_000_000, "canary")},
			Switch{Command: 4, Last: -1}, "no connection was made after the switch",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := judgeSwitch(tt.log, began, ended)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}
